"""The generated header of a runbook: what its policies say, in their own words.

Facts that the code knows stand between two markers and are rewritten by
`python -m alerts runbooks --write`; everything else on the page is written by people and never
touched.
"""

from __future__ import annotations

from pathlib import Path

from alerts.policy import Catalog, Policy
from alerts.wording import closing_words, condition_words
from speakfit.errors import CatalogError
from speakfit.runbook import BEGIN, END


def page_path(folder: Path, subject: str) -> Path:
    """Where the runbook of a subject is."""
    return folder / f"{subject}.md"


def header(policies: tuple[Policy, ...]) -> str:
    """The table of the policies that share one runbook."""
    lines = [BEGIN, "", "| policy | fires when | closed by | owner |", "|---|---|---|---|"]
    for policy in policies:
        joint = ", **and** " if policy.needs_all else ", **or** "
        when = joint.join(condition_words(condition) for condition in policy.conditions)
        lines.append(f"| `{policy.id}` | {when} | {closing_words(policy)} | {policy.owner} |")
    return "\n".join([*lines, "", END])


def with_header(text: str, policies: tuple[Policy, ...], *, where: str) -> str:
    """The page with its header renewed; a CatalogError when it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CatalogError(
            "The runbook has no generated part.",
            where=where,
            todo=f"Put these two lines under its title: {BEGIN} and {END}",
        )
    return before + header(policies) + after


def current_pages(catalog: Catalog, folder: Path) -> dict[str, tuple[str, str]]:
    """Each runbook of the catalog as it is and as it should be; a CatalogError when one lacks."""
    pages: dict[str, tuple[str, str]] = {}
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
        pages[subject] = (text, with_header(text, policies, where=str(path)))
    return pages
