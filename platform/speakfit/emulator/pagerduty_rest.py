"""PagerDuty's REST API v2, the part that alert tools use: one table of routes.

Forms, codes and rules are PagerDuty's documentation ("Errors", "Pagination", "Authentication",
the API reference). Any token is good, and counts as an account's: a write in somebody's name needs
a From header with the e-mail address of a user.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from speakfit.emulator.pagerduty_account import (
    CHANGES,
    ESCALATION_POLICIES,
    INCIDENTS,
    INTEGRATIONS,
    SCHEDULES,
    SERVICES,
    USERS,
    WINDOWS,
    Document,
    PagerDutyAccount,
    new_id,
)
from speakfit.emulator.pagerduty_events import (
    MAX_DEDUP_KEY,
    MAX_SUMMARY,
    Answer,
    parse,
    parse_time,
)
from speakfit.emulator.pagerduty_schedules import is_ongoing, layer_errors
from speakfit.emulator.pagerduty_shapes import Shapes, title_of

_DEFAULT_LIMIT = 25
_MAX_LIMIT = 100
_MAX_RECORDS = 10_000
_MAX_BODY = 1_024 * 1_024
_MAX_UPDATES = 250
_MAX_NAME = 255
_DEFAULT_RANGE = timedelta(days=30)
_MAX_RANGE = timedelta(days=186)
_STATUSES = ("triggered", "acknowledged", "resolved")
_URGENCIES = ("high", "low")
_URGENCY_RULES = (*_URGENCIES, "severity_based")
_TOKEN = re.compile(r"(Token token=|Bearer )\S+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_WINDOW_FILTERS = ("past", "future", "ongoing", "open", "all")
_INTEGRATION_TYPES = ("events_api_v2_inbound_integration",)
_SORT_FIELDS = {
    "incident_number": "number",
    "created_at": "created_at",
    "resolved_at": "resolved_at",
    "urgency": "urgency",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of the REST API; header names are in lower case."""

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""

    def many(self, name: str) -> set[str]:
        """All values of a parameter, with and without brackets."""
        return {value for key, value in self.query if key in (name, f"{name}[]")}

    def one(self, name: str) -> str | None:
        """The last value of a parameter."""
        return dict(self.query).get(name)


class RestError(Exception):
    """An answer of the REST API that is an error; never leaves this module."""

    def __init__(self, status: int, code: int, message: str, *errors: str) -> None:
        super().__init__(message)
        error: dict[str, Any] = {"message": message, "code": code}
        if errors:
            error["errors"] = list(errors)
        self.answer = Answer(status=status, body={"error": error})


def _invalid(*errors: str) -> RestError:
    return RestError(400, 2001, "Invalid Input Provided", *errors)


def _not_found() -> RestError:
    return RestError(404, 2100, "Not Found")


