"""How long a month of the catalog takes to write, to read and to replay, at 50 series.

    python -m tests.benchmarks.backtest_month [--days 30] [--series 50] [--step 30]

The history is made without a server and written to a file; then `backtest` reads and replays it
as `python -m alerts backtest --from FILE --offline` does, once without and once with pictures.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from alerts.backtest import backtest
from alerts.encode import descriptor_json, engine_descriptors
from alerts.entrant import entrants, proposed_bodies, selections
from alerts.history import History, read_history, write_history
from alerts.policies import CATALOG
from speakfit.engine.points import (
    Buckets,
    Distributions,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.metrics import (
    CHUNKS,
    DATABASE_CONNECTIONS,
    LATENCY_BUCKETS,
    METRICS,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    REQUESTS,
    RESOURCE_TYPE,
    WORKERS_ALIVE,
    Metric,
)

SECOND = 10**9
BEGIN = 1_767_225_600 * SECOND
T = TypeVar("T")
SHARES = {REQUEST_DURATION: 0.2, REQUESTS: 0.4, QUEUE_DEPTH: 0.1, CHUNKS: 0.1,
          WORKERS_ALIVE: 0.1, DATABASE_CONNECTIONS: 0.1}  # fmt: skip


def _series(metric: Metric, number: int, end: np.ndarray, random: np.random.Generator) -> Series:
    labels = {
        REQUESTS: {"http_route": f"/{number % 5}", "status_class": "5xx" if number % 2 else "2xx"},
        REQUEST_DURATION: {"http_route": f"/{number % 5}", "route_class": "interactive"},
        CHUNKS: {"outcome": "done"},
    }.get(metric, {})
    key = SeriesKey.of(
        metric_type=metric.type,
        metric_labels=labels,
        resource_type=RESOURCE_TYPE,
        resource_labels={"project_id": "speakfit", "task_id": f"task-{number}"},
    )
    # Exports drift by milliseconds, as real ones do.
    end = end + random.integers(0, 5_000_000, len(end))
    start = np.full(len(end), BEGIN)
    if metric.value_type == "DISTRIBUTION":
        buckets = Buckets.explicit(LATENCY_BUCKETS)
        slow = np.where(np.arange(len(end)) % 20_000 < 20, 13, 5)
        counts = np.zeros((len(end), len(buckets)))
        counts[np.arange(len(end)), slow] = random.poisson(20, len(end))
        counts = np.cumsum(counts, axis=0)
        count = counts.sum(axis=1)
        column = Distributions(
            buckets=buckets, count=count, mean=np.full(len(end), 0.1), ssd=0 * count, counts=counts
        )
        return Series.of_distributions(
            key=key, kind=MetricKind.CUMULATIVE, start_ns=start, end_ns=end, values=column
        )
    minute = np.arange(len(end))
    if metric.kind == "CUMULATIVE":
        bad = labels.get("status_class") == "5xx"
        values = np.cumsum(random.poisson(0.05 if bad else 50.0, len(end))).astype(np.float64)
    elif metric is QUEUE_DEPTH:
        values = np.rint(40 + 30 * np.sin(minute / 458) + 10 * random.standard_normal(len(end)))
        values[minute % 20_160 < 40] += 120
    elif metric is WORKERS_ALIVE:
        values = np.where(minute % 40_320 < 24, 0.0, 3.0)
    else:
        values = 0.4 + 0.2 * np.sin(minute / 458)
    return Series.of_numbers(
        key=key,
        kind=MetricKind(metric.kind),
        value_type=ValueType(metric.value_type),
        start_ns=start if metric.kind == "CUMULATIVE" else None,
        end_ns=end,
        values=values,
    )


def _all(end: np.ndarray, total: int) -> Iterator[Series]:
    random = np.random.default_rng(7)
    for metric, share in SHARES.items():
        for number in range(max(1, round(share * total))):
            yield _series(metric, number, end, random)


def _timed(words: str, work: Callable[[], T]) -> T:
    begin, worked = time.perf_counter(), time.process_time()
    found = work()
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{words}: {seconds:.1f} s, CPU {worked:.1f} s, peak {peak:,.0f} MB", flush=True)
    return found


def main() -> None:
    """Print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--step", type=int, default=30, help="seconds between points")
    chosen = parser.parse_args()
    end = BEGIN + np.arange(1, chosen.days * 86_400 // chosen.step) * chosen.step * SECOND
    bodies = proposed_bodies(CATALOG, runbook_base_url="https://runbooks.test")
    history = History(
        project="speakfit",
        source="benchmark",
        start_ns=BEGIN,
        end_ns=int(end[-1]) + SECOND,
        selections=selections(bodies),
        descriptors={metric.type: descriptor_json(metric) for metric in METRICS},
        series=_all(end, chosen.series),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "history.jsonl.gz"
        written = _timed("making and writing", lambda: write_history(history, file))
        print(f"  {sum(written.series.values())} series, {sum(written.points.values()):,} points, "
              f"{written.size / 1e6:.1f} MB")  # fmt: skip
        found = read_history(file)
        _timed("reading alone", lambda: sum(len(one) for one in found.series))
        policies = entrants(bodies, descriptors=engine_descriptors(CATALOG).get)
        result = _timed("reading and replaying", lambda: backtest(policies, found))
        _timed("the same with charts", lambda: backtest(policies, found, columns=720))
        pages = sum(one.paged for one in result.outcomes)
        print(f"  {len(policies)} policies, {result.length}, {pages} pages")


if __name__ == "__main__":
    main()
