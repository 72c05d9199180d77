"""What one PagerDuty account holds: users, policies, services, keys, incidents; durable.

Every change is made on a copy, stored, and shown only when the store took it: a refused write
changes nothing that anybody can see. Times are policy time.
"""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from speakfit.clock import Clock, from_ns
from speakfit.emulator.pagerduty_events import ROUTING_KEY_LENGTH
from speakfit.emulator.pagerduty_schedules import Shift, is_ongoing, shifts
from speakfit.emulator.store import Store
from speakfit.errors import SettingsError

Document = dict[str, Any]

USERS = "users"
ESCALATION_POLICIES = "escalation_policies"
SERVICES = "services"
INTEGRATIONS = "integrations"
INCIDENTS = "incidents"
CHANGES = "changes"
SCHEDULES = "schedules"
WINDOWS = "maintenance_windows"
KINDS = (
    USERS,
    SCHEDULES,
    ESCALATION_POLICIES,
    SERVICES,
    INTEGRATIONS,
    WINDOWS,
    INCIDENTS,
    CHANGES,
)

DEFAULT_EMAIL = "oncall@pagerduty.test"
"""The user every account begins with; writes may name it in their From header."""

_ID_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HIGH_SEVERITIES = ("critical", "error")


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
        if len(key) != ROUTING_KEY_LENGTH:
            raise SettingsError(
                f'The routing key of "{name}" has {len(key)} characters.',
                where="--pagerduty-service",
                todo=f"A routing key has {ROUTING_KEY_LENGTH} characters.",
            )
        return cls(name=name, routing_key=key, urgency=urgency)

    @property
    def id(self) -> str:
        """A stable id in PagerDuty's form."""
        return stable_id(self.name)


def stable_id(text: str) -> str:
    """An id in PagerDuty's form that is the same after each start."""
    digest = hashlib.sha256(text.encode()).digest()
    return "P" + "".join(_ID_LETTERS[byte % 36] for byte in digest[:6])


def new_id(prefix: str) -> str:
    """A fresh id in PagerDuty's form."""
    return prefix + "".join(secrets.choice(_ID_LETTERS) for _ in range(13))


