"""`drift`: what was changed in Cloud Monitoring behind the catalog's back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_CHANGES,
    EXIT_FINE,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    count,
    print_json,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.difference import Glossary
    from alerts.drift import Drift, Survey


def drift(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    ignore_unmanaged: Annotated[
        bool,
        typer.Option("--ignore-unmanaged", help="Do not tell of policies that no code claims."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was changed in Cloud Monitoring outside the catalog.

    Edited (fields, by whom, when), deleted, left behind, unmanaged, invalid: exit code 2 when
    there is any. A change in code that is not applied yet is no drift.
    """
    from alerts.catalog import load_catalog
    from alerts.drift import State, survey
    from alerts.report import glossary
    from alerts.session import open_session

    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        live = session.read()
        found = survey(session.desired, live)
    told = tuple(
        one for one in found.drifts if not (ignore_unmanaged and one.state is State.UNMANAGED)
    )
    if as_json:
        print_json({"target": str(session.target), **_survey_json(found, told)})
    else:
        _tell_survey(session.out, found, told, glossary(loaded, live))
    raise typer.Exit(EXIT_CHANGES if told else EXIT_FINE)


_SIGNS = {
    "edited": ("~", "yellow"),
    "deleted": ("-", "red"),
    "left behind": ("?", "yellow"),
    "unmanaged": ("+", "cyan"),
    "invalid": ("!", "red"),
}


def _tell_survey(out: Console, found: Survey, told: tuple[Drift, ...], words: Glossary) -> None:
    from alerts.report import edit_lines, tell_lines

    for one in told:
        sign, colour = _SIGNS[one.state]
        head = f"  {sign} {one.state} {one.kind} {one.id}"
        line = head + (f": {one.title!r}" if one.title else "")
        line += f", {_last_edit(one)}" if _last_edit(one) else ""
        line += f"  ({one.detail})" if one.detail else ""
        tell(out, line, (head, colour))
        if one.change is not None:
            tell_lines(out, edit_lines(one.change, words, channels=found.plan.channel_names))
    tell(out, _outcome(found, told))
    for line in _advice(told):
        tell(out, f"  {line}")


def _last_edit(one: Drift) -> str:
    """By whom and when a live resource was last written."""
    by = f"by {one.by}" if one.by else ""
    at = f"at {one.at}" if one.at else ""
    return f"{by} {at}".strip()


def _outcome(found: Survey, told: tuple[Drift, ...]) -> str:
    states = list(dict.fromkeys(one.state for one in told))
    counts = [f"{sum(1 for one in told if one.state is state)} {state}" for state in states]
    parts = [f"Drift: {', '.join(counts)}" if counts else "No drift"]
    parts.append(f"{found.clean} as the catalog wants")
    if found.pending:
        parts.append(f"{count(found.pending, 'change')} in code not applied yet")
    if found.others:
        parts.append(f"{count(found.others, 'policy')} of others left alone")
    return "; ".join(parts) + "."


def _advice(told: tuple[Drift, ...]) -> list[str]:
    from alerts.drift import State

    states = {one.state for one in told}
    advice = []
    if states & {State.EDITED, State.DELETED}:
        advice.append("`python -m alerts apply` puts back what the catalog says.")
    if State.LEFT in states:
        advice.append("`python -m alerts apply --prune` deletes what is left behind.")
    if State.UNMANAGED in states:
        advice.append("`python -m alerts adopt ID --as SUBJECT-SEVERITY` makes a policy ours.")
    return advice


def _survey_json(found: Survey, told: tuple[Drift, ...]) -> dict[str, Any]:
    return {
        "drift": [
            {
                "state": str(one.state),
                "kind": str(one.kind),
                "id": one.id,
                "title": one.title,
                "name": one.name,
                "by": one.by,
                "at": one.at,
                "detail": one.detail,
                "fields": [
                    {"path": field.path, "catalog": field.desired, "live": field.live}
                    for field in one.fields
                ],
            }
            for one in told
        ],
        "clean": found.clean,
        "pending": found.pending,
        "others": found.others,
    }
