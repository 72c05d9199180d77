"""Aggregation: series are aligned, then reduced across series within groups, step after step.

What each reducer accepts and returns is in facts §1 (google.monitoring.v3.Aggregation). Series
are aligned one at a time and added to their group, so a month of a thousand series needs the
memory of its groups only; percentiles of numbers need all members at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

import numpy as np

from speakfit.engine.align import (
    Aligner,
    Windows,
    align,
    aligned_type,
    find_windows,
    moments,
    of_moments,
    percentile,
)
from speakfit.engine.filters import Comparison, parse_filter
from speakfit.engine.points import (
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
    union,
)
from speakfit.engine.wire import parse_duration, parse_enum, parse_list, parse_object, to_ns
from speakfit.errors import InvalidArgument

MIN_PERIOD = timedelta(seconds=60)
MAX_ALERT_PERIOD = timedelta(hours=25)
RAW_WINDOW = timedelta(seconds=60)
"""Without an aligner, how old the newest point may be and still count (assumed)."""


class Reducer(StrEnum):
    """google.monitoring.v3.Aggregation.Reducer."""

    REDUCE_NONE = "REDUCE_NONE"
    REDUCE_MEAN = "REDUCE_MEAN"
    REDUCE_MIN = "REDUCE_MIN"
    REDUCE_MAX = "REDUCE_MAX"
    REDUCE_SUM = "REDUCE_SUM"
    REDUCE_STDDEV = "REDUCE_STDDEV"
    REDUCE_COUNT = "REDUCE_COUNT"
    REDUCE_COUNT_TRUE = "REDUCE_COUNT_TRUE"
    REDUCE_COUNT_FALSE = "REDUCE_COUNT_FALSE"
    REDUCE_FRACTION_TRUE = "REDUCE_FRACTION_TRUE"
    REDUCE_PERCENTILE_99 = "REDUCE_PERCENTILE_99"
    REDUCE_PERCENTILE_95 = "REDUCE_PERCENTILE_95"
    REDUCE_PERCENTILE_50 = "REDUCE_PERCENTILE_50"
    REDUCE_PERCENTILE_05 = "REDUCE_PERCENTILE_05"


PERCENTILES = {
    Reducer.REDUCE_PERCENTILE_99: 99.0,
    Reducer.REDUCE_PERCENTILE_95: 95.0,
    Reducer.REDUCE_PERCENTILE_50: 50.0,
    Reducer.REDUCE_PERCENTILE_05: 5.0,
}
_NUMBERS = frozenset({ValueType.INT64, ValueType.DOUBLE})
_BOOL = frozenset({ValueType.BOOL})
_HISTOGRAM = frozenset({ValueType.DISTRIBUTION})
_REDUCES: dict[Reducer, tuple[frozenset[ValueType], ValueType | None]] = {
    Reducer.REDUCE_NONE: (frozenset(ValueType), None),
    Reducer.REDUCE_MEAN: (_NUMBERS | _HISTOGRAM, ValueType.DOUBLE),
    Reducer.REDUCE_MIN: (_NUMBERS, None),
    Reducer.REDUCE_MAX: (_NUMBERS, None),
    Reducer.REDUCE_SUM: (_NUMBERS | _HISTOGRAM, None),
    Reducer.REDUCE_STDDEV: (_NUMBERS | _HISTOGRAM, ValueType.DOUBLE),
    Reducer.REDUCE_COUNT: (frozenset(ValueType), ValueType.INT64),
    Reducer.REDUCE_COUNT_TRUE: (_BOOL, ValueType.INT64),
    Reducer.REDUCE_COUNT_FALSE: (_BOOL, ValueType.INT64),
    Reducer.REDUCE_FRACTION_TRUE: (_BOOL, ValueType.DOUBLE),
    **dict.fromkeys(PERCENTILES, (_NUMBERS | _HISTOGRAM, ValueType.DOUBLE)),
}


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """One step: align every series, then reduce the series of each group to one."""

    alignment_period: timedelta = RAW_WINDOW
    aligner: Aligner = Aligner.ALIGN_NONE
    reducer: Reducer = Reducer.REDUCE_NONE
    group_by: tuple[tuple[str, ...], ...] = ()
    """Canonical selector paths, such as ("metric", "labels", "route")."""

    @property
    def period_ns(self) -> int:
        """Length of the window in nanoseconds."""
        return to_ns(self.alignment_period)


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One aggregated series: a value per evaluation time, NaN where there is none."""

    key: SeriesKey
    kind: MetricKind
    value_type: ValueType
    values: Floats | Distributions

    @property
    def numbers(self) -> Floats:
        """The values as numbers; of a distribution its mean, which is what thresholds see."""
        if isinstance(self.values, Distributions):
            return np.where(self.values.count > 0, self.values.mean, np.nan)
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Aggregated series at the same times; numbers as a matrix, or distributions by row."""

    keys: tuple[SeriesKey, ...]
    at_ns: Ints
    kind: MetricKind
    value_type: ValueType
    values: Floats | None = None
    """Shape (series, times); NaN where there is no point."""
    distributions: tuple[Distributions, ...] | None = None
    """One column a series; a NaN count where there is no point."""


def parse_group_by(text: str, *, field: str) -> tuple[str, ...]:
    """A group-by field as a canonical path; InvalidArgument when it is not one."""
    try:
        expression = parse_filter(f'{text} = ""', field=field).expression
    except InvalidArgument:
        expression = None
    if not isinstance(expression, Comparison):
        raise InvalidArgument.of_field(field, text, "The field is not valid for grouping.")
    return expression.path


def parse_aggregation(
    mapping: Mapping[str, Any], *, field: str, alerting: bool = True
) -> Aggregation:
    """Read an Aggregation in REST JSON form; InvalidArgument names the field that is wrong."""
    mapping = parse_object(
        mapping,
        field=field,
        known={"alignmentPeriod", "perSeriesAligner", "crossSeriesReducer", "groupByFields"},
    )
    aligner = parse_enum(
        Aligner, mapping.get("perSeriesAligner"), field=f"{field}.per_series_aligner"
    )
    reducer = parse_enum(
        Reducer, mapping.get("crossSeriesReducer"), field=f"{field}.cross_series_reducer"
    )
    period_text = mapping.get("alignmentPeriod")
    period_field = f"{field}.alignment_period"
    if reducer is not Reducer.REDUCE_NONE and aligner is Aligner.ALIGN_NONE:
        raise InvalidArgument.of_field(
            f"{field}.per_series_aligner",
            aligner,
            "A per series aligner must be specified when a cross series reducer is specified.",
        )
    if aligner is Aligner.ALIGN_NONE:
        period = RAW_WINDOW
    else:
        if period_text is None:
            raise InvalidArgument.of_field(
                period_field, "", "An alignment period is required with a per series aligner."
            )
        period = parse_duration(period_text, field=period_field)
        if period < MIN_PERIOD:
            raise InvalidArgument.of_field(
                period_field, period_text, "The alignment period must be at least 60 seconds."
            )
        if alerting and period > MAX_ALERT_PERIOD:
            raise InvalidArgument.of_field(
                period_field, period_text, "The alignment period must be at most 25 hours."
            )
    fields = parse_list(mapping.get("groupByFields"), field=f"{field}.group_by_fields")
    return Aggregation(
        alignment_period=period,
        aligner=aligner,
        reducer=reducer,
        group_by=tuple(
            dict.fromkeys(
                parse_group_by(str(text), field=f"{field}.group_by_fields[{index}]")
                for index, text in enumerate(fields)
            )
        )
        if reducer is not Reducer.REDUCE_NONE
        else (),
    )


def reduced_type(
    reducer: Reducer, kind: MetricKind, value_type: ValueType
) -> tuple[MetricKind, ValueType]:
    """Kind and type after reduction; InvalidArgument when the reducer does not fit."""
    types, result = _REDUCES[reducer]
    if reducer is Reducer.REDUCE_NONE:
        return kind, value_type
    if kind is MetricKind.CUMULATIVE or value_type not in types:
        raise InvalidArgument(
            f"The reducer cannot be applied to metrics with kind {kind} and value type "
            f"{value_type}."
        )
    keeps = reducer in (Reducer.REDUCE_SUM, Reducer.REDUCE_MIN, Reducer.REDUCE_MAX)
    return kind if keeps else MetricKind.GAUGE, result or value_type


def aggregated_type(
    aggregations: Sequence[Aggregation], kind: MetricKind, value_type: ValueType
) -> tuple[MetricKind, ValueType]:
    """Kind and type after all steps; InvalidArgument in Google's words when one does not fit."""
    for step in aggregations:
        kind, value_type = aligned_type(step.aligner, kind, value_type)
        kind, value_type = reduced_type(step.reducer, kind, value_type)
    return kind, value_type


