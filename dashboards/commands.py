"""`list`, `plan`, `apply`, `drift` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from alerts.terminal import (
    EXIT_CHANGES,
    EXIT_FINE,
    EXIT_REFUSED,
    AutoApproveOption,
    EmulatorOption,
    JsonOption,
    MaxDeletesOption,
    ProjectOption,
    PruneOption,
    approved,
    check_deletes,
    console,
    count,
    print_json,
    tell,
)


def list_command(as_json: JsonOption = False) -> None:
    """List every dashboard and what it shows."""
    from dashboards.board import board_json
    from dashboards.catalog import BOARDS
    from dashboards.report import contents

    found = [
        {
            "id": board.id,
            "title": board.title,
            "shows": contents(board_json(board, catalog="", runbook_base_url="")),
            "policies": sorted({one for panel in board.panels() for one in panel.policies}),
            "metrics": sorted({one for panel in board.panels() for one in panel.metrics}),
        }
        for board in BOARDS
    ]
    if as_json:
        print_json(found)
        return
    out = console()
    wide = max(len(str(one["id"])) for one in found)
    for one in found:
        head = f"{one['id']:<{wide}}"
        tell(out, f"{head}  {one['title']}: {one['shows']}", (head, "bold"))


def plan(
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what apply would change.

    Exit code 2 when there is something, 0 when not. Dashboards that left the catalog are shown
    and kept, unless --prune.
    """
    from alerts.report import plan_json
    from dashboards.report import tell_plan
    from dashboards.session import open_session

    with open_session(emulator, project, as_json=as_json) as session:
        planned = session.plan(session.read(), prune=prune)
        if as_json:
            print_json({"target": str(session.target), **plan_json(planned)})
        else:
            tell_plan(session.out, planned, prune=prune)
    raise typer.Exit(EXIT_CHANGES if planned.changes else EXIT_FINE)


def apply(
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    max_deletes: MaxDeletesOption = None,
    auto_approve: AutoApproveOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make Cloud Monitoring's dashboards equal to the catalog.

    Asks on a terminal and needs --auto-approve elsewhere. Touches nothing that is not labelled
    as ours, and nothing that somebody edits meanwhile.
    """
    from alerts.commands.changes import carry_out
    from dashboards.report import tell_plan
    from dashboards.session import open_session

    with open_session(emulator, project, as_json=as_json) as session:
        planned = session.plan(session.read(), prune=prune)
        if not as_json:
            tell_plan(session.out, planned, prune=prune)
        check_deletes(planned.deletes, max_deletes)
        # No second look after the answer: each write carries the etag of what was shown.
        if planned.changes and not auto_approve and not approved(as_json):
            raise typer.Exit(EXIT_REFUSED)
        carry_out(session, planned, as_json=as_json)


def drift(
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was changed in Cloud Monitoring outside the catalog.

    Edited, deleted, left behind: exit code 2 when there is any. A change in code that is not
    applied yet is no drift, and other people's dashboards are theirs.
    """
    from alerts.plan import Action
    from alerts.report import change_json, tell_lines
    from dashboards.report import change_lines, reversed_change
    from dashboards.session import open_session

    with open_session(emulator, project, as_json=as_json) as session:
        planned = session.plan(session.read(), prune=False)
        edited = [reversed_change(one) for one in planned.changes if one.edited]
        gone = [one for one in planned.changes if one.action is Action.CREATE]
        drifted = bool(edited or gone or planned.stale)
        pending = len(planned.changes) - len(edited) - len(gone)
        if as_json:
            print_json(
                {
                    "target": str(session.target),
                    "edited": [change_json(one) for one in edited],
                    "deleted": [one.id for one in gone],
                    "left_behind": [one.id for one in planned.stale],
                    "pending": pending,
                    "clean": len(planned.unchanged),
                    "others": planned.foreign,
                }
            )
            raise typer.Exit(EXIT_CHANGES if drifted else EXIT_FINE)
        out = session.out
        for one in edited:
            head = f"  ~ edited dashboard {one.id}"
            tell(out, head, (head, "yellow"))
            tell_lines(out, change_lines(one))
        for one in gone:
            head = f"  - deleted dashboard {one.id}"
            tell(out, f"{head}  (or never applied)", (head, "red"))
        for one in planned.stale:
            head = f"  ? left behind dashboard {one.id}"
            tell(out, f"{head}  ({one.reason})", (head, "yellow"))
        counts = {"edited": edited, "deleted": gone, "left behind": planned.stale}
        told = ", ".join(f"{len(found)} {how}" for how, found in counts.items() if found)
        parts = [f"Drift: {told}" if told else "No drift"]
        parts.append(f"{len(planned.unchanged)} as the catalog wants")
        if pending:
            parts.append(f"{count(pending, 'change')} in code not applied yet")
        if planned.foreign:
            parts.append(f"{count(planned.foreign, 'dashboard')} of others left alone")
        tell(out, "; ".join(parts) + ".")
        if edited or gone:
            tell(out, "  `python -m dashboards apply` puts back what the catalog says.")
        if planned.stale:
            tell(out, "  `python -m dashboards apply --prune` deletes what is left behind.")
    raise typer.Exit(EXIT_CHANGES if drifted else EXIT_FINE)


def export(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Dashboards; all unless named.", show_default=False),
    ] = None,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write ID.json files there, not to stdout."),
    ] = None,
) -> None:
    """Write dashboards as JSON for gcloud, Terraform or the console.

    Their alert charts name the policies of the target, which must be live there.
    """
    from alerts.policies import CATALOG
    from dashboards.catalog import BOARDS, find_board
    from dashboards.plan import policy_names, with_policy_names
    from dashboards.session import open_session

    boards = [find_board(one) for one in ids] if ids else list(BOARDS)
    with open_session(emulator, project, as_json=True) as session:
        names = policy_names(session.read(), CATALOG.name)
        found = {board.id: with_policy_names(session.desired[board.id], names) for board in boards}
        if out is None:
            bodies = list(found.values())
            print_json(bodies[0] if len(bodies) == 1 else bodies)
            return
        try:
            out.mkdir(parents=True, exist_ok=True)
            for identity, body in found.items():
                text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
                (out / f"{identity}.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"--out {out}: {error.strerror}") from error
        tell(session.out, f"Wrote {count(len(found), 'dashboard')} to {out}.")
