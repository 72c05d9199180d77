"""Writes series into an emulator as their exporters would: point by point, as time goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from google.api import metric_pb2, monitored_resource_pb2
from google.cloud import monitoring_v3
from google.protobuf import timestamp_pb2

from speakfit.clock import ManualClock
from speakfit.emulator.points import write_distribution
from speakfit.engine.points import MetricKind, Series, ValueType
from speakfit.target import Target, metric_client

_TimeSeries = monitoring_v3.TimeSeries.pb()
_Point = monitoring_v3.Point.pb()
_TypedValue = monitoring_v3.TypedValue.pb()
_Request = monitoring_v3.CreateTimeSeriesRequest.pb()
_SECOND = 10**9


def play(
    series: Sequence[Series],
    clock: ManualClock,
    target: Target,
    *,
    each: Callable[[], object] = lambda: None,
) -> None:
    """Move the clock to every end time and write what ends then; `each` is called afterwards."""
    client = metric_client(target)
    places = [0] * len(series)
    for at_ns in sorted({int(end) for one in series for end in one.end_ns}):
        due = [
            number
            for number, one in enumerate(series)
            if places[number] < len(one) and one.end_ns[places[number]] == at_ns
        ]
        clock.advance(timedelta(microseconds=(at_ns - clock.now_ns()) // 1_000))
        request = _Request(
            name=target.project_name,
            time_series=[_message(series[number], places[number]) for number in due],
        )
        client.create_time_series(request=monitoring_v3.CreateTimeSeriesRequest.wrap(request))
        for number in due:
            places[number] += 1
        each()
    client.transport.close()


def _message(series: Series, place: int) -> Any:
    point = _Point(value=_value(series, place))
    point.interval.end_time.CopyFrom(_stamp(int(series.end_ns[place])))
    if series.kind is not MetricKind.GAUGE:
        point.interval.start_time.CopyFrom(_stamp(int(series.start_ns[place])))
    key = series.key
    return _TimeSeries(
        metric=metric_pb2.Metric(type=key.metric_type, labels=key.metric),
        resource=monitored_resource_pb2.MonitoredResource(
            type=key.resource_type, labels=key.resource
        ),
        metric_kind=metric_pb2.MetricDescriptor.MetricKind.Value(series.kind.value),
        value_type=metric_pb2.MetricDescriptor.ValueType.Value(series.value_type.value),
        points=[point],
    )


def _value(series: Series, place: int) -> Any:
    if series.value_type is ValueType.DISTRIBUTION:
        return _TypedValue(distribution_value=write_distribution(series.histograms.at(place)))
    value = float(series.numbers[place])
    if series.value_type is ValueType.BOOL:
        return _TypedValue(bool_value=value != 0)
    if series.value_type is ValueType.INT64:
        return _TypedValue(int64_value=round(value))
    return _TypedValue(double_value=value)


def _stamp(ns: int) -> Any:
    return timestamp_pb2.Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND)
