"""pytest fixtures for any project: `monitoring_emulator` and `pagerduty_emulator`.

Installed as a pytest plugin, so a test only names the fixture. One emulator serves the whole
session and is emptied before each test; with pytest-xdist every worker process has its own. The
imports are inside: a test run that uses neither pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from speakfit.emulator.server import Emulator

ROUTING_KEY = "e" * 32
"""The key of the one service that the emulated PagerDuty has in tests, at high urgency."""


@pytest.fixture(scope="session")
def _session_emulator() -> Iterator[Emulator]:
    """Started with the first test that asks for it, on free ports."""
    from speakfit.emulator.options import EmulatorOptions
    from speakfit.emulator.pagerduty_endpoint import PagerDutyService
    from speakfit.emulator.server import Emulator

    service = PagerDutyService(name="pytest", routing_key=ROUTING_KEY, urgency="high")
    options = EmulatorOptions(port=0, http_port=0, manual_clock=True, pagerduty_services=(service,))
    with Emulator(options) as emulator:
        yield emulator


@pytest.fixture
def monitoring_emulator(_session_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An empty Cloud Monitoring on free ports; MONITORING_EMULATOR_HOST names it.

    Time stands still at the present: `monitoring_emulator.advance(timedelta(minutes=5))` moves it,
    evaluates and delivers. `grpc_address`, `http_url` and `incidents()` tell the rest. A test may
    stop it to see what an outage does.
    """
    from speakfit.clock import ManualClock

    if not _session_emulator.serving:
        _session_emulator.start()
    _session_emulator.reset(clock=ManualClock(datetime.now(UTC)))
    monkeypatch.setenv("MONITORING_EMULATOR_HOST", _session_emulator.grpc_address)
    return _session_emulator


@pytest.fixture
def pagerduty_emulator(monitoring_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an embedded PagerDuty with one service, whose key is `ROUTING_KEY`.

    It is the one that `monitoring_emulator` pages; PAGERDUTY_EVENTS_URL names it.
    """
    monkeypatch.setenv("PAGERDUTY_EVENTS_URL", monitoring_emulator.http_url)
    return monitoring_emulator.http_url
