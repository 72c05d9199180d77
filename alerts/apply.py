"""Reads what is live and makes the planned writes, one after another.

Google asks for single-threaded edits per project. A write that meets a concurrent edit is tried
again; one that meets a quota stops the rest, and everything done and not done is told. Each write
is whole by itself and identity lives in labels, so whatever was cut off, the next apply converges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alerts.encode import (
    CHANNEL_PREFIX,
    Json,
    channel_message,
    descriptor_message,
    mapping,
    policy_message,
    with_channel_names,
    with_secret,
)
from alerts.plan import Action, Change, Kind, Live, Plan
from alerts.policy import Catalog
from speakfit.errors import ApplyError, SpeakFitError, TargetError
from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    metric_client,
    notification_channel_client,
)

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError

_READ_SECONDS = {TargetKind.EMULATOR: 5.0, TargetKind.GOOGLE: 30.0}
_SERIES_SECONDS = 60.0
"""For an answer of many points."""
_WRITE_SECONDS = 60.0
"""Google's own writes were seen to take 5.5 s."""
_CONFLICT_TRIES = 6
_CONFLICT_PAUSE = 0.5
"""Seconds before the first retry of a conflict; doubles each time."""
_DESCRIPTOR_TRIES = 8
_DESCRIPTOR_PAUSE = 1.0
"""A new descriptor can take a while to be seen by policies: 255 s in all, then we stop."""


