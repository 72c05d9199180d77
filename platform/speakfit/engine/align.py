"""Alignment: one series becomes one value per evaluation time, over the window (t - period, t].

What each aligner accepts and returns is the table of facts §1 (google.monitoring.v3.Aggregation).
Windows slide with the evaluation time (alerts/concepts-indepth), so a five-minute period
evaluated each minute looks at five minutes each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from speakfit.engine.points import (
    Bools,
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    ValueType,
)
from speakfit.errors import InvalidArgument

NS_PER_SECOND = 1_000_000_000
_SMOOTHING_NS = 600 * NS_PER_SECOND
"""ALIGN_PERCENT_CHANGE first takes a ten-minute moving mean."""
_SHORT_WINDOW = 8
"""Up to this many points a window is folded point by point, which numpy does faster."""


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
    counts = column.counts
    bounds = np.array(column.buckets.bounds)
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


def of_moments(like: Distributions, added: Floats, present: Bools) -> Distributions:
    """Distributions from added-up columns; rows that are not present get a NaN count."""
    count = np.where(present, added[:, 0], np.nan)
    some = present & (added[:, 0] > 0)
    mean = np.divide(added[:, 1], added[:, 0], out=np.zeros(len(added)), where=some)
    ssd = np.maximum(added[:, 2] - added[:, 1] * mean, 0.0)
    return Distributions(
        buckets=like.buckets,
        count=count,
        mean=mean,
        ssd=np.where(some, ssd, 0.0),
        counts=np.where(present[:, None], added[:, 3:], 0.0),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Increments:
    """What a DELTA or CUMULATIVE series added, and over which intervals, without overlap."""

    begin: Ints
    end: Ints
    amounts: Floats

    @cached_property
    def running(self) -> Floats:
        """Total growth up to the end of each interval."""
        return np.cumsum(self.amounts, axis=0)


def _increments(series: Series) -> _Increments:
    """Growth between points; a counter that restarts grew by its whole new value.

    It restarted when its start time moved or, start time unchanged, when it fell. The growth of
    the first point, and of the first after a restart, belongs to the time since the start.
    """
    columns = series.values if series.values is not None else moments(series.histograms)
    start, end = series.start_ns, series.end_ns
    previous = np.concatenate((start[:1], end[:-1]))
    if series.kind is MetricKind.DELTA:
        begin, amounts = np.maximum(start, previous), columns
    else:
        moved = np.concatenate(([True], start[1:] != start[:-1]))
        if columns.ndim == 1:
            fell = np.concatenate(([False], columns[1:] < columns[:-1]))
        else:
            # Sums of observations may fall without a restart; counts may not.
            watched = np.column_stack((columns[:, 0], columns[:, 3:]))
            fell = np.concatenate(([False], (watched[1:] < watched[:-1]).any(axis=1)))
        anew = moved | fell
        older = np.concatenate((np.zeros_like(columns[:1]), columns[:-1]))
        amounts = columns - np.where(anew if columns.ndim == 1 else anew[:, None], 0.0, older)
        begin = np.where(moved, np.maximum(start, previous), previous)
    # An interval of no length would make the growth a step that belongs to two windows.
    return _Increments(begin=np.minimum(begin, end - 1), end=end, amounts=amounts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """For each time, the points `low` to `high` (exclusive) that end in (t - period, t].

    Series that were written together share their windows, which are dear to find.
    """

    end: Ints
    at: Ints
    period_ns: int
    low: Ints
    high: Ints

    @cached_property
    def opening(self) -> Ints:
        """The first point at or after the beginning of each window, or the last of all."""
        found = np.searchsorted(self.end, self.at - self.period_ns, side="left")
        return np.minimum(found, len(self.end) - 1)

    @cached_property
    def closing(self) -> Ints:
        """The first point at or after the end of each window, or the last of all."""
        return np.minimum(np.searchsorted(self.end, self.at, side="left"), len(self.end) - 1)

    @cached_property
    def count(self) -> Ints:
        """Points in each window."""
        return self.high - self.low

    @cached_property
    def some(self) -> Bools:
        """Whether a window holds any point."""
        return self.count > 0

    @cached_property
    def longest(self) -> int:
        """Points of the fullest window."""
        return int(self.count.max(initial=0))

    @cached_property
    def places(self) -> list[Ints]:
        """Where the first, second, ... point of each window is; one past the end if nowhere."""
        return [
            np.where(self.low + step < self.high, self.low + step, len(self.end))
            for step in range(self.longest)
        ]

    @cached_property
    def newest(self) -> Ints:
        """Where the last point of each window is; any place for an empty one."""
        return np.maximum(self.high - 1, 0)


def find_windows(end: Ints, period_ns: int, at: Ints) -> Windows:
    """The windows of a series whose points end at `end`."""
    return Windows(
        end=end,
        at=at,
        period_ns=period_ns,
        low=np.searchsorted(end, at - period_ns, side="right").astype(np.int64),
        high=np.searchsorted(end, at, side="right").astype(np.int64),
    )


def _grown(increments: _Increments, index: Ints, at: Ints) -> Floats:
    """Total growth up to each time: linear inside intervals, flat between them.

    `index` is the interval that ends at or after each time.
    """
    amounts, running = increments.amounts, increments.running
    grown = running[index]
    # A window that ends on a point gets that point exactly; the others are interpolated.
    between = np.flatnonzero(increments.end[index] != at)
    if len(between):
        inside, times = index[between], at[between]
        begin, end = increments.begin[inside], increments.end[inside]
        share = np.clip((times - begin) / (end - begin), 0.0, 1.0)
        missing = (1.0 - share) if amounts.ndim == 1 else (1.0 - share)[:, None]
        grown[between] -= amounts[inside] * missing
    return grown


def _growth(series: Series, period_ns: int, at: Ints, windows: Windows) -> tuple[Floats, Bools]:
    """Growth inside each window, and whether any interval reaches into it."""
    increments = _increments(series)
    first = windows.low
    known = first < len(increments.end)
    present = known & (increments.begin[np.where(known, first, 0)] < at)
    closing = _grown(increments, windows.closing, at)
    return closing - _grown(increments, windows.opening, at - period_ns), present


def _fold(values: Floats, windows: Windows, operation: np.ufunc, neutral: float) -> Floats:
    """Fold the points of each window; empty windows give the neutral element."""
    padded = np.append(values, neutral)
    if windows.longest == 0:
        return np.full(len(windows.low), neutral)
    if windows.longest <= _SHORT_WINDOW:
        result = padded[windows.places[0]]
        for place in windows.places[1:]:
            operation(result, padded[place], out=result)
        return result
    pairs = np.column_stack((windows.low, windows.high)).ravel()
    folded = operation.reduceat(padded, pairs)[::2]
    return np.where(windows.some, folded, neutral)


def _sum(values: Floats, windows: Windows) -> Floats:
    return _fold(values, windows, np.add, 0.0)


def _mean(values: Floats, windows: Windows) -> Floats:
    """Window means, kept between the smallest and largest value that they average.

    Rounding must not lift the mean of a constant above a threshold that equals it.
    """
    if windows.longest <= 1:
        return _fold(values, windows, np.add, np.nan)
    count = windows.count
    total = _sum(values, windows)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    smallest = _fold(values, windows, np.minimum, np.inf)
    largest = _fold(values, windows, np.maximum, -np.inf)
    return np.where(count > 0, np.clip(mean, smallest, np.maximum(largest, smallest)), np.nan)


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
    current = _mean(values, find_windows(end, _SMOOTHING_NS, at))
    previous = _mean(values, find_windows(end, _SMOOTHING_NS, at - period_ns))
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (current - previous) / previous * 100.0
    return np.where((current == 0) & (previous == 0), 0.0, change)


def align(
    series: Series,
    *,
    aligner: Aligner,
    period_ns: int,
    at_ns: Ints,
    windows: Windows | None = None,
) -> Floats | Distributions:
    """One value per time; NaN (a NaN count) where the window holds nothing.

    `windows` may be given when they were found for a series with the same end times.
    Raises InvalidArgument in Google's words when the aligner does not fit the series.
    """
    aligned_type(aligner, series.kind, series.value_type)
    if not len(series):
        return np.full(len(at_ns), np.nan)
    if windows is None:
        windows = find_windows(series.end_ns, period_ns, at_ns)
    if aligner is Aligner.ALIGN_DELTA:
        growth, present = _growth(series, period_ns, at_ns, windows)
        if series.distributions is not None:
            return of_moments(series.distributions, growth, present)
        return np.where(present, growth, np.nan)
    if aligner is Aligner.ALIGN_RATE:
        growth, present = _growth(series, period_ns, at_ns, windows)
        return np.where(present, growth / (period_ns / NS_PER_SECOND), np.nan)
    if aligner is Aligner.ALIGN_INTERPOLATE:
        return _interpolated(series, period_ns, at_ns)
    if aligner is Aligner.ALIGN_PERCENT_CHANGE:
        return _percent_change(series, period_ns, at_ns)
    some = windows.some
    if series.distributions is not None:
        return _align_distributions(series.distributions, aligner, windows)
    values = series.numbers
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        return np.where(some, values[windows.newest], np.nan)
    if aligner is Aligner.ALIGN_MIN:
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
    return result if bool(some.all()) else np.where(some, result, np.nan)


def _align_distributions(
    column: Distributions, aligner: Aligner, windows: Windows
) -> Floats | Distributions:
    some = windows.some
    if aligner in (Aligner.ALIGN_NONE, Aligner.ALIGN_NEXT_OLDER):
        newest = column.take(windows.newest)
        return of_moments(newest, moments(newest), some)
    columns = moments(column)
    running = np.concatenate((np.zeros((1, columns.shape[1])), np.cumsum(columns, axis=0)))
    merged = of_moments(column, running[windows.high] - running[windows.low], some)
    if aligner in PERCENTILES:
        return percentile(merged, PERCENTILES[aligner])
    return merged
