"""MetricService: descriptors, writing and reading time series.

Rules and texts come from googleapis `metric_service.proto`, the quota page and recorded answers;
docs/fidelity.md says which are assumed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from google.api import distribution_pb2, label_pb2, metric_pb2, monitored_resource_pb2
from google.cloud import monitoring_v3
from google.protobuf import empty_pb2, json_format, timestamp_pb2
from google.rpc import status_pb2

from speakfit.clock import Clock, from_ns
from speakfit.emulator.answers import NUMBERS, DetailedInvalidArgument
from speakfit.emulator.listing import page
from speakfit.emulator.naming import check_name, project_of
from speakfit.emulator.points import (
    Batch,
    PointStore,
    StoredSeries,
    read_distribution,
    write_distribution,
)
from speakfit.emulator.resources import (
    RESOURCE_TYPES,
    USER_METRIC_RESOURCES,
    ResourceType,
    complete_labels,
    resource_type,
)
from speakfit.emulator.store import Store
from speakfit.emulator.system_metrics import USER_DOMAINS, is_system_metric
from speakfit.engine.align import Aligner
from speakfit.engine.filters import (
    All,
    AnyOf,
    Expression,
    Filter,
    Negation,
    evaluate,
    parse_filter,
)
from speakfit.engine.objectives import parse_selector
from speakfit.engine.points import (
    Descriptor,
    Distribution,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.engine.reduce import (
    Aggregation,
    Reducer,
    aggregate,
    aggregated_type,
    parse_aggregation,
)
from speakfit.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    WireError,
)

_MAX_SERIES = 200
_MAX_LABELS = 30
_MAX_PROMETHEUS_LABELS = 200
_MAX_LABEL_KEY = 100
_MAX_LABEL_VALUE = 1_024
_MAX_BUCKETS = 200
_MAX_PAGE = 100_000
_MAX_CUSTOM_DESCRIPTORS = 10_000
_MAX_OTHER_DESCRIPTORS = 25_000
_CUSTOM, _WORKLOAD, _EXTERNAL, _PROMETHEUS = USER_DOMAINS
_SECOND = 1_000_000_000
_LAST_NS = 2**62

_TYPE = re.compile(r"[a-z0-9][a-z0-9.\-]*\.[a-z0-9.\-]+(/[A-Za-z0-9_.:\-]+)+")
_LABEL_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TimeSeries = monitoring_v3.TimeSeries.pb()
_Point = monitoring_v3.Point.pb()
_TypedValue = monitoring_v3.TypedValue.pb()
_ListTimeSeriesResponse = monitoring_v3.ListTimeSeriesResponse.pb()
_ListMetricDescriptorsResponse = monitoring_v3.ListMetricDescriptorsResponse.pb()
_ListResourceDescriptorsResponse = monitoring_v3.ListMonitoredResourceDescriptorsResponse.pb()
_Summary = monitoring_v3.CreateTimeSeriesSummary.pb()

_KINDS = metric_pb2.MetricDescriptor.MetricKind
_VALUE_TYPES = metric_pb2.MetricDescriptor.ValueType
_View = monitoring_v3.ListTimeSeriesRequest.TimeSeriesView
_COUNTING = frozenset(
    {
        Aligner.ALIGN_COUNT, Aligner.ALIGN_COUNT_TRUE, Aligner.ALIGN_COUNT_FALSE,
        Aligner.ALIGN_FRACTION_TRUE, Reducer.REDUCE_COUNT, Reducer.REDUCE_COUNT_TRUE,
        Reducer.REDUCE_COUNT_FALSE, Reducer.REDUCE_FRACTION_TRUE,
    }
)  # fmt: skip
_WRITTEN = {
    "bool_value": ValueType.BOOL,
    "int64_value": ValueType.INT64,
    "double_value": ValueType.DOUBLE,
    "string_value": ValueType.STRING,
    "distribution_value": ValueType.DISTRIBUTION,
}
_STORABLE = (ValueType.BOOL, ValueType.INT64, ValueType.DOUBLE, ValueType.DISTRIBUTION)

_ORDER = "Points must be written in order. One or more of the points specified had an older {} "
_ORDER += "time than the most recent point."
_SAMPLING = (
    "One or more points were written more frequently than the maximum sampling period configured "
    "for the metric."
)


def _ns(span: timedelta) -> int:
    return (span // timedelta(microseconds=1)) * 1_000


_SAMPLING_NS = _ns(timedelta(seconds=5))
_OLDEST_NS = _ns(timedelta(hours=25))
_BETWEEN_NS = _ns(timedelta(milliseconds=1))
"""How far after the end of the last interval a new one must start (common.proto, TimeInterval)."""
_NEWEST_NS = _ns(timedelta(minutes=5))


def _stamp_ns(stamp: Any) -> int:
    return int(stamp.seconds) * _SECOND + int(stamp.nanos)


def _stamp(ns: int) -> Any:
    return timestamp_pb2.Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND)


def _iso(ns: int) -> str:
    try:
        return str(_stamp(ns).ToJsonString())
    except ValueError:
        # Outside the years 1 to 9999.
        return f"{ns} ns"


def _usable(ns: int) -> bool:
    """Whether an instant fits the 64 bits that times are stored in."""
    return 0 < ns < _LAST_NS


def _slashes(ns: int) -> str:
    return from_ns(ns).strftime("%Y/%m/%d-%H:%M:%S.%f")[:-3]


def _domain(metric_type: str) -> str:
    """The part of a metric type that limits are counted by, with its slash."""
    return metric_type.partition("/")[0] + "/"


def _name_of(names: Any, number: int) -> str:
    """An enum value by name; over gRPC a client may send a number that has none."""
    return str(names.Name(number)) if number in names.values() else str(number)


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as `0-2,5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _braces(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{key}:{labels[key]}" for key in sorted(labels)) + "}"


class _Refused(InvalidArgument):
    """One series cannot be written; `group` is what equal failures share."""

    def __init__(self, text: str, *, group: str) -> None:
        super().__init__(text)
        self.group = group


_Name = tuple[bytes, bytes]
"""Metric and resource as a client serialised them; one series may have several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Identity:
    """A series as written, checked once and remembered."""

    stored: StoredSeries
    kind: MetricKind
    gauge: bool
    kind_number: int
    value_type: ValueType
    field: str
    """The member of TypedValue that its points fill."""


