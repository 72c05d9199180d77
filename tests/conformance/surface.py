"""The ways a call can reach Cloud Monitoring, each without knowing our table of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import grpc
import httpx
from google.api import metric_pb2, monitored_resource_pb2
from google.cloud import monitoring_dashboard_v1, monitoring_v3
from google.protobuf import any_pb2, empty_pb2, json_format
from google.rpc import status_pb2

_V3 = "google.monitoring.v3."
_DASHBOARDS = "google.monitoring.dashboard.v1."
_ANSWERS: dict[str, Any] = {
    "Empty": empty_pb2.Empty,
    "MetricDescriptor": metric_pb2.MetricDescriptor,
    "MonitoredResourceDescriptor": monitored_resource_pb2.MonitoredResourceDescriptor,
}


def _class(name: str) -> Any:
    """A message class of the shipped clients by its short name."""
    if name in _ANSWERS:
        return _ANSWERS[name]
    module = monitoring_dashboard_v1 if "Dashboard" in name else monitoring_v3
    return getattr(module, name).pb()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One call as the protos of googleapis declare it: its RPC and its google.api.http rule."""

    rpc: str
    verb: str
    path: str
    body: str
    answer: str

    @property
    def request(self) -> Any:
        return _class(self.rpc.rpartition("/")[2] + "Request")


def _methods(text: str) -> dict[str, Method]:
    found = {}
    for line in text.strip().splitlines():
        rpc, verb, path, body, answer = line.split()
        package = _DASHBOARDS if rpc.startswith("Dashboards") else _V3
        found[rpc.partition("/")[2]] = Method(
            rpc=package + rpc, verb=verb, path=path, body="" if body == "-" else body, answer=answer
        )
    return found


METHODS = _methods("""
MetricService/ListMonitoredResourceDescriptors GET /v3/{name}/monitoredResourceDescriptors - ListMonitoredResourceDescriptorsResponse
MetricService/GetMonitoredResourceDescriptor GET /v3/{name} - MonitoredResourceDescriptor
MetricService/ListMetricDescriptors GET /v3/{name}/metricDescriptors - ListMetricDescriptorsResponse
MetricService/GetMetricDescriptor GET /v3/{name} - MetricDescriptor
MetricService/CreateMetricDescriptor POST /v3/{name}/metricDescriptors metricDescriptor MetricDescriptor
MetricService/DeleteMetricDescriptor DELETE /v3/{name} - Empty
MetricService/ListTimeSeries GET /v3/{name}/timeSeries - ListTimeSeriesResponse
MetricService/CreateTimeSeries POST /v3/{name}/timeSeries * Empty
AlertPolicyService/ListAlertPolicies GET /v3/{name}/alertPolicies - ListAlertPoliciesResponse
AlertPolicyService/GetAlertPolicy GET /v3/{name} - AlertPolicy
AlertPolicyService/CreateAlertPolicy POST /v3/{name}/alertPolicies alertPolicy AlertPolicy
AlertPolicyService/DeleteAlertPolicy DELETE /v3/{name} - Empty
AlertPolicyService/UpdateAlertPolicy PATCH /v3/{alertPolicy.name} alertPolicy AlertPolicy
NotificationChannelService/ListNotificationChannelDescriptors GET /v3/{name}/notificationChannelDescriptors - ListNotificationChannelDescriptorsResponse
NotificationChannelService/GetNotificationChannelDescriptor GET /v3/{name} - NotificationChannelDescriptor
NotificationChannelService/ListNotificationChannels GET /v3/{name}/notificationChannels - ListNotificationChannelsResponse
NotificationChannelService/GetNotificationChannel GET /v3/{name} - NotificationChannel
NotificationChannelService/CreateNotificationChannel POST /v3/{name}/notificationChannels notificationChannel NotificationChannel
NotificationChannelService/UpdateNotificationChannel PATCH /v3/{notificationChannel.name} notificationChannel NotificationChannel
NotificationChannelService/DeleteNotificationChannel DELETE /v3/{name} - Empty
NotificationChannelService/SendNotificationChannelVerificationCode POST /v3/{name}:sendVerificationCode * Empty
NotificationChannelService/GetNotificationChannelVerificationCode POST /v3/{name}:getVerificationCode * GetNotificationChannelVerificationCodeResponse
NotificationChannelService/VerifyNotificationChannel POST /v3/{name}:verify * NotificationChannel
SnoozeService/CreateSnooze POST /v3/{parent}/snoozes snooze Snooze
SnoozeService/ListSnoozes GET /v3/{parent}/snoozes - ListSnoozesResponse
SnoozeService/GetSnooze GET /v3/{name} - Snooze
SnoozeService/UpdateSnooze PATCH /v3/{snooze.name} snooze Snooze
DashboardsService/CreateDashboard POST /v1/{parent}/dashboards dashboard Dashboard
DashboardsService/ListDashboards GET /v1/{parent}/dashboards - ListDashboardsResponse
DashboardsService/GetDashboard GET /v1/{name} - Dashboard
DashboardsService/DeleteDashboard DELETE /v1/{name} - Empty
DashboardsService/UpdateDashboard PATCH /v1/{dashboard.name} dashboard Dashboard
""")  # noqa: E501
"""From googleapis google/monitoring/v3 and google/monitoring/dashboard/v1; not from our routes."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: JSON of the answer, or code, text and details of the error."""

    code: str = "OK"
    text: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    details: tuple[Mapping[str, Any], ...] = ()


