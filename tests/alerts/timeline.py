"""Series that a stretch of time at a level makes, for what replays them.

A line is a list of stretches `(minutes, value)`, exported every 30 s as our processes do; None is
silence. A counter's value is what it gains per export, a latency's is how many requests take how
long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from speakfit.engine.points import (
    Buckets,
    Distribution,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.metrics import LATENCY_BUCKETS, RESOURCE_TYPE, Metric

START = 1_767_225_600 * 10**9
"""A whole minute: 2026-01-01T00:00:00Z."""
MINUTE = 60 * 10**9
EXPORT = 30 * 10**9
EXPORTS_PER_MINUTE = 2

Stretch = tuple[int, float | None]
Requests = tuple[int, tuple[tuple[int, float], ...] | None]


def gauge(metric: Metric, *stretches: Stretch, task: str = "api-1") -> Series:
    """A level, read at every export."""
    points = [(at, value) for at, value in _exports(stretches) if value is not None]
    return Series.of_numbers(
        key=_key(metric, task, {}),
        kind=MetricKind.GAUGE,
        value_type=ValueType(metric.value_type),
        end_ns=[at for at, _ in points],
        values=[value for _, value in points],
    )


def counter(metric: Metric, *stretches: Stretch, task: str = "api-1", **labels: str) -> Series:
    """A running total since START; each value is the gain per export."""
    total, points = 0.0, []
    for at, gain in _exports(stretches):
        if gain is not None:
            total += gain
            points.append((at, total))
    return Series.of_numbers(
        key=_key(metric, task, labels),
        kind=MetricKind.CUMULATIVE,
        value_type=ValueType(metric.value_type),
        start_ns=[START for _ in points],
        end_ns=[at for at, _ in points],
        values=[value for _, value in points],
    )


def latency(metric: Metric, *stretches: Requests, task: str = "api-1", **labels: str) -> Series:
    """A running distribution since START; each stretch says how many requests take how long."""
    bounds = (0.0, *LATENCY_BUCKETS)
    counts = np.zeros(len(bounds) + 1)
    ends, values = [], []
    total, seconds = 0, 0.0
    at = START
    for minutes, requests in stretches:
        for _ in range(minutes * EXPORTS_PER_MINUTE):
            at += EXPORT
            if requests is None:
                continue
            for number, duration in requests:
                counts[np.searchsorted(bounds, duration, side="right")] += number
                total += number
                seconds += number * duration
            ends.append(at)
            values.append(
                Distribution(
                    count=total,
                    mean=seconds / total if total else 0.0,
                    ssd=0.0,
                    buckets=Buckets.explicit(bounds),
                    bucket_counts=tuple(counts),
                )
            )
    return Series.of_distributions(
        key=_key(metric, task, labels),
        kind=MetricKind.CUMULATIVE,
        start_ns=[START for _ in ends],
        end_ns=ends,
        values=values,
    )


def _key(metric: Metric, task: str, labels: dict[str, str]) -> SeriesKey:
    # Keyword names cannot hold dots: http_route stands for http.route, as on the server.
    known = {metric.label_key(label) for label in metric.labels}
    assert labels.keys() <= known, f"{metric.name} has no labels {labels.keys() - known}"
    return SeriesKey.of(
        metric_type=metric.type,
        metric_labels=labels,
        resource_type=RESOURCE_TYPE,
        resource_labels={
            "project_id": "speakfit-test",
            "location": "us-central1",
            "namespace": "speakfit",
            "job": task.rpartition("-")[0],
            "task_id": task,
        },
    )


def _exports(stretches: Sequence[Stretch]) -> Iterator[tuple[int, float | None]]:
    borders = np.cumsum([0, *(minutes for minutes, _ in stretches)])
    for (begin, end), (_, value) in zip(pairwise(borders), stretches, strict=True):
        for export in range(int(begin) * EXPORTS_PER_MINUTE, int(end) * EXPORTS_PER_MINUTE):
            yield START + (export + 1) * EXPORT, value
