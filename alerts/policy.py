"""What an alert policy is: small frozen values that cannot be wrong once they exist.

Every rule of the API that can be known before a write is checked at construction, and a
CatalogError names the field and the rule. The rules are Cloud Monitoring's own (AlertPolicy proto
and guide). Nothing here knows SpeakFit: a metric is any record with the attributes of
`MetricRecord`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from speakfit.errors import CatalogError

MINUTE = timedelta(minutes=1)
_NO_TIME = timedelta(0)
_MAX_ALIGNMENT = timedelta(hours=25)
_MIN_ABSENCE = timedelta(minutes=2)
_MAX_ABSENCE = timedelta(hours=23, minutes=30)
_MIN_AUTO_CLOSE = timedelta(minutes=30)
_MAX_AUTO_CLOSE = timedelta(days=7)
_MAX_DISPLAY_NAME = 512
_MAX_FILTER = 2048
_MAX_CONDITIONS = 6
_MAX_LABEL = 63
_SUBJECT = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Severity(StrEnum):
    """How a policy notifies: a warning waits for working hours, a critical one wakes somebody."""

    WARNING = "warning"
    CRITICAL = "critical"


class Combiner(StrEnum):
    """How the conditions of one policy make one verdict."""

    ALL = "AND"
    ANY = "OR"
    ALL_ON_ONE_RESOURCE = "AND_WITH_MATCHING_RESOURCE"


class MissingData(StrEnum):
    """What a condition says while its series is silent."""

    KEEPS = "EVALUATION_MISSING_DATA_NO_OP"
    """The verdict stays what it was; an incident ends by auto-close."""
    CLOSES = "EVALUATION_MISSING_DATA_INACTIVE"
    """Silence is health."""
    VIOLATES = "EVALUATION_MISSING_DATA_ACTIVE"
    """Silence is trouble."""


class Aligner(StrEnum):
    """Makes one point per alignment period of one series."""

    DELTA = "ALIGN_DELTA"
    RATE = "ALIGN_RATE"
    MIN = "ALIGN_MIN"
    MAX = "ALIGN_MAX"
    MEAN = "ALIGN_MEAN"
    SUM = "ALIGN_SUM"
    COUNT = "ALIGN_COUNT"
    PERCENTILE_99 = "ALIGN_PERCENTILE_99"
    PERCENTILE_95 = "ALIGN_PERCENTILE_95"
    PERCENTILE_50 = "ALIGN_PERCENTILE_50"
    PERCENTILE_05 = "ALIGN_PERCENTILE_05"


class Reducer(StrEnum):
    """Makes one series of several."""

    NONE = "REDUCE_NONE"
    MIN = "REDUCE_MIN"
    MAX = "REDUCE_MAX"
    MEAN = "REDUCE_MEAN"
    SUM = "REDUCE_SUM"
    COUNT = "REDUCE_COUNT"
    PERCENTILE_99 = "REDUCE_PERCENTILE_99"
    PERCENTILE_95 = "REDUCE_PERCENTILE_95"
    PERCENTILE_50 = "REDUCE_PERCENTILE_50"
    PERCENTILE_05 = "REDUCE_PERCENTILE_05"


# Which kinds an aligner reads, and the value type it gives back; the AlertPolicy proto's table.
_NUMBERS = frozenset({"INT64", "DOUBLE"})
_LEVELS = frozenset({"GAUGE", "DELTA"})
_FLOWS = frozenset({"DELTA", "CUMULATIVE"})
_ALIGNS: Mapping[Aligner, tuple[frozenset[str], frozenset[str]]] = {
    Aligner.DELTA: (_FLOWS, _NUMBERS | {"DISTRIBUTION"}),
    Aligner.RATE: (_FLOWS, _NUMBERS),
    Aligner.MIN: (_LEVELS, _NUMBERS),
    Aligner.MAX: (_LEVELS, _NUMBERS),
    Aligner.MEAN: (_LEVELS, _NUMBERS),
    Aligner.SUM: (_LEVELS, _NUMBERS | {"DISTRIBUTION"}),
    Aligner.COUNT: (_LEVELS, _NUMBERS | {"BOOL"}),
    Aligner.PERCENTILE_99: (_LEVELS, frozenset({"DISTRIBUTION"})),
    Aligner.PERCENTILE_95: (_LEVELS, frozenset({"DISTRIBUTION"})),
    Aligner.PERCENTILE_50: (_LEVELS, frozenset({"DISTRIBUTION"})),
    Aligner.PERCENTILE_05: (_LEVELS, frozenset({"DISTRIBUTION"})),
}
_KEEPS_DISTRIBUTION = frozenset({Aligner.DELTA, Aligner.SUM})
_REDUCES_DISTRIBUTION = frozenset(Reducer) - {Reducer.MIN, Reducer.MAX, Reducer.NONE}
_GIVES_DISTRIBUTION = frozenset({Reducer.SUM, Reducer.NONE})


class MetricRecord(Protocol):
    """What a policy needs to know of a metric."""

    @property
    def type(self) -> str:
        """Cloud Monitoring metric type."""

    @property
    def kind(self) -> str:
        """GAUGE, DELTA or CUMULATIVE."""

    @property
    def value_type(self) -> str:
        """INT64, DOUBLE, BOOL or DISTRIBUTION."""

    @property
    def unit(self) -> str:
        """UCUM unit."""

    @property
    def description(self) -> str:
        """One sentence."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""

    @property
    def exported_keys(self) -> tuple[str, ...]:
        """Keys of every label that its series carry, sorted."""

    def label_key(self, label: str) -> str:
        """The key that Cloud Monitoring stores a label under."""


