"""Columns: what aggregation makes of series, side by side, at the evaluation times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from speakfit.engine.points import (
    Bools,
    Distributions,
    Floats,
    Ints,
    Keys,
    MetricKind,
    SeriesKey,
    ValueType,
)
from speakfit.engine.runs import NO_MANY_RUNS, ManyRuns


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Aggregated series side by side: a value per evaluation time, NaN where there is none.

    They are shared between those who ask for the same; nobody writes into them.
    """

    keys: Keys
    kind: MetricKind
    value_type: ValueType
    values: Floats | Distributions
    """Numbers by series and time; distributions one series after the other."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def numbers(self) -> Floats:
        """The values of columns of numbers; a TypeError for distributions."""
        if isinstance(self.values, Distributions):
            raise TypeError("these columns hold distributions")
        return self.values

    def take(self, rows: Ints, keys: Keys | None = None) -> Columns:
        """Some of the series; their keys may be given when they are known."""
        if len(rows) == len(self):
            return self
        return replace(
            self, keys=self.keys.take(rows) if keys is None else keys, values=self._values(rows)
        )

    def rows(self) -> Iterator[tuple[SeriesKey, Floats | Distributions]]:
        """Every series by itself."""
        for row, key in enumerate(self.keys.each):
            values = self._values(np.array([row]))
            yield key, values if isinstance(values, Distributions) else values[0]

    def _values(self, rows: Ints) -> Floats | Distributions:
        if not isinstance(self.values, Distributions):
            return self.values[rows]
        length = len(self.values) // len(self)
        return self.values.take((rows[:, None] * length + np.arange(length)).ravel())

    @cached_property
    def _plain(self) -> Floats:
        """Numbers that are NaN where there is no value."""
        if isinstance(self.values, Distributions):
            return self.values.count.reshape(len(self), -1)
        return self.values

    @cached_property
    def _top(self) -> Floats:
        top: Floats = self._plain.max(axis=1)
        return top

    @cached_property
    def complete(self) -> Bools:
        """Whether a series has a value everywhere."""
        # One NaN makes the largest value NaN, which is much quicker to find out.
        return ~np.isnan(self._top)

    @cached_property
    def missing(self) -> Bools | None:
        """Where there is no value; None if there is one everywhere."""
        return None if self.complete.all() else np.isnan(self._plain)

    @cached_property
    def lowest(self) -> Floats:
        """The smallest number of each series, NaN without any."""
        smallest = np.minimum if self.missing is None else np.fmin
        lowest: Floats = smallest.reduce(self.numbers, axis=1)
        return lowest

    @cached_property
    def highest(self) -> Floats:
        """The largest number of each series, NaN without any."""
        highest: Floats = self._top
        if self.missing is not None:
            highest = np.fmax.reduce(self.numbers, axis=1)
        return highest

    @cached_property
    def present(self) -> Ints:
        """Where there are values, counted through all series."""
        if self.missing is None:
            return _everywhere(self._plain.size)
        return np.flatnonzero(~self.missing)

    @cached_property
    def ends(self) -> tuple[Ints, Ints]:
        """Row and column of the last evaluation of each series."""
        return np.arange(len(self)), np.full(len(self), self._plain.shape[1] - 1)

    @cached_property
    def silences(self) -> ManyRuns:
        """Where values are missing, as stretches."""
        return NO_MANY_RUNS if self.missing is None else ManyRuns.of(self.missing)


@lru_cache(maxsize=16)
def _everywhere(size: int) -> Ints:
    places = np.arange(size)
    places.setflags(write=False)
    return places