class MetricsService:
    """Descriptors and time series of all projects."""

    def __init__(
        self,
        *,
        store: Store,
        points: PointStore,
        clock: Clock,
        descriptor_delay: timedelta = timedelta(0),
    ) -> None:
        """`descriptor_delay` is how long a new or deleted descriptor takes to be seen as such."""
        self._delay_ns = _ns(descriptor_delay)
        self._hidden: dict[tuple[str, str], int] = {}
        self._ghosts: dict[tuple[str, str], tuple[Any, int]] = {}
        self._store = store
        self._points = points
        self._clock = clock
        self._descriptors: dict[tuple[str, str], Any] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        """How many descriptors a project has below each domain."""
        self._identities: dict[tuple[str, bool], dict[_Name, _Identity]] = {}
        self._load()

    def _load(self) -> None:
        self._descriptors.clear()
        self._counts.clear()
        self._identities.clear()
        for name, body in self._store.documents("metricDescriptors"):
            project, _, metric_type = name.removeprefix("projects/").partition(
                "/metricDescriptors/"
            )
            self._descriptors[project, metric_type] = metric_pb2.MetricDescriptor.FromString(body)
            self._counts[project, _domain(metric_type)] += 1

    # Descriptors

    def _seen(self, project: str, metric_type: str) -> Any:
        """The descriptor that readers see: a new one late, a deleted one for a while longer."""
        place = project, metric_type
        now_ns = self._clock.now_ns()
        if self._hidden.get(place, 0) > now_ns:
            return None
        ghost, until_ns = self._ghosts.get(place, (None, 0))
        return self._descriptors.get(place) or (ghost if until_ns > now_ns else None)

    def descriptor(self, project: str, metric_type: str) -> Descriptor | None:
        """Kind and value type of a metric, None when nobody has declared or written it."""
        found = self._seen(project, metric_type)
        if found is None:
            return None
        return Descriptor(
            kind=MetricKind(_KINDS.Name(found.metric_kind)),
            value_type=ValueType(_VALUE_TYPES.Name(found.value_type)),
        )

    def metric_types(self, project: str) -> list[str]:
        """All metric types of a project, sorted."""
        names = {name for owner, name in (*self._descriptors, *self._ghosts) if owner == project}
        return sorted(name for name in names if self._seen(project, name) is not None)

    def _save(self, project: str, descriptor: Any) -> None:
        self._store.put(
            "metricDescriptors", descriptor.name, descriptor.SerializeToString(deterministic=True)
        )
        if (project, descriptor.type) not in self._descriptors:
            self._counts[project, _domain(descriptor.type)] += 1
        self._descriptors[project, descriptor.type] = descriptor

    def _check_type(self, metric_type: str, *, field: str) -> None:
        if not _TYPE.fullmatch(metric_type) or len(metric_type) > 200:
            raise InvalidArgument.of_field(
                field,
                metric_type,
                "The metric type must be a URL-formatted string with a domain and non-empty path.",
            )
        if not metric_type.startswith(USER_DOMAINS):
            raise InvalidArgument.of_field(
                field,
                metric_type,
                "The metric type must start with one of "
                + ", ".join(f'"{domain}"' for domain in USER_DOMAINS)
                + ".",
            )

    @staticmethod
    def _check_label_keys(keys: Iterable[str], *, field: str) -> None:
        """`{}` in the field's name stands for the position of a label."""
        for index, key in enumerate(keys):
            if not _LABEL_KEY.fullmatch(key):
                raise InvalidArgument.of_field(
                    field.format(index), key, "Label key contains invalid characters."
                )
            if len(key) > _MAX_LABEL_KEY:
                raise InvalidArgument.of_field(
                    field.format(index),
                    key,
                    f"Label key must not exceed {_MAX_LABEL_KEY} characters.",
                )

    @staticmethod
    def _check_label_count(metric_type: str, count: int) -> None:
        prometheus = metric_type.startswith(_PROMETHEUS)
        limit = _MAX_PROMETHEUS_LABELS if prometheus else _MAX_LABELS
        if count > limit:
            raise InvalidArgument(
                f"Field labels had an invalid value: When creating metric {metric_type}: the "
                f"metric has more than {limit} labels."
            )

    @staticmethod
    def _check_combination(field: str, metric_type: str, kind: str, value_type: str) -> None:
        """Kinds and types that no user metric can have together (api/v3/kinds-and-types)."""
        if value_type == ValueType.BOOL and kind != MetricKind.GAUGE:
            raise InvalidArgument.of_field(
                field, kind, "The value type BOOL can be used only if the metric kind is GAUGE."
            )
        if kind == MetricKind.DELTA and metric_type.startswith(_CUSTOM):
            raise InvalidArgument.of_field(
                field, kind, f"DELTA is not permitted for metrics of {_CUSTOM.rstrip('/')}."
            )

    def _declare(
        self,
        project: str,
        *,
        metric_type: str,
        kind: int,
        value_type: int,
        unit: str,
        labels: Sequence[Any],
        description: str = "",
        display_name: str = "",
    ) -> Any:
        """Create a descriptor, or add what is new to the one there is."""
        old = self._descriptors.get((project, metric_type))
        if old is None:
            domain = _domain(metric_type)
            limit = _MAX_CUSTOM_DESCRIPTORS if domain == _CUSTOM else _MAX_OTHER_DESCRIPTORS
            if self._counts[project, domain] >= limit:
                raise ResourceExhausted(
                    "Your metric descriptor quota has been exhausted: Limit for "
                    f"{domain} is {limit}."
                )
        by_key = {label.key: label for label in (old.labels if old is not None else ())}
        # An upsert never removes a label.
        by_key.update({label.key: label for label in labels})
        self._check_label_count(metric_type, len(by_key))
        descriptor = metric_pb2.MetricDescriptor(
            name=f"projects/{project}/metricDescriptors/{metric_type}",
            type=metric_type,
            labels=[by_key[key] for key in sorted(by_key)],
            metric_kind=kind,
            value_type=value_type,
            unit=unit,
            description=description,
            display_name=display_name,
            monitored_resource_types=USER_METRIC_RESOURCES,
        )
        self._save(project, descriptor)
        if old is None and self._delay_ns:
            self._hidden[project, metric_type] = self._clock.now_ns() + self._delay_ns
        return descriptor

    def create_metric_descriptor(self, request: Any) -> Any:
        """Create or extend a descriptor; kind and value type of an existing one are fixed."""
        project = project_of(request.name)
        asked = request.metric_descriptor
        self._check_type(asked.type, field="metric_descriptor.type")
        if asked.metric_kind not in (_KINDS.GAUGE, _KINDS.CUMULATIVE, _KINDS.DELTA):
            raise InvalidArgument.of_field(
                "metric_descriptor.metric_kind",
                _name_of(_KINDS, asked.metric_kind),
                "The metric kind must be GAUGE, DELTA or CUMULATIVE.",
            )
        storable = {_VALUE_TYPES.Value(value_type.value) for value_type in _STORABLE}
        if asked.value_type not in storable:
            raise InvalidArgument.of_field(
                "metric_descriptor.value_type",
                _name_of(_VALUE_TYPES, asked.value_type),
                "The value type must be BOOL, INT64, DOUBLE or DISTRIBUTION.",
            )
        self._check_combination(
            "metric_descriptor.metric_kind",
            asked.type,
            _KINDS.Name(asked.metric_kind),
            _VALUE_TYPES.Name(asked.value_type),
        )
        self._check_label_keys((label.key for label in asked.labels), field="labels[{}].key")
        if not asked.type.startswith(_CUSTOM):
            for index, label in enumerate(asked.labels):
                if label.value_type != label_pb2.LabelDescriptor.STRING:
                    raise InvalidArgument.of_field(
                        f"labels[{index}].valueType",
                        _name_of(label_pb2.LabelDescriptor.ValueType, label.value_type),
                        "Metric labels for this user-defined metric are required to be of type "
                        f"'STRING': {_domain(asked.type).rstrip('/')}",
                    )
        with self._store.lock:
            old = self._descriptors.get((project, asked.type))
            for field, names in (("metric_kind", _KINDS), ("value_type", _VALUE_TYPES)):
                if old is not None and getattr(old, field) != getattr(asked, field):
                    raise InvalidArgument.of_field(
                        f"metric_descriptor.{field}",
                        names.Name(getattr(asked, field)),
                        f"The metric {asked.type} exists with "
                        f"{names.Name(getattr(old, field))}; delete it before changing it.",
                    )
            return self._declare(
                project,
                metric_type=asked.type,
                kind=asked.metric_kind,
                value_type=asked.value_type,
                unit=asked.unit,
                labels=asked.labels,
                description=asked.description,
                display_name=asked.display_name,
            )

    @staticmethod
    def _descriptor_name(name: str) -> tuple[str, str]:
        head, separator, metric_type = name.partition("/metricDescriptors/")
        if not separator or not metric_type:
            raise InvalidArgument.of_field(
                "name", name, 'the name must have the form "projects/ID/metricDescriptors/TYPE".'
            )
        return project_of(head), metric_type

    def get_metric_descriptor(self, request: Any) -> Any:
        """One descriptor, NotFound when there is none."""
        project, metric_type = self._descriptor_name(request.name)
        found = self._seen(project, metric_type)
        if found is None:
            raise NotFound(f"Could not find descriptor for metric '{metric_type}'.")
        return found

    def delete_metric_descriptor(self, request: Any) -> Any:
        """Delete a user-made descriptor and its time series."""
        project, metric_type = self._descriptor_name(request.name)
        with self._store.transaction():
            found = self._descriptors.get((project, metric_type))
            if found is None:
                raise NotFound(f"Could not find descriptor for metric '{metric_type}'.")
            self._store.remove("metricDescriptors", found.name)
            self._points.drop_type(project, metric_type)
            del self._descriptors[project, metric_type]
            self._counts[project, _domain(metric_type)] -= 1
            self._identities.clear()
            self._hidden.pop((project, metric_type), None)
            if self._delay_ns:
                self._ghosts[project, metric_type] = (found, self._clock.now_ns() + self._delay_ns)
        return empty_pb2.Empty()

    def list_metric_descriptors(self, request: Any) -> Any:
        """Descriptors by type; the filter is a monitoring filter on `metric.type`.

        A page size that is not positive is the largest one (metric_service.proto).
        """
        project = project_of(request.name)
        wanted = parse_filter(request.filter) if request.filter.strip() else None
        found = []
        for metric_type in self.metric_types(project):
            key = SeriesKey.of(metric_type=metric_type)
            if wanted is not None and not wanted.matches(key, project=project):
                continue
            descriptor = self._seen(project, metric_type)
            if request.active_only:
                types = self._active_resources(project, metric_type)
                if not types:
                    continue
                descriptor = metric_pb2.MetricDescriptor.FromString(descriptor.SerializeToString())
                descriptor.monitored_resource_types[:] = types
            found.append(descriptor)
        window, token = page(
            len(found),
            size=max(0, request.page_size),
            token=request.page_token,
            limit=10_000,
            about=(
                self._store.identity,
                "metricDescriptors",
                project,
                request.filter,
                str(request.active_only),
            ),
        )
        return _ListMetricDescriptorsResponse(
            metric_descriptors=found[window], next_page_token=token
        )

    def _active_resources(self, project: str, metric_type: str) -> list[str]:
        """The resource types that a metric has had points of within 25 hours."""
        since = self._clock.now_ns() - _OLDEST_NS
        stored = self._points.of_type(project, metric_type)
        return sorted({one.key.resource_type for one in stored if one.last_end_ns >= since})

    def get_monitored_resource_descriptor(self, request: Any) -> Any:
        """One monitored resource type."""
        project = check_name(request.name, "monitoredResourceDescriptors")
        return resource_type(request.name).descriptor(project)

    def list_monitored_resource_descriptors(self, request: Any) -> Any:
        """All monitored resource types; the filter is on their type and labels."""
        project = project_of(request.name)
        found = [RESOURCE_TYPES[name] for name in sorted(RESOURCE_TYPES)]
        if request.filter.strip():
            expression = parse_filter(request.filter, any_selector=True).expression
            found = [one for one in found if _describes(expression, one)]
        window, token = page(
            len(found),
            size=request.page_size,
            token=request.page_token,
            about=(self._store.identity, "resourceDescriptors", project, request.filter),
        )
        return _ListResourceDescriptorsResponse(
            resource_descriptors=[item.descriptor(project) for item in found[window]],
            next_page_token=token,
        )

    # Writing

    def create_time_series(self, request: Any, *, service: bool = False) -> Any:
        """Write one point to each series; the valid ones are written even when others fail.

        `service` is CreateServiceTimeSeries: metrics of Google's services and no others.
        """
        project = project_of(request.name)
        total = len(request.time_series)
        if not total:
            raise InvalidArgument("Request was missing field timeSeries.")
        if total > _MAX_SERIES:
            raise InvalidArgument.of_field(
                "timeSeries", total, f"A request can hold at most {_MAX_SERIES} time series."
            )
        identified = []
        for index, series in enumerate(request.time_series):
            points = series.points
            if len(points) != 1:
                raise InvalidArgument.of_field(
                    f"timeSeries[{index}].points",
                    len(points),
                    "Exactly one point must be written per TimeSeries per request.",
                )
            name = series.metric.SerializeToString(), series.resource.SerializeToString()
            identified.append((name, series, points[0]))
        self._refuse_twins([name for name, _series, _point in identified])
        written, failures = self._write(project, identified, service)
        if failures:
            raise self._partial(request, failures, written=written)
        return empty_pb2.Empty()

    @staticmethod
    def _refuse_twins(names: Sequence[object]) -> None:
        """Refuse a request that names a series twice; the second one is the wrong one."""
        if len(set(names)) < len(names):
            seen: set[object] = set()
            for index, name in enumerate(names):
                if name in seen:
                    raise InvalidArgument(
                        f"Field timeSeries[{index}] had an invalid value: Duplicate TimeSeries "
                        "encountered. Only one point can be written per TimeSeries per request."
                    )
                seen.add(name)

    def _write(
        self, project: str, identified: list[tuple[_Name, Any, Any]], service: bool
    ) -> tuple[int, dict[str, tuple[str, list[int]]]]:
        """Write what is valid; failures by what they share, with a text and their positions."""
        failures: dict[str, tuple[str, list[int]]] = {}
        batch = Batch()
        fresh: dict[_Name, _Identity] = {}
        declared: dict[SeriesKey, StoredSeries] = {}
        with self._store.lock:
            now_ns = self._clock.now_ns()
            known = self._identities.setdefault((project, service), {})
            try:
                with self._store.transaction():
                    for index in self._take_known(known, identified, now_ns, batch):
                        name, series, _point = identified[index]
                        identity = known.get(name)
                        try:
                            found = self._accept(
                                project, index, identity, series, now_ns, batch, declared, service
                            )
                        except _Refused as error:
                            failures.setdefault(error.group, (error.what, []))[1].append(index)
                        except WireError as error:
                            failures.setdefault(error.what, (error.what, []))[1].append(index)
                        else:
                            if found is not identity:
                                fresh[name] = found
                    # One series may be spelt in two ways, with and without its project_id.
                    self._refuse_twins([stored.number for stored in batch.series()])
                    if len(batch):
                        self._points.store(batch)
            except (Unavailable, InvalidArgument):
                # Nothing was written: forget descriptors that exist in memory only.
                self._load()
                raise
            self._points.settle(batch)
            known.update(fresh)
        return len(batch), failures

    def _take_known(
        self,
        known: dict[_Name, _Identity],
        identified: list[tuple[_Name, Any, Any]],
        now_ns: int,
        batch: Batch,
    ) -> list[int]:
        """Accept the next numbers of known series; the positions of what needs a closer look.

        This is the hot loop of the emulator. It accepts nothing that `_accept` would refuse, and
        leaves every refusal to it.
        """
        oldest, newest = now_ns - _OLDEST_NS, now_ns + _NEWEST_NS
        to_policy, isnan = self._clock.to_policy_ns, math.isnan
        integers, doubles = batch.integers, batch.doubles
        left = []
        for index, (name, series, point) in enumerate(identified):
            identity = known.get(name)
            if identity is None:
                left.append(index)
                continue
            typed, interval, stored = point.value, point.interval, identity.stored
            written = typed.WhichOneof("value")
            kind_number = series.metric_kind
            stamp = interval.end_time
            real_end = stamp.seconds * _SECOND + stamp.nanos
            end_ns = start_ns = to_policy(real_end)
            good = (
                written == identity.field
                and (not kind_number or kind_number == identity.kind_number)
                and real_end
                and oldest <= end_ns <= newest
                and end_ns - stored.last_end_ns >= _SAMPLING_NS
            )
            if good and interval.HasField("start_time"):
                stamp = interval.start_time
                real_start = stamp.seconds * _SECOND + stamp.nanos
                if identity.gauge:
                    good = not real_start or real_start == real_end
                else:
                    start_ns = to_policy(real_start)
                    good = (
                        0 < real_start < real_end
                        and 0 < start_ns < _LAST_NS
                        and (
                            start_ns == stored.last_start_ns
                            or start_ns >= stored.last_end_ns + _BETWEEN_NS
                        )
                    )
            elif not identity.gauge:
                good = False
            if good and written == "double_value":
                double = typed.double_value
                if not isnan(double):
                    doubles.append((stored, start_ns, end_ns, double))
                    continue
            elif good and written == "int64_value":
                integers.append((stored, start_ns, end_ns, typed.int64_value))
                continue
            left.append(index)
        return left

    @staticmethod
    def _partial(
        request: Any, failures: dict[str, tuple[str, list[int]]], *, written: int
    ) -> DetailedInvalidArgument:
        texts = []
        errors = []
        for text, indexes in failures.values():
            place = f"timeSeries[{_ranges(indexes)}]"
            if text.startswith("write for resource"):
                metric = request.time_series[indexes[0]].metric
                place += (
                    f' (example metric.type="{metric.type}", '
                    f"metric.labels={_braces(dict(metric.labels))})"
                )
            texts.append(f"{place}: {text}")
            errors.append(
                _Summary.Error(
                    status=status_pb2.Status(code=NUMBERS["INVALID_ARGUMENT"], message=text),
                    point_count=len(indexes),
                )
            )
        return DetailedInvalidArgument(
            "One or more TimeSeries could not be written: " + "; ".join(texts),
            details=(
                _Summary(
                    total_point_count=len(request.time_series),
                    success_point_count=written,
                    errors=errors,
                ),
            ),
        )

    def _accept(
        self,
        project: str,
        index: int,
        identity: _Identity | None,
        series: Any,
        now_ns: int,
        batch: Batch,
        declared: dict[SeriesKey, StoredSeries],
        service: bool,
    ) -> _Identity:
        """Check one series and add its point; the order of the checks is that of a reader.

        `identity` is what the series was when it was written last, `declared` the new series of
        this call.
        """
        field = f"timeSeries[{index}]"
        point = series.points[0]
        written = point.value.WhichOneof("value")
        if written is None:
            raise InvalidArgument(f"Field {field}.points[0].value had an invalid value: not set.")
        value_type = _WRITTEN[written]
        if (
            identity is None
            or identity.value_type is not value_type
            or (series.metric_kind and series.metric_kind != identity.kind_number)
        ):
            identity = None
            key, kind = self._identify(project, index, series, value_type, service)
        else:
            key, kind = identity.stored.key, identity.kind
        start_ns, end_ns = self._interval(field, series.metric.type, kind, point, now_ns)
        value = getattr(point.value, written)
        parsed = None
        if value_type is ValueType.DISTRIBUTION:
            parsed = self._check_distribution(f"{field}.points[0].distributionValue", value)
        elif value_type is ValueType.DOUBLE and math.isnan(value):
            raise InvalidArgument.of_field(f"{field}.points[0].value", value, "not a number.")
        self._check_order(self._points.find(project, key), start_ns, end_ns)
        if identity is None:
            # Only now: a point that is refused must not bring its metric into being.
            self._declare_written(project, series, kind, value_type)
            if key not in declared:
                declared[key] = self._points.declare(project, key, kind, value_type)
            identity = _Identity(
                stored=declared[key],
                kind=kind,
                gauge=kind is MetricKind.GAUGE,
                kind_number=_KINDS.Value(kind.value),
                value_type=value_type,
                field=written,
            )
        stored = identity.stored
        if parsed is not None:
            batch.distributions.append(
                (stored, start_ns, end_ns, value.SerializeToString(), parsed)
            )
        elif value_type is ValueType.DOUBLE:
            batch.doubles.append((stored, start_ns, end_ns, value))
        else:
            batch.integers.append((stored, start_ns, end_ns, int(value)))
        return identity

    def _identify(
        self, project: str, index: int, series: Any, value_type: ValueType, service: bool
    ) -> tuple[SeriesKey, MetricKind]:
        """Check metric, resource, kind and type against each other and the descriptor."""
        field = f"timeSeries[{index}]"
        metric_type = series.metric.type
        if not service:
            self._check_type(metric_type, field=f"{field}.metric.type")
        elif not is_system_metric(metric_type):
            raise InvalidArgument.of_field(
                f"{field}.metric.type",
                metric_type,
                "A service time series cannot be written to a user-defined metric.",
            )
        if value_type not in _STORABLE:
            raise InvalidArgument.of_field(
                f"{field}.points[0].value", value_type, "User metrics cannot hold strings."
            )
        declared = _name_of(_VALUE_TYPES, series.value_type)
        if series.value_type and declared != value_type.value:
            raise InvalidArgument.of_field(
                f"{field}.valueType", declared, f"The point holds a value of type {value_type}."
            )
        labels = dict(series.metric.labels)
        self._check_label_keys(labels, field=f"{field}.metric.labels")
        self._check_label_count(metric_type, len(labels))
        for key, text in labels.items():
            if len(text) > _MAX_LABEL_VALUE:
                raise InvalidArgument.of_field(
                    f"{field}.metric.labels[{key}]",
                    f"{text[:32]}…",
                    f"A label value can have at most {_MAX_LABEL_VALUE} characters.",
                )
        resource = complete_labels(
            series.resource.type, dict(series.resource.labels), project=project, service=service
        )
        if not service and not RESOURCE_TYPES[series.resource.type].user_metrics:
            raise InvalidArgument(
                f"The metric {metric_type} cannot be written to resource type "
                f"{series.resource.type}."
            )
        old = self._descriptors.get((project, metric_type))
        kind_number = series.metric_kind or (old.metric_kind if old else _KINDS.GAUGE)
        if old is not None:
            if old.metric_kind != kind_number:
                raise InvalidArgument(
                    f"Metric kind for metric {metric_type} must be "
                    f"{_KINDS.Name(old.metric_kind)}, but is {_name_of(_KINDS, kind_number)}."
                )
            if _VALUE_TYPES.Name(old.value_type) != value_type.value:
                raise InvalidArgument(
                    f"Value type for metric {metric_type} must be "
                    f"{_VALUE_TYPES.Name(old.value_type)}, but is {value_type}."
                )
        elif kind_number not in (_KINDS.GAUGE, _KINDS.CUMULATIVE) and (
            not service or kind_number != _KINDS.DELTA
        ):
            raise InvalidArgument.of_field(
                f"{field}.metricKind",
                _name_of(_KINDS, kind_number),
                "A metric that is created by writing to it must be GAUGE or CUMULATIVE.",
            )
        else:
            self._check_combination(
                f"{field}.metricKind", metric_type, _KINDS.Name(kind_number), value_type
            )
        key = SeriesKey.of(
            metric_type=metric_type,
            metric_labels=labels,
            resource_type=series.resource.type,
            resource_labels=resource,
        )
        return key, MetricKind(_KINDS.Name(kind_number))

    def _declare_written(
        self, project: str, series: Any, kind: MetricKind, value_type: ValueType
    ) -> None:
        """Create the descriptor of a metric that is written first, or add labels to it.

        Unit and description are set once (metric.proto, TimeSeries).
        """
        old = self._descriptors.get((project, series.metric.type))
        known = {label.key for label in old.labels} if old is not None else set()
        unit = (old.unit if old is not None else "") or series.unit
        description = (old.description if old is not None else "") or series.description
        added = sorted(set(series.metric.labels) - known)
        if old is None or added or (unit, description) != (old.unit, old.description):
            self._declare(
                project,
                metric_type=series.metric.type,
                kind=_KINDS.Value(kind.value),
                value_type=_VALUE_TYPES.Value(value_type.value),
                unit=unit,
                labels=[label_pb2.LabelDescriptor(key=key) for key in added],
                description=description,
                display_name=old.display_name if old else "",
            )

    def _interval(
        self, field: str, metric_type: str, kind: MetricKind, point: Any, now_ns: int
    ) -> tuple[int, int]:
        """Start and end in policy time; texts show the times the client sent."""
        interval = point.interval
        field = f"{field}.points[0].interval"
        real_end = _stamp_ns(interval.end_time)
        if not real_end:
            raise InvalidArgument(f"Field {field}.end_time had an invalid value: not set.")
        end_ns = self._clock.to_policy_ns(real_end)
        if end_ns < now_ns - _OLDEST_NS:
            raise InvalidArgument.of_field(
                f"{field}.end_time",
                _iso(real_end),
                "Data points cannot be written more than 25h in the past.",
            )
        if end_ns > now_ns + _NEWEST_NS:
            raise InvalidArgument.of_field(
                f"{field}.end_time",
                _iso(real_end),
                "Data points cannot be written more than 5m in the future.",
            )
        real_start = _stamp_ns(interval.start_time)
        if kind is MetricKind.GAUGE:
            if real_start and real_start != real_end:
                raise InvalidArgument.of_field(
                    f"{field}.start_time",
                    _iso(real_start),
                    f"The start time must be equal to the end time ({_iso(real_end)}) for the "
                    f"gauge metric '{metric_type}'.",
                )
            return end_ns, end_ns
        start_ns = self._clock.to_policy_ns(real_start)
        if not 0 < real_start < real_end or not _usable(start_ns):
            raise InvalidArgument.of_field(
                f"{field}.start_time",
                _iso(real_start),
                f"The start time must be before the end time ({_iso(real_end)}) for the "
                f"non-gauge metric '{metric_type}'.",
            )
        return start_ns, end_ns

    @staticmethod
    def _check_distribution(field: str, value: Any) -> Distribution:
        def refuse(rule: str) -> InvalidArgument:
            return InvalidArgument(f"Field {field} had an invalid value: {rule}")

        options = value.bucket_options
        form = options.WhichOneof("options")
        buckets = 0
        if form == "explicit_buckets":
            bounds = options.explicit_buckets.bounds
            if not bounds:
                raise refuse(
                    "Distribution |explicit_buckets.bounds| does not have at least one entry."
                )
            if any(not low < high for low, high in pairwise(bounds)):
                raise refuse("The bounds of explicit buckets must be strictly increasing.")
            buckets = len(bounds) + 1
        elif form == "linear_buckets":
            linear = options.linear_buckets
            if linear.num_finite_buckets < 1 or not linear.width > 0:
                raise refuse("Linear buckets need a positive number of buckets and width.")
            buckets = linear.num_finite_buckets + 2
        elif form == "exponential_buckets":
            powers = options.exponential_buckets
            if (
                powers.num_finite_buckets < 1
                or not powers.growth_factor > 1
                or not powers.scale > 0
            ):
                raise refuse(
                    "Exponential buckets need a positive number of buckets, a growth factor "
                    "greater than 1 and a positive scale."
                )
            buckets = powers.num_finite_buckets + 2
        if buckets > _MAX_BUCKETS:
            raise refuse(f"A distribution can have at most {_MAX_BUCKETS} buckets.")
        if len(value.bucket_counts) > buckets:
            raise refuse(
                f"Distribution value has {len(value.bucket_counts)} |bucket_counts| fields, which "
                f"is more than the {buckets} buckets allowed by the bucketing options."
            )
        if value.count < 0 or any(count < 0 for count in value.bucket_counts):
            raise refuse("Counts must not be negative.")
        if value.bucket_counts and sum(value.bucket_counts) != value.count:
            raise refuse("The sum of the bucket counts must equal the count.")
        if not math.isfinite(value.mean):
            raise refuse(f"Distribution value with a non-finite |mean| of {value.mean}.")
        if value.count == 0 and (value.mean != 0 or value.sum_of_squared_deviation != 0):
            raise refuse("The mean and deviation of an empty distribution must be zero.")
        try:
            parsed = read_distribution(value)
        except (ArithmeticError, ValueError) as error:
            raise refuse("The buckets cannot be computed.") from error
        numbers = (parsed.ssd, *parsed.buckets.bounds)
        if not all(math.isfinite(number) for number in numbers):
            raise refuse("The deviation and all bounds must be finite.")
        return parsed

    def _check_order(self, stored: StoredSeries | None, start_ns: int, end_ns: int) -> None:
        if stored is None or not stored.last_end_ns:
            return
        if (
            stored.kind is not MetricKind.GAUGE
            and start_ns != stored.last_start_ns
            and start_ns < stored.last_end_ns + _BETWEEN_NS
        ):
            rule = _ORDER.format("start")
        elif end_ns <= stored.last_end_ns:
            rule = _ORDER.format("end")
        elif end_ns - stored.last_end_ns < _SAMPLING_NS:
            rule = _SAMPLING
        else:
            return
        place = (
            f"write for resource={stored.key.resource_type}{_braces(stored.key.resource)} "
            "failed with: "
        )
        raise _Refused(
            f"{place}{rule} {{Metric: {stored.key.metric_type}, Timestamps: {{Youngest Existing: "
            f"'{_slashes(self._clock.to_real_ns(stored.last_end_ns))}', "
            f"New: '{_slashes(self._clock.to_real_ns(end_ns))}'}}}}",
            group=place + rule,
        )

    # Reading

    def list_time_series(self, request: Any) -> Any:
        """Points in (start, end], newest first; with aggregations when asked for."""
        project = project_of(request.name)
        if parse_selector(request.filter, field="filter") is not None:
            raise Unimplemented(
                "Time series of service level objectives exist in Cloud Monitoring but cannot be "
                "listed in this emulator yet; alert policies on burn rates are evaluated."
            )
        wanted = parse_filter(request.filter)
        types = wanted.metric_types
        if types is None or len(types) != 1:
            raise InvalidArgument.of_field(
                "filter", request.filter, "The filter must specify a single metric type."
            )
        if request.order_by:
            raise InvalidArgument.of_field("orderBy", request.order_by, "Ordering is unsupported.")
        if request.view not in (_View.FULL, _View.HEADERS):
            raise InvalidArgument.of_field("view", request.view, "The view is unknown.")
        (metric_type,) = types
        descriptor = self._descriptors.get((project, metric_type))
        if descriptor is None:
            raise NotFound(
                f'Cannot find metric(s) that match type = "{metric_type}". If a metric was created '
                "recently, it could take up to 10 minutes to become available. Please try again "
                "soon."
            )
        asked = wanted.resource_types
        if asked is not None and asked.isdisjoint(self._resource_types(project, descriptor)):
            raise InvalidArgument(
                "The supplied filter does not specify a valid combination of metric and monitored "
                "resource descriptors. The query will not return any time series."
            )
        after_ns, until_ns = self._window(request.interval)
        aggregations = self._aggregations(request)
        aggregated_type(
            aggregations,
            MetricKind(_KINDS.Name(descriptor.metric_kind)),
            ValueType(_VALUE_TYPES.Name(descriptor.value_type)),
        )
        headers = request.view == _View.HEADERS
        rows = self._rows(project, metric_type, wanted, aggregations, after_ns, until_ns)
        response = _ListTimeSeriesResponse(unit=_unit(descriptor.unit, aggregations))
        sizes = [1 if headers else len(row) for row in rows]
        window, response.next_page_token = page(
            sum(sizes),
            size=request.page_size,
            token=request.page_token,
            limit=_MAX_PAGE,
            about=(
                self._store.identity,
                "timeSeries",
                project,
                json_format.MessageToJson(_without_page(request)),
            ),
        )
        offset = 0
        for row, size in zip(rows, sizes, strict=True):
            first = max(0, window.start - offset)
            last = min(size, window.stop - offset)
            offset += size
            if first < last:
                series = row.header()
                if not headers:
                    series.points.extend(row.point(i) for i in range(first, last))
                response.time_series.append(series)
        return response

    def _resource_types(self, project: str, descriptor: Any) -> set[str]:
        """What a metric may be written to, and what a service wrote it to."""
        written = {one.key.resource_type for one in self._points.of_type(project, descriptor.type)}
        return written.union(descriptor.monitored_resource_types)

    def _window(self, interval: Any) -> tuple[int, int]:
        end = _stamp_ns(interval.end_time)
        if not end:
            raise InvalidArgument("Request was missing field interval.endTime.")
        start = _stamp_ns(interval.start_time) or end
        if start > end:
            raise InvalidArgument.of_field(
                "interval.start_time",
                _iso(start),
                f"The start time must not be after the end time ({_iso(end)}).",
            )
        until_ns = self._clock.to_policy_ns(end)
        # Equal times ask for the points at one instant.
        after_ns = self._clock.to_policy_ns(start) if start < end else until_ns - 1
        # "Since ever" is before the epoch on a scaled clock.
        after_ns = max(0, after_ns)
        if not (_usable(until_ns) and _usable(after_ns + 1)):
            raise InvalidArgument.of_field(
                "interval", f"{_iso(start)}/{_iso(end)}", "The interval is out of range."
            )
        return after_ns, until_ns

    def _aggregations(self, request: Any) -> list[Any]:
        if request.HasField("secondary_aggregation") and not request.HasField("aggregation"):
            raise InvalidArgument(
                "Field secondaryAggregation had an invalid value: it may only be specified if "
                "aggregation is specified."
            )
        found = []
        for name in ("aggregation", "secondary_aggregation"):
            body = json_format.MessageToDict(getattr(request, name))
            aligner = body.get("perSeriesAligner", "ALIGN_NONE")
            reducer = body.get("crossSeriesReducer", "REDUCE_NONE")
            if (aligner, reducer) != ("ALIGN_NONE", "REDUCE_NONE"):
                found.append(parse_aggregation(body, field=name, alerting=False))
        return found

    def _rows(
        self,
        project: str,
        metric_type: str,
        wanted: Filter,
        aggregations: list[Any],
        after_ns: int,
        until_ns: int,
    ) -> Sequence[_Row]:
        if aggregations:
            return self._aggregated(project, metric_type, wanted, aggregations, after_ns, until_ns)
        return self._stored(project, metric_type, wanted, after_ns, until_ns)

    def _stored(
        self, project: str, metric_type: str, wanted: Filter, after_ns: int, until_ns: int
    ) -> list[_TakenRow]:
        rows = []
        with self._store.lock:
            for series in self._points.of_type(project, metric_type):
                if wanted.matches(series.key, project=project):
                    positions = series.between(after_ns, until_ns)
                    if len(positions):
                        rows.append(_StoredRow(series=series, points=positions, clock=self._clock))
            rows.sort(key=lambda row: row.series.key)
            # Retention moves positions, so the points are taken out under the lock.
            return [row.taken() for row in rows]

    def _aggregated(
        self,
        project: str,
        metric_type: str,
        wanted: Filter,
        aggregations: list[Any],
        after_ns: int,
        until_ns: int,
    ) -> list[_AggregatedRow]:
        period = _ns(aggregations[0].alignment_period)
        count = max(1, -(-(until_ns - after_ns) // period))
        if count > _MAX_PAGE:
            raise InvalidArgument(
                f"The interval holds {count} alignment periods; at most {_MAX_PAGE} are answered."
            )
        at_ns = until_ns - period * np.arange(count - 1, -1, -1, dtype=np.int64)
        series = self._points.snapshot(
            project,
            # Ten minutes more, because ALIGN_PERCENT_CHANGE smooths over them.
            after_ns=int(at_ns[0]) - period - _ns(timedelta(minutes=10)),
            until_ns=until_ns,
            metric_type=metric_type,
            keep=lambda key: wanted.matches(key, project=project),
        )
        table = aggregate(_sorted(series), aggregations, at_ns)
        return [
            row
            for index in range(len(table.keys))
            if len(
                row := _AggregatedRow(table=table, index=index, period=period, clock=self._clock)
            )
        ]


def _describes(expression: Expression, resource: ResourceType) -> bool:
    """Whether a resource type satisfies a filter on types: `resource.label:id` asks for a label."""
    if isinstance(expression, All):
        return all(_describes(operand, resource) for operand in expression.operands)
    if isinstance(expression, AnyOf):
        return any(_describes(operand, resource) for operand in expression.operands)
    if isinstance(expression, Negation):
        return not _describes(expression.operand, resource)
    if expression.path in (("resource", "label"), ("resource", "labels")):
        return expression.value in ("project_id", *resource.labels)
    if expression.path == ("resource", "type"):
        return evaluate(expression, lambda _path: (resource.type,))
    selector = ".".join(expression.path)
    raise InvalidArgument.of_field(
        "filter", selector, f"The filter contains unknown selector: {selector}"
    )


def _unit(unit: str, aggregations: Sequence[Aggregation]) -> str:
    """The unit of aggregated values (assumed: only the written values' unit is documented)."""
    for step in aggregations:
        if step.aligner in _COUNTING or step.reducer in _COUNTING:
            unit = "1"
        elif step.aligner is Aligner.ALIGN_RATE:
            unit = f"{unit or '1'}/s"
        elif step.aligner is Aligner.ALIGN_PERCENT_CHANGE:
            unit = "%"
    return unit


def _sorted(series: list[Series]) -> list[Series]:
    return sorted(series, key=lambda one: one.key)


def _without_page(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("page_token")
    copy.ClearField("page_size")
    return copy


def _header(key: SeriesKey, kind: str, value_type: str) -> Any:
    return _TimeSeries(
        metric=metric_pb2.Metric(type=key.metric_type, labels=key.metric),
        resource=monitored_resource_pb2.MonitoredResource(
            type=key.resource_type, labels=key.resource
        ),
        metric_kind=_KINDS.Value(kind),
        value_type=_VALUE_TYPES.Value(value_type),
    )


def _typed(value_type: ValueType, value: Any) -> Any:
    if value_type is ValueType.DISTRIBUTION:
        return _TypedValue(distribution_value=value)
    if value_type is ValueType.BOOL:
        return _TypedValue(bool_value=bool(value))
    if value_type is ValueType.INT64:
        return _TypedValue(int64_value=round(value))
    return _TypedValue(double_value=float(value))


def _point(start_ns: int, end_ns: int, value: Any, clock: Clock) -> Any:
    point = _Point(value=value)
    point.interval.end_time.CopyFrom(_stamp(clock.to_real_ns(end_ns)))
    point.interval.start_time.CopyFrom(_stamp(clock.to_real_ns(start_ns)))
    return point


class _Row(Protocol):
    """One series of an answer, its points newest first."""

    def __len__(self) -> int: ...

    def header(self) -> Any:
        """The TimeSeries message without points."""

    def point(self, index: int) -> Any:
        """One Point message."""


@dataclass(frozen=True, kw_only=True)
class _TakenRow:
    """The points of one stored series, newest first, out of the store."""

    series: StoredSeries
    points: list[tuple[int, int, Any]]
    clock: Clock

    def __len__(self) -> int:
        return len(self.points)

    def header(self) -> Any:
        return _header(self.series.key, self.series.kind, self.series.value_type)

    def point(self, index: int) -> Any:
        start_ns, end_ns, value = self.points[index]
        if self.series.value_type is ValueType.DISTRIBUTION:
            value = distribution_pb2.Distribution.FromString(value)
        return _point(start_ns, end_ns, _typed(self.series.value_type, value), self.clock)


@dataclass(frozen=True, kw_only=True)
class _StoredRow:
    """Positions of points in a stored series; true only under the store's lock."""

    series: StoredSeries
    points: range
    clock: Clock

    def taken(self) -> _TakenRow:
        return _TakenRow(
            series=self.series,
            points=[self.series.point(position) for position in reversed(self.points)],
            clock=self.clock,
        )


class _AggregatedRow:
    """One series of an aggregated table, newest first."""

    def __init__(self, *, table: Any, index: int, period: int, clock: Clock) -> None:
        self._table = table
        self._index = index
        self._period = period
        self._clock = clock
        present = table.distributions[index].count if table.values is None else table.values[index]
        self._columns = np.flatnonzero(~np.isnan(present))[::-1]

    def __len__(self) -> int:
        return len(self._columns)

    def header(self) -> Any:
        return _header(self._table.keys[self._index], self._table.kind, self._table.value_type)

    def point(self, index: int) -> Any:
        column = int(self._columns[index])
        end_ns = int(self._table.at_ns[column])
        if self._table.values is None:
            value = write_distribution(self._table.distributions[self._index].at(column))
        else:
            value = float(self._table.values[self._index, column])
        gauge = self._table.kind is MetricKind.GAUGE
        return _point(
            end_ns if gauge else end_ns - self._period,
            end_ns,
            _typed(self._table.value_type, value),
            self._clock,
        )
