"""The fixtures for other projects: one emulator a session, and nothing of one test in the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument
from google.cloud import monitoring_v3

from speakfit.emulator import rest_front
from speakfit.emulator.pytest_plugin import ROUTING_KEY
from speakfit.emulator.server import Emulator
from speakfit.errors import FailedPrecondition
from speakfit.pagerduty import incidents
from tests.speakfit.emulator.bench import METRIC, PROJECT, RESOURCE, Bench, condition, policy

_TOKENS: list[str] = []
"""Page tokens that earlier runs were given."""


def _assert_empty(bench: Bench, pagerduty: str) -> None:
    emulator = bench.emulator
    assert emulator.clock.now_ns() <= time.time_ns()
    assert emulator.backend.points.count() == (0, 0)
    assert list(bench.metrics.list_metric_descriptors(name=PROJECT)) == []
    assert list(bench.policies.list_alert_policies(name=PROJECT)) == []
    assert list(bench.channels.list_notification_channels(name=PROJECT)) == []
    assert list(bench.snoozes.list_snoozes(parent=PROJECT)) == []
    assert list(bench.dashboards.list_dashboards(request={"parent": PROJECT})) == []
    assert bench.http("GET", "/emulator/v1/verificationCodes")[1] == {"verificationCodes": []}
    assert emulator.incidents() == []
    assert emulator.notifier.queue() == []
    assert emulator.evaluator.last_ns is None
    assert incidents(pagerduty, "any-token") == []
    assert bench.http("GET", "/change_events")[1]["change_events"] == []
    assert [one["name"] for one in bench.http("GET", "/users")[1]["users"]] == ["On Call"]
    for token in _TOKENS:
        with pytest.raises(InvalidArgument, match="token was not made by this listing"):
            bench.channels.list_notification_channels(
                request={"name": PROJECT, "page_size": 1, "page_token": token}
            )


def _fill(bench: Bench, value: dict[str, Any]) -> None:
    def write() -> None:
        points = [{"interval": {"end_time": bench.stamp()}, "value": value}]
        bench.write({"metric": {"type": METRIC}, "resource": RESOURCE, "points": points})

    def channel(kind: str, **labels: str) -> str:
        made = bench.channels.create_notification_channel(
            name=PROJECT, notification_channel={"type": kind, "labels": labels}
        )
        return str(made.name)

    write()
    pager, phone = channel("pagerduty", service_key=ROUTING_KEY), channel("sms", number="+1555")
    bench.channels.send_notification_channel_verification_code(name=phone)
    high = condition(threshold_value=1.0, duration={"seconds": 0})
    made = bench.policies.create_alert_policy(
        name=PROJECT,
        alert_policy=monitoring_v3.AlertPolicy(
            policy(conditions=[high], notification_channels=[pager])
        ),
    )
    for _ in range(3):
        bench.emulator.advance(timedelta(minutes=1))
        write()
    assert [one.status for one in incidents(bench.emulator.http_url, "any-token")] == ["triggered"]
    bench.snoozes.create_snooze(
        parent=PROJECT,
        snooze={
            "criteria": {"policies": [made.name]},
            "display_name": "Maintenance",
            "interval": {
                "start_time": bench.stamp(),
                "end_time": bench.stamp(timedelta(minutes=9)),
            },
        },
    )
    bench.dashboards.create_dashboard(
        request={"parent": PROJECT, "dashboard": {"display_name": "B", "grid_layout": {}}}
    )
    change = {"routing_key": ROUTING_KEY, "payload": {"summary": "Deployed"}}
    assert bench.http("POST", "/v2/change/enqueue", change)[0] == 202
    user = {"user": {"type": "user", "name": "Second", "email": "second@pagerduty.test"}}
    status, answer = bench.http("POST", "/users", user, From="oncall@pagerduty.test")
    assert status == 201, answer
    first = bench.channels.list_notification_channels(request={"name": PROJECT, "page_size": 1})
    _TOKENS.append(first.next_page_token)
    bench.emulator.advance(timedelta(days=1))


@pytest.mark.parametrize("value", [{"double_value": 500.0}, {"int64_value": 500}])
def test_every_test_begins_empty_whatever_was_left_by_another(
    monitoring_emulator: Emulator, pagerduty_emulator: str, value: dict[str, Any]
) -> None:
    # The same metric has another type each time: a remembered series would refuse it.
    assert os.environ["MONITORING_EMULATOR_HOST"] == monitoring_emulator.grpc_address
    assert os.environ["PAGERDUTY_EVENTS_URL"] == pagerduty_emulator
    with Bench.over(monitoring_emulator) as bench:
        _assert_empty(bench, pagerduty_emulator)
        _fill(bench, value)
        bench.reset()
        _assert_empty(bench, pagerduty_emulator)
        _fill(bench, value)


def test_a_call_that_outlives_a_reset_is_unavailable_and_leaves_nothing(bench: Bench) -> None:
    before = bench.emulator.backend
    bench.reset()
    body = json.dumps({"type": "email", "labels": {"email_address": "a@b.test"}}).encode()
    path = f"/v3/{PROJECT}/notificationChannels"
    status, answer = rest_front.answer(before, method="POST", path=path, query=[], body=body)
    assert (status, answer["error"]["status"]) == (503, "UNAVAILABLE")
    assert list(bench.channels.list_notification_channels(name=PROJECT)) == []


def test_a_data_folder_is_never_emptied(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        bench.write(bench.series(1))
        with pytest.raises(FailedPrecondition, match="--data-dir"):
            bench.reset()
        assert len(bench.read()) == 1


_OTHER_PROJECT = """
import json, os, time
from datetime import timedelta
from pathlib import Path
from urllib.request import Request, urlopen

