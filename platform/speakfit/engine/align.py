"""Alignment: series become values at evaluation times, over the windows (t - period, t].

What each aligner accepts and returns is the table of facts §1 (google.monitoring.v3.Aggregation).
Windows slide with the evaluation time (alerts/concepts-indepth), so a five-minute period
evaluated each minute looks at five minutes each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speakfit.engine.blocks import Block
from speakfit.engine.columns import Columns
from speakfit.engine.grids import Fold, Grid, Spans, inside
from speakfit.engine.points import (
    NEVER,
    Bools,
    Buckets,
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    ValueType,
)
from speakfit.errors import InvalidArgument

NS_PER_SECOND = 1_000_000_000
SMOOTHING_NS = 600 * NS_PER_SECOND
"""ALIGN_PERCENT_CHANGE first takes a ten-minute moving mean."""


class Aligner(StrEnum):
    """google.monitoring.v3.Aggregation.Aligner."""

    ALIGN_NONE = "ALIGN_NONE"
    ALIGN_DELTA = "ALIGN_DELTA"
    ALIGN_RATE = "ALIGN_RATE"
    ALIGN_INTERPOLATE = "ALIGN_INTERPOLATE"
    ALIGN_NEXT_OLDER = "ALIGN_NEXT_OLDER"
    ALIGN_MIN = "ALIGN_MIN"
    ALIGN_MAX = "ALIGN_MAX"
    ALIGN_MEAN = "ALIGN_MEAN"
    ALIGN_COUNT = "ALIGN_COUNT"
    ALIGN_SUM = "ALIGN_SUM"
    ALIGN_STDDEV = "ALIGN_STDDEV"
    ALIGN_COUNT_TRUE = "ALIGN_COUNT_TRUE"
    ALIGN_COUNT_FALSE = "ALIGN_COUNT_FALSE"
    ALIGN_FRACTION_TRUE = "ALIGN_FRACTION_TRUE"
    ALIGN_PERCENTILE_99 = "ALIGN_PERCENTILE_99"
    ALIGN_PERCENTILE_95 = "ALIGN_PERCENTILE_95"
    ALIGN_PERCENTILE_50 = "ALIGN_PERCENTILE_50"
    ALIGN_PERCENTILE_05 = "ALIGN_PERCENTILE_05"
    ALIGN_PERCENT_CHANGE = "ALIGN_PERCENT_CHANGE"


_GAUGE = frozenset({MetricKind.GAUGE})
_GAUGE_DELTA = frozenset({MetricKind.GAUGE, MetricKind.DELTA})
_DELTA_CUMULATIVE = frozenset({MetricKind.DELTA, MetricKind.CUMULATIVE})
_NUMBERS = frozenset({ValueType.INT64, ValueType.DOUBLE})
_BOOL = frozenset({ValueType.BOOL})
_HISTOGRAM = frozenset({ValueType.DISTRIBUTION})


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What an aligner accepts, and what it returns; None keeps the input's."""

    kinds: frozenset[MetricKind]
    types: frozenset[ValueType]
    kind: MetricKind | None = MetricKind.GAUGE
    type: ValueType | None = None


