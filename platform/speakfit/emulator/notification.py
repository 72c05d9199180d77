"""What a notification says: an incident and its policy for PagerDuty, a webhook or a mail.

The webhook's body is schema 1.2, as public captures show it.

Google publishes no body for its PagerDuty events (facts: no public capture); the choice of fields
is ours and marked assumed in docs/fidelity.md. What users may rely on is the documentation, the
severity and the identity of the incident.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from speakfit.clock import from_ns
from speakfit.engine.incidents import Incident
from speakfit.engine.points import SeriesKey
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.policies import Severity as PolicySeverity
from speakfit.engine.text import expand, expand_subject, number, variables
from speakfit.pagerduty import Link, Severity, Trigger

_SECOND = 1_000_000_000
CLIENT = "Google Cloud Monitoring"

_SEVERITIES = {
    PolicySeverity.CRITICAL: Severity.CRITICAL,
    PolicySeverity.ERROR: Severity.ERROR,
    PolicySeverity.WARNING: Severity.WARNING,
    # A policy without a severity is not known to be harmless.
    PolicySeverity.SEVERITY_UNSPECIFIED: Severity.ERROR,
}


def resource_text(key: SeriesKey) -> str:
    """The resource of a series in one line: `generic_task job=api location=us-central1`."""
    labels = " ".join(f"{name}={value}" for name, value in key.resource_labels if value)
    return f"{key.resource_type} {labels}".strip() or key.metric_type


def _labels(key: SeriesKey) -> dict[str, str]:
    return {
        **{f"resource.{name}": value for name, value in key.resource_labels},
        **{f"metric.{name}": value for name, value in key.metric_labels},
    }


def _values(incident: Incident, spec: AlertPolicySpec, project: str) -> dict[str, str]:
    return variables(
        key=incident.series,
        policy_name=spec.name,
        policy_display_name=spec.display_name,
        policy_user_labels=spec.user_labels,
        condition_name=incident.condition_name,
        condition_display_name=incident.condition_display_name,
        project=project,
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def webhook_of(
    incident: Incident,
    spec: AlertPolicySpec,
    *,
    incident_id: str,
    project: str,
    condition: Mapping[str, Any],
    client_url: str,
) -> dict[str, Any]:
    """The body of schema 1.2 for a new incident; `condition` is its condition's REST JSON."""
    values = _values(incident, spec, project)
    key = incident.series
    documentation: dict[str, Any] = {
        "content": expand(spec.documentation.content, values),
        "mime_type": spec.documentation.mime_type or "text/markdown",
    }
    subject = expand_subject(spec.documentation.subject, values)
    if subject:
        documentation["subject"] = subject
    if spec.documentation.links:
        documentation["links"] = [
            {"displayName": link.display_name, "url": expand(link.url, values)}
            for link in spec.documentation.links
        ]
    body: dict[str, Any] = {
        "incident_id": incident_id,
        "scoping_project_id": project,
        # Projects have no numbers here; one that is always the same for a project will do.
        "scoping_project_number": zlib.crc32(project.encode()),
        "url": client_url,
        "started_at": incident.started_ns // _SECOND,
        "ended_at": None,
        "state": "open",
        "summary": incident.summary,
        "observed_value": _number(incident.observed_value),
        "threshold_value": _number(incident.threshold_value),
        "resource": {"type": key.resource_type, "labels": key.resource},
        "resource_id": "",
        "resource_name": resource_text(key),
        "resource_type_display_name": key.resource_type,
        "metric": {
            "type": key.metric_type,
            "displayName": key.metric_type.rpartition("/")[2],
            "labels": key.metric,
        },
        "metadata": {"system_labels": key.system, "user_labels": key.user},
        "policy_name": spec.display_name,
        "policy_user_labels": dict(spec.user_labels),
        "condition_name": incident.condition_display_name,
        "condition": dict(condition),
        "documentation": documentation,
    }
    if spec.severity is not PolicySeverity.SEVERITY_UNSPECIFIED:
        body["severity"] = spec.severity.value
    return {"incident": body, "version": "1.2"}


