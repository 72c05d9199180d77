"""The dashboards of one project, read and written through Google's own client.

A dashboard has an etag: an update carries the one that was read, and the server refuses it when
somebody was faster. A delete carries none, so the dashboard is read again before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alerts import gateway as alerting
from alerts.encode import mapping
from alerts.plan import Action, Change
from dashboards.plan import NEWER, Live
from dashboards.shape import Json
from speakfit.errors import TargetError
from speakfit.target import Target, TargetKind, dashboard_client

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError

_READ_SECONDS = {TargetKind.EMULATOR: 5.0, TargetKind.GOOGLE: 30.0}
_WRITE_SECONDS = 60.0
_TRIES = 6
_PAUSE = 0.5
"""Seconds before the first retry of a conflict; doubles each time."""
_PAGE = 100


class Gateway:
    """The dashboards of one project, and the names of its alert policies."""

    def __init__(self, target: Target, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.target = target
        self._sleep = sleep
        self._read_seconds = _READ_SECONDS[target.kind]
        self._alerting = alerting.Gateway(target)

    @cached_property
    def _client(self) -> Any:
        return dashboard_client(self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alerting.__exit__(kind, error, trace)
        if "_client" in self.__dict__:
            self._client.transport.close()

    def read(self) -> Live:
        """Everything live that a plan needs; a TargetError when the server does not answer."""
        from google.api_core.exceptions import GoogleAPICallError

        try:
            pager = self._client.list_dashboards(
                request={"parent": self.target.project_name, "page_size": _PAGE},
                retry=None,
                timeout=self._read_seconds,
            )
            dashboards = tuple(_rest(one) for one in pager)
        except GoogleAPICallError as error:
            raise self._unreadable(error) from error
        return Live(dashboards=dashboards, policies=self._alerting.policies())

    def write(self, change: Change, *, channel_names: Mapping[str, str], key: str | None) -> str:
        """Make one change and return the dashboard's name.

        A conflict that is nobody's edit is retried; Google's exceptions pass. A MovedError says
        that somebody edited the dashboard, and nothing was written.
        """
        from google.api_core.exceptions import Aborted, NotFound

        pause = _PAUSE
        for tried in range(1, _TRIES + 1):
            if change.action is Action.DELETE and self._unmoved(change) is None:
                return change.name
            try:
                return self._write_once(change)
            except NotFound:
                if change.action is Action.DELETE:
                    return change.name
                raise alerting.MovedError(None) from None
            except Aborted:
                if change.action is not Action.CREATE:
                    self._unmoved(change)
                if tried == _TRIES:
                    raise
                self._sleep(pause)
                pause *= 2
        raise AssertionError("unreachable")

    def _unmoved(self, change: Change) -> Json | None:
        """What is live when it is still what the plan was made from; None when it is gone."""
        live = self._get(change.name)
        if live is not None and live.get("etag", "") != change.fingerprint:
            raise alerting.MovedError(live)
        return live

    def _get(self, name: str) -> Json | None:
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        try:
            return _rest(
                self._client.get_dashboard(
                    request={"name": name}, retry=None, timeout=self._read_seconds
                )
            )
        except NotFound:
            return None
        except GoogleAPICallError as error:
            raise self._unreadable(error) from error

    def _write_once(self, change: Change) -> str:
        if change.action is Action.DELETE:
            self._client.delete_dashboard(
                request={"name": change.name}, retry=None, timeout=_WRITE_SECONDS
            )
            return change.name
        message = _message({**change.body, "etag": change.fingerprint})
        if change.action is Action.CREATE:
            answer = self._client.create_dashboard(
                request={"parent": self.target.project_name, "dashboard": message},
                retry=None,
                timeout=_WRITE_SECONDS,
            )
        else:
            answer = self._client.update_dashboard(
                request={"dashboard": message}, retry=None, timeout=_WRITE_SECONDS
            )
        return str(answer.name)

    def _unreadable(self, error: GoogleAPICallError) -> TargetError:
        refusal = alerting.explain(error, self.target)
        return TargetError(
            refusal.what.removesuffix(".") + "; nothing was changed.",
            where=str(self.target),
            todo=refusal.todo,
        )


def _message(body: Mapping[str, Any]) -> Any:
    from google.cloud import monitoring_dashboard_v1
    from google.protobuf import json_format

    message = monitoring_dashboard_v1.Dashboard()
    json_format.ParseDict(dict(body), type(message).pb(message))
    return message


def _rest(message: Any) -> Json:
    """A dashboard in REST form; fields that the messages do not know are counted, not seen."""
    plain = type(message).pb(message)
    body = mapping(message)
    known = type(plain)()
    known.CopyFrom(plain)
    known.DiscardUnknownFields()
    beyond = plain.ByteSize() - known.ByteSize()
    return {**body, NEWER: f"{beyond} bytes"} if beyond else body
