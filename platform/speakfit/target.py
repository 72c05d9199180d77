"""Which Cloud Monitoring a command talks to, and the real clients that talk to it.

First match wins: an address given on the command line, MONITORING_EMULATOR_HOST, Google when a
project is named, the running local stack. google-cloud-monitoring knows no emulator variable, and
an endpoint alone still attempts TLS, so the emulator's clients get an insecure channel.
Google and gRPC are imported late: `--help` must not wait for them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from speakfit.clock import Clock, RealClock, ScaledClock
from speakfit.errors import TargetError
from speakfit.settings import Settings

if TYPE_CHECKING:
    from google.cloud import monitoring_dashboard_v1, monitoring_v3

STACK_FILE = Path(".speakfit/stack.json")
"""Where the running local stack writes its addresses."""

LOCAL_PROJECT = "speakfit-local"
"""The project that the local stack and a bare emulator use."""

CLOCK_METHOD = "/speakfit.emulator.v1.Clock/GetClock"
TEST_METHOD = "/speakfit.emulator.v1.NotificationChannels/SendTestNotification"


class TargetKind(StrEnum):
    """Whose Cloud Monitoring it is."""

    EMULATOR = "emulator"
    GOOGLE = "google"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One Cloud Monitoring and one project in it."""

    kind: TargetKind
    project: str
    host: str | None = None

    @property
    def project_name(self) -> str:
        """Resource name, `projects/ID`."""
        return f"projects/{self.project}"

    def __str__(self) -> str:
        if self.kind is TargetKind.EMULATOR:
            return f"embedded Cloud Monitoring at {self.host}, project {self.project}"
        return f"Google Cloud Monitoring, project {self.project}"


def resolve_target(
    settings: Settings,
    *,
    emulator: str | None = None,
    project: str | None = None,
    stack_file: Path = STACK_FILE,
) -> Target:
    """Choose the target; a TargetError says how to name or start one."""
    host = emulator or settings.monitoring_emulator_host
    named = project or settings.google_cloud_project
    if host:
        return Target(kind=TargetKind.EMULATOR, project=named or LOCAL_PROJECT, host=host)
    if named:
        return Target(kind=TargetKind.GOOGLE, project=named)
    stack = stack_environment(stack_file)
    if stack:
        return Target(
            kind=TargetKind.EMULATOR,
            project=stack["GOOGLE_CLOUD_PROJECT"],
            host=stack["MONITORING_EMULATOR_HOST"],
        )
    raise TargetError(
        "No Cloud Monitoring to talk to.",
        where="--emulator, MONITORING_EMULATOR_HOST, --project, GOOGLE_CLOUD_PROJECT, local stack",
        todo="Start the local stack with `make up`, or name one of these.",
    )


def stack_environment(stack_file: Path = STACK_FILE) -> dict[str, str]:
    """The settings of the running local stack; empty when none runs here.

    A stack that was killed leaves its file behind, so its process is asked for, too. Raises a
    TargetError when the file is damaged.
    """
    import psutil

    try:
        stack = json.loads(stack_file.read_text(encoding="utf-8"))
        environment: dict[str, str] = stack["environment"]
        alive = abs(psutil.Process(stack["pid"]).create_time() - stack["born"]) < 1
    except (FileNotFoundError, psutil.NoSuchProcess):
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(
            "The record of the local stack is damaged.",
            where=str(stack_file),
            todo="Remove the file, or name a target with --emulator or --project.",
        ) from error
    return environment if alive else {}


def with_stack_settings(
    settings: Settings, target: Target, *, stack_file: Path = STACK_FILE
) -> Settings:
    """Fill what the environment leaves unset from the local stack, when that is the target.

    Never for another target: a laptop's routing keys must not reach a real project.
    """
    stack = _stack_of(target, stack_file)
    missing = {
        name: stack[name.upper()]
        for name in type(settings).model_fields
        if name not in settings.model_fields_set and name.upper() in stack
    }
    if not missing:
        return settings
    return Settings.model_validate({**settings.model_dump(exclude_unset=True), **missing})


def target_environment(target: Target, *, stack_file: Path = STACK_FILE) -> dict[str, str]:
    """The environment, and below it the local stack's, when that is the target.

    For what a catalog names itself and Settings does not know. An empty variable counts as unset.
    """
    mine = {name: value for name, value in os.environ.items() if value}
    return {**_stack_of(target, stack_file), **mine}


