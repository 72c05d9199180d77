"""An apply that is killed, at every write, whether the write still arrives or not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from alerts.apply import apply_plan
from alerts.canonical import canonical_channel, canonical_policy
from alerts.gateway import Gateway
from alerts.plan import Live, desired_state, make_plan, our_channels
from alerts.policies import CATALOG
from alerts.policy import Catalog
from alerts.secret import key_digest
from speakfit.target import Target
from tests.alerts.conftest import BASE_URL, CREATES, KEYS, ROOT, apply
from tests.alerts.unreliable import Proxy

MOVED_URL = "https://moved.test"
"""Other runbook links: every policy is updated."""

CRITICAL = replace(
    CATALOG,
    policies=tuple(one for one in CATALOG.policies if one.severity == "critical"),
    routes=tuple(one for one in CATALOG.routes if one.severity == "critical"),
)
CRITICAL_MODULE = """
from dataclasses import replace
from alerts.policies import CATALOG as WHOLE

CATALOG = replace(
    WHOLE,
    policies=tuple(one for one in WHOLE.policies if one.severity == "critical"),
    routes=tuple(one for one in WHOLE.routes if one.severity == "critical"),
)
"""

CHANGES = len(CATALOG.policies) + 1
"""Updates of the critical policies, deletes of the warnings and of their channel."""
FAST = {("create", 15, "is lost"), ("change", 8, "arrives")}


def every_kill() -> list[Any]:
    kills = [
        (what, at, fate)
        for what, writes in (("create", CREATES), ("change", CHANGES))
        for at in range(1, writes + 1)
        for fate in ("arrives", "is lost")
    ]
    return [
        pytest.param(
            *kill, marks=() if kill in FAST else pytest.mark.slow, id="-".join(map(str, kill))
        )
        for kill in kills
    ]


def state(live: Live) -> tuple[list[Any], list[Any]]:
    """Everything of the catalog, whatever the server calls it; a copy shows as one more."""
    names = our_channels(live, CATALOG.name)
    policies = [canonical_policy(policy, names) for policy in live.policies]
    channels = [canonical_channel(channel, has_secret=True) for channel in live.channels]
    return sorted(policies, key=repr), sorted(channels, key=repr)


def converge(gateway: Gateway, catalog: Catalog, url: str) -> Live:
    """Apply, and look; a second plan must be empty."""
    digests = {channel: key_digest(key) for channel, key in KEYS.items()}
    wanted = desired_state(catalog, runbook_base_url=url, digests=digests)
    apply_plan(gateway, make_plan(wanted, gateway.read(catalog), prune=True), keys=KEYS)
    live = gateway.read(catalog)
    assert make_plan(wanted, live, prune=True).changes == ()
    return live


@pytest.mark.parametrize(("what", "at", "fate"), every_kill())
def test_killed_at_a_write_the_next_apply_converges_without_duplicates(
    what: str,
    at: int,
    fate: str,
    gateway: Gateway,
    proxy: Proxy,
    target: Target,
    tmp_path: Path,
) -> None:
    (tmp_path / "critical_only.py").write_text(CRITICAL_MODULE, encoding="utf-8")
    catalog, url, module = CATALOG, BASE_URL, "alerts.policies"
    if what == "change":
        apply(gateway)
        catalog, url, module = CRITICAL, MOVED_URL, "critical_only"
    first = len(proxy.writes) + at

    def kill(number: int, method: str) -> None:
        if number == first:
            # The command has been started when it writes.
            process.kill()
            process.wait()

    proxy.before = kill
    if fate == "is lost":
        proxy.fail = {first: grpc.StatusCode.UNAVAILABLE}
    command = ["-m", "alerts", "apply", "--auto-approve", "--prune", "--catalog", module]
    process = subprocess.Popen(
        [sys.executable, *command, "--emulator", proxy.address, "--project", target.project],
        env={
            "PYTHONPATH": f"{ROOT}/platform:{ROOT}:{tmp_path}",
            "RUNBOOK_BASE_URL": url,
            **{f"PAGERDUTY_ROUTING_KEY_{name.upper()}": key for name, key in KEYS.items()},
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.wait(timeout=60)
    assert process.returncode == -9
    live = converge(gateway, catalog, url)

    # The same catalog in a project where nothing ever went wrong.
    other = replace(target, project=f"{target.project}-unharmed")
    with Gateway(other) as unharmed:
        assert state(live) == state(converge(unharmed, catalog, url))


def test_stopped_by_hand_it_says_what_is_done_and_what_nobody_knows(
    proxy: Proxy, target: Target, clean: dict[str, str]
) -> None:
    third_policy = len(CATALOG.metrics) + len(CATALOG.channels) + 3

    def interrupt(number: int, method: str) -> None:
        if number == third_policy:
            process.send_signal(signal.SIGINT)
            stopped.wait(timeout=30)

    stopped = threading.Event()
    proxy.before = interrupt
    process = subprocess.Popen(
        [sys.executable, "-m", "alerts", "apply", "--auto-approve", "--emulator", proxy.address],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown, errors = process.communicate(timeout=60)
    stopped.set()
    assert process.returncode == 4
    assert shown.count("\ncreated ") == third_policy - 1
    assert "\nperhaps done: create policy queue-depth-warning\n" in shown
    assert shown.count("\nnot done: ") == CREATES - third_policy
    assert f"Stopped after {third_policy - 1} of {CREATES} changes: you stopped it" in errors