_RULES: dict[Aligner, _Rule] = {
    Aligner.ALIGN_NONE: _Rule(kinds=frozenset(MetricKind), types=frozenset(ValueType), kind=None),
    Aligner.ALIGN_DELTA: _Rule(
        kinds=_DELTA_CUMULATIVE, types=_NUMBERS | _HISTOGRAM, kind=MetricKind.DELTA
    ),
    Aligner.ALIGN_RATE: _Rule(kinds=_DELTA_CUMULATIVE, types=_NUMBERS, type=ValueType.DOUBLE),
    Aligner.ALIGN_INTERPOLATE: _Rule(kinds=_GAUGE, types=_NUMBERS),
    Aligner.ALIGN_NEXT_OLDER: _Rule(kinds=_GAUGE, types=frozenset(ValueType) - {ValueType.STRING}),
    Aligner.ALIGN_MIN: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS),
    Aligner.ALIGN_MAX: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS),
    Aligner.ALIGN_MEAN: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS, type=ValueType.DOUBLE),
    Aligner.ALIGN_COUNT: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS | _BOOL, type=ValueType.INT64),
    Aligner.ALIGN_SUM: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS | _HISTOGRAM, kind=None),
    Aligner.ALIGN_STDDEV: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS, type=ValueType.DOUBLE),
    Aligner.ALIGN_COUNT_TRUE: _Rule(kinds=_GAUGE, types=_BOOL, type=ValueType.INT64),
    Aligner.ALIGN_COUNT_FALSE: _Rule(kinds=_GAUGE, types=_BOOL, type=ValueType.INT64),
    Aligner.ALIGN_FRACTION_TRUE: _Rule(kinds=_GAUGE, types=_BOOL, type=ValueType.DOUBLE),
    Aligner.ALIGN_PERCENTILE_99: _Rule(kinds=_GAUGE_DELTA, types=_HISTOGRAM, type=ValueType.DOUBLE),
    Aligner.ALIGN_PERCENTILE_95: _Rule(kinds=_GAUGE_DELTA, types=_HISTOGRAM, type=ValueType.DOUBLE),
    Aligner.ALIGN_PERCENTILE_50: _Rule(kinds=_GAUGE_DELTA, types=_HISTOGRAM, type=ValueType.DOUBLE),
    Aligner.ALIGN_PERCENTILE_05: _Rule(kinds=_GAUGE_DELTA, types=_HISTOGRAM, type=ValueType.DOUBLE),
    Aligner.ALIGN_PERCENT_CHANGE: _Rule(kinds=_GAUGE_DELTA, types=_NUMBERS, type=ValueType.DOUBLE),
}

PERCENTILES = {
    Aligner.ALIGN_PERCENTILE_99: 99.0,
    Aligner.ALIGN_PERCENTILE_95: 95.0,
    Aligner.ALIGN_PERCENTILE_50: 50.0,
    Aligner.ALIGN_PERCENTILE_05: 5.0,
}


def aligned_type(
    aligner: Aligner, kind: MetricKind, value_type: ValueType
) -> tuple[MetricKind, ValueType]:
    """Kind and type after alignment; InvalidArgument in Google's words when it cannot be."""
    rule = _RULES[aligner]
    if kind not in rule.kinds or value_type not in rule.types:
        raise InvalidArgument(
            f"The aligner cannot be applied to metrics with kind {kind} and value type "
            f"{value_type}."
        )
    return rule.kind or kind, rule.type or value_type


def percentile(column: Distributions, percent: float) -> Floats:
    """Percentiles by linear interpolation inside the bucket that holds them; NaN when empty.

    `low + (up - low) * (p - p_low) / (p_up - p_low)` (api/v3/distribution-metrics). The copy read
    does not say what the outer buckets do: below the first bound values are taken to lie between
    zero (or that bound, if it is not positive) and it, above the last one to equal it.
    """
    return percentile_of_counts(column.counts, column.buckets, percent)


def percentile_of_counts(counts: Floats, buckets: Buckets, percent: float) -> Floats:
    """The percentile of each row of bucket counts."""
    bounds = np.array(buckets.bounds)
    if not len(bounds) or not len(counts):
        return np.full(len(counts), np.nan)
    running = np.cumsum(counts, axis=1)
    total = running[:, -1]
    filled = total > 0
    target = np.where(filled, total, 1.0) * (percent / 100.0)
    # The first bucket whose running count reaches the target holds it; an empty one never does,
    # because its running count equals that of the bucket before.
    index = np.minimum((running < target[:, None]).sum(axis=1), counts.shape[1] - 1)
    rows = np.arange(len(counts))
    inside = counts[rows, index]
    before = running[rows, index] - inside
    lows = np.concatenate(([min(0.0, bounds[0])] if bounds[0] > 0 else [bounds[0]], bounds))
    highs = np.concatenate((bounds, [bounds[-1]]))
    share = np.divide(target - before, inside, out=np.zeros(len(counts)), where=inside > 0)
    value = lows[index] + (highs[index] - lows[index]) * np.clip(share, 0.0, 1.0)
    return np.where(filled, value, np.nan)


def moments(column: Distributions) -> Floats:
    """Columns that add up when distributions are merged: count, sum, sum of squares, buckets."""
    total = column.count * column.mean
    squares = column.ssd + total * column.mean
    return np.column_stack((column.count, total, squares, column.counts))


