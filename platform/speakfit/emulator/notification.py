"""What a notification says: an incident and its policy as an event for PagerDuty.

Google publishes no body for its PagerDuty events (facts: no public capture); the choice of fields
is ours and marked assumed in docs/fidelity.md. What users may rely on is the documentation, the
severity and the identity of the incident.
"""

from __future__ import annotations

from speakfit.clock import from_ns
from speakfit.engine.incidents import Incident
from speakfit.engine.points import SeriesKey
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.policies import Severity as PolicySeverity
from speakfit.engine.text import expand, expand_subject, number, variables
from speakfit.pagerduty import Link, Severity, Trigger

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
    values = variables(
        key=incident.series,
        policy_name=spec.name,
        policy_display_name=spec.display_name,
        policy_user_labels=spec.user_labels,
        condition_name=incident.condition_name,
        condition_display_name=incident.condition_display_name,
        project=project,
    )
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
