"""Incidents as documents, and the notifications about them: what evaluations found, written down.

Everything of one round goes to disk in one transaction, and into memory only once it is there: a
round that could not be stored is done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from speakfit.emulator.backend import Backend
from speakfit.emulator.naming import new_incident_id
from speakfit.emulator.notification import closed_webhook, mail_of, trigger_of, webhook_of
from speakfit.engine.incidents import Event, Incident, IncidentOpened, PolicyState
from speakfit.engine.notices import Occasion, notices, tells_closing
from speakfit.engine.points import SeriesKey
from speakfit.engine.policies import AlertPolicySpec
from speakfit.pagerduty import Resolve

_COLLECTION = "incidents"
_SECRETS = ("routes", "body")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What evaluating one policy gave."""

    spec: AlertPolicySpec
    project: str
    state: PolicyState
    """After the last evaluation."""
    events: tuple[Event, ...]


@dataclass(kw_only=True)
class Changes:
    """What one round does to the documents."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: dict[tuple[str, SeriesKey], str]
    """The ids of what is open afterwards, by condition and series."""
    told: bool = False
    """Whether notifications were queued."""


class Incidents:
    """All incidents, open and closed; they survive a restart."""

    def __init__(self, *, backend: Backend, client_url: str) -> None:
        self._backend = backend
        self._store = backend.store
        self._client_url = client_url
        self._documents: dict[str, dict[str, Any]] = {
            name: json.loads(body) for name, body in self._store.documents(_COLLECTION)
        }
        self._open = {
            Incident.from_json(document).identity: identity
            for identity, document in self._documents.items()
            if document["state"] == "open"
        }

    def documents(self) -> list[dict[str, Any]]:
        """All incidents, newest first, without the keys they were sent under."""
        with self._store.lock:
            return [
                {name: value for name, value in document.items() if name not in _SECRETS}
                for document in reversed(self._documents.values())
            ]

    def open(self) -> dict[str, tuple[Incident, ...]]:
        """What is open, by policy."""
        found: dict[str, tuple[Incident, ...]] = {}
        for identity in self._open.values():
            incident = Incident.from_json(self._documents[identity])
            found[incident.policy_name] = (*found.get(incident.policy_name, ()), incident)
        return found

    def store(
        self,
        findings: Sequence[Finding],
        *,
        orphans: Sequence[Incident],
        since_ns: int | None,
        until_ns: int,
    ) -> Changes:
        """Put what was found on disk and queue who is to be told; part of a transaction.

        `orphans` are incidents closed because their policy is gone. Reminders are those that fell
        due in (since_ns, until_ns].
        """
        changes = Changes(open=dict(self._open))
        for finding in findings:
            for event in finding.events:
                if isinstance(event, IncidentOpened):
                    self._begin(finding, event.incident, changes)
                else:
                    self._end(event.incident, changes, tell=tells_closing(finding.spec))
            if finding.spec.renotifications and since_ns is not None:
                self._remind(finding, changes, since_ns=since_ns, until_ns=until_ns)
        for incident in orphans:
            self._end(incident, changes, tell=True)
        for identity, document in changes.documents.items():
            self._store.put(_COLLECTION, identity, json.dumps(document).encode())
        return changes

    def settle(self, changes: Changes) -> None:
        """Put what was stored into memory."""
        with self._store.lock:
            self._documents.update(changes.documents)
            self._open = changes.open

    def _begin(self, finding: Finding, incident: Incident, changes: Changes) -> None:
        spec, identity = finding.spec, new_incident_id()
        found = [
            (channel, self._backend.channels.route(channel))
            for channel in spec.notification_channels
        ]
        document = {
            "id": identity,
            "project": finding.project,
            "state": "open",
            **incident.to_json(),
            "notified": sorted(channel for channel, route in found if route is not None),
            "notDelivered": [channel for channel, route in found if route is None],
            "routes": {channel: route for channel, route in found if route is not None},
            "body": webhook_of(
                incident,
                spec,
                incident_id=identity,
                project=finding.project,
                condition=self._condition(incident),
                client_url=self._client_url,
            ),
        }
        changes.documents[identity] = document
        changes.open[incident.identity] = identity
        for channel in document["routes"]:
            self._tell(document, channel, incident, spec, changes)

    def _condition(self, incident: Incident) -> dict[str, Any]:
        """The violated condition as REST JSON; empty when the policy is gone already."""
        policy = self._backend.policies.policy(incident.policy_name)
        for condition in () if policy is None else policy.conditions:
            if condition.name == incident.condition_name:
                return dict(json_format.MessageToDict(condition))
        return {}

    def _tell(
        self,
        document: dict[str, Any],
        channel: str,
        incident: Incident,
        spec: AlertPolicySpec,
        changes: Changes,
        *,
        again: bool = False,
    ) -> None:
        """Queue the news of an open incident for one channel; `again` is a reminder."""
        route, body = document["routes"][channel], document["body"]
        if route["kind"] == "pagerduty":
            # A trigger with the same key adds to the page that is open.
            event = trigger_of(
                incident,
                spec,
                incident_id=document["id"],
                project=document["project"],
                routing_key=route["routing_key"],
                client_url=self._client_url,
            ).to_json()
        else:
            if again:
                body = {**body, "incident": {**body["incident"], "renotify": True}}
            event = body if route["kind"] == "webhook" else mail_of(body)
        self._queue(document, channel, event, changes)

    def _remind(self, finding: Finding, changes: Changes, *, since_ns: int, until_ns: int) -> None:
        """Queue the repeated notifications that fell due since the last round."""
        for incident in finding.state.open:
            due = notices(
                finding.spec,
                opened_ns=incident.started_ns,
                closed_ns=None,
                after_ns=since_ns,
                until_ns=until_ns,
            )
            document = self._find(changes.open[incident.identity], changes)
            # After a pause one reminder says as much as many.
            for channel in {one.channel for one in due if one.occasion is Occasion.REMINDED}:
                if channel in document["routes"]:
                    self._tell(document, channel, incident, finding.spec, changes, again=True)

    def _end(self, incident: Incident, changes: Changes, *, tell: bool) -> None:
        identity = changes.open.pop(incident.identity)
        closed = incident.to_json()
        # Observed value and summary tell why it opened; the closing says when and why it ended.
        document = {
            **self._find(identity, changes),
            "state": "closed",
            "endedNs": closed["endedNs"],
            "closeReason": closed["closeReason"],
        }
        changes.documents[identity] = document
        for channel, route in document["routes"].items() if tell else ():
            if route["kind"] == "pagerduty":
                resolve = Resolve(routing_key=route["routing_key"], dedup_key=identity)
                event = resolve.to_json()
            else:
                event = closed_webhook(document["body"], incident)
                if route["kind"] == "email":
                    event = mail_of(event)
            self._queue(document, channel, event, changes)

    def _find(self, identity: str, changes: Changes) -> dict[str, Any]:
        return changes.documents.get(identity) or self._documents[identity]

    def _queue(
        self, document: dict[str, Any], channel: str, event: dict[str, Any], changes: Changes
    ) -> None:
        body = json.dumps({**document["routes"][channel], "event": event})
        self._store.add_notification(incident=document["id"], channel=channel, body=body)
        changes.told = True
