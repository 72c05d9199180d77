"""How long a month of alerting takes: 20 policies over 1,000 series at one-minute steps.

    python -m tests.benchmarks.engine_month [--mix gauges|counters|fleet] [--days 30] [--uneven]

`gauges` and `counters`: every one of the 20 policies reads all 1,000 series. `fleet`: 1,000 series
of a fleet (gauges, counters, histograms) that 20 policies share as they would in production.
Series are made before the clock starts; the figure is evaluation alone, memory is the peak of the
whole process, the series included.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speakfit.engine.incidents import PolicyState, Replay, replay_many
from speakfit.engine.points import (
    Buckets,
    Descriptor,
    Distributions,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.engine.policies import parse_policy

MINUTE = 60 * 10**9
BEGIN = 28_000_000 * MINUTE
PREFIX = "workload.googleapis.com/"
BOUNDS = Buckets.explicit([0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10])
KINDS = {
    "load": (MetricKind.GAUGE, ValueType.DOUBLE),
    "limit": (MetricKind.GAUGE, ValueType.DOUBLE),
    "requests": (MetricKind.CUMULATIVE, ValueType.INT64),
    "errors": (MetricKind.CUMULATIVE, ValueType.INT64),
    "latency": (MetricKind.CUMULATIVE, ValueType.DISTRIBUTION),
}


def _key(metric: str, number: int) -> SeriesKey:
    return SeriesKey.of(
        metric_type=PREFIX + metric,
        metric_labels={"route": f"/{number % 10}", "zone": f"z{number % 3}"},
        resource_type="generic_task",
        resource_labels={"task_id": str(number)},
    )


def _series(
    metric: str, number: int, end: NDArray[np.int64], random: np.random.Generator
) -> Series:
    kind, value_type = KINDS[metric]
    start = None if kind is MetricKind.GAUGE else np.full(len(end), BEGIN - 2 * MINUTE)
    if value_type is ValueType.DISTRIBUTION:
        counts = np.cumsum(random.poisson(3.0, (len(end), len(BOUNDS))), axis=0, dtype=np.float64)
        count = counts.sum(axis=1)
        column = Distributions(
            buckets=BOUNDS, count=count, mean=np.ones(len(end)), ssd=count, counts=counts
        )
        return Series.of_distributions(
            key=_key(metric, number), kind=kind, start_ns=start, end_ns=end, values=column
        )
    if kind is MetricKind.GAUGE:
        # A day and a night, noise, and an hour of trouble a week that most series share.
        minute = np.arange(len(end))
        values = 50 + 20 * np.sin(minute / 229.2) + 5 * random.standard_normal(len(end))
        values[minute % 10_080 < 60] += 25 if number % 7 else 0
    else:
        values = np.cumsum(random.poisson(60.0 if metric == "requests" else 0.3, len(end)))
    return Series.of_numbers(
        key=_key(metric, number),
        kind=kind,
        value_type=value_type,
        start_ns=start,
        end_ns=end,
        values=values,
    )


def _uneven(end: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    kept = random.random(len(end)) >= 0.02
    return end[kept] + int(random.integers(0, MINUTE))


def _aggregation(
    aligner: str, period: int, reducer: str = "", by: Sequence[str] = ()
) -> Mapping[str, Any]:
    found: dict[str, Any] = {"alignmentPeriod": f"{period}s", "perSeriesAligner": aligner}
    if reducer:
        found |= {"crossSeriesReducer": reducer, "groupByFields": list(by)}
    return found


Rule = tuple[str, float, int, Mapping[str, Any]]
"""Metric, threshold, duration in minutes, aggregation."""
ROUTE = ("metric.labels.route",)
ZONE = ("metric.labels.zone",)

GAUGES: list[Rule] = [
    ("load", 80, 5, _aggregation("ALIGN_MEAN", 60)),
    ("load", 90, 2, _aggregation("ALIGN_MEAN", 60)),
    ("load", 75, 5, _aggregation("ALIGN_MEAN", 300)),
    ("load", 85, 5, _aggregation("ALIGN_MEAN", 300)),
    ("load", 95, 0, _aggregation("ALIGN_MAX", 300)),
    ("load", 100, 0, _aggregation("ALIGN_MAX", 300)),
    ("load", 78, 10, _aggregation("ALIGN_MEAN", 600)),
    ("load", 70, 30, _aggregation("ALIGN_MEAN", 3600)),
    ("load", 99, 0, _aggregation("ALIGN_MAX", 3600)),
    ("load", 60, 60, _aggregation("ALIGN_MIN", 600)),
    ("load", 8, 5, _aggregation("ALIGN_STDDEV", 300)),
    ("load", 10.5, 0, _aggregation("ALIGN_COUNT", 600)),
    ("load", 70, 5, _aggregation("ALIGN_MEAN", 300, "REDUCE_MEAN", ROUTE)),
    ("load", 95, 5, _aggregation("ALIGN_MEAN", 300, "REDUCE_MAX")),
    ("load", 7_500, 5, _aggregation("ALIGN_MEAN", 300, "REDUCE_SUM", ROUTE)),
    ("load", 90, 2, _aggregation("ALIGN_MEAN", 60, "REDUCE_MAX", ROUTE)),
    ("load", 74, 10, _aggregation("ALIGN_MEAN", 600, "REDUCE_MEAN", ZONE)),
    ("load", 92, 2, _aggregation("ALIGN_MAX", 300, "REDUCE_MIN", ROUTE)),
    ("load", 80, 5, _aggregation("ALIGN_NEXT_OLDER", 300)),
    ("load", 80, 5, _aggregation("ALIGN_INTERPOLATE", 60)),
]
COUNTERS: list[Rule] = [
    *(("requests", 1.5, minutes, _aggregation("ALIGN_RATE", 60)) for minutes in (0, 2, 5)),
    *(("requests", 1.2, minutes, _aggregation("ALIGN_RATE", 300)) for minutes in (0, 2, 5)),
    *(("requests", limit, 5, _aggregation("ALIGN_RATE", 600)) for limit in (1.1, 1.15)),
    *(("requests", limit, 5, _aggregation("ALIGN_RATE", 3600)) for limit in (1.03, 1.05)),
    *(("requests", limit, 0, _aggregation("ALIGN_DELTA", 300)) for limit in (360, 370)),
    *(("requests", limit, 0, _aggregation("ALIGN_DELTA", 120)) for limit in (165, 175)),
    ("requests", 1_005, 5, _aggregation("ALIGN_RATE", 300, "REDUCE_SUM")),
    ("requests", 101, 5, _aggregation("ALIGN_RATE", 300, "REDUCE_SUM", ROUTE)),
    ("requests", 1.2, 2, _aggregation("ALIGN_RATE", 300, "REDUCE_MAX", ROUTE)),
    ("requests", 102, 2, _aggregation("ALIGN_RATE", 60, "REDUCE_SUM", ROUTE)),
    ("requests", 336, 5, _aggregation("ALIGN_RATE", 600, "REDUCE_SUM", ZONE)),
    ("requests", 1.0, 5, _aggregation("ALIGN_RATE", 3600, "REDUCE_MEAN", ROUTE)),
]
P95 = "REDUCE_PERCENTILE_95"
FLEET: list[Rule] = [
    *GAUGES[0:8],
    *GAUGES[12:15],
    COUNTERS[1],
    COUNTERS[3],
    COUNTERS[14],
    COUNTERS[15],
    ("latency", 2, 5, _aggregation("ALIGN_DELTA", 300, P95, ROUTE)),
    ("latency", 5, 2, _aggregation("ALIGN_DELTA", 300, P95, ROUTE)),
    ("latency", 3, 5, _aggregation("ALIGN_DELTA", 60, P95)),
]
"""Two ratios make 20."""
RATIO = _aggregation("ALIGN_RATE", 300, "REDUCE_SUM", ROUTE)

MIXES: dict[str, tuple[list[Rule], dict[str, int]]] = {
    "gauges": (GAUGES, {"load": 1_000}),
    "counters": (COUNTERS, {"requests": 1_000}),
    "fleet": (FLEET, {"load": 540, "requests": 200, "errors": 200, "latency": 60}),
}


def _filter(metric: str) -> str:
    return f'metric.type = "{PREFIX}{metric}" AND resource.type = "generic_task"'


def _descriptor(metric_type: str) -> Descriptor:
    kind, value_type = KINDS[metric_type.removeprefix(PREFIX)]
    return Descriptor(kind=kind, value_type=value_type)


def _policies(mix: str) -> Iterator[Replay]:
    thresholds = [
        {"filter": _filter(metric), "thresholdValue": limit, "duration": f"{minutes * 60}s",
         "aggregations": [aggregation]}
        for metric, limit, minutes, aggregation in MIXES[mix][0]
    ]  # fmt: skip
    if mix == "fleet":
        thresholds += [
            {"filter": _filter("errors"), "denominatorFilter": _filter("requests"),
             "aggregations": [RATIO], "denominatorAggregations": [RATIO],
             "thresholdValue": limit, "duration": "300s"}
            for limit in (0.007, 0.05)
        ]  # fmt: skip
    for number, threshold in enumerate(thresholds):
        raw = {
            "name": f"projects/p/alertPolicies/{number}",
            "displayName": f"policy {number}",
            "combiner": "OR",
            "conditions": [
                {
                    "displayName": "condition",
                    "conditionThreshold": {**threshold, "comparison": "COMPARISON_GT"},
                }
            ],
        }
        spec = parse_policy(raw, descriptors=_descriptor)
        yield Replay(spec=spec, state=PolicyState.empty())


def _timed(work: Callable[[], int]) -> tuple[float, float, int]:
    """Seconds that passed, and those of a core, which other work on the machine changes less."""
    begin, busy = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - begin, time.process_time() - busy, found


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print seconds and megabytes of one mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mix", choices=sorted(MIXES), default="fleet")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument(
        "--uneven",
        action="store_true",
        help="every series has a phase of its own, and one point in fifty is missing",
    )
    chosen = parser.parse_args()
    replays = list(_policies(chosen.mix))
    end = BEGIN + np.arange(chosen.days * 1_440) * MINUTE
    random = np.random.default_rng(3)
    series = [
        _series(metric, number, _uneven(end, random) if chosen.uneven else end, random)
        for metric, count in MIXES[chosen.mix][1].items()
        for number in range(count)
    ]
    made = _peak_megabytes()
    seconds, busy, events = _timed(
        lambda: sum(len(events) for _, events in replay_many(replays, series, end))
    )
    print(
        f"{chosen.mix}: {len(replays)} policies, {len(series):,} series, {len(end):,} evaluations "
        f"each: {seconds:.1f} s, of a core {busy:.1f} s, {events:,} events; "
        f"peak {_peak_megabytes():,.0f} MB, of which "
        f"{made:,.0f} MB before the evaluation (the series and Python)"
    )


if __name__ == "__main__":
    main()
