"""Conditions: what a policy watches for, as values; judging them is for verdicts.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from speakfit.engine.filters import Filter
from speakfit.engine.objectives import BurnRate
from speakfit.engine.reduce import Aggregation


class Operator(StrEnum):
    """The comparisons that the API accepts (facts §1)."""

    GT = "COMPARISON_GT"
    LT = "COMPARISON_LT"


class MissingData(StrEnum):
    """google.monitoring.v3.AlertPolicy.Condition.EvaluationMissingData."""

    UNSPECIFIED = "EVALUATION_MISSING_DATA_UNSPECIFIED"
    INACTIVE = "EVALUATION_MISSING_DATA_INACTIVE"
    ACTIVE = "EVALUATION_MISSING_DATA_ACTIVE"
    NO_OP = "EVALUATION_MISSING_DATA_NO_OP"


class ConditionKind(StrEnum):
    """The condition oneof, and two threshold conditions: with forecast options, on an objective."""

    THRESHOLD = "conditionThreshold"
    ABSENT = "conditionAbsent"
    LOG = "conditionMatchedLog"
    MQL = "conditionMonitoringQueryLanguage"
    PROMQL = "conditionPrometheusQueryLanguage"
    SQL = "conditionSql"
    FORECAST = "forecastOptions"
    OBJECTIVE = "serviceLevelObjective"


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """How many series must violate: a count, or a percentage of those that are known."""

    count: int = 1
    percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdCondition:
    """Compares every aggregated series, its ratio to a denominator, or a burn rate."""

    kind: ClassVar[ConditionKind] = ConditionKind.THRESHOLD
    evaluated: ClassVar[bool] = True

    name: str
    display_name: str
    filter: Filter
    aggregations: tuple[Aggregation, ...]
    operator: Operator
    threshold: float
    duration: timedelta
    denominator_filter: Filter | None = None
    denominator_aggregations: tuple[Aggregation, ...] = ()
    trigger: Trigger = Trigger()
    missing: MissingData = MissingData.UNSPECIFIED
    burn_rate: BurnRate | None = None
    """What filter and denominator are counted for, where an objective is watched."""


@dataclass(frozen=True, kw_only=True)
class AbsenceCondition:
    """Violated by a series that had data and has had none for the duration."""

    kind: ClassVar[ConditionKind] = ConditionKind.ABSENT
    evaluated: ClassVar[bool] = True

    name: str
    display_name: str
    filter: Filter
    aggregations: tuple[Aggregation, ...]
    duration: timedelta
    trigger: Trigger = Trigger()


@dataclass(frozen=True, kw_only=True)
class UnevaluatedCondition:
    """A condition that is stored and validated but not evaluated here; never healthy."""

    evaluated: ClassVar[bool] = False

    name: str
    display_name: str
    kind: ConditionKind


Condition = ThresholdCondition | AbsenceCondition | UnevaluatedCondition
