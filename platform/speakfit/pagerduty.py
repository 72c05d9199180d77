"""Events to PagerDuty, and its account through the REST API; the only module that knows pdpyras.

pdpyras is end-of-life and says so on import. Its successor refuses http:// addresses, which the
embedded PagerDuty has, so the warning is silenced here and nowhere else.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from speakfit.errors import PagerDutyError

MAX_SUMMARY = 1_024
"""Characters PagerDuty takes as a summary; longer ones are cut, because a page must not be lost."""

MAX_NOTE = 25_000
"""Characters PagerDuty takes as a note; longer ones are cut."""

EVENTS_INTEGRATION = "events_api_v2_inbound_integration"
"""The type of the integrations whose keys the Events API v2 takes."""

_T = TypeVar("_T")
_TIMEOUT = timedelta(seconds=10)
_READ_TRIES = 4
_RATE_TRIES = 6
_FIRST_PAUSE = 0.5
"""Seconds before the first new try; doubles each time."""
_LONGEST_PAUSE = 60.0
"""PagerDuty's rate limits count per minute: after one there is room again."""
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


def _pdpyras() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pdpyras.*")
        import pdpyras
    # Its warnings would go to stderr when nobody has configured logging; its errors come as such.
    logging.getLogger("pdpyras").addHandler(logging.NullHandler())
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
            reasons = ": " + "; ".join(str(reason).rstrip(".") for reason in body["errors"])
    except ValueError:
        told = False
    retry = status not in _FINAL_STATUS or not told
    return PagerDutyError(
        f"PagerDuty answered {status}{reasons}.",
        retry=retry,
        status=status,
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
    url: str = ""
    """Where people see it."""
    escalation_policy: str = ""
    assigned_to: tuple[str, ...] = ()
    acknowledged_by: tuple[str, ...] = ()
    """Who has it in hand now; PagerDuty forgets them here once it is resolved."""


@dataclass(frozen=True, kw_only=True)
class Integration:
    """One way into a service; the key is what its events carry."""

    id: str
    name: str
    type: str
    key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service as PagerDuty has it; time-outs of None are switched off."""

    id: str
    name: str
    status: str
    urgency: str
    """`high`, `low` or `severity_based`; the type of the rule where that says something else."""
    escalation_policy_id: str
    escalation_policy: str
    acknowledgement_timeout: timedelta | None
    auto_resolve_timeout: timedelta | None
    integrations: tuple[Integration, ...] = ()
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What is written of a service; everything else stays as it is."""

    name: str
    urgency: str
    escalation_policy_id: str
    acknowledgement_timeout: timedelta | None = None
    auto_resolve_timeout: timedelta | None = None

    def to_json(self) -> dict[str, Any]:
        """The service object of PagerDuty's REST API."""
        return {
            "type": "service",
            "name": self.name,
            "incident_urgency_rule": {"type": "constant", "urgency": self.urgency},
            "escalation_policy": {
                "id": self.escalation_policy_id,
                "type": "escalation_policy_reference",
            },
            "acknowledgement_timeout": _seconds(self.acknowledgement_timeout),
            "auto_resolve_timeout": _seconds(self.auto_resolve_timeout),
        }


@dataclass(frozen=True, kw_only=True)
class OnCall:
    """Somebody who is on call now; level 1 is called first."""

    user: str
    level: int


def _seconds(duration: timedelta | None) -> int | None:
    return None if duration is None else int(duration.total_seconds())


def _timeout(seconds: object) -> timedelta | None:
    # PagerDuty switches a time-out off by null or by 0.
    return timedelta(seconds=seconds) if isinstance(seconds, int) and seconds else None


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
        url=str(body.get("html_url") or ""),
        escalation_policy=str((body.get("escalation_policy") or {}).get("summary") or ""),
        assigned_to=tuple(str(one["assignee"]["summary"]) for one in body.get("assignments") or ()),
        acknowledged_by=tuple(
            str(one["acknowledger"]["summary"]) for one in body.get("acknowledgements") or ()
        ),
    )


def _service(body: Mapping[str, Any], integrations: Sequence[Integration]) -> Service:
    rule = body.get("incident_urgency_rule") or {}
    policy = body["escalation_policy"]
    return Service(
        id=str(body["id"]),
        name=str(body["name"]),
        status=str(body["status"]),
        urgency=str(rule.get("urgency") or rule.get("type") or ""),
        escalation_policy_id=str(policy["id"]),
        escalation_policy=str(policy.get("summary") or policy["id"]),
        acknowledgement_timeout=_timeout(body.get("acknowledgement_timeout")),
        auto_resolve_timeout=_timeout(body.get("auto_resolve_timeout")),
        integrations=tuple(integrations),
        url=str(body.get("html_url") or ""),
    )


