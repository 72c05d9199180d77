"""Alignment: one series becomes one value per evaluation time, over the window (t - period, t].

What each aligner accepts and returns is the table of facts §1 (google.monitoring.v3.Aggregation).
Windows slide with the evaluation time (alerts/concepts-indepth), so a five-minute period
evaluated each minute looks at five minutes each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from speakfit.engine.points import (
    Bools,
    Buckets,
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.errors import InvalidArgument

NS_PER_SECOND = 1_000_000_000
SMOOTHING_NS = 600 * NS_PER_SECOND
"""ALIGN_PERCENT_CHANGE first takes a ten-minute moving mean."""
_EVEN = 64
"""So many windows that move on evenly are worth slices of their own."""
_MOST_STRETCHES = 64
_KEPT_GRIDS = 4


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """Windows whose next `size` points begin at `places`; slices where places follow evenly."""

    size: int
    rows: slice | Ints
    places: slice | Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """For each time, the points `low` to `high` (exclusive) that end in (t - period, t].

    Series that were written together share their windows, which are dear to find.
    """

    at: Ints
    period_ns: int
    low: Ints
    high: Ints

    @cached_property
    def count(self) -> Ints:
        """Points in each window."""
        return self.high - self.low

    @cached_property
    def some(self) -> Bools:
        """Whether a window holds any point."""
        return self.count > 0

    @cached_property
    def full(self) -> bool:
        """Whether every window holds a point."""
        return bool(self.some.all())

    @cached_property
    def longest(self) -> int:
        """Points of the fullest window."""
        return int(self.count.max(initial=0))

    @cached_property
    def pieces(self) -> tuple[_Piece, ...]:
        """Every window cut into stretches of 1, 2, 4, ... points, the shortest first.

        The cut depends on nothing but the number of points in the window, so that rounding is the
        same however many windows are folded at once.
        """
        found: list[_Piece] = []
        rest = np.ones(len(self.low), dtype=np.bool_)
        for first, last, stride in self._even_stretches():
            rest[first : last + 1] = False
            place, count, size = int(self.low[first]), int(self.count[first]), 1
            while size <= count:
                if count & size:
                    found.append(
                        _Piece(
                            size=size,
                            rows=slice(first, last + 1),
                            places=slice(place, place + (last - first) * stride + 1, stride),
                        )
                    )
                    place += size
                size *= 2
        rows = np.flatnonzero(rest)
        counts, places, size = self.count[rows], self.low[rows], 1
        while len(rows) and size <= self.longest:
            chosen = np.flatnonzero(counts & size)
            if len(chosen):
                found.append(_Piece(size=size, rows=rows[chosen], places=places[chosen]))
                places[chosen] += size
            size *= 2
        return tuple(sorted(found, key=lambda piece: piece.size))

    def _even_stretches(self) -> list[tuple[int, int, int]]:
        """First and last of windows that hold equally many points, and how far each moves on."""
        if len(self.low) < _EVEN:
            return []
        moves = np.diff(self.low)
        stride = int(np.median(moves))
        if stride < 1:
            return []
        even = (moves == stride) & (np.diff(self.count) == 0)
        changes = np.flatnonzero(np.diff(even, prepend=False, append=False))
        long = [
            (int(first), int(last), stride)
            for first, last in zip(changes[0::2], changes[1::2], strict=True)
            if last - first >= _EVEN
        ]
        return long if len(long) <= _MOST_STRETCHES else []

    @cached_property
    def newest(self) -> Ints:
        """Where the last point of each window is; any place for an empty one."""
        return np.maximum(self.high - 1, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Edge:
    """Beginnings, or ends, of windows: the interval that ends there or later, and what is left.

    `between` are the windows whose edge lies before the end of its interval, `missing` the share
    of that interval which lies beyond the edge.
    """

    index: Ints
    between: Ints
    missing: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spans:
    """The intervals in which a DELTA or CUMULATIVE series grew, without overlap."""

    start: Ints
    end: Ints
    begin: Ints
    moved: Ints
    """Where the start time is not that of the point before; such a counter began anew."""
    edges: dict[tuple[int, bool], _Edge]
    presence: dict[int, Bools]

    def edge(self, grid: Grid, period_ns: int, *, closing: bool) -> _Edge:
        """Where windows begin or end; worked out once for series that share their times."""
        name = (period_ns, closing)
        if name not in self.edges:
            at = grid.at if closing else grid.at - period_ns
            index = grid.edges(period_ns, closing=closing)
            # An edge on a point takes that point exactly; the others are interpolated.
            between = np.flatnonzero(self.end[index] != at)
            inside, times = index[between], at[between]
            begin, end = self.begin[inside], self.end[inside]
            self.edges[name] = _Edge(
                index=index,
                between=between,
                missing=1.0 - np.clip((times - begin) / (end - begin), 0.0, 1.0),
            )
        return self.edges[name]

    def present(self, windows: Windows) -> Bools:
        """Whether any interval reaches into each window."""
        if windows.period_ns not in self.presence:
            known = windows.low < len(self.end)
            begin = self.begin[np.where(known, windows.low, 0)]
            self.presence[windows.period_ns] = known & (begin < windows.at)
        return self.presence[windows.period_ns]


def _find_spans(series: Series) -> _Spans:
    """The growth of a first point, and of one after a restart, belongs to the time since it."""
    start, end = series.start_ns, series.end_ns
    previous = np.concatenate((start[:1], end[:-1]))
    if series.kind is MetricKind.DELTA:
        moved = np.arange(0)
        begin = np.maximum(start, previous)
    else:
        moved = np.flatnonzero(start[1:] != start[:-1]) + 1
        begin = previous
        begin[moved] = np.maximum(start[moved], previous[moved])
    # An interval of no length would make the growth a step that belongs to two windows.
    return _Spans(
        start=start, end=end, begin=np.minimum(begin, end - 1), moved=moved, edges={}, presence={}
    )


class Grid:
    """What depends on the times of points and evaluations alone: series written together share it.

    Windows and intervals are found when they are first asked for.
    """

    def __init__(self, end_ns: Ints, at_ns: Ints) -> None:
        """A grid for series whose points end at `end_ns`."""
        self.end = end_ns
        self.at = at_ns
        self._windows: dict[int, Windows] = {}
        self._spans: dict[MetricKind, _Spans] = {}

    @cached_property
    def _after(self) -> Ints:
        """The first point after each evaluation time, one past the last if there is none."""
        return np.searchsorted(self.end, self.at, side="right").astype(np.int64)

    @cached_property
    def _reached(self) -> Ints:
        """The first point at or after each evaluation time."""
        after = self._after
        exact = (self.end[np.maximum(after - 1, 0)] == self.at) & (after > 0)
        reached: Ints = after - exact
        return reached

    @cached_property
    def _step_ns(self) -> int:
        """Time between evaluations; 0 when they do not come evenly."""
        steps = np.diff(self.at)
        return int(steps[0]) if len(steps) and bool((steps == steps[0]).all()) else 0

    def _earlier(self, found: Ints, period_ns: int, *, side: Literal["left", "right"]) -> Ints:
        """What was `found` for each evaluation time, for the times a period before.

        Those are evaluation times too, but the first, when evaluations come evenly; nothing has
        to be looked for then.
        """
        back, rest = divmod(period_ns, self._step_ns) if self._step_ns else (0, 1)
        if rest or not 0 < back < len(self.at):
            return np.searchsorted(self.end, self.at - period_ns, side=side).astype(np.int64)
        first = np.searchsorted(self.end, self.at[:back] - period_ns, side=side)
        return np.concatenate((first, found[:-back]))

    def edges(self, period_ns: int, *, closing: bool) -> Ints:
        """The first point at or after the end, or beginning, of windows, or the last of all."""
        found = self._reached
        if not closing:
            found = self._earlier(found, period_ns, side="left")
        return np.minimum(found, len(self.end) - 1)

    def fits(self, end_ns: Ints) -> bool:
        """Whether points of another series end at the same times."""
        return self.end is end_ns or (
            len(self.end) == len(end_ns) and bool(np.array_equal(self.end, end_ns))
        )

    def windows(self, period_ns: int) -> Windows:
        """The windows of one alignment period."""
        if period_ns not in self._windows:
            self._windows[period_ns] = Windows(
                at=self.at,
                period_ns=period_ns,
                low=self._earlier(self._after, period_ns, side="right"),
                high=self._after,
            )
        return self._windows[period_ns]

    def spans(self, series: Series) -> _Spans:
        """The intervals of a series of this grid."""
        found = self._spans.get(series.kind)
        if found is None or not (
            found.start is series.start_ns or np.array_equal(found.start, series.start_ns)
        ):
            found = _find_spans(series)
            self._spans[series.kind] = found
        return found


class Grids:
    """The latest few grids, because series of one writer come together or take turns."""

    def __init__(self, at_ns: Ints) -> None:
        """Grids for evaluations at these times."""
        self.at = at_ns
        self._latest: list[Grid] = []

    def of(self, end_ns: Ints) -> Grid:
        """The grid of points that end at these times."""
        for grid in self._latest:
            if grid.fits(end_ns):
                return grid
        grid = Grid(end_ns, self.at)
        self._latest = [grid, *self._latest[: _KEPT_GRIDS - 1]]
        return grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One aggregated series: a value per evaluation time, NaN where there is none.

    Columns are shared between those who ask for the same; nobody writes into one.
    """

    key: SeriesKey
    kind: MetricKind
    value_type: ValueType
    values: Floats | Distributions

    @property
    def numbers(self) -> Floats:
        """The values of a column of numbers; a TypeError for distributions."""
        if isinstance(self.values, Distributions):
            raise TypeError(f"{self.key.metric_type} holds distributions")
        return self.values

    @cached_property
    def _top(self) -> float:
        values = self.values.count if isinstance(self.values, Distributions) else self.values
        return float(values.max()) if len(values) else 0.0

    @cached_property
    def missing(self) -> Bools | None:
        """Where there is no value; None if there is one everywhere."""
        # One NaN makes the largest value NaN, which is much quicker to find out.
        if not np.isnan(self._top):
            return None
        return np.isnan(
            self.values.count if isinstance(self.values, Distributions) else self.values
        )

    @cached_property
    def lowest(self) -> float:
        """The smallest number, NaN without any."""
        return float(self.numbers.min() if self.missing is None else np.fmin.reduce(self.numbers))

    @cached_property
    def highest(self) -> float:
        """The largest number, NaN without any."""
        return self._top if self.missing is None else float(np.fmax.reduce(self.numbers))


