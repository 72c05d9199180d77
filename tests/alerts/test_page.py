"""From an applied policy to PagerDuty and back: the page names its runbook and then resolves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.cloud import monitoring_v3

from alerts.apply import apply_plan
from alerts.gateway import Gateway
from alerts.plan import desired_state, make_plan
from alerts.policies import CATALOG
from alerts.secret import key_digest
from speakfit.clock import ManualClock
from speakfit.emulator.server import Emulator
from speakfit.metrics import RESOURCE_TYPE, WORKERS_ALIVE
from speakfit.pagerduty import PagerDutyIncident, incidents
from speakfit.target import Target, metric_client
from tests.alerts.conftest import KEYS, fresh_emulator


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Its clock moves and its pages are counted, so it is nobody else's."""
    with fresh_emulator() as running:
        yield running


def live_workers(emulator: Emulator, target: Target, count: int, minutes: int) -> None:
    """Export `count` every 30 s for some minutes, evaluating as time passes."""
    assert isinstance(emulator.clock, ManualClock)
    client = metric_client(target)
    for _ in range(minutes * 2):
        emulator.clock.advance(timedelta(seconds=30))
        now = emulator.clock.now_ns()
        client.create_time_series(
            name=target.project_name,
            time_series=[
                monitoring_v3.TimeSeries(
                    metric={"type": WORKERS_ALIVE.type},
                    resource={
                        "type": RESOURCE_TYPE,
                        "labels": {
                            "project_id": target.project,
                            "location": "us-central1",
                            "namespace": "speakfit",
                            "job": "api",
                            "task_id": "api-1",
                        },
                    },
                    points=[
                        {
                            "interval": {
                                "end_time": {
                                    "seconds": now // 10**9,
                                    "nanos": now % 10**9,
                                }
                            },
                            "value": {"int64_value": count},
                        }
                    ],
                )
            ],
        )
        emulator.evaluate_now()


def pages(emulator: Emulator) -> list[PagerDutyIncident]:
    return list(incidents(emulator.http_url, "any"))


def test_a_dead_worker_pages_with_its_runbook_and_its_return_resolves_the_page(
    emulator: Emulator, target: Target
) -> None:
    desired = desired_state(
        CATALOG,
        runbook_base_url="https://runbooks.test",
        digests={channel: key_digest(key) for channel, key in KEYS.items()},
    )
    with Gateway(target) as gateway:
        apply_plan(gateway, make_plan(desired, gateway.read(CATALOG)), keys=KEYS)
    live_workers(emulator, target, 1, 3)
    live_workers(emulator, target, 0, 5)
    assert pages(emulator) == []
    live_workers(emulator, target, 0, 3)
    (page,) = pages(emulator)
    assert page.status == "triggered"
    assert page.urgency == "high"
    assert page.service == "SpeakFit critical"
    assert "no transcription worker" in page.title
    assert "https://runbooks.test/worker-down" in str(page.links)
    live_workers(emulator, target, 1, 3)
    (page,) = pages(emulator)
    assert page.status == "resolved"