def closed_webhook(body: Mapping[str, Any], incident: Incident) -> dict[str, Any]:
    """The body that was sent at the opening, once the incident has closed."""
    ended_ns = incident.ended_ns or incident.started_ns
    return {
        **body,
        "incident": {
            **body["incident"],
            "state": "closed",
            "ended_at": ended_ns // _SECOND,
            "summary": incident.summary,
        },
    }


def mail_of(body: Mapping[str, Any]) -> dict[str, str]:
    """A mail with the content of a webhook's body."""
    incident = body["incident"]
    documentation = incident["documentation"]
    title = documentation.get("subject") or f"{incident['policy_name']}: {incident['summary']}"
    state = str(incident["state"]).upper()
    lines = [
        incident["summary"],
        "",
        f"Policy: {incident['policy_name']}",
        f"Condition: {incident['condition_name']}",
        f"Resource: {incident['resource_name']}",
        f"Started: {from_ns(incident['started_at'] * _SECOND).isoformat()}",
    ]
    if incident["ended_at"] is not None:
        lines.append(f"Ended: {from_ns(incident['ended_at'] * _SECOND).isoformat()}")
    lines += [link["url"] for link in documentation.get("links", ())]
    lines += ["", documentation["content"], "", incident["url"]]
    return {"subject": f"[ALERT - {state}] {title}", "text": "\n".join(lines)}


def trigger_of(
    incident: Incident,
    spec: AlertPolicySpec,
    *,
    incident_id: str,
    project: str,
    routing_key: str,
    client_url: str,
) -> Trigger:
    """The event that pages for a new incident."""
    values = _values(incident, spec, project)
    subject = expand_subject(spec.documentation.subject, values)
    details: dict[str, object] = {
        "policy": spec.display_name,
        "condition": incident.condition_display_name,
        "started_at": from_ns(incident.started_ns).isoformat(),
        "labels": _labels(incident.series),
        "documentation": expand(spec.documentation.content, values),
        "summary": incident.summary,
    }
    if incident.observed_value is not None:
        details["observed_value"] = number(incident.observed_value)
    if incident.threshold_value is not None:
        details["threshold_value"] = number(incident.threshold_value)
    return Trigger(
        routing_key=routing_key,
        dedup_key=incident_id,
        summary=subject or f"{spec.display_name}: {incident.summary}",
        source=resource_text(incident.series),
        severity=_SEVERITIES[incident.severity],
        timestamp=from_ns(incident.started_ns),
        component=spec.user_labels.get("alert-id", ""),
        custom_details=details,
        links=tuple(
            Link(href=expand(link.url, values), text=link.display_name or link.url)
            for link in spec.documentation.links
        ),
        client=CLIENT,
        client_url=client_url,
    )


def trial_of(
    kind: str, *, trial_id: str, project: str, channel: str, routing_key: str, started_s: int
) -> dict[str, Any]:
    """What a channel of a kind gets when somebody only wants to see whether it works.

    The webhook's differences from an incident's body are those of the console's test (facts: one
    capture); the rest is ours.
    """
    summary = f"Test notification, no action needed: channel {channel} of project {project}"
    if kind == "pagerduty":
        return Trigger(
            routing_key=routing_key,
            dedup_key=trial_id,
            summary=summary,
            source=f"projects/{project}",
            severity=Severity.INFO,
            custom_details={"test": True},
            client=CLIENT,
        ).to_json()
    body = {
        "incident": {
            "incident_id": trial_id,
            "scoping_project_id": project,
            "url": "",
            "started_at": started_s,
            "ended_at": None,
            "state": "OPEN",
            "summary": summary,
            "documentation": "Test notification",
        },
        "version": "test",
    }
    return body if kind == "webhook" else {"subject": f"[TEST] {summary}", "text": summary}
