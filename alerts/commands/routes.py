"""`route`, `doctor` and `incidents`: the way from Cloud Monitoring to a person, and what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_CHANGES,
    EXIT_FINE,
    EXIT_GATE,
    EXIT_REFUSED,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    approved,
    console,
    count,
    known_policies,
    parse_span,
    print_json,
    tell,
)
from speakfit.errors import ApplyError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from alerts.doctor import Step
    from alerts.incident import IncidentRow
    from alerts.policy import Catalog
    from alerts.route import RouteChange, RoutePlan
    from alerts.switchboard import Switchboard

_DEFAULT_SINCE = timedelta(hours=24)
_LONGEST_SINCE = timedelta(days=180)

app = typer.Typer(
    help="Make the way from a channel to PagerDuty.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def plan(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `route apply` would change.

    Exit code 2 when there is something, 0 when not. Needs PAGERDUTY_API_TOKEN, which may be
    read-only.
    """
    from alerts.catalog import load_catalog
    from alerts.route import change_json
    from alerts.session import open_session
    from alerts.switchboard import open_switchboard

    loaded = load_catalog(catalog)
    if _nothing_declared(loaded, as_json):
        return
    with (
        open_session(loaded, emulator, project, as_json=as_json) as session,
        open_switchboard(session) as switchboard,
    ):
        planned = switchboard.plan()
    if as_json:
        print_json(
            {
                **_ends(switchboard),
                "changes": [change_json(change) for change in planned.changes],
                "unchanged": planned.unchanged,
                "notes": list(planned.notes),
            }
        )
    else:
        _tell_plan(session.out, planned)
    raise typer.Exit(EXIT_CHANGES if planned.changes else EXIT_FINE)


@app.command()
def apply(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Do not ask; needed where nobody can answer.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make PagerDuty's services as the catalog declares them, and give channels their keys.

    Keys go from PagerDuty into Cloud Monitoring without being shown or stored. Nothing is deleted.
    Asks on a terminal and needs --auto-approve elsewhere.
    """
    from alerts.catalog import load_catalog
    from alerts.session import open_session
    from alerts.switchboard import open_switchboard

    loaded = load_catalog(catalog)
    if _nothing_declared(loaded, as_json):
        return
    with (
        open_session(loaded, emulator, project, as_json=as_json) as session,
        open_switchboard(session) as switchboard,
    ):
        planned = switchboard.plan()
        if not as_json:
            _tell_plan(session.out, planned)
        if planned.changes and not auto_approve and not approved(as_json):
            raise typer.Exit(EXIT_REFUSED)
        done: list[RouteChange] = []

        def on_done(change: RouteChange) -> None:
            done.append(change)
            if not as_json:
                tell(session.out, f"{change.action}d {change.part} {change.id}")

        try:
            switchboard.apply(planned, on_done=on_done)
        except ApplyError:
            made = {(change.part, change.id) for change in done}
            left = [one for one in planned.changes if (one.part, one.id) not in made]
            if as_json:
                print_json(_applied_json(switchboard, done, left))
            else:
                for change in left:
                    tell(session.out, f"not done: {change.action} {change.part} {change.id}")
            raise
    if as_json:
        print_json(_applied_json(switchboard, done, ()))
    elif done:
        tell(session.out, f"Applied {count(len(done), 'change')}.")


def doctor(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    route: Annotated[
        str | None,
        typer.Option("--route", metavar="ID", help="Only this one, by its channel's id."),
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="SPAN", help="How long to wait for PagerDuty.")
    ] = "60s",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at everything, send nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a test down each route, and follow it.

    To the incident that it opens, and back to resolved; the channel, the service, the key and who
    is on call are looked at first. A test notifies whoever is on call, like a page; it says that
    it is one and is resolved at once. Exit code 3 when a route does not work.
    """
    from alerts.catalog import find_channels, load_catalog
    from alerts.doctor import Examination, Outcome
    from alerts.session import open_session
    from alerts.switchboard import open_surroundings

    limit = parse_span(timeout, "--timeout")
    loaded = load_catalog(catalog)
    chosen = find_channels(loaded, route)
    verdicts: dict[str, bool] = {}
    told: list[dict[str, Any]] = []
    with (
        open_session(loaded, emulator, project, as_json=as_json) as session,
        open_surroundings(session, chosen, timeout=limit) as around,
    ):
        if not dry_run:
            tell(
                session.out, "A test event goes down each route; whoever is on call may be called."
            )
        for channel in chosen:
            examination = Examination(channel, around)
            carried = " and ".join(
                f"{one} alerts" if one else "alerts without a severity"
                for one in examination.severities
            )
            if not as_json:
                way = f"{carried} by {channel.type} to {channel.display_name}"
                tell(session.out, f"Route {channel.id}: {way}", (f"Route {channel.id}", "bold"))
            steps = []
            for step in _waiting(session.out, examination.steps(dry_run=dry_run)):
                steps.append(step)
                if not as_json:
                    _tell_step(session.out, step)
            works = all(step.outcome is not Outcome.FAILED for step in steps)
            verdicts[channel.id] = works
            told.append(
                {
                    "id": channel.id,
                    "severities": [one and str(one) for one in examination.severities],
                    "works": works,
                    "steps": [_step_json(step) for step in steps],
                }
            )
    broken = [name for name, works in verdicts.items() if not works]
    if as_json:
        print_json({"target": str(session.target), "dry_run": dry_run, "routes": told})
    else:
        _tell_verdict(session.out, verdicts, dry_run=dry_run)
    raise typer.Exit(EXIT_GATE if broken else EXIT_FINE)


def incidents(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN",
            help="How far back, at most 180d.",
            show_default="24h, or all with --open",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", metavar="ID", help="Only of this policy.", autocompletion=known_policies
        ),
    ] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those not resolved.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what paged, from PagerDuty.

    When, which policy, who took it, how long it lasted; of the services that this catalog's routes
    lead to, the latest first.
    """
    from alerts.catalog import load_catalog
    from alerts.switchboard import read_incidents

    span = parse_span(since, "--since") if since else None
    if span is not None and span > _LONGEST_SINCE:
        raise typer.BadParameter("PagerDuty looks back at most 180d.", param_hint="'--since'")
    if span is None and not only_open:
        span = _DEFAULT_SINCE
    loaded = load_catalog(catalog)
    out = console(stderr=as_json)
    rows = read_incidents(
        loaded, emulator, project, out=out, since=span, only_open=only_open, policy=policy
    )
    if as_json:
        print_json({"incidents": [row.to_json() for row in rows]})
        return
    if not rows:
        which = "open incidents" if only_open else "incidents"
        when = f" in the last {since or '24h'}" if span else ""
        of = f" of {policy}" if policy else ""
        tell(out, f"No {which}{of}{when}.")
    elif out.is_terminal:
        out.print(_incident_table(rows), soft_wrap=False)
    else:
        for line in _incident_lines(rows):
            tell(out, line)


def _waiting(out: Console, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps as they come; something moves on a terminal until then."""
    while True:
        with out.status("waiting ...") if out.is_terminal else nullcontext():
            step = next(steps, None)
        if step is None:
            return
        yield step