def read(url):
    headers = {"Authorization": "Token token=any"}
    with urlopen(Request(url, headers=headers), timeout=10) as answer:
        return json.loads(answer.read())

def test_one(monitoring_emulator, pagerduty_emulator):
    assert os.environ["MONITORING_EMULATOR_HOST"] == monitoring_emulator.grpc_address
    url = monitoring_emulator.http_url + "/v1/projects/p/dashboards"
    urlopen(url, data=b'{"displayName": "Board", "gridLayout": {}}', timeout=10).close()
    assert len(read(url)["dashboards"]) == 1
    assert read(pagerduty_emulator + "/incidents")["incidents"] == []
    assert monitoring_emulator.advance(timedelta(minutes=2)) >= 1
    # The other process serves at the same time.
    mine, theirs = Path(os.environ["MINE"]), Path(os.environ["THEIRS"])
    mine.with_suffix(".new").write_text(monitoring_emulator.grpc_address)
    mine.with_suffix(".new").rename(mine)
    while not theirs.exists():
        time.sleep(0.01)
    assert theirs.read_text() != mine.read_text()
    test_one.emulator = monitoring_emulator

def test_two(monitoring_emulator):
    assert monitoring_emulator is test_one.emulator
    assert read(monitoring_emulator.http_url + "/v1/projects/p/dashboards") == {}
    monitoring_emulator.stop()

def test_three(monitoring_emulator):
    assert read(monitoring_emulator.http_url + "/v1/projects/p/dashboards") == {}

def test_four():
    assert "MONITORING_EMULATOR_HOST" not in os.environ
"""


def test_the_fixtures_serve_another_project_in_several_processes_at_once(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    (tmp_path / "test_fixtures.py").write_text(_OTHER_PROJECT)
    names = [str(tmp_path / name) for name in ("first", "second")]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MONITORING")}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(root / "platform"), "MINE": mine, "THEIRS": theirs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for mine, theirs in (names, reversed(names))
    ]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    for output in outputs:
        assert "4 passed" in output, output