def _refuse(where: str, what: str, rule: str) -> CatalogError:
    return CatalogError(what, where=where, todo=rule)


def _minutes(where: str, duration: timedelta, *, name: str = "duration") -> None:
    if duration < _NO_TIME or duration % MINUTE:
        raise _refuse(
            f"{where}, {name}",
            f"{name} is {duration}.",
            "Use a multiple of one minute; Cloud Monitoring accepts no other.",
        )


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The series a condition looks at: a metric, its resource type, and labels that must match."""

    metric: MetricRecord
    resource_type: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in self.labels:
            if label not in self.metric.labels:
                raise _refuse(
                    f"signal of {self.metric.type}, labels",
                    f"The metric has no label {label!r}.",
                    f"Use one of: {', '.join(self.metric.labels) or '(it has none)'}.",
                )
        if len(self.filter) > _MAX_FILTER:
            raise _refuse(
                f"signal of {self.metric.type}, labels",
                f"The filter has {len(self.filter)} characters.",
                f"Keep it within {_MAX_FILTER}.",
            )

    @property
    def filter(self) -> str:
        """The Cloud Monitoring filter that selects exactly these series."""
        terms = [
            f"metric.type = {_quoted(self.metric.type)}",
            f"resource.type = {_quoted(self.resource_type)}",
        ]
        terms += [
            f"metric.labels.{self.metric.label_key(label)} = {_quoted(value)}"
            for label, value in sorted(self.labels.items())
        ]
        return " AND ".join(terms)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How raw points become the one line that is compared: align each series, reduce across them.

    `period` is at least one minute. `group_by` names labels of the metric; each combination is
    judged alone and opens its own incident.
    """

    aligner: Aligner
    period: timedelta = MINUTE
    reducer: Reducer = Reducer.NONE
    group_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not MINUTE <= self.period <= _MAX_ALIGNMENT or self.period % timedelta(seconds=1):
            raise _refuse(
                "aggregation, period",
                f"period is {self.period}.",
                "Use whole seconds between 60 s and 25 h; alerting accepts no other alignment.",
            )
        if self.group_by and self.reducer is Reducer.NONE:
            raise _refuse(
                "aggregation, group_by",
                "Labels are grouped but nothing is reduced.",
                "Name a reducer, or leave group_by empty.",
            )

    def check(self, where: str, metric: MetricRecord) -> None:
        """Refuse an aligner or reducer that this metric's kind and value type do not allow."""
        kinds, value_types = _ALIGNS[self.aligner]
        if metric.kind not in kinds or metric.value_type not in value_types:
            raise _refuse(
                f"{where}, aggregation.aligner",
                f"{self.aligner} cannot be applied to metrics with kind {metric.kind} and value "
                f"type {metric.value_type}.",
                f"It reads {' or '.join(sorted(kinds))} of {' or '.join(sorted(value_types))}.",
            )
        spread = metric.value_type == "DISTRIBUTION" and self.aligner in _KEEPS_DISTRIBUTION
        if (
            spread
            and self.reducer is not Reducer.NONE
            and self.reducer not in _REDUCES_DISTRIBUTION
        ):
            raise _refuse(
                f"{where}, aggregation.reducer",
                f"{self.reducer} cannot reduce distributions.",
                "Use a percentile, the mean, the sum or the count.",
            )
        if spread and self.reducer in _GIVES_DISTRIBUTION:
            raise _refuse(
                f"{where}, aggregation.reducer",
                "The result is a distribution, which cannot be compared with a threshold.",
                "Reduce it to a percentile, the mean or the count.",
            )
        for label in self.group_by:
            if label not in metric.labels:
                raise _refuse(
                    f"{where}, aggregation.group_by",
                    f"{metric.type} has no label {label!r}.",
                    f"Use one of: {', '.join(metric.labels) or '(it has none)'}.",
                )