def of_moments(buckets: Buckets, added: Floats, present: Bools) -> Distributions:
    """Distributions from added-up columns; rows that are not present get a NaN count."""
    count = np.where(present, added[:, 0], np.nan)
    some = present & (added[:, 0] > 0)
    mean = np.divide(added[:, 1], added[:, 0], out=np.zeros(len(added)), where=some)
    ssd = np.maximum(added[:, 2] - added[:, 1] * mean, 0.0)
    return Distributions(
        buckets=buckets,
        count=count,
        mean=mean,
        ssd=np.where(some, ssd, 0.0),
        counts=added[:, 3:] if present.all() else np.where(present[:, None], added[:, 3:], 0.0),
    )


class Reading:
    """A block seen at the evaluation times; whatever is asked for is worked out once."""

    def __init__(self, block: Block, grid: Grid) -> None:
        """`grid` is the one of the block."""
        self.block = block
        self.grid = grid
        self._columns: dict[tuple[Aligner, int], Columns] = {}
        self._folds: dict[object, Fold] = {}

    def columns(self, aligner: Aligner, period_ns: int) -> Columns:
        """The block aligned; InvalidArgument in Google's words when the aligner does not fit."""
        name = (aligner, period_ns)
        if name not in self._columns:
            kind, value_type = aligned_type(aligner, self.block.kind, self.block.value_type)
            self._columns[name] = Columns(
                keys=self.block.keys,
                kind=kind,
                value_type=value_type,
                values=_aligned(self, aligner, period_ns),
            )
        return self._columns[name]

    @cached_property
    def newest_ns(self) -> Ints:
        """The ends of the newest points up to each evaluation, NEVER before the first."""
        after = self.grid.after
        return np.where(
            after > self.grid.first[:-1, None], self.grid.end[np.maximum(after - 1, 0)], NEVER
        )

    def fold(self, operation: np.ufunc, neutral: float, period_ns: int) -> Floats:
        """The points of each window folded; the neutral value where there are none."""
        return self._folded("points", self._amounts, operation, neutral, period_ns)

    def _folded(
        self, name: str, values: Floats, operation: np.ufunc, neutral: float, period_ns: int
    ) -> Floats:
        slots, count = self.grid.slots(period_ns)
        folded = []
        for each in slots:
            asked = (name, operation, each)
            if asked not in self._folds:
                self._folds[asked] = Fold(each, values, operation, neutral)
            folded.append(self._folds[asked].over(count))
        if len(slots) == 1:
            return folded[0]
        result = np.empty((len(self.block), len(self.grid.at), *values.shape[1:]))
        for each, part in zip(slots, folded, strict=True):
            result[:, each.chosen] = part
        return result

    def mean(self, period_ns: int) -> Floats:
        """Window means, kept between the smallest and largest value that they average.

        Rounding must not lift the mean of a constant above a threshold that equals it.
        """
        windows = self.grid.windows(period_ns)
        total = self.fold(np.add, 0.0, period_ns)
        if windows.longest <= 1:
            return windows.known(total)
        mean = total / windows.divisor
        np.maximum(mean, self.fold(np.minimum, np.inf, period_ns), out=mean)
        np.minimum(mean, self.fold(np.maximum, -np.inf, period_ns), out=mean)
        return windows.known(mean)

    def deviation(self, period_ns: int) -> Floats:
        """Population standard deviation of each window."""
        windows = self.grid.windows(period_ns)
        mean = self._folded("centred", self._centred, np.add, 0.0, period_ns) / windows.divisor
        squares = self._folded("squares", self._squares, np.add, 0.0, period_ns)
        variance = squares / windows.divisor
        variance -= mean * mean
        highest = self.fold(np.maximum, -np.inf, period_ns)
        lowest = self.fold(np.minimum, np.inf, period_ns)
        # Of equal values rounding leaves a little.
        variance[(highest == lowest) | (variance < 0)] = 0.0
        return windows.known(np.sqrt(variance, out=variance))

    @cached_property
    def _centred(self) -> Floats:
        """Values around the mean of their series, so that their squares stay small."""
        numbers, first = self._amounts, self.block.first
        means = np.add.reduceat(numbers, first[:-1]) / np.diff(first)
        return numbers - np.repeat(means, np.diff(first))

    @cached_property
    def _squares(self) -> Floats:
        return self._centred * self._centred

    @cached_property
    def _amounts(self) -> Floats:
        """What adds up when points are merged: numbers, or the moments of distributions."""
        block = self.block
        if block.values is not None:
            return block.values
        assert block.distributions is not None
        return moments(block.distributions)

    @cached_property
    def _running(self) -> Floats:
        """Total growth of DELTA or CUMULATIVE series up to each point, restarts bridged.

        A counter restarted when its start time moved or, start time unchanged, when it fell; it
        then grew by its whole new value.
        """
        amounts, first = self._amounts, self.block.first
        if self.block.kind is MetricKind.DELTA:
            return _added_up(amounts, self.block, range(len(self.block)))
        if amounts.ndim == 1:
            fell = amounts[1:] < amounts[:-1]
        else:
            # Sums of observations may fall without a restart; counts may not.
            fell = (amounts[1:, 0] < amounts[:-1, 0]) | (amounts[1:, 3:] < amounts[:-1, 3:]).any(
                axis=1
            )
        places = np.flatnonzero(inside(fell, first)) + 1
        moved = self._spans.moved
        if not len(moved) and not len(places):
            return amounts
        places = np.union1d(places, moved)
        lost = np.zeros_like(amounts)
        lost[places] = amounts[places - 1]
        rows = np.unique(np.searchsorted(first, places, side="right") - 1)
        return amounts + _added_up(lost, self.block, rows.tolist())

    @cached_property
    def _spans(self) -> Spans:
        return self.grid.spans(self.block)

    @cached_property
    def _totals(self) -> Floats:
        """Total growth up to each evaluation."""
        return self._total_at(self.grid.at)

    def _total_at(self, times: Ints) -> Floats:
        """Total growth up to each time: linear inside intervals, flat between them."""
        running, edge = self._running, self._spans.edge(self.grid, times)
        total: Floats = running.take(edge.index, axis=0)
        if len(edge.row):
            grown = self._grown[edge.index[edge.row, edge.column]]
            total[edge.row, edge.column] -= grown * _beside(edge.missing, running)
        return total

    @cached_property
    def _grown(self) -> Floats:
        """How much the series grew in the interval of each point."""
        if self.block.kind is MetricKind.DELTA and self._amounts.ndim == 1:
            return self._amounts
        grown = self._running.copy()
        grown[1:] -= self._running[:-1]
        heads = self.block.first[:-1]
        grown[heads] = self._running[heads]
        return grown

    def growth(self, period_ns: int) -> tuple[Floats, Bools]:
        """Growth inside each window, and whether any interval reaches into it."""
        back, times = self.grid.back(period_ns), self.grid.at
        growth = self._totals.copy()
        growth[:, :back] -= self._total_at(times[:back] - period_ns)
        growth[:, back:] -= self._totals[:, : len(times) - back]
        return growth, self._spans.reached(self.grid, period_ns)