def _integration(body: Mapping[str, Any]) -> Integration:
    return Integration(
        id=str(body["id"]),
        name=str(body.get("name") or body.get("summary") or ""),
        type=str(body["type"]).removesuffix("_reference"),
        key=str(body.get("integration_key") or ""),
    )


class PagerDutyApi:
    """One PagerDuty account through its REST API v2; a context manager.

    Reads are tried again after a lost connection, a 5xx or a 429; writes only after a 429, which
    says that nothing was done. Everything else is a PagerDutyError that never shows the token.
    """

    def __init__(
        self, url: str, token: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url = url.rstrip("/")
        self._sleep = sleep
        self._pdpyras = _pdpyras()
        self._session = _configure(self._pdpyras.APISession(token), url)
        # It would wait for a 429 without end and without looking at how long: that is done here.
        self._session.max_http_attempts = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def escalation_policies(self) -> dict[str, str]:
        """The id of every escalation policy, by name."""
        return {str(one["name"]): str(one["id"]) for one in self._list("escalation_policies")}

    def services(self) -> list[Service]:
        """Every service with its Events API v2 integrations and their keys."""
        found = []
        for body in self._list("services", {"include": ["integrations"]}):
            integrations = [_integration(one) for one in body.get("integrations") or ()]
            whole = [
                self.integration(str(body["id"]), one.id)
                if one.type == EVENTS_INTEGRATION and not one.key
                else one
                for one in integrations
            ]
            found.append(self._read(_service, body, whole))
        return found

    def integration(self, service_id: str, integration_id: str) -> Integration:
        """One integration with its key."""
        path = f"services/{service_id}/integrations/{integration_id}"
        return self._read(_integration, self._call(lambda: self._session.rget(path)))

    def create_service(self, settings: ServiceSettings) -> Service:
        """A new service, without any integration."""
        body = self._call(
            lambda: self._session.rpost("services", json=settings.to_json()), write=True
        )
        return self._read(_service, body, ())

    def update_service(self, service: Service, settings: ServiceSettings) -> None:
        """Change what the settings say; the rest of the service stays."""
        wish = settings.to_json()
        if service.urgency not in ("high", "low", "severity_based"):
            # A constant urgency and support hours exclude each other.
            wish |= {"support_hours": None, "scheduled_actions": []}
        path = f"services/{service.id}"
        self._call(lambda: self._session.rput(path, json=wish), write=True)

    def create_integration(self, service_id: str, name: str) -> Integration:
        """A new Events API v2 integration with a key of its own."""
        wish = {"type": EVENTS_INTEGRATION, "name": name}
        path = f"services/{service_id}/integrations"
        body = self._call(lambda: self._session.rpost(path, json=wish), write=True)
        return self._read(_integration, body)

    def on_call(self, escalation_policy_id: str) -> list[OnCall]:
        """Who is on call for an escalation policy now, the first level first."""
        wish = {"escalation_policy_ids": [escalation_policy_id]}
        found = {
            OnCall(user=str(one["user"]["summary"]), level=int(one["escalation_level"])): None
            for one in self._list("oncalls", wish)
        }
        return sorted(found, key=lambda one: one.level)

    def maintenance_until(self, service_id: str) -> str | None:
        """When the ongoing maintenance of a service ends, None when there is none."""
        wish = {"service_ids": [service_id], "filter": "ongoing"}
        windows = self._list("maintenance_windows", wish)
        return max((str(one["end_time"]) for one in windows), default=None)

    def incidents(
        self,
        *,
        since: datetime | None = None,
        statuses: Sequence[str] = (),
        service_ids: Sequence[str] = (),
        dedup_key: str = "",
    ) -> list[PagerDutyIncident]:
        """Incidents with their first alert's links and details, oldest first.

        `since` may lie 180 days back; without it there is no limit in time.
        """
        wish: dict[str, Any] = {"sort_by": "created_at:asc"}
        if since is None:
            wish["date_range"] = "all"
        else:
            wish["since"] = since.isoformat()
        if statuses:
            wish["statuses"] = list(statuses)
        if service_ids:
            wish["service_ids"] = list(service_ids)
        if dedup_key:
            wish["incident_key"] = dedup_key
        return [
            self._read(_incident, body, self._list(f"incidents/{body['id']}/alerts"))
            for body in self._list("incidents", wish)
        ]

    def acknowledgers(self, incident_id: str) -> tuple[str, ...]:
        """Everybody who ever acknowledged an incident, in order."""
        found = [
            str(one["agent"]["summary"])
            for one in self._list(f"incidents/{incident_id}/log_entries")
            if one["type"] == "acknowledge_log_entry"
        ]
        return tuple(dict.fromkeys(reversed(found)))

    def create_note(self, incident_id: str, content: str, *, sender: str) -> None:
        """Add a note to an incident in the name of a user, told by their e-mail address."""
        self._call(
            lambda: self._session.rpost(
                f"incidents/{incident_id}/notes",
                json={"content": content[:MAX_NOTE]},
                headers={"From": sender},
            ),
            write=True,
        )

    def _list(self, path: str, wish: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return list(self._call(lambda: list(self._session.iter_all(path, params=dict(wish or {})))))

    def _read(self, make: Callable[..., _T], *parts: Any) -> _T:
        try:
            return make(*parts)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(self.url) from error

    def _call(self, call: Callable[[], Any], *, write: bool = False) -> Any:
        tries, pause = 0, _FIRST_PAUSE
        while True:
            tries += 1
            try:
                return call()
            except self._pdpyras.PDClientError as error:
                failure = _refusal(error, self.url, write=write)
                limited = failure.status == 429
                again = limited or (failure.retry and not write)
                if not again or tries == (_RATE_TRIES if limited else _READ_TRIES):
                    raise failure from error
                self._sleep(_reset(error) if limited else pause)
                pause *= 2
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise _unreadable(self.url) from error


def _unreadable(url: str) -> PagerDutyError:
    return PagerDutyError(
        "PagerDuty's answer is not in the form of its REST API.",
        retry=False,
        where=url,
        todo="Check that the address is PagerDuty's REST API.",
    )


def _reset(error: Exception) -> float:
    """How long PagerDuty says to wait after a 429, in seconds."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    text = headers.get("ratelimit-reset") or headers.get("Retry-After") or ""
    return min(float(text), _LONGEST_PAUSE) if text.isdigit() else _LONGEST_PAUSE / _RATE_TRIES


def _refusal(error: Exception, url: str, *, write: bool) -> PagerDutyError:
    """Our error for one of pdpyras', whose texts may end in the tail of a token."""
    response = getattr(error, "response", None)
    unsure = "; this write may or may not have happened" if write else ""
    if response is None:
        return PagerDutyError(
            f"PagerDuty does not answer{unsure}.",
            retry=True,
            where=url,
            todo="Check PAGERDUTY_API_URL and the network, then repeat.",
        )
    status = int(response.status_code)
    if status < 400:
        return _unreadable(url)
    what, todo = f"PagerDuty answered {status}{_reasons(response)}", "Correct what it names."
    if status == 401:
        what = "PagerDuty does not accept the token"
        todo = "Set PAGERDUTY_API_TOKEN to a REST API key of this account."
    elif status == 403:
        what = f"PagerDuty does not permit it{_reasons(response)}"
        todo = (
            "Set PAGERDUTY_API_TOKEN to a REST API key that may write: this one is read-only or "
            "belongs to somebody without the right."
            if write
            else "Set PAGERDUTY_API_TOKEN to a REST API key that may read this."
        )
    elif status == 429:
        what = "PagerDuty's rate limit is used up"
        todo = "Wait a minute, then repeat."
    elif status >= 500:
        what, todo = f"PagerDuty answered {status}{unsure}", "Wait a minute, then repeat."
    return PagerDutyError(
        f"{what}.", retry=status == 429 or status >= 500, status=status, where=url, todo=todo
    )


def _reasons(response: Any) -> str:
    """`: message (reason, reason)`, as far as the answer is in PagerDuty's form."""
    try:
        error = response.json()["error"]
        reasons = ", ".join(str(one) for one in error.get("errors") or ())
        return f": {error['message']}" + (f" ({reasons})" if reasons else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def incidents(api_url: str, token: str) -> list[PagerDutyIncident]:
    """All incidents with their first alert's links and details, oldest first.

    `token` is a REST API token (the embedded PagerDuty takes any). A PagerDutyError otherwise.
    """
    with PagerDutyApi(api_url, token) as api:
        return api.incidents()
