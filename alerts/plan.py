"""Compares what the catalog wants with what is live, and says what must change. Pure.

There is no state file: a policy is ours when its user labels say so, and everything else is never
touched. Both sides are brought to one canonical form first (filters as syntax trees, defaults of
the server filled in, output-only fields dropped), so that a plan after an apply is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from alerts.encode import (
    ALERT_ID,
    CATALOG,
    CHANNEL,
    CHANNEL_PREFIX,
    KEY_DIGEST,
    MANAGED_BY,
    MANAGER,
    SPEC_HASH,
    Json,
    channel_json,
    descriptor_json,
    policy_json,
    spec_hash,
)
from alerts.policy import Catalog, ChannelType
from speakfit.engine.filters import canonical_filter
from speakfit.errors import CatalogError, InvalidArgument

POLICY_FIELDS = (
    "display_name",
    "documentation",
    "user_labels",
    "conditions",
    "combiner",
    "enabled",
    "notification_channels",
    "alert_strategy",
    "severity",
)
"""The update mask of a policy: all that the catalog decides. Never empty, because an empty mask
replaces the whole policy."""

_OUTPUT_ONLY = ("name", "creationRecord", "mutationRecord", "validity")
_CHANNEL_MASKS = {
    "labels": "labels",
    "displayName": "display_name",
    "description": "description",
    "userLabels": "user_labels",
    "enabled": "enabled",
}


class Action(StrEnum):
    """What happens to one resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    NONE = "none"


class Kind(StrEnum):
    """What sort of resource changes; in the order in which they are made."""

    METRIC = "metric"
    CHANNEL = "channel"
    POLICY = "policy"


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field that differs; None on a side where it is absent."""

    path: str
    live: Any
    desired: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """What must happen to one resource, why, and with what."""

    action: Action
    kind: Kind
    id: str
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    name: str = ""
    """The server's resource name; empty before a create."""
    body: Json = field(default_factory=dict)
    """What is sent, in REST form; never a secret."""
    mask: tuple[str, ...] = ()
    secret: bool = False
    """The channel's secret must be sent with it."""


@dataclass(frozen=True, kw_only=True)
class Desired:
    """What the catalog wants, in REST form, by id."""

    catalog: str
    metrics: Mapping[str, Json]
    channels: Mapping[str, Json]
    policies: Mapping[str, Json]
    secrets: frozenset[str] = frozenset()
    """Channels that carry a secret."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the server has, in REST form, ours or not."""

    metrics: tuple[Json, ...] = ()
    channels: tuple[Json, ...] = ()
    policies: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything an apply would do, in order, and what it would leave alone."""

    changes: tuple[Change, ...]
    unchanged: tuple[Change, ...]
    stale: tuple[Change, ...]
    """Ours, live, and no longer in the catalog; deleted only when pruning."""
    foreign: int
    """Live policies that are not of this catalog."""
    channel_names: Mapping[str, str]
    """The server's name of each channel that exists, by id."""


def desired_state(
    catalog: Catalog, *, runbook_base_url: str, digests: Mapping[str, str | None]
) -> Desired:
    """Compile a catalog; `digests` tells which key each channel should carry, where known."""
    policies = {}
    for policy in catalog.policies:
        body = policy_json(policy, catalog, runbook_base_url=runbook_base_url)
        body["userLabels"][SPEC_HASH] = spec_hash(canonical_policy(body, {}))
        policies[policy.id] = body
    return Desired(
        catalog=catalog.name,
        metrics={metric.type: descriptor_json(metric) for metric in catalog.metrics},
        channels={
            channel.id: channel_json(channel, catalog, digest=digests.get(channel.id))
            for channel in catalog.channels
        },
        policies=policies,
        secrets=frozenset(channel.id for channel in catalog.channels if channel.has_secret),
    )


def make_plan(desired: Desired, live: Live, *, prune: bool = False) -> Plan:
    """The plan that makes `live` equal to `desired`; deletes only when pruning.

    Raises CatalogError when a live metric has another kind or value type, which no write can mend.
    """
    metrics = _plan_metrics(desired, live)
    channels, names, stale_channels = _plan_channels(desired, live)
    policies, stale_policies = _plan_policies(desired, live, names)
    everything = [*metrics, *channels, *policies]
    stale = (*stale_policies, *stale_channels)
    changes = [change for change in everything if change.action is not Action.NONE]
    return Plan(
        changes=(*changes, *stale) if prune else tuple(changes),
        unchanged=tuple(change for change in everything if change.action is Action.NONE),
        stale=() if prune else stale,
        foreign=sum(1 for policy in live.policies if not is_ours(policy, desired.catalog)),
        channel_names={identity: str(name) for name, identity in names.items()},
    )