class Reading:
    """One series seen at the evaluation times; whatever is asked for is worked out once."""

    def __init__(self, series: Series, grid: Grid) -> None:
        """`grid` is the one of the end times of the series."""
        self.series = series
        self.grid = grid
        self._columns: dict[tuple[Aligner, int], Column] = {}

    def column(self, aligner: Aligner, period_ns: int) -> Column:
        """The series aligned; InvalidArgument in Google's words when the aligner does not fit."""
        name = (aligner, period_ns)
        if name not in self._columns:
            kind, value_type = aligned_type(aligner, self.series.kind, self.series.value_type)
            self._columns[name] = Column(
                key=self.series.key,
                kind=kind,
                value_type=value_type,
                values=align(
                    self.series,
                    aligner=aligner,
                    period_ns=period_ns,
                    at_ns=self.grid.at,
                    reading=self,
                ),
            )
        return self._columns[name]

    @cached_property
    def running(self) -> Floats:
        """Total growth of a DELTA or CUMULATIVE series up to each point, restarts bridged.

        A counter restarted when its start time moved or, start time unchanged, when it fell; it
        then grew by its whole new value.
        """
        series = self.series
        amounts = series.values if series.values is not None else moments(series.histograms)
        if series.kind is MetricKind.DELTA:
            total: Floats = np.cumsum(amounts, axis=0)
            return total
        if amounts.ndim == 1:
            fell = amounts[1:] < amounts[:-1]
        else:
            # Sums of observations may fall without a restart; counts may not.
            fell = (amounts[1:, 0] < amounts[:-1, 0]) | (amounts[1:, 3:] < amounts[:-1, 3:]).any(
                axis=1
            )
        moved = self.grid.spans(series).moved
        if not len(moved) and not fell.any():
            return amounts
        anew = np.zeros(len(amounts), dtype=np.bool_)
        anew[1:] = fell
        anew[moved] = True
        places = np.flatnonzero(anew)
        lost = np.zeros_like(amounts)
        lost[places] = amounts[places - 1]
        return amounts + np.cumsum(lost, axis=0)

    def growth(self, period_ns: int) -> tuple[Floats, Bools]:
        """Growth inside each window, and whether any interval reaches into it."""
        windows, spans = self.grid.windows(period_ns), self.grid.spans(self.series)
        grown = self._grown(spans.edge(self.grid, period_ns, closing=True))
        grown -= self._grown(spans.edge(self.grid, period_ns, closing=False))
        return grown, spans.present(windows)

    def _grown(self, edge: _Edge) -> Floats:
        """Total growth up to each edge: linear inside intervals, flat between them."""
        running = self.running
        grown = running.take(edge.index, axis=0)
        if len(edge.between):
            inside = edge.index[edge.between]
            if self.series.kind is MetricKind.DELTA and self.series.values is not None:
                amounts = self.series.values[inside]
            else:
                amounts = running[inside] - np.where(
                    _beside(inside > 0, running), running[inside - 1], 0.0
                )
            grown[edge.between] -= amounts * _beside(edge.missing, running)
        return grown


