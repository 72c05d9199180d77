"""One project of one Cloud Monitoring, read and written through Google's own clients.

Google asks for single-threaded edits per project: writes go out one after another. Every write to
something live is preceded by a read of it, because AlertPolicy has no etag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alerts.encode import (
    Json,
    channel_message,
    descriptor_message,
    mapping,
    policy_message,
    snooze_message,
    with_channel_names,
    with_secret,
)
from alerts.plan import Action, Change, Kind, Live, fingerprint
from alerts.policy import Catalog
from speakfit.errors import ApplyError, TargetError
from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    metric_client,
    notification_channel_client,
    snooze_client,
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
_PAGE = 1000
"""The most that a list answers at once; 500 policies are a project's limit."""


class MovedError(Exception):
    """A resource is not what it was when the change was planned; nothing was sent.

    `live` is what it is now, or None when it is gone.
    """

    def __init__(self, live: Json | None) -> None:
        super().__init__("the live resource has moved")
        self.live = live


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why Google's client gave up, for people."""

    what: str
    todo: str
    uncertain: bool = False
    """The request may have been carried out although no answer came."""


def explain(error: GoogleAPICallError, target: Target) -> Refusal:
    """What an error of the API means and what to do about it."""
    from google.api_core import exceptions

    login = "Log in with `gcloud auth application-default login`"
    if isinstance(error, exceptions.Unauthorized) or (
        # How google-auth tells of a revoked or expired login: the request never left.
        "Getting metadata from plugin failed" in str(error.message)
    ):
        return Refusal(
            what=f"Cloud Monitoring does not accept the credentials: {error.message}",
            todo=f"{login}, then repeat.",
        )
    if isinstance(error, exceptions.Forbidden):
        return Refusal(
            what=f"Cloud Monitoring does not permit it: {error.message}",
            todo=f"{login} as somebody with roles/monitoring.editor, then repeat.",
        )
    if isinstance(error, exceptions.TooManyRequests):
        return Refusal(
            what="Cloud Monitoring's quota is used up", todo="Wait a minute, then repeat."
        )
    if isinstance(error, exceptions.Aborted):
        return Refusal(
            what=f"somebody else keeps editing the project: {error.message}",
            todo="Repeat when they are done.",
        )
    if isinstance(error, exceptions.ServiceUnavailable | exceptions.DeadlineExceeded):
        return Refusal(
            what="Cloud Monitoring does not answer",
            todo="Start it with `make up` or `python -m speakfit.emulator`, or correct the address."
            if target.kind is TargetKind.EMULATOR
            else "Check the network and Google's status, then repeat.",
            uncertain=True,
        )
    return Refusal(
        what=f"Cloud Monitoring refuses it: {error.message}",
        todo="Correct what it names, then repeat.",
        uncertain=isinstance(error, exceptions.ServerError | exceptions.Cancelled),
    )


