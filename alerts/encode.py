"""Policy objects become Cloud Monitoring's REST JSON, and that becomes protobuf; nothing else
knows both.

Everything up to `message` is pure and imports no Google library, so `show` and the tests answer at
once. In the JSON made here a notification channel is its id in the catalog (`channel:critical`):
the server's names are known only to `apply`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alerts.condition import (
    Absence,
    Aggregation,
    Condition,
    LogMatch,
    PromQL,
    Ratio,
    Reducer,
    Signal,
    Trigger,
    Verbatim,
    signals,
)
from alerts.metric import MetricRecord
from alerts.policy import (
    Catalog,
    Channel,
    ChannelType,
    Documentation,
    Guidance,
    Link,
    Policy,
    Severity,
)
from alerts.wording import closing_words, policy_words
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.policies import AlertPolicySpec, parse_policy
from speakfit.engine.wire import print_duration
from speakfit.errors import CatalogError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from google.api import metric_pb2
    from google.cloud import monitoring_v3

Json = dict[str, Any]

MANAGED_BY = "managed-by"
MANAGER = "speakfit-alerts"
CATALOG = "catalog"
ALERT_ID = "alert-id"
SPEC_HASH = "spec-hash"
CHANNEL = "channel"
KEY_DIGEST = "key-digest"
CHANNEL_PREFIX = "channel:"

_SEVERITY = {
    Severity.WARNING: "WARNING",
    Severity.ERROR: "ERROR",
    Severity.CRITICAL: "CRITICAL",
}


def policy_json(policy: Policy, catalog: Catalog, *, runbook_base_url: str) -> Json:
    """The AlertPolicy that a policy compiles to, in REST form, without its spec-hash."""
    body: Json = {"displayName": policy.display_name}
    documentation = documentation_json(policy, runbook_base_url=runbook_base_url)
    if documentation:
        body["documentation"] = documentation
    body["userLabels"] = {
        **policy.labels,
        MANAGED_BY: MANAGER,
        CATALOG: catalog.name,
        ALERT_ID: policy.id,
    }
    body["conditions"] = [condition_json(condition) for condition in policy.conditions]
    if policy.combiner is not None:
        body["combiner"] = policy.combiner.value
    body["enabled"] = policy.enabled
    if policy.channels is not None:
        body["notificationChannels"] = list(policy.channels)
    else:
        body["notificationChannels"] = [
            CHANNEL_PREFIX + channel.id for channel in catalog.channels_of(policy)
        ]
    strategy = _strategy(policy, body["notificationChannels"])
    if strategy:
        body["alertStrategy"] = strategy
    if policy.severity is not None:
        body["severity"] = _SEVERITY[policy.severity]
    return body


def runbook_url(policy: Policy, *, runbook_base_url: str) -> str:
    """Where the runbook of a policy is read."""
    return f"{runbook_base_url.rstrip('/')}/{policy.runbook}.md"


def documentation_json(policy: Policy, *, runbook_base_url: str) -> Json:
    """What travels with the page, in REST form; empty when nothing does."""
    found = policy.guidance
    if isinstance(found, Guidance):
        url = runbook_url(policy, runbook_base_url=runbook_base_url)
        found = Documentation(
            content=_guidance(policy, found, url),
            subject=f"[{policy.severity}] {policy.title}" if policy.severity else policy.title,
            links=(Link(display_name="Runbook", url=url),),
        )
        found.check(f"policy {policy.id}, guidance")
    body: Json = {}
    if found.content:
        body = {"content": found.content, "mimeType": "text/markdown"}
    if found.subject:
        body["subject"] = found.subject
    if found.links:
        body["links"] = [{"displayName": one.display_name, "url": one.url} for one in found.links]
    return body


def _guidance(policy: Policy, guidance: Guidance, url: str) -> str:
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(guidance.first_steps, 1))
    owner = f"Owner: {policy.owner}. " if policy.owner else ""
    return (
        f"**What it means.** {guidance.meaning}\n\n"
        f"**What users feel.** {guidance.users_feel}\n\n"
        f"**Fires when** {policy_words(policy)}. **Closed by** {closing_words(policy)}.\n\n"
        f"**First steps**\n\n{steps}\n\n"
        f"Runbook: {url}\n\n"
        f"{owner}Alert id: {policy.id}."
    )


def _strategy(policy: Policy, channels: list[str]) -> Json:
    body: Json = {}
    if policy.rate_limit is not None:
        body["notificationRateLimit"] = {"period": print_duration(policy.rate_limit)}
    if policy.prompts:
        body["notificationPrompts"] = [prompt.value for prompt in policy.prompts]
    if policy.auto_close is not None:
        body["autoClose"] = print_duration(policy.auto_close)
    if policy.renotify:
        body["notificationChannelStrategy"] = [
            {
                "notificationChannelNames": list(one.channels) or channels,
                "renotifyInterval": print_duration(one.interval),
            }
            for one in policy.renotify
        ]
    return body


def condition_json(condition: Condition) -> Json:
    """One condition in REST form."""
    body: Json
    if isinstance(condition, Verbatim):
        return {"displayName": condition.key, **condition.body}
    if isinstance(condition, PromQL):
        body = {
            "query": condition.query,
            "duration": print_duration(condition.duration),
            "evaluationInterval": print_duration(condition.interval),
        }
        if condition.labels:
            body["labels"] = dict(condition.labels)
        if condition.rule_group:
            body["ruleGroup"] = condition.rule_group
        if condition.alert_rule:
            body["alertRule"] = condition.alert_rule
        if condition.disable_metric_validation:
            body["disableMetricValidation"] = True
        return {"displayName": condition.key, "conditionPrometheusQueryLanguage": body}
    if isinstance(condition, LogMatch):
        body = {"filter": condition.filter}
        if condition.label_extractors:
            body["labelExtractors"] = dict(condition.label_extractors)
        return {"displayName": condition.key, "conditionMatchedLog": body}
    body = {"filter": condition.signal.filter}
    steps = (condition.aggregation,) if isinstance(condition, Ratio) else condition.steps
    if steps:
        body["aggregations"] = [_aggregation(step, condition.signal) for step in steps]
    body["duration"] = print_duration(condition.duration)
    body["trigger"] = _trigger(condition.trigger)
    if isinstance(condition, Absence):
        return {"displayName": condition.key, "conditionAbsent": body}
    if condition.missing_data is not None:
        body["evaluationMissingData"] = condition.missing_data.value
    if isinstance(condition, Ratio):
        body["denominatorFilter"] = condition.denominator.filter
        body["denominatorAggregations"] = [
            _aggregation(condition.below_aggregation, condition.denominator)
        ]
    elif condition.forecast is not None:
        body["forecastOptions"] = {"forecastHorizon": print_duration(condition.forecast)}
    if condition.above is not None:
        body["comparison"] = "COMPARISON_GT"
        body["thresholdValue"] = float(condition.above)
    else:
        body["comparison"] = "COMPARISON_LT"
        body["thresholdValue"] = float(condition.below or 0)
    return {"displayName": condition.key, "conditionThreshold": body}


def _trigger(trigger: Trigger) -> Json:
    return {"count": trigger.count} if trigger.percent is None else {"percent": trigger.percent}


def _aggregation(aggregation: Aggregation, signal: Signal) -> Json:
    body: Json = {
        "alignmentPeriod": print_duration(aggregation.period),
        "perSeriesAligner": aggregation.aligner.value,
    }
    if aggregation.reducer is not Reducer.REDUCE_NONE:
        body["crossSeriesReducer"] = aggregation.reducer.value
    if aggregation.group_by:
        body["groupByFields"] = aggregation.fields(signal.metric)
    return body


def known_metrics(catalog: Catalog) -> dict[str, MetricRecord]:
    """Every metric that a catalog declares or its policies read, by type."""
    found = {metric.type: metric for metric in catalog.metrics}
    for policy in catalog.policies:
        for condition in policy.conditions:
            for signal in signals(condition):
                if signal.metric is not None:
                    found.setdefault(signal.metric.type, signal.metric)
    return found


def engine_descriptors(catalog: Catalog) -> dict[str, Descriptor]:
    """Kind and value type of every metric of a catalog that are known, for the engine."""
    return {
        name: Descriptor(kind=MetricKind(metric.kind), value_type=ValueType(metric.value_type))
        for name, metric in known_metrics(catalog).items()
        if metric.kind is not None and metric.value_type is not None
    }


def engine_spec(policy: Policy, catalog: Catalog, *, runbook_base_url: str) -> AlertPolicySpec:
    """A policy exactly as Cloud Monitoring would get it, read by the engine.

    Raises CatalogError when a metric's kind is not known: nothing can be evaluated then.
    """
    body = policy_json(policy, catalog, runbook_base_url=runbook_base_url)
    known = engine_descriptors(catalog)
    try:
        return parse_policy(body, descriptors=known.get)
    except NotFound as error:
        raise CatalogError(
            f"The policy cannot be evaluated: {error.what}",
            where=f"policy {policy.id}",
            todo="Give the metric's kind and value type: Metric(type=..., kind=..., "
            "value_type=...).",
        ) from error
    except InvalidArgument as error:
        raise CatalogError(
            error.what, where=f"policy {policy.id}", todo="Correct the field it names."
        ) from error


def spec_hash(canonical: Mapping[str, Any]) -> str:
    """32 hex digits of a canonical policy; a label value ends at 63 characters."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_channel_names(body: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    """A policy's JSON with the server's names of channels in place of the catalog's ids."""
    found = {
        **body,
        "notificationChannels": [names.get(one, one) for one in body["notificationChannels"]],
    }
    strategy = body.get("alertStrategy", {})
    if "notificationChannelStrategy" in strategy:
        repeats = [
            {
                **one,
                "notificationChannelNames": [
                    names.get(name, name) for name in one["notificationChannelNames"]
                ],
            }
            for one in strategy["notificationChannelStrategy"]
        ]
        found["alertStrategy"] = {**strategy, "notificationChannelStrategy": repeats}
    return found


