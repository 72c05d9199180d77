"""`python -m loadtest drill` and `heal`: what they take, and how they tell people."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.nearest import did_you_mean
from alerts.terminal import (
    EXIT_FINE,
    EXIT_GATE,
    JsonOption,
    console,
    known_policies,
    print_json,
    tell,
)
from loadtest.wording import minutes
from speakfit.errors import FaultError
from speakfit.target import STACK_FILE

if TYPE_CHECKING:
    from alerts.policy import Catalog
    from loadtest.drill_run import Ended, Line

EXIT_INVALID = 6

_STYLES = (("fault:", "red"), ("page:", "bold red"), ("resolved:", "green"), ("failed:", "red"))

_StackOption = Annotated[
    Path | None,
    typer.Option(
        "--stack",
        metavar="DIR",
        help="Play in the stack that runs with its data here (`stack up --faults`).",
    ),
]


def drill(
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POLICY]...",
            help="Ids or subjects; both severities of a subject are drilled together.",
            autocompletion=known_policies,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Drill every policy.")] = False,
    stack: _StackOption = None,
    lanes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Stacks that drills are played in at once.")
    ] = 2,
    time_scale: Annotated[
        int, typer.Option(min=1, metavar="N", help="Policy seconds per real second.")
    ] = 20,
    record: Annotated[bool, typer.Option(help="Keep what passed in docs/drills.json.")] = True,
    as_json: JsonOption = False,
) -> int:
    """Break the local stack for real and follow each page until it is resolved.

    Exit codes: 0 passed, 3 a drill failed, 6 could not be measured. Ctrl-C heals.
    """
    from alerts.catalog import load_catalog
    from loadtest.drill_run import Run
    from loadtest.drills import DRILLS
    from loadtest.scene import DRILLS_FOLDER

    catalog = load_catalog("alerts.policies")
    chosen = _chosen(catalog, policies or [], every=every)
    # A `kill` and a closed terminal heal as Ctrl-C does, which a shell's background job ignores.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    out = console(stderr=as_json)
    printing = threading.Lock()

    def say(line: Line) -> None:
        with printing:
            tell(out, _told(line), *_STYLES)

    run = Run(
        drills=[DRILLS[subject] for subject in chosen],
        folder=DRILLS_FOLDER,
        say=say,
        lanes=lanes,
        time_scale=time_scale,
        stack=stack,
    )
    ended = sorted(run.play(), key=lambda one: one.drill.subject)
    if record:
        _keep(catalog, ended, time_scale)
    if as_json:
        print_json({"drills": [_json(one) for one in ended]})
    else:
        _table(ended)
    if any(one.failed for one in ended):
        return EXIT_GATE
    return EXIT_INVALID if any(one.error for one in ended) else EXIT_FINE


def heal(
    stack: Annotated[
        Path | None, typer.Option("--stack", metavar="DIR", help="Only the stack that is here.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Heal what a drill that was killed has left behind, here and in the drills' own stacks."""
    from loadtest.faults.journal import heal_left
    from loadtest.scene import DRILLS_FOLDER

    places = [stack] if stack else [STACK_FILE.parent, *sorted(DRILLS_FOLDER.glob("lane-*"))]
    healed = [(place, fault) for place in places for fault in heal_left(place)]
    if as_json:
        print_json(
            {"healed": [{"stack": str(place), **fault.to_json()} for place, fault in healed]}
        )
        return EXIT_FINE
    for place, fault in healed:
        console().print(f"healed in {place}: {fault.text}", markup=False)
    if not healed:
        console().print("Nothing was left to heal.")
    return EXIT_FINE


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _chosen(catalog: Catalog, names: Sequence[str], *, every: bool) -> list[str]:
    """The subjects that are named; a FaultError for what is no policy, or has no drill."""
    from loadtest.drills import DRILLS

    known = {
        **{policy.subject: policy.subject for policy in catalog.policies},
        **{policy.id: policy.subject for policy in catalog.policies},
    }
    if every == bool(names):
        raise FaultError(
            "Which policies are to be drilled?",
            where="python -m loadtest drill",
            todo=f"Name some of {', '.join(p.id for p in catalog.policies)}, or --all.",
        )
    for name in names:
        if name not in known:
            raise FaultError(
                f"There is no policy {name}.",
                where="python -m loadtest drill",
                todo=did_you_mean(name, known, otherwise=f"Policies: {', '.join(known)}."),
            )
    subjects = dict.fromkeys(known[name] for name in (names or known))
    for subject in subjects:
        if subject not in DRILLS:
            raise FaultError(
                f"The policies of {subject} have no drill.",
                where="loadtest/drills.py",
                todo="Write one.",
            )
    return list(subjects)


def _told(line: Line) -> str:
    since = "" if line.since is None else f"+{minutes(line.since)}"
    return f"{line.at.total_seconds():6.1f} s  {line.subject:<22} {since:>13}  {line.text}"


def _table(ended: Sequence[Ended]) -> None:
    from rich.table import Table

    out = console()
    table = Table("policy", "fault to page", "fix to resolve", "result", box=None, pad_edge=False)
    for one in ended:
        for passed in one.passed:
            table.add_row(
                passed.policy.id, minutes(passed.detect), minutes(passed.resolve), "passed"
            )
        if one.error is not None:
            table.add_row(one.drill.subject, "", "", "failed" if one.failed else "not measured")
    out.print()
    out.print(table)
    for one in ended:
        if one.error is not None:
            out.print(f"\n{one.drill.subject}: {one.error}", markup=False, soft_wrap=True)


def _json(one: Ended) -> dict[str, Any]:
    return {
        "subject": one.drill.subject,
        "fault": one.drill.fault,
        "took_seconds": round(one.took.total_seconds(), 1),
        "policies": [
            {
                "policy": passed.policy.id,
                "detect_seconds": round(passed.detect.total_seconds()),
                "resolve_seconds": round(passed.resolve.total_seconds()),
                "blocks": list(passed.blocks),
            }
            for passed in one.passed
        ],
        "error": None if one.error is None else str(one.error),
        "result": "passed" if one.error is None else "failed" if one.failed else "not measured",
    }


def _keep(catalog: Catalog, ended: Sequence[Ended], time_scale: int) -> None:
    from loadtest.drill_record import DrillRecord, policy_hash, runbook_hash, write_records

    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    write_records(
        DrillRecord(
            policy=passed.policy.id,
            fault=one.drill.fault,
            detect_seconds=round(passed.detect.total_seconds()),
            resolve_seconds=round(passed.resolve.total_seconds()),
            blocks=passed.blocks,
            commit=commit,
            date=datetime.now(UTC).date().isoformat(),
            time_scale=time_scale,
            policy_hash=policy_hash(passed.policy, catalog),
            runbook_hash=runbook_hash(passed.policy),
        )
        for one in ended
        for passed in one.passed
    )
