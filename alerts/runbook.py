"""The generated header of a runbook: what its policies say, in their own words.

Facts that the code knows stand between two markers and are rewritten by
`python -m alerts runbooks --write`; everything else on the page is written by people and never
touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alerts.policy import Catalog, Policy
from alerts.wording import closing_words, condition_words
from speakfit.errors import CatalogError
from speakfit.runbook import BEGIN, END


def page_path(folder: Path, subject: str) -> Path:
    """Where the runbook of a subject is."""
    return folder / f"{subject}.md"


def drill_times(file: Path) -> dict[str, str]:
    """How long each policy's last passing drill took, in words; empty when none is recorded.

    A CatalogError when the record is damaged.
    """
    try:
        entries: Any = json.loads(file.read_text(encoding="utf-8"))
        return {str(entry["policy"]): _drill_words(entry) for entry in entries}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            "The record of drills is damaged.",
            where=str(file),
            todo="Take it from the last commit, or run the drills again.",
        ) from error


def _drill_words(entry: Mapping[str, Any]) -> str:
    paged, resolved = (
        f"{seconds // 60} min {seconds % 60:02d} s"
        for seconds in (round(entry["detect_seconds"]), round(entry["resolve_seconds"]))
    )
    return f"{entry['date']}: paged after {paged}, resolved {resolved} after the fix"


def header(policies: tuple[Policy, ...], drills: Mapping[str, str]) -> str:
    """The policies that share one runbook, as a list: a phone shows no wide table."""
    lines = [BEGIN, ""]
    for policy in policies:
        joint = ", **and** " if policy.needs_all else ", **or** "
        when = joint.join(condition_words(condition) for condition in policy.conditions)
        lines += [
            f"- **`{policy.id}`**: {when}.",
            f"  - Closed by {closing_words(policy)}.",
            f"  - Owner: {policy.owner}.",
        ]
        if policy.id in drills:
            lines.append(f"  - Drill of {drills[policy.id]}.")
    return "\n".join([*lines, "", END])


def with_header(
    text: str, policies: tuple[Policy, ...], drills: Mapping[str, str], *, where: str
) -> str:
    """The page with its header renewed; a CatalogError when it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CatalogError(
            "The runbook has no generated part.",
            where=where,
            todo=f"Put these two lines under its title: {BEGIN} and {END}",
        )
    return before + header(policies, drills) + after


def current_pages(catalog: Catalog, folder: Path) -> dict[str, tuple[str, str]]:
    """Each runbook of the catalog as it is and as it should be; a CatalogError when one lacks."""
    pages: dict[str, tuple[str, str]] = {}
    drills = drill_times(folder.parent / "docs" / "drills.json")
    for subject in dict.fromkeys(policy.runbook for policy in catalog.policies):
        path = page_path(folder, subject)
        policies = tuple(policy for policy in catalog.policies if policy.runbook == subject)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CatalogError(
                f"The runbook of {', '.join(policy.id for policy in policies)} is not there.",
                where=str(path),
                todo="Write it; any other page of the folder shows the form.",
            ) from error
        pages[subject] = (text, with_header(text, policies, drills, where=str(path)))
    return pages
