"""`snooze`: keep policies quiet for a while, see what is quiet, and end it early."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    known_policies,
    parse_span,
    print_json,
    tell,
)
from speakfit.errors import CatalogError

if TYPE_CHECKING:
    from alerts.encode import Json
    from alerts.session import Session
    from alerts.snooze import Snooze


def snooze(
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POLICY]...",
            help="Ids of the catalog; others by number, full name or display name.",
            autocompletion=known_policies,
        ),
    ] = None,
    length: Annotated[
        str, typer.Option("--for", metavar="SPAN", help="How long: 2h, 90m, 1h30m, 1d.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Shown in the console and here.")] = "",
    filter_text: Annotated[
        str,
        typer.Option(
            "--filter", help="Only series that this Monitoring filter selects; one policy only."
        ),
    ] = "",
    list_: Annotated[
        bool, typer.Option("--list", help="List what is quiet now or will be.")
    ] = False,
    cancel: Annotated[
        str, typer.Option("--cancel", metavar="NAME", help="End a snooze now: number or full name.")
    ] = "",
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep policies quiet for a while.

    A snoozed policy opens no incident, and its open incidents close. The policy itself is not
    changed, so that no plan shows it.
    """
    from alerts.catalog import load_catalog
    from alerts.session import open_session
    from speakfit.clock import from_ns
    from speakfit.target import policy_now_ns

    chosen = [bool(policies), list_, bool(cancel)].count(True)
    if chosen != 1 or bool(policies) != bool(length):
        raise typer.BadParameter(
            "Give a POLICY and --for SPAN, or --list, or --cancel NAME, and only one of these."
        )
    if not policies and (reason or filter_text):
        raise typer.BadParameter("--reason and --filter belong to a new snooze.")
    duration = parse_span(length, "--for") if length else timedelta(0)
    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        now = from_ns(policy_now_ns(session.target))
        if policies:
            from alerts.snooze import snooze_body

            live = session.gateway.policies()
            names = [name for one in policies for name in _names(session, one, live)]
            what = ", ".join(policies)
            body = snooze_body(
                names,
                title=f"{what}: {reason}" if reason else what,
                now=now,
                length=duration,
                filter_text=filter_text,
            )
            made = _read(session, session.gateway.create_snooze(body), live, now)
            _tell(session, [made], now, as_json=as_json, head="Snoozed: ")
            if not as_json:
                tell(session.out, f"`python -m alerts snooze --cancel {made.number}` ends it.")
            return
        if cancel:
            _cancel(session, cancel, now, as_json=as_json)
            return
        _list(session, now, as_json=as_json)


def _names(session: Session, wanted: str, live: tuple[Json, ...]) -> list[str]:
    """The live policies that a word means: an id of the catalog first."""
    from alerts.adopt import named_policy
    from alerts.catalog import find_policy
    from alerts.snooze import live_names

    names = live_names(wanted, live, session.catalog.name)
    if names:
        return names
    if wanted in {policy.id for policy in session.catalog.policies}:
        raise CatalogError(
            f"{wanted} is in the catalog and not live.",
            where=str(session.target),
            todo="There is nothing to snooze; `python -m alerts apply` makes it.",
        )
    try:
        return [str(named_policy(wanted, live, where=str(session.target))["name"])]
    except CatalogError as error:
        if "/" not in wanted and not wanted.isdigit() and "No live" in error.what:
            # Most likely an id that is misspelt: name the nearest.
            find_policy(session.catalog, wanted)
        raise


def _list(session: Session, now: datetime, *, as_json: bool) -> None:
    from alerts.snooze import Standing

    live = session.gateway.policies()
    found = [_read(session, one, live, now) for one in session.gateway.snoozes()]
    shown = sorted(
        (one for one in found if one.standing is not Standing.ENDED),
        key=lambda one: (one.start, one.end, one.number),
    )
    _tell(session, shown, now, as_json=as_json)
    if not shown and not as_json:
        tell(session.out, "Nothing is snoozed.")


def _cancel(session: Session, name: str, now: datetime, *, as_json: bool) -> None:
    from alerts.snooze import Standing, cancelled

    live = session.gateway.policies()
    matching = [
        one
        for one in session.gateway.snoozes()
        if name in (one["name"], one["name"].rpartition("/")[2])
    ]
    if not matching:
        raise CatalogError(
            f"No snooze is called {name!r}.",
            where=str(session.target),
            todo="`python -m alerts snooze --list` has them.",
        )
    found = _read(session, matching[0], live, now)
    if found.standing is not Standing.ENDED:
        body, mask = cancelled(matching[0], now)
        found = _read(session, session.gateway.update_snooze(body, mask), live, now)
        head = "Cancelled: "
    else:
        head = "Nothing to do, it is over: "
    _tell(session, [found], now, as_json=as_json, head=head)


def _read(session: Session, body: Json, live: tuple[Json, ...], now: datetime) -> Snooze:
    from alerts.snooze import read_snooze

    return read_snooze(body, policies=live, catalog=session.catalog.name, now=now)


def _tell(
    session: Session, snoozes: list[Snooze], now: datetime, *, as_json: bool, head: str = ""
) -> None:
    from alerts.snooze import when

    if as_json:
        document = {
            "target": str(session.target),
            "snoozes": [_snooze_json(one) for one in snoozes],
        }
        print_json(document)
        return
    for one in snoozes:
        what = ", ".join(one.policies)
        line = f"{head or '  '}{what}, {when(one, now)}"
        # What we call a snooze begins with its policies.
        reason = one.title.removeprefix(what).removeprefix(": ")
        if reason:
            line += f"  ({reason})"
        if one.filter:
            line += f"  where {one.filter}"
        tell(session.out, f"{line}  [{one.number}]", (what, "bold"))


def _snooze_json(one: Snooze) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "policies": list(one.policies),
        "filter": one.filter,
        "start": one.start.isoformat(),
        "end": one.end.isoformat(),
        "standing": str(one.standing),
    }
