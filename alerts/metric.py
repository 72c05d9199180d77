"""What a policy has to know of the metrics it reads; nothing here knows whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from speakfit.engine.points import MetricKind, ValueType


class MetricRecord(Protocol):
    """What a policy needs to know of a metric; a team's own declarations fit when they have it.

    What is None is not known, and then not checked before Cloud Monitoring does.
    """

    @property
    def type(self) -> str:
        """Cloud Monitoring metric type."""

    @property
    def kind(self) -> str | None:
        """GAUGE, DELTA or CUMULATIVE."""

    @property
    def value_type(self) -> str | None:
        """INT64, DOUBLE, BOOL or DISTRIBUTION."""

    @property
    def unit(self) -> str:
        """UCUM unit."""

    @property
    def description(self) -> str:
        """One sentence."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of its labels."""

    @property
    def buckets(self) -> tuple[float, ...]:
        """Bounds of its distributions; empty when they are not known or there are none."""

    @property
    def exported_keys(self) -> tuple[str, ...]:
        """Keys of every label that its series carry, sorted."""

    def label_key(self, label: str) -> str:
        """The key that Cloud Monitoring stores a label under."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that somebody else writes: Google, an agent, another team.

    Only the type is needed; whatever else is given is checked, and lets the policy be tested.
    """

    type: str
    kind: MetricKind | None = None
    value_type: ValueType | None = None
    unit: str = ""
    description: str = ""
    labels: tuple[str, ...] | None = None
    """Keys as Cloud Monitoring stores them; None when they are not known."""
    buckets: tuple[float, ...] = ()

    @property
    def exported_keys(self) -> tuple[str, ...]:
        """The keys of all labels that are known, sorted."""
        return tuple(sorted(self.labels or ()))

    def label_key(self, label: str) -> str:
        """The label itself: it is given as Cloud Monitoring stores it."""
        return label
