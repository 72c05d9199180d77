"""Compares what the catalog wants with what is live, and says what must change. Pure.

There is no state file: a policy is ours when its user labels say so, and everything else is never
touched. Both sides are compared in their canonical form, so that a plan after an apply is empty.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from alerts.canonical import canonical_channel, canonical_policy
from alerts.difference import FieldChange, differences
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
from speakfit.errors import CatalogError

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
    DASHBOARD = "dashboard"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What must happen to one resource, why, and with what."""

    action: Action
    kind: Kind
    id: str
    reason: str = ""
    edited: bool = False
    """Somebody changed the live policy since it was last written from a catalog."""
    fields: tuple[FieldChange, ...] = ()
    name: str = ""
    """The server's resource name; empty before a create."""
    live: Json = field(default_factory=dict)
    """The live resource as it was read, in REST form; empty before a create."""
    body: Json = field(default_factory=dict)
    """What is sent, in REST form; never a secret."""
    mask: tuple[str, ...] = ()
    secret: bool = False
    """The channel's secret must be sent with it."""
    fingerprint: str = ""
    """What the live resource must still be when it is written; empty before a create."""


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
    """Everything an apply would do, in order, and what it would leave alone.

    A change of a policy carries both what is live and what is sent, so that more can be said
    about it than its fields.
    """

    changes: tuple[Change, ...]
    unchanged: tuple[Change, ...] = ()
    stale: tuple[Change, ...] = ()
    """Ours, live, not wanted any more, and kept: without pruning, or because others use it."""
    foreign: int = 0
    """Live policies that are not of this catalog."""
    channel_names: Mapping[str, str] = field(default_factory=dict)
    """The server's name of each channel that exists, by id."""

    def number(self, action: Action) -> int:
        """How many changes are of one action."""
        return sum(1 for change in self.changes if change.action is action)

    @property
    def deletes(self) -> int:
        """How many resources it deletes."""
        return self.number(Action.DELETE)


def desired_state(
    catalog: Catalog, *, runbook_base_url: str, digests: Mapping[str, str | None]
) -> Desired:
    """Compile a catalog; `digests` tells which key each channel should carry, where known."""
    return Desired(
        catalog=catalog.name,
        metrics={metric.type: descriptor_json(metric) for metric in catalog.metrics},
        channels={
            channel.id: channel_json(channel, catalog, digest=digests.get(channel.id))
            for channel in catalog.channels
        },
        policies={
            policy.id: with_spec_hash(
                policy_json(policy, catalog, runbook_base_url=runbook_base_url), {}
            )
            for policy in catalog.policies
        },
        secrets=frozenset(channel.id for channel in catalog.channels if channel.has_secret),
    )


def with_spec_hash(policy: Json, channels: Mapping[str, str]) -> Json:
    """A policy whose label `spec-hash` says what it is now, so that a later edit shows."""
    labels = {**policy["userLabels"], SPEC_HASH: spec_hash(canonical_policy(policy, channels))}
    return {**policy, "userLabels": labels}


def make_plan(desired: Desired, live: Live, *, prune: bool = False) -> Plan:
    """The plan that makes `live` equal to `desired`; deletes only when pruning.

    Raises CatalogError when a live metric has another kind or value type, which no write can mend.
    """
    metrics = _plan_metrics(desired, live)
    channels, names, stale_channels = _plan_channels(desired, live)
    policies, stale_policies = _plan_policies(desired, live, names)
    everything = [*metrics, *channels, *policies]
    deletes, kept = _part_stale([*stale_policies, *stale_channels], live, desired.catalog)
    changes = [change for change in everything if change.action is not Action.NONE]
    return Plan(
        changes=(*changes, *deletes) if prune else tuple(changes),
        unchanged=tuple(change for change in everything if change.action is Action.NONE),
        stale=kept if prune else (*deletes, *kept),
        foreign=sum(1 for policy in live.policies if not is_ours(policy, desired.catalog)),
        channel_names={identity: name for name, identity in names.items()},
    )


