"""Conditions: which series violate, and since when, at every evaluation time.

A condition looks at one series at a time: its measured values become `met` flags by way of the
duration window, which restarts whenever a measurement does not satisfy the condition
(alerts/concepts-indepth), and of what the policy says about missing data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

import numpy as np

from speakfit.engine.filters import Filter
from speakfit.engine.points import Bools, Floats, Ints, Series, SeriesKey
from speakfit.engine.reduce import Aggregation, Reducer, columns, group_key
from speakfit.engine.wire import to_ns

AUTO_CLOSE_DELAY = timedelta(minutes=15)
"""Data must be missing this long before the auto-close timer starts (facts §2)."""
ABSENT_GRACE = timedelta(hours=24)
"""Incidents about missing data stay open this much longer than auto-close (facts §2)."""
NEVER = np.iinfo(np.int64).min // 2
_LONGEST_NS = 2**62
"""Longer durations than these 146 years cannot be told apart, and int64 must not overflow."""


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
    """The condition oneof; a forecast is a threshold condition with forecast options."""

    THRESHOLD = "conditionThreshold"
    ABSENT = "conditionAbsent"
    LOG = "conditionMatchedLog"
    MQL = "conditionMonitoringQueryLanguage"
    PROMQL = "conditionPrometheusQueryLanguage"
    SQL = "conditionSql"
    FORECAST = "forecastOptions"


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """How many series must violate: a count, or a percentage of those that are known."""

    count: int = 1
    percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdCondition:
    """Compares every aggregated series, or its ratio to a denominator, to a threshold."""

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


@dataclass(frozen=True, kw_only=True)
class SeriesState:
    """What one evaluation has to remember of a series for the next."""

    pending_since_ns: int | None = None
    """When the current run of violations began; None while not violating."""
    last_seen_ns: int | None = None
    """Last time with data: of a threshold the evaluation, of an absence the point itself."""
    met: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """One series under one condition, at all evaluation times."""

    key: SeriesKey
    met: Bools
    known: Bools
    """Whether the series counts: it has had data and has not been gone too long."""
    values: Floats
    """Measured value, NaN where missing; for an absence always NaN."""
    state: SeriesState


def _ratio_key(key: SeriesKey) -> tuple[object, ...]:
    return (key.resource_type, key.resource_labels, key.metric_labels)


def measure(
    condition: ThresholdCondition, series: Sequence[Series], at_ns: Ints, *, project: str = ""
) -> Iterator[tuple[SeriesKey, Floats]]:
    """The values a threshold is compared to, series by series; NaN where there is none.

    A ratio needs both sides with equal labels and a denominator other than zero.
    """
    chosen = _select(condition.filter, series, project)
    measured = columns(chosen, condition.aggregations, at_ns)
    if condition.denominator_filter is None:
        for column in measured:
            yield column.key, column.numbers
        return
    below = {
        _ratio_key(column.key): column.numbers
        for column in columns(
            _select(condition.denominator_filter, series, project),
            condition.denominator_aggregations,
            at_ns,
        )
    }
    for column in measured:
        divisor = below.get(_ratio_key(column.key))
        if divisor is None:
            yield column.key, np.full(len(at_ns), np.nan)
            continue
        usable = np.nan_to_num(divisor) != 0
        ratio: Floats = np.divide(
            column.numbers, divisor, out=np.full(len(at_ns), np.nan), where=usable
        )
        yield column.key, ratio


def _select(filter_: Filter, series: Iterable[Series], project: str) -> list[Series]:
    return [one for one in series if filter_.matches(one.key, project=project)]


def last_points(
    condition: AbsenceCondition,
    series: Sequence[Series],
    at_ns: Ints,
    *,
    since_ns: int,
    project: str = "",
) -> dict[SeriesKey, Ints]:
    """The end time of the newest point up to each time, by series or group; NEVER without one.

    Only points after `since_ns` count: absence needs one after the policy was written (facts §2).
    """
    grouped = next(
        (
            step
            for step in reversed(condition.aggregations)
            if step.reducer is not Reducer.REDUCE_NONE
        ),
        None,
    )
    newest: dict[SeriesKey, Ints] = {}
    for one in _select(condition.filter, series, project):
        end = one.end_ns[one.end_ns > since_ns]
        if not len(end):
            continue
        index = np.searchsorted(end, at_ns, side="right")
        last = np.where(index > 0, end[np.maximum(index - 1, 0)], NEVER)
        key = one.key if grouped is None else group_key(one.key, grouped.group_by)
        newest[key] = np.maximum(newest[key], last) if key in newest else last
    return newest


def _settle(
    violating: Bools,
    undecided: Bools,
    at_ns: Ints,
    *,
    duration_ns: int,
    prior: SeriesState,
) -> tuple[Bools, int | None]:
    """Flags that say where violations have lasted the duration, and since when the last run is.

    Undecided evaluations change nothing: a pending run goes on, a met condition stays met.
    """
    if not violating.any() and prior.pending_since_ns is None and not prior.met:
        return np.zeros(len(at_ns), dtype=np.bool_), None
    if not undecided.any():
        return _settle_decided(violating, at_ns, duration_ns=duration_ns, prior=prior)
    index = np.arange(len(at_ns))
    decided = np.maximum.accumulate(np.where(undecided, -1, index))
    before = decided < 0
    was_violating = prior.pending_since_ns is not None
    effective = np.where(before, was_violating, violating[np.maximum(decided, 0)])
    earlier = np.concatenate(([was_violating], effective[:-1]))
    begun = np.where(
        effective & ~earlier,
        at_ns,
        prior.pending_since_ns if prior.pending_since_ns is not None else NEVER,
    )
    since = np.maximum.accumulate(begun)
    lasting = effective & (at_ns - since >= duration_ns)
    met = np.where(before, prior.met, lasting[np.maximum(decided, 0)])
    return met, int(since[-1]) if effective[-1] else None


def _settle_decided(
    violating: Bools, at_ns: Ints, *, duration_ns: int, prior: SeriesState
) -> tuple[Bools, int | None]:
    """_settle when every evaluation is decided: only the runs of violations are looked at."""
    changes = np.flatnonzero(np.diff(violating, prepend=False, append=False))
    first, end = changes[0::2], changes[1::2]
    since = at_ns[first]
    if len(first) and first[0] == 0 and prior.pending_since_ns is not None:
        since[0] = prior.pending_since_ns
    pending = int(since[-1]) if violating[-1] else None
    if duration_ns == 0:
        return violating, pending
    lasting = np.maximum(np.searchsorted(at_ns, since + duration_ns), first)
    long_enough = lasting < end
    met = np.zeros(len(at_ns), dtype=np.bool_)
    for begin, stop in zip(lasting[long_enough], end[long_enough], strict=True):
        met[begin:stop] = True
    return met, pending


def judge_threshold(
    condition: ThresholdCondition,
    key: SeriesKey,
    values: Floats,
    at_ns: Ints,
    *,
    prior: SeriesState,
    auto_close: timedelta,
) -> Verdict:
    """Where one measured series meets a threshold condition."""
    missing = np.isnan(values)
    duration_ns = min(to_ns(condition.duration), _LONGEST_NS)
    with np.errstate(invalid="ignore"):
        violating = (
            values > condition.threshold
            if condition.operator is Operator.GT
            else values < condition.threshold
        )
    if not missing.any():
        # Nearly every series of a backtest: nothing about missing data has to be worked out.
        met, since = _settle(violating, missing, at_ns, duration_ns=duration_ns, prior=prior)
        return Verdict(
            key=key,
            met=met,
            known=~missing,
            values=values,
            state=SeriesState(
                pending_since_ns=since, last_seen_ns=int(at_ns[-1]), met=bool(met[-1])
            ),
        )
    seen_before = NEVER if prior.last_seen_ns is None else prior.last_seen_ns
    seen = np.maximum.accumulate(np.where(missing, seen_before, at_ns))
    ever = seen > NEVER
    active = condition.missing is MissingData.ACTIVE
    limit = to_ns(auto_close + (ABSENT_GRACE if active else AUTO_CLOSE_DELAY))
    gone = missing & ever & (at_ns - seen >= limit)
    if condition.missing is MissingData.INACTIVE:
        undecided = missing & ~ever
    elif active:
        violating = violating | (missing & ever & ~gone)
        undecided = missing & ~ever
    else:
        undecided = missing & ~gone
    met, since = _settle(violating, undecided, at_ns, duration_ns=duration_ns, prior=prior)
    return Verdict(
        key=key,
        met=met,
        known=ever & ~gone,
        values=values,
        state=SeriesState(
            pending_since_ns=since,
            last_seen_ns=int(seen[-1]) if ever[-1] else None,
            met=bool(met[-1]),
        ),
    )


def judge_absence(
    condition: AbsenceCondition,
    key: SeriesKey,
    newest: Ints,
    at_ns: Ints,
    *,
    prior: SeriesState,
    auto_close: timedelta,
) -> Verdict:
    """Where one series has been silent for the duration; it must have spoken once."""
    seen_before = NEVER if prior.last_seen_ns is None else prior.last_seen_ns
    seen = np.maximum(newest, seen_before)
    ever = seen > NEVER
    silent = np.where(ever, at_ns - seen, 0)
    gone = silent >= to_ns(condition.duration + auto_close + ABSENT_GRACE)
    met = ever & ~gone & (silent >= to_ns(condition.duration))
    return Verdict(
        key=key,
        met=met,
        known=ever & ~gone,
        values=np.full(len(at_ns), np.nan),
        state=SeriesState(
            last_seen_ns=int(seen[-1]) if ever[-1] else None,
            met=bool(met[-1]),
        ),
    )


def judge(
    condition: ThresholdCondition | AbsenceCondition,
    series: Sequence[Series],
    at_ns: Ints,
    *,
    states: dict[SeriesKey, SeriesState],
    auto_close: timedelta,
    since_ns: int = 0,
    project: str = "",
) -> Iterator[Verdict]:
    """A verdict for every series that is measured now or remembered from before."""
    nothing = SeriesState()
    done: set[SeriesKey] = set()
    if isinstance(condition, ThresholdCondition):
        for key, values in measure(condition, series, at_ns, project=project):
            done.add(key)
            prior = states.get(key, nothing)
            yield judge_threshold(condition, key, values, at_ns, prior=prior, auto_close=auto_close)
        silence = np.full(len(at_ns), np.nan)
        for key, prior in states.items():
            if key not in done:
                yield judge_threshold(
                    condition, key, silence, at_ns, prior=prior, auto_close=auto_close
                )
        return
    newest = last_points(condition, series, at_ns, since_ns=since_ns, project=project)
    never = np.full(len(at_ns), NEVER)
    for key in newest.keys() | states.keys():
        yield judge_absence(
            condition,
            key,
            newest.get(key, never),
            at_ns,
            prior=states.get(key, nothing),
            auto_close=auto_close,
        )