class PagerDutyRest:
    """Answers REST calls from one account."""

    def __init__(self, account: PagerDutyAccount, shapes: Shapes) -> None:
        self._account = account
        self._shapes = shapes
        self._routes: tuple[tuple[str, tuple[str, ...], Callable[..., Answer]], ...] = tuple(
            (method, tuple(path.split("/")), call)
            for method, path, call in (
                ("GET", "users", self._list_users),
                ("POST", "users", self._create_user),
                ("GET", "users/me", self._me),
                ("GET", "users/*", self._get_user),
                ("PUT", "users/*", self._update_user),
                ("DELETE", "users/*", self._delete_user),
                ("GET", "escalation_policies", self._list_policies),
                ("POST", "escalation_policies", self._create_policy),
                ("GET", "escalation_policies/*", self._get_policy),
                ("PUT", "escalation_policies/*", self._update_policy),
                ("DELETE", "escalation_policies/*", self._delete_policy),
                ("GET", "oncalls", self._list_on_calls),
                ("GET", "schedules", self._list_schedules),
                ("POST", "schedules", self._create_schedule),
                ("GET", "schedules/*", self._get_schedule),
                ("PUT", "schedules/*", self._update_schedule),
                ("DELETE", "schedules/*", self._delete_schedule),
                ("GET", "maintenance_windows", self._list_windows),
                ("POST", "maintenance_windows", self._create_window),
                ("GET", "maintenance_windows/*", self._get_window),
                ("PUT", "maintenance_windows/*", self._update_window),
                ("DELETE", "maintenance_windows/*", self._delete_window),
                ("GET", "services", self._list_services),
                ("POST", "services", self._create_service),
                ("GET", "services/*", self._get_service),
                ("PUT", "services/*", self._update_service),
                ("DELETE", "services/*", self._delete_service),
                ("GET", "services/*/change_events", self._list_service_changes),
                ("POST", "services/*/integrations", self._create_integration),
                ("GET", "services/*/integrations/*", self._get_integration),
                ("PUT", "services/*/integrations/*", self._update_integration),
                ("DELETE", "services/*/integrations/*", self._delete_integration),
                ("GET", "incidents", self._list_incidents),
                ("POST", "incidents", self._create_incident),
                ("PUT", "incidents", self._update_incidents),
                ("GET", "incidents/*", self._get_incident),
                ("PUT", "incidents/*", self._update_incident),
                ("GET", "incidents/*/alerts", self._list_alerts),
                ("GET", "incidents/*/alerts/*", self._get_alert),
                ("GET", "incidents/*/log_entries", self._list_incident_log),
                ("GET", "incidents/*/notes", self._list_notes),
                ("POST", "incidents/*/notes", self._create_note),
                ("GET", "incidents/*/related_change_events", self._list_related_changes),
                ("GET", "log_entries", self._list_log),
                ("GET", "log_entries/*", self._get_log_entry),
                ("GET", "change_events", self._list_changes),
                ("GET", "change_events/*", self._get_change),
            )
        )

    def answer(self, request: Request) -> Answer:
        """The answer to one call; errors are answers too."""
        try:
            if not _TOKEN.fullmatch(request.headers.get("authorization", "").strip()):
                raise RestError(401, 2006, "Authentication failed")
            parts = tuple(request.path.strip("/").split("/"))
            for method, pattern, call in self._routes:
                if method != request.method or len(pattern) != len(parts):
                    continue
                given = [part for part, name in zip(parts, pattern, strict=True) if name == "*"]
                if all(name in ("*", part) for part, name in zip(parts, pattern, strict=True)):
                    with self._account.lock:
                        return call(request, *given)
            raise _not_found()
        except RestError as refusal:
            return refusal.answer

    # What calls have in common

    def _found(self, kind: str, identity: object) -> Document:
        document = self._account.find(kind, identity)
        if document is None:
            raise _not_found()
        return document

    @staticmethod
    def _entity(request: Request, name: str) -> Document:
        """The wrapped object in a body."""
        body = _json(request)
        entity = body.get(name)
        if not isinstance(entity, dict):
            raise _invalid(f"{name} is missing or is not an object")
        return entity

    def _requester(self, request: Request) -> str:
        """The user that the From header names."""
        email = request.headers.get("from", "").strip()
        if not email:
            raise RestError(
                400,
                2016,
                'You must specify a user\'s email address in the "From" header to perform this '
                "action",
            )
        for user in self._account.all(USERS):
            if user["email"].lower() == email.lower():
                return str(user["id"])
        raise RestError(400, 1008, "Requester User Not Found")

    @staticmethod
    def _page(request: Request, name: str, items: list[Any]) -> Answer:
        """One page in the classic form."""
        try:
            limit = int(request.one("limit") or _DEFAULT_LIMIT)
            offset = int(request.one("offset") or 0)
        except ValueError:
            raise _invalid("limit and offset must be whole numbers") from None
        limit = min(limit, _MAX_LIMIT)
        if limit < 1 or offset < 0:
            raise _invalid("limit must be at least 1 and offset at least 0")
        if offset + limit > _MAX_RECORDS:
            raise _invalid(f"Offset + limit must not exceed {_MAX_RECORDS}")
        total = request.one("total") in ("true", "1")
        return Answer(
            status=200,
            body={
                name: items[offset : offset + limit],
                "limit": limit,
                "offset": offset,
                "total": len(items) if total else None,
                "more": offset + limit < len(items),
            },
        )

    @staticmethod
    def _matching(request: Request, documents: list[Document], *names: str) -> list[Document]:
        """Those in which the `query` parameter occurs, whatever the case."""
        query = (request.one("query") or "").lower()
        return [one for one in documents if any(query in str(one[name]).lower() for name in names)]

    def _free_name(self, kind: str, entity: Document, *, own: str = "") -> None:
        name = _text(entity, "name", required=True, longest=_MAX_NAME)
        for other in self._account.all(kind):
            if other["id"] != own and other["name"].lower() == str(name).lower():
                raise _invalid("Name has already been taken")

    # Users

    def _list_users(self, request: Request) -> Answer:
        found = self._matching(request, self._account.all(USERS), "name", "email")
        return self._page(request, "users", [self._shapes.user(one) for one in found])

    def _get_user(self, _request: Request, identity: str) -> Answer:
        return _ok("user", self._shapes.user(self._found(USERS, identity)))

    @staticmethod
    def _me(_request: Request) -> Answer:
        # pdpyras tells the kind of a token by the words of this error.
        text = "Bad Request: users/me cannot be called with an account-level access token"
        return Answer(status=400, body={"error": text})

    def _user_fields(self, entity: Document, *, own: str = "") -> Document:
        _text(entity, "name", required=True, longest=100)
        email = _text(entity, "email", required=True, longest=100)
        if not _EMAIL.fullmatch(str(email)):
            raise _invalid("Email is invalid")
        for other in self._account.all(USERS):
            if other["id"] != own and other["email"].lower() == str(email).lower():
                raise _invalid("Email has already been taken")
        return {
            "name": entity["name"],
            "email": email,
            "role": _text(entity, "role") or "user",
            "time_zone": _text(entity, "time_zone") or "UTC",
            "job_title": _text(entity, "job_title"),
            "description": _text(entity, "description"),
        }

    def _create_user(self, request: Request) -> Answer:
        self._requester(request)
        user = {"id": new_id("P"), **self._user_fields(self._entity(request, "user"))}
        self._account.put(USERS, user)
        return _ok("user", self._shapes.user(user), status=201)

    def _update_user(self, request: Request, identity: str) -> Answer:
        old = self._found(USERS, identity)
        entity = {**old, **self._entity(request, "user")}
        user = {**old, **self._user_fields(entity, own=identity)}
        self._account.put(USERS, user)
        return _ok("user", self._shapes.user(user))

    def _delete_user(self, _request: Request, identity: str) -> Answer:
        self._found(USERS, identity)
        for policy in self._account.all(ESCALATION_POLICIES):
            if any(identity in rule["targets"] for rule in policy["rules"]):
                raise _invalid(f"The user is on the escalation policy {policy['name']}")
        for schedule in self._account.all(SCHEDULES):
            if any(identity in layer["users"] for layer in schedule["layers"]):
                raise _invalid(f"The user is on the schedule {schedule['name']}")
        self._account.remove(USERS, identity)
        return Answer(status=204, body=None)

    # Escalation policies and on-calls

    def _list_policies(self, request: Request) -> Answer:
        users = request.many("user_ids")
        found = [
            one
            for one in self._matching(request, self._account.all(ESCALATION_POLICIES), "name")
            if not users or any(users & set(rule["targets"]) for rule in one["rules"])
        ]
        shown = [self._shapes.escalation_policy(one) for one in found]
        return self._page(request, "escalation_policies", shown)

    def _get_policy(self, _request: Request, identity: str) -> Answer:
        policy = self._found(ESCALATION_POLICIES, identity)
        return _ok("escalation_policy", self._shapes.escalation_policy(policy))

    def _policy_fields(self, entity: Document, *, own: str = "") -> Document:
        self._free_name(ESCALATION_POLICIES, entity, own=own)
        given = entity.get("escalation_rules")
        if not isinstance(given, list) or not given:
            raise _invalid("Escalation rules can't be empty")
        rules = []
        for rule in given:
            if not isinstance(rule, dict):
                raise _invalid("An escalation rule is not an object")
            delay = rule.get("escalation_delay_in_minutes", 30)
            if not isinstance(delay, int) or isinstance(delay, bool) or delay < 1:
                raise _invalid("Escalation delay must be at least one minute")
            targets = rule.get("targets")
            if not isinstance(targets, list) or not targets:
                raise _invalid("Escalation rule targets can't be empty")
            users = [_id_of(target) for target in targets]
            if any(
                self._account.find(USERS, one) is None
                and self._account.find(SCHEDULES, one) is None
                for one in users
            ):
                raise RestError(400, 2013, "User not found")
            rules.append(
                {
                    "id": _id_of(rule) or new_id("P"),
                    "escalation_delay_in_minutes": delay,
                    "targets": users,
                }
            )
        loops = entity.get("num_loops") or 0
        if not isinstance(loops, int) or isinstance(loops, bool) or not 0 <= loops <= 9:
            raise _invalid("Number of loops must be 0 to 9")
        return {
            "name": entity["name"],
            "description": _text(entity, "description") or "",
            "num_loops": loops,
            "rules": rules,
        }

    def _create_policy(self, request: Request) -> Answer:
        entity = self._entity(request, "escalation_policy")
        policy = {"id": new_id("P"), **self._policy_fields(entity)}
        self._account.put(ESCALATION_POLICIES, policy)
        shown = self._shapes.escalation_policy(policy)
        return _ok("escalation_policy", shown, status=201)

    def _update_policy(self, request: Request, identity: str) -> Answer:
        old = self._shapes.escalation_policy(self._found(ESCALATION_POLICIES, identity))
        entity = {**old, **self._entity(request, "escalation_policy")}
        policy = {"id": identity, **self._policy_fields(entity, own=identity)}
        self._account.put(ESCALATION_POLICIES, policy)
        return _ok("escalation_policy", self._shapes.escalation_policy(policy))

    def _delete_policy(self, _request: Request, identity: str) -> Answer:
        self._found(ESCALATION_POLICIES, identity)
        if any(one["escalation_policy"] == identity for one in self._account.all(SERVICES)):
            raise _invalid("The escalation policy is used by services")
        self._account.remove(ESCALATION_POLICIES, identity)
        return Answer(status=204, body=None)

    def _list_on_calls(self, request: Request) -> Answer:
        policies, users = request.many("escalation_policy_ids"), request.many("user_ids")
        schedules = request.many("schedule_ids")
        found = [
            one
            for one in self._shapes.on_calls()
            if (not policies or one["escalation_policy"]["id"] in policies)
            and (not users or one["user"]["id"] in users)
            and (not schedules or (one["schedule"] or {}).get("id") in schedules)
        ]
        return self._page(request, "oncalls", found)

    # Schedules

    def _list_schedules(self, request: Request) -> Answer:
        found = self._matching(request, self._account.all(SCHEDULES), "name")
        return self._page(request, "schedules", [self._shapes.schedule(one) for one in found])

    def _get_schedule(self, _request: Request, identity: str) -> Answer:
        return _ok("schedule", self._shapes.schedule(self._found(SCHEDULES, identity)))

    def _schedule_fields(self, entity: Document, *, own: str = "") -> Document:
        self._free_name(SCHEDULES, entity, own=own)
        _text(entity, "time_zone", required=True)
        given = entity.get("schedule_layers")
        if not isinstance(given, list) or not given:
            raise _invalid("Schedule layers can't be empty")
        layers = []
        for number, layer in enumerate(given, start=1):
            errors = layer_errors(layer)
            if errors:
                raise _invalid(*errors)
            users = [
                _id_of(one.get("user") if isinstance(one, dict) else None) for one in layer["users"]
            ]
            if any(self._account.find(USERS, user) is None for user in users):
                raise RestError(400, 2013, "User not found")
            layers.append(
                {
                    "id": _id_of(layer) or new_id("P"),
                    "name": _text(layer, "name") or f"Layer {number}",
                    "start": layer["start"],
                    "end": layer.get("end"),
                    "rotation_virtual_start": layer["rotation_virtual_start"],
                    "rotation_turn_length_seconds": layer["rotation_turn_length_seconds"],
                    "users": users,
                }
            )
        return {
            "name": entity["name"],
            "description": _text(entity, "description"),
            "time_zone": entity["time_zone"],
            "layers": layers,
        }

    def _create_schedule(self, request: Request) -> Answer:
        schedule = {
            "id": new_id("P"),
            **self._schedule_fields(self._entity(request, "schedule")),
        }
        self._account.put(SCHEDULES, schedule)
        return _ok("schedule", self._shapes.schedule(schedule), status=201)

    def _update_schedule(self, request: Request, identity: str) -> Answer:
        old = self._shapes.schedule(self._found(SCHEDULES, identity))
        entity = {**old, **self._entity(request, "schedule")}
        schedule = {"id": identity, **self._schedule_fields(entity, own=identity)}
        self._account.put(SCHEDULES, schedule)
        return _ok("schedule", self._shapes.schedule(schedule))

    def _delete_schedule(self, _request: Request, identity: str) -> Answer:
        self._found(SCHEDULES, identity)
        for policy in self._account.all(ESCALATION_POLICIES):
            if any(identity in rule["targets"] for rule in policy["rules"]):
                raise _invalid(f"The schedule is on the escalation policy {policy['name']}")
        self._account.remove(SCHEDULES, identity)
        return Answer(status=204, body=None)

    # Maintenance windows

    def _list_windows(self, request: Request) -> Answer:
        services, wish = request.many("service_ids"), request.one("filter") or "all"
        if wish not in _WINDOW_FILTERS:
            raise _invalid(f"filter must be one of {', '.join(_WINDOW_FILTERS)}")
        found = [
            one
            for one in self._matching(request, self._account.all(WINDOWS), "description")
            if (not services or services & set(one["services"]))
            and wish in ("all", *self._phases(one))
        ]
        shown = [self._shapes.maintenance_window(one) for one in found]
        return self._page(request, "maintenance_windows", shown)

    def _phases(self, window: Document) -> tuple[str, ...]:
        """The filters that a window passes now."""
        now = self._account.now_time()
        if is_ongoing(window, now):
            return ("ongoing", "open")
        return ("future", "open") if _time(window["start_time"]) > now else ("past",)

    def _get_window(self, _request: Request, identity: str) -> Answer:
        window = self._shapes.maintenance_window(self._found(WINDOWS, identity))
        return _ok("maintenance_window", window)

    def _window_fields(self, entity: Document) -> Document:
        times = [parse_time(entity.get(name)) for name in ("start_time", "end_time")]
        if any(time is None or time.tzinfo is None for time in times):
            raise _invalid("start_time and end_time must be ISO 8601 times with an offset")
        if _time(entity["start_time"]) >= _time(entity["end_time"]):
            raise _invalid("end_time must be after start_time")
        given = entity.get("services")
        services = [_id_of(one) for one in given] if isinstance(given, list) else []
        if not services:
            raise _invalid("Services can't be empty")
        if any(self._account.find(SERVICES, service) is None for service in services):
            raise RestError(400, 5002, "Service Not Found")
        return {
            "start_time": entity["start_time"],
            "end_time": entity["end_time"],
            "description": _text(entity, "description") or "",
            "services": services,
        }

    def _create_window(self, request: Request) -> Answer:
        user = self._requester(request)
        window = {
            "id": new_id("P"),
            "sequence_number": len(self._account.all(WINDOWS)) + 1,
            "created_by": user,
            **self._window_fields(self._entity(request, "maintenance_window")),
        }
        self._account.put(WINDOWS, window)
        shown = self._shapes.maintenance_window(window)
        return _ok("maintenance_window", shown, status=201)

    def _update_window(self, request: Request, identity: str) -> Answer:
        old = self._found(WINDOWS, identity)
        shown = self._shapes.maintenance_window(old)
        entity = {**shown, **self._entity(request, "maintenance_window")}
        window = {**old, **self._window_fields(entity)}
        self._account.put(WINDOWS, window)
        return _ok("maintenance_window", self._shapes.maintenance_window(window))

    def _delete_window(self, _request: Request, identity: str) -> Answer:
        window = self._found(WINDOWS, identity)
        phases = self._phases(window)
        if "past" in phases:
            raise RestError(405, 2001, "Maintenance windows that have ended can't be deleted")
        if "ongoing" in phases:
            # One that has begun ends now and stays on record.
            self._account.put(WINDOWS, {**window, "end_time": self._account.now()})
        else:
            self._account.remove(WINDOWS, identity)
        return Answer(status=204, body=None)

    # Services and integrations

    def _list_services(self, request: Request) -> Answer:
        include = frozenset(request.many("include"))
        found = self._matching(request, self._account.all(SERVICES), "name", "description")
        shown = [self._shapes.service(one, include=include) for one in found]
        return self._page(request, "services", shown)

    def _get_service(self, request: Request, identity: str) -> Answer:
        include = frozenset(request.many("include"))
        return _ok(
            "service", self._shapes.service(self._found(SERVICES, identity), include=include)
        )

    def _service_fields(self, entity: Document, *, own: str = "") -> Document:
        self._free_name(SERVICES, entity, own=own)
        rule = entity.get("incident_urgency_rule")
        rule = {"type": "constant", "urgency": "high"} if rule is None else rule
        if not isinstance(rule, dict) or rule.get("type") != "constant":
            raise _invalid("Only incident urgency rules of the type constant are kept here")
        if rule.get("urgency") not in _URGENCY_RULES:
            raise _invalid("Urgency must be high, low or severity_based")
        policy = _id_of(entity.get("escalation_policy"))
        if self._account.find(ESCALATION_POLICIES, policy) is None:
            raise RestError(400, 1014, "Escalation Policy Not Found")
        timeouts: Document = {}
        for name in ("auto_resolve_timeout", "acknowledgement_timeout"):
            # Kept and shown; nothing here happens by itself, so that tests see their own doing.
            timeouts[name] = entity.get(name)
            if timeouts[name] is not None and not isinstance(timeouts[name], int):
                raise _invalid(f"{name} must be a number of seconds or null")
        return {
            "name": entity["name"],
            "description": _text(entity, "description"),
            "status": "disabled" if entity.get("status") == "disabled" else "active",
            "urgency": rule["urgency"],
            "escalation_policy": policy,
            **timeouts,
        }

    def _create_service(self, request: Request) -> Answer:
        fields = self._service_fields(self._entity(request, "service"))
        service = {"id": new_id("P"), **fields, "created_at": self._account.now()}
        self._account.put(SERVICES, service)
        return _ok("service", self._shapes.service(service, include=frozenset()), status=201)

    def _update_service(self, request: Request, identity: str) -> Answer:
        old = self._found(SERVICES, identity)
        shown = self._shapes.service(old, include=frozenset())
        fields = self._service_fields({**shown, **self._entity(request, "service")}, own=identity)
        service = {**old, **fields}
        self._account.put(SERVICES, service)
        return _ok("service", self._shapes.service(service, include=frozenset()))

    def _delete_service(self, _request: Request, identity: str) -> Answer:
        self._found(SERVICES, identity)
        keys = [one["id"] for one in self._account.all(INTEGRATIONS) if one["service"] == identity]
        self._account.remove(INTEGRATIONS, *keys)
        self._account.remove(SERVICES, identity)
        return Answer(status=204, body=None)

    def _service_integration(self, service: str, identity: str) -> Document:
        integration = self._found(INTEGRATIONS, identity)
        if integration["service"] != service:
            raise _not_found()
        return integration

    def _create_integration(self, request: Request, service: str) -> Answer:
        self._found(SERVICES, service)
        entity = self._entity(request, "integration")
        if entity.get("type") not in _INTEGRATION_TYPES:
            raise _invalid(f"Integration type must be {_INTEGRATION_TYPES[0]} here")
        integration = {
            "id": new_id("P"),
            "service": service,
            "name": _text(entity, "name") or _text(entity, "summary") or "Events API V2",
            "integration_key": secrets.token_hex(16),
            "created_at": self._account.now(),
        }
        self._account.put(INTEGRATIONS, integration)
        return _ok("integration", self._shapes.integration(integration), status=201)

    def _get_integration(self, _request: Request, service: str, identity: str) -> Answer:
        found = self._service_integration(service, identity)
        return _ok("integration", self._shapes.integration(found))

    def _update_integration(self, request: Request, service: str, identity: str) -> Answer:
        old = self._service_integration(service, identity)
        entity = self._entity(request, "integration")
        name = _text(entity, "name", longest=_MAX_NAME) or old["name"]
        integration = {**old, "name": name}
        self._account.put(INTEGRATIONS, integration)
        return _ok("integration", self._shapes.integration(integration))

    def _delete_integration(self, _request: Request, service: str, identity: str) -> Answer:
        self._service_integration(service, identity)
        self._account.remove(INTEGRATIONS, identity)
        return Answer(status=204, body=None)

    # Incidents

    def _range(self, request: Request) -> tuple[datetime, datetime] | None:
        """The times asked for, None for all; a month back when nothing is said."""
        if request.one("date_range") == "all":
            return None
        times: list[datetime | None] = []
        for name in ("since", "until"):
            text = request.one(name)
            time = parse_time(text)
            if text is not None and time is None:
                raise RestError(
                    400, 2004, "Invalid time values in 'since' and/or 'until' parameters"
                )
            times.append(time if time is None or time.tzinfo else time.replace(tzinfo=UTC))
        since, until = times
        try:
            if since is None:
                since = (until or self._account.now_time()) - _DEFAULT_RANGE
            if until is None:
                # An incident of this very second is part of the range.
                until = max(since, self._account.now_time()) + timedelta(seconds=1)
        except OverflowError:
            raise RestError(400, 2005, "Invalid Query Date Range") from None
        if until < since or until - since > _MAX_RANGE:
            raise RestError(400, 2005, "Invalid Query Date Range")
        return since, until

    def _between(self, request: Request, documents: list[Document], name: str) -> list[Document]:
        limits = self._range(request)
        if limits is None:
            return documents
        since, until = limits
        return [one for one in documents if since <= _time(one[name]) < until]

    def _list_incidents(self, request: Request) -> Answer:
        statuses = request.many("statuses")
        urgencies = request.many("urgencies")
        if statuses - set(_STATUSES):
            raise _invalid(f"Statuses must be some of {', '.join(_STATUSES)}")
        if urgencies - set(_URGENCIES):
            raise _invalid(f"Urgencies must be some of {', '.join(_URGENCIES)}")
        services, keys = request.many("service_ids"), request.many("incident_key")
        found = [
            one
            for one in self._between(request, self._account.all(INCIDENTS), "created_at")
            if (not statuses or one["status"] in statuses)
            and (not urgencies or one["urgency"] in urgencies)
            and (not services or one["service"] in services)
            and (not keys or one["dedup_key"] in keys)
        ]
        wishes = (request.one("sort_by") or "created_at:desc").split(",")
        for wish in reversed(wishes):
            name, _colon, direction = wish.strip().partition(":")
            if name not in _SORT_FIELDS or direction not in ("", "asc", "desc"):
                raise _invalid(f"sort_by must be one of {', '.join(_SORT_FIELDS)} with asc or desc")
            found.sort(key=_order_by(_SORT_FIELDS[name]), reverse=direction == "desc")
        return self._page(request, "incidents", [self._shapes.incident(one) for one in found])

    def _get_incident(self, _request: Request, identity: str) -> Answer:
        return _ok("incident", self._shapes.incident(self._found(INCIDENTS, identity)))

    def _create_incident(self, request: Request) -> Answer:
        user = self._requester(request)
        entity = self._entity(request, "incident")
        title = _text(entity, "title", required=True, longest=MAX_SUMMARY)
        service = self._account.find(SERVICES, _id_of(entity.get("service")))
        if service is None:
            raise RestError(400, 5002, "Service Not Found")
        key = _text(entity, "incident_key", longest=MAX_DEDUP_KEY) or new_id("")
        if self._account.open_incident(None, key) is not None:
            raise RestError(
                400,
                2002,
                "Arguments Caused Error",
                "Open incident with matching dedup key already exists on this service",
            )
        body = entity.get("body")
        details = body.get("details") if isinstance(body, dict) else None
        payload = {"summary": title, "source": service["name"], "severity": "critical"}
        if details is not None:
            payload["custom_details"] = {"details": details}
        urgency = entity.get("urgency")
        if urgency is not None and urgency not in _URGENCIES:
            raise _invalid("Urgency must be high or low")
        incident = self._account.new_incident(
            service=service,
            integration=None,
            dedup_key=key,
            event={"payload": payload},
            urgency=urgency or "",
        )
        self._account.record(incident, "trigger", user=user)
        self._account.put(INCIDENTS, incident)
        return _ok("incident", self._shapes.incident(incident), status=201)

    def _changed(self, identity: str, wish: Document, user: str) -> Document:
        """A copy of an incident as somebody wants it."""
        if wish.get("type") not in ("incident", "incident_reference"):
            raise _invalid("Incident type must be incident or incident_reference")
        self._found(INCIDENTS, identity)
        incident = self._account.edit(INCIDENTS, identity)
        status = wish.get("status")
        if status not in (None, *_STATUSES):
            raise RestError(400, 1003, "Invalid Status Provided")
        if incident["status"] == "resolved" and status is not None:
            raise RestError(400, 1001, "Incident Already Resolved")
        title = _text(wish, "title", longest=MAX_SUMMARY)
        if title and title != title_of(incident):
            incident["title"] = title
        urgency = wish.get("urgency")
        if urgency not in (None, *_URGENCIES):
            raise _invalid("Urgency must be high or low")
        if urgency:
            incident["urgency"] = urgency
        if status == "triggered" and incident["status"] != "triggered":
            raise RestError(400, 1003, "Invalid Status Provided")
        if status == "acknowledged":
            self._account.record(incident, "acknowledge", user=user)
        elif status == "resolved":
            resolution = _text(wish, "resolution")
            if resolution:
                self._annotate(incident, user, resolution)
            self._account.record(incident, "resolve", user=user)
        return incident

    def _update_incident(self, request: Request, identity: str) -> Answer:
        self._found(INCIDENTS, identity)
        user = self._requester(request)
        incident = self._changed(identity, self._entity(request, "incident"), user)
        self._account.put(INCIDENTS, incident)
        return _ok("incident", self._shapes.incident(incident))

    def _update_incidents(self, request: Request) -> Answer:
        user = self._requester(request)
        wishes = _json(request).get("incidents")
        if not isinstance(wishes, list) or not wishes:
            raise _invalid("incidents must be an array that is not empty")
        if len(wishes) > _MAX_UPDATES:
            raise RestError(413, 2001, "Invalid Input Provided", "At most 250 incidents at a time")
        changed: dict[str, Document] = {}
        for wish in wishes:
            identity = _id_of(wish)
            if not identity or self._account.find(INCIDENTS, identity) is None:
                raise RestError(400, 1004, "Invalid ID Provided")
            if identity in changed:
                raise _invalid("An incident is named twice")
            changed[identity] = self._changed(identity, wish, user)
        self._account.put(INCIDENTS, *changed.values())
        shown = [self._shapes.incident(one) for one in changed.values()]
        return _ok("incidents", shown)

    def _list_alerts(self, request: Request, identity: str) -> Answer:
        incident = self._found(INCIDENTS, identity)
        alerts = [] if incident["integration"] is None else [self._shapes.alert(incident)]
        statuses, keys = request.many("statuses"), request.many("alert_key")
        found = [
            one
            for one in alerts
            if (not statuses or one["status"] in statuses)
            and (not keys or one["alert_key"] in keys)
        ]
        return self._page(request, "alerts", found)

    def _get_alert(self, _request: Request, identity: str, alert: str) -> Answer:
        incident = self._found(INCIDENTS, identity)
        if incident["integration"] is None or alert != self._shapes.alert_id(incident):
            raise _not_found()
        return _ok("alert", self._shapes.alert(incident))

    def _list_incident_log(self, request: Request, identity: str) -> Answer:
        incident = self._found(INCIDENTS, identity)
        entries = [self._shapes.log_entry(incident, one) for one in reversed(incident["log"])]
        return self._page(request, "log_entries", entries)

    def _list_log(self, request: Request) -> Answer:
        entries = [
            self._shapes.log_entry(incident, one)
            for incident in self._account.all(INCIDENTS)
            for one in incident["log"]
        ]
        entries = self._between(request, entries, "created_at")
        entries.sort(key=lambda one: str(one["created_at"]))
        return self._page(request, "log_entries", entries[::-1])

    def _get_log_entry(self, _request: Request, identity: str) -> Answer:
        for incident in self._account.all(INCIDENTS):
            for entry in incident["log"]:
                if entry["id"] == identity:
                    return _ok("log_entry", self._shapes.log_entry(incident, entry))
        raise _not_found()

    def _list_notes(self, _request: Request, identity: str) -> Answer:
        notes = self._found(INCIDENTS, identity)["notes"]
        return _ok("notes", [self._shapes.note(one) for one in notes])

    def _annotate(self, incident: Document, user: str, content: str) -> Document:
        note = {
            "id": new_id("P"),
            "user": user,
            "content": content,
            "created_at": self._account.now(),
        }
        incident["notes"].append(note)
        self._account.record(incident, "annotate", user=user, note=content)
        return note

    def _create_note(self, request: Request, identity: str) -> Answer:
        self._found(INCIDENTS, identity)
        user = self._requester(request)
        content = _text(self._entity(request, "note"), "content", required=True, longest=25_000)
        incident = self._account.edit(INCIDENTS, identity)
        note = self._annotate(incident, user, str(content))
        self._account.put(INCIDENTS, incident)
        return _ok("note", self._shapes.note(note), status=201)

    # Change events

    def _changes(self, request: Request, documents: list[Document]) -> Answer:
        integrations = request.many("integration_ids")
        shown = [
            self._shapes.change_event(one)
            for one in reversed(documents)
            if not integrations or one.get("integration") in integrations
        ]
        return self._page(request, "change_events", shown)

    def _list_changes(self, request: Request) -> Answer:
        return self._changes(request, self._account.all(CHANGES))

    def _get_change(self, _request: Request, identity: str) -> Answer:
        change = self._found(CHANGES, identity)
        return _ok("change_event", self._shapes.change_event(change))

    def _list_service_changes(self, request: Request, identity: str) -> Answer:
        self._found(SERVICES, identity)
        found = [one for one in self._account.all(CHANGES) if one["service"] == identity]
        return self._changes(request, found)

    def _list_related_changes(self, request: Request, identity: str) -> Answer:
        service = self._found(INCIDENTS, identity)["service"]
        found = [one for one in self._account.all(CHANGES) if one["service"] == service]
        return self._changes(request, found)