def group_key(key: SeriesKey, group_by: Sequence[tuple[str, ...]]) -> SeriesKey:
    """What is left of a key after reduction: metric, resource type and the grouped labels."""
    kept: dict[tuple[str, ...], dict[str, str]] = {}
    for path in group_by:
        if len(path) != 3:
            # resource.type and metric.type are always kept; project is the same for all.
            continue
        source = {
            ("metric", "labels"): key.metric,
            ("resource", "labels"): key.resource,
            ("metadata", "system_labels"): key.system,
            ("metadata", "user_labels"): key.user,
        }[path[:2]]
        if path[2] in source:
            kept.setdefault(path[:2], {})[path[2]] = source[path[2]]
    return SeriesKey.of(
        metric_type=key.metric_type,
        metric_labels=kept.get(("metric", "labels")),
        resource_type=key.resource_type,
        resource_labels=kept.get(("resource", "labels")),
        system_labels=kept.get(("metadata", "system_labels")),
        user_labels=kept.get(("metadata", "user_labels")),
    )


@dataclass(kw_only=True, eq=False)
class _Group:
    """Adds aligned members up as they come; only percentiles of numbers keep them."""

    key: SeriesKey
    reducer: Reducer
    kind: MetricKind
    value_type: ValueType
    count: Floats | None = None
    total: Floats | None = None
    squares: Floats | None = None
    members: list[Floats] = field(default_factory=list)
    histogram: Distributions | None = None

    def add(self, values: Floats | Distributions) -> None:
        if isinstance(values, Distributions):
            self._add_distributions(values)
            return
        some = ~np.isnan(values)
        if self.reducer in PERCENTILES or self.reducer is Reducer.REDUCE_STDDEV:
            self.members.append(values)
            return
        filled = np.where(some, values, 0.0)
        if self.count is None or self.total is None:
            self.count = some.astype(np.float64)
            self.total = values if self._extreme else filled
            return
        self.count = self.count + some
        if self.reducer is Reducer.REDUCE_MIN:
            self.total = np.fmin(self.total, values)
        elif self.reducer is Reducer.REDUCE_MAX:
            self.total = np.fmax(self.total, values)
        else:
            self.total = self.total + filled

    @property
    def _extreme(self) -> bool:
        return self.reducer in (Reducer.REDUCE_MIN, Reducer.REDUCE_MAX)

    def _add_distributions(self, values: Distributions) -> None:
        some = ~np.isnan(values.count)
        self.count = some.astype(np.float64) if self.count is None else self.count + some
        if self.reducer is Reducer.REDUCE_COUNT:
            return
        if self.histogram is None:
            self.histogram = values
            return
        layout = union((self.histogram.buckets, values.buckets))
        left, right = self.histogram.over(layout), values.over(layout)
        present = some | ~np.isnan(left.count)
        merged = np.nan_to_num(moments(left)) + np.nan_to_num(moments(right))
        self.histogram = of_moments(left, merged, present)

    def result(self) -> Floats | Distributions:
        if self.reducer is Reducer.REDUCE_COUNT:
            assert self.count is not None
            return np.where(self.count > 0, self.count, np.nan)
        if self.histogram is not None:
            return self._of_histogram(self.histogram)
        if self.members:
            return self._of_members(np.stack(self.members))
        assert self.count is not None
        assert self.total is not None
        some = self.count > 0
        if self.reducer in (Reducer.REDUCE_MEAN, Reducer.REDUCE_FRACTION_TRUE):
            mean: Floats = np.divide(
                self.total, self.count, out=np.full(len(some), np.nan), where=some
            )
            return mean
        if self.reducer is Reducer.REDUCE_COUNT_FALSE:
            return np.where(some, self.count - self.total, np.nan)
        return np.where(some, self.total, np.nan)

    def _of_histogram(self, column: Distributions) -> Floats | Distributions:
        if self.reducer in PERCENTILES:
            return percentile(column, PERCENTILES[self.reducer])
        if self.reducer is Reducer.REDUCE_MEAN:
            return np.where(column.count > 0, column.mean, np.nan)
        if self.reducer is Reducer.REDUCE_STDDEV:
            variance: Floats = np.divide(
                column.ssd, column.count, out=np.full(len(column), np.nan), where=column.count > 0
            )
            deviation: Floats = np.sqrt(variance)
            return deviation
        return column

    def _of_members(self, matrix: Floats) -> Floats:
        some = ~np.isnan(matrix).all(axis=0)
        result = np.full(matrix.shape[1], np.nan)
        if some.any():
            known = matrix[:, some]
            result[some] = (
                np.nanstd(known, axis=0)
                if self.reducer is Reducer.REDUCE_STDDEV
                else np.nanpercentile(known, PERCENTILES[self.reducer], axis=0)
            )
        return result