def _beside(rows: NDArray[Any], table: Floats) -> NDArray[Any]:
    """One value a row, shaped so that it applies to every column of a table."""
    return rows if table.ndim == 1 else rows[:, None]


def _fold(values: Floats, windows: Windows, operation: np.ufunc, neutral: float) -> Floats:
    """Fold the points of each window; empty windows give the neutral element.

    Neighbouring points are folded to pairs, pairs to fours and so on, and every window takes the
    stretches that it consists of: a long window costs little more than a short one, and unlike
    with prefix sums nothing is subtracted, so an infinite or huge value spoils its windows only.
    """
    result = np.full(len(windows.low), neutral)
    level, size = values, 1
    for piece in windows.pieces:
        while size < piece.size:
            level = operation(level[:-size], level[size:])
            size *= 2
        rows, places = piece.rows, piece.places
        if isinstance(rows, slice) or isinstance(places, slice):
            target = result[rows]
            operation(target, level[places], out=target)
        else:
            folded = level.take(places)
            result[rows] = operation(result.take(rows), folded, out=folded)
    return result


def _sum(values: Floats, windows: Windows) -> Floats:
    return _fold(values, windows, np.add, 0.0)


def _mean(values: Floats, windows: Windows) -> Floats:
    """Window means, kept between the smallest and largest value that they average.

    Rounding must not lift the mean of a constant above a threshold that equals it.
    """
    mean = _sum(values, windows)
    if windows.longest > 1:
        mean /= np.maximum(windows.count, 1)
        np.maximum(mean, _fold(values, windows, np.minimum, np.inf), out=mean)
        np.minimum(mean, _fold(values, windows, np.maximum, -np.inf), out=mean)
    if not windows.full:
        mean[~windows.some] = np.nan
    return mean


