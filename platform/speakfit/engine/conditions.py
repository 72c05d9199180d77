"""Conditions: which series violate, and since when, at every evaluation time.

A condition looks at one series at a time: its measured values become `met` flags by way of the
duration window, which restarts whenever a measurement does not satisfy the condition
(alerts/concepts-indepth), and of what the policy says about missing data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

import numpy as np

from speakfit.engine.align import Column, Grid, Reading
from speakfit.engine.filters import Filter
from speakfit.engine.objectives import BurnRate
from speakfit.engine.points import Bools, Floats, Ints, MetricKind, SeriesKey, ValueType
from speakfit.engine.reduce import Aggregation, Reducer, Stream, group_key
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


@dataclass(frozen=True, kw_only=True)
class SeriesState:
    """What one evaluation has to remember of a series for the next."""

    pending_since_ns: int | None = None
    """When the current run of violations began; None while not violating."""
    last_seen_ns: int | None = None
    """Last time with data: of a threshold the evaluation, of an absence the point itself."""
    met: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Stretches of evaluations, each from `first` up to but without `end`."""

    first: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, flags: Bools) -> Runs:
        """The stretches in which a flag is set."""
        changes = np.flatnonzero(flags[1:] != flags[:-1]) + 1
        ends = [0] if flags[0] else []
        tail = [len(flags)] if flags[-1] else []
        edges = np.concatenate((ends, changes, tail)).astype(np.int64)
        return cls(first=edges[0::2], end=edges[1::2])

    def flags(self, length: int) -> Bools:
        """The stretches as one flag an evaluation."""
        steps = np.zeros(length + 1, dtype=np.int8)
        steps[self.first] += 1
        steps[self.end] -= 1
        return np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)


