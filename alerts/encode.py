"""Policy objects become Cloud Monitoring's REST JSON, and that becomes protobuf; nothing else
knows both.

Everything up to `message` is pure and imports no Google library, so `show` and the tests answer at
once. In the JSON made here a notification channel is its id in the catalog (`channel:critical`):
the server's names are known only to `apply`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from alerts.policy import (
    Absence,
    Aggregation,
    Catalog,
    Channel,
    Condition,
    MetricRecord,
    Policy,
    Ratio,
    Reducer,
    Severity,
    Signal,
)
from alerts.wording import closing_words, condition_words, policy_words
from speakfit.errors import CatalogError

if TYPE_CHECKING:
    from google.api import metric_pb2
    from google.cloud import monitoring_v3

    from speakfit.engine.points import Descriptor
    from speakfit.engine.policies import AlertPolicySpec

Json = dict[str, Any]

MANAGED_BY = "managed-by"
MANAGER = "speakfit-alerts"
CATALOG = "catalog"
ALERT_ID = "alert-id"
SPEC_HASH = "spec-hash"
CHANNEL = "channel"
KEY_DIGEST = "key-digest"
CHANNEL_PREFIX = "channel:"

_MAX_DOCUMENTATION = 8192
_KEY_CONTEXT = b"speakfit-alerts: which PagerDuty integration key does this channel carry"
_SEVERITY = {Severity.WARNING: "WARNING", Severity.CRITICAL: "CRITICAL"}


def policy_json(policy: Policy, catalog: Catalog, *, runbook_base_url: str) -> Json:
    """The AlertPolicy that a policy compiles to, in REST form, without its spec-hash."""
    runbook_url = f"{runbook_base_url.rstrip('/')}/{policy.runbook}.md"
    content = _documentation(policy, runbook_url)
    if len(content) > _MAX_DOCUMENTATION:
        raise CatalogError(
            f"The documentation has {len(content)} characters.",
            where=f"policy {policy.id}, guidance",
            todo=f"Keep it within {_MAX_DOCUMENTATION}; the runbook has room for more.",
        )
    return {
        "displayName": policy.display_name,
        "documentation": {
            "content": content,
            "mimeType": "text/markdown",
            "subject": f"[{policy.severity}] {policy.title}",
            "links": [{"displayName": "Runbook", "url": runbook_url}],
        },
        "userLabels": {
            MANAGED_BY: MANAGER,
            CATALOG: catalog.name,
            ALERT_ID: policy.id,
        },
        "conditions": [_condition(condition) for condition in policy.conditions],
        "combiner": policy.combiner.value,
        "enabled": True,
        "notificationChannels": [
            CHANNEL_PREFIX + channel.id for channel in catalog.channels_of(policy)
        ],
        "alertStrategy": {"autoClose": seconds(policy.auto_close)},
        "severity": _SEVERITY[policy.severity],
    }


def _documentation(policy: Policy, runbook_url: str) -> str:
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(policy.guidance.first_steps, 1))
    return (
        f"**What it means.** {policy.guidance.meaning}\n\n"
        f"**What users feel.** {policy.guidance.users_feel}\n\n"
        f"**Fires when** {policy_words(policy)}. **Closed by** {closing_words(policy)}.\n\n"
        f"**First steps**\n\n{steps}\n\n"
        f"Runbook: {runbook_url}\n\n"
        f"Owner: {policy.owner}. Alert id: {policy.id}."
    )


def _condition(condition: Condition) -> Json:
    body: Json = {
        "filter": condition.signal.filter,
        "aggregations": [_aggregation(condition.aggregation, condition.signal)],
        "duration": seconds(condition.duration),
        "trigger": {"count": 1},
    }
    if isinstance(condition, Absence):
        return {"displayName": condition.key, "conditionAbsent": body}
    body["evaluationMissingData"] = condition.missing_data.value
    if isinstance(condition, Ratio):
        body["denominatorFilter"] = condition.denominator.filter
        body["denominatorAggregations"] = [
            _aggregation(condition.aggregation, condition.denominator)
        ]
        body["comparison"] = "COMPARISON_GT"
        body["thresholdValue"] = float(condition.above)
    elif condition.above is not None:
        body["comparison"] = "COMPARISON_GT"
        body["thresholdValue"] = float(condition.above)
    else:
        body["comparison"] = "COMPARISON_LT"
        body["thresholdValue"] = float(condition.below or 0)
    return {"displayName": condition.key, "conditionThreshold": body}


def _aggregation(aggregation: Aggregation, signal: Signal) -> Json:
    body: Json = {
        "alignmentPeriod": seconds(aggregation.period),
        "perSeriesAligner": aggregation.aligner.value,
    }
    if aggregation.reducer is not Reducer.NONE:
        body["crossSeriesReducer"] = aggregation.reducer.value
    if aggregation.group_by:
        body["groupByFields"] = [
            f"metric.labels.{signal.metric.label_key(label)}" for label in aggregation.group_by
        ]
    return body


def seconds(duration: timedelta) -> str:
    """A duration as protobuf's JSON writes it: `300s`."""
    return (
        f"{duration.total_seconds():g}s"
        if duration % timedelta(seconds=1)
        else (f"{duration // timedelta(seconds=1)}s")
    )


