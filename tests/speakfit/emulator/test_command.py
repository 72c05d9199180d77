"""The command: starting, stopping, and refusing to start, as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import monitoring_v3

from speakfit.target import Target, TargetKind, metric_client, notification_channel_client

PLATFORM = Path(__file__).resolve().parents[3] / "platform"


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "speakfit.emulator", "--host-port", "127.0.0.1:0", *options]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "PAGERDUTY" not in name}
    return {**kept, "PYTHONPATH": str(PLATFORM)}


@contextmanager
def _running(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        _command("--json", *options),
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def _failing(*options: str, code: int = 1) -> str:
    done = subprocess.run(
        _command(*options), env=_environment(), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_it_serves_until_asked_to_stop_and_ends_cleanly() -> None:
    with _running("--http-port", "0") as (process, addresses):
        with urllib.request.urlopen(addresses["http"] + "/readyz", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        _out, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


def test_what_was_answered_ok_is_there_after_a_sigkill_and_another_scale_is_refused(
    tmp_path: Path,
) -> None:
    options = ("--data-dir", str(tmp_path), "--time-scale", "60", "--http-port", "0")
    with _running(*options) as (process, addresses):
        target = Target(kind=TargetKind.EMULATOR, project="p", host=addresses["grpc"])
        made = notification_channel_client(target).create_notification_channel(
            name="projects/p",
            notification_channel={"type": "pagerduty", "labels": {"service_key": "k" * 32}},
        )
        metric_client(target).create_metric_descriptor(
            name="projects/p",
            metric_descriptor={
                "type": "custom.googleapis.com/depth",
                "metric_kind": "GAUGE",
                "value_type": "INT64",
            },
        )
        in_use = _failing("--data-dir", str(tmp_path), "--time-scale", "60", "--http-port", "0")
        assert "Stop the other emulator" in in_use
        process.kill()
        process.wait()
    with _running(*options) as (_process, addresses):
        channel = grpc.insecure_channel(addresses["grpc"])
        kind = monitoring_v3.NotificationChannelServiceClient
        client = kind(transport=kind.get_transport_class("grpc")(channel=channel))
        assert client.get_notification_channel(name=made.name) == made
        channel.close()
    errors = _failing("--data-dir", str(tmp_path), "--time-scale", "1", "--http-port", "0")
    assert "written at time scale 60, not 1" in errors
    assert "to do: Use --time-scale 60" in errors


@pytest.mark.parametrize("option", ["--host-port", "--http-port"])
def test_a_port_in_use_is_named_with_what_to_do(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f"127.0.0.1:{port}" if option == "--host-port" else str(port)
        errors = _failing("--http-port", "0", option, value)
    assert "port cannot be used" in errors
    assert f"where: 127.0.0.1:{port}" in errors
    assert f"choose another {option}" in errors


def test_wrong_options_are_refused_without_showing_a_key() -> None:
    errors = _failing("--pagerduty-service", "Team=shortkey:high")
    assert "has 8 characters" in errors
    assert "shortkey" not in errors
    assert "No such option" in _failing("--colour", code=64)
    assert "serves this machine only" in _failing("--host-port", "0.0.0.0:8085")
    assert "where: --watchdog" in _failing("--watchdog", "hc-ping.com/uuid")
