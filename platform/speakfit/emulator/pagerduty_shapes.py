"""What PagerDuty's REST API answers, from what the account holds.

The fields are those of PagerDuty's published schemas, as far as the embedded PagerDuty knows
their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from speakfit.emulator.pagerduty_account import (
    ESCALATION_POLICIES,
    INCIDENTS,
    INTEGRATIONS,
    SCHEDULES,
    SERVICES,
    USERS,
    Document,
    PagerDutyAccount,
)
from speakfit.emulator.pagerduty_schedules import first_on_call

_WORDS = {
    "trigger": "Triggered",
    "acknowledge": "Acknowledged",
    "resolve": "Resolved",
    "annotate": "Note added",
}


class Shapes:
    """Turns documents into answers; `base_url` is where they link to."""

    def __init__(self, account: PagerDutyAccount) -> None:
        self._account = account
        self.base_url = ""

    def reference(self, kind: str, identity: str, summary: str, *, path: str = "") -> Document:
        """A short form that only names an object."""
        return {
            "id": identity,
            "type": f"{kind}_reference",
            "summary": summary,
            "self": f"{self.base_url}/{path or kind + 's'}/{identity}",
            "html_url": f"{self.base_url}/",
        }

    def _object(self, kind: str, path: str, document: Mapping[str, Any], summary: str) -> Document:
        return {
            "id": document["id"],
            "type": kind,
            "summary": summary,
            "self": f"{self.base_url}/{path}/{document['id']}",
            "html_url": f"{self.base_url}/",
        }

    def user_reference(self, identity: str) -> Document:
        """A user by id, also one that is gone."""
        found = self._account.find(USERS, identity) or {"name": "Removed user"}
        return self.reference("user", identity, found["name"])

    def target_reference(self, identity: str) -> Document:
        """Whom an escalation rule names: a schedule or a user."""
        schedule = self._account.find(SCHEDULES, identity)
        if schedule is not None:
            return self.reference("schedule", identity, schedule["name"])
        return self.user_reference(identity)

    def policy_reference(self, identity: str) -> Document:
        """An escalation policy by id."""
        found = self._account.find(ESCALATION_POLICIES, identity) or {"name": "Removed policy"}
        return self.reference(
            "escalation_policy", identity, found["name"], path="escalation_policies"
        )

    def service_reference(self, identity: str, name: str) -> Document:
        """A service by id."""
        return self.reference("service", identity, name)

    def user(self, user: Mapping[str, Any]) -> Document:
        """One user."""
        return {
            **self._object("user", "users", user, user["name"]),
            "name": user["name"],
            "email": user["email"],
            "role": user["role"],
            "time_zone": user["time_zone"],
            "job_title": user.get("job_title"),
            "description": user.get("description"),
            "avatar_url": None,
            "color": "purple",
            "invitation_sent": False,
            "contact_methods": [],
            "notification_rules": [],
            "teams": [],
        }

    def escalation_policy(self, policy: Mapping[str, Any]) -> Document:
        """One escalation policy with the services that use it."""
        rules = [
            {
                "id": rule["id"],
                "escalation_delay_in_minutes": rule["escalation_delay_in_minutes"],
                "targets": [self.target_reference(one) for one in rule["targets"]],
            }
            for rule in policy["rules"]
        ]
        services = [
            self.service_reference(one["id"], one["name"])
            for one in self._account.all(SERVICES)
            if one["escalation_policy"] == policy["id"]
        ]
        return {
            **self._object("escalation_policy", "escalation_policies", policy, policy["name"]),
            "name": policy["name"],
            "description": policy["description"],
            "escalation_rules": rules,
            "num_loops": policy["num_loops"],
            "on_call_handoff_notifications": "if_has_services",
            "services": services,
            "teams": [],
        }

    def on_calls(self) -> list[Document]:
        """Who is on call now, for every level of every escalation policy."""
        return [
            {
                "user": self.user_reference(shift.user),
                "schedule": self.target_reference(shift.schedule) if shift.schedule else None,
                "escalation_policy": self.policy_reference(policy["id"]),
                "escalation_level": shift.level,
                "start": _stamp(shift.start),
                "end": _stamp(shift.end),
            }
            for policy in self._account.all(ESCALATION_POLICIES)
            for shift in self._account.on_call(policy["id"])
        ]

    def schedule(self, schedule: Mapping[str, Any]) -> Document:
        """One schedule; entries are not rendered."""
        policies = [
            self.policy_reference(one["id"])
            for one in self._account.all(ESCALATION_POLICIES)
            if any(schedule["id"] in rule["targets"] for rule in one["rules"])
        ]
        users = dict.fromkeys(user for layer in schedule["layers"] for user in layer["users"])
        return {
            **self._object("schedule", "schedules", schedule, schedule["name"]),
            "name": schedule["name"],
            "description": schedule["description"],
            "time_zone": schedule["time_zone"],
            "escalation_policies": policies,
            "users": [self.user_reference(user) for user in users],
            "teams": [],
            "schedule_layers": [
                {
                    **layer,
                    "users": [{"user": self.user_reference(user)} for user in layer["users"]],
                    "restrictions": [],
                }
                for layer in schedule["layers"]
            ],
        }

    def maintenance_window(self, window: Mapping[str, Any]) -> Document:
        """One maintenance window."""
        services = (self._account.find(SERVICES, one) for one in window["services"])
        summary = window["description"] or "Maintenance"
        return {
            **self._object("maintenance_window", "maintenance_windows", window, summary),
            "sequence_number": window["sequence_number"],
            "start_time": window["start_time"],
            "end_time": window["end_time"],
            "description": window["description"],
            "services": [self.service_reference(one["id"], one["name"]) for one in services if one],
            "teams": [],
            "created_by": self.user_reference(window["created_by"]),
        }

    def integration(self, integration: Mapping[str, Any]) -> Document:
        """One integration with its key, as PagerDuty shows it to those with a token."""
        service = self._account.find(SERVICES, integration["service"]) or {"name": ""}
        place = f"services/{integration['service']}/integrations"
        kind = "events_api_v2_inbound_integration"
        return {
            **self._object(kind, place, integration, integration["name"]),
            "name": integration["name"],
            "service": self.service_reference(integration["service"], service["name"]),
            "created_at": integration["created_at"],
            "integration_key": integration["integration_key"],
            "vendor": None,
        }

    def service(self, service: Mapping[str, Any], *, include: frozenset[str]) -> Document:
        """One service; `include` may ask for whole integrations and escalation policies."""
        identity = service["id"]
        integrations = [
            self.integration(one)
            if "integrations" in include
            else self.reference(
                "events_api_v2_inbound_integration",
                one["id"],
                one["name"],
                path=f"services/{identity}/integrations",
            )
            for one in self._account.all(INTEGRATIONS)
            if one["service"] == identity
        ]
        policy = self._account.find(ESCALATION_POLICIES, service["escalation_policy"])
        incidents = [one for one in self._account.all(INCIDENTS) if one["service"] == identity]
        return {
            **self._object("service", "services", service, service["name"]),
            "name": service["name"],
            "description": service["description"],
            "created_at": service["created_at"],
            "status": _service_status(
                service,
                {one["status"] for one in incidents},
                in_maintenance=self._account.in_maintenance(identity),
            ),
            "last_incident_timestamp": incidents[-1]["created_at"] if incidents else None,
            "alert_creation": "create_alerts_and_incidents",
            "acknowledgement_timeout": service.get("acknowledgement_timeout"),
            "auto_resolve_timeout": service.get("auto_resolve_timeout"),
            "incident_urgency_rule": {"type": "constant", "urgency": service["urgency"]},
            "escalation_policy": self.escalation_policy(policy)
            if policy is not None and "escalation_policies" in include
            else self.policy_reference(service["escalation_policy"]),
            "integrations": integrations,
            "teams": [],
        }

    def incident(self, incident: Mapping[str, Any]) -> Document:
        """One incident."""
        title = title_of(incident)
        resolved = incident["status"] == "resolved"
        service = self.service_reference(incident["service"], incident["service_name"])
        alerts = 0 if incident["integration"] is None else 1
        policy = (self._account.find(SERVICES, incident["service"]) or {}).get("escalation_policy")
        assigned = first_on_call(self._account.on_call(policy)) if policy and not resolved else []
        first = incident["log"][0]["id"]
        return {
            **self._object("incident", "incidents", incident, f"[#{incident['number']}] {title}"),
            "incident_number": incident["number"],
            "title": title,
            "description": title,
            "created_at": incident["created_at"],
            "updated_at": incident["log"][-1]["at"],
            "status": incident["status"],
            "incident_key": incident["dedup_key"],
            "service": service,
            "assignments": [
                {"at": incident["created_at"], "assignee": self.user_reference(user)}
                for user in assigned
            ],
            "assigned_via": "escalation_policy",
            "acknowledgements": [
                {"at": entry["at"], "acknowledger": self._agent(incident, entry)}
                for entry in incident["log"]
                if entry["action"] == "acknowledge" and incident["status"] == "acknowledged"
            ],
            "last_status_change_at": incident["changed_at"],
            "last_status_change_by": self._agent(incident, _last_change(incident)),
            "first_trigger_log_entry": {
                "id": first,
                "type": "trigger_log_entry_reference",
                "summary": "Triggered through the API.",
                "self": f"{self.base_url}/log_entries/{first}",
                "html_url": None,
            },
            "alert_counts": {
                "all": alerts,
                "triggered": 0 if resolved else alerts,
                "resolved": alerts if resolved else 0,
            },
            "escalation_policy": self.policy_reference(policy) if policy else None,
            "is_mergeable": not resolved,
            "pending_actions": [],
            "teams": [],
            "priority": None,
            "resolve_reason": None,
            "resolved_at": incident["resolved_at"],
            "urgency": incident["urgency"],
        }

    def _agent(self, incident: Mapping[str, Any], entry: Mapping[str, Any]) -> Document:
        if entry.get("user"):
            return self.user_reference(entry["user"])
        return self.service_reference(incident["service"], incident["service_name"])

    @staticmethod
    def alert_id(incident: Mapping[str, Any]) -> str:
        """The id of the alert of an incident; they are one to one here."""
        return "A" + str(incident["id"])[1:]

    def alert(self, incident: Mapping[str, Any]) -> Document:
        """The alert that an event opened together with its incident."""
        event = incident["event"]
        payload = event["payload"]
        contexts = [
            {"type": "link", "href": link["href"], "text": link.get("text") or link["href"]}
            for link in event.get("links") or ()
        ]
        contexts += [
            {"type": "image", **{key: image.get(key) for key in ("src", "href", "alt")}}
            for image in event.get("images") or ()
        ]
        details = payload.get("custom_details") or {}
        identity = self.alert_id(incident)
        place = f"incidents/{incident['id']}/alerts"
        integration = self._account.find(INTEGRATIONS, incident["integration"])
        return {
            **self._object("alert", place, {"id": identity}, payload["summary"]),
            "created_at": incident["created_at"],
            "status": "resolved" if incident["status"] == "resolved" else "triggered",
            "resolved_at": incident["resolved_at"],
            "alert_key": incident["dedup_key"],
            "severity": payload["severity"],
            "suppressed": False,
            "service": self.service_reference(incident["service"], incident["service_name"]),
            "integration": None
            if integration is None
            else self.reference(
                "events_api_v2_inbound_integration",
                integration["id"],
                integration["name"],
                path=f"services/{integration['service']}/integrations",
            ),
            "incident": self.reference(
                "incident", incident["id"], f"[#{incident['number']}] {title_of(incident)}"
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

    def log_entry(self, incident: Mapping[str, Any], entry: Mapping[str, Any]) -> Document:
        """One entry of an incident's history."""
        action = entry["action"]
        payload = incident["event"]["payload"]
        through = "a person" if entry.get("user") else "the API"
        channel: Document = {"type": "website" if entry.get("user") else "api"}
        if action == "trigger":
            channel.update(
                summary=payload["summary"],
                details=payload.get("custom_details") or {},
                client=incident["event"].get("client"),
                client_url=incident["event"].get("client_url"),
            )
        elif action == "annotate":
            channel = {"type": "note", "summary": entry["note"]}
        return {
            "id": entry["id"],
            "type": f"{action}_log_entry",
            "summary": f"{_WORDS[action]} through {through}.",
            "self": f"{self.base_url}/log_entries/{entry['id']}",
            "html_url": None,
            "created_at": entry["at"],
            "agent": self._agent(incident, entry),
            "channel": channel,
            "service": self.service_reference(incident["service"], incident["service_name"]),
            "incident": self.reference(
                "incident", incident["id"], f"[#{incident['number']}] {title_of(incident)}"
            ),
            "teams": [],
            "contexts": [],
        }

    def note(self, note: Mapping[str, Any]) -> Document:
        """One note on an incident."""
        return {
            "id": note["id"],
            "user": self.user_reference(note["user"]),
            "channel": {"summary": "The PagerDuty website or APIs"},
            "content": note["content"],
            "created_at": note["created_at"],
        }

    def change_event(self, change: Mapping[str, Any]) -> Document:
        """One change event."""
        payload = change["payload"]
        found = self._account.find(SERVICES, change["service"]) or {"name": ""}
        integration = self._account.find(INTEGRATIONS, change.get("integration"))
        return {
            **self._object("change_event", "change_events", change, payload["summary"]),
            "timestamp": payload.get("timestamp") or change.get("created_at"),
            "source": payload.get("source"),
            "custom_details": payload.get("custom_details"),
            "links": change.get("links") or [],
            "images": change.get("images") or [],
            "services": [self.service_reference(change["service"], found["name"])],
            "integration": None
            if integration is None
            else self.reference(
                "inbound_integration",
                integration["id"],
                integration["name"],
                path=f"services/{integration['service']}/integrations",
            ),
        }


def title_of(incident: Mapping[str, Any]) -> str:
    """What an incident is called: as edited, or the summary of its first event."""
    return str(incident.get("title") or incident["event"]["payload"]["summary"])


def _last_change(incident: Mapping[str, Any]) -> Mapping[str, Any]:
    entries: list[Mapping[str, Any]] = incident["log"]
    wanted = {"resolved": "resolve", "acknowledged": "acknowledge"}.get(incident["status"])
    return next((entry for entry in entries if entry["action"] == wanted), entries[0])


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _service_status(
    service: Mapping[str, Any], incidents: set[str], *, in_maintenance: bool
) -> str:
    if service["status"] == "disabled":
        return "disabled"
    if in_maintenance:
        return "maintenance"
    if "triggered" in incidents:
        return "critical"
    return "warning" if "acknowledged" in incidents else "active"