def columns(
    series: Sequence[Series], aggregations: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Column]:
    """Aggregate series at the given times, one resulting series after the other.

    Without reduction each series is yielded before the next is aligned. Raises InvalidArgument
    in Google's words when a step does not fit.
    """
    steps = tuple(aggregations) or (Aggregation(),)
    if len(steps) > 1:
        yield from _in_steps(series, steps, at_ns)
        return
    step = steps[0]
    groups: dict[SeriesKey, _Group] = {}
    windows: Windows | None = None
    for one in series:
        if not len(one):
            continue
        kind, value_type = aligned_type(step.aligner, one.kind, one.value_type)
        if windows is None or not np.array_equal(windows.end, one.end_ns):
            windows = find_windows(one.end_ns, step.period_ns, at_ns)
        values = align(
            one, aligner=step.aligner, period_ns=step.period_ns, at_ns=at_ns, windows=windows
        )
        if step.reducer is Reducer.REDUCE_NONE:
            yield Column(key=one.key, kind=kind, value_type=value_type, values=values)
            continue
        kind, value_type = reduced_type(step.reducer, kind, value_type)
        key = group_key(one.key, step.group_by)
        if key not in groups:
            groups[key] = _Group(key=key, reducer=step.reducer, kind=kind, value_type=value_type)
        groups[key].add(values)
    for group in groups.values():
        yield Column(
            key=group.key, kind=group.kind, value_type=group.value_type, values=group.result()
        )


