"""What a rule may know of a metric, from whoever declares it.

A catalog's own metric records say kind, value type, unit and labels; buckets, the values that can
occur and how often points are written are read where a record has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from alerts.policy import MetricRecord


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """One metric as far as it is known; what is unknown lets rules be silent."""

    type: str
    kind: str
    """GAUGE, DELTA or CUMULATIVE."""
    value_type: str
    """INT64, DOUBLE, BOOL or DISTRIBUTION."""
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


def facts_of(record: MetricRecord) -> MetricFacts:
    """What a catalog's metric record says."""
    extra: Any = record
    return MetricFacts(
        type=record.type,
        kind=record.kind,
        value_type=record.value_type,
        unit=record.unit,
        labels=frozenset(record.exported_keys),
        buckets=tuple(getattr(extra, "buckets", ())),
        lowest=getattr(extra, "lowest", -math.inf),
        highest=getattr(extra, "highest", math.inf),
        interval=getattr(extra, "interval", None),
    )


def facts_by_type(records: Iterable[MetricRecord]) -> dict[str, MetricFacts]:
    """What is known of metrics, by type."""
    return {record.type: facts_of(record) for record in records}
