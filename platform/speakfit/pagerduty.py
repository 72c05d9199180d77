"""Events to PagerDuty and incidents from it; the only module that knows pdpyras.

pdpyras is end-of-life and says so on import. Its successor refuses http:// addresses, which the
embedded PagerDuty has, so the warning is silenced here and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from speakfit.errors import PagerDutyError

MAX_SUMMARY = 1_024
"""Characters PagerDuty takes as a summary; longer ones are cut, because a page must not be lost."""

_TIMEOUT = timedelta(seconds=10)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FINAL_STATUS = frozenset({400, 413})
"""What PagerDuty says about the event itself, with a JSON object. Anything else (a proxy's 403, a
web server's 400, a login page with 200) is about the way there; giving up would lose the page."""


class Severity(StrEnum):
    """PagerDuty's severities, worst first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link shown on the incident, for instance to the runbook."""

    href: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Opens an alert, or adds to the open one of the same dedup key and routing key."""

    routing_key: str = field(repr=False)
    dedup_key: str
    summary: str
    source: str
    severity: Severity
    timestamp: datetime | None = None
    component: str = ""
    custom_details: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    client: str = ""
    client_url: str = ""

    def to_json(self) -> dict[str, Any]:
        """The event as the Events API v2 takes it, without the routing key."""
        payload: dict[str, Any] = {
            "summary": self.summary[:MAX_SUMMARY],
            "source": self.source,
            "severity": self.severity.value,
        }
        if self.timestamp is not None:
            payload["timestamp"] = self.timestamp.isoformat()
        if self.component:
            payload["component"] = self.component
        if self.custom_details:
            payload["custom_details"] = dict(self.custom_details)
        event: dict[str, Any] = {
            "event_action": "trigger",
            "dedup_key": self.dedup_key,
            "payload": payload,
        }
        if self.links:
            event["links"] = [{"href": link.href, "text": link.text} for link in self.links]
        if self.client:
            event["client"] = self.client
        if self.client_url:
            event["client_url"] = self.client_url
        return event


@dataclass(frozen=True, kw_only=True)
class Resolve:
    """Resolves the open alert of a dedup key; without one PagerDuty drops it."""

    routing_key: str = field(repr=False)
    dedup_key: str

    def to_json(self) -> dict[str, Any]:
        """The event as the Events API v2 takes it, without the routing key."""
        return {"event_action": "resolve", "dedup_key": self.dedup_key}


PagerDutyEvent = Trigger | Resolve


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event read back from a queue, sent as it was written."""

    routing_key: str = field(repr=False)
    body: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The event as the Events API v2 takes it, without the routing key."""
        return dict(self.body)


@dataclass(frozen=True, kw_only=True)
class PagerDutyIncident:
    """One incident as PagerDuty's REST API tells it."""

    id: str
    number: int
    title: str
    status: str
    urgency: str
    service: str
    dedup_key: str
    created_at: str
    changed_at: str
    severity: str = ""
    component: str = ""
    """What the event named as its component; our notifier names the policy's `alert-id`."""
    links: tuple[Link, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def _pdpyras() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pdpyras.*")
        import pdpyras
    return pdpyras


def _configure(session: Any, url: str) -> Any:
    session.url = url.rstrip("/")
    session.timeout = _TIMEOUT.total_seconds()
    # pdpyras retries 429 without end and sleeps seconds between tries; our queue owns retries.
    session.retry = {429: 1}
    session.sleep_timer = 0.25
    session.max_network_attempts = 0
    if urlsplit(url).hostname in _LOOPBACK:
        # A proxy from the environment cannot reach our loopback.
        session.trust_env = False
    return session


def _raised(pdpyras: Any, error: Exception, url: str) -> PagerDutyError:
    """Our error for one of pdpyras', whose texts may end in the tail of a key."""
    response = getattr(error, "response", None)
    if response is None:
        return PagerDutyError(
            "PagerDuty does not answer.",
            retry=True,
            where=url,
            todo="Check the address and the network; the event stays queued.",
        )
    status = int(response.status_code)
    reasons, told = "", False
    try:
        body = response.json()
        told = isinstance(body, dict)
        if told and isinstance(body.get("errors"), list):
            reasons = ": " + "; ".join(str(reason) for reason in body["errors"])
    except ValueError:
        told = False
    retry = status not in _FINAL_STATUS or not told
    return PagerDutyError(
        f"PagerDuty answered {status}{reasons}.",
        retry=retry,
        where=url,
        todo="Check the address and the way there; it is tried again."
        if retry
        else "Check the routing key and the event.",
    )


def send(event: PagerDutyEvent | StoredEvent, events_url: str) -> str:
    """Send one event to the Events API v2 and give back its dedup key.

    A 429 is retried once here; everything else is a PagerDutyError at once whose `retry` says
    whether sending again can help.
    """
    pdpyras = _pdpyras()
    session = _configure(pdpyras.EventsAPISession(event.routing_key), events_url)
    body = event.to_json()
    action = body.pop("event_action")
    # The session holds no cookies worth keeping: one event, one connection, closed after it.
    with session:
        try:
            return str(session.send_event(action, **body))
        except pdpyras.PDClientError as error:
            raise _raised(pdpyras, error, events_url) from error


def _incident(body: Mapping[str, Any], alerts: list[Mapping[str, Any]]) -> PagerDutyIncident:
    alert: Mapping[str, Any] = alerts[0] if alerts else {}
    inner = alert.get("body") or {}
    return PagerDutyIncident(
        id=str(body["id"]),
        number=int(body["incident_number"]),
        title=str(body["title"]),
        status=str(body["status"]),
        urgency=str(body["urgency"]),
        service=str(body["service"]["summary"]),
        dedup_key=str(alert.get("alert_key") or body.get("incident_key") or ""),
        created_at=str(body["created_at"]),
        changed_at=str(body.get("last_status_change_at") or body["created_at"]),
        severity=str(alert.get("severity") or ""),
        component=str((inner.get("cef_details") or {}).get("source_component") or ""),
        links=tuple(
            Link(href=str(context["href"]), text=str(context.get("text") or context["href"]))
            for context in inner.get("contexts") or ()
            if context.get("type") == "link"
        ),
        details=dict(inner.get("details") or {}),
    )


def incidents(api_url: str, token: str) -> list[PagerDutyIncident]:
    """All incidents with their first alert's links and details, oldest first.

    `token` is a REST API token (the embedded PagerDuty takes any). A PagerDutyError otherwise.
    """
    pdpyras = _pdpyras()
    session = _configure(pdpyras.APISession(token), api_url)
    with session:
        try:
            return [
                _incident(body, list(session.rget(f"/incidents/{body['id']}/alerts")))
                for body in session.iter_all(
                    "incidents", params={"sort_by": "created_at:asc", "date_range": "all"}
                )
            ]
        except pdpyras.PDClientError as error:
            raise _raised(pdpyras, error, api_url) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PagerDutyError(
                "PagerDuty's answer is not in the form of its REST API.",
                retry=False,
                where=api_url,
                todo="Check that the address is PagerDuty's REST API.",
            ) from error
