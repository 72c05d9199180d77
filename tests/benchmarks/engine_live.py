"""Seconds of one live evaluation: 200 policies over 2,000 series, once a minute.

    python -m tests.benchmarks.engine_live [--kinds own all ...]

First the engine alone, then the emulator as a whole: reading the points, evaluating, and writing
down what is remembered, opened and queued, with a data folder. The series write between the
evaluations, which is not counted. The aim is five per cent of a core, three seconds a minute.

`own`: every policy reads the ten series of its metric. In the other kinds every policy reads all
2,000: `all` with one aggregation, `mixed` with twenty of them, `trouble` while one series in
twenty is bad, `silence` for absence.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from google.cloud import monitoring_v3
from google.protobuf import json_format

from speakfit.clock import ManualClock, from_ns
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.engine.incidents import PolicyState, Replay, replay_many
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import parse_policy

MINUTE = 60 * 10**9
BEGIN = 28_000_000 * MINUTE
POLICIES, SERIES, POINTS, ROUNDS = 200, 2_000, 12, 8
AT_ONCE = 200
GAUGE = Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE)
Found = TypeVar("Found")
KINDS = ("own", "all", "mixed", "trouble", "silence")


def _metric(number: int, kind: str) -> str:
    return f"workload.googleapis.com/load{number % POLICIES if kind == 'own' else 0}"


def _aggregation(number: int, kind: str) -> Mapping[str, Any]:
    if kind != "mixed":
        return {"alignmentPeriod": "300s", "perSeriesAligner": "ALIGN_MEAN"}
    aligners = ("MEAN", "MAX", "MIN", "STDDEV", "NEXT_OLDER")
    step: dict[str, Any] = {
        "alignmentPeriod": f"{(60, 300, 600, 1800)[number % 4]}s",
        "perSeriesAligner": f"ALIGN_{aligners[number % 5]}",
    }
    if number % 3 == 0:
        step |= {"crossSeriesReducer": "REDUCE_MEAN", "groupByFields": ["metric.labels.zone"]}
    return step


def _policy(number: int, kind: str) -> dict[str, Any]:
    condition: dict[str, Any] = {
        "filter": f'metric.type = "{_metric(number, kind)}" AND resource.type = "generic_task"',
        "duration": "120s",
        "aggregations": [_aggregation(number, kind)],
    }
    if kind != "silence":
        condition |= {"comparison": "COMPARISON_GT", "thresholdValue": 120 + number / 100}
    name = "conditionAbsent" if kind == "silence" else "conditionThreshold"
    return {
        "name": f"projects/p/alertPolicies/{number}",
        "displayName": f"policy {number}",
        "combiner": "OR",
        "conditions": [{"displayName": "high", name: condition}],
    }


class _Load:
    """Gauges that are written once a minute, each process at a moment of its own."""

    def __init__(self, kind: str) -> None:
        random = np.random.default_rng(1)
        self.kind = kind
        self.phase = random.integers(1, MINUTE, SERIES)
        self.values = 50 + 10 * random.standard_normal((SERIES, POINTS + ROUNDS))
        if kind == "trouble":
            self.values[::20] += 100

    def key(self, number: int) -> SeriesKey:
        return SeriesKey.of(
            metric_type=_metric(number, self.kind),
            metric_labels={"route": f"/{number}", "zone": f"z{number % 3}"},
            resource_type="generic_task",
            resource_labels={
                "location": "us-central1", "namespace": "", "job": "api", "task_id": str(number)
            },
        )  # fmt: skip

    def series(self, points: int) -> list[Series]:
        """What the engine reads after so many minutes."""
        minutes = BEGIN + np.arange(max(0, points - POINTS), points) * MINUTE
        return [
            Series.of_numbers(
                key=self.key(number),
                kind=MetricKind.GAUGE,
                value_type=ValueType.DOUBLE,
                end_ns=minutes + self.phase[number],
                values=self.values[number, max(0, points - POINTS) : points],
            )
            for number in range(SERIES)
        ]

    def requests(self, minute: int) -> Iterator[Any]:
        """What is written in one minute."""
        for first in range(0, SERIES, AT_ONCE):
            request = monitoring_v3.CreateTimeSeriesRequest.pb()(name="projects/p")
            for number in range(first, first + AT_ONCE):
                one = request.time_series.add()
                key = self.key(number)
                one.metric.type = key.metric_type
                one.metric.labels.update(key.metric)
                one.resource.type = key.resource_type
                one.resource.labels.update(key.resource)
                point = one.points.add()
                end = BEGIN + minute * MINUTE + int(self.phase[number])
                point.interval.end_time.seconds, point.interval.end_time.nanos = divmod(end, 10**9)
                point.value.double_value = float(self.values[number, minute])
            yield request


def _engine(kind: str) -> Sequence[float]:
    load = _Load(kind)
    states = [PolicyState.empty()] * POLICIES
    specs = [
        parse_policy(_policy(number, kind), descriptors=lambda _: GAUGE)
        for number in range(POLICIES)
    ]
    spent = []
    for turn in range(ROUNDS):
        series = load.series(POINTS + turn)
        replays = [
            Replay(spec=spec, state=state) for spec, state in zip(specs, states, strict=True)
        ]
        seconds, results = _timed(
            lambda: replay_many(replays, series, [BEGIN + (POINTS + turn) * MINUTE])  # noqa: B023
        )
        states = [state for state, _ in results]
        spent.append(seconds)
    return spent


def _emulator(kind: str, folder: Path) -> Sequence[float]:
    load, clock = _Load(kind), ManualClock(from_ns(BEGIN))
    options = EmulatorOptions(port=0, http_port=0, data_dir=folder)
    spent = []
    with Emulator(options, clock=clock) as emulator:
        backend = emulator.backend
        for minute in range(POINTS + ROUNDS):
            clock.advance(timedelta(minutes=1))
            for request in load.requests(minute):
                backend.metrics.create_time_series(request)
            if minute == 0:
                for number in range(POLICIES):
                    request = monitoring_v3.CreateAlertPolicyRequest.pb()(name="projects/p")
                    body = {name: v for name, v in _policy(number, kind).items() if name != "name"}
                    json_format.ParseDict(body, request.alert_policy)
                    backend.policies.create(request)
            seconds, count = _timed(emulator.evaluator.evaluate_due)
            assert count == 1
            if minute >= POINTS:
                spent.append(seconds)
    return spent


def _timed(work: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds of the processor, which other work on the machine hardly changes."""
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def main() -> None:
    """Print the median and the longest evaluation of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    print(f"{POLICIES} policies, {SERIES:,} series, seconds of one core an evaluation")
    for kind in parser.parse_args().kinds:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for name, spent in (("engine", _engine(kind)), ("emulator", _emulator(kind, folder))):
                middle, worst = float(np.median(spent)), max(spent)
                print(
                    f"{kind:<8} {name:<9} median {middle:.3f} s, longest {worst:.3f} s: "
                    f"{middle / 60:.2%} of one core at one a minute"
                )


if __name__ == "__main__":
    main()
