"""A real emulator over gRPC, on a clock that stands still, for every test that needs one."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from alerts.apply import apply_plan
from alerts.encode import mapping
from alerts.gateway import Gateway
from alerts.plan import Desired, Plan, desired_state, make_plan
from alerts.policies import CATALOG
from alerts.policy import Catalog
from alerts.secret import key_digest
from speakfit.clock import ManualClock
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.pagerduty_endpoint import PagerDutyService
from speakfit.emulator.server import Emulator
from speakfit.target import Target, TargetKind, alert_policy_client
from tests.alerts.unreliable import Proxy, unreliable

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"critical": "c" * 32, "warning": "w" * 32}
PROJECT = "speakfit-test"
BASE_URL = "https://runbooks.test"
CREATES = len(CATALOG.metrics) + len(CATALOG.channels) + len(CATALOG.policies)
"""Writes of a first apply."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def fresh_emulator() -> Iterator[Emulator]:
    """An empty Cloud Monitoring whose clock stands still."""
    options = EmulatorOptions(
        port=0,
        http_port=0,
        pagerduty_services=(
            PagerDutyService(
                name="SpeakFit critical", routing_key=KEYS["critical"], urgency="high"
            ),
            PagerDutyService(name="SpeakFit warning", routing_key=KEYS["warning"], urgency="low"),
        ),
    )
    clock = ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    with Emulator(options, clock=clock) as running:
        yield running


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """One Cloud Monitoring for all tests, each of which has a project of its own.

    A test that moves the clock or looks at pages takes a fresh one instead.
    """
    with fresh_emulator() as running:
        yield running


_numbers = itertools.count(1)


@pytest.fixture
def project() -> str:
    """An empty project."""
    return f"{PROJECT}-{next(_numbers)}"


@pytest.fixture
def target(emulator: Emulator, project: str) -> Target:
    """The emulator as a target."""
    return Target(kind=TargetKind.EMULATOR, project=project, host=emulator.grpc_address)


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[Proxy]:
    """Stands between the clients and the emulator, and fails what it is told to."""
    with unreliable(emulator.grpc_address) as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    """How long the gateway would have slept."""
    return []


@pytest.fixture
def gateway(target: Target, proxy: Proxy, naps: list[float]) -> Iterator[Gateway]:
    """Talks to the emulator through the proxy, and never really sleeps."""
    with Gateway(replace(target, host=proxy.address), sleep=naps.append) as running:
        yield running


def plan(gateway: Gateway, catalog: Catalog = CATALOG, *, prune: bool = False, **keys: str) -> Plan:
    """What an apply of a catalog would change; `keys` replaces the integration keys."""
    return make_plan(desired(catalog, **keys), gateway.read(catalog), prune=prune)


def desired(catalog: Catalog = CATALOG, **keys: str) -> Desired:
    """What a catalog compiles to."""
    digests = {channel: key_digest(key) for channel, key in (keys or KEYS).items()}
    return desired_state(catalog, runbook_base_url=BASE_URL, digests=digests)


def apply(gateway: Gateway, catalog: Catalog = CATALOG, *, prune: bool = False) -> None:
    """Plan, and make the changes."""
    apply_plan(gateway, plan(gateway, catalog, prune=prune), keys=KEYS)


def live_policies(target: Target) -> dict[str, dict[str, Any]]:
    """Every policy of the project by name, past the proxy."""
    client = alert_policy_client(target)
    found = client.list_alert_policies(name=target.project_name)
    return {policy.name: mapping(policy) for policy in found}


def edit(target: Target, alert_id: str, change: Callable[[Any], None]) -> str:
    """Edit a live policy as the console would; returns its name."""
    client = alert_policy_client(target)
    found = client.list_alert_policies(name=target.project_name)
    policy = next(one for one in found if one.user_labels.get("alert-id") == alert_id)
    change(policy)
    client.update_alert_policy(alert_policy=policy)
    return str(policy.name)


@pytest.fixture
def clean(tmp_path: Path, project: str) -> dict[str, str]:
    """The environment of a command: our settings, and nothing of whoever runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}{os.pathsep}{tmp_path}",
        "PAGERDUTY_ROUTING_KEY_CRITICAL": KEYS["critical"],
        "PAGERDUTY_ROUTING_KEY_WARNING": KEYS["warning"],
        "RUNBOOK_BASE_URL": BASE_URL,
        "GOOGLE_CLOUD_PROJECT": project,
    }


def _settings(clean: dict[str, str], changes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in {**clean, **changes}.items() if value}


@pytest.fixture
def alerts(tmp_path: Path, clean: dict[str, str]) -> Run:
    """`python -m alerts` as a person runs it, in an empty folder and a clean environment."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alerts", *arguments],
            cwd=tmp_path,
            env=_settings(clean, environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def quick_alerts(
    tmp_path: Path,
    clean: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The same command line in this process: no interpreter has to start for it."""
    from alerts import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = set(sys.modules)
        capsys.readouterr()
        with (
            mock.patch.dict(os.environ, _settings(clean, environment), clear=True),
            mock.patch.object(sys, "argv", ["alerts", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO()),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
        shown = capsys.readouterr()
        for name in set(sys.modules) - known:
            if (tmp_path / f"{name}.py").exists():
                # A catalog that a test wrote may be another one next time.
                del sys.modules[name]
        importlib.invalidate_caches()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return run