def canonical_policy(policy: Mapping[str, Any], channels: Mapping[str, str]) -> Json:
    """The one form that policies are compared and hashed in.

    `channels` maps the server's names of our channels to their ids. The spec-hash label is left
    out: it is the hash of this form.
    """
    body = {key: value for key, value in policy.items() if key not in _OUTPUT_ONLY}
    body["enabled"] = bool(body.get("enabled", True))
    body["combiner"] = body.get("combiner", "COMBINE_UNSPECIFIED")
    labels = dict(body.get("userLabels", {}))
    labels.pop(SPEC_HASH, None)
    body["userLabels"] = labels
    body["notificationChannels"] = sorted(
        channels.get(name, name) for name in body.get("notificationChannels", ())
    )
    if "documentation" in body:
        body["documentation"] = {"mimeType": "text/markdown", **body["documentation"]}
    if "alertStrategy" in body:
        body["alertStrategy"] = _durations(body["alertStrategy"])
    conditions: Json = {}
    for condition in policy.get("conditions", ()):
        key = _free_key(condition.get("displayName", ""), conditions)
        conditions[key] = _canonical_condition(condition)
    body["conditions"] = conditions
    return body


def _free_key(key: str, taken: Mapping[str, Any]) -> str:
    """Display names are not unique on the server: the second of a name becomes `NAME #2`."""
    if key not in taken:
        return key
    number = 2
    while f"{key} #{number}" in taken:
        number += 1
    return f"{key} #{number}"


def _canonical_condition(condition: Mapping[str, Any]) -> Json:
    body = {key: value for key, value in condition.items() if key not in ("name", "displayName")}
    for kind in ("conditionThreshold", "conditionAbsent"):
        if kind in body:
            body[kind] = _canonical_comparison(body[kind], threshold=kind == "conditionThreshold")
    return body


def _canonical_comparison(condition: Mapping[str, Any], *, threshold: bool) -> Json:
    body: Json = _durations(condition)
    body["duration"] = body.get("duration", "0s")
    body["trigger"] = body.get("trigger") or {"count": 1}
    for key in ("filter", "denominatorFilter"):
        if body.get(key):
            body[key] = _canonical_filter(body[key])
        else:
            body.pop(key, None)
    for key in ("aggregations", "denominatorAggregations"):
        if body.get(key):
            body[key] = [_canonical_aggregation(one) for one in body[key]]
        else:
            body.pop(key, None)
    if threshold:
        body["thresholdValue"] = float(body.get("thresholdValue", 0.0))
        if body.get("evaluationMissingData") in (None, "EVALUATION_MISSING_DATA_UNSPECIFIED"):
            body["evaluationMissingData"] = "EVALUATION_MISSING_DATA_NO_OP"
    return body


def _canonical_filter(text: str) -> str:
    try:
        return canonical_filter(text)
    except InvalidArgument:
        # A live filter that our grammar does not know is compared as it is written.
        return text


def _canonical_aggregation(aggregation: Mapping[str, Any]) -> Json:
    body: Json = _durations(aggregation)
    if body.get("crossSeriesReducer") == "REDUCE_NONE":
        del body["crossSeriesReducer"]
    if body.get("perSeriesAligner") == "ALIGN_NONE":
        del body["perSeriesAligner"]
    groups = sorted(
        group.replace("metric.label.", "metric.labels.").replace(
            "resource.label.", "resource.labels."
        )
        for group in body.get("groupByFields", ())
    )
    body.pop("groupByFields", None)
    if groups:
        body["groupByFields"] = groups
    return body


_DURATIONS = frozenset({"duration", "alignmentPeriod", "autoClose", "forecastHorizon"})


def _durations(body: Mapping[str, Any]) -> Json:
    """`300.000s` is `300s`."""
    return {
        key: f"{float(value[:-1]):g}s"
        if key in _DURATIONS and isinstance(value, str) and value.endswith("s")
        else value
        for key, value in body.items()
    }


