"""Every call the emulator knows, declared once: gRPC and REST both read this table.

Methods, paths and body fields are those of googleapis `google/monitoring/v3/*.proto`
(`google.api.http` annotations). A row without `call` is real in Cloud Monitoring and not built
here: it answers UNIMPLEMENTED on both wires, never an empty success.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from google.cloud import monitoring_dashboard_v1, monitoring_v3
from google.protobuf import empty_pb2, struct_pb2

from speakfit.errors import Unimplemented

if TYPE_CHECKING:
    from speakfit.emulator.backend import Backend

_VARIABLE = re.compile(r"\{([a-z_.]+)=([^}]*)\}")


def _pattern(template: str) -> re.Pattern[str]:
    """The regular expression of a google.api.http path template."""

    def segment(text: str) -> str:
        return re.escape(text).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")

    parts: list[str] = []
    end = 0
    for variable in _VARIABLE.finditer(template):
        parts.append(re.escape(template[end : variable.start()]))
        group = variable.group(1).replace(".", "__")
        parts.append(f"(?P<{group}>{segment(variable.group(2))})")
        end = variable.end()
    parts.append(re.escape(template[end:]))
    return re.compile("".join(parts))


@dataclass(frozen=True, kw_only=True)
class Route:
    """One RPC: its full gRPC name, its message classes, its REST form and what implements it.

    `path` is a google.api.http template, `body` the field that the JSON body fills (`*` for the
    whole request, empty for none). `call` takes the backend and the request message.
    """

    rpc: str
    method: str
    path: str
    body: str = ""
    request: Any = None
    response: Any = None
    call: Callable[[Backend, Any], Any] | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the whole path of a REST request; groups are request fields, `.` as `__`."""
        return _pattern(self.path)

    def answer(self, backend: Backend, request: Any) -> Any:
        """Run the implementation; Unimplemented for a call that is not built."""
        if self.call is None:
            raise Unimplemented(
                f"{self.rpc} exists in Cloud Monitoring but not in this emulator yet."
            )
        return self.call(backend, request)


def _message(name: str) -> Any:
    """The protobuf class behind a proto-plus message of the shipped client."""
    return getattr(monitoring_v3, name).pb()


def _dashboards(name: str) -> Any:
    return getattr(monitoring_dashboard_v1, name).pb()


def _built(
    rpc: str,
    http: str,
    request: Any,
    response: Any,
    call: Callable[[Backend, Any], Any],
    *,
    body: str = "",
) -> Route:
    method, path = http.split(" ", 1)
    return Route(
        rpc=rpc if "." in rpc else f"google.monitoring.v3.{rpc}",
        method=method,
        path=path,
        body=body,
        request=_message(request) if isinstance(request, str) else request,
        response=_message(response) if isinstance(response, str) else response,
        call=call,
    )


def _unbuilt(rpc: str, http: str) -> Route:
    method, path = http.split(" ", 1)
    return Route(rpc=rpc if "." in rpc else f"google.monitoring.v3.{rpc}", method=method, path=path)


_EMPTY = empty_pb2.Empty


def _metric_descriptor() -> Any:
    from google.api import metric_pb2

    return metric_pb2.MetricDescriptor


def _resource_descriptor() -> Any:
    from google.api import monitored_resource_pb2

    return monitored_resource_pb2.MonitoredResourceDescriptor