def _stddev(values: Floats, windows: Windows) -> Floats:
    """Population standard deviation of each window."""
    count = np.maximum(windows.count, 1)
    centred = values - values.mean() if len(values) else values
    mean = _sum(centred, windows) / count
    variance = _sum(centred * centred, windows) / count - mean * mean
    spread = _fold(values, windows, np.maximum, -np.inf) != _fold(
        values, windows, np.minimum, np.inf
    )
    return np.where(spread, np.sqrt(np.maximum(variance, 0.0)), 0.0)


def _interpolated(series: Series, period_ns: int, at: Ints) -> Floats:
    """Values between the neighbours of t; at the live edge the newest point of the window."""
    end, values = series.end_ns, series.numbers
    base = end[0]
    line = np.interp((at - base).astype(np.float64), (end - base).astype(np.float64), values)
    inside = (at >= end[0]) & (at <= end[-1])
    edge = (at > end[-1]) & (end[-1] > at - period_ns)
    return np.where(inside | edge, line, np.nan)


def _percent_change(series: Series, period_ns: int, at: Ints) -> Floats:
    kept = series.numbers >= 0
    end, values = series.end_ns[kept], series.numbers[kept]
    current = _mean(values, Grid(end, at).windows(SMOOTHING_NS))
    previous = _mean(values, Grid(end, at - period_ns).windows(SMOOTHING_NS))
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (current - previous) / previous * 100.0
    return np.where((current == 0) & (previous == 0), 0.0, change)


