"""What people see when they plan, keep plans, apply and are refused."""

from __future__ import annotations

from pathlib import Path

from speakfit.target import Target
from tests.alerts.conftest import Run, edit
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