class Gateway:
    """One project of one Cloud Monitoring, read and written through the real clients."""

    def __init__(self, target: Target, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.target = target
        self._sleep = sleep
        self._read_seconds = _READ_SECONDS[target.kind]
        self._metrics = metric_client(target)
        self._channels = notification_channel_client(target)
        self._policies = alert_policy_client(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        clients: tuple[Any, ...] = (self._metrics, self._channels, self._policies)
        for client in clients:
            client.transport.close()

    def read(self, catalog: Catalog) -> Live:
        """Everything live that a plan needs; a TargetError when the server does not answer."""
        metric_types = [metric.type for metric in catalog.metrics]
        return Live(
            policies=self.policies(),
            channels=self.channels(),
            metrics=self.descriptors(metric_types),
        )

    def policies(self) -> tuple[Json, ...]:
        """Every live policy, ours or not."""
        return self._list(self._policies.list_alert_policies)

    def channels(self) -> tuple[Json, ...]:
        """Every live channel, ours or not."""
        return self._list(self._channels.list_notification_channels)

    def descriptors(self, metric_types: Collection[str]) -> tuple[Json, ...]:
        """The descriptors of these metrics, where they exist."""
        # One read per domain instead of one per metric; what else it returns does no harm.
        domains = sorted({metric_type.partition("/")[0] for metric_type in metric_types})
        found = [
            metric
            for domain in domains
            for metric in self._list(
                self._metrics.list_metric_descriptors,
                filter=f'metric.type = starts_with("{domain}/")',
            )
        ]
        return tuple(metric for metric in found if metric["type"] in metric_types)

    def series(self, **request: Any) -> Iterator[Any]:
        """The series of one ListTimeSeries as plain protobuf messages; one may come in parts."""
        from google.api_core.exceptions import GoogleAPICallError
        from google.api_core.gapic_v1.method import DEFAULT

        try:
            pager = self._metrics.list_time_series(
                request={"name": self.target.project_name, **request},
                # A month is many reads: Google's client tries one again that was not answered.
                retry=None if self.target.kind is TargetKind.EMULATOR else DEFAULT,
                timeout=_SERIES_SECONDS,
            )
            for page in pager.pages:
                # The wrapped messages of proto-plus are many times slower.
                yield from type(page).pb(page).time_series
        except GoogleAPICallError as error:
            raise self._unreadable(error) from error

    def _list(self, method: Callable[..., Any], **request: str) -> tuple[Json, ...]:
        from google.api_core.exceptions import GoogleAPICallError

        try:
            pager = method(
                request={"name": self.target.project_name, **request},
                retry=None,
                timeout=self._read_seconds,
            )
            return tuple(mapping(item) for item in pager)
        except GoogleAPICallError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: GoogleAPICallError) -> SpeakFitError:
        from google.api_core import exceptions

        if isinstance(error, exceptions.ServiceUnavailable | exceptions.DeadlineExceeded):
            start = (
                "Start it with `make up` or `python -m speakfit.emulator`, or correct the address."
                if self.target.kind is TargetKind.EMULATOR
                else "Check the network and Google's status, then try again."
            )
            return TargetError(
                "Cloud Monitoring does not answer; nothing was changed.",
                where=str(self.target),
                todo=start,
            )
        if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
            return TargetError(
                f"Cloud Monitoring refuses the credentials: {error.message}",
                where=str(self.target),
                todo="Log in with `gcloud auth application-default login` as somebody with "
                "roles/monitoring.editor.",
            )
        return TargetError(
            f"Cloud Monitoring refuses to be read: {error.message}",
            where=str(self.target),
            todo="Correct what it names; nothing was changed.",
        )

    def write(self, change: Change, *, channel_names: Mapping[str, str], key: str | None) -> str:
        """Make one change and return the resource's name.

        `channel_names` maps `channel:ID` to the server's names; `key` is a channel's integration
        key where the change carries one. Conflicts are retried; Google's exceptions pass.
        """
        from google.api_core.exceptions import Aborted, NotFound

        pause, conflicts, misses = _CONFLICT_PAUSE, 0, 0
        while True:
            try:
                return self._write_once(change, channel_names, key)
            except Aborted:
                conflicts += 1
                if conflicts == _CONFLICT_TRIES:
                    raise
                self._sleep(pause)
                pause *= 2
            except NotFound as error:
                fresh = change.kind is Kind.POLICY and "Cannot find metric" in str(error.message)
                misses += 1
                if not fresh or misses == _DESCRIPTOR_TRIES:
                    raise
                self._sleep(_DESCRIPTOR_PAUSE * 2 ** (misses - 1))

    def _write_once(self, change: Change, channel_names: Mapping[str, str], key: str | None) -> str:
        call: Callable[..., Any]
        request: Json
        if change.action is Action.DELETE:
            call = (
                self._policies.delete_alert_policy
                if change.kind is Kind.POLICY
                else self._channels.delete_notification_channel
            )
            call(request={"name": change.name}, retry=None, timeout=_WRITE_SECONDS)
            return change.name
        parent = {"name": self.target.project_name} if change.action is Action.CREATE else {}
        mask = {"update_mask": {"paths": list(change.mask)}} if change.mask else {}
        if change.kind is Kind.METRIC:
            # Creating a descriptor again adds the labels it lacks.
            call = self._metrics.create_metric_descriptor
            request = {
                "name": self.target.project_name,
                "metric_descriptor": descriptor_message(change.body),
            }
        elif change.kind is Kind.CHANNEL:
            body = {**change.body, "name": change.name}
            if key is not None:
                body = with_secret(body, key)
            call = (
                self._channels.create_notification_channel
                if change.action is Action.CREATE
                else self._channels.update_notification_channel
            )
            request = {**parent, **mask, "notification_channel": channel_message(body)}
        else:
            body = with_channel_names(change.body, channel_names)
            call = (
                self._policies.create_alert_policy
                if change.action is Action.CREATE
                else self._policies.update_alert_policy
            )
            request = {**parent, **mask, "alert_policy": policy_message(body)}
        answer = call(request=request, retry=None, timeout=_WRITE_SECONDS)
        return str(answer.name)


def apply_plan(
    gateway: Gateway,
    plan: Plan,
    *,
    keys: Mapping[str, str],
    on_done: Callable[[Change], None] = lambda change: None,
    before: int = 0,
    after: int = 0,
) -> None:
    """Make every change of a plan in order; `keys` holds channels' secrets by channel id.

    `before` and `after` count what is done elsewhere around it, for whoever reads of a stop.

    Raises ApplyError, with how many changes were done and left, when a write fails. A channel
    without its key is refused before the first write: it would swallow every page.
    """
    for change in plan.changes:
        if change.secret and change.id not in keys:
            raise ApplyError(
                f"Channel {change.id} needs its secret; nothing was changed.",
                left=len(plan.changes),
                where=str(gateway.target),
                todo="Give the key, token or password that the catalog names for it.",
            )
    if not plan.changes:
        return
    from google.api_core.exceptions import GoogleAPICallError

    names = dict(plan.channel_names)
    for done, change in enumerate(plan.changes):
        try:
            name = gateway.write(
                change,
                channel_names=names,
                key=keys.get(change.id) if change.secret else None,
            )
        except GoogleAPICallError as error:
            total = before + len(plan.changes) + after
            raise _stopped(error, change, gateway.target, before + done, total) from error
        if change.kind is Kind.CHANNEL and change.action is Action.CREATE:
            names[CHANNEL_PREFIX + change.id] = name
        on_done(change)


def _stopped(
    error: GoogleAPICallError, change: Change, target: Target, done: int, total: int
) -> ApplyError:
    from google.api_core import exceptions

    where = f"{change.action} {change.kind} {change.id}, {target}"
    left = total - done
    if isinstance(error, exceptions.ResourceExhausted | exceptions.TooManyRequests):
        what, todo = "Cloud Monitoring's quota is used up", "Wait a minute, then apply again."
    elif isinstance(error, exceptions.ServiceUnavailable | exceptions.DeadlineExceeded):
        what = "Cloud Monitoring stopped answering; this write may or may not have happened"
        todo = "Apply again when it answers: it reads what is live and does the rest."
    elif isinstance(error, exceptions.Aborted):
        what = f"somebody else keeps editing the project: {error.message}"
        todo = "Apply again when they are done."
    elif isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        what = f"Cloud Monitoring refuses the credentials: {error.message}"
        todo = "Log in as somebody with roles/monitoring.editor, then apply again."
    else:
        what = f"Cloud Monitoring refuses it: {error.message}"
        todo = "Correct what it names, then apply again."
    return ApplyError(
        f"Stopped after {done} of {total} changes: {what}.".replace("..", "."),
        done=done,
        left=left,
        where=where,
        todo=todo,
    )
