"""What a rule may know of a metric, from whoever declares it.

A catalog's own metric records say kind, value type, unit and labels; buckets, the values that can
occur and how often points are written are read where a record has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from alerts.metric import MetricRecord


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """One metric as far as it is known; what is unknown lets rules be silent."""

    type: str
    kind: str | None = None
    """GAUGE, DELTA or CUMULATIVE; None when unknown."""
    value_type: str | None = None
    """INT64, DOUBLE, BOOL or DISTRIBUTION; None when unknown."""
    unit: str = ""
    """UCUM; empty when unknown."""
    labels: frozenset[str] | None = None
    """Keys of every label that its series carry; None when unknown."""
    buckets: tuple[float, ...] = ()
    """Bounds between the buckets of a distribution; none when unknown."""
    lowest: float = -math.inf
    highest: float = math.inf
    """No measured value lies outside these."""
    interval: timedelta | None = None
    """How often a point is written; None when unknown."""


def facts_of(record: MetricRecord, known: MetricFacts | None = None) -> MetricFacts:
    """What a catalog's metric record says, and where it is silent what is known of the metric."""
    known = known or MetricFacts(type=record.type)
    extra: Any = record
    return MetricFacts(
        type=record.type,
        kind=record.kind or known.kind,
        value_type=record.value_type or known.value_type,
        unit=record.unit or known.unit,
        labels=known.labels if record.labels is None else frozenset(record.exported_keys),
        buckets=tuple(record.buckets) or known.buckets,
        lowest=getattr(extra, "lowest", known.lowest),
        highest=getattr(extra, "highest", known.highest),
        interval=getattr(extra, "interval", known.interval),
    )