def is_ours(resource: Mapping[str, Any], catalog: str) -> bool:
    """Whether the labels of a live policy or channel say that this catalog manages it."""
    labels = resource.get("userLabels", {})
    return bool(labels.get(MANAGED_BY) == MANAGER and labels.get(CATALOG) == catalog)


def ours(resources: Iterable[Json], catalog: str) -> list[Json]:
    """Those of this catalog, the oldest first, so that of two alike the copy is the stale one."""
    return sorted(
        (resource for resource in resources if is_ours(resource, catalog)),
        key=lambda one: (_made_at(one), one.get("name", "")),
    )


def _made_at(resource: Mapping[str, Any]) -> str:
    at: str = resource.get("creationRecord", {}).get("mutateTime", "")
    return at


def _plan_metrics(desired: Desired, live: Live) -> list[Change]:
    existing = {metric["type"]: metric for metric in live.metrics}
    changes = []
    for metric_type, body in desired.metrics.items():
        found = existing.get(metric_type)
        if found is None:
            changes.append(
                Change(
                    action=Action.CREATE,
                    kind=Kind.METRIC,
                    id=metric_type,
                    body=body,
                )
            )
            continue
        for key in ("metricKind", "valueType"):
            if found.get(key) != body[key]:
                raise CatalogError(
                    f"The live metric's {key} is {found.get(key)}, the catalog's is {body[key]}.",
                    where=metric_type,
                    todo="Correct the declaration, or delete the live descriptor together with "
                    "its data.",
                )
        missing = {label["key"] for label in body["labels"]} - {
            label["key"] for label in found.get("labels", ())
        }
        if not missing:
            changes.append(Change(action=Action.NONE, kind=Kind.METRIC, id=metric_type))
            continue
        keep = [label for label in found.get("labels", ()) if "key" in label]
        changes.append(
            Change(
                action=Action.UPDATE,
                kind=Kind.METRIC,
                id=metric_type,
                reason="changed in code",
                fields=tuple(
                    FieldChange(path=f"labels[{key}]", live=None, desired="STRING")
                    for key in sorted(missing)
                ),
                body={**body, "labels": [*keep, *({"key": key} for key in sorted(missing))]},
            )
        )
    return changes


def _canonical_channel(channel: Mapping[str, Any], *, has_secret: bool) -> Json:
    """Without the label that holds its secret, which comes back obfuscated."""
    labels = channel.get("labels", {})
    plain = ChannelType(channel["type"]).plain_labels(has_secret=has_secret)
    return {
        "labels": {label: labels[label] for label in plain if label in labels},
        "displayName": channel.get("displayName", ""),
        "description": channel.get("description", ""),
        "userLabels": dict(channel.get("userLabels", {})),
        "enabled": bool(channel.get("enabled", True)),
    }


def _plan_channels(
    desired: Desired, live: Live
) -> tuple[list[Change], dict[str, str], list[Change]]:
    matched: dict[str, Json] = {}
    stale = []
    for channel in ours(live.channels, desired.catalog):
        identity = channel["userLabels"].get(CHANNEL, "")
        wanted = desired.channels.get(identity)
        if wanted is None or identity in matched or channel.get("type") != wanted["type"]:
            stale.append(_stale(Kind.CHANNEL, identity or channel["name"], channel))
        else:
            matched[identity] = channel
    names = {channel["name"]: CHANNEL_PREFIX + identity for identity, channel in matched.items()}
    changes = []
    for identity, body in desired.channels.items():
        found = matched.get(identity)
        if found is None:
            changes.append(
                Change(
                    action=Action.CREATE,
                    kind=Kind.CHANNEL,
                    id=identity,
                    body=body,
                    secret=identity in desired.secrets,
                )
            )
            continue
        digest = found.get("userLabels", {}).get(KEY_DIGEST)
        has_secret = identity in desired.secrets
        if has_secret and KEY_DIGEST not in body["userLabels"] and digest is not None:
            # Without the secret at hand nothing can be said about it: it stays.
            body = {**body, "userLabels": {**body["userLabels"], KEY_DIGEST: digest}}
        fields = _differences(
            _canonical_channel(found, has_secret=has_secret),
            _canonical_channel(body, has_secret=has_secret),
        )
        rekeyed = body["userLabels"].get(KEY_DIGEST) != digest
        mask = dict.fromkeys(_CHANNEL_MASKS[one.path.partition(".")[0]] for one in fields)
        if rekeyed:
            mask["labels"] = None
        changes.append(
            Change(
                action=Action.UPDATE if fields else Action.NONE,
                kind=Kind.CHANNEL,
                id=identity,
                reason=_channel_reason(body, rekeyed=rekeyed) if fields else "",
                fields=fields,
                name=found["name"],
                body=body,
                mask=tuple(mask),
                # Labels are written as a whole: without the secret among them it would be lost.
                secret=has_secret and "labels" in mask,
            )
        )
    return changes, names, stale


