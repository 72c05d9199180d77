"""Aggregation: series are aligned, then reduced across series within groups, step after step.

What each reducer accepts and returns is in facts §1 (google.monitoring.v3.Aggregation). Series
are aligned block by block and added to their groups, so a month of a thousand series needs the
memory of its groups only; percentiles of numbers need all members at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np

from speakfit.engine.align import (
    SMOOTHING_NS,
    Aligner,
    Reading,
    aligned_type,
    moments,
    of_moments,
    percentile_of_counts,
)
from speakfit.engine.blocks import CELLS, Block, block_length, blocks
from speakfit.engine.columns import Columns
from speakfit.engine.filters import Comparison, Filter, parse_filter
from speakfit.engine.grids import Grids
from speakfit.engine.groups import Groups, Merging
from speakfit.engine.points import (
    Bools,
    Buckets,
    Distributions,
    Floats,
    Ints,
    Keys,
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


class _Reduction:
    """Adds members up as they come; only percentiles and deviations of numbers keep them."""

    def __init__(
        self, step: Aggregation, length: int, *, kind: MetricKind, value_type: ValueType
    ) -> None:
        """For columns of `length` times; kind and type are those after the reduction."""
        self._reducer = step.reducer
        self._length = length
        self._kind, self._value_type = kind, value_type
        self._groups = Groups(step.group_by)
        smallest = step.reducer is Reducer.REDUCE_MIN
        largest = step.reducer is Reducer.REDUCE_MAX
        self._ranked = smallest or largest
        self._total = (
            Merging(np.fmin if smallest else np.fmax, np.nan)
            if self._ranked
            else Merging(np.add, 0.0)
        )
        self._complete = Merging(np.add, 0.0)
        self._count = Merging(np.add, 0.0)
        self._members: dict[int, list[Floats]] = {}
        self._buckets: Buckets | None = None

    def add(self, columns: Columns) -> None:
        """Some members."""
        groups = self._groups.of(columns.keys)
        missing, values = columns.missing, columns.values
        if missing is None:
            self._complete.add(groups, np.ones((len(columns), 1)))
        else:
            self._count.add(groups, (~missing).astype(np.float64))
        if self._reducer is Reducer.REDUCE_COUNT:
            return
        if isinstance(values, Distributions):
            self._add_distributions(groups, values, missing)
        elif self._reducer in PERCENTILES or self._reducer is Reducer.REDUCE_STDDEV:
            for group, row in zip(groups.tolist(), values, strict=True):
                self._members.setdefault(group, []).append(row)
        elif self._ranked or missing is None:
            self._total.add(groups, values)
        else:
            self._total.add(groups, np.where(missing, 0.0, values))

    def _add_distributions(
        self, groups: Ints, values: Distributions, missing: Bools | None
    ) -> None:
        layout = values.buckets if self._buckets is None else union((self._buckets, values.buckets))
        spreading = values.over(layout)
        table = spreading.counts if self._reducer in PERCENTILES else moments(spreading)
        if missing is not None:
            table = np.where(missing.reshape(-1, 1), 0.0, table)
        if self._buckets is not None and layout != self._buckets and self._total.rows is not None:
            before = self._total.rows
            outside = 0 if self._reducer in PERCENTILES else _MOMENTS
            self._total.rows = np.concatenate(
                (before[..., :outside], spread(before[..., outside:], self._buckets, layout)),
                axis=-1,
            )
        self._buckets = layout
        self._total.add(groups, table.reshape(len(groups), self._length, -1))

    def results(self) -> Iterator[Columns]:
        """The groups, as many at once as fit a block."""
        keys, length = self._groups.keys, max(1, CELLS // self._length)
        for first in range(0, len(keys), length):
            chosen = range(first, min(first + length, len(keys)))
            yield Columns(
                keys=keys if len(chosen) == len(keys) else keys.take(np.array(chosen)),
                kind=self._kind,
                value_type=self._value_type,
                values=self._result(chosen),
            )

    def _result(self, chosen: range) -> Floats | Distributions:
        part = slice(chosen.start, chosen.stop)
        count = np.zeros((len(chosen), self._length))
        for merged in (self._complete, self._count):
            known = merged.of(part)
            count[: len(known)] += known
        some = count > 0
        if self._reducer is Reducer.REDUCE_COUNT:
            return np.where(some, count, np.nan)
        if self._members:
            return np.stack([self._of_members(self._members[group]) for group in chosen])
        assert self._total.rows is not None
        total = self._total.rows[part]
        if self._buckets is not None:
            return self._of_histograms(total, some, self._buckets)
        if self._reducer in (Reducer.REDUCE_MEAN, Reducer.REDUCE_FRACTION_TRUE):
            mean: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=some)
            return mean
        if self._reducer is Reducer.REDUCE_COUNT_FALSE:
            return np.where(some, count - total, np.nan)
        return np.where(some, total, np.nan)

    def _of_histograms(
        self, total: Floats, some: Bools, buckets: Buckets
    ) -> Floats | Distributions:
        rows = total.reshape(some.size, -1)
        if self._reducer in PERCENTILES:
            share = PERCENTILES[self._reducer]
            return percentile_of_counts(rows, buckets, share).reshape(some.shape)
        merged = of_moments(buckets, rows, some.ravel())
        if self._reducer is Reducer.REDUCE_MEAN:
            return np.where(merged.count > 0, merged.mean, np.nan).reshape(some.shape)
        if self._reducer is Reducer.REDUCE_STDDEV:
            variance: Floats = np.divide(
                merged.ssd, merged.count, out=np.full(some.size, np.nan), where=merged.count > 0
            )
            deviation: Floats = np.sqrt(variance).reshape(some.shape)
            return deviation
        return merged

    def _of_members(self, members: Sequence[Floats]) -> Floats:
        """Piece by piece, so that sorting needs little more memory than the members."""
        result = np.full(self._length, np.nan)
        for first in range(0, self._length, _SORTED_AT_ONCE):
            part = slice(first, first + _SORTED_AT_ONCE)
            matrix = np.column_stack([member[part] for member in members])
            some = ~np.isnan(matrix).all(axis=1)
            if some.any():
                result[part][some] = (
                    np.nanstd(matrix[some], axis=1)
                    if self._reducer is Reducer.REDUCE_STDDEV
                    else _quantile(matrix[some], PERCENTILES[self._reducer] / 100.0)
                )
        return result


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The series of a block that pass a filter."""

    keys: Keys
    rows: Ints

    def of(self, block: Block) -> list[Series]:
        """The series themselves."""
        return [block.series[row] for row in self.rows.tolist()]


