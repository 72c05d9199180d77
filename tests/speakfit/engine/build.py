"""Short ways to write series, distributions and policies in tests; times are in minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from speakfit.engine.conditions import AbsenceCondition, ThresholdCondition, Trigger
from speakfit.engine.incidents import Event, IncidentOpened, PolicyState, Snooze, replay
from speakfit.engine.points import (
    Buckets,
    Descriptor,
    Distribution,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.engine.policies import AlertPolicySpec, parse_policy

MINUTE = 60 * 10**9
METRIC = "workload.googleapis.com/test"
RESOURCE = "generic_task"
FILTER = f'metric.type = "{METRIC}" AND resource.type = "{RESOURCE}"'


def key(resource: Mapping[str, str] | None = None, /, **labels: str) -> SeriesKey:
    return SeriesKey.of(
        metric_type=METRIC,
        metric_labels=labels,
        resource_type=RESOURCE,
        resource_labels=resource or {"task_id": "1"},
    )


def minutes(*at: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([round(one * MINUTE) for one in at], dtype=np.int64)


def gauge(
    points: Mapping[float, float],
    *,
    of: SeriesKey | None = None,
    value_type: ValueType = ValueType.DOUBLE,
) -> Series:
    return Series.of_numbers(
        key=of or key(),
        kind=MetricKind.GAUGE,
        value_type=value_type,
        end_ns=minutes(*points),
        values=list(points.values()),
    )


def counter(
    points: Mapping[float, float],
    *,
    start: float | Sequence[float] = 0,
    of: SeriesKey | None = None,
    kind: MetricKind = MetricKind.CUMULATIVE,
) -> Series:
    starts = [start] * len(points) if isinstance(start, (int, float)) else start
    return Series.of_numbers(
        key=of or key(),
        kind=kind,
        value_type=ValueType.INT64,
        start_ns=minutes(*starts),
        end_ns=minutes(*points),
        values=list(points.values()),
    )


def histogram(bounds: Sequence[float], counts: Sequence[float]) -> Distribution:
    """A distribution whose values sit in the middle of their buckets."""
    edges = [bounds[0], *bounds, bounds[-1]]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    count = sum(counts)
    mean = sum(m * c for m, c in zip(middles, counts, strict=True)) / count if count else 0.0
    ssd = sum(c * (m - mean) ** 2 for m, c in zip(middles, counts, strict=True))
    return Distribution(
        count=count,
        mean=mean,
        ssd=ssd,
        buckets=Buckets.explicit(bounds),
        bucket_counts=tuple(counts),
    )


def histograms(
    points: Mapping[float, Distribution],
    *,
    start: float = 0,
    of: SeriesKey | None = None,
    kind: MetricKind = MetricKind.CUMULATIVE,
) -> Series:
    return Series.of_distributions(
        key=of or key(),
        kind=kind,
        start_ns=None if kind is MetricKind.GAUGE else minutes(*[start] * len(points)),
        end_ns=minutes(*points),
        values=list(points.values()),
    )


def aggregation(
    aligner: str = "ALIGN_MEAN",
    *,
    period: str = "60s",
    reducer: str | None = None,
    by: Sequence[str] = (),
) -> dict[str, Any]:
    found: dict[str, Any] = {"alignmentPeriod": period, "perSeriesAligner": aligner}
    if reducer:
        found |= {"crossSeriesReducer": reducer, "groupByFields": list(by)}
    return found


def threshold(
    above: float | None = None,
    *,
    below: float | None = None,
    duration: str = "0s",
    aggregations: Sequence[Mapping[str, Any]] = (aggregation(),),
    **more: Any,
) -> dict[str, Any]:
    return {
        "displayName": "condition",
        "conditionThreshold": {
            "filter": FILTER,
            "comparison": "COMPARISON_GT" if above is not None else "COMPARISON_LT",
            "thresholdValue": above if above is not None else below,
            "duration": duration,
            "aggregations": list(aggregations),
            **more,
        },
    }


def absence(duration: str = "120s", **more: Any) -> dict[str, Any]:
    return {
        "displayName": "absent",
        "conditionAbsent": {
            "filter": FILTER,
            "duration": duration,
            "aggregations": [aggregation()],
            **more,
        },
    }


def raw_policy(*conditions: Mapping[str, Any], combiner: str = "OR", **more: Any) -> dict[str, Any]:
    return {
        "name": "projects/p/alertPolicies/1",
        "displayName": "policy",
        "combiner": combiner,
        "conditions": list(conditions),
        **more,
    }


def policy(
    *conditions: Mapping[str, Any],
    kind: MetricKind = MetricKind.GAUGE,
    value_type: ValueType = ValueType.DOUBLE,
    **more: Any,
) -> AlertPolicySpec:
    descriptor = Descriptor(kind=kind, value_type=value_type)
    return parse_policy(raw_policy(*conditions, **more), descriptors=lambda _: descriptor)


def remembering(spec: AlertPolicySpec) -> AlertPolicySpec:
    """The policy, enabled, with conditions that remember every series that was measured.

    Others remember the violating ones only; a trigger of a percentage needs to know them all.
    """
    conditions = tuple(
        replace(condition, trigger=Trigger(percent=100.0))
        if isinstance(condition, (ThresholdCondition, AbsenceCondition))
        else condition
        for condition in spec.conditions
    )
    return replace(spec, enabled=True, conditions=conditions)


def story(events: Sequence[Event]) -> list[str]:
    """Events as `3 opened`, `7 closed`, minutes first; labels follow when there are any."""
    told = []
    for event in events:
        word = "opened" if isinstance(event, IncidentOpened) else "closed"
        labels = ",".join(f"{k}={v}" for k, v in event.incident.series.metric_labels)
        told.append(f"{event.at_ns / MINUTE:g} {word} {labels}".rstrip())
    return told


def run(
    spec: AlertPolicySpec,
    series: Sequence[Series],
    *,
    until: int,
    since: float = 0,
    snoozes: Sequence[Snooze] = (),
) -> list[str]:
    """What happens when a policy is evaluated every minute from 1: at once, and a few at a time."""
    at = minutes(*range(1, until + 1))
    since_ns = round(since * MINUTE)
    _, events = replay(
        spec, PolicyState.empty(), series, at, active_since_ns=since_ns, snoozes=snoozes
    )
    for size in (1, 2, 3):
        state = PolicyState.empty()
        told: list[Event] = []
        for first in range(0, until, size):
            state, found = replay(
                spec,
                state,
                series,
                at[first : first + size],
                active_since_ns=since_ns,
                snoozes=snoozes,
            )
            state = PolicyState.from_json(state.to_json())
            told += found
        assert tuple(told) == events, f"evaluations in groups of {size} tell another story"
    return story(events)
