"""A real emulator over gRPC, on a clock that stands still, for every test that needs one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

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


def _environment(folder: Path, changes: dict[str, str]) -> dict[str, str]:
    clean = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}{os.pathsep}{folder}",
        "PAGERDUTY_ROUTING_KEY_CRITICAL": KEYS["critical"],
        "PAGERDUTY_ROUTING_KEY_WARNING": KEYS["warning"],
        "RUNBOOK_BASE_URL": "https://runbooks.test",
        "GOOGLE_CLOUD_PROJECT": PROJECT,
    }
    return {name: value for name, value in {**clean, **changes}.items() if value}


@pytest.fixture
def alerts(tmp_path: Path) -> Run:
    """`python -m alerts` as a person runs it, in an empty folder and a clean environment."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alerts", *arguments],
            cwd=tmp_path,
            env=_environment(tmp_path, environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def quick_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
            mock.patch.dict(os.environ, _environment(tmp_path, environment), clear=True),
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
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return run