class Gateway:
    """One project of one Cloud Monitoring, read and written through the real clients."""

    def __init__(self, target: Target, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.target = target
        self._sleep = sleep
        self._read_seconds = _READ_SECONDS[target.kind]

    @cached_property
    def _metrics(self) -> Any:
        return metric_client(self.target)

    @cached_property
    def _channels(self) -> Any:
        return notification_channel_client(self.target)

    @cached_property
    def _policies(self) -> Any:
        return alert_policy_client(self.target)

    @cached_property
    def _snoozes(self) -> Any:
        return snooze_client(self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in ("_metrics", "_channels", "_policies", "_snoozes"):
            if name in self.__dict__:
                self.__dict__[name].transport.close()

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

    def read_policy(self, name: str) -> Json | None:
        """One policy by its resource name; None when there is none."""
        return self._get(self._policies.get_alert_policy, name)

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
            raise self._unreadable(error, "; nothing was changed.") from error

    def _list(
        self, method: Callable[..., Any], *, parent: bool = False, **request: str
    ) -> tuple[Json, ...]:
        from google.api_core.exceptions import GoogleAPICallError

        project = {"parent" if parent else "name": self.target.project_name}
        try:
            pager = method(
                request={**project, "page_size": _PAGE, **request},
                retry=None,
                timeout=self._read_seconds,
            )
            return tuple(mapping(item) for item in pager)
        except GoogleAPICallError as error:
            raise self._unreadable(error, "; nothing was changed.") from error

    def _get(self, method: Callable[..., Any], name: str) -> Json | None:
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        try:
            return mapping(method(request={"name": name}, retry=None, timeout=self._read_seconds))
        except NotFound:
            return None
        except GoogleAPICallError as error:
            raise self._unreadable(error, ".") from error

    def _unreadable(self, error: GoogleAPICallError, ending: str) -> TargetError:
        refusal = explain(error, self.target)
        return TargetError(
            refusal.what.removesuffix(".") + ending, where=str(self.target), todo=refusal.todo
        )

    def snoozes(self) -> tuple[Json, ...]:
        """Every snooze of the project, those that have ended too."""
        return self._list(self._snoozes.list_snoozes, parent=True)

    def create_snooze(self, body: Json) -> Json:
        """Make a snooze; an ApplyError when it is refused or nobody answers."""
        request = {"parent": self.target.project_name, "snooze": snooze_message(body)}
        return self._changed(self._snoozes.create_snooze, request)

    def update_snooze(self, body: Json, mask: Sequence[str]) -> Json:
        """Change a snooze; an ApplyError when it is refused or nobody answers."""
        request = {"snooze": snooze_message(body), "update_mask": {"paths": list(mask)}}
        return self._changed(self._snoozes.update_snooze, request)

    def _changed(self, method: Callable[..., Any], request: Json) -> Json:
        from google.api_core.exceptions import GoogleAPICallError

        try:
            return mapping(method(request=request, retry=None, timeout=_WRITE_SECONDS))
        except GoogleAPICallError as error:
            refusal = explain(error, self.target)
            maybe = "; it may or may not have happened" if refusal.uncertain else ""
            raise ApplyError(
                f"{refusal.what.removesuffix('.')}{maybe}.",
                uncertain=refusal.uncertain,
                where=str(self.target),
                todo=refusal.todo,
            ) from error

    def write(self, change: Change, *, channel_names: Mapping[str, str], key: str | None) -> str:
        """Make one change and return the resource's name.

        `channel_names` maps `channel:ID` to the server's names; `key` is a channel's secret
        where the change carries one. Conflicts are retried; Google's exceptions pass. A
        MovedError comes before anything is sent.
        """
        from google.api_core.exceptions import Aborted, NotFound

        pause, conflicts, misses = _CONFLICT_PAUSE, 0, 0
        while True:
            # A conflict says that somebody edits the project: look again before each try.
            if change.fingerprint and not self._still(change):
                return change.name
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

    def _still(self, change: Change) -> bool:
        """Whether there is something to do: False for a delete of what is gone already."""
        method = (
            self._policies.get_alert_policy
            if change.kind is Kind.POLICY
            else self._channels.get_notification_channel
        )
        live = self._get(method, change.name)
        if live is None and change.action is Action.DELETE:
            return False
        if live is None or fingerprint(change.kind, live) != change.fingerprint:
            raise MovedError(live)
        return True

    def _write_once(self, change: Change, channel_names: Mapping[str, str], key: str | None) -> str:
        call: Callable[..., Any]
        request: Json
        if change.action is Action.DELETE:
            call = {
                Kind.POLICY: self._policies.delete_alert_policy,
                Kind.CHANNEL: self._channels.delete_notification_channel,
                Kind.METRIC: self._metrics.delete_metric_descriptor,
            }[change.kind]
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
            call = (
                self._policies.create_alert_policy
                if change.action is Action.CREATE
                else self._policies.update_alert_policy
            )
            message = policy_message(with_channel_names(change.body, channel_names))
            request = {**parent, **mask, "alert_policy": message}
        answer = call(request=request, retry=None, timeout=_WRITE_SECONDS)
        return str(answer.name)
