"""An embedded PagerDuty: the Events API v2 in, incidents out by the REST API.

Behaviour is PagerDuty's own documentation of both APIs: keys match only under the same routing
key, acknowledge and resolve without an open alert are dropped, a trigger after a resolve opens a
new incident, urgency follows the service, and one that is disabled, in maintenance or without
anybody on call takes events and opens nothing. Times are policy time.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

from speakfit.clock import Clock
from speakfit.emulator import pagerduty_events as events
from speakfit.emulator.pagerduty_account import (
    CHANGES,
    INCIDENTS,
    SERVICES,
    Document,
    PagerDutyAccount,
    PagerDutyService,
    new_id,
)
from speakfit.emulator.pagerduty_events import Answer
from speakfit.emulator.pagerduty_rest import PagerDutyRest, Request
from speakfit.emulator.pagerduty_shapes import Shapes
from speakfit.emulator.store import Store
from speakfit.errors import Unavailable

__all__ = ["Answer", "EmbeddedPagerDuty", "PagerDutyService", "Request"]

_WINDOW_SECONDS = 60.0


class EmbeddedPagerDuty:
    """Takes events, keeps incidents, answers REST calls; durable when the store is."""

    def __init__(
        self, *, store: Store, clock: Clock, services: tuple[PagerDutyService, ...]
    ) -> None:
        self._account = PagerDutyAccount(store=store, clock=clock, services=services)
        self._shapes = Shapes(self._account)
        self._rest = PagerDutyRest(self._account, self._shapes)
        self._calls: dict[str, deque[float]] = {}

    @property
    def base_url(self) -> str:
        """The address incidents link to; set when the port is known."""
        return self._shapes.base_url

    @base_url.setter
    def base_url(self, url: str) -> None:
        self._shapes.base_url = url

    def enqueue(self, raw: bytes | None) -> Answer:
        """POST /v2/enqueue; None stands for a body that is too large to be read."""
        body = events.read(raw)
        if isinstance(body, Answer):
            return body
        errors = events.alert_errors(body)
        if errors:
            return events.invalid(*errors)
        try:
            with self._account.lock:
                integration = self._account.integration_of(body["routing_key"])
                if integration is None:
                    return events.invalid("Invalid routing key")
                wait = self._throttled(body["routing_key"])
                if wait is not None:
                    return events.throttled(wait)
                dedup_key = body.get("dedup_key") or uuid.uuid4().hex
                self._apply(integration, dedup_key, body)
        except Unavailable as error:
            return events.broken(error.what)
        return events.accepted("Event processed", dedup_key=dedup_key)

    def enqueue_change(self, raw: bytes | None) -> Answer:
        """POST /v2/change/enqueue; kept, listed, and never a page."""
        body = events.read(raw)
        if isinstance(body, Answer):
            return body
        errors = events.change_errors(body)
        if errors:
            return events.invalid(*errors)
        try:
            with self._account.lock:
                integration = self._account.integration_of(body["routing_key"])
                if integration is None:
                    return events.invalid("Invalid routing key")
                wait = self._throttled(body["routing_key"])
                if wait is not None:
                    return events.throttled(wait)
                change = {
                    **_without_key(body),
                    "id": new_id("C"),
                    "service": integration["service"],
                    "integration": integration["id"],
                    "created_at": self._account.now(),
                }
                self._account.put(CHANGES, change)
        except Unavailable as error:
            return events.broken(error.what)
        return events.accepted("Change event processed")

    def answer(self, request: Request) -> Answer:
        """One call of the REST API."""
        try:
            return self._rest.answer(request)
        except Unavailable as error:
            failure = {"message": error.what, "code": 2000}
            return Answer(status=503, body={"error": failure})

    def pages(self) -> list[Document]:
        """All incidents as stored, newest first, for the console."""
        with self._account.lock:
            return self._account.all(INCIDENTS)[::-1]

    def _throttled(self, key: str) -> float | None:
        """Seconds until this key may call again, or None when it may now."""
        # PagerDuty counts real time, whatever the policy clock says.
        now = time.monotonic()
        calls = self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - _WINDOW_SECONDS:
            calls.popleft()
        if len(calls) >= events.CALLS_PER_MINUTE:
            return calls[0] + _WINDOW_SECONDS - now
        calls.append(now)
        return None

    def _apply(
        self, integration: Mapping[str, Any], dedup_key: str, body: Mapping[str, Any]
    ) -> None:
        action = body["event_action"]
        found = self._account.open_incident(integration["id"], dedup_key)
        if found is not None:
            incident = self._account.edit(INCIDENTS, found["id"])
        else:
            service = self._account.find(SERVICES, integration["service"])
            if action != "trigger" or service is None or not self._account.takes_incidents(service):
                # Taken and dropped, as PagerDuty does.
                return
            incident = self._account.new_incident(
                service=service,
                integration=integration["id"],
                dedup_key=dedup_key,
                event=_without_key(body),
            )
        self._account.record(incident, action)
        self._account.put(INCIDENTS, incident)


def _without_key(body: Mapping[str, Any]) -> Document:
    return {name: value for name, value in body.items() if name != "routing_key"}