def destroy_plan(catalog: str, live: Live, *, metrics: bool) -> Plan:
    """The plan that removes every policy and channel of a catalog, and its metrics when asked.

    Metrics are removed with all their data. A channel that others use is kept.
    """
    reason = f"of catalog {catalog}"
    deletes, kept = _part_stale(
        [
            *(
                _delete(Kind.POLICY, _identity(policy, ALERT_ID), policy, reason)
                for policy in ours(live.policies, catalog)
            ),
            *(
                _delete(Kind.CHANNEL, _identity(channel, CHANNEL), channel, reason)
                for channel in ours(live.channels, catalog)
            ),
        ],
        live,
        catalog,
    )
    data = [
        Change(
            action=Action.DELETE,
            kind=Kind.METRIC,
            id=metric["type"],
            reason="with all its data",
            name=metric["name"],
            live=metric,
        )
        for metric in (live.metrics if metrics else ())
    ]
    return Plan(
        changes=(*deletes, *data),
        stale=kept,
        foreign=sum(1 for policy in live.policies if not is_ours(policy, catalog)),
    )


def is_ours(resource: Mapping[str, Any], catalog: str) -> bool:
    """Whether the labels of a live policy or channel say that this catalog manages it."""
    labels = resource.get("userLabels", {})
    return bool(labels.get(MANAGED_BY) == MANAGER and labels.get(CATALOG) == catalog)


def ours(resources: Iterable[Json], catalog: str) -> list[Json]:
    """Those of this catalog, the oldest first, so that of two alike the copy is the stale one."""
    return sorted(
        (resource for resource in resources if is_ours(resource, catalog)),
        key=lambda one: (_made_at(one), len(one.get("name", "")), one.get("name", "")),
    )


def our_channels(live: Live, catalog: str) -> dict[str, str]:
    """`channel:ID` of each of our channels by the server's name; of two alike, of both."""
    return {
        channel["name"]: CHANNEL_PREFIX + _identity(channel, CHANNEL)
        for channel in ours(live.channels, catalog)
    }


def fingerprint(kind: Kind, resource: Mapping[str, Any]) -> str:
    """32 hex digits that change whenever somebody edits the resource.

    AlertPolicy has no etag and no conditional write. Its mutation record moves with every edit;
    the policy is taken in as well, because two edits can share one moment, and in canonical form,
    because a list and a get need not spell it alike. Of a channel nothing secret goes in.
    """
    if kind is Kind.POLICY:
        seen = {
            **canonical_policy(resource, {}),
            "userLabels": resource.get("userLabels", {}),
            "mutationRecord": resource.get("mutationRecord", {}),
        }
    else:
        seen = {"name": resource.get("name", ""), **canonical_channel(resource, has_secret=True)}
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:32]


def edit_words(resource: Mapping[str, Any]) -> str:
    """` by WHOM at WHEN` of the last edit of a live policy, as far as the server tells."""
    record = resource.get("mutationRecord", {})
    by = f" by {record['mutatedBy']}" if record.get("mutatedBy") else ""
    at = f" at {record['mutateTime']}" if record.get("mutateTime") else ""
    return by + at


def _made_at(resource: Mapping[str, Any]) -> str:
    at: str = resource.get("creationRecord", {}).get("mutateTime", "")
    return at


def _identity(resource: Mapping[str, Any], label: str) -> str:
    identity: str = resource.get("userLabels", {}).get(label) or resource["name"]
    return identity


def _plan_metrics(desired: Desired, live: Live) -> list[Change]:
    existing = {metric["type"]: metric for metric in live.metrics}
    changes = []
    for metric_type, body in desired.metrics.items():
        found = existing.get(metric_type)
        if found is None:
            changes.append(
                Change(action=Action.CREATE, kind=Kind.METRIC, id=metric_type, body=body)
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
        missing = missing_labels(body, found)
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
                    FieldChange(parts=("labels", key), live=None, desired="STRING")
                    for key in missing
                ),
                body={**body, "labels": [*keep, *({"key": key} for key in missing)]},
            )
        )
    return changes


