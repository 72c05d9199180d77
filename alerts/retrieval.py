"""Reads history from Cloud Monitoring: whole series through ListTimeSeries, nothing aggregated.

Whole, because a plan may change filter, alignment or grouping: what is compared must be made from
the same points. The interval is read in days, the newest first, and each day in pages, so that no
answer is large and progress is known.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from alerts.encode import Json
from alerts.entrant import either, entrants, lead_of, selections
from alerts.gateway import Gateway
from alerts.history import History, Progress, Selection, no_progress, read_history
from speakfit.clock import Clock
from speakfit.engine.points import (
    Buckets,
    Distributions,
    Ints,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
    spread,
    union,
)
from speakfit.engine.policies import DescriptorLookup
from speakfit.engine.wire import to_ns
from speakfit.errors import HistoryError
from speakfit.target import policy_clock, policy_now_ns

_PIECE = timedelta(days=1)
_PAGE = 100_000
"""Points an answer may hold at most (ListTimeSeries)."""
_SECOND = 1_000_000_000
_NUMBERS = set(ValueType) - {ValueType.STRING}


def open_history(
    file: Path | None,
    gateway: Gateway | None,
    policies: Sequence[Json],
    *,
    declared: DescriptorLookup,
    since: timedelta,
    on_progress: Progress = no_progress,
) -> History:
    """The history of a file when one is named, else of the target, `since` until now.

    Raises HistoryError when the file is another project's than the target.
    """
    if file is None:
        assert gateway is not None
        return retrieve(gateway, policies, declared=declared, since=since, on_progress=on_progress)
    history = read_history(file, on_progress=on_progress)
    if gateway is not None:
        require_project(history, gateway.target.project)
    return history


def require_project(history: History, project: str) -> None:
    """A HistoryError when a history is of another project."""
    if history.project != project:
        raise HistoryError(
            f"The history is of project {history.project}, not of {project}.",
            where=f"recorded from {history.source}",
            todo=f"Name a history of {project}, or --project {history.project}.",
        )


def retrieve(
    gateway: Gateway,
    policies: Sequence[Json],
    *,
    declared: DescriptorLookup,
    since: timedelta,
    only: str = "",
    on_progress: Progress = no_progress,
) -> History:
    """What policies in REST form read: `since` until now, and before it what windows need.

    `declared` knows the metrics that nobody has written yet; `only` is a filter that narrows the
    series further, for example to those of one release. Times are policy time. Series are
    read when they are asked for; TargetError when the server does not answer or refuses.
    """
    clock = policy_clock(gateway.target)
    end_ns = policy_now_ns(gateway.target)
    wanted = selections(policies)
    metric_types = {one.metric_type for one in wanted}
    descriptors = {
        body["type"]: body
        for body in (gateway.descriptors(metric_types) if metric_types else ())
        # The engine has no use for texts and money: what reads them is told as not readable.
        if body.get("valueType") in _NUMBERS and body.get("metricKind") in set(MetricKind)
    }
    history = History(
        project=gateway.target.project,
        source=str(gateway.target),
        start_ns=0,
        end_ns=end_ns,
        selections=wanted,
        descriptors=descriptors,
        series=(),
    )
    lead = lead_of(entrants(policies, descriptors=either(history.descriptor, declared)))
    start_ns = max(1, end_ns - to_ns(since) - to_ns(lead))
    return replace(
        history,
        start_ns=start_ns,
        series=_series(
            gateway,
            [one for one in wanted if one.metric_type in descriptors],
            _pieces(start_ns, end_ns),
            clock,
            on_progress,
            only,
        ),
    )


def series_keys(
    gateway: Gateway, metric_types: Iterable[str], *, since: timedelta
) -> Iterator[SeriesKey]:
    """The series of some metrics that had a point `since` until now, without their points."""
    clock = policy_clock(gateway.target)
    end_ns = policy_now_ns(gateway.target)
    interval = {
        "start_time": _stamp(clock.to_real_ns(max(1, end_ns - to_ns(since)))),
        "end_time": _stamp(clock.to_real_ns(end_ns)),
    }
    for metric_type in metric_types:
        for series in gateway.series(
            filter=f'metric.type = "{metric_type}"',
            interval=interval,
            view="HEADERS",
            page_size=_PAGE,
        ):
            yield _key(series)


def _series(
    gateway: Gateway,
    wanted: Sequence[Selection],
    pieces: Sequence[tuple[int, int]],
    clock: Clock,
    on_progress: Progress,
    only: str,
) -> Iterator[Series]:
    for done, selection in enumerate(wanted):
        columns: dict[SeriesKey, _Growing] = {}
        for number, (after_ns, until_ns) in enumerate(pieces):
            for series in gateway.series(
                filter=f"{selection.filter} AND {only}" if only else selection.filter,
                interval={
                    "start_time": _stamp(clock.to_real_ns(after_ns)),
                    "end_time": _stamp(clock.to_real_ns(until_ns)),
                },
                page_size=_PAGE,
            ):
                key = _key(series)
                if key not in columns:
                    columns[key] = _Growing.of(key, series)
                columns[key].add(series.points)
            on_progress((done + (number + 1) / len(pieces)) / len(wanted))
        for key in sorted(columns):
            yield columns[key].series(clock)


def _pieces(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Days between two times, the newest first."""
    piece = to_ns(_PIECE)
    ends = range(end_ns, start_ns, -piece)
    return [(max(start_ns, end - piece), end) for end in ends]