def _check_key(kind: str, key: str) -> str:
    where = f"{kind} {key!r}"
    if not key or len(key) > _MAX_DISPLAY_NAME:
        raise _refuse(
            f"{where}, key",
            f"key has {len(key)} characters.",
            f"Use 1 to {_MAX_DISPLAY_NAME}: it is the condition's display name.",
        )
    return where


def _check_missing(where: str, duration: timedelta) -> None:
    if duration < MINUTE:
        raise _refuse(
            f"{where}, duration",
            f"duration is {duration}.",
            "Use at least one minute: conditions that say what missing data means must have a "
            "non-zero duration.",
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Holds while one line stays above (or below) a value for `duration`.

    `key` is the condition's display name and its identity: change it and open incidents close,
    so it names what is measured and never the threshold. `missing_data` has no default because
    forgetting it is how alerts go blind.
    """

    key: str
    signal: Signal
    aggregation: Aggregation
    duration: timedelta
    missing_data: MissingData
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        where = _check_key("threshold", self.key)
        if (self.above is None) == (self.below is None):
            raise _refuse(
                f"{where}, above",
                "Both or neither of above and below are given.",
                "Give exactly one; Cloud Monitoring knows greater than and less than only.",
            )
        _minutes(where, self.duration)
        _check_missing(where, self.duration)
        self.aggregation.check(where, self.signal.metric)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Holds while `signal` divided by `denominator` stays above a share (0 to 1) for `duration`.

    Both sides are aggregated alike, as Cloud Monitoring demands: same alignment period, same
    groups.
    """

    key: str
    signal: Signal
    denominator: Signal
    aggregation: Aggregation
    duration: timedelta
    missing_data: MissingData
    above: float

    def __post_init__(self) -> None:
        where = _check_key("ratio", self.key)
        _minutes(where, self.duration)
        _check_missing(where, self.duration)
        self.aggregation.check(where, self.signal.metric)
        self.aggregation.check(where, self.denominator.metric)
        if self.signal.filter == self.denominator.filter:
            raise _refuse(
                f"{where}, denominator",
                "Both sides are filtered alike, so the ratio is always one.",
                "Leave out of the denominator what makes the numerator a part.",
            )


@dataclass(frozen=True, kw_only=True)
class Absence:
    """Holds while no point arrives for `duration` (2 min to 23 h 30 min).

    Cloud Monitoring needs one point written after the policy was made or changed: what never
    reported is not absent.
    """

    key: str
    signal: Signal
    aggregation: Aggregation
    duration: timedelta

    def __post_init__(self) -> None:
        where = _check_key("absence", self.key)
        _minutes(where, self.duration)
        if not _MIN_ABSENCE <= self.duration <= _MAX_ABSENCE:
            raise _refuse(
                f"{where}, duration",
                f"duration is {self.duration}.",
                "Use 2 minutes to 23 hours 30 minutes.",
            )
        self.aggregation.check(where, self.signal.metric)


Condition = Threshold | Ratio | Absence


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a woken person reads first; it travels with the page."""

    meaning: str
    users_feel: str
    first_steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One Cloud Monitoring alert policy: one subject at one severity."""

    subject: str
    severity: Severity
    title: str
    conditions: tuple[Condition, ...]
    guidance: Guidance
    owner: str
    combiner: Combiner = Combiner.ANY
    auto_close: timedelta = _MIN_AUTO_CLOSE
    runbook: str = ""
    """The runbook's subject; a policy's own subject unless two share a page."""

    def __post_init__(self) -> None:
        where = f"policy {self.subject!r}"
        if not _SUBJECT.fullmatch(self.subject) or len(self.id) > _MAX_LABEL:
            raise _refuse(
                f"{where}, subject",
                "It cannot be a label value.",
                f"Use lowercase words joined by '-', {_MAX_LABEL} characters with the severity.",
            )
        if not self.runbook:
            # A frozen value can only complete itself this way.
            object.__setattr__(self, "runbook", self.subject)
        where = f"policy {self.id}"
        if not self.title or len(self.title) > _MAX_DISPLAY_NAME - 20:
            raise _refuse(
                f"{where}, title",
                f"title has {len(self.title)} characters.",
                f"Use 1 to {_MAX_DISPLAY_NAME - 20}.",
            )
        if not self.owner:
            raise _refuse(f"{where}, owner", "Nobody owns it.", "Name the team that answers.")
        if not 1 <= len(self.conditions) <= _MAX_CONDITIONS:
            raise _refuse(
                f"{where}, conditions",
                f"There are {len(self.conditions)} conditions.",
                f"Use 1 to {_MAX_CONDITIONS}.",
            )
        keys = [condition.key for condition in self.conditions]
        if len(set(keys)) != len(keys):
            raise _refuse(
                f"{where}, conditions",
                "Two conditions have the same key.",
                "Give each its own: the key is a condition's identity.",
            )
        if not _MIN_AUTO_CLOSE <= self.auto_close <= _MAX_AUTO_CLOSE:
            raise _refuse(
                f"{where}, auto_close",
                f"auto_close is {self.auto_close}.",
                "Use 30 minutes to 7 days.",
            )

    @property
    def id(self) -> str:
        """`SUBJECT-SEVERITY`, the label `alert-id` and what every command calls the policy."""
        return f"{self.subject}-{self.severity}"

    @property
    def display_name(self) -> str:
        """What the console and the page show."""
        return f"{self.title} ({self.severity})"


@dataclass(frozen=True, kw_only=True)
class Tier:
    """What differs between the severities of one subject."""

    limit: float
    duration: timedelta


def tiered(
    *,
    tiers: Mapping[Severity, Tier],
    conditions: Callable[[Tier], tuple[Condition, ...]],
    **shared: Any,
) -> tuple[Policy, ...]:
    """One policy per tier from one declaration; `shared` are the fields of Policy they share."""
    return tuple(
        Policy(severity=severity, conditions=conditions(tier), **shared)
        for severity, tier in tiers.items()
    )


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Where Cloud Monitoring notifies: a PagerDuty service, known by its integration key.

    `secret` names the setting that holds the key; the key itself never enters the catalog.
    """

    id: str
    display_name: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class Route:
    """Sends the policies of one severity to one channel."""

    severity: Severity
    channel: Channel


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything one team keeps as code: policies, the metrics they need, and their routes."""

    name: str
    policies: tuple[Policy, ...]
    routes: tuple[Route, ...]
    metrics: tuple[MetricRecord, ...] = ()

    def __post_init__(self) -> None:
        where = f"catalog {self.name!r}"
        if not _SUBJECT.fullmatch(self.name) or len(self.name) > _MAX_LABEL:
            raise _refuse(
                f"{where}, name",
                "It cannot be a label value.",
                f"Use lowercase words joined by '-', at most {_MAX_LABEL} characters.",
            )
        seen: set[str] = set()
        for policy in self.policies:
            if policy.id in seen:
                raise _refuse(
                    f"{where}, policies", f"Two policies are called {policy.id}.", "Rename one."
                )
            seen.add(policy.id)
        for severity in {policy.severity for policy in self.policies}:
            if severity not in {route.severity for route in self.routes}:
                raise _refuse(
                    f"{where}, routes",
                    f"No route for severity {severity}: its policies would tell nobody.",
                    "Add a Route.",
                )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the routes, each once."""
        return tuple({route.channel.id: route.channel for route in self.routes}.values())

    def channels_of(self, policy: Policy) -> tuple[Channel, ...]:
        """Where a policy notifies."""
        return tuple(r.channel for r in self.routes if r.severity is policy.severity)