def known_metrics(catalog: Catalog) -> dict[str, MetricRecord]:
    """Every metric that a catalog declares or its policies read, by type."""
    found = {metric.type: metric for metric in catalog.metrics}
    for policy in catalog.policies:
        for condition in policy.conditions:
            for signal in signals(condition):
                found.setdefault(signal.metric.type, signal.metric)
    return found


def signals(condition: Condition) -> tuple[Signal, ...]:
    """The one or two selections of series that a condition reads."""
    if isinstance(condition, Ratio):
        return (condition.signal, condition.denominator)
    return (condition.signal,)


def engine_descriptors(catalog: Catalog) -> dict[str, Descriptor]:
    """Kind and value type of every metric of a catalog, for the engine."""
    from speakfit.engine.points import Descriptor, MetricKind, ValueType

    return {
        name: Descriptor(kind=MetricKind(metric.kind), value_type=ValueType(metric.value_type))
        for name, metric in known_metrics(catalog).items()
    }


def engine_spec(policy: Policy, catalog: Catalog, *, runbook_base_url: str) -> AlertPolicySpec:
    """A policy exactly as Cloud Monitoring would get it, read by the engine."""
    from speakfit.engine.policies import parse_policy

    body = policy_json(policy, catalog, runbook_base_url=runbook_base_url)
    return parse_policy(body, descriptors=engine_descriptors(catalog).get)


def spec_hash(canonical: Mapping[str, Any]) -> str:
    """32 hex digits of a canonical policy; a label value ends at 63 characters."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_digest(routing_key: str) -> str:
    """Tells whether a channel carries this key, without telling the key.

    Cloud Monitoring gives secrets back obfuscated, so drift in them shows only here. The key has
    128 random bits: its keyed digest cannot be turned back.
    """
    return hmac.new(routing_key.encode(), _KEY_CONTEXT, hashlib.sha256).hexdigest()[:32]


def channel_json(channel: Channel, catalog: Catalog, *, digest: str | None) -> Json:
    """The NotificationChannel of a route, in REST form, without its secret."""
    labels = {MANAGED_BY: MANAGER, CATALOG: catalog.name, CHANNEL: channel.id}
    if digest is not None:
        labels[KEY_DIGEST] = digest
    return {
        "type": "pagerduty",
        "displayName": channel.display_name,
        "userLabels": labels,
        "enabled": True,
    }


def descriptor_json(metric: MetricRecord) -> Json:
    """The MetricDescriptor a policy needs before it can be created, in REST form."""
    return {
        "type": metric.type,
        "metricKind": metric.kind,
        "valueType": metric.value_type,
        "unit": metric.unit,
        "description": metric.description,
        "displayName": metric.type.rpartition("/")[2],
        "labels": [{"key": key} for key in metric.exported_keys],
    }


def condition_lines(policy: Policy) -> list[str]:
    """Each condition of a policy in words."""
    return [condition_words(condition) for condition in policy.conditions]


def policy_message(body: Mapping[str, Any]) -> monitoring_v3.AlertPolicy:
    """The protobuf message of a policy in REST form."""
    from google.cloud import monitoring_v3

    message: monitoring_v3.AlertPolicy = _message(monitoring_v3.AlertPolicy, body)
    return message


def channel_message(body: Mapping[str, Any]) -> monitoring_v3.NotificationChannel:
    """The protobuf message of a channel in REST form."""
    from google.cloud import monitoring_v3

    message: monitoring_v3.NotificationChannel = _message(monitoring_v3.NotificationChannel, body)
    return message


def _message(kind: Any, body: Mapping[str, Any]) -> Any:
    from google.protobuf import json_format

    message = kind()
    json_format.ParseDict(dict(body), kind.pb(message))
    return message


def descriptor_message(body: Mapping[str, Any]) -> metric_pb2.MetricDescriptor:
    """The protobuf message of a metric descriptor in REST form."""
    from google.api import metric_pb2
    from google.protobuf import json_format

    return json_format.ParseDict(dict(body), metric_pb2.MetricDescriptor())


def mapping(message: Any) -> Json:
    """Any answer of the API in REST form; proto-plus or plain protobuf."""
    from google.protobuf import json_format

    plain = type(message).pb(message) if hasattr(type(message), "pb") else message
    body: Json = json_format.MessageToDict(plain)
    return body
