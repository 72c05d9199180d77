"""`python -m speakfit.emulator`: an embedded Cloud Monitoring and PagerDuty on loopback."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from speakfit.command_line import run_app
from speakfit.errors import SettingsError

# Google, gRPC and the server are imported inside functions: --help must not wait for them.

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_ENVIRONMENT_SERVICES = (
    ("PAGERDUTY_ROUTING_KEY_CRITICAL", "SpeakFit critical", "high"),
    ("PAGERDUTY_ROUTING_KEY_WARNING", "SpeakFit warning", "low"),
)


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise SettingsError(
            f'"{text}" is not an address.', where="--host-port", todo="Write it as HOST:PORT."
        )
    host = host.strip("[]") or "127.0.0.1"
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise SettingsError(
            "The emulator serves this machine only: it has no credentials to check.",
            where="--host-port",
            todo="Use 127.0.0.1, localhost or ::1.",
        )
    return host, int(port)


def _run(
    *,
    host_port: str,
    http_port: int | None,
    time_scale: int,
    data_dir: Path | None,
    retention_days: float,
    evaluation_period: float,
    watermark: float,
    services: list[str],
    events_url: str | None,
    smtp_url: str | None,
    smtp_sender: str,
    watchdog: str | None,
    watchdog_interval: float,
    seed: Path | None,
    manual_clock: bool,
    descriptor_delay: float,
    as_json: bool,
) -> None:
    from speakfit.emulator.delivery import MailServer
    from speakfit.emulator.options import EmulatorOptions
    from speakfit.emulator.pagerduty_endpoint import PagerDutyService
    from speakfit.emulator.server import Emulator
    from speakfit.emulator.watchdog import WatchdogTarget

    host, port = _host_port(host_port)
    declared = [PagerDutyService.parse(text) for text in services]
    for variable, name, urgency in _ENVIRONMENT_SERVICES:
        key = os.environ.get(variable)
        if key and key not in {service.routing_key for service in declared}:
            declared.append(PagerDutyService.parse(f"{name}={key}:{urgency}"))
    emulator = Emulator(
        EmulatorOptions(
            host=host,
            port=port,
            http_port=http_port,
            time_scale=time_scale,
            seed=seed,
            manual_clock=manual_clock,
            descriptor_delay=timedelta(seconds=descriptor_delay),
            data_dir=data_dir,
            retention=timedelta(days=retention_days),
            evaluation_period=timedelta(seconds=evaluation_period),
            watermark=timedelta(seconds=watermark),
            pagerduty_services=tuple(declared),
            pagerduty_events_url=events_url,
            mail=MailServer.parse(smtp_url, sender=smtp_sender) if smtp_url else None,
            watchdog=WatchdogTarget.parse(watchdog) if watchdog else None,
            watchdog_interval=timedelta(seconds=watchdog_interval),
        )
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    with emulator:
        if as_json:
            print(
                json.dumps({"grpc": emulator.grpc_address, "http": emulator.http_url}), flush=True
            )
        else:
            watched = f"  watchdog {emulator.watchdog.target}\n" if emulator.watchdog else ""
            storage = f"stored in {data_dir}" if data_dir else "in memory"
            print(
                f"Cloud Monitoring emulator ready, {storage}, time x{time_scale}\n"
                f"  gRPC     {emulator.grpc_address}\n"
                f"  REST     {emulator.http_url}/v3/\n"
                f"  PagerDuty{' ':1}{emulator.http_url}/v2/enqueue\n"
                f"  console  {emulator.http_url}/\n"
                f"{watched}\n"
                f"export MONITORING_EMULATOR_HOST={emulator.grpc_address}\n"
                f"export CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING={emulator.http_url}/\n"
                "export CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true",
                flush=True,
            )
        ended.wait()


@app.command()
def serve(
    host_port: Annotated[
        str, typer.Option(help="Address of gRPC; port 0 takes a free one.", metavar="HOST:PORT")
    ] = "127.0.0.1:8085",
    http_port: Annotated[
        int | None,
        typer.Option(help="Port of HTTP.", show_default="the gRPC port + 1", min=0, max=65_535),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that everything is stored in.", show_default="in memory"),
    ] = None,
    time_scale: Annotated[
        int,
        typer.Option(help="Policy seconds per real second; stored with the data.", min=1, max=3600),
    ] = 1,
    retention_days: Annotated[
        float, typer.Option(help="Days of policy time that points are kept.", min=1)
    ] = 42,
    evaluation_period: Annotated[
        float, typer.Option(help="Seconds of policy time between evaluations.", min=1)
    ] = 60,
    watermark: Annotated[
        float,
        typer.Option(help="Seconds of policy time that evaluation waits for late points.", min=0),
    ] = 60,
    pagerduty_service: Annotated[
        list[str] | None,
        typer.Option(
            help="A service of the embedded PagerDuty; may be repeated. Keys may also come from "
            "PAGERDUTY_ROUTING_KEY_CRITICAL and PAGERDUTY_ROUTING_KEY_WARNING.",
            metavar="NAME=KEY:high|low",
        ),
    ] = None,
    pagerduty_events_url: Annotated[
        str | None,
        typer.Option(
            help="Where pages go.",
            envvar="PAGERDUTY_EVENTS_URL",
            show_default="the embedded PagerDuty",
        ),
    ] = None,
    smtp_url: Annotated[
        str | None,
        typer.Option(
            help="Mail server for e-mail channels: smtp://HOST:PORT or "
            "smtps://USER:PASSWORD@HOST:PORT.",
            envvar="SMTP_URL",
            show_default="e-mail is not delivered",
            show_envvar=True,
        ),
    ] = None,
    smtp_sender: Annotated[
        str, typer.Option(help="Sender of mails.", envvar="SMTP_SENDER")
    ] = "alerting-noreply@localhost",
    watchdog: Annotated[
        str | None,
        typer.Option(
            help="Dead-man's switch that is told as long as policies are evaluated and "
            "notifications delivered: an address that takes a POST, such as "
            "https://hc-ping.com/UUID, or projects/ID/notificationChannels/ID.",
            envvar="WATCHDOG_TARGET",
            metavar="URL|CHANNEL",
            show_default="nobody is told",
            show_envvar=True,
        ),
    ] = None,
    watchdog_interval: Annotated[
        float, typer.Option(help="Seconds of real time between tellings of the watchdog.", min=1)
    ] = 60,
    seed: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of a project's metricDescriptors, notificationChannels, timeSeries, "
            "services, serviceLevelObjectives, alertPolicies, snoozes and dashboards to load "
            "once.",
            metavar="FILE",
            show_default="nothing",
        ),
    ] = None,
    manual_clock: Annotated[
        bool,
        typer.Option(
            "--manual-clock",
            help="Let time stand still; POST /emulator/v1/clock:advance with a number of seconds "
            "moves it.",
        ),
    ] = False,
    descriptor_delay: Annotated[
        float,
        typer.Option(
            help="Seconds of policy time until a metric descriptor that was made or deleted is "
            "seen as such, as in the cloud.",
            min=0,
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as JSON.")] = False,
) -> None:
    """Run Cloud Monitoring (gRPC and REST) and PagerDuty on this machine.

    Alert policies are evaluated and page as they would in the cloud. Point clients at it with
    MONITORING_EMULATOR_HOST; stop it with Ctrl-C.
    """
    _run(
        host_port=host_port,
        http_port=http_port,
        time_scale=time_scale,
        data_dir=data_dir,
        retention_days=retention_days,
        evaluation_period=evaluation_period,
        watermark=watermark,
        services=pagerduty_service or [],
        events_url=pagerduty_events_url,
        smtp_url=smtp_url,
        smtp_sender=smtp_sender,
        watchdog=watchdog,
        watchdog_interval=watchdog_interval,
        seed=seed,
        manual_clock=manual_clock,
        descriptor_delay=descriptor_delay,
        as_json=as_json,
    )


def main() -> None:
    """Run the command and exit: 0 when stopped, 1 on an error, 64 on wrong usage."""
    sys.exit(run_app(app, "speakfit.emulator"))


if __name__ == "__main__":
    main()