def _stamp(ns: int) -> Any:
    from google.protobuf import timestamp_pb2

    return timestamp_pb2.Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND)


def _key(series: Any) -> SeriesKey:
    return SeriesKey.of(
        metric_type=series.metric.type,
        metric_labels=series.metric.labels,
        resource_type=series.resource.type,
        resource_labels=series.resource.labels,
        system_labels=dict(series.metadata.system_labels.items()),
        user_labels=series.metadata.user_labels,
    )


def _policy_time(real_ns: Ints, clock: Clock) -> Ints:
    if clock.scale == 1:
        return real_ns
    return np.array([clock.to_policy_ns(at) for at in real_ns.tolist()], dtype=np.int64)


_Value = tuple[bytes, float, float, float, tuple[int, ...]]
"""Layout, count, mean, squared deviation and bucket counts of one distribution."""


@dataclass(eq=False)
class _Growing:
    """The points of one series as they come, in whatever order."""

    key: SeriesKey
    kind: MetricKind
    value_type: ValueType
    start: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    values: list[_Value] = field(default_factory=list)
    """Of distributions."""
    layouts: dict[bytes, Buckets] = field(default_factory=dict)

    @classmethod
    def of(cls, key: SeriesKey, header: Any) -> _Growing:
        """For a series without points yet; `header` is its message."""
        from google.api import metric_pb2

        descriptor = metric_pb2.MetricDescriptor
        return cls(
            key=key,
            kind=MetricKind(descriptor.MetricKind.Name(header.metric_kind)),
            value_type=ValueType(descriptor.ValueType.Name(header.value_type)),
        )

    def add(self, points: Any) -> None:
        """More points, as protobuf messages."""
        member = f"{self.value_type.value.lower()}_value"
        spread_out = self.value_type is ValueType.DISTRIBUTION
        for point in points:
            interval = point.interval
            self.end.append(interval.end_time.seconds * _SECOND + interval.end_time.nanos)
            self.start.append(interval.start_time.seconds * _SECOND + interval.start_time.nanos)
            value = getattr(point.value, member)
            if spread_out:
                self.values.append(self._distribution(value))
            else:
                self.numbers.append(value)

    def _distribution(self, value: Any) -> _Value:
        from google.protobuf import json_format

        # Nearly all points of a series share one layout: each is read once.
        layout = value.bucket_options.SerializeToString(deterministic=True)
        if layout not in self.layouts:
            self.layouts[layout] = Buckets.from_rest(
                json_format.MessageToDict(value.bucket_options)
            )
        moments = (value.count, value.mean, value.sum_of_squared_deviation)
        return (layout, *moments, tuple(value.bucket_counts))

    def series(self, clock: Clock) -> Series:
        """All points in columns, oldest first, each end time once."""
        end, order = np.unique(np.array(self.end), return_index=True)
        start_ns = None
        if self.kind is not MetricKind.GAUGE:
            start_ns = _policy_time(np.array(self.start)[order], clock)
        if self.value_type is ValueType.DISTRIBUTION:
            return Series.of_distributions(
                key=self.key,
                kind=self.kind,
                start_ns=start_ns,
                end_ns=_policy_time(end, clock),
                values=self._column([self.values[at] for at in order]),
            )
        return Series.of_numbers(
            key=self.key,
            kind=self.kind,
            value_type=self.value_type,
            start_ns=start_ns,
            end_ns=_policy_time(end, clock),
            values=np.array(self.numbers)[order],
        )

    def _column(self, values: list[_Value]) -> Distributions:
        wide = union(self.layouts.values())
        counts = np.zeros((len(values), len(wide)))
        for layout, buckets in self.layouts.items():
            rows = [row for row, value in enumerate(values) if value[0] == layout]
            own = np.zeros((len(rows), len(buckets)))
            for place, row in enumerate(rows):
                own[place, : len(values[row][4])] = values[row][4]
            counts[rows] = spread(own, buckets, wide)
        moments = np.array([value[1:4] for value in values], dtype=np.float64)
        return Distributions(
            buckets=wide,
            count=moments[:, 0],
            mean=moments[:, 1],
            ssd=moments[:, 2],
            counts=counts,
        )
