"""Aggregation: series are aligned, then reduced across series within groups, step after step.

What each reducer accepts and returns is in facts §1 (google.monitoring.v3.Aggregation). Series
are aligned one at a time and added to their group, so a month of a thousand series needs the
memory of its groups only; percentiles of numbers need all members at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

import numpy as np

from speakfit.engine.align import (
    SMOOTHING_NS,
    Aligner,
    Column,
    Grids,
    Reading,
    aligned_type,
    moments,
    of_moments,
    percentile_of_counts,
)
from speakfit.engine.filters import Comparison, parse_filter
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
    spread,
    union,
)
from speakfit.engine.wire import parse_duration, parse_enum, parse_list, parse_object, to_ns
from speakfit.errors import InvalidArgument

MIN_PERIOD = timedelta(seconds=60)
MAX_ALERT_PERIOD = timedelta(hours=25)
RAW_WINDOW = timedelta(seconds=60)
"""Without an aligner, how old the newest point may be and still count (assumed)."""
_MOMENTS = 3
"""Columns of moments() that come before the buckets."""
_SORTED_AT_ONCE = 2_048


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


_EVERY_LABEL = re.compile(
    r"(?P<of>metric|resource)\.labels?\.\*|metadata\.(?P<metadata>system|user)_labels?\.\*"
)


def parse_group_by(text: str, *, field: str) -> tuple[str, ...]:
    """A group-by field as a canonical path; InvalidArgument when it is not one.

    `resource.label.*` names every label there is; its path ends in `*`.
    """
    every = _EVERY_LABEL.fullmatch(text)
    if every is not None:
        if every["of"]:
            return (every["of"], "labels", "*")
        return ("metadata", f"{every['metadata']}_labels", "*")
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
    aggregations: Sequence[Aggregation],
    kind: MetricKind,
    value_type: ValueType,
    *,
    field: str = "aggregations",
) -> tuple[MetricKind, ValueType]:
    """Kind and type after all steps; InvalidArgument in Google's words when one does not fit.

    Google names the field alike wherever an aggregation stands (GitHub issues
    exposure-notifications#659 for policies, google-api-go-client#294 for reading), so the error's
    `where` says which one below `field` it was.
    """
    for index, step in enumerate(aggregations):
        try:
            kind, value_type = aligned_type(step.aligner, kind, value_type)
        except InvalidArgument as error:
            raise InvalidArgument.of_field(
                "aggregation.perSeriesAligner",
                step.aligner,
                error.what,
                where=f"{field}[{index}].per_series_aligner",
            ) from error
        try:
            kind, value_type = reduced_type(step.reducer, kind, value_type)
        except InvalidArgument as error:
            raise InvalidArgument.of_field(
                "aggregation.crossSeriesReducer",
                step.reducer,
                error.what,
                where=f"{field}[{index}].cross_series_reducer",
            ) from error
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
        if path[2] == "*":
            kept.setdefault(path[:2], {}).update(source)
        elif path[2] in source:
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
    """Adds members up as they come; only percentiles and deviations of numbers keep them."""

    key: SeriesKey
    reducer: Reducer
    kind: MetricKind
    value_type: ValueType
    length: int
    always: int = 0
    """Members that have a value everywhere; `count` counts the others."""
    count: Floats | None = None
    total: Floats | None = None
    members: list[Floats] = field(default_factory=list)
    buckets: Buckets | None = None
    added: Floats | None = None
    """Merged distributions: bucket counts for percentiles, all moments otherwise."""

    def add(self, column: Column) -> None:
        missing = column.missing
        if missing is None:
            self.always += 1
        elif self.count is None:
            self.count = (~missing).astype(np.float64)
        else:
            self.count += ~missing
        values = column.values
        if isinstance(values, Distributions):
            if self.reducer is not Reducer.REDUCE_COUNT:
                self._add_distributions(values, missing)
        elif self.reducer in PERCENTILES or self.reducer is Reducer.REDUCE_STDDEV:
            self.members.append(values)
        elif self.reducer in (Reducer.REDUCE_MIN, Reducer.REDUCE_MAX):
            if self.total is None:
                self.total = values.copy()
            else:
                pick = np.fmin if self.reducer is Reducer.REDUCE_MIN else np.fmax
                pick(self.total, values, out=self.total)
        elif self.total is None:
            self.total = values.copy() if missing is None else np.where(missing, 0.0, values)
        else:
            np.add(self.total, values, out=self.total, where=_there(missing))

    def _add_distributions(self, values: Distributions, missing: Bools | None) -> None:
        layout = values.buckets if self.buckets is None else union((self.buckets, values.buckets))
        spreading = values.over(layout)
        only_counts = self.reducer in PERCENTILES
        table = spreading.counts if only_counts else moments(spreading)
        if self.added is None or self.buckets is None:
            self.added = table.copy() if missing is None else np.where(missing[:, None], 0.0, table)
        else:
            if layout != self.buckets:
                outside = 0 if only_counts else _MOMENTS
                self.added = np.concatenate(
                    (
                        self.added[:, :outside],
                        spread(self.added[:, outside:], self.buckets, layout),
                    ),
                    axis=1,
                )
            there = True if missing is None else ~missing[:, None]
            np.add(self.added, table, out=self.added, where=there)
        self.buckets = layout

    @property
    def _counted(self) -> Floats:
        counted = np.full(self.length, float(self.always))
        return counted if self.count is None else counted + self.count

    def result(self) -> Floats | Distributions:
        count = self._counted
        some = count > 0
        if self.reducer is Reducer.REDUCE_COUNT:
            return np.where(some, count, np.nan)
        if self.added is not None:
            return self._of_histogram(self.added, some)
        if self.members:
            return self._of_members()
        assert self.total is not None
        if self.reducer in (Reducer.REDUCE_MEAN, Reducer.REDUCE_FRACTION_TRUE):
            mean: Floats = np.divide(
                self.total, count, out=np.full(self.length, np.nan), where=some
            )
            return mean
        if self.reducer is Reducer.REDUCE_COUNT_FALSE:
            return np.where(some, count - self.total, np.nan)
        return np.where(some, self.total, np.nan)

    def _of_histogram(self, added: Floats, some: Bools) -> Floats | Distributions:
        assert self.buckets is not None
        if self.reducer in PERCENTILES:
            return percentile_of_counts(added, self.buckets, PERCENTILES[self.reducer])
        column = of_moments(self.buckets, added, some)
        if self.reducer is Reducer.REDUCE_MEAN:
            return np.where(column.count > 0, column.mean, np.nan)
        if self.reducer is Reducer.REDUCE_STDDEV:
            variance: Floats = np.divide(
                column.ssd, column.count, out=np.full(len(column), np.nan), where=column.count > 0
            )
            deviation: Floats = np.sqrt(variance)
            return deviation
        return column

    def _of_members(self) -> Floats:
        """Piece by piece, so that sorting needs little more memory than the members."""
        result = np.full(self.length, np.nan)
        for first in range(0, self.length, _SORTED_AT_ONCE):
            part = slice(first, first + _SORTED_AT_ONCE)
            matrix = np.column_stack([member[part] for member in self.members])
            some = ~np.isnan(matrix).all(axis=1)
            if some.any():
                result[part][some] = (
                    np.nanstd(matrix[some], axis=1)
                    if self.reducer is Reducer.REDUCE_STDDEV
                    else _quantile(matrix[some], PERCENTILES[self.reducer] / 100.0)
                )
        return result


def _there(missing: Bools | None) -> Bools | bool:
    return True if missing is None else ~missing


def _quantile(matrix: Floats, share: float) -> Floats:
    """A quantile of each row, linear between the two nearest values; NaN is no value."""
    ordered = np.sort(matrix, axis=1)
    last = (~np.isnan(matrix)).sum(axis=1) - 1
    place = last * share
    low = np.floor(place).astype(np.int64)
    rows = np.arange(len(ordered))
    below, above = ordered[rows, low], ordered[rows, np.minimum(low + 1, last)]
    with np.errstate(invalid="ignore"):
        between: Floats = below + (above - below) * (place - low)
    # Between two equal infinities there is no difference to take a part of.
    return np.where(below == above, below, between)


class Stream:
    """Aggregates series as they come: what is complete is given out, the rest at the end."""

    def __init__(self, aggregations: Sequence[Aggregation], at_ns: Ints) -> None:
        """No aggregation at all means the newest point of each series."""
        self._steps = tuple(aggregations) or (Aggregation(),)
        self._at = at_ns
        self._kept: list[Series] = []
        self._groups: dict[SeriesKey, _Group] = {}

    def add(self, reading: Reading) -> Column | None:
        """The column of this series, if nothing else can become part of it.

        Raises InvalidArgument in Google's words when a step does not fit.
        """
        if len(self._steps) > 1:
            self._kept.append(reading.series)
            return None
        (step,) = self._steps
        column = reading.column(step.aligner, step.period_ns)
        if step.reducer is Reducer.REDUCE_NONE:
            return column
        kind, value_type = reduced_type(step.reducer, column.kind, column.value_type)
        key = group_key(column.key, step.group_by)
        if key not in self._groups:
            self._groups[key] = _Group(
                key=key,
                reducer=step.reducer,
                kind=kind,
                value_type=value_type,
                length=len(self._at),
            )
        self._groups[key].add(column)
        return None

    def rest(self) -> Iterator[Column]:
        """The columns that were waiting for the last series."""
        if len(self._steps) > 1:
            yield from _in_steps(self._kept, self._steps, self._at)
        for group in self._groups.values():
            yield Column(
                key=group.key, kind=group.kind, value_type=group.value_type, values=group.result()
            )


def columns(
    series: Iterable[Series], aggregations: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Column]:
    """Aggregate series at the given times, one resulting series after the other.

    Without reduction each series is yielded before the next is aligned. Raises InvalidArgument
    in Google's words when a step does not fit.
    """
    stream, grids = Stream(aggregations, at_ns), Grids(at_ns)
    for one in series:
        if not len(one):
            continue
        column = stream.add(Reading(one, grids.of(one.end_ns)))
        if column is not None:
            yield column
    yield from stream.rest()


def _in_steps(
    series: Sequence[Series], steps: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Column]:
    """Later steps align what earlier ones put at the ends of their periods.

    An evaluation at t sees the points of the step before at t, t - period, t - 2 periods, ...;
    times that share this grid are computed together.
    """
    *before, last = steps
    inner_ns = before[-1].period_ns
    length = last.period_ns
    if last.aligner is Aligner.ALIGN_PERCENT_CHANGE:
        length += SMOOTHING_NS
    reach = -(-length // inner_ns)
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
