"""`plan` and `apply`: what must change in Cloud Monitoring, and changing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.commands.history import replay_changes
from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_CHANGES,
    EXIT_FINE,
    EXIT_REFUSED,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    PruneOption,
    approved,
    count,
    parse_span,
    print_json,
    tell,
)
from speakfit.errors import ApplyError

if TYPE_CHECKING:
    from alerts.plan import Change
    from speakfit.target import Target


def plan(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    behaviour: Annotated[
        bool,
        typer.Option("--behaviour", help="Also show what it would have done on recorded history."),
    ] = False,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="With --behaviour: a history that record wrote, instead of the target's.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN",
            help="With --behaviour: how far back. [default: 14d, or all of --from]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what apply would change.

    Exit code 2 when there is something, 0 when not. Policies that left the catalog are shown and
    kept, unless --prune.
    """
    from alerts.catalog import load_catalog
    from alerts.report import glossary, plan_json, tell_plan
    from alerts.session import open_session

    if not behaviour and (from_file is not None or since is not None):
        raise typer.BadParameter("--from and --since say what --behaviour replays; it is missing.")
    span = None if since is None else parse_span(since, "--since")
    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        live = session.read()
        planned = session.plan(live, prune=prune)
        if not as_json:
            tell_plan(session.out, planned, glossary(loaded, live), prune=prune)
        told = replay_changes(session, planned.changes, from_file, span) if behaviour else None
    if as_json:
        document = {"target": str(session.target), **plan_json(planned)}
        if behaviour:
            document["behaviour"] = None if told is None else told.to_json()
        print_json(document)
    elif behaviour:
        nothing = ["On recorded history: no policy changes, so nothing does."]
        for line in told.lines() if told is not None else nothing:
            tell(session.out, line)
    raise typer.Exit(EXIT_CHANGES if planned.changes else EXIT_FINE)


def apply(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Do not ask; needed where nobody can answer.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make Cloud Monitoring equal to the catalog.

    Asks on a terminal and needs --auto-approve elsewhere. Touches nothing that is not labelled
    as this catalog's.
    """
    from alerts.apply import apply_plan
    from alerts.catalog import load_catalog
    from alerts.report import PAST, glossary, tell_plan
    from alerts.session import open_session

    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        live = session.read()
        planned = session.plan(live, prune=prune)
        if not as_json:
            tell_plan(session.out, planned, glossary(loaded, live), prune=prune)
        if planned.changes and not auto_approve and not approved(as_json):
            raise typer.Exit(EXIT_REFUSED)
        session.require_keys(planned)
        done: list[Change] = []

        def on_done(change: Change) -> None:
            done.append(change)
            if not as_json:
                tell(session.out, f"{PAST[change.action]} {change.kind} {change.id}")

        try:
            apply_plan(session.gateway, planned, keys=session.keys, on_done=on_done)
        except ApplyError:
            left = planned.changes[len(done) :]
            if as_json:
                print_json(_applied_json(session.target, done, left))
            else:
                for change in left:
                    tell(session.out, f"not done: {change.action} {change.kind} {change.id}")
            raise
    if as_json:
        print_json(_applied_json(session.target, done, ()))
    elif done:
        tell(session.out, f"Applied {count(len(done), 'change')}.")


def _applied_json(target: Target, done: list[Change], left: tuple[Change, ...]) -> dict[str, Any]:
    from alerts.report import change_json

    return {
        "target": str(target),
        "done": [change_json(change) for change in done],
        "not_done": [change_json(change) for change in left],
    }