def missing_labels(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Keys of the labels that a live metric descriptor lacks, sorted."""
    has = {label.get("key") for label in found.get("labels", ())}
    return sorted({label["key"] for label in wanted["labels"]} - has)


def _plan_channels(
    desired: Desired, live: Live
) -> tuple[list[Change], dict[str, str], list[Change]]:
    matched: dict[str, Json] = {}
    stale = []
    for channel in ours(live.channels, desired.catalog):
        identity = _identity(channel, CHANNEL)
        wanted = desired.channels.get(identity)
        if wanted is None:
            reason = "live, but not in the catalog"
        elif channel.get("type") != wanted["type"]:
            reason = f"its type is {channel.get('type')}, the catalog's is {wanted['type']}"
        elif identity in matched:
            reason = _copy_words(matched[identity], channel)
        else:
            matched[identity] = channel
            continue
        stale.append(_delete(Kind.CHANNEL, identity, channel, reason))
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
        fields = differences(
            canonical_channel(found, has_secret=has_secret),
            canonical_channel(body, has_secret=has_secret),
        )
        rekeyed = body["userLabels"].get(KEY_DIGEST) != digest
        mask = dict.fromkeys(_CHANNEL_MASKS[str(one.parts[0])] for one in fields)
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
                live=found,
                body=body,
                mask=tuple(mask),
                # Labels are written as a whole: without the secret among them it would be lost.
                secret=has_secret and "labels" in mask,
                fingerprint=fingerprint(Kind.CHANNEL, found),
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
        identity = _identity(policy, ALERT_ID)
        if identity not in desired.policies:
            reason = "live, but not in the catalog"
        elif identity in matched:
            reason = _copy_words(matched[identity], policy)
        else:
            matched[identity] = policy
            continue
        stale.append(_delete(Kind.POLICY, identity, policy, reason))
    changes = []
    for identity, body in desired.policies.items():
        found = matched.get(identity)
        if found is None:
            changes.append(Change(action=Action.CREATE, kind=Kind.POLICY, id=identity, body=body))
        else:
            changes.append(_compare(identity, body, found, channels))
    return changes, stale


def _copy_words(kept: Mapping[str, Any], copy: Mapping[str, Any]) -> str:
    """Why of two live resources with one identity this one is not kept."""
    made = _made_at(kept)
    first = made < _made_at(copy)
    why = f"it was made first, at {made}" if first else "both at once, its number is lower"
    return f"{copy['name']} is a copy; {kept['name']} is kept: {why}"


def _compare(identity: str, body: Json, found: Json, channels: Mapping[str, str]) -> Change:
    before = canonical_policy(found, channels)
    edited = spec_hash(before) != found["userLabels"].get(SPEC_HASH)
    return update_of(
        Kind.POLICY,
        identity,
        found=found,
        body=_with_names(body, found),
        fields=differences(before, canonical_policy(body, {})),
        labels="userLabels",
        edited=f"edited in Cloud Monitoring{edit_words(found)}" if edited else "",
        mask=POLICY_FIELDS,
        fingerprint=fingerprint(Kind.POLICY, found),
    )


def update_of(
    kind: Kind,
    identity: str,
    *,
    found: Json,
    body: Json,
    fields: tuple[FieldChange, ...],
    labels: str,
    edited: str,
    fingerprint: str,
    mask: tuple[str, ...] = (),
) -> Change:
    """What makes a live resource as it is declared: nothing, or an update and its reasons.

    `labels` is the member that holds its labels, `edited` says what somebody else did to it.
    """
    written, wanted = found[labels].get(SPEC_HASH), body[labels][SPEC_HASH]
    reasons = [edited] if edited else []
    if written != wanted:
        reasons.insert(0, "changed in code")
        fields = fields or (FieldChange(parts=(labels, SPEC_HASH), live=written, desired=wanted),)
    if not fields:
        return Change(action=Action.NONE, kind=kind, id=identity, name=found["name"], live=found)
    return Change(
        action=Action.UPDATE,
        kind=kind,
        id=identity,
        reason="; ".join(reasons),
        edited=bool(edited),
        fields=fields,
        name=found["name"],
        live=found,
        body=body,
        mask=mask,
        fingerprint=fingerprint,
    )


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


def _delete(kind: Kind, identity: str, resource: Json, reason: str) -> Change:
    return Change(
        action=Action.DELETE,
        kind=kind,
        id=identity,
        reason=reason,
        name=resource["name"],
        live=resource,
        fingerprint=fingerprint(kind, resource),
    )


def _part_stale(
    stale: Iterable[Change], live: Live, catalog: str
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """What can be deleted, and what must stay because policies of others notify through it."""
    used: dict[str, list[str]] = {}
    for policy in live.policies:
        if not is_ours(policy, catalog):
            for name in policy.get("notificationChannels", ()):
                used.setdefault(name, []).append(str(policy.get("displayName", policy["name"])))
    deletes: list[Change] = []
    kept: list[Change] = []
    for change in sorted(stale, key=lambda one: (one.kind is Kind.CHANNEL, one.id, one.name)):
        users = used.get(change.name, []) if change.kind is Kind.CHANNEL else []
        if users:
            reason = f"{change.reason}; kept: used by {users[0]!r}"
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            kept.append(replace(change, reason=f"{reason}{more}, which is not of this catalog"))
        else:
            deletes.append(change)
    return tuple(deletes), tuple(kept)
