"""An embedded PagerDuty: the Events API v2 in, incidents out in the form of the REST API.

Behaviour is PagerDuty's own documentation of both APIs: keys match only under the same routing
key, acknowledge and resolve without an open alert are dropped, a trigger after a resolve opens a
new incident, urgency follows the service. Times are policy time.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speakfit.clock import Clock, from_ns
from speakfit.emulator.store import Store
from speakfit.errors import SettingsError

_COLLECTION = "pagerduty.incidents"
_CHANGES = "pagerduty.changes"
_ROUTING_KEY_LENGTH = 32
_MAX_DEDUP_KEY = 255
_MAX_SUMMARY = 1_024
_MAX_BODY = 512 * 1_024
_CALLS_PER_MINUTE = 120
_SEVERITIES = ("critical", "error", "warning", "info")
_ACTIONS = ("trigger", "acknowledge", "resolve")
_MAX_LIMIT = 100
_DEFAULT_LIMIT = 25
_ID_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PagerDutyService:
    """One service: what its key is and how loud its incidents are (`high` or `low`)."""

    name: str
    routing_key: str = field(repr=False)
    urgency: str

    @classmethod
    def parse(cls, text: str) -> PagerDutyService:
        """Read `NAME=ROUTING_KEY:high|low`; the error never shows the key."""
        name, equals, rest = text.partition("=")
        key, colon, urgency = rest.rpartition(":")
        if not (name and equals and colon and urgency in ("high", "low")):
            raise SettingsError(
                "A PagerDuty service cannot be read.",
                where="--pagerduty-service",
                todo='Write it as "NAME=ROUTING_KEY:high" or "NAME=ROUTING_KEY:low".',
            )
        if len(key) != _ROUTING_KEY_LENGTH:
            raise SettingsError(
                f'The routing key of "{name}" has {len(key)} characters.',
                where="--pagerduty-service",
                todo=f"A routing key has {_ROUTING_KEY_LENGTH} characters.",
            )
        return cls(name=name, routing_key=key, urgency=urgency)

    @property
    def id(self) -> str:
        """A stable id in PagerDuty's form."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return "P" + "".join(_ID_LETTERS[byte % 36] for byte in digest[:6])


def _new_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ID_LETTERS) for _ in range(13))


def _invalid(*errors: str, status: int = 400) -> Answer:
    return status, {
        "status": "invalid event",
        "message": "Event object is invalid",
        "errors": list(errors),
    }


_NOT_FOUND: Answer = (404, {"error": {"message": "Not Found", "code": 2100}})


