"""Seconds from the instant of an evaluation to the page in PagerDuty, with 200 policies loaded.

    python -m tests.benchmarks.page_latency [--rounds 5] [--pages 50]

An emulator on the real clock with a data folder evaluates 200 policies, every one of which reads
2,000 series, every five seconds. A fault makes one policy page, and at last many at once. The
latency is from when the evaluation that opens the incident is due (its time and the watermark) to
when the embedded PagerDuty has taken the event over HTTP. The aim is two seconds. PagerDuty takes
120 events a minute with one key, so more pages and their ends would wait for it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.cloud import monitoring_v3
from google.protobuf import json_format

from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.pagerduty_endpoint import PagerDutyService
from speakfit.emulator.server import Emulator

POLICIES, SERIES, AT_ONCE = 200, 2_000, 200
PERIOD, WATERMARK = timedelta(seconds=5), timedelta(seconds=5)
SECOND = 10**9
KEY = "c" * 32
_LONGEST = 60.0


def _write(emulator: Emulator, metric: str, values: dict[int, float]) -> int:
    """Write one point for each label now; the time they end at."""
    end = time.time_ns()
    numbers = list(values)
    for first in range(0, len(numbers), AT_ONCE):
        request = monitoring_v3.CreateTimeSeriesRequest.pb()(name="projects/p")
        for number in numbers[first : first + AT_ONCE]:
            one = request.time_series.add()
            one.metric.type = f"workload.googleapis.com/{metric}"
            one.metric.labels["n"] = str(number)
            one.resource.type = "global"
            point = one.points.add()
            point.interval.end_time.seconds, point.interval.end_time.nanos = divmod(end, SECOND)
            point.value.double_value = values[number]
        emulator.backend.metrics.create_time_series(request)
    return end


def _condition(metric: str, more: str = "") -> dict[str, Any]:
    text = f'metric.type = "workload.googleapis.com/{metric}" resource.type = "global"{more}'
    return {
        "displayName": metric,
        "conditionThreshold": {
            "filter": text,
            "comparison": "COMPARISON_GT",
            "thresholdValue": 0.5,
            "duration": "0s",
            "aggregations": [{"alignmentPeriod": "3600s", "perSeriesAligner": "ALIGN_NEXT_OLDER"}],
        },
    }


def _declare(emulator: Emulator) -> None:
    """The channel, and policies that read all of the load and a fault of their own."""
    asked = monitoring_v3.CreateNotificationChannelRequest.pb()(name="projects/p")
    json_format.ParseDict(
        {"type": "pagerduty", "labels": {"service_key": KEY}}, asked.notification_channel
    )
    channel = emulator.backend.channels.create(asked).name
    for number in range(POLICIES):
        request = monitoring_v3.CreateAlertPolicyRequest.pb()(name="projects/p")
        body = {
            "displayName": f"policy {number}",
            "combiner": "OR",
            "severity": "CRITICAL",
            "notificationChannels": [channel],
            "conditions": [
                _condition("load"), _condition("fault", f' metric.labels.n = "{number}"')
            ],
        }  # fmt: skip
        json_format.ParseDict(body, request.alert_policy)
        emulator.backend.policies.create(request)


def _due(written_ns: int) -> float:
    """When the first evaluation that sees a point is due."""
    period = int(PERIOD.total_seconds()) * SECOND
    return -(-written_ns // period) * PERIOD.total_seconds() + WATERMARK.total_seconds()


def _wait(emulator: Emulator, known: Collection[str], count: int) -> list[float]:
    """When each of so many new pages arrived."""
    seen: dict[str, float] = {}
    deadline = time.monotonic() + _LONGEST
    while len(seen) < count:
        assert time.monotonic() < deadline, f"{len(seen)} of {count} pages came"
        for page in emulator.pagerduty.pages():
            if page["id"] not in known:
                seen.setdefault(page["id"], time.time())
        time.sleep(0.005)
    return sorted(seen.values())


def _round(emulator: Emulator, faults: Collection[int]) -> tuple[float, float]:
    """Seconds until the first and until the last page; the faults are over afterwards."""
    known = {page["id"] for page in emulator.pagerduty.pages()}
    due = _due(_write(emulator, "fault", dict.fromkeys(faults, 1.0)))
    arrived = _wait(emulator, known, len(faults))
    time.sleep(PERIOD.total_seconds())
    _write(emulator, "fault", dict.fromkeys(faults, 0.0))
    deadline = time.monotonic() + _LONGEST
    while any(page["status"] != "resolved" for page in emulator.pagerduty.pages()):
        assert time.monotonic() < deadline, "a page was not resolved"
        time.sleep(0.1)
    return arrived[0] - due, arrived[-1] - due


def main() -> None:
    """Print the latencies of single pages, then of many at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pages", type=int, default=50)
    chosen = parser.parse_args()
    service = PagerDutyService(name="critical", routing_key=KEY, urgency="high")
    with (
        TemporaryDirectory() as folder,
        Emulator(
            EmulatorOptions(
                port=0,
                http_port=0,
                data_dir=Path(folder),
                evaluation_period=PERIOD,
                watermark=WATERMARK,
                pagerduty_services=(service,),
            )
        ) as emulator,
    ):
        _write(emulator, "load", dict.fromkeys(range(SERIES), 0.0))
        _write(emulator, "fault", dict.fromkeys(range(POLICIES), 0.0))
        _declare(emulator)
        time.sleep(2 * (PERIOD + WATERMARK).total_seconds())
        single = [_round(emulator, [turn])[0] for turn in range(chosen.rounds)]
        print(f"{POLICIES} policies, each reads {SERIES:,} series; from due to received:")
        print(f"one page: {' '.join(f'{seconds:.2f}' for seconds in sorted(single))} s")
        time.sleep(60.0)
        first, last = _round(emulator, range(chosen.pages))
        print(f"{chosen.pages} pages at once: first {first:.2f} s, last {last:.2f} s")


if __name__ == "__main__":
    main()