class PagerDutyAccount:
    """Documents by kind and id, in the order they were made; calls hold `lock` themselves."""

    def __init__(
        self, *, store: Store, clock: Clock, services: tuple[PagerDutyService, ...]
    ) -> None:
        self._store = store
        self._clock = clock
        self.lock = store.lock
        self._documents: dict[str, dict[str, Document]] = {}
        self._keys: dict[str, str] = {}
        """Integration by routing key."""
        self._open: dict[tuple[str | None, str], str] = {}
        """Unresolved incident by integration and dedup key."""
        for kind in KINDS:
            self._documents[kind] = {}
        self._declare(services)
        # What the command line says holds for this run, whatever was stored before.
        urgencies = {service.id: service.urgency for service in services}
        keys = {one["id"]: one["integration_key"] for one in self.all(INTEGRATIONS)}
        for kind in KINDS:
            for name, body in store.documents(f"pagerduty.{kind}"):
                document = {"id": name, **json.loads(body)}
                if kind == SERVICES and name in urgencies:
                    document["urgency"] = urgencies[name]
                elif kind == INTEGRATIONS and name in keys:
                    document["integration_key"] = keys[name]
                self._show(kind, document)

    def _declare(self, services: tuple[PagerDutyService, ...]) -> None:
        """What an account has before anybody changed it; stored only once it is changed."""
        now = self.now()
        user = {"id": stable_id(DEFAULT_EMAIL), "name": "On Call", "email": DEFAULT_EMAIL}
        self._show(USERS, {**user, "role": "owner", "time_zone": "UTC"})
        rule = {
            "id": stable_id("default rule"),
            "escalation_delay_in_minutes": 30,
            "targets": [user["id"]],
        }
        policy = {"id": stable_id("Default"), "name": "Default", "description": ""}
        self._show(ESCALATION_POLICIES, {**policy, "num_loops": 0, "rules": [rule]})
        for service in services:
            self._show(
                SERVICES,
                {
                    "id": service.id,
                    "name": service.name,
                    "description": None,
                    "status": "active",
                    "urgency": service.urgency,
                    "escalation_policy": policy["id"],
                    "created_at": now,
                },
            )
            self._show(
                INTEGRATIONS,
                {
                    "id": stable_id(f"{service.name} integration"),
                    "service": service.id,
                    "name": "Events API V2",
                    "integration_key": service.routing_key,
                    "created_at": now,
                },
            )

    def _show(self, kind: str, document: Document) -> None:
        self._documents[kind][document["id"]] = document
        if kind == INTEGRATIONS:
            self._keys[document["integration_key"]] = document["id"]
        elif kind == INCIDENTS:
            document.setdefault("notes", [])
            if "integration" not in document:
                # Written before services could have several keys.
                found = [
                    one["id"]
                    for one in self._documents[INTEGRATIONS].values()
                    if one["service"] == document["service"]
                ]
                document["integration"] = found[0] if found else None
            line = document["integration"], document["dedup_key"]
            if document["status"] != "resolved":
                self._open[line] = document["id"]
            elif self._open.get(line) == document["id"]:
                del self._open[line]

    def now(self) -> str:
        """The policy time in the form of PagerDuty's answers."""
        return self.now_time().strftime("%Y-%m-%dT%H:%M:%SZ")

    def now_time(self) -> datetime:
        """The policy time."""
        return from_ns(self._clock.now_ns())

    def all(self, kind: str) -> list[Document]:
        """All documents of a kind, oldest first; not to be changed."""
        return list(self._documents[kind].values())

    def find(self, kind: str, identity: object) -> Document | None:
        """One document, not to be changed, or None."""
        return self._documents[kind].get(identity) if isinstance(identity, str) else None

    def edit(self, kind: str, identity: str) -> Document:
        """A copy to change and give to `put`."""
        return copy.deepcopy(self._documents[kind][identity])

    def put(self, kind: str, *documents: Document) -> None:
        """Store documents together or not at all; Unavailable when the disk refuses."""
        with self.lock:
            with self._store.transaction():
                for document in documents:
                    body = json.dumps(document).encode()
                    self._store.put(f"pagerduty.{kind}", document["id"], body)
            for document in documents:
                self._show(kind, document)

    def remove(self, kind: str, *identities: str) -> None:
        """Forget documents; those declared at the start are back after the next one."""
        with self.lock:
            with self._store.transaction():
                for identity in identities:
                    self._store.remove(f"pagerduty.{kind}", identity)
            for identity in identities:
                document = self._documents[kind].pop(identity)
                if kind == INTEGRATIONS:
                    self._keys.pop(document["integration_key"], None)

    def integration_of(self, routing_key: str) -> Document | None:
        """The integration that takes events under a key, or None."""
        return self.find(INTEGRATIONS, self._keys.get(routing_key))

    def open_incident(self, integration: str | None, dedup_key: str) -> Document | None:
        """The unresolved incident of a dedup key under one integration, or None."""
        return self.find(INCIDENTS, self._open.get((integration, dedup_key)))

    def on_call(self, policy: str) -> list[Shift]:
        """Everybody on call for an escalation policy now, by level."""
        found = self.find(ESCALATION_POLICIES, policy)
        if found is None:
            return []
        return shifts(found, self.now_time(), schedule=lambda one: self.find(SCHEDULES, one))

    def in_maintenance(self, service: str) -> bool:
        """Whether a maintenance window of a service is open."""
        now = self.now_time()
        return any(
            service in window["services"] and is_ongoing(window, now)
            for window in self.all(WINDOWS)
        )

    def takes_incidents(self, service: Mapping[str, Any]) -> bool:
        """Whether an event opens an incident: not when disabled, in maintenance, or nobody's."""
        return (
            service["status"] != "disabled"
            and not self.in_maintenance(service["id"])
            and bool(self.on_call(service["escalation_policy"]))
        )

    def new_incident(
        self,
        *,
        service: Mapping[str, Any],
        integration: str | None,
        dedup_key: str,
        event: Mapping[str, Any],
        urgency: str = "",
    ) -> Document:
        """An incident that nobody sees before it is `put`."""
        now = self.now()
        return {
            "id": new_id("Q"),
            "number": len(self._documents[INCIDENTS]) + 1,
            "service": service["id"],
            "service_name": service["name"],
            "integration": integration,
            "urgency": urgency or urgency_of(service, event["payload"]["severity"]),
            "dedup_key": dedup_key,
            "status": "triggered",
            "created_at": now,
            "changed_at": now,
            "resolved_at": None,
            "event": dict(event),
            "log": [],
            "notes": [],
        }

    def record(
        self, incident: Document, action: str, *, user: str | None = None, note: str = ""
    ) -> None:
        """Apply an action to a copy of an incident; `user` is None for the Events API."""
        now = self.now()
        if action == "acknowledge" and incident["status"] == "triggered":
            incident.update(status="acknowledged", changed_at=now)
        elif action == "resolve":
            incident.update(status="resolved", changed_at=now, resolved_at=now)
        entry = {"id": new_id("R"), "action": action, "at": now, "user": user}
        if note:
            entry["note"] = note
        incident["log"].append(entry)


def urgency_of(service: Mapping[str, Any], severity: str) -> str:
    """How loud an event is on a service: constant, or by the severity of the event."""
    if service["urgency"] != "severity_based":
        return str(service["urgency"])
    return "high" if severity in _HIGH_SEVERITIES else "low"
