"""Conditions: which series are looked at, how they become one line, and when that line is wrong.

Small frozen values that cannot be wrong once they exist: every rule of the API that can be known
before a write is checked at construction, and a CatalogError names the field and the rule (the
AlertPolicy proto and Cloud Monitoring's guide; the limits are the engine's own constants).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from alerts.metric import MetricRecord
from speakfit.engine.align import Aligner, aligned_type
from speakfit.engine.conditions import ConditionKind, Trigger
from speakfit.engine.filters import MAX_FILTER_LENGTH, Comparison, parse_filter
from speakfit.engine.objectives import parse_selector
from speakfit.engine.points import MetricKind, ValueType
from speakfit.engine.policies import (
    EVALUATION_STEP,
    MAX_ABSENCE,
    MAX_DISPLAY_NAME,
    MAX_HORIZON,
    MIN_ABSENCE,
    MIN_HORIZON,
    MINUTE,
)
from speakfit.engine.reduce import MAX_ALERT_PERIOD, MIN_PERIOD, Reducer, reduced_type
from speakfit.errors import CatalogError, InvalidArgument

__all__ = [
    "Absence",
    "Aggregation",
    "Aligner",
    "Condition",
    "LogMatch",
    "Measured",
    "MissingData",
    "PromQL",
    "Ratio",
    "Reducer",
    "Signal",
    "Threshold",
    "Trigger",
    "Verbatim",
    "check_steps",
    "refuse",
    "signals",
]

NO_TIME = timedelta(0)
_ONE = Trigger()
_QUALIFIED = ("metric.label", "resource.", "metadata.")


class MissingData(StrEnum):
    """What a condition says while its series is silent."""

    KEEPS = "EVALUATION_MISSING_DATA_NO_OP"
    """The verdict stays what it was; an incident ends by auto-close."""
    CLOSES = "EVALUATION_MISSING_DATA_INACTIVE"
    """Silence is health."""
    VIOLATES = "EVALUATION_MISSING_DATA_ACTIVE"
    """Silence is trouble."""


def refuse(where: str, what: str, rule: str) -> CatalogError:
    """The error of a declaration: what is wrong, where, and the rule it breaks."""
    return CatalogError(what, where=where, todo=rule)


def _minutes(where: str, duration: timedelta) -> None:
    if duration < NO_TIME or duration % MINUTE:
        raise refuse(
            f"{where}, duration",
            f"duration is {duration}.",
            "Use a multiple of one minute; Cloud Monitoring accepts no other.",
        )


def _check_labels(where: str, metric: MetricRecord | None, labels: Mapping[str, str]) -> None:
    for label in labels:
        if metric is None or (metric.labels is not None and label not in metric.labels):
            known = () if metric is None else metric.labels or ()
            raise refuse(
                where,
                f"The metric has no label {label!r}.",
                f"Use one of: {', '.join(known) or '(it has none)'}.",
            )


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The series a condition looks at: a metric, its resource type, and labels that must match.

    `where` is for what equality cannot say: any further filter, joined by AND; alone it may also be
    a selector of a service level objective, such as `select_slo_burn_rate("NAME", "3600s")`.
    """

    metric: MetricRecord | None = None
    resource_type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the metric, by its own names."""
    resource_labels: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self) -> None:
        where = f"signal of {self.metric.type if self.metric else self.where!r}"
        _check_labels(f"{where}, labels", self.metric, self.labels)
        if self.metric is None and not self.where:
            raise refuse(where, "It selects nothing.", "Name a metric, or a filter in `where`.")
        if len(self.filter) > MAX_FILTER_LENGTH:
            raise refuse(
                f"{where}, labels",
                f"The filter has {len(self.filter)} characters.",
                f"Keep it within {MAX_FILTER_LENGTH}.",
            )
        try:
            if parse_selector(self.filter, field="filter") is None:
                parse_filter(self.filter)
        except InvalidArgument as error:
            raise refuse(f"{where}, where", error.what, "Correct the filter it names.") from error

    @property
    def filter(self) -> str:
        """The Cloud Monitoring filter that selects exactly these series."""
        if self.where and not self.metric and not self.resource_type and not self.resource_labels:
            return self.where
        equal: list[tuple[tuple[str, ...], str]] = []
        if self.metric is not None:
            equal.append((("metric", "type"), self.metric.type))
        if self.resource_type:
            equal.append((("resource", "type"), self.resource_type))
        for label, value in sorted(self.labels.items()):
            key = label if self.metric is None else self.metric.label_key(label)
            equal.append((("metric", "labels", key), value))
        for key, value in sorted(self.resource_labels.items()):
            equal.append((("resource", "labels", key), value))
        terms = [str(Comparison(path=path, operator="=", value=value)) for path, value in equal]
        return " AND ".join([*terms, *([f"({self.where})"] if self.where else [])])


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How raw points become the one line that is compared: align each series, reduce across them.

    `period` is at least one minute. `group_by` names labels of the metric, or fields in full
    (`resource.labels.zone`); each combination is judged alone and opens its own incident.
    """

    aligner: Aligner
    period: timedelta = MINUTE
    reducer: Reducer = Reducer.REDUCE_NONE
    group_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not MIN_PERIOD <= self.period <= MAX_ALERT_PERIOD or self.period % timedelta(seconds=1):
            raise refuse(
                "aggregation, period",
                f"period is {self.period}.",
                "Use whole seconds between 60 s and 25 h; alerting accepts no other alignment.",
            )
        if self.aligner is Aligner.ALIGN_NONE and self.reducer is not Reducer.REDUCE_NONE:
            raise refuse(
                "aggregation, aligner",
                f"{self.reducer} has no aligner.",
                "Name one: points of different times cannot be reduced.",
            )
        if self.group_by and self.reducer is Reducer.REDUCE_NONE:
            raise refuse(
                "aggregation, group_by",
                "Labels are grouped but nothing is reduced.",
                "Name a reducer, or leave group_by empty.",
            )

    def fields(self, metric: MetricRecord | None) -> list[str]:
        """`groupByFields` as the API wants them."""
        return [
            label
            if metric is None or label.startswith(_QUALIFIED)
            else f"metric.labels.{metric.label_key(label)}"
            for label in self.group_by
        ]

    def check(self, where: str, metric: MetricRecord | None) -> None:
        """Refuse labels to group by that this metric does not have."""
        if metric is None or metric.labels is None:
            return
        for label in self.group_by:
            if label not in metric.labels and not label.startswith(_QUALIFIED):
                raise refuse(
                    f"{where}, aggregation.group_by",
                    f"{metric.type} has no label {label!r}.",
                    f"Use one of: {', '.join(metric.labels) or '(it has none)'}.",
                )


