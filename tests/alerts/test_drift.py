"""What happened behind the catalog's back, over the wire; and what is not drift."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from alerts.drift import State, Survey, survey
from alerts.gateway import Gateway
from alerts.policies import CATALOG
from speakfit.clock import ManualClock
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    metric_client,
    notification_channel_client,
)
from tests.alerts.conftest import Run, apply, desired, edit, live_policies
from tests.alerts.team import write_team
from tests.alerts.transcript import commands, compare

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def look(gateway: Gateway, catalog: Any = CATALOG) -> Survey:
    return survey(desired(catalog), gateway.read(catalog))


def test_after_an_apply_there_is_no_drift(gateway: Gateway) -> None:
    apply(gateway)
    found = look(gateway)
    assert (found.drifts, found.pending) == ((), 0)
    assert found.clean == len(CATALOG.policies) + len(CATALOG.channels)


def test_a_change_in_code_is_no_drift_but_an_edit_under_it_is(
    gateway: Gateway, target: Target
) -> None:
    apply(gateway)
    first, *others = CATALOG.policies
    newer = replace(CATALOG, policies=(replace(first, title="Another title"), *others))
    assert (look(gateway, newer).drifts, look(gateway, newer).pending) == ((), 1)
    edit(target, first.id, lambda policy: setattr(policy, "enabled", False))
    (drift,) = look(gateway, newer).drifts
    assert (drift.state, drift.id) == (State.EDITED, first.id)
    assert drift.detail == "the code changed too: the fields show both"


def _by_hand(target: Target, **labels: str) -> str:
    client = alert_policy_client(target)
    policy = next(iter(client.list_alert_policies(name=target.project_name)))
    policy.name, policy.user_labels, policy.display_name = "", labels, "Made by hand"
    for condition in policy.conditions:
        condition.name = ""
    made = client.create_alert_policy(name=target.project_name, alert_policy=policy)
    return str(made.name)


def test_only_what_nobody_claims_is_unmanaged(gateway: Gateway, target: Target) -> None:
    apply(gateway)
    nobodys = {_by_hand(target), _by_hand(target, team="x")}
    _by_hand(target, **{"managed-by": "terraform"})
    _by_hand(target, **{"managed-by": "speakfit-alerts", "catalog": "other"})
    found = look(gateway)
    assert {drift.name for drift in found.drifts} == nobodys
    assert {drift.state for drift in found.drifts} == {State.UNMANAGED}
    assert found.others == 2


def test_a_copy_is_left_behind_and_the_first_one_is_kept(gateway: Gateway, target: Target) -> None:
    apply(gateway)
    before = live_policies(target)
    labels = next(iter(before.values()))["userLabels"]
    originals = [name for name, policy in before.items() if policy["userLabels"] == labels]
    copy = _by_hand(target, **labels)
    (drift,) = (one for one in look(gateway).drifts if one.state is State.LEFT)
    kept = ({copy, *originals} - {drift.name}).pop()
    assert drift.detail.startswith(f"{drift.name} is a copy; {kept} is kept: ")


@contextlib.contextmanager
def stored(folder: Path, clock: ManualClock) -> Iterator[Target]:
    """An emulator that keeps its data in a folder."""
    with Emulator(EmulatorOptions(port=0, http_port=0, data_dir=folder), clock=clock) as running:
        yield Target(kind=TargetKind.EMULATOR, project="speakfit-test", host=running.grpc_address)


@pytest.fixture
def drifted(quick_alerts: Run, tmp_path: Path) -> Iterator[Target]:
    """One policy of each kind of drift, and one that is as it should be."""
    write_team(tmp_path, subjects=("depth", "workers", "idle", "gone"))
    clock = ManualClock(NOON)
    with stored(tmp_path / "data", clock) as target:
        at = ("--emulator", str(target.host), "--catalog", "team", "--project", target.project)
        assert quick_alerts("apply", *at, "--auto-approve").returncode == 0
        names = {
            policy["userLabels"]["alert-id"]: name for name, policy in live_policies(target).items()
        }

        def change(policy: Any) -> None:
            policy.conditions[0].condition_threshold.threshold_value = 5000
            policy.documentation.content += "\n\nAsk Ben."

        edit(target, "depth-warning", change)
        alert_policy_client(target).delete_alert_policy(name=names["gone-warning"])
        channels = notification_channel_client(target)
        (channel,) = channels.list_notification_channels(name=target.project_name)
        channel.display_name = "Team of Ben"
        channels.update_notification_channel(notification_channel=channel)
        _by_hand(target)
        _by_hand(target, **{"managed-by": "terraform"})
        metrics = metric_client(target)
        metrics.delete_metric_descriptor(
            name=f"{target.project_name}/metricDescriptors/workload.googleapis.com/"
            "speakfit.worker.alive"
        )
    write_team(tmp_path, subjects=("depth", "workers", "gone"))
    # A policy whose metric is gone is found invalid when its server starts again.
    with stored(tmp_path / "data", clock) as target:
        yield target


def test_transcript_of_every_kind_of_drift(drifted: Target, quick_alerts: Run) -> None:
    at = f"--emulator {drifted.host} --catalog team --project {drifted.project}"
    session = commands(
        quick_alerts,
        (
            f"drift {at}",
            f"drift {at} --json",
            f"apply {at} --prune --auto-approve",
            f"drift {at}",
            f"drift {at} --ignore-unmanaged",
        ),
    )
    compare("drift", session, EMULATOR=str(drifted.host))