def _stack_of(target: Target, stack_file: Path) -> dict[str, str]:
    stack = stack_environment(stack_file)
    ours = target.host is not None and stack.get("MONITORING_EMULATOR_HOST") == target.host
    return stack if ours else {}


def local_channel(target: Target) -> Any:
    """A plain channel to an emulator; a proxy of the environment must not come between.

    Answers may be as large as those of Google's own channels: a page of series is.
    """
    import grpc

    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(str(target.host), options=options)


def _client(target: Target, service: str, package: str = "monitoring_v3") -> Any:
    client = getattr(import_module(f"google.cloud.{package}"), f"{service}Client")
    if target.kind is TargetKind.GOOGLE:
        from google.auth.exceptions import DefaultCredentialsError

        try:
            return client()
        except DefaultCredentialsError as error:
            raise TargetError(
                "No Google credentials found.",
                where=str(target),
                todo="Run `gcloud auth application-default login`, or use --emulator HOST:PORT.",
            ) from error
    transport = client.get_transport_class("grpc")
    return client(transport=transport(channel=local_channel(target)))


def metric_client(target: Target) -> monitoring_v3.MetricServiceClient:
    """The real MetricServiceClient."""
    return cast("monitoring_v3.MetricServiceClient", _client(target, "MetricService"))


def alert_policy_client(target: Target) -> monitoring_v3.AlertPolicyServiceClient:
    """The real AlertPolicyServiceClient."""
    return cast("monitoring_v3.AlertPolicyServiceClient", _client(target, "AlertPolicyService"))


def notification_channel_client(target: Target) -> monitoring_v3.NotificationChannelServiceClient:
    """The real NotificationChannelServiceClient."""
    return cast(
        "monitoring_v3.NotificationChannelServiceClient",
        _client(target, "NotificationChannelService"),
    )


def snooze_client(target: Target) -> monitoring_v3.SnoozeServiceClient:
    """The real SnoozeServiceClient."""
    return cast("monitoring_v3.SnoozeServiceClient", _client(target, "SnoozeService"))


def dashboard_client(target: Target) -> monitoring_dashboard_v1.DashboardsServiceClient:
    """The real DashboardsServiceClient."""
    return cast(
        "monitoring_dashboard_v1.DashboardsServiceClient",
        _client(target, "DashboardsService", "monitoring_dashboard_v1"),
    )


def policy_clock(target: Target) -> Clock:
    """Ask the target for its clock; Google's is UTC, an emulator's may be scaled.

    Raises TargetError when the emulator does not answer within five seconds.
    """
    if target.kind is TargetKind.GOOGLE:
        return RealClock()
    from google.protobuf import empty_pb2

    answer = _ask(target, CLOCK_METHOD, empty_pb2.Empty())
    if answer["scale"] == 1:
        return RealClock()
    return ScaledClock(
        scale=answer["scale"],
        anchor_real_ns=int(answer["anchorRealNs"]),
        anchor_policy_ns=int(answer["anchorPolicyNs"]),
    )


def policy_now_ns(target: Target) -> int:
    """The target's policy time now; that of an emulator may stand still.

    Raises TargetError like policy_clock.
    """
    if target.kind is TargetKind.GOOGLE:
        return RealClock().now_ns()
    from google.protobuf import empty_pb2

    return int(_ask(target, CLOCK_METHOD, empty_pb2.Empty())["nowNs"])


def send_test_notification(target: Target, channel: str) -> str:
    """Let an emulator notify one of its channels, as the console's test does, for nothing.

    Returns the id of the incident that it tells of, which is a page's dedup key. Google's API has
    no such call. Raises TargetError when the emulator refuses or does not answer.
    """
    from google.cloud import monitoring_v3

    request = monitoring_v3.GetNotificationChannelRequest.pb()(name=channel)
    return str(_ask(target, TEST_METHOD, request)["incidentId"])


def _ask(target: Target, method: str, request: Any) -> Any:
    """One call that only an emulator has; its answer is a Struct."""
    import grpc
    from google.protobuf import struct_pb2

    with local_channel(target) as channel:
        call = channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=struct_pb2.Struct.FromString,
        )
        try:
            return call(request, timeout=5.0)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise TargetError(error.details(), where=str(target.host)) from error
            raise TargetError(
                "The embedded Cloud Monitoring does not answer.",
                where=str(target.host),
                todo="Start it with `make up` or `python -m speakfit.emulator`, or correct "
                "the address.",
            ) from error