_OUTCOME_COLOURS = {"ok": "green", "failed": "bold red", "skipped": "yellow"}


def _tell_step(out: Console, step: Step) -> None:
    outcome = f"{step.outcome:<7}"
    took = "" if step.outcome == "skipped" else f"  {step.took.total_seconds():.2f} s"
    line = f"  {outcome}  {step.name:<8}  {step.text}{took}"
    tell(out, line, (outcome, _OUTCOME_COLOURS[step.outcome]), (took, "dim"))
    if step.todo:
        tell(out, f"           to do: {step.todo}", ("to do:", "bold"))


def _tell_verdict(out: Console, verdicts: Mapping[str, bool], *, dry_run: bool) -> None:
    fine = "looks right" if dry_run else "works"
    for name, works in verdicts.items():
        word, colour = (fine, "green") if works else ("does not work", "bold red")
        tell(out, f"Route {name} {word}.", (word, colour))


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "outcome": str(step.outcome),
        "text": step.text,
        "to_do": step.todo or None,
        "seconds": round(step.took.total_seconds(), 3),
    }


def _incident_cells(row: IncidentRow) -> tuple[str, ...]:
    from alerts.wording import duration_words

    lasting = duration_words(row.duration) + (" so far" if row.is_open else "")
    return (
        row.at.strftime("%Y-%m-%d %H:%M:%SZ"),
        row.policy or ("(test)" if row.is_test else f"({row.title})"),
        f"{row.severity or '-'}/{row.urgency}",
        row.status,
        ", ".join(row.acknowledged_by) or "-",
        lasting,
        row.url,
    )


def _incident_lines(rows: Sequence[IncidentRow]) -> Iterator[str]:
    """One line an incident, its columns under each other: a pipe is read by grep."""
    table = [_incident_cells(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _incident_table(rows: Sequence[IncidentRow]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head = ("when", "policy", "severity", "status", "acknowledged by", "lasted", "link")
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        cells = [Text(cell) for cell in _incident_cells(row)]
        cells[1].stylize("red" if row.urgency == "high" else "yellow")
        cells[3].stylize("bold" if row.is_open else "dim")
        cells[6].stylize(f"link {row.url}")
        table.add_row(*cells)
    return table


def _nothing_declared(catalog: Catalog, as_json: bool) -> bool:
    """Whether no route has a PagerDuty service; it is told, and no server is asked."""
    from alerts.route import routed_channels

    if routed_channels(catalog):
        return False
    if as_json:
        print_json({"changes": [], "unchanged": 0, "notes": []})
    else:
        tell(
            console(),
            f"No channel of catalog {catalog.name} has a PagerDuty service: nothing to plan.\n"
            "  to do: Channel(..., service=PagerDutyService(...)) declares one.",
        )
    return True


# The action's text is all a pipe gets; colour only repeats it.
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow")}


def _tell_plan(out: Console, planned: RoutePlan) -> None:
    for change in planned.changes:
        sign, colour = _SIGNS[change.action]
        head = f"  {sign} {change.action} {change.part} {change.id}"
        tell(out, f"{head}  ({change.reason})" if change.reason else head, (head, colour))
        width = max((len(one.name) for one in change.settings), default=0)
        for one in change.settings:
            words = one.desired if one.live is None else f"{one.live} -> {one.desired}"
            tell(out, f"      {one.name:<{width}}  {words}", (one.name, "dim"))
    if planned.changes:
        counts = {
            action: sum(1 for change in planned.changes if change.action == action)
            for action in _SIGNS
        }
        tell(
            out, "Plan: " + ", ".join(f"{n} to {action}" for action, n in counts.items() if n) + "."
        )
    else:
        tell(out, f"No changes: {count(planned.unchanged, 'part')} of routes as the catalog wants.")
    for note in planned.notes:
        tell(out, f"Note: {note}", ("Note:", "bold yellow"))


def _ends(switchboard: Switchboard) -> dict[str, Any]:
    return {"target": str(switchboard.session.target), "pagerduty": switchboard.api.url}


def _applied_json(
    switchboard: Switchboard, done: Sequence[RouteChange], left: Sequence[RouteChange]
) -> dict[str, Any]:
    from alerts.route import change_json

    return {
        **_ends(switchboard),
        "done": [change_json(change) for change in done],
        "not_done": [change_json(change) for change in left],
    }
