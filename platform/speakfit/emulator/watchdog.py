"""The watchdog: an alert that always fires, so that whoever listens misses it when all is dead.

A dead-man's switch outside (healthchecks.io, Dead Man's Snitch, an on-call tool) is told at an
interval, by the same evaluation, queue and delivery as every page. When one of them stops, the
telling stops, and the switch raises the alarm that nobody here could raise any more.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from speakfit.clock import Clock
from speakfit.emulator.notification import mail_of, trigger_of, webhook_of
from speakfit.emulator.store import Store
from speakfit.engine.incidents import Incident, PolicyState, replay
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import parse_policy
from speakfit.errors import SettingsError

_INCIDENT = "watchdog"
"""What its notifications are queued under; incidents of policies have ids of another form."""

_CHANNEL = re.compile(r"projects/[^/]+/notificationChannels/[^/]+")
_STUCK = 10
"""A notification that failed so often, which takes minutes, means that delivery has stopped."""

_METRIC = "custom.googleapis.com/emulator/evaluations"
_KEY = SeriesKey.of(metric_type=_METRIC, resource_type="global")
_POLICY: dict[str, Any] = {
    "name": "projects/-/alertPolicies/watchdog",
    "displayName": "Watchdog",
    "combiner": "OR",
    "severity": "WARNING",
    "documentation": {
        "content": "Alert policies are evaluated and notifications delivered. Raise an alarm when "
        "this is not heard any more.",
        "mimeType": "text/markdown",
    },
    "conditions": [
        {
            "name": "projects/-/alertPolicies/watchdog/conditions/1",
            "displayName": "Evaluation goes on",
            "conditionThreshold": {
                "filter": f'metric.type="{_METRIC}" AND resource.type="global"',
                "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_COUNT"}],
                "comparison": "COMPARISON_GT",
                "thresholdValue": 0,
                "duration": "0s",
            },
        }
    ],
}


@dataclass(frozen=True, kw_only=True)
class WatchdogTarget:
    """Who is told: an address, or a notification channel that exists or will."""

    url: str = field(default="", repr=False)
    """Its path is a secret: whoever knows it can feign life."""

    channel: str = ""

    @classmethod
    def parse(cls, text: str) -> WatchdogTarget:
        """Read an http or https address or the name of a channel; a SettingsError otherwise."""
        if _CHANNEL.fullmatch(text):
            return cls(channel=text)
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme in ("http", "https") and parts.hostname:
            return cls(url=text)
        raise SettingsError(
            "The target of the watchdog cannot be read.",
            where="--watchdog",
            todo="Give the address of a dead-man's switch, such as https://hc-ping.com/UUID, or "
            "a channel as projects/ID/notificationChannels/ID.",
        )

    def __str__(self) -> str:
        return self.channel or str(urlsplit(self.url).hostname)


class Watchdog:
    """Tells its target after rounds of evaluation, not more often than the interval."""

    def __init__(
        self,
        *,
        target: WatchdogTarget,
        interval: timedelta,
        store: Store,
        clock: Clock,
        route: Callable[[str], dict[str, str] | None],
        client_url: str,
        notify: Callable[[], None],
    ) -> None:
        """`interval` is real time, because whoever listens does not know the policy clock.

        `route` finds how a channel is reached; `notify` is called after something was queued.
        """
        self.target = target
        self._interval = interval
        self._step_ns = int(interval / timedelta(microseconds=1) * clock.scale) * 1_000
        self._store = store
        self._route = route
        self._client_url = client_url
        self._notify = notify
        gauge = Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE)
        self._spec = parse_policy(_POLICY, descriptors={_METRIC: gauge}.get)
        self._state = PolicyState.empty()
        self._queued_ns: int | None = None
        self._told_ns: int | None = None
        self._problem = "nothing was evaluated yet"

    def round(self, times: Sequence[int], *, failed: int) -> None:
        """After an evaluation at these policy times, in which some policies may have failed."""
        series = Series.of_numbers(
            key=_KEY,
            kind=MetricKind.GAUGE,
            value_type=ValueType.DOUBLE,
            end_ns=list(times),
            values=[1.0] * len(times),
        )
        self._state, _events = replay(self._spec, self._state, [series], list(times))
        self._problem = self._why_not(failed)
        if self._problem:
            return
        if self._queued_ns is not None and times[-1] - self._queued_ns < self._step_ns:
            return
        self._tell(self._state.open[0])
        self._queued_ns = times[-1]
        self._notify()

    def _why_not(self, failed: int) -> str:
        """Why nobody is to be told that all is well; empty when it is."""
        if not self._state.open:
            return "its own alert does not fire"
        if failed:
            return f"{failed} policies could not be evaluated"
        if self._found_route() is None:
            return f"nothing is delivered to {self.target}"
        stuck = [
            row
            for row in self._store.notifications("pending")
            if row[1] != _INCIDENT and row[5] >= _STUCK
        ]
        return f"{len(stuck)} notifications are not delivered" if stuck else ""

    def _found_route(self) -> dict[str, str] | None:
        if self.target.url:
            return {"kind": "webhook", "url": self.target.url}
        return self._route(self.target.channel)

    def _tell(self, incident: Incident) -> None:
        route = self._found_route()
        assert route is not None
        event: dict[str, Any]
        if route["kind"] == "pagerduty":
            event = trigger_of(
                incident,
                self._spec,
                incident_id=_INCIDENT,
                project="-",
                routing_key=route["routing_key"],
                client_url=self._client_url,
            ).to_json()
        else:
            event = webhook_of(
                incident,
                self._spec,
                incident_id=_INCIDENT,
                project="-",
                condition=_POLICY["conditions"][0],
                client_url=self._client_url,
            )
            if route["kind"] == "email":
                event = mail_of(event)
        # What is told late would feign life: it is worthless once the next is due.
        expires_ns = time.time_ns() + self._interval // timedelta(microseconds=1) * 1_000
        body = json.dumps({**route, "event": event, "expiresNs": expires_ns})
        self._told_ns = self.told_ns
        with self._store.transaction():
            self._store.drop_notifications(_INCIDENT)
            self._store.add_notification(
                incident=_INCIDENT, channel=f"{_INCIDENT} {self.target}", body=body
            )

    @property
    def problem(self) -> str:
        """Why the target is not told, in a few words; empty while it is."""
        if self._problem:
            return self._problem
        return next((row[6] for row in self._store.notifications(incident=_INCIDENT) if row[6]), "")

    @property
    def told_ns(self) -> int | None:
        """The policy time of the last evaluation that the target heard of since the start."""
        if self._store.notifications("sent", incident=_INCIDENT):
            return self._queued_ns
        return self._told_ns
