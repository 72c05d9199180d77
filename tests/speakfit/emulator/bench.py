"""One emulator with a clock that stands still, and the real clients that talk to it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.error import HTTPError

import grpc
from google.cloud import monitoring_dashboard_v1, monitoring_v3

from speakfit.clock import ManualClock
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.pagerduty_endpoint import PagerDutyService
from speakfit.emulator.server import Emulator
from speakfit.pagerduty import PagerDutyIncident, incidents

PROJECT = "projects/speakfit-test"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
KEY = "c" * 32
SERVICES = (
    PagerDutyService(name="SpeakFit critical", routing_key=KEY, urgency="high"),
    PagerDutyService(name="SpeakFit warning", routing_key="w" * 32, urgency="low"),
)
METRIC = "workload.googleapis.com/speakfit.queue.depth"
OPTIONS = EmulatorOptions(port=0, http_port=0, pagerduty_services=SERVICES)

LABELS = {"location": "us-central1", "namespace": "", "job": "api", "task_id": "one"}
RESOURCE = {"type": "generic_task", "labels": LABELS}


class Bench:
    """Starts an emulator; every call goes through a real client over a real socket."""

    def __init__(self, *, clock: ManualClock | None = None, **changes: Any) -> None:
        self.clock = clock or ManualClock(NOON)
        self.emulator = Emulator(replace(OPTIONS, **changes), clock=self.clock)

    @classmethod
    @contextmanager
    def over(cls, emulator: Emulator) -> Iterator[Bench]:
        """Clients of an emulator that is serving already, whose clock stands still."""
        bench = cls()
        assert isinstance(emulator.clock, ManualClock)
        bench.emulator, bench.clock = emulator, emulator.clock
        with grpc.insecure_channel(emulator.grpc_address) as bench.channel:
            yield bench

    def __enter__(self) -> Bench:
        self.emulator.start()
        self.channel = grpc.insecure_channel(self.emulator.grpc_address)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.channel.close()
        self.emulator.stop()

    def reset(self) -> None:
        """Empty the emulator and set its clock back to noon."""
        self.clock = ManualClock(NOON)
        self.emulator.reset(clock=self.clock)

    def _client(self, kind: Any) -> Any:
        return kind(transport=kind.get_transport_class("grpc")(channel=self.channel))

    @cached_property
    def metrics(self) -> Any:
        return self._client(monitoring_v3.MetricServiceClient)

    @cached_property
    def policies(self) -> Any:
        return self._client(monitoring_v3.AlertPolicyServiceClient)

    @cached_property
    def channels(self) -> Any:
        return self._client(monitoring_v3.NotificationChannelServiceClient)

    @cached_property
    def snoozes(self) -> Any:
        return self._client(monitoring_v3.SnoozeServiceClient)

    @cached_property
    def objectives(self) -> Any:
        return self._client(monitoring_v3.ServiceMonitoringServiceClient)

    @cached_property
    def dashboards(self) -> Any:
        return self._client(monitoring_dashboard_v1.DashboardsServiceClient)

    def series(self, value: float, *, metric: str = METRIC, **labels: str) -> dict[str, Any]:
        """A gauge with one point now."""
        return {
            "metric": {"type": metric, "labels": labels},
            "resource": RESOURCE,
            "points": [
                {
                    "interval": {"end_time": self.stamp()},
                    "value": {"double_value": value},
                }
            ],
        }

    def stamp(self, later: timedelta = timedelta(0)) -> dict[str, int]:
        seconds, nanos = divmod(self.clock.now_ns(), 10**9)
        return {"seconds": seconds + int(later.total_seconds()), "nanos": nanos}

    def write(self, *series: Mapping[str, Any]) -> None:
        self.metrics.create_time_series(name=PROJECT, time_series=list(series))

    def read(self, filter_text: str = f'metric.type="{METRIC}"', **request: Any) -> list[Any]:
        interval = {"start_time": self.stamp(timedelta(hours=-1)), "end_time": self.stamp()}
        return list(
            self.metrics.list_time_series(
                request={"name": PROJECT, "filter": filter_text, "interval": interval, **request}
            )
        )

    def pagerduty_channel(self) -> Any:
        return self.channels.create_notification_channel(
            name=PROJECT,
            notification_channel={
                "type": "pagerduty",
                "display_name": "SpeakFit critical",
                "labels": {"service_key": KEY},
            },
        )

    def create(self, **changes: Any) -> Any:
        return self.policies.create_alert_policy(
            name=PROJECT, alert_policy=monitoring_v3.AlertPolicy(policy(**changes))
        )

    def minutes(self, count: int, value: float | None) -> None:
        """Let time pass with a point every 30 s (or none) and an evaluation every minute."""
        for _ in range(count):
            for _half in range(2):
                self.clock.advance(timedelta(seconds=30))
                if value is not None:
                    self.write(self.series(value))
            self.emulator.evaluate_now()

    def pages(self) -> list[PagerDutyIncident]:
        return incidents(self.emulator.http_url, "any-token")

    def http(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """A plain HTTP call; bytes go as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.emulator.http_url + path,
            data=raw,
            method=method,
            headers={"Authorization": "Token token=any", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


def condition(name: str = "deep", **changes: Any) -> dict[str, Any]:
    """Queue depth above 100 for two minutes."""
    return {
        "display_name": name,
        "condition_threshold": {
            "filter": f'metric.type="{METRIC}" AND resource.type="generic_task"',
            "comparison": "COMPARISON_GT",
            "threshold_value": 100.0,
            "duration": {"seconds": 120},
            "aggregations": [
                {
                    "alignment_period": {"seconds": 60},
                    "per_series_aligner": "ALIGN_MAX",
                    "cross_series_reducer": "REDUCE_MAX",
                }
            ],
            **changes,
        },
    }


def policy(**changes: Any) -> dict[str, Any]:
    """A critical policy with a runbook."""
    return {
        "display_name": "Queue depth",
        "combiner": "OR",
        "severity": "CRITICAL",
        "conditions": [condition()],
        "user_labels": {"managed-by": "speakfit-alerts", "alert-id": "queue-depth-critical"},
        "documentation": {
            "content": "Too many chunks wait on ${resource.type}.",
            "mime_type": "text/markdown",
            "subject": "Queue is deep",
            "links": [{"display_name": "Runbook", "url": "https://runbooks.test/queue-depth"}],
        },
        **changes,
    }
