"""Quiet for a while: through the real client, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.cloud import monitoring_v3

from speakfit.emulator.server import Emulator
from speakfit.metrics import WORKERS_ALIVE
from speakfit.target import Target, TargetKind, snooze_client
from tests.alerts.conftest import PROJECT, Run, fresh_emulator
from tests.alerts.team import write_team
from tests.alerts.test_adopt import by_hand
from tests.alerts.test_page import live_workers
from tests.alerts.transcript import command, commands, compare
from tests.alerts.unreliable import Proxy


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Its clock moves, so it is nobody else's."""
    with fresh_emulator() as running:
        yield running


def test_a_snooze_closes_what_is_open_and_opens_nothing_until_it_is_cancelled(
    emulator: Emulator, target: Target, quick_alerts: Run
) -> None:
    target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=target.host)
    live_workers(emulator, target, 1, 3)
    by_hand(target)
    live_workers(emulator, target, 0, 6)
    at = ("--emulator", str(target.host), "--project", target.project)

    def states() -> list[str]:
        return [str(incident["state"]) for incident in emulator.incidents()]

    assert states() == ["open"]
    done = quick_alerts("snooze", "Workers are gone", "--for", "2h", *at)
    assert done.returncode == 0, done.stderr
    live_workers(emulator, target, 0, 6)
    assert states() == ["closed"]
    (made,) = snooze_client(target).list_snoozes(parent=target.project_name)
    assert quick_alerts("snooze", "--cancel", made.name, *at).returncode == 0
    live_workers(emulator, target, 0, 6)
    assert states() == ["open", "closed"]


def test_transcript_of_snoozes(
    emulator: Emulator, target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
    by_hand(target)
    filter_text = f'metric.type="{WORKERS_ALIVE.type}" resource.labels.location="local"'
    session = commands(
        quick_alerts,
        (
            f"snooze depth-warning --for 2h --reason 'deploy of 1.2' {at}",
            f"snooze workers-warning 'Workers are gone' --for 1d {at}",
            f"snooze workers-warning --for 30m --filter '{filter_text}' {at} --json",
        ),
    )
    client = snooze_client(target)
    first, *_others = client.list_snoozes(parent=target.project_name)
    later = {"seconds": emulator.clock.now_ns() // 10**9 + 86_400}
    client.create_snooze(
        parent=target.project_name,
        snooze=monitoring_v3.Snooze(
            {
                "display_name": "Move to another zone",
                "criteria": {"policies": list(first.criteria.policies)},
                "interval": {
                    "start_time": later,
                    "end_time": {"seconds": later["seconds"] + 3_600},
                },
            }
        ),
    )
    emulator.advance(timedelta(hours=1))
    session += command(quick_alerts, f"snooze --list {at}")
    found = client.list_snoozes(parent=target.project_name)
    (planned,) = (one for one in found if "zone" in one.display_name)
    session += commands(
        quick_alerts,
        (
            f"snooze --cancel {first.name} {at}",
            f"snooze --cancel {first.name.rpartition('/')[2]} {at}",
            f"snooze --cancel {planned.name} {at}",
            f"snooze --list {at} --json",
            f"plan {at}",
        ),
    )
    emulator.advance(timedelta(days=2))
    session += command(quick_alerts, f"snooze --list {at}")
    compare("snooze", session, EMULATOR=str(target.host))


def test_transcript_of_snoozes_that_are_refused(
    target: Target, quick_alerts: Run, proxy: Proxy, tmp_path: Path
) -> None:
    at = f"--emulator {proxy.address} --catalog team"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
    write_team(tmp_path, subjects=("depth", "workers", "idle"))
    session = commands(
        quick_alerts,
        (
            f"snooze {at}",
            f"snooze depth-warning {at}",
            f"snooze depth-warning --for soon {at}",
            f"snooze depth-warning --for 2h --list {at}",
            f"snooze --list --reason why {at}",
            f"snooze dept-warning --for 2h {at}",
            f"snooze idle-warning --for 2h {at}",
            f"snooze --cancel 17 {at}",
            f"snooze depth-warning workers-warning --for 2h --filter x=1 {at}",
            f"snooze depth-warning --for 2h --filter 'metric.type =~ 1' {at}",
        ),
    )
    proxy.lose = {len(proxy.writes) + 1: grpc.StatusCode.UNAVAILABLE}
    session += command(quick_alerts, f"snooze depth-warning --for 2h {at}")
    session += command(quick_alerts, f"snooze --list {at}")
    compare("refused-snoozes", session, EMULATOR=proxy.address)