@lru_cache(maxsize=1_024)
def select(keys: Keys, filter_: Filter, project: str) -> Selection:
    """Which of these series pass a filter; worked out once for the same series."""
    chosen = [filter_.matches(key, project=project) for key in keys.each]
    rows = np.flatnonzero(chosen)
    return Selection(keys=keys if all(chosen) else Keys.of(keys.take(rows).each), rows=rows)


def select_all(block: Block) -> Selection:
    """Every series of a block."""
    return Selection(keys=block.keys, rows=np.arange(len(block)))


class Stream:
    """Aggregates blocks as they come: what is complete is given out, the rest at the end."""

    def __init__(self, aggregations: Sequence[Aggregation], at_ns: Ints) -> None:
        """No aggregation at all means the newest point of each series."""
        self._steps = tuple(aggregations) or (Aggregation(),)
        self._at = at_ns
        self._kept: list[Series] = []
        self._reductions: dict[tuple[MetricKind, ValueType], _Reduction] = {}

    def add(self, reading: Reading, chosen: Selection) -> Columns | None:
        """The columns of these series, if nothing else can become part of them.

        Raises InvalidArgument in Google's words when a step does not fit.
        """
        if len(self._steps) > 1:
            self._kept += chosen.of(reading.block)
            return None
        (step,) = self._steps
        columns = reading.columns(step.aligner, step.period_ns).take(chosen.rows, chosen.keys)
        if step.reducer is Reducer.REDUCE_NONE:
            return columns
        sort = (columns.kind, columns.value_type)
        if sort not in self._reductions:
            kind, value_type = reduced_type(step.reducer, *sort)
            self._reductions[sort] = _Reduction(
                step, len(self._at), kind=kind, value_type=value_type
            )
        self._reductions[sort].add(columns)
        return None

    def rest(self) -> Iterator[Columns]:
        """The columns that were waiting for the last series."""
        if len(self._steps) > 1:
            yield from _in_steps(self._kept, self._steps, self._at)
        for reduction in self._reductions.values():
            yield from reduction.results()


