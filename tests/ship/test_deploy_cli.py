"""`python -m speakfit_ops.deploy` as people and pipelines call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from speakfit_ops.deploy.__main__ import main
from tests.ship.cloud_endpoint import ENVIRONMENT, FIRST, PROJECT, CloudEndpoint
from tests.ship.conftest import NEW, OLD, Telemetry, traffic
from tests.ship.test_deploy import IMAGE, SECOND

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def deploy(cloud: CloudEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs one command line here; its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEAKFIT_CLOUD_ENDPOINT", cloud.url)
    monkeypatch.setenv("SPEAKFIT_ENVIRONMENT", ENVIRONMENT)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["deploy", *arguments])
        return main()

    return run


def test_a_plan_says_what_is_to_do_and_nothing_happens_unasked(
    deploy, cloud: CloudEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("plan", "--image", IMAGE, "--release", "r2") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"Target: loopback endpoint at {cloud.url}, project {PROJECT}, us-central1, "
        f"environment {ENVIRONMENT}"
    )
    assert lines[3] == (
        f"  2. candidate to do  make revision {SECOND} with api@{'a' * 12}, no traffic, "
        "tag candidate"
    )
    assert deploy("release", "--image", IMAGE, "--release", "r2") == 5
    assert "repeat with --yes" in capsys.readouterr().err
    assert cloud.writes == []

    assert deploy("release", "--image", IMAGE, "--release", "r2", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["revision"] == SECOND
    assert deploy("status", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["revisions"]
    assert [(row["revision"], row["percent"], row["tag"]) for row in rows] == [
        (FIRST, 100, ""),
        (SECOND, 0, "candidate"),
    ]
    assert rows[1]["last"].startswith("smoke done")
    assert deploy("rollback", "--to", FIRST, "--yes") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{FIRST} serves."


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["plan", "--image", "api:latest"], 5, "no image by digest"),
        (["plan", "--image", IMAGE, "--environment", "Production!"], 1, "no environment"),
        (
            ["plan", "--image", IMAGE, "--environment", "test"],
            1,
            "speakfit-test-api does not exist",
        ),
        (["status", "--endpoint", "http://run.example.com"], 5, "Only an endpoint on this machine"),
        (["promote", "--steps", "50,10", "--yes"], 64, "no growing percentages"),
        (["promote", "--yes"], 5, "No revision waits for traffic"),
        (["status", "--endpoint", "http://127.0.0.1:9"], 1, "Nobody answers"),
    ],
)
def test_bad_input_is_told_with_what_to_do(
    deploy, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, what: str
) -> None:
    assert deploy(*arguments) == code
    said = capsys.readouterr().err
    assert what in said
    assert "to do:" in said


def test_what_is_not_permitted_is_told_in_googles_words(
    deploy, cloud: CloudEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.forbidden = True
    assert deploy("plan", "--image", IMAGE) == 1
    assert "Permission denied." in capsys.readouterr().err


def test_a_release_that_was_killed_goes_on(
    deploy, cloud: CloudEndpoint, candidate_url: str, tmp_path: Path
) -> None:
    """The process dies while its revision is being made; nothing is done twice afterwards."""
    hit, go_on = threading.Event(), threading.Event()

    def hold(write: str) -> None:
        if "/services/" in write:
            hit.set()
            go_on.wait(30)

    cloud.arrived = hold
    command = [sys.executable, "-m", "speakfit_ops.deploy", "release", "--yes"]
    process = subprocess.Popen(
        [*command, "--image", IMAGE, "--release", "r2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert hit.wait(60)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    cloud.arrived = lambda _write: None
    go_on.set()
    assert deploy("release", "--yes", "--image", IMAGE, "--release", "r2") == 0
    assert len(cloud.executions) == 1, "the migration was known to be done"
    assert set(cloud.revisions) == {FIRST, SECOND}
    assert cloud.traffic() == {FIRST: 100}


@pytest.mark.slow
def test_promote_waits_in_the_time_of_the_telemetry(
    deploy,
    cloud: CloudEndpoint,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its clock, not this machine's, says when a step was watched long enough."""
    telemetry.series = [*traffic(OLD), *traffic(NEW)]
    monkeypatch.delenv("MONITORING_EMULATOR_HOST")
    assert deploy("release", "--yes", "--image", IMAGE, "--release", NEW) == 0
    over = threading.Event()

    def time_goes_on() -> None:
        while not over.wait(0.2):
            telemetry.pause(timedelta(minutes=4))

    clock = threading.Thread(target=time_goes_on)
    clock.start()
    try:
        code = deploy(
            *("promote", "--yes", "--json", "--emulator", str(telemetry.target.host)),
            *("--steps", "50", "--pause", "10m", "--every", "1s"),
        )
    finally:
        over.set()
        clock.join()
    said = capsys.readouterr()
    assert code == 0, said.err
    assert json.loads(said.out[said.out.index("\n{") :])["health"] == "healthy"
    assert cloud.traffic() == {SECOND: 100}
