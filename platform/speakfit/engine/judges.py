"""Judges: what a condition asks of the series, and how it is answered as blocks of them come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

import numpy as np

from speakfit.engine.align import Reading
from speakfit.engine.blocks import CELLS
from speakfit.engine.columns import Columns
from speakfit.engine.conditions import AbsenceCondition, ThresholdCondition
from speakfit.engine.filters import Filter
from speakfit.engine.groups import Groups, Merging
from speakfit.engine.points import NEVER, Floats, Ints, Keys, MetricKind, SeriesKey, ValueType
from speakfit.engine.reduce import Aggregation, Reducer, Selection, Stream
from speakfit.engine.states import States
from speakfit.engine.verdicts import Verdicts, judge_absence, judge_threshold


class Gathering:
    """Columns of all series that pass a filter, aggregated once for all who ask for the same."""

    def __init__(self, filter_: Filter, aggregations: tuple[Aggregation, ...], at_ns: Ints) -> None:
        """Columns appear as blocks are added."""
        self.filter = filter_
        self._stream = Stream(aggregations, at_ns)
        self._takers: list[Callable[[Columns], None]] = []

    def tell(self, taker: Callable[[Columns], None]) -> None:
        """Have a function called with all columns."""
        self._takers.append(taker)

    def add(self, reading: Reading, chosen: Selection) -> None:
        """What passes the filter of one more block; InvalidArgument if it cannot be aligned."""
        columns = self._stream.add(reading, chosen)
        if columns is not None:
            self._give(columns)

    def finish(self) -> None:
        """No more blocks."""
        for columns in self._stream.rest():
            self._give(columns)

    def _give(self, columns: Columns) -> None:
        for taker in self._takers:
            taker(columns)


class Silences:
    """When all series, or groups of series, that pass a filter were last heard of."""

    def __init__(self, filter_: Filter, aggregations: tuple[Aggregation, ...]) -> None:
        """Series are grouped as the last of the aggregations that reduces says."""
        self.filter = filter_
        grouped = [step for step in aggregations if step.reducer is not Reducer.REDUCE_NONE]
        self._groups = Groups(grouped[-1].group_by) if grouped else None
        self._newest = Merging(np.maximum, NEVER)
        self._takers: list[Callable[[Keys, Ints], None]] = []

    def tell(self, taker: Callable[[Keys, Ints], None]) -> None:
        """Have a function called with keys, and the ends of their newest points at all times."""
        self._takers.append(taker)

    def add(self, reading: Reading, chosen: Selection) -> None:
        """What passes the filter of one more block."""
        newest = reading.newest_ns[chosen.rows]
        if self._groups is not None:
            self._newest.add(self._groups.of(chosen.keys), newest)
            return
        self._give(chosen.keys, newest)

    def finish(self) -> None:
        """No more blocks."""
        if self._groups is not None and self._newest.rows is not None:
            self._give(self._groups.keys, self._newest.rows[: len(self._groups)])

    def _give(self, keys: Keys, newest: Ints) -> None:
        for taker in self._takers:
            taker(keys, newest)


class Judge:
    """Judges the series of one condition as they are measured, then those that are remembered."""

    def __init__(
        self,
        condition: ThresholdCondition | AbsenceCondition,
        at_ns: Ints,
        *,
        states: States,
        active_since_ns: int,
        auto_close: timedelta,
        found: Callable[[Verdicts], None],
    ) -> None:
        """`found` is called with all verdicts.

        An absence needs a point after `active_since_ns` (facts §2).
        """
        self.condition = condition
        self._at = at_ns
        self._states = states
        self._since_ns = active_since_ns
        self._auto_close = auto_close
        self._found = found
        self._judged: list[Keys] = []
        self._above: list[Columns] = []
        self._below: list[Columns] = []

    def attend(
        self,
        gathering: Callable[[Filter, tuple[Aggregation, ...]], Gathering],
        silences: Callable[[Filter, tuple[Aggregation, ...]], Silences],
    ) -> None:
        """Ask for what the condition measures."""
        condition = self.condition
        if isinstance(condition, AbsenceCondition):
            silences(condition.filter, condition.aggregations).tell(self._judge_absence)
            return
        above = gathering(condition.filter, condition.aggregations)
        if condition.denominator_filter is None and condition.burn_rate is None:
            above.tell(self._judge)
            return
        above.tell(self._above.append)
        if condition.denominator_filter is not None:
            below = gathering(condition.denominator_filter, condition.denominator_aggregations)
            below.tell(self._below.append)

    def _judge(self, columns: Columns) -> None:
        assert isinstance(self.condition, ThresholdCondition)
        self._judged.append(columns.keys)
        self._found(
            judge_threshold(
                self.condition,
                columns,
                self._at,
                states=self._states,
                auto_close=self._auto_close,
            )
        )

    def _judge_absence(self, keys: Keys, newest: Ints) -> None:
        assert isinstance(self.condition, AbsenceCondition)
        self._judged.append(keys)
        self._found(
            judge_absence(
                self.condition,
                keys,
                np.where(newest > self._since_ns, newest, NEVER),
                self._at,
                states=self._states,
                auto_close=self._auto_close,
            )
        )

    def finish(self) -> None:
        """No more blocks: judge what needed all, and the series that are only remembered."""
        for columns in self._derived():
            self._judge(columns)
        length = len(self._at)
        for keys in _parts(self._states.without(self._judged).keys, max(1, CELLS // length)):
            if isinstance(self.condition, AbsenceCondition):
                self._judge_absence(keys, np.full((len(keys), length), NEVER))
            else:
                self._judge(
                    Columns(
                        keys=keys,
                        kind=MetricKind.GAUGE,
                        value_type=ValueType.DOUBLE,
                        values=np.full((len(keys), length), np.nan),
                    )
                )

    def _derived(self) -> Iterator[Columns]:
        """Ratios, or a burn rate, of what was measured."""
        condition, length = self.condition, len(self._at)
        if isinstance(condition, ThresholdCondition) and condition.burn_rate is not None:
            if self._above or self._below:
                yield condition.burn_rate.columns(self._above, self._below, length)
            return
        below = {
            _ratio_key(key): row
            for columns in self._below
            for key, row in zip(columns.keys.each, columns.numbers, strict=True)
        }
        for above in self._above:
            yield _ratio(above, below, length)


def _ratio(above: Columns, below: Mapping[tuple[object, ...], Floats], length: int) -> Columns:
    """A ratio needs both sides with equal labels and a denominator other than zero."""
    nothing = np.full(length, np.nan)
    divisor = np.stack([below.get(_ratio_key(key), nothing) for key in above.keys.each])
    values = np.full(divisor.shape, np.nan)
    np.divide(above.numbers, divisor, out=values, where=(divisor != 0) & ~np.isnan(divisor))
    return replace(above, kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE, values=values)


def _parts(keys: Keys, length: int) -> Iterator[Keys]:
    for first in range(0, len(keys), length):
        yield Keys.of(keys.each[first : first + length])


def _ratio_key(key: SeriesKey) -> tuple[object, ...]:
    return (key.resource_type, key.resource_labels, key.metric_labels)