_Step = TypeVar("_Step", Aligner, Reducer)


def _passed(
    where: str,
    part: str,
    step: _Step,
    rule: Callable[[_Step, MetricKind, ValueType], tuple[MetricKind, ValueType]],
    kind: MetricKind,
    value_type: ValueType,
) -> tuple[MetricKind, ValueType]:
    """Kind and type after a step; the refusal names the steps that would do."""
    try:
        return rule(step, kind, value_type)
    except InvalidArgument as error:
        fitting = []
        for other in type(step):
            with suppress(InvalidArgument):
                rule(other, kind, value_type)
                fitting.append(str(other))
        raise refuse(
            f"{where}, aggregation.{part}",
            error.what.replace(f"The {part}", str(step)),
            f"Use one of: {', '.join(fitting)}.",
        ) from error


def check_steps(
    where: str, metric: MetricRecord | None, steps: tuple[Aggregation, ...], *, compared: bool
) -> None:
    """Refuse what the kind and value type of a metric do not allow, step by step."""
    for step in steps:
        step.check(where, metric)
    if metric is None or metric.kind is None or metric.value_type is None:
        return
    kind, value_type = MetricKind(metric.kind), ValueType(metric.value_type)
    for step in steps:
        kind, value_type = _passed(where, "aligner", step.aligner, aligned_type, kind, value_type)
        kind, value_type = _passed(where, "reducer", step.reducer, reduced_type, kind, value_type)
    if compared and value_type in (ValueType.DISTRIBUTION, ValueType.STRING):
        raise refuse(
            f"{where}, aggregation.reducer",
            f"The result is {value_type}, which cannot be compared with a threshold.",
            "Reduce distributions to a percentile, the mean or the count.",
        )