def reach_ns(aggregations: Iterable[Aggregation]) -> int:
    """The longest period of these steps, at least that of no aggregation."""
    return max([to_ns(RAW_WINDOW), *(step.period_ns for step in aggregations)])


def aggregated(
    series: Iterable[Series], aggregations: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Columns]:
    """Aggregate series at the given times, block after block.

    Without reduction a block is given out before the next is aligned. Raises InvalidArgument in
    Google's words when a step does not fit.
    """
    reach = reach_ns(aggregations)
    stream, grids = Stream(aggregations, at_ns), Grids(at_ns, reach)
    for block in blocks(series, block_length(at_ns, reach)):
        columns = stream.add(Reading(block, grids.of(block)), select_all(block))
        if columns is not None:
            yield columns
    yield from stream.rest()


def _in_steps(
    series: Sequence[Series], steps: Sequence[Aggregation], at_ns: Ints
) -> Iterator[Columns]:
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
    gathered: dict[SeriesKey, Floats | Distributions] = {}
    kind, value_type = MetricKind.GAUGE, ValueType.DOUBLE
    for phase in np.unique(at_ns % inner_ns):
        chosen = np.flatnonzero(at_ns % inner_ns == phase)
        times = at_ns[chosen]
        grid = np.unique(times[:, None] - np.arange(reach)[None, :] * inner_ns)
        points = (
            inner
            for columns in aggregated(series, before, grid)
            for inner in _as_series(columns, grid, inner_ns)
        )
        for columns in aggregated(points, (last,), times):
            kind, value_type = columns.kind, columns.value_type
            for key, values in columns.rows():
                if key not in gathered:
                    gathered[key] = _blank(values, len(at_ns))
                _put(gathered[key], chosen, values)
    for keys, together in _side_by_side(gathered):
        yield Columns(keys=keys, kind=kind, value_type=value_type, values=together)


def _side_by_side(
    rows: Mapping[SeriesKey, Floats | Distributions],
) -> Iterator[tuple[Keys, Floats | Distributions]]:
    """Numbers all at once; distributions, whose buckets may differ, one by one."""
    numbers = {key: row for key, row in rows.items() if not isinstance(row, Distributions)}
    if numbers:
        yield Keys.of(tuple(numbers)), np.stack(list(numbers.values()))
    for key, row in rows.items():
        if isinstance(row, Distributions):
            yield Keys.of((key,)), row


def _as_series(columns: Columns, at_ns: Ints, period_ns: int) -> Iterator[Series]:
    for key, values in columns.rows():
        numbers = values.count if isinstance(values, Distributions) else values
        some = ~np.isnan(numbers)
        end = at_ns[some]
        yield Series(
            key=key,
            kind=columns.kind,
            value_type=columns.value_type,
            start_ns=end if columns.kind is MetricKind.GAUGE else end - period_ns,
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

    Without series the table is empty and says GAUGE DOUBLE. Raises InvalidArgument like aggregated.
    """
    times = np.asarray(at_ns, dtype=np.int64)
    found = list(aggregated(series, aggregations, times))
    kind = found[0].kind if found else MetricKind.GAUGE
    value_type = found[0].value_type if found else ValueType.DOUBLE
    rows = sorted((row for columns in found for row in columns.rows()), key=itemgetter(0))
    keys = tuple(key for key, _ in rows)
    histograms = tuple(row for _, row in rows if isinstance(row, Distributions))
    if histograms:
        return Table(
            keys=keys, at_ns=times, kind=kind, value_type=value_type, distributions=histograms
        )
    numbers = [row for _, row in rows if not isinstance(row, Distributions)]
    return Table(
        keys=keys,
        at_ns=times,
        kind=kind,
        value_type=value_type,
        values=np.stack(numbers) if numbers else np.zeros((0, len(times))),
    )