NO_RUNS = Runs(first=np.zeros(0, dtype=np.int64), end=np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """One series under one condition, at all evaluation times."""

    key: SeriesKey
    violating: Runs
    """Where the comparison holds, or missing data counts for it; `met` once that has lasted."""
    met: Runs
    values: Floats | None
    """Measured value, NaN where missing; None for an absence."""
    state: SeriesState
    first_known: int = 0
    """The first evaluation at which the series has had data."""
    gone: Bools | None = None
    """Where it has been without data for too long; None for nowhere."""
    silence: Ints | None = None
    """Nanoseconds that an absence's series has been silent, 0 before its first point; None for a
    threshold."""

    def known_at(self, index: int) -> bool:
        """Whether the series counts: it has had data and has not been gone too long."""
        return index >= self.first_known and (self.gone is None or not self.gone[index])

    def known(self, length: int) -> Bools:
        """known_at for every evaluation."""
        known = np.arange(length) >= self.first_known
        return known if self.gone is None else known & ~self.gone


def _settle(
    violating: Bools, at_ns: Ints, *, duration_ns: int, prior: SeriesState
) -> tuple[Runs, Runs, int | None]:
    """Where violations are, where they have lasted the duration, since when the last run is."""
    runs = Runs.of(violating)
    since = at_ns[runs.first]
    if len(runs) and runs.first[0] == 0 and prior.pending_since_ns is not None:
        since[0] = prior.pending_since_ns
    pending = int(since[-1]) if violating[-1] else None
    if duration_ns == 0:
        return runs, runs, pending
    lasting = np.maximum(np.searchsorted(at_ns, since + duration_ns), runs.first)
    long_enough = lasting < runs.end
    return runs, Runs(first=lasting[long_enough], end=runs.end[long_enough]), pending


def _settle_decided(
    violating: Bools, decided: Ints, at_ns: Ints, *, duration_ns: int, prior: SeriesState
) -> tuple[Runs, Runs, int | None]:
    """_settle over the decided evaluations only, whose indices are given.

    The others change nothing: a pending run goes on, a met condition stays met.
    """
    length = len(at_ns)
    whole = Runs(first=np.array([0]), end=np.array([length])) if prior.met else NO_RUNS
    if not len(decided):
        return whole, whole, prior.pending_since_ns
    found, lasting, pending = _settle(
        violating[decided], at_ns[decided], duration_ns=duration_ns, prior=prior
    )
    met = _undecided_too(lasting, decided, length)
    if prior.met and decided[0] > 0:
        if len(lasting) and lasting.first[0] == 0:
            met.first[0] = 0
        else:
            met = Runs(first=np.append(0, met.first), end=np.append(decided[0], met.end))
    return _undecided_too(found, decided, length), met, pending


def _undecided_too(runs: Runs, decided: Ints, length: int) -> Runs:
    """Stretches of decided evaluations as stretches of all, which last until the next decision."""
    return Runs(first=decided[runs.first], end=np.append(decided, length)[runs.end])


def judge_threshold(
    condition: ThresholdCondition,
    column: Column,
    at_ns: Ints,
    *,
    prior: SeriesState,
    auto_close: timedelta,
) -> Verdict:
    """Where one measured series meets a threshold condition."""
    above = condition.operator is Operator.GT
    # Nearly every series of a backtest is well: one comparison says so.
    some = column.highest > condition.threshold if above else column.lowest < condition.threshold
    values, missing = column.numbers, column.missing
    if missing is None and not some:
        return Verdict(
            key=column.key,
            violating=NO_RUNS,
            met=NO_RUNS,
            values=values,
            state=SeriesState(last_seen_ns=int(at_ns[-1])),
        )
    violating = values > condition.threshold if above else values < condition.threshold
    if missing is None:
        runs, met, since = _settle(
            violating,
            at_ns,
            duration_ns=min(to_ns(condition.duration), _LONGEST_NS),
            prior=prior,
        )
        return Verdict(
            key=column.key,
            violating=runs,
            met=met,
            values=values,
            state=SeriesState(
                pending_since_ns=since,
                last_seen_ns=int(at_ns[-1]),
                met=bool(len(met)) and int(met.end[-1]) == len(at_ns),
            ),
        )
    return _judge_with_gaps(
        condition,
        column.key,
        values,
        violating,
        np.flatnonzero(~missing),
        at_ns,
        prior=prior,
        auto_close=auto_close,
    )


def _judge_with_gaps(
    condition: ThresholdCondition,
    key: SeriesKey,
    values: Floats,
    violating: Bools,
    present: Ints,
    at_ns: Ints,
    *,
    prior: SeriesState,
    auto_close: timedelta,
) -> Verdict:
    """judge_threshold for a series that has values in the evaluations `present` only."""
    length = len(at_ns)
    active = condition.missing is MissingData.ACTIVE
    limit = to_ns(auto_close + (ABSENT_GRACE if active else AUTO_CLOSE_DELAY))
    if prior.last_seen_ns is not None:
        first_known = 0
    else:
        first_known = int(present[0]) if len(present) else length
    gone = _gone(present, at_ns, limit=limit, seen_before=prior.last_seen_ns)
    if active or condition.missing is MissingData.INACTIVE:
        decided = np.arange(first_known, length)
    elif gone is None:
        decided = present
    else:
        gone_or_there = gone.copy()
        gone_or_there[present] = True
        decided = np.flatnonzero(gone_or_there)
    if active:
        silent = np.ones(length, dtype=np.bool_)
        silent[present] = False
        if gone is not None:
            silent &= ~gone
        violating = violating | silent
    runs, met, since = _settle_decided(
        violating,
        decided,
        at_ns,
        duration_ns=min(to_ns(condition.duration), _LONGEST_NS),
        prior=prior,
    )
    return Verdict(
        key=key,
        violating=runs,
        met=met,
        values=values,
        first_known=first_known,
        gone=gone,
        state=SeriesState(
            pending_since_ns=since,
            last_seen_ns=int(at_ns[present[-1]]) if len(present) else prior.last_seen_ns,
            met=bool(len(met)) and int(met.end[-1]) == length,
        ),
    )


def _gone(present: Ints, at_ns: Ints, *, limit: int, seen_before: int | None) -> Bools | None:
    """Where data has been missing for `limit` since it was last there; None for nowhere."""
    seen = at_ns[present]
    after = np.append(present, len(at_ns))
    if seen_before is not None:
        seen, after = np.append(seen_before, seen), np.append(-1, after)
    if not len(seen):
        return None
    # The last evaluation before the next data decides whether a silence ever lasts so long.
    silences = np.flatnonzero(np.diff(after) > 1)
    until, seen = after[1:][silences], seen[silences]
    lasts = at_ns[until - 1] - seen >= limit
    if not lasts.any():
        return None
    gone = np.zeros(len(at_ns), dtype=np.bool_)
    for end, last_seen in zip(until[lasts], seen[lasts], strict=True):
        gone[int(np.searchsorted(at_ns, last_seen + limit)) : end] = True
    return gone


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
    seen = newest if prior.last_seen_ns is None else np.maximum(newest, prior.last_seen_ns)
    # Times ascend, so what was never seen comes first.
    first_known = int(np.searchsorted(seen, NEVER, side="right"))
    silent = at_ns - seen
    silent[:first_known] = 0
    long = silent >= to_ns(condition.duration)
    met = NO_RUNS
    gone: Bools | None = None
    if long.any():
        gone = silent >= to_ns(condition.duration + auto_close + ABSENT_GRACE)
        met = Runs.of(long & ~gone)
    return Verdict(
        key=key,
        violating=met,
        met=met,
        values=None,
        first_known=first_known,
        gone=gone,
        silence=silent,
        state=SeriesState(
            last_seen_ns=int(seen[-1]) if first_known < len(at_ns) else None,
            met=bool(len(met)) and int(met.end[-1]) == len(at_ns),
        ),
    )


class Gathering:
    """Columns of all series that pass a filter, aggregated once for all who ask for the same."""

    def __init__(self, filter_: Filter, aggregations: tuple[Aggregation, ...], at_ns: Ints) -> None:
        """Columns appear as series are added."""
        self.filter = filter_
        self._stream = Stream(aggregations, at_ns)
        self._takers: list[Callable[[Column], None]] = []

    def tell(self, taker: Callable[[Column], None]) -> None:
        """Have a function called with every column."""
        self._takers.append(taker)

    def add(self, reading: Reading) -> None:
        """One more series, which passes the filter; InvalidArgument if it cannot be aligned."""
        column = self._stream.add(reading)
        if column is not None:
            for taker in self._takers:
                taker(column)

    def finish(self) -> None:
        """No more series."""
        for column in self._stream.rest():
            for taker in self._takers:
                taker(column)


class Silences:
    """When each series, or group of series, was last heard of."""

    def __init__(
        self,
        filter_: Filter,
        aggregations: tuple[Aggregation, ...],
        at_ns: Ints,
        *,
        since_ns: int,
    ) -> None:
        """Only points after `since_ns` count (facts §2)."""
        self.filter = filter_
        self._at = at_ns
        self._since_ns = since_ns
        self._grouped = next(
            (step for step in reversed(aggregations) if step.reducer is not Reducer.REDUCE_NONE),
            None,
        )
        self._grid: Grid | None = None
        self._last: Ints | None = None
        self.newest: dict[SeriesKey, Ints] = {}

    def add(self, reading: Reading) -> None:
        """One more series, which passes the filter."""
        if reading.grid is not self._grid:
            self._grid = reading.grid
            self._last = _last_points(reading.grid, self._since_ns)
        if self._last is None:
            return
        key = reading.series.key
        if self._grouped is not None:
            key = group_key(key, self._grouped.group_by)
        known = self.newest.get(key)
        self.newest[key] = self._last if known is None else np.maximum(known, self._last)


def _last_points(grid: Grid, since_ns: int) -> Ints | None:
    """The end of the newest point up to each time, NEVER without one; None without any point."""
    end = grid.end[grid.end > since_ns]
    if not len(end):
        return None
    index = np.searchsorted(end, grid.at, side="right")
    return np.where(index > 0, end[np.maximum(index - 1, 0)], NEVER)


class Judge:
    """Judges the series of one condition as they are measured, then those that are remembered."""

    def __init__(
        self,
        condition: ThresholdCondition | AbsenceCondition,
        at_ns: Ints,
        *,
        states: Mapping[SeriesKey, SeriesState],
        auto_close: timedelta,
        found: Callable[[Verdict], None],
    ) -> None:
        """`found` is called with every verdict."""
        self.condition = condition
        self._at = at_ns
        self._states = states
        self._auto_close = auto_close
        self._found = found
        self._done: set[SeriesKey] = set()
        self._above: list[Column] = []
        self._below: list[Column] = []
        self._silences: Silences | None = None

    def attend(
        self,
        gathering: Callable[[Filter, tuple[Aggregation, ...]], Gathering],
        silences: Callable[[Filter, tuple[Aggregation, ...]], Silences],
    ) -> None:
        """Ask for what the condition measures."""
        condition = self.condition
        if isinstance(condition, AbsenceCondition):
            self._silences = silences(condition.filter, condition.aggregations)
            return
        above = gathering(condition.filter, condition.aggregations)
        if condition.denominator_filter is None and condition.burn_rate is None:
            above.tell(self._judge)
            return
        above.tell(self._above.append)
        if condition.denominator_filter is not None:
            below = gathering(condition.denominator_filter, condition.denominator_aggregations)
            below.tell(self._below.append)

    def _judge(self, column: Column) -> None:
        assert isinstance(self.condition, ThresholdCondition)
        self._done.add(column.key)
        self._found(
            judge_threshold(
                self.condition,
                column,
                self._at,
                prior=self._states.get(column.key, _NOTHING),
                auto_close=self._auto_close,
            )
        )

    def finish(self) -> None:
        """No more series: judge what needed all, and the series that are only remembered."""
        condition = self.condition
        if isinstance(condition, AbsenceCondition):
            newest = {} if self._silences is None else self._silences.newest
            never = np.full(len(self._at), NEVER)
            for key in newest.keys() | self._states.keys():
                self._found(
                    judge_absence(
                        condition,
                        key,
                        newest.get(key, never),
                        self._at,
                        prior=self._states.get(key, _NOTHING),
                        auto_close=self._auto_close,
                    )
                )
            return
        if condition.burn_rate is not None:
            if self._above or self._below:
                self._judge(condition.burn_rate.column(self._above, self._below, len(self._at)))
        elif self._above:
            below = {_ratio_key(column.key): column for column in self._below}
            for column in self._above:
                self._judge(_ratio(column, below.get(_ratio_key(column.key))))
        silence = np.full(len(self._at), np.nan)
        for key, prior in self._states.items():
            if key not in self._done:
                self._found(
                    _judge_with_gaps(
                        condition,
                        key,
                        silence,
                        np.zeros(len(self._at), dtype=np.bool_),
                        np.arange(0),
                        self._at,
                        prior=prior,
                        auto_close=self._auto_close,
                    )
                )


_NOTHING = SeriesState()


def _ratio_key(key: SeriesKey) -> tuple[object, ...]:
    return (key.resource_type, key.resource_labels, key.metric_labels)


def _ratio(above: Column, below: Column | None) -> Column:
    """A ratio needs both sides with equal labels and a denominator other than zero."""
    values = np.full(len(above.numbers), np.nan)
    if below is not None:
        divisor = below.numbers
        np.divide(above.numbers, divisor, out=values, where=(divisor != 0) & ~np.isnan(divisor))
    return replace(above, kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE, values=values)