def _check_key(kind: str, key: str) -> str:
    where = f"{kind} {key!r}"
    if not key or len(key) > MAX_DISPLAY_NAME:
        raise refuse(
            f"{where}, key",
            f"key has {len(key)} characters.",
            f"Use 1 to {MAX_DISPLAY_NAME}: it is the condition's display name.",
        )
    return where


def _check_missing(where: str, duration: timedelta, missing: MissingData | None) -> None:
    if missing is not None and duration < MINUTE:
        raise refuse(
            f"{where}, duration",
            f"duration is {duration}.",
            "Use at least one minute: conditions that say what missing data means must have a "
            "non-zero duration.",
        )


def _check_side(where: str, above: float | None, below: float | None) -> None:
    if (above is None) == (below is None):
        raise refuse(
            f"{where}, above",
            "Both or neither of above and below are given.",
            "Give exactly one; Cloud Monitoring knows greater than and less than only.",
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Holds while one line stays above (or below) a value for `duration`.

    `key` is the condition's display name and its identity: change it and open incidents close,
    so it names what is measured and never the threshold. `missing_data` has no default because
    forgetting it is how alerts go blind; None leaves it undecided, which `lint` tells.
    """

    key: str
    signal: Signal
    aggregation: Aggregation | None
    duration: timedelta
    missing_data: MissingData | None
    above: float | None = None
    below: float | None = None
    then: tuple[Aggregation, ...] = ()
    """Further aggregations, applied to the result of the one before."""
    trigger: Trigger = _ONE
    """How many lines must be wrong at once."""
    forecast: timedelta | None = None
    """Holds when the line is predicted to cross the value within this time, 1 to 60 h."""

    def __post_init__(self) -> None:
        where = _check_key("threshold", self.key)
        _check_side(where, self.above, self.below)
        _minutes(where, self.duration)
        _check_missing(where, self.duration, self.missing_data)
        check_steps(where, self.signal.metric, self.steps, compared=True)
        if self.forecast is not None and not MIN_HORIZON <= self.forecast <= MAX_HORIZON:
            raise refuse(
                f"{where}, forecast", f"forecast is {self.forecast}.", "Use 1 to 60 hours."
            )

    @property
    def steps(self) -> tuple[Aggregation, ...]:
        """All aggregations in order."""
        return (self.aggregation, *self.then) if self.aggregation is not None else self.then


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Holds while `signal` divided by `denominator` stays above (or below) a share.

    Both sides are aggregated with the same period and groups, as Cloud Monitoring demands;
    `denominator_aggregation` is for a denominator of another kind.
    """

    key: str
    signal: Signal
    denominator: Signal
    aggregation: Aggregation
    duration: timedelta
    missing_data: MissingData | None
    above: float | None = None
    below: float | None = None
    denominator_aggregation: Aggregation | None = None
    trigger: Trigger = _ONE

    def __post_init__(self) -> None:
        where = _check_key("ratio", self.key)
        _check_side(where, self.above, self.below)
        _minutes(where, self.duration)
        _check_missing(where, self.duration, self.missing_data)
        below = self.below_aggregation
        check_steps(where, self.signal.metric, (self.aggregation,), compared=True)
        check_steps(where, self.denominator.metric, (below,), compared=True)
        if below.period != self.aggregation.period:
            raise refuse(
                f"{where}, denominator_aggregation",
                f"The sides are aligned to {self.aggregation.period} and {below.period}.",
                "Use the same alignment period on both sides.",
            )
        if sorted(self.aggregation.fields(self.signal.metric)) != sorted(
            below.fields(self.denominator.metric)
        ):
            raise refuse(
                f"{where}, denominator_aggregation",
                "The sides are grouped by different labels.",
                "Group both sides alike, or no line of one finds its line of the other.",
            )
        if self.signal.filter == self.denominator.filter and self.aggregation == below:
            raise refuse(
                f"{where}, denominator",
                "Both sides are filtered alike, so the ratio is always one.",
                "Leave out of the denominator what makes the numerator a part.",
            )

    @property
    def below_aggregation(self) -> Aggregation:
        """How the denominator is aggregated."""
        return self.denominator_aggregation or self.aggregation


@dataclass(frozen=True, kw_only=True)
class Absence:
    """Holds while no point arrives for `duration` (2 min to 23 h 30 min).

    Cloud Monitoring needs one point written after the policy was made or changed: what never
    reported is not absent.
    """

    key: str
    signal: Signal
    aggregation: Aggregation | None
    duration: timedelta
    trigger: Trigger = _ONE

    def __post_init__(self) -> None:
        where = _check_key("absence", self.key)
        _minutes(where, self.duration)
        if not MIN_ABSENCE <= self.duration <= MAX_ABSENCE:
            raise refuse(
                f"{where}, duration",
                f"duration is {self.duration}.",
                "Use 2 minutes to 23 hours 30 minutes.",
            )
        check_steps(where, self.signal.metric, self.steps, compared=False)

    @property
    def steps(self) -> tuple[Aggregation, ...]:
        """All aggregations in order."""
        return () if self.aggregation is None else (self.aggregation,)


@dataclass(frozen=True, kw_only=True)
class PromQL:
    """Holds while a PromQL query has a result for `duration`; stored, not evaluated here."""

    key: str
    query: str
    duration: timedelta = NO_TIME
    interval: timedelta = EVALUATION_STEP
    """How often the query is evaluated, a multiple of 30 s."""
    labels: Mapping[str, str] = field(default_factory=dict)
    rule_group: str = ""
    alert_rule: str = ""
    disable_metric_validation: bool = False

    def __post_init__(self) -> None:
        where = _check_key("PromQL", self.key)
        if not self.query.strip():
            raise refuse(f"{where}, query", "There is no query.", "Write the PromQL expression.")
        if self.duration < NO_TIME:
            raise refuse(f"{where}, duration", "It is negative.", "Use zero or more.")
        if self.interval <= NO_TIME or self.interval % EVALUATION_STEP:
            raise refuse(
                f"{where}, interval", f"interval is {self.interval}.", "Use multiples of 30 s."
            )


@dataclass(frozen=True, kw_only=True)
class LogMatch:
    """Holds for every log entry that matches; stands alone and needs the policy's rate limit."""

    key: str
    filter: str
    """In the logging query language."""
    label_extractors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = _check_key("log match", self.key)
        if not self.filter.strip():
            raise refuse(f"{where}, filter", "There is no filter.", "Write the logging query.")


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """A condition in the API's own REST form, for what the other kinds cannot say (MQL, SQL).

    `body` has exactly one member, such as `conditionSql`.
    """

    key: str
    body: Mapping[str, Any]

    def __post_init__(self) -> None:
        where = _check_key("condition", self.key)
        kinds = [str(kind) for kind in ConditionKind if kind is not ConditionKind.FORECAST]
        if len(self.body) != 1 or next(iter(self.body)) not in kinds:
            raise refuse(
                f"{where}, body",
                f"It has {', '.join(map(str, self.body)) or 'nothing'}.",
                f"Give exactly one of {', '.join(kinds)}.",
            )


Condition = Threshold | Ratio | Absence | PromQL | LogMatch | Verbatim
Measured = Threshold | Ratio | Absence
"""Conditions on time series, which are evaluated here."""


def signals(condition: Condition) -> tuple[Signal, ...]:
    """The selections of series that a condition reads; none for queries."""
    if isinstance(condition, Ratio):
        return (condition.signal, condition.denominator)
    if isinstance(condition, Threshold | Absence):
        return (condition.signal,)
    return ()
