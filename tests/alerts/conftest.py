"""A real emulator over gRPC, on a clock that stands still, for every test that needs one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from speakfit.clock import ManualClock
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.pagerduty_endpoint import PagerDutyService
from speakfit.emulator.server import Emulator
from speakfit.target import Target, TargetKind

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"critical": "c" * 32, "warning": "w" * 32}
PROJECT = "speakfit-test"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
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


@pytest.fixture
def target(emulator: Emulator) -> Target:
    """The emulator as a target."""
    return Target(kind=TargetKind.EMULATOR, project=PROJECT, host=emulator.grpc_address)


@pytest.fixture
def alerts(tmp_path: Path) -> Run:
    """`python -m alerts` as a person runs it, in an empty folder and a clean environment."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}{os.pathsep}{tmp_path}",
            "PAGERDUTY_ROUTING_KEY_CRITICAL": KEYS["critical"],
            "PAGERDUTY_ROUTING_KEY_WARNING": KEYS["warning"],
            "RUNBOOK_BASE_URL": "https://runbooks.test",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
        }
        return subprocess.run(
            [sys.executable, "-m", "alerts", *arguments],
            cwd=tmp_path,
            env={name: value for name, value in {**clean, **environment}.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