ROUTES: tuple[Route, ...] = (
    _built(
        "speakfit.emulator.v1.Clock/GetClock",
        "GET /emulator/v1/clock",
        _EMPTY,
        struct_pb2.Struct,
        lambda backend, _request: backend.clock_answer(),
    ),
    _built(
        "speakfit.emulator.v1.NotificationChannels/SendTestNotification",
        "POST /emulator/v1/{name=projects/*/notificationChannels/*}:sendTestNotification",
        "GetNotificationChannelRequest",
        struct_pb2.Struct,
        lambda backend, request: backend.channels.send_test(request),
    ),
    # MetricService
    _built(
        "MetricService/CreateTimeSeries",
        "POST /v3/{name=projects/*}/timeSeries",
        "CreateTimeSeriesRequest",
        _EMPTY,
        lambda backend, request: backend.metrics.create_time_series(request),
        body="*",
    ),
    _built(
        "MetricService/ListTimeSeries",
        "GET /v3/{name=projects/*}/timeSeries",
        "ListTimeSeriesRequest",
        "ListTimeSeriesResponse",
        lambda backend, request: backend.metrics.list_time_series(request),
    ),
    _built(
        "MetricService/CreateMetricDescriptor",
        "POST /v3/{name=projects/*}/metricDescriptors",
        "CreateMetricDescriptorRequest",
        _metric_descriptor(),
        lambda backend, request: backend.metrics.create_metric_descriptor(request),
        body="metric_descriptor",
    ),
    _built(
        "MetricService/GetMetricDescriptor",
        "GET /v3/{name=projects/*/metricDescriptors/**}",
        "GetMetricDescriptorRequest",
        _metric_descriptor(),
        lambda backend, request: backend.metrics.get_metric_descriptor(request),
    ),
    _built(
        "MetricService/ListMetricDescriptors",
        "GET /v3/{name=projects/*}/metricDescriptors",
        "ListMetricDescriptorsRequest",
        "ListMetricDescriptorsResponse",
        lambda backend, request: backend.metrics.list_metric_descriptors(request),
    ),
    _built(
        "MetricService/DeleteMetricDescriptor",
        "DELETE /v3/{name=projects/*/metricDescriptors/**}",
        "DeleteMetricDescriptorRequest",
        _EMPTY,
        lambda backend, request: backend.metrics.delete_metric_descriptor(request),
    ),
    _built(
        "MetricService/GetMonitoredResourceDescriptor",
        "GET /v3/{name=projects/*/monitoredResourceDescriptors/*}",
        "GetMonitoredResourceDescriptorRequest",
        _resource_descriptor(),
        lambda backend, request: backend.metrics.get_monitored_resource_descriptor(request),
    ),
    _built(
        "MetricService/ListMonitoredResourceDescriptors",
        "GET /v3/{name=projects/*}/monitoredResourceDescriptors",
        "ListMonitoredResourceDescriptorsRequest",
        "ListMonitoredResourceDescriptorsResponse",
        lambda backend, request: backend.metrics.list_monitored_resource_descriptors(request),
    ),
    _built(
        "MetricService/CreateServiceTimeSeries",
        "POST /v3/{name=projects/*}/timeSeries:createService",
        "CreateTimeSeriesRequest",
        _EMPTY,
        lambda backend, request: backend.metrics.create_time_series(request, service=True),
        body="*",
    ),
    # AlertPolicyService
    _built(
        "AlertPolicyService/CreateAlertPolicy",
        "POST /v3/{name=projects/*}/alertPolicies",
        "CreateAlertPolicyRequest",
        "AlertPolicy",
        lambda backend, request: backend.policies.create(request),
        body="alert_policy",
    ),
    _built(
        "AlertPolicyService/GetAlertPolicy",
        "GET /v3/{name=projects/*/alertPolicies/*}",
        "GetAlertPolicyRequest",
        "AlertPolicy",
        lambda backend, request: backend.policies.get(request),
    ),
    _built(
        "AlertPolicyService/ListAlertPolicies",
        "GET /v3/{name=projects/*}/alertPolicies",
        "ListAlertPoliciesRequest",
        "ListAlertPoliciesResponse",
        lambda backend, request: backend.policies.list(request),
    ),
    _built(
        "AlertPolicyService/UpdateAlertPolicy",
        "PATCH /v3/{alert_policy.name=projects/*/alertPolicies/*}",
        "UpdateAlertPolicyRequest",
        "AlertPolicy",
        lambda backend, request: backend.policies.update(request),
        body="alert_policy",
    ),
    _built(
        "AlertPolicyService/DeleteAlertPolicy",
        "DELETE /v3/{name=projects/*/alertPolicies/*}",
        "DeleteAlertPolicyRequest",
        _EMPTY,
        lambda backend, request: backend.policies.delete(request),
    ),
    # NotificationChannelService
    _built(
        "NotificationChannelService/ListNotificationChannelDescriptors",
        "GET /v3/{name=projects/*}/notificationChannelDescriptors",
        "ListNotificationChannelDescriptorsRequest",
        "ListNotificationChannelDescriptorsResponse",
        lambda backend, request: backend.channels.list_descriptors(request),
    ),
    _built(
        "NotificationChannelService/GetNotificationChannelDescriptor",
        "GET /v3/{name=projects/*/notificationChannelDescriptors/*}",
        "GetNotificationChannelDescriptorRequest",
        "NotificationChannelDescriptor",
        lambda backend, request: backend.channels.get_descriptor(request),
    ),
    _built(
        "NotificationChannelService/CreateNotificationChannel",
        "POST /v3/{name=projects/*}/notificationChannels",
        "CreateNotificationChannelRequest",
        "NotificationChannel",
        lambda backend, request: backend.channels.create(request),
        body="notification_channel",
    ),
    _built(
        "NotificationChannelService/GetNotificationChannel",
        "GET /v3/{name=projects/*/notificationChannels/*}",
        "GetNotificationChannelRequest",
        "NotificationChannel",
        lambda backend, request: backend.channels.get(request),
    ),
    _built(
        "NotificationChannelService/ListNotificationChannels",
        "GET /v3/{name=projects/*}/notificationChannels",
        "ListNotificationChannelsRequest",
        "ListNotificationChannelsResponse",
        lambda backend, request: backend.channels.list(request),
    ),
    _built(
        "NotificationChannelService/UpdateNotificationChannel",
        "PATCH /v3/{notification_channel.name=projects/*/notificationChannels/*}",
        "UpdateNotificationChannelRequest",
        "NotificationChannel",
        lambda backend, request: backend.channels.update(request),
        body="notification_channel",
    ),
    _built(
        "NotificationChannelService/DeleteNotificationChannel",
        "DELETE /v3/{name=projects/*/notificationChannels/*}",
        "DeleteNotificationChannelRequest",
        _EMPTY,
        lambda backend, request: backend.channels.delete(request),
    ),
    _built(
        "NotificationChannelService/SendNotificationChannelVerificationCode",
        "POST /v3/{name=projects/*/notificationChannels/*}:sendVerificationCode",
        "SendNotificationChannelVerificationCodeRequest",
        _EMPTY,
        lambda backend, request: backend.channels.send_verification_code(request),
        body="*",
    ),
    _built(
        "NotificationChannelService/GetNotificationChannelVerificationCode",
        "POST /v3/{name=projects/*/notificationChannels/*}:getVerificationCode",
        "GetNotificationChannelVerificationCodeRequest",
        "GetNotificationChannelVerificationCodeResponse",
        lambda backend, request: backend.channels.get_verification_code(request),
        body="*",
    ),
    _built(
        "NotificationChannelService/VerifyNotificationChannel",
        "POST /v3/{name=projects/*/notificationChannels/*}:verify",
        "VerifyNotificationChannelRequest",
        "NotificationChannel",
        lambda backend, request: backend.channels.verify(request),
        body="*",
    ),
    # SnoozeService
    _built(
        "SnoozeService/CreateSnooze",
        "POST /v3/{parent=projects/*}/snoozes",
        "CreateSnoozeRequest",
        "Snooze",
        lambda backend, request: backend.snoozes.create(request),
        body="snooze",
    ),
    _built(
        "SnoozeService/ListSnoozes",
        "GET /v3/{parent=projects/*}/snoozes",
        "ListSnoozesRequest",
        "ListSnoozesResponse",
        lambda backend, request: backend.snoozes.list(request),
    ),
    _built(
        "SnoozeService/GetSnooze",
        "GET /v3/{name=projects/*/snoozes/*}",
        "GetSnoozeRequest",
        "Snooze",
        lambda backend, request: backend.snoozes.get(request),
    ),
    _built(
        "SnoozeService/UpdateSnooze",
        "PATCH /v3/{snooze.name=projects/*/snoozes/*}",
        "UpdateSnoozeRequest",
        "Snooze",
        lambda backend, request: backend.snoozes.update(request),
        body="snooze",
    ),
    # DashboardsService
    _built(
        "google.monitoring.dashboard.v1.DashboardsService/CreateDashboard",
        "POST /v1/{parent=projects/*}/dashboards",
        _dashboards("CreateDashboardRequest"),
        _dashboards("Dashboard"),
        lambda backend, request: backend.dashboards.create(request),
        body="dashboard",
    ),
    _built(
        "google.monitoring.dashboard.v1.DashboardsService/ListDashboards",
        "GET /v1/{parent=projects/*}/dashboards",
        _dashboards("ListDashboardsRequest"),
        _dashboards("ListDashboardsResponse"),
        lambda backend, request: backend.dashboards.list(request),
    ),
    _built(
        "google.monitoring.dashboard.v1.DashboardsService/GetDashboard",
        "GET /v1/{name=projects/*/dashboards/*}",
        _dashboards("GetDashboardRequest"),
        _dashboards("Dashboard"),
        lambda backend, request: backend.dashboards.get(request),
    ),
    _built(
        "google.monitoring.dashboard.v1.DashboardsService/UpdateDashboard",
        "PATCH /v1/{dashboard.name=projects/*/dashboards/*}",
        _dashboards("UpdateDashboardRequest"),
        _dashboards("Dashboard"),
        lambda backend, request: backend.dashboards.update(request),
        body="dashboard",
    ),
    _built(
        "google.monitoring.dashboard.v1.DashboardsService/DeleteDashboard",
        "DELETE /v1/{name=projects/*/dashboards/*}",
        _dashboards("DeleteDashboardRequest"),
        _EMPTY,
        lambda backend, request: backend.dashboards.delete(request),
    ),
    # ServiceMonitoringService
    _built(
        "ServiceMonitoringService/CreateService",
        "POST /v3/{parent=*/*}/services",
        "CreateServiceRequest",
        "Service",
        lambda backend, request: backend.objectives.create_service(request),
        body="service",
    ),
    _built(
        "ServiceMonitoringService/GetService",
        "GET /v3/{name=*/*/services/*}",
        "GetServiceRequest",
        "Service",
        lambda backend, request: backend.objectives.get_service(request),
    ),
    _built(
        "ServiceMonitoringService/ListServices",
        "GET /v3/{parent=*/*}/services",
        "ListServicesRequest",
        "ListServicesResponse",
        lambda backend, request: backend.objectives.list_services(request),
    ),
    _built(
        "ServiceMonitoringService/UpdateService",
        "PATCH /v3/{service.name=*/*/services/*}",
        "UpdateServiceRequest",
        "Service",
        lambda backend, request: backend.objectives.update_service(request),
        body="service",
    ),
    _built(
        "ServiceMonitoringService/DeleteService",
        "DELETE /v3/{name=*/*/services/*}",
        "DeleteServiceRequest",
        _EMPTY,
        lambda backend, request: backend.objectives.delete_service(request),
    ),
    _built(
        "ServiceMonitoringService/CreateServiceLevelObjective",
        "POST /v3/{parent=*/*/services/*}/serviceLevelObjectives",
        "CreateServiceLevelObjectiveRequest",
        "ServiceLevelObjective",
        lambda backend, request: backend.objectives.create_objective(request),
        body="service_level_objective",
    ),
    _built(
        "ServiceMonitoringService/GetServiceLevelObjective",
        "GET /v3/{name=*/*/services/*/serviceLevelObjectives/*}",
        "GetServiceLevelObjectiveRequest",
        "ServiceLevelObjective",
        lambda backend, request: backend.objectives.get_objective(request),
    ),
    _built(
        "ServiceMonitoringService/ListServiceLevelObjectives",
        "GET /v3/{parent=*/*/services/*}/serviceLevelObjectives",
        "ListServiceLevelObjectivesRequest",
        "ListServiceLevelObjectivesResponse",
        lambda backend, request: backend.objectives.list_objectives(request),
    ),
    _built(
        "ServiceMonitoringService/UpdateServiceLevelObjective",
        "PATCH /v3/{service_level_objective.name=*/*/services/*/serviceLevelObjectives/*}",
        "UpdateServiceLevelObjectiveRequest",
        "ServiceLevelObjective",
        lambda backend, request: backend.objectives.update_objective(request),
        body="service_level_objective",
    ),
    _built(
        "ServiceMonitoringService/DeleteServiceLevelObjective",
        "DELETE /v3/{name=*/*/services/*/serviceLevelObjectives/*}",
        "DeleteServiceLevelObjectiveRequest",
        _EMPTY,
        lambda backend, request: backend.objectives.delete_objective(request),
    ),
    # Known, not built.
    _unbuilt("QueryService/QueryTimeSeries", "POST /v3/{name=projects/*}/timeSeries:query"),
    _unbuilt("GroupService/ListGroups", "GET /v3/{name=projects/*}/groups"),
    _unbuilt("GroupService/GetGroup", "GET /v3/{name=projects/*/groups/*}"),
    _unbuilt("GroupService/CreateGroup", "POST /v3/{name=projects/*}/groups"),
    _unbuilt("GroupService/UpdateGroup", "PUT /v3/{group.name=projects/*/groups/*}"),
    _unbuilt("GroupService/DeleteGroup", "DELETE /v3/{name=projects/*/groups/*}"),
    _unbuilt("GroupService/ListGroupMembers", "GET /v3/{name=projects/*/groups/*}/members"),
    _unbuilt(
        "UptimeCheckService/ListUptimeCheckConfigs",
        "GET /v3/{parent=projects/*}/uptimeCheckConfigs",
    ),
    _unbuilt(
        "UptimeCheckService/GetUptimeCheckConfig",
        "GET /v3/{name=projects/*/uptimeCheckConfigs/*}",
    ),
    _unbuilt(
        "UptimeCheckService/CreateUptimeCheckConfig",
        "POST /v3/{parent=projects/*}/uptimeCheckConfigs",
    ),
    _unbuilt(
        "UptimeCheckService/UpdateUptimeCheckConfig",
        "PATCH /v3/{uptime_check_config.name=projects/*/uptimeCheckConfigs/*}",
    ),
    _unbuilt(
        "UptimeCheckService/DeleteUptimeCheckConfig",
        "DELETE /v3/{name=projects/*/uptimeCheckConfigs/*}",
    ),
    _unbuilt("UptimeCheckService/ListUptimeCheckIps", "GET /v3/uptimeCheckIps"),
)