def _order_by(name: str) -> Callable[[Document], tuple[str, int]]:
    """By a stored field; incidents of the same second keep the order they were opened in."""

    def key(incident: Document) -> tuple[str, int]:
        number = int(incident["number"])
        return ("" if name == "number" else str(incident[name] or ""), number)

    return key


def _ok(name: str, shown: object, *, status: int = 200) -> Answer:
    return Answer(status=status, body={name: shown})


def _json(request: Request) -> Document:
    if request.body is None or len(request.body) > _MAX_BODY:
        raise RestError(413, 2001, "Invalid Input Provided", "The body is too large")
    try:
        body = parse(request.body)
    except ValueError:
        raise _invalid("The body is not JSON") from None
    if not isinstance(body, dict):
        raise _invalid("params must be a Hash")
    return body


def _text(
    entity: Mapping[str, Any], name: str, *, required: bool = False, longest: int = 100_000
) -> str | None:
    value = entity.get(name)
    word = name.replace("_", " ").capitalize()
    if value is None or value == "":
        if required:
            raise _invalid(f"{word} cannot be empty")
        return None
    if not isinstance(value, str):
        raise _invalid(f"{word} must be a string")
    if required and not value.strip():
        raise _invalid(f"{word} cannot be empty")
    if len(value) > longest:
        raise _invalid(f"{word} is too long (maximum is {longest} characters)")
    return value


def _id_of(entity: object) -> str:
    identity = entity.get("id") if isinstance(entity, dict) else None
    return identity if isinstance(identity, str) else ""


def _time(text: object) -> datetime:
    return parse_time(text) or datetime.min.replace(tzinfo=UTC)