def _channel_reason(body: Mapping[str, Any], *, rekeyed: bool) -> str:
    if not rekeyed:
        return "changed"
    return "another " + ("integration key" if body["type"] == ChannelType.PAGERDUTY else "secret")


def _plan_policies(
    desired: Desired, live: Live, channels: Mapping[str, str]
) -> tuple[list[Change], list[Change]]:
    matched: dict[str, Json] = {}
    stale = []
    for policy in ours(live.policies, desired.catalog):
        identity = policy["userLabels"].get(ALERT_ID, "")
        if identity in desired.policies and identity not in matched:
            matched[identity] = policy
        else:
            stale.append(_stale(Kind.POLICY, identity or policy["name"], policy))
    changes = []
    for identity, body in desired.policies.items():
        found = matched.get(identity)
        if found is None:
            changes.append(
                Change(
                    action=Action.CREATE,
                    kind=Kind.POLICY,
                    id=identity,
                    body=body,
                )
            )
        else:
            changes.append(_compare(identity, body, found, channels))
    return changes, stale


def _compare(identity: str, body: Json, found: Json, channels: Mapping[str, str]) -> Change:
    before = canonical_policy(found, channels)
    after = canonical_policy(body, {})
    written = found["userLabels"].get(SPEC_HASH)
    wanted = body["userLabels"][SPEC_HASH]
    fields = _differences(before, after)
    reasons = []
    if written != wanted:
        reasons.append("changed in code")
        fields = fields or (
            FieldChange(path=f"userLabels.{SPEC_HASH}", live=written, desired=wanted),
        )
    if spec_hash(before) != written:
        reasons.append(f"edited in Cloud Monitoring{_edit_words(found)}")
    if not fields:
        return Change(action=Action.NONE, kind=Kind.POLICY, id=identity, name=found["name"])
    return Change(
        action=Action.UPDATE,
        kind=Kind.POLICY,
        id=identity,
        reason="; ".join(reasons),
        fields=fields,
        name=found["name"],
        body=_with_names(body, found),
        mask=POLICY_FIELDS,
    )


def _edit_words(found: Mapping[str, Any]) -> str:
    record = found.get("mutationRecord", {})
    by = f" by {record['mutatedBy']}" if record.get("mutatedBy") else ""
    at = f" at {record['mutateTime']}" if record.get("mutateTime") else ""
    return by + at


def _with_names(body: Json, found: Mapping[str, Any]) -> Json:
    """The body with the server's names: a condition sent without its name loses its incidents."""
    names = {
        condition.get("displayName", ""): condition["name"]
        for condition in reversed(found.get("conditions", ()))
        if "name" in condition
    }
    conditions = [
        {"name": names[condition["displayName"]], **condition}
        if condition["displayName"] in names
        else condition
        for condition in body["conditions"]
    ]
    return {**body, "name": found["name"], "conditions": conditions}


def _stale(kind: Kind, identity: str, resource: Mapping[str, Any]) -> Change:
    return Change(
        action=Action.DELETE,
        kind=kind,
        id=identity,
        reason="live, but not in the catalog",
        name=resource["name"],
    )


def _differences(live: Mapping[str, Any], desired: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    before = dict(_leaves(live, ""))
    after = dict(_leaves(desired, ""))
    return tuple(
        FieldChange(path=path, live=before.get(path), desired=after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    )


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            step = key if key.isidentifier() or path in ("userLabels", "labels") else f'["{key}"]'
            joint = "." if path and not step.startswith("[") else ""
            yield from _leaves(inner, f"{path}{joint}{step}")
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value
