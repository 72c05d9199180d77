"""What an emulator is started with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from speakfit.emulator.delivery import MailServer
from speakfit.emulator.pagerduty_endpoint import PagerDutyService
from speakfit.emulator.watchdog import WatchdogTarget

DEFAULT_PORT = 8085


@dataclass(frozen=True, kw_only=True)
class EmulatorOptions:
    """Addresses, time, storage and PagerDuty of one emulator; durations are policy time."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """gRPC; 0 takes any free port."""

    http_port: int | None = None
    """None takes the port after the gRPC port; 0 any free port."""

    time_scale: int = 1
    manual_clock: bool = False
    """Time stands still until `advance` or the admin endpoint moves it."""

    data_dir: Path | None = None
    seed: Path | None = None
    """A file that is loaded once, see speakfit.emulator.seed."""

    retention: timedelta = timedelta(days=42)
    """How long points are kept; Cloud Monitoring keeps user metrics six weeks at full precision."""

    evaluation_period: timedelta = timedelta(seconds=60)
    watermark: timedelta = timedelta(seconds=60)
    """Evaluated windows end this long before now, so that late exports are in."""

    pagerduty_services: tuple[PagerDutyService, ...] = ()
    pagerduty_events_url: str | None = None
    """None is the emulator's own PagerDuty."""

    mail: MailServer | None = None
    """Without one, e-mail channels are shown as not delivered."""

    descriptor_delay: timedelta = timedelta(0)
    """How long a metric descriptor takes to appear and to go; in the cloud it is some seconds."""

    watchdog: WatchdogTarget | None = None
    """Who is told that evaluation and delivery go on."""

    watchdog_interval: timedelta = timedelta(seconds=60)
    """How often; real time, but not more often than there is an evaluation."""