def _in_steps(
    series: Sequence[Series], steps: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Column]:
    """Later steps align what earlier ones put at the ends of their periods.

    An evaluation at t sees the points of the step before at t, t - period, t - 2 periods, ...;
    times that share this grid are computed together.
    """
    *before, last = steps
    inner_ns = before[-1].period_ns
    reach = -(-last.period_ns // inner_ns)
    gathered: dict[SeriesKey, Column] = {}
    for phase in np.unique(at_ns % inner_ns):
        chosen = np.flatnonzero(at_ns % inner_ns == phase)
        times = at_ns[chosen]
        grid = np.unique(times[:, None] - np.arange(reach)[None, :] * inner_ns)
        points = [
            inner
            for column in columns(series, before, grid)
            if len(inner := _as_series(column, grid, inner_ns))
        ]
        for column in columns(points, (last,), times):
            target = gathered.get(column.key)
            if target is None:
                target = replace(column, values=_blank(column.values, len(at_ns)))
                gathered[column.key] = target
            _put(target.values, chosen, column.values)
    yield from gathered.values()


def _as_series(column: Column, at_ns: Ints, period_ns: int) -> Series:
    values = column.values
    numbers = values.count if isinstance(values, Distributions) else values
    some = ~np.isnan(numbers)
    end = at_ns[some]
    start = end if column.kind is MetricKind.GAUGE else end - period_ns
    return Series(
        key=column.key,
        kind=column.kind,
        value_type=column.value_type,
        start_ns=start,
        end_ns=end,
        values=None if isinstance(values, Distributions) else values[some],
        distributions=values.take(some) if isinstance(values, Distributions) else None,
    )


def _blank(like: Floats | Distributions, length: int) -> Floats | Distributions:
    empty = np.full(length, np.nan)
    if not isinstance(like, Distributions):
        return empty
    return Distributions(
        buckets=like.buckets,
        count=empty,
        mean=np.zeros(length),
        ssd=np.zeros(length),
        counts=np.zeros((length, len(like.buckets))),
    )


def _put(target: Floats | Distributions, rows: Ints, values: Floats | Distributions) -> None:
    if isinstance(target, Distributions) and isinstance(values, Distributions):
        target.count[rows] = values.count
        target.mean[rows] = values.mean
        target.ssd[rows] = values.ssd
        target.counts[rows] = values.over(target.buckets).counts
    elif not isinstance(target, Distributions) and not isinstance(values, Distributions):
        target[rows] = values


def aggregate(series: Sequence[Series], aggregations: Sequence[Aggregation], at_ns: Ints) -> Table:
    """All aggregated series as one table, in the order of their keys.

    Without series the table is empty and says GAUGE DOUBLE. Raises InvalidArgument like columns.
    """
    times = np.asarray(at_ns, dtype=np.int64)
    found = sorted(columns(series, aggregations, times), key=lambda column: column.key)
    kind = found[0].kind if found else MetricKind.GAUGE
    value_type = found[0].value_type if found else ValueType.DOUBLE
    keys = tuple(column.key for column in found)
    rows = [column.values for column in found]
    histograms = tuple(row for row in rows if isinstance(row, Distributions))
    if histograms:
        return Table(
            keys=keys, at_ns=times, kind=kind, value_type=value_type, distributions=histograms
        )
    numbers = [row for row in rows if not isinstance(row, Distributions)]
    return Table(
        keys=keys,
        at_ns=times,
        kind=kind,
        value_type=value_type,
        values=np.stack(numbers) if numbers else np.zeros((0, len(times))),
    )