def align(
    series: Series,
    *,
    aligner: Aligner,
    period_ns: int,
    at_ns: Ints,
    reading: Reading | None = None,
) -> Floats | Distributions:
    """One value per time; NaN (a NaN count) where the window holds nothing.

    `reading` may be given when the same series is aligned more than once.
    Raises InvalidArgument in Google's words when the aligner does not fit the series.
    """
    aligned_type(aligner, series.kind, series.value_type)
    if not len(series):
        return np.full(len(at_ns), np.nan)
    if reading is None:
        reading = Reading(series, Grid(series.end_ns, at_ns))
    if aligner in (Aligner.ALIGN_DELTA, Aligner.ALIGN_RATE):
        growth, present = reading.growth(period_ns)
        if series.distributions is not None:
            return of_moments(series.distributions.buckets, growth, present)
        if aligner is Aligner.ALIGN_RATE:
            growth /= period_ns / NS_PER_SECOND
        if not present.all():
            growth[~present] = np.nan
        return growth
    if aligner is Aligner.ALIGN_INTERPOLATE:
        return _interpolated(series, period_ns, at_ns)
    if aligner is Aligner.ALIGN_PERCENT_CHANGE:
        return _percent_change(series, period_ns, at_ns)
    windows = reading.grid.windows(period_ns)
    if series.distributions is not None:
        return _align_distributions(series.distributions, aligner, windows)
    values = series.numbers
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        result = values[windows.newest]
    elif aligner is Aligner.ALIGN_MIN:
        result = _fold(values, windows, np.minimum, np.inf)
    elif aligner is Aligner.ALIGN_MAX:
        result = _fold(values, windows, np.maximum, -np.inf)
    elif aligner is Aligner.ALIGN_MEAN:
        result = _mean(values, windows)
    elif aligner is Aligner.ALIGN_STDDEV:
        result = _stddev(values, windows)
    elif aligner is Aligner.ALIGN_COUNT:
        result = windows.count.astype(np.float64)
    elif aligner is Aligner.ALIGN_COUNT_FALSE:
        result = windows.count - _sum(values, windows)
    elif aligner is Aligner.ALIGN_FRACTION_TRUE:
        result = _sum(values, windows) / np.maximum(windows.count, 1)
    else:
        # ALIGN_SUM, and ALIGN_COUNT_TRUE because a true bool is 1.
        result = _sum(values, windows)
    return result if windows.full else np.where(windows.some, result, np.nan)


def _align_distributions(
    column: Distributions, aligner: Aligner, windows: Windows
) -> Floats | Distributions:
    some = windows.some
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        newest = column.take(windows.newest)
        return of_moments(newest.buckets, moments(newest), some)
    columns = moments(column)
    running = np.concatenate((np.zeros((1, columns.shape[1])), np.cumsum(columns, axis=0)))
    merged = of_moments(column.buckets, running[windows.high] - running[windows.low], some)
    if aligner in PERCENTILES:
        return percentile(merged, PERCENTILES[aligner])
    return merged