class EmbeddedPagerDuty:
    """Takes events, keeps incidents; durable when the store is."""

    def __init__(
        self, *, store: Store, clock: Clock, services: tuple[PagerDutyService, ...]
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = store.lock
        self._services = {service.routing_key: service for service in services}
        self._calls: dict[str, deque[float]] = {}
        self._incidents: dict[str, dict[str, Any]] = {
            name: json.loads(body) for name, body in store.documents(_COLLECTION)
        }
        self.base_url = ""
        """The address incidents link to; set when the port is known."""

    # Events API v2

    def enqueue(self, raw: bytes) -> Answer:
        """POST /v2/enqueue."""
        body = self._read(raw)
        if isinstance(body, tuple):
            return body
        errors = self._errors(body)
        if errors:
            return _invalid(*errors)
        key = body["routing_key"]
        service = self._services.get(key)
        if service is None:
            return _invalid("Invalid routing key")
        with self._lock:
            if self._throttled(key):
                return 429, {
                    "status": "throttle exceeded",
                    "message": "Requests for this service are arriving too quickly.  "
                    "Please retry later.",
                    "errors": ["Enhance Your Calm."],
                }
            dedup_key = body.get("dedup_key") or uuid.uuid4().hex
            self._apply(service, dedup_key, body)
        return 202, {"status": "success", "message": "Event processed", "dedup_key": dedup_key}

    def enqueue_change(self, raw: bytes) -> Answer:
        """POST /v2/change/enqueue: kept, shown nowhere yet."""
        body = self._read(raw)
        if isinstance(body, tuple):
            return body
        payload = body.get("payload")
        errors = self._key_errors(body)
        if not isinstance(payload, dict) or not payload.get("summary"):
            errors.append("'payload.summary' is missing or blank")
        if errors:
            return _invalid(*errors)
        service = self._services.get(body["routing_key"])
        if service is None:
            return _invalid("Invalid routing key")
        stored = {key: value for key, value in body.items() if key != "routing_key"}
        stored["service"] = service.id
        self._store.put(_CHANGES, _new_id("C"), json.dumps(stored).encode())
        return 202, {"status": "success", "message": "Change event processed"}

    @staticmethod
    def _read(raw: bytes) -> dict[str, Any] | Answer:
        if len(raw) > _MAX_BODY:
            return _invalid("Event size exceeds the limit of 512 KB", status=413)
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return 400, {
                "status": "invalid event",
                "message": "Event object format is unrecognized",
                "errors": ["JSON parse error"],
            }
        if not isinstance(body, dict):
            return 400, {
                "status": "invalid event",
                "message": "Event object format is unrecognized",
                "errors": ["Event object is not a JSON object"],
            }
        return body

    @staticmethod
    def _key_errors(body: Mapping[str, Any]) -> list[str]:
        key = body.get("routing_key")
        if not key or not isinstance(key, str):
            return ["'routing_key' is missing or blank"]
        if len(key) != _ROUTING_KEY_LENGTH:
            return [
                f"Length of 'routing_key' is incorrect (should be {_ROUTING_KEY_LENGTH} characters)"
            ]
        return []

    def _errors(self, body: Mapping[str, Any]) -> list[str]:
        errors = self._key_errors(body)
        action = body.get("event_action")
        if not action:
            errors.append("'event_action' is missing or blank")
        elif action not in _ACTIONS:
            errors.append(f"'event_action' is invalid (should be one of {', '.join(_ACTIONS)})")
        dedup_key = body.get("dedup_key")
        if dedup_key is not None and not isinstance(dedup_key, str):
            errors.append("'dedup_key' is not a string")
        elif dedup_key is not None and len(dedup_key) > _MAX_DEDUP_KEY:
            errors.append(f"'dedup_key' is too long (maximum is {_MAX_DEDUP_KEY} characters)")
        elif action in ("acknowledge", "resolve") and not dedup_key:
            errors.append("'dedup_key' is missing or blank")
        if action == "trigger":
            errors.extend(self._payload_errors(body.get("payload")))
            errors.extend(self._link_errors(body.get("links")))
        return errors

    @staticmethod
    def _payload_errors(payload: Any) -> list[str]:
        if not isinstance(payload, dict):
            return ["'payload' is missing or blank"]
        errors = []
        for name in ("summary", "source", "severity"):
            value = payload.get(name)
            if not value:
                errors.append(f"'payload.{name}' is missing or blank")
            elif not isinstance(value, str):
                errors.append(f"'payload.{name}' is not a string")
        summary = payload.get("summary")
        if isinstance(summary, str) and len(summary) > _MAX_SUMMARY:
            errors.append(f"'payload.summary' is too long (maximum is {_MAX_SUMMARY} characters)")
        severity = payload.get("severity")
        if isinstance(severity, str) and severity and severity not in _SEVERITIES:
            errors.append(
                f"'payload.severity' is invalid (must be one of the following: "
                f"{', '.join(_SEVERITIES)})"
            )
        return errors

    @staticmethod
    def _link_errors(links: Any) -> list[str]:
        if links is None:
            return []
        if not isinstance(links, list):
            return ["'links' is not an array"]
        return [
            f"'links[{index}].href' is missing or blank"
            for index, link in enumerate(links)
            if not isinstance(link, dict) or not link.get("href")
        ]

    def _throttled(self, key: str) -> bool:
        # PagerDuty counts real time, whatever the policy clock says.
        now = time.monotonic()
        calls = self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - 60:
            calls.popleft()
        if len(calls) >= _CALLS_PER_MINUTE:
            return True
        calls.append(now)
        return False

    def _now(self) -> str:
        return from_ns(self._clock.now_ns()).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _open(self, service: PagerDutyService, dedup_key: str) -> dict[str, Any] | None:
        for incident in reversed(self._incidents.values()):
            if incident["service"] == service.id and incident["dedup_key"] == dedup_key:
                return incident if incident["status"] != "resolved" else None
        return None

    def _apply(self, service: PagerDutyService, dedup_key: str, body: Mapping[str, Any]) -> None:
        action, now = body["event_action"], self._now()
        found = self._open(service, dedup_key)
        if found is None and action != "trigger":
            return
        # Worked on as a copy: a refused write must not change what is shown.
        incident: dict[str, Any]
        if found is None:
            incident = {
                "id": _new_id("Q"),
                "number": len(self._incidents) + 1,
                "service": service.id,
                "service_name": service.name,
                "urgency": service.urgency,
                "dedup_key": dedup_key,
                "status": "triggered",
                "created_at": now,
                "changed_at": now,
                "resolved_at": None,
                "event": {key: value for key, value in body.items() if key != "routing_key"},
                "log": [],
            }
        else:
            incident = json.loads(json.dumps(found))
        if action == "acknowledge" and incident["status"] == "triggered":
            incident.update(status="acknowledged", changed_at=now)
        elif action == "resolve":
            incident.update(status="resolved", changed_at=now, resolved_at=now)
        incident["log"].append({"id": _new_id("R"), "action": action, "at": now})
        self._store.put(_COLLECTION, incident["id"], json.dumps(incident).encode())
        self._incidents[incident["id"]] = incident

    # REST API

    def answer(self, path: str, query: list[tuple[str, str]]) -> Answer:
        """GET on a REST path."""
        parts = path.strip("/").split("/")
        with self._lock:
            if len(parts) == 1 and parts[0] not in ("services", "incidents"):
                return _NOT_FOUND
            if parts[0] == "services":
                return self._services_answer(parts[1:], query)
            if parts == ["incidents"]:
                return self._list(query)
            incident = self._incidents.get(parts[1]) if parts[0] == "incidents" else None
            if incident is None:
                return _NOT_FOUND
            if len(parts) == 2:
                return 200, {"incident": self._incident(incident)}
            if parts[2:] == ["log_entries"]:
                entries = [self._log_entry(incident, entry) for entry in incident["log"]]
                return self._paged("log_entries", list(reversed(entries)), query)
            if parts[2:] == ["alerts"]:
                return self._paged("alerts", [self._alert(incident)], query)
            if parts[2:3] == ["alerts"] and parts[3:] == [self._alert_id(incident)]:
                return 200, {"alert": self._alert(incident)}
        return _NOT_FOUND

    def pages(self) -> list[dict[str, Any]]:
        """All incidents as stored, newest first, for the console."""
        with self._lock:
            return list(reversed(self._incidents.values()))

    def _reference(self, kind: str, identity: str, summary: str) -> dict[str, Any]:
        return {
            "id": identity,
            "type": f"{kind}_reference",
            "summary": summary,
            "self": f"{self.base_url}/{kind}s/{identity}",
            "html_url": f"{self.base_url}/",
        }

    def _incident(self, incident: Mapping[str, Any]) -> dict[str, Any]:
        title = incident["event"]["payload"]["summary"]
        resolved = incident["status"] == "resolved"
        service = self._reference("service", incident["service"], incident["service_name"])
        return {
            "id": incident["id"],
            "type": "incident",
            "summary": f"[#{incident['number']}] {title}",
            "self": f"{self.base_url}/incidents/{incident['id']}",
            "html_url": f"{self.base_url}/",
            "incident_number": incident["number"],
            "title": title,
            "description": title,
            "created_at": incident["created_at"],
            "updated_at": incident["changed_at"],
            "status": incident["status"],
            "incident_key": incident["dedup_key"],
            "service": service,
            "assignments": [],
            "acknowledgements": [
                {"at": entry["at"], "acknowledger": service}
                for entry in incident["log"]
                if entry["action"] == "acknowledge" and incident["status"] == "acknowledged"
            ],
            "last_status_change_at": incident["changed_at"],
            "last_status_change_by": service,
            "first_trigger_log_entry": {
                "id": incident["log"][0]["id"],
                "type": "trigger_log_entry_reference",
                "summary": "Triggered through the API.",
                "self": f"{self.base_url}/log_entries/{incident['log'][0]['id']}",
                "html_url": None,
            },
            "alert_counts": {
                "all": 1,
                "triggered": 0 if resolved else 1,
                "resolved": 1 if resolved else 0,
            },
            "is_mergeable": not resolved,
            "teams": [],
            "priority": None,
            "resolved_at": incident["resolved_at"],
            "urgency": incident["urgency"],
        }

    @staticmethod
    def _alert_id(incident: Mapping[str, Any]) -> str:
        return "A" + str(incident["id"])[1:]

    def _alert(self, incident: Mapping[str, Any]) -> dict[str, Any]:
        event = incident["event"]
        payload = event["payload"]
        contexts = [
            {"type": "link", "href": link["href"], "text": link.get("text") or link["href"]}
            for link in event.get("links") or ()
        ]
        details = payload.get("custom_details") or {}
        identity = self._alert_id(incident)
        place = f"{self.base_url}/incidents/{incident['id']}"
        return {
            "id": identity,
            "type": "alert",
            "summary": payload["summary"],
            "self": f"{place}/alerts/{identity}",
            "html_url": f"{self.base_url}/",
            "created_at": incident["created_at"],
            "status": "resolved" if incident["status"] == "resolved" else "triggered",
            "resolved_at": incident["resolved_at"],
            "alert_key": incident["dedup_key"],
            "severity": payload["severity"],
            "suppressed": False,
            "service": self._reference("service", incident["service"], incident["service_name"]),
            "incident": self._reference(
                "incident", incident["id"], f"[#{incident['number']}] {payload['summary']}"
            ),
            "body": {
                "type": "alert_body",
                "contexts": contexts,
                "details": details,
                "cef_details": {
                    "version": "1.0",
                    "severity": payload["severity"],
                    "description": payload["summary"],
                    "source_origin": payload["source"],
                    "source_component": payload.get("component"),
                    "dedup_key": incident["dedup_key"],
                    "service_group": payload.get("group"),
                    "event_class": payload.get("class"),
                    "creation_time": payload.get("timestamp"),
                    "contexts": contexts,
                    "details": details,
                    "client": event.get("client"),
                    "client_url": event.get("client_url"),
                },
            },
        }

    def _log_entry(self, incident: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
        kind = f"{entry['action']}_log_entry"
        words = {"trigger": "Triggered", "acknowledge": "Acknowledged", "resolve": "Resolved"}
        payload = incident["event"]["payload"]
        channel: dict[str, Any] = {"type": "api"}
        if entry["action"] == "trigger":
            channel.update(
                summary=payload["summary"],
                details=payload.get("custom_details") or {},
                client=incident["event"].get("client"),
                client_url=incident["event"].get("client_url"),
            )
        service = self._reference("service", incident["service"], incident["service_name"])
        return {
            "id": entry["id"],
            "type": kind,
            "summary": f"{words[entry['action']]} through the API.",
            "self": f"{self.base_url}/log_entries/{entry['id']}",
            "html_url": None,
            "created_at": entry["at"],
            "agent": service,
            "channel": channel,
            "service": service,
            "incident": self._reference(
                "incident", incident["id"], f"[#{incident['number']}] {payload['summary']}"
            ),
            "teams": [],
            "contexts": [],
        }

    @staticmethod
    def _many(query: list[tuple[str, str]], name: str) -> list[str]:
        return [value for key, value in query if key in (name, f"{name}[]")]

    def _list(self, query: list[tuple[str, str]]) -> Answer:
        statuses = self._many(query, "statuses")
        urgencies = self._many(query, "urgencies")
        services = self._many(query, "service_ids")
        keys = self._many(query, "incident_key")
        found = [
            incident
            for incident in self._incidents.values()
            if (not statuses or incident["status"] in statuses)
            and (not urgencies or incident["urgency"] in urgencies)
            and (not services or incident["service"] in services)
            and (not keys or incident["dedup_key"] in keys)
        ]
        order = dict(query).get("sort_by", "created_at:desc")
        if order.endswith(":desc"):
            found.reverse()
        return self._paged("incidents", [self._incident(one) for one in found], query)

    def _services_answer(self, rest: list[str], query: list[tuple[str, str]]) -> Answer:
        shown: list[dict[str, Any]] = [
            {
                "id": service.id,
                "type": "service",
                "summary": service.name,
                "name": service.name,
                "description": None,
                "self": f"{self.base_url}/services/{service.id}",
                "html_url": f"{self.base_url}/",
                "status": "active",
                "alert_creation": "create_alerts_and_incidents",
                "incident_urgency_rule": {"type": "constant", "urgency": service.urgency},
                "teams": [],
                "integrations": [],
            }
            for service in self._services.values()
        ]
        if not rest:
            return self._paged("services", shown, query)
        for service in shown:
            if rest == [service["id"]]:
                return 200, {"service": service}
        return _NOT_FOUND

    @staticmethod
    def _paged(name: str, items: list[Any], query: list[tuple[str, str]]) -> Answer:
        given = dict(query)
        try:
            limit = int(given.get("limit", _DEFAULT_LIMIT))
            offset = int(given.get("offset", 0))
            if not 0 < limit <= _MAX_LIMIT or offset < 0:
                raise ValueError
        except ValueError:
            return 400, {
                "error": {
                    "message": "Invalid Input Provided",
                    "code": 2001,
                    "errors": [f"limit must be 1 to {_MAX_LIMIT}, offset at least 0"],
                }
            }
        return 200, {
            name: items[offset : offset + limit],
            "limit": limit,
            "offset": offset,
            "total": len(items) if given.get("total") == "true" else None,
            "more": offset + limit < len(items),
        }