def _added_up(amounts: Floats, block: Block, rows: Sequence[int] | range) -> Floats:
    """Running totals of some series of a block, each by itself; nothing in the others."""
    if len(block) == 1:
        return np.cumsum(amounts, axis=0)
    added = np.zeros_like(amounts)
    for row in rows:
        part = block.points(row)
        np.cumsum(amounts[part], axis=0, out=added[part])
    return added


def _beside(rows: NDArray[Any], table: Floats) -> NDArray[Any]:
    """One value a row, shaped so that it applies to every column of a table."""
    return rows if table.ndim == 1 else rows[:, None]


def _interpolated(reading: Reading, period_ns: int) -> Floats:
    """Values between the neighbours of t; at the live edge the newest point of the window."""
    grid, values = reading.grid, reading.block.values
    assert values is not None
    older, newer, share = grid.lines
    line = values[older]
    with np.errstate(invalid="ignore"):
        # On a point nothing is calculated, for it may be infinite.
        np.add(line, (values[newer] - line) * share, out=line, where=share > 0)
    known = (grid.after > grid.first[:-1, None]) & (
        (grid.after <= grid.last) | (grid.end[older] > grid.at - period_ns)
    )
    return line if known.all() else np.where(known, line, np.nan)


def _percent_change(reading: Reading, period_ns: int) -> Floats:
    block, at = reading.block, reading.grid.at
    assert block.values is not None
    kept = block.values >= 0
    positive = replace(
        block,
        first=np.append(0, np.cumsum(kept))[block.first],
        start_ns=block.start_ns[kept],
        end_ns=block.end_ns[kept],
        values=block.values[kept],
    )
    current, previous = (
        Reading(positive, Grid(positive.end_ns, positive.first, times, reach_ns=SMOOTHING_NS)).mean(
            SMOOTHING_NS
        )
        for times in (at, at - period_ns)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (current - previous) / previous * 100.0
    return np.where((current == 0) & (previous == 0), 0.0, change)


def align(
    series: Series, *, aligner: Aligner, period_ns: int, at_ns: Ints
) -> Floats | Distributions:
    """One value per time; NaN (a NaN count) where the window holds nothing.

    Raises InvalidArgument in Google's words when the aligner does not fit the series.
    """
    aligned_type(aligner, series.kind, series.value_type)
    if not len(series):
        return np.full(len(at_ns), np.nan)
    block = Block.of([series])
    grid = Grid(block.end_ns, block.first, at_ns, reach_ns=period_ns)
    values = Reading(block, grid).columns(aligner, period_ns).values
    return values if isinstance(values, Distributions) else values[0]


def _aligned(reading: Reading, aligner: Aligner, period_ns: int) -> Floats | Distributions:
    if aligner in (Aligner.ALIGN_DELTA, Aligner.ALIGN_RATE):
        return _align_growth(reading, aligner, period_ns)
    if aligner is Aligner.ALIGN_INTERPOLATE:
        return _interpolated(reading, period_ns)
    if aligner is Aligner.ALIGN_PERCENT_CHANGE:
        return _percent_change(reading, period_ns)
    if aligner is Aligner.ALIGN_MEAN:
        return reading.mean(period_ns)
    if aligner is Aligner.ALIGN_STDDEV:
        return reading.deviation(period_ns)
    windows = reading.grid.windows(period_ns)
    values = reading.block.values
    if values is None:
        return _align_distributions(reading, aligner, period_ns)
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        result = values[windows.newest]
    elif aligner is Aligner.ALIGN_MIN:
        result = reading.fold(np.minimum, np.inf, period_ns)
    elif aligner is Aligner.ALIGN_MAX:
        result = reading.fold(np.maximum, -np.inf, period_ns)
    elif aligner is Aligner.ALIGN_COUNT:
        result = windows.count.astype(np.float64)
    else:
        # A true bool is 1, so that counting the true ones is adding up.
        result = reading.fold(np.add, 0.0, period_ns)
        if aligner is Aligner.ALIGN_COUNT_FALSE:
            result = windows.count - result
        elif aligner is Aligner.ALIGN_FRACTION_TRUE:
            result = result / windows.divisor
    return windows.known(result)


def _align_growth(reading: Reading, aligner: Aligner, period_ns: int) -> Floats | Distributions:
    growth, reached = reading.growth(period_ns)
    if reading.block.distributions is not None:
        rows = growth.reshape(reached.size, -1)
        return of_moments(reading.block.distributions.buckets, rows, reached.ravel())
    if aligner is Aligner.ALIGN_RATE:
        growth /= period_ns / NS_PER_SECOND
    if not reached.all():
        growth[~reached] = np.nan
    return growth


def _align_distributions(
    reading: Reading, aligner: Aligner, period_ns: int
) -> Floats | Distributions:
    windows, column = reading.grid.windows(period_ns), reading.block.distributions
    assert column is not None
    some = windows.some.ravel()
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        return of_moments(column.buckets, moments(column.take(windows.newest.ravel())), some)
    rows = reading.fold(np.add, 0.0, period_ns).reshape(len(some), -1)
    merged = of_moments(column.buckets, rows, some)
    if aligner in PERCENTILES:
        return percentile(merged, PERCENTILES[aligner]).reshape(len(reading.block), -1)
    return merged
