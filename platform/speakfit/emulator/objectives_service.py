"""ServiceMonitoringService: services and their service level objectives.

Rules are those of googleapis `service.proto` and `service_service.proto`. Objectives that count
requests are resolved to filters for the engine; the others are stored and never evaluated.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from google.cloud import monitoring_v3
from google.protobuf import empty_pb2, json_format

from speakfit.emulator.listing import page, select
from speakfit.emulator.masks import apply_mask, masked_names
from speakfit.emulator.naming import project_of
from speakfit.emulator.store import Store
from speakfit.emulator.system_metrics import is_system_metric
from speakfit.engine.filters import Filter, parse_filter
from speakfit.engine.objectives import Cut, Objective, Ratio
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.policies import MAX_DISPLAY_NAME, parse_user_labels
from speakfit.engine.wire import print_duration
from speakfit.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented

_SERVICES, _OBJECTIVES = "services", "serviceLevelObjectives"
_SERVICE_NAME = re.compile(r"projects/([^/]+)/services/[^/]+")
_OBJECTIVE_NAME = re.compile(r"(projects/[^/]+/services/[^/]+)/serviceLevelObjectives/[^/]+")
_SERVICE_ID = re.compile(r"[a-z0-9\-]+")
_OBJECTIVE_ID = re.compile(r"[a-zA-Z0-9\-_:.]+")
_MAX_GOAL = 0.9999
_DAY = timedelta(days=1)
_MAX_DAYS = 30
_MIN_WINDOW = timedelta(seconds=60)
_PERIODS = frozenset({"DAY", "WEEK", "FORTNIGHT", "MONTH"})
_OWNED = ("gke_namespace", "gke_workload", "gke_service")
"""Kinds of services that name their project, which the server does."""

_NUMBERS = frozenset({ValueType.INT64, ValueType.DOUBLE})
_COUNTED = frozenset({MetricKind.DELTA, MetricKind.CUMULATIVE})
_UNKNOWN_METRIC = (
    "Invalid SLO definition: The metric referenced by the provided filter is unknown. Check the "
    "metric name and labels."
)

_Service = monitoring_v3.Service.pb()
_Objective = monitoring_v3.ServiceLevelObjective.pb()
_ListServicesResponse = monitoring_v3.ListServicesResponse.pb()
_ListObjectivesResponse = monitoring_v3.ListServiceLevelObjectivesResponse.pb()
_EXPLICIT = monitoring_v3.ServiceLevelObjective.View.EXPLICIT


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _wrong(field: str, value: object, rule: str) -> InvalidArgument:
    return InvalidArgument.of_field(field, value, rule)


def _service_project(name: str, *, field: str) -> str:
    found = _SERVICE_NAME.fullmatch(name)
    if found is None:
        raise _wrong(field, name, 'the name must have the form "projects/ID/services/ID".')
    return found[1]


def _objective_service(name: str, *, field: str) -> str:
    found = _OBJECTIVE_NAME.fullmatch(name)
    if found is None:
        raise _wrong(
            field,
            name,
            'the name must have the form "projects/ID/services/ID/serviceLevelObjectives/ID".',
        )
    return found[1]


def _check_common(message: Any, field: str) -> None:
    if len(message.display_name) > MAX_DISPLAY_NAME:
        raise _wrong(
            f"{field}.display_name",
            message.display_name[:32] + "…",
            f"At most {MAX_DISPLAY_NAME} characters are allowed.",
        )
    parse_user_labels(dict(message.user_labels), field=f"{field}.user_labels")


class _Definition:
    """Checks the indicator of one objective, and resolves it."""

    def __init__(self, descriptor: Callable[[str], Descriptor | None], field: str) -> None:
        """`field` is the path of the objective in the request."""
        self._descriptor = descriptor
        self._field = field

    def indicator(self, objective: Any, service: Any) -> Ratio | Cut | None:
        """What the engine counts; None for what it does not. InvalidArgument when it is wrong."""
        field, indicator = (
            f"{self._field}.service_level_indicator",
            objective.service_level_indicator,
        )
        kind = indicator.WhichOneof("type")
        if kind is None:
            raise _wrong(field, "", "basic_sli, request_based or windows_based must be set.")
        if kind == "request_based":
            return self._requests(indicator.request_based, f"{field}.request_based")
        if kind == "windows_based":
            self._windows(indicator.windows_based, f"{field}.windows_based", service)
        else:
            self._basic(indicator.basic_sli, f"{field}.basic_sli", service)
        return None

    def _basic(self, sli: Any, field: str, service: Any) -> None:
        if service.WhichOneof("identifier") == "custom":
            raise _wrong(field, "", "a custom service has no basic indicator.")
        kind = sli.WhichOneof("sli_criteria")
        if kind is None:
            raise _wrong(field, "", "availability or latency must be set.")
        if kind == "latency" and _length(sli.latency.threshold, field) <= timedelta(0):
            raise _wrong(
                f"{field}.latency.threshold",
                f"{sli.latency.threshold.seconds}s",
                "the threshold must be positive.",
            )

    def _requests(self, sli: Any, field: str) -> Ratio | Cut:
        kind = sli.WhichOneof("method")
        if kind is None:
            raise _wrong(field, "", "good_total_ratio or distribution_cut must be set.")
        if kind == "good_total_ratio":
            return self._ratio(sli.good_total_ratio, f"{field}.good_total_ratio")
        cut = sli.distribution_cut
        field = f"{field}.distribution_cut"
        parsed = self._filter(
            cut.distribution_filter,
            f"{field}.distribution_filter",
            kinds=_COUNTED,
            types=frozenset({ValueType.DISTRIBUTION}),
        )
        low, high = self._range(cut, field)
        return Cut(filter=parsed, low=low, high=high)

    def _ratio(self, ratio: Any, field: str) -> Ratio:
        found: dict[str, Filter] = {}
        for part in ("good", "bad", "total"):
            text = getattr(ratio, f"{part}_service_filter")
            if text:
                found[part] = self._filter(
                    text, f"{field}.{part}_service_filter", kinds=_COUNTED, types=_NUMBERS
                )
        if len(found) != 2:
            raise _wrong(
                field,
                ", ".join(found),
                "exactly two of good_service_filter, bad_service_filter and total_service_filter "
                "must be set.",
            )
        return Ratio(**found)

    def _windows(self, sli: Any, field: str, service: Any) -> None:
        period = _length(sli.window_period, f"{field}.window_period")
        if period < _MIN_WINDOW or _DAY % period:
            raise _wrong(
                f"{field}.window_period",
                print_duration(period),
                "must be an integer fraction of a day and at least 60 seconds.",
            )
        kind = sli.WhichOneof("window_criterion")
        if kind is None:
            raise _wrong(field, "", "a window criterion must be set.")
        if kind == "good_bad_metric_filter":
            self._filter(
                sli.good_bad_metric_filter,
                f"{field}.{kind}",
                kinds=frozenset(MetricKind),
                types=frozenset({ValueType.BOOL}),
            )
        elif kind == "good_total_ratio_threshold":
            self._performance(sli.good_total_ratio_threshold, f"{field}.{kind}", service)
        else:
            bounded = getattr(sli, kind)
            self._filter(
                bounded.time_series,
                f"{field}.{kind}.time_series",
                kinds=frozenset({MetricKind.GAUGE}),
                types=_NUMBERS,
            )
            self._range(bounded, f"{field}.{kind}")

    def _performance(self, criterion: Any, field: str, service: Any) -> None:
        kind = criterion.WhichOneof("type")
        if kind is None:
            raise _wrong(field, "", "performance or basic_sli_performance must be set.")
        if kind == "performance":
            self._requests(criterion.performance, f"{field}.performance")
        else:
            self._basic(criterion.basic_sli_performance, f"{field}.{kind}", service)
        if not 0 < criterion.threshold <= 1:
            raise _wrong(
                f"{field}.threshold", criterion.threshold, "must be above 0 and at most 1."
            )

    def _filter(
        self,
        text: str,
        field: str,
        *,
        kinds: frozenset[MetricKind],
        types: frozenset[ValueType],
    ) -> Filter:
        parsed = parse_filter(text, field=field)
        if not parsed.metric_types:
            raise _wrong(field, text, 'must specify a restriction on "metric.type" in the filter')
        for name in sorted(parsed.metric_types):
            found = self._descriptor(name)
            if found is None:
                # Of a metric that one of Google's services writes nothing is known here.
                if not is_system_metric(name):
                    raise InvalidArgument(_UNKNOWN_METRIC)
            elif found.kind not in kinds or found.value_type not in types:
                raise _wrong(
                    field,
                    text,
                    f"the metric has kind {found.kind} and value type {found.value_type}; needed "
                    f"are kind {_either(kinds)} and value type {_either(types)}.",
                )
        return parsed

    @staticmethod
    def _range(bounded: Any, field: str) -> tuple[float, float]:
        """Both bounds; a client that leaves the upper one out sends 0 for it.

        proto-plus adds an underscore to names that Python reserves.
        """
        low, high = bounded.range_.min_, bounded.range_.max_
        if high == 0 and low > 0:
            high = math.inf
        if not bounded.HasField("range_") or not low < high:
            raise _wrong(
                f"{field}.range", f"[{low:g}, {high:g}]", "the minimum must be below the maximum."
            )
        return low, high


def _either(names: frozenset[Any]) -> str:
    return " or ".join(sorted(names))


def _length(duration: Any, field: str) -> timedelta:
    try:
        return timedelta(seconds=duration.seconds, microseconds=duration.nanos / 1000)
    except OverflowError as error:
        raise _wrong(field, duration.seconds, "duration out of range") from error


class ObjectivesService:
    """Services and objectives of all projects."""

    def __init__(
        self,
        *,
        store: Store,
        descriptor: Callable[[str, str], Descriptor | None],
        changed: Callable[[str], None],
    ) -> None:
        """`changed` is told the name of an objective that is not what it was any more."""
        self._store = store
        self._lock = store.lock
        self._descriptor = descriptor
        self._changed = changed
        self._services: dict[str, Any] = {
            name: _Service.FromString(body) for name, body in store.documents(_SERVICES)
        }
        self._objectives: dict[str, Any] = {
            name: _Objective.FromString(body) for name, body in store.documents(_OBJECTIVES)
        }

    # For policies

    def objective(self, project: str, name: str) -> Objective | None:
        """An objective by the name that a policy of a project has for it; None if there is none.

        A project may be named by its number, which is not known here: it is the policy's own.
        """
        owner = name.split("/")[1]
        if owner.isdigit() and owner != project:
            name = name.replace(f"projects/{owner}/", f"projects/{project}/", 1)
        with self._lock:
            found = self._objectives.get(name)
            if found is None:
                return None
            return Objective(
                name=name,
                goal=found.goal,
                indicator=self._indicator(found, field="service_level_objective"),
            )

    def _indicator(self, objective: Any, *, field: str) -> Ratio | Cut | None:
        service = _objective_service(objective.name, field=f"{field}.name")
        project = service.split("/")[1]
        definition = _Definition(lambda metric: self._descriptor(project, metric), field)
        return definition.indicator(objective, self._services[service])

    # Checks

    @staticmethod
    def _check_service(service: Any) -> None:
        _check_common(service, "service")
        for kind in _OWNED:
            if service.HasField(kind):
                getattr(service, kind).project_id = service.name.split("/")[1]

    def _check_objective(self, objective: Any) -> None:
        field = "service_level_objective"
        _check_common(objective, field)
        if not 0 < objective.goal <= _MAX_GOAL:
            raise _wrong(
                f"{field}.goal", objective.goal, f"must be above 0 and at most {_MAX_GOAL}."
            )
        kind = objective.WhichOneof("period")
        if kind is None:
            raise _wrong(field, "", "rolling_period or calendar_period must be set.")
        if kind == "rolling_period":
            period = _length(objective.rolling_period, f"{field}.rolling_period")
            if not _DAY <= period <= _MAX_DAYS * _DAY or period % _DAY:
                raise _wrong(
                    f"{field}.rolling_period",
                    print_duration(period),
                    f"must be a whole number of days from 1 to {_MAX_DAYS}.",
                )
        else:
            number = objective.calendar_period
            known = _Objective.DESCRIPTOR.fields_by_name["calendar_period"].enum_type
            name = getattr(known.values_by_number.get(number), "name", str(number))
            if name not in _PERIODS:
                raise _wrong(
                    f"{field}.calendar_period",
                    name,
                    "only DAY, WEEK, FORTNIGHT and MONTH are supported.",
                )
        self._indicator(objective, field=field)

    def _service(self, name: str, *, field: str = "name") -> Any:
        _service_project(name, field=field)
        found = self._services.get(name)
        if found is None:
            raise NotFound(f"The service {name} does not exist.")
        return found

    def _find(self, name: str, *, field: str = "name") -> Any:
        _objective_service(name, field=field)
        found = self._objectives.get(name)
        if found is None:
            raise NotFound(f"The service level objective {name} does not exist.")
        return found

    def _save(self, collection: str, message: Any) -> None:
        self._store.put(collection, message.name, message.SerializeToString(deterministic=True))
        held = self._services if collection == _SERVICES else self._objectives
        held[message.name] = message

    # Services

    def create_service(self, request: Any) -> Any:
        """Create a service under the id asked for, or a new one."""
        project = project_of(request.parent, field="parent")
        identity = request.service_id
        if identity and not _SERVICE_ID.fullmatch(identity):
            raise _wrong("service_id", identity, r"must match the pattern [a-z0-9\-]+")
        service = _copy(request.service)
        service.name = f"projects/{project}/services/{identity or secrets.token_urlsafe(16)}"
        self._check_service(service)
        with self._lock:
            if service.name in self._services:
                raise AlreadyExists(f"The service {service.name} exists already.")
            self._save(_SERVICES, service)
        return _copy(service)

    def get_service(self, request: Any) -> Any:
        """One service."""
        return _copy(self._service(request.name))

    def list_services(self, request: Any) -> Any:
        """Services of a project in the order of their creation, filtered and paged."""
        project = project_of(request.parent, field="parent")
        prefix = f"projects/{project}/"
        with self._lock:
            mine = [one for name, one in self._services.items() if name.startswith(prefix)]
        kept, token = self._page(mine, request)
        return _ListServicesResponse(services=kept, next_page_token=token)

    def _page(self, mine: list[Any], request: Any) -> tuple[list[Any], str]:
        rows = []
        for one in mine:
            row = json_format.MessageToDict(one, preserving_proto_field_name=True)
            if isinstance(one, _Service):
                row["identifier_case"] = (one.WhichOneof("identifier") or "").upper()
            rows.append(row)
        kept = select(rows, filter_text=request.filter, order_by="")
        window, token = page(
            len(kept),
            size=request.page_size,
            token=request.page_token,
            about=(
                self._store.identity,
                request.DESCRIPTOR.name,
                request.parent,
                request.filter,
            ),
        )
        return [mine[index] for index in kept[window]], token

    @staticmethod
    def _edited(old: Any, asked: Any, paths: list[str]) -> Any:
        """The old message with the fields of the mask, or the new one without a mask."""
        if not paths:
            new = _copy(asked)
        else:
            if "name" in masked_names(paths):
                raise _wrong("update_mask", "name", "the name cannot be updated.")
            new = _copy(old)
            apply_mask(new, asked, paths)
        new.name = old.name
        return new

    def update_service(self, request: Any) -> Any:
        """Replace the fields of the mask, or everything without one."""
        with self._lock:
            old = self._service(request.service.name, field="service.name")
            new = self._edited(old, request.service, list(request.update_mask.paths))
            self._check_service(new)
            self._save(_SERVICES, new)
        return _copy(new)

    def delete_service(self, request: Any) -> Any:
        """Delete a service with its objectives."""
        with self._lock:
            service = self._service(request.name)
            lost = [name for name in self._objectives if name.startswith(f"{service.name}/")]
            with self._store.transaction():
                for name in lost:
                    self._store.remove(_OBJECTIVES, name)
                self._store.remove(_SERVICES, service.name)
            # Memory follows the disk.
            for name in lost:
                del self._objectives[name]
            del self._services[service.name]
            for name in lost:
                self._changed(name)
        return empty_pb2.Empty()

    # Objectives

    def create_objective(self, request: Any) -> Any:
        """Create an objective under the id asked for, the name it brings, or a new one."""
        identity = request.service_level_objective_id
        if identity and not _OBJECTIVE_ID.fullmatch(identity):
            raise _wrong(
                "service_level_objective_id", identity, "must match the pattern ^[a-zA-Z0-9-_:.]+$"
            )
        objective = _copy(request.service_level_objective)
        field = "service_level_objective.name"
        with self._lock:
            service = self._service(request.parent, field="parent")
            if identity or not objective.name:
                identity = identity or secrets.token_urlsafe(16)
                objective.name = f"{service.name}/serviceLevelObjectives/{identity}"
            elif _objective_service(objective.name, field=field) != service.name:
                raise _wrong(field, objective.name, f"the objective must belong to {service.name}.")
            if not _OBJECTIVE_ID.fullmatch(objective.name.rpartition("/")[2]):
                raise _wrong(field, objective.name, "must match the pattern ^[a-zA-Z0-9-_:.]+$")
            self._check_objective(objective)
            if objective.name in self._objectives:
                raise AlreadyExists(f"The service level objective {objective.name} exists already.")
            self._save(_OBJECTIVES, objective)
            # A policy may be older: its objective was deleted and is here again.
            self._changed(objective.name)
        return _copy(objective)

    @staticmethod
    def _seen(objective: Any, view: int) -> Any:
        if view == _EXPLICIT and objective.service_level_indicator.HasField("basic_sli"):
            raise Unimplemented(
                "The EXPLICIT view of a basic indicator exists in Cloud Monitoring but not in "
                "this emulator yet."
            )
        return _copy(objective)

    def get_objective(self, request: Any) -> Any:
        """One objective, as it was defined."""
        return self._seen(self._find(request.name), request.view)

    def list_objectives(self, request: Any) -> Any:
        """Objectives of a service, or with `services/-` of all, filtered and paged."""
        project = _service_project(request.parent, field="parent")
        prefix = f"{request.parent}/"
        with self._lock:
            if request.parent.endswith("/services/-"):
                prefix = f"projects/{project}/services/"
            else:
                self._service(request.parent, field="parent")
            mine = [one for name, one in self._objectives.items() if name.startswith(prefix)]
        kept, token = self._page(mine, request)
        return _ListObjectivesResponse(
            service_level_objectives=[self._seen(one, request.view) for one in kept],
            next_page_token=token,
        )

    def update_objective(self, request: Any) -> Any:
        """Replace the fields of the mask, or everything without one."""
        asked = request.service_level_objective
        with self._lock:
            old = self._find(asked.name, field="service_level_objective.name")
            new = self._edited(old, asked, list(request.update_mask.paths))
            self._check_objective(new)
            self._save(_OBJECTIVES, new)
            self._changed(new.name)
        return _copy(new)

    def delete_objective(self, request: Any) -> Any:
        """Delete an objective; policies that name it are not evaluated any more."""
        with self._lock:
            objective = self._find(request.name)
            self._store.remove(_OBJECTIVES, objective.name)
            del self._objectives[objective.name]
            self._changed(objective.name)
        return empty_pb2.Empty()