def foreign_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """User labels without those that tell whose a policy is."""
    ours = (MANAGED_BY, CATALOG, ALERT_ID, SPEC_HASH)
    return {key: value for key, value in labels.items() if key not in ours}


def channel_json(channel: Channel, catalog: Catalog, *, digest: str | None) -> Json:
    """The NotificationChannel of a route, in REST form, without its secret."""
    labels = {MANAGED_BY: MANAGER, CATALOG: catalog.name, CHANNEL: channel.id}
    if digest is not None:
        labels[KEY_DIGEST] = digest
    body: Json = {
        "type": channel.type.value,
        "displayName": channel.display_name,
        "userLabels": labels,
        "enabled": True,
    }
    if channel.labels:
        body["labels"] = dict(channel.labels)
    return body


def with_secret(body: Json, secret: str) -> Json:
    """A channel's JSON with its secret in the label that its type keeps it in."""
    label = ChannelType(body["type"]).secret_label
    return {**body, "labels": {**body.get("labels", {}), label: secret}}


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


def snooze_message(body: Mapping[str, Any]) -> monitoring_v3.Snooze:
    """The protobuf message of a snooze in REST form."""
    from google.cloud import monitoring_v3

    message: monitoring_v3.Snooze = _message(monitoring_v3.Snooze, body)
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
