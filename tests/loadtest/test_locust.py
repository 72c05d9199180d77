"""Locust itself, in a process, against servers that fail on cue: no false green."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from loadtest.ledger import Ledger, latency, unpack
from tests.conftest import free_port
from tests.loadtest.scripted_api import HANG, Answer, Script, scripted_api

ROOT = Path(__file__).resolve().parents[2]
LOCUST = (sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"))

pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    return {**os.environ, "SPEAKFIT_API_KEY": "key"}


def run(tmp_path: Path, script: Script, *options: str, workers: int = 0) -> tuple[int, Any, Ledger]:
    """Exit code, what was told, and the ledger of a headless run."""
    file = tmp_path / "ledger.json"
    port = str(free_port())
    with scripted_api(script) as url:
        common = [*LOCUST, "--host", url, "--prepare-limit", "1", *options]
        helpers = [
            subprocess.Popen(
                [*common, "--worker", "--master-port", port],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
            for _ in range(workers)
        ]
        master = ("--master", "--expect-workers", str(workers), "--master-bind-port", port)
        done = subprocess.run(
            [
                *common,
                *("--headless", "--only-summary", "--ledger", str(file)),
                *(master if workers else ()),
            ],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=90,
            check=False,
        )
        for helper in helpers:
            helper.wait(30)
    assert file.exists(), done.stdout + done.stderr
    told = json.loads(file.read_text(encoding="utf-8"))
    return done.returncode, told, unpack(told["ledger"])


def test_a_server_that_hangs_from_the_start_is_not_green(tmp_path: Path) -> None:
    code, told, ledger = run(
        tmp_path, lambda *_: Answer(after=HANG), "--time-factor", "0.005", "--grace", "0.5"
    )
    # Locust alone: no request at all, exit code 0.
    assert code != 0
    assert ledger.answered == 0
    assert ledger.failures == ledger.started == told["expected"] > 20


def test_a_server_that_hangs_at_the_end_is_not_green(tmp_path: Path) -> None:
    def script(number: int, since: float) -> Answer:
        return Answer(after=HANG if since > 3 else 0.0)

    code, told, ledger = run(tmp_path, script, "--time-factor", "0.01", "--grace", "0.5")
    unanswered = sum(entry.unanswered for entry in ledger.entries.values())
    assert code != 0
    assert unanswered > 10
    assert ledger.answered + ledger.failures == ledger.started == told["expected"]


def test_people_who_still_wait_at_the_end_are_counted(tmp_path: Path) -> None:
    def script(number: int, since: float) -> Answer:
        return Answer(after=HANG if number > 12 else 0.0)

    code, _, ledger = run(tmp_path, script, "--scenario", "people", "--time-factor", "0.01")
    assert code != 0
    assert sum(entry.unanswered for entry in ledger.entries.values()) > 0


def test_a_stall_shows_in_the_percentiles(tmp_path: Path) -> None:
    # Closed loops with ten users kept a p95 of 17 ms through a stall of a sixth of the time.
    def script(number: int, since: float) -> Answer:
        return Answer(after=max(0.0, 4.0 - since) if 2.5 < since < 4.0 else 0.0)

    _, _, ledger = run(tmp_path, script, "--time-factor", "0.02")
    found = latency(ledger.total("intended")).percentiles
    assert found[50.0] < 500
    assert found[95.0] > 500


def test_failures_at_once_do_not_hide_slow_answers(tmp_path: Path) -> None:
    def script(number: int, since: float) -> Answer:
        return Answer(status=503) if number % 2 else Answer(after=1.5)

    _, _, ledger = run(tmp_path, script, "--time-factor", "0.008")
    assert latency(ledger.total("intended")).percentiles[50.0] >= 1500
    assert ledger.failures > 10


def test_processes_share_the_arrivals_and_send_each_once(tmp_path: Path) -> None:
    # Users that ask once were asked again by each step of a ramp: 150 requests instead of 50.
    code, told, ledger = run(
        tmp_path, lambda *_: Answer(), "--scenario", "ramp", "--time-factor", "0.01", workers=2
    )
    assert code == 0
    assert (told["shares"], told["ended"]) == (2, 2)
    assert ledger.started == ledger.answered == told["expected"]
    # Preparation is in no other figure.
    assert ledger.prepared > 0
    assert "POST /v1/recordings" not in ledger.entries


def test_the_page_is_on_loopback_unless_told_otherwise() -> None:
    port = free_port()
    process = subprocess.Popen(
        [*LOCUST, "--host", "http://127.0.0.1:1", "--web-port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer.status_code == 200
        assert re.search("locust", answer.text, re.IGNORECASE)
        bound = {
            connection.laddr.ip
            for connection in psutil.Process(process.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert bound == {"127.0.0.1"}
    finally:
        process.terminate()
        process.wait(30)