class Wire(Protocol):
    """Sends one call; the request is the JSON of the request message, a mask as text."""

    def call(self, method: Method, request: dict[str, Any]) -> Answer: ...


def _details(packed: Any) -> Mapping[str, Any]:
    return json_format.MessageToDict(packed)


@dataclass(frozen=True, kw_only=True)
class Grpc:
    """gRPC with the message classes that Google's clients ship."""

    channel: Any

    def call(self, method: Method, request: dict[str, Any]) -> Answer:
        request = dict(request)
        mask = request.pop("updateMask", "")
        message = json_format.ParseDict(request, method.request())
        if mask:
            message.update_mask.paths.extend(mask.split(","))
        return self.send(method.rpc, message.SerializeToString(), _class(method.answer))

    def send(self, rpc: str, raw: bytes, answer: Any = empty_pb2.Empty) -> Answer:
        """Send bytes as they are."""
        call = self.channel.unary_unary(f"/{rpc}", response_deserializer=answer.FromString)
        try:
            message = call(raw, timeout=30)
        except grpc.RpcError as error:
            found = dict(error.trailing_metadata() or ())
            status = status_pb2.Status.FromString(found.get("grpc-status-details-bin", b""))
            return Answer(
                code=error.code().name,
                text=error.details(),
                details=tuple(
                    _details(any_pb2.Any.FromString(one.SerializeToString()))
                    for one in status.details
                ),
            )
        return Answer(body=json_format.MessageToDict(message))


_VARIABLE = re.compile(r"\{([a-zA-Z.]+)\}")


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Query parameters as clients write them: dots into messages, repeated for lists."""
    pairs: list[tuple[str, str]] = []
    for name, one in value.items():
        if isinstance(one, Mapping):
            pairs += _flat(one, f"{prefix}{name}.")
            continue
        for item in one if isinstance(one, list) else [one]:
            text = str(item).lower() if isinstance(item, bool) else str(item)
            pairs.append((prefix + name, text))
    return pairs


@dataclass(frozen=True, kw_only=True)
class Rest:
    """HTTP and JSON by the rules of google.api.http."""

    client: httpx.Client

    def call(self, method: Method, request: dict[str, Any]) -> Answer:
        rest = json.loads(json.dumps(request))

        def bound(match: re.Match[str]) -> str:
            *outer, last = match.group(1).split(".")
            target = rest
            for name in outer:
                target = target[name]
            # gcloud leaves the name in the body of some calls; path and body then agree.
            return quote(str(target[last] if outer else target.pop(last)), safe="/:")

        path = _VARIABLE.sub(bound, method.path)
        body = None
        if method.body == "*":
            body, rest = rest, {}
        elif method.body:
            body = rest.pop(method.body, {})
        query = urlencode(_flat(rest))
        answer = self.client.request(method.verb, f"{path}?{query}" if query else path, json=body)
        return parsed(answer)


def parsed(answer: httpx.Response) -> Answer:
    """An HTTP answer in the form of both wires."""
    body = answer.json()
    if answer.is_success:
        return Answer(body=body)
    error = body["error"]
    assert error["code"] == answer.status_code
    return Answer(
        code=error["status"], text=error["message"], details=tuple(error.get("details", ()))
    )
