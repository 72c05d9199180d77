"""Seconds of one live evaluation: 200 policies over 2,000 series, once a minute.

    python -m tests.benchmarks.engine_live

The engine alone, without store and network: five per cent of a core are three seconds a minute.
`own`: every policy reads the ten series of its metric; `all`: every policy reads all 2,000.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from speakfit.engine.incidents import PolicyState, Replay, replay_many
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import parse_policy

MINUTE = 60 * 10**9
BEGIN = 28_000_000 * MINUTE
POLICIES, SERIES, POINTS, ROUNDS = 200, 2_000, 12, 5
GAUGE = Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE)


def _replay(number: int, metric: str) -> Replay:
    aggregation = {"alignmentPeriod": "300s", "perSeriesAligner": "ALIGN_MEAN"}
    threshold = {
        "filter": f'metric.type = "{metric}" AND resource.type = "generic_task"',
        "comparison": "COMPARISON_GT",
        "thresholdValue": 90 + number / 100,
        "duration": "120s",
        "aggregations": [aggregation],
    }
    raw = {
        "name": f"projects/p/alertPolicies/{number}",
        "displayName": f"policy {number}",
        "combiner": "OR",
        "conditions": [{"displayName": "high", "conditionThreshold": threshold}],
    }
    spec = parse_policy(raw, descriptors=lambda _: GAUGE)
    return Replay(spec=spec, state=PolicyState.empty())


def _series(number: int, metric: str, random: np.random.Generator) -> Series:
    key = SeriesKey.of(
        metric_type=metric,
        metric_labels={"route": f"/{number}"},
        resource_type="generic_task",
        resource_labels={"task_id": str(number)},
    )
    # Every process exports at a moment of its own.
    end = BEGIN + np.arange(POINTS) * MINUTE + int(random.integers(0, MINUTE))
    return Series.of_numbers(
        key=key,
        kind=MetricKind.GAUGE,
        value_type=ValueType.DOUBLE,
        end_ns=end,
        values=50 + 10 * random.standard_normal(POINTS),
    )


def main() -> None:
    """Print the median seconds of an evaluation of each kind."""
    for kind, metrics in (("own", POLICIES), ("all", 1)):
        random = np.random.default_rng(1)
        name = "workload.googleapis.com/load{}".format
        replays = [_replay(number, name(number % metrics)) for number in range(POLICIES)]
        series = [_series(number, name(number % metrics), random) for number in range(SERIES)]
        spent = []
        for turn in range(ROUNDS):
            begin = time.perf_counter()
            results = replay_many(replays, series, [BEGIN + (POINTS + turn) * MINUTE])
            spent.append(time.perf_counter() - begin)
            replays = [
                Replay(spec=one.spec, state=state)
                for one, (state, _) in zip(replays, results, strict=True)
            ]
        seconds = median(spent)
        print(
            f"{kind}: {POLICIES} policies, {SERIES:,} series: {seconds:.2f} s an evaluation, "
            f"{seconds / 60:.1%} of one core at one a minute"
        )


if __name__ == "__main__":
    main()
