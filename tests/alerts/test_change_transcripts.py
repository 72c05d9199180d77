"""What people see when they plan, keep plans, apply and are refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    notification_channel_client,
)
from tests.alerts.conftest import Run, edit, fresh_emulator, live_policies
from tests.alerts.team import write_team
from tests.alerts.transcript import command, commands, compare


def test_transcript_of_a_kept_plan(target: Target, quick_alerts: Run, tmp_path: Path) -> None:
    at = f"--emulator {target.host} --catalog team"
    write_team(tmp_path)
    session = commands(
        quick_alerts,
        (
            f"plan {at} --out the.plan",
            f"apply the.plan {at}",
            f"apply the.plan {at} --auto-approve",
            f"apply the.plan {at} --auto-approve",
        ),
    )
    write_team(tmp_path, depth=200)
    session += command(quick_alerts, f"plan {at} --out the.plan")
    write_team(tmp_path, depth=300)
    session += command(quick_alerts, f"apply the.plan {at} --auto-approve")
    session += command(quick_alerts, f"plan {at} --out the.plan")
    edit(target, "workers-warning", lambda policy: setattr(policy, "display_name", "Mine"))
    session += command(quick_alerts, f"apply the.plan {at} --auto-approve")
    compare("kept-plan", session, EMULATOR=str(target.host))


def test_transcript_of_plans_that_are_refused(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team --auto-approve"
    write_team(tmp_path)
    session = command(quick_alerts, f"plan --emulator {target.host} --catalog team --out the.plan")
    session += command(quick_alerts, f"apply the.plan {at} --project other-project")
    session += command(quick_alerts, f"apply the.plan {at} --prune")
    text = (tmp_path / "the.plan").read_text(encoding="utf-8")
    (tmp_path / "edited.plan").write_text(text.replace("100.0", "900.0"), encoding="utf-8")
    (tmp_path / "torn.plan").write_text(text[:2000], encoding="utf-8")
    (tmp_path / "list.plan").write_text("[]", encoding="utf-8")
    session += commands(
        quick_alerts,
        (
            f"apply edited.plan {at}",
            f"apply torn.plan {at}",
            f"apply list.plan {at}",
            f"apply no.plan {at}",
            f"apply . {at}",
            f"plan --emulator {target.host} --catalog team --out no/such/folder/the.plan",
        ),
    )
    write_team(tmp_path, name="other")
    session += command(quick_alerts, f"apply the.plan {at}")
    session += command(quick_alerts, f"apply the.plan {at} --catalog alerts.policies")
    compare("refused-plans", session, EMULATOR=str(target.host))


def test_transcript_of_deletes_that_are_limited(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
    write_team(tmp_path, subjects=())
    session = commands(
        quick_alerts,
        (
            f"plan {at}",
            f"plan {at} --prune",
            f"apply {at} --prune --auto-approve --max-deletes 1",
            f"apply {at} --prune --auto-approve --max-deletes 2",
            f"apply {at} --prune --auto-approve --max-deletes 0",
        ),
    )
    compare("max-deletes", session, EMULATOR=str(target.host))


def test_transcript_of_channels_swapped_and_a_policy_twice(
    quick_alerts: Run, tmp_path: Path, project: str
) -> None:
    write_team(tmp_path)
    with fresh_emulator() as emulator:
        target = Target(kind=TargetKind.EMULATOR, project=project, host=emulator.grpc_address)
        at = f"--emulator {target.host} --catalog team"
        assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
        emulator.advance(timedelta(minutes=10))
        channels = notification_channel_client(target)
        phone = channels.create_notification_channel(
            name=target.project_name,
            notification_channel={
                "type": "sms",
                "display_name": "Phone of Ben",
                "labels": {"number": "+15550100"},
            },
        )
        edit(
            target, "depth-warning", lambda one: setattr(one, "notification_channels", [phone.name])
        )
        policies = alert_policy_client(target)
        found = policies.list_alert_policies(name=target.project_name)
        copy = next(one for one in found if one.user_labels["alert-id"] == "workers-warning")
        copy.name = ""
        for condition in copy.conditions:
            condition.name = ""
        policies.create_alert_policy(name=target.project_name, alert_policy=copy)
        session = commands(quick_alerts, (f"plan {at}", f"plan {at} --prune"))
        session += command(quick_alerts, f"apply {at} --prune --auto-approve")
        (team,) = (
            one
            for one in channels.list_notification_channels(name=target.project_name)
            if one.type_ == "pagerduty"
        )
        channels.delete_notification_channel(name=team.name, force=True)
        session += command(quick_alerts, f"plan {at}")
        compare("identity", session, EMULATOR=str(target.host))


def test_transcript_of_a_destroyed_catalog(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
    policies = alert_policy_client(target)
    theirs = next(iter(policies.list_alert_policies(name=target.project_name)))
    theirs.name, theirs.user_labels, theirs.display_name = "", {"team": "other"}, "Theirs"
    for condition in theirs.conditions:
        condition.name = ""
    theirs = policies.create_alert_policy(name=target.project_name, alert_policy=theirs)
    session = commands(
        quick_alerts,
        (
            f"destroy {at}",
            f"destroy {at} --auto-approve",
            f"destroy {at} --auto-approve --max-deletes 1",
            f"destroy {at} --auto-approve --max-deletes 2",
        ),
    )
    assert list(live_policies(target)) == [theirs.name]
    policies.delete_alert_policy(name=theirs.name)
    session += commands(
        quick_alerts,
        (
            f"destroy {at} --auto-approve --max-deletes 9",
            f"destroy {at} --auto-approve --max-deletes 9 --metrics",
            f"destroy {at} --auto-approve --max-deletes 9 --metrics --json",
        ),
    )
    compare("destroy", session, EMULATOR=str(target.host))
