"""What people see when something goes wrong, on the wire or in what they wrote."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from speakfit.target import Target, notification_channel_client
from tests.alerts.conftest import Run, edit, live_policies
from tests.alerts.team import write_team
from tests.alerts.transcript import command, commands, compare
from tests.alerts.unreliable import Proxy, wired

DENIED = (
    grpc.StatusCode.PERMISSION_DENIED,
    "Permission monitoring.alertPolicies.create denied (or the resource may not exist).",
)
REVOKED = (
    grpc.StatusCode.UNAUTHENTICATED,
    "Request had invalid authentication credentials.",
)
EXPIRED = (
    # What google-auth makes of a login that was revoked: measured with its own plugin.
    grpc.StatusCode.UNAVAILABLE,
    "Getting metadata from plugin failed with error: ('invalid_grant: Token has been expired or "
    "revoked.', {'error': 'invalid_grant'})",
)
QUOTA = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute'.",
)


@pytest.fixture(autouse=True)
def team(tmp_path: Path) -> None:
    """Five writes: two metrics, a channel, two policies."""
    write_team(tmp_path)


def at(address: str) -> str:
    return f"--emulator {address} --catalog team"


def copies(target: Target) -> list[str]:
    """The ids of all live policies, and of all channels."""
    client = notification_channel_client(target)
    channels = client.list_notification_channels(name=target.project_name)
    ids = [policy["userLabels"]["alert-id"] for policy in live_policies(target).values()]
    return sorted([*ids, *(channel.user_labels["channel"] for channel in channels)])


EVERYTHING = ["depth-warning", "team", "workers-warning"]


def test_transcript_of_catalogs_that_are_wrong(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    (tmp_path / "raising.py").write_text("x = 1\nraise RuntimeError('no luck')\n")
    (tmp_path / "twins.py").write_text(
        "from dataclasses import replace\nfrom team import CATALOG as ONE\n"
        "CATALOG = replace(ONE, policies=ONE.policies * 2)\n"
    )
    (tmp_path / "torn.py").write_text("CATALOG = (\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)\n")
    host = f"--emulator {target.host}"
    session = commands(
        quick_alerts,
        (
            f"plan {host} --catalog raising",
            f"apply {host} --catalog raising --auto-approve",
            f"plan {host} --catalog twins",
            f"drift {host} --catalog torn",
            f"plan {host} --catalog leaving",
        ),
    )
    compare("wrong-catalogs", session, EMULATOR=str(target.host))


def test_transcript_of_credentials_that_are_revoked(
    target: Target, quick_alerts: Run, proxy: Proxy
) -> None:
    proxy.fail_reads = {"ListNotificationChannels": REVOKED}
    session = command(quick_alerts, f"plan {at(proxy.address)}")
    proxy.fail_reads = {"ListAlertPolicies": EXPIRED}
    session += command(quick_alerts, f"drift {at(proxy.address)}")
    proxy.fail_reads = {}
    proxy.fail = {3: REVOKED}
    session += command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    compare("revoked-credentials", session, EMULATOR=proxy.address)


def test_transcript_of_one_write_that_is_not_permitted(
    target: Target, quick_alerts: Run, proxy: Proxy
) -> None:
    proxy.fail = {4: DENIED}
    session = command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    proxy.fail = {5: DENIED}
    session += command(quick_alerts, f"apply {at(proxy.address)} --auto-approve --json")
    session += command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    assert copies(target) == EVERYTHING
    compare("not-permitted", session, EMULATOR=proxy.address)


def test_transcript_of_a_quota_that_is_used_up(
    target: Target, quick_alerts: Run, proxy: Proxy
) -> None:
    proxy.fail = {4: QUOTA}
    session = command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    assert len(proxy.writes) == 4, "nothing is tried after a quota is used up"
    session += command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    assert copies(target) == EVERYTHING
    compare("quota", session, EMULATOR=proxy.address)


def test_transcript_of_a_network_that_is_cut_in_the_middle_of_a_write(
    target: Target, quick_alerts: Run, proxy: Proxy
) -> None:
    with wired(proxy.address) as wire:

        def cut(number: int, method: str) -> None:
            if number == 4:
                wire.cut()

        proxy.after = cut
        session = command(quick_alerts, f"apply {at(wire.address)} --auto-approve")
        assert copies(target) == ["depth-warning", "team"], "the write had arrived"
        session += command(quick_alerts, f"plan {at(wire.address)}")
        wire.mend()
        session += command(quick_alerts, f"apply {at(wire.address)} --auto-approve")
        assert copies(target) == EVERYTHING
        compare("cut-network", session, EMULATOR=wire.address)


def test_transcript_of_a_policy_that_is_edited_while_planning(
    target: Target, quick_alerts: Run, proxy: Proxy, tmp_path: Path
) -> None:
    assert quick_alerts("apply", *at(proxy.address).split(), "--auto-approve").returncode == 0
    write_team(tmp_path, depth=200, guidance="It is very bad.")

    def meddle(alert_id: str) -> None:
        def once(method: str) -> None:
            # The first read of one policy comes right before the first write.
            if method == "GetAlertPolicy":
                proxy.on_read = lambda method: None
                edit(target, alert_id, lambda policy: setattr(policy, "display_name", "Mine"))

        proxy.on_read = once

    before = len(proxy.writes)
    meddle("depth-warning")
    session = command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    assert len(proxy.writes) == before
    meddle("workers-warning")
    session += command(quick_alerts, f"apply {at(proxy.address)} --auto-approve")
    assert len(proxy.writes) == before + 1
    names = {one["displayName"] for one in live_policies(target).values()}
    assert names == {"Depth (warning)", "Mine"}, "somebody else's edit is still there"
    session += command(quick_alerts, f"plan {at(proxy.address)}")
    compare("edited-while-planning", session, EMULATOR=proxy.address)
