"""A plan that is kept: made by one command, read by people, applied by another, maybe elsewhere.

The file holds what will be sent and a fingerprint of everything of the catalog that was live, so
an apply can tell whether the world is still the one that was planned for. It holds no secret:
of a channel's secret only a keyed digest. Its own digest shows that it was edited or torn; it is
no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alerts.canonical import canonical_channel, canonical_policy
from alerts.difference import FieldChange
from alerts.encode import ALERT_ID, CHANNEL, KEY_DIGEST, Json
from alerts.plan import (
    Action,
    Change,
    Desired,
    Kind,
    Live,
    Plan,
    edit_words,
    fingerprint,
    missing_labels,
    our_channels,
    ours,
)
from speakfit.errors import RefusedError
from speakfit.target import Target

_FORMAT = "speakfit-alerts plan, version 1"


@dataclass(frozen=True, kw_only=True)
class SavedPlan:
    """A plan, what it was made for, and what was live then."""

    target_kind: str
    project: str
    catalog: str
    catalog_digest: str
    """Changes whenever the compiled catalog does."""
    prune: bool
    plan: Plan
    live: Mapping[str, str]
    """Fingerprints by resource name of all policies and channels of the catalog."""


def snapshot(plan: Plan, desired: Desired, live: Live, target: Target, *, prune: bool) -> SavedPlan:
    """Keep a plan together with what it was made from; of what is unchanged only the ids."""
    unchanged = tuple(
        Change(action=Action.NONE, kind=one.kind, id=one.id) for one in plan.unchanged
    )
    return SavedPlan(
        target_kind=str(target.kind),
        project=target.project,
        catalog=desired.catalog,
        catalog_digest=catalog_digest(desired),
        prune=prune,
        plan=replace(
            plan,
            changes=tuple(_without_labels(change) for change in plan.changes),
            stale=tuple(_without_labels(change) for change in plan.stale),
            unchanged=unchanged,
            channel_names={},
        ),
        live={
            resource["name"]: fingerprint(kind, resource)
            for kind, resource in _resources(live, desired.catalog)
        },
    )


def _without_labels(change: Change) -> Change:
    """A channel's labels hold its secret: half hidden, or not at all."""
    if change.kind is not Kind.CHANNEL:
        return change
    live = {name: value for name, value in change.live.items() if name != "labels"}
    return replace(change, live=live)


def catalog_digest(desired: Desired) -> str:
    """32 hex digits of all that a catalog compiles to, but for the digests of keys."""
    channels = {
        identity: {**body, "userLabels": {**body["userLabels"], KEY_DIGEST: ""}}
        for identity, body in desired.channels.items()
    }
    return _digest([desired.catalog, desired.metrics, channels, desired.policies])


def _resources(live: Live, catalog: str) -> Iterator[tuple[Kind, Json]]:
    for policy in ours(live.policies, catalog):
        yield Kind.POLICY, policy
    for channel in ours(live.channels, catalog):
        yield Kind.CHANNEL, channel


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# What is still to do


def remaining(saved: SavedPlan, live: Live) -> Plan:
    """What of a plan is still to be done, now that `live` is live.

    What is there already as it was planned is done, for instance by an apply that was cut off.
    Whatever else of the catalog is not as it was when the plan was made is a RefusedError.
    """
    names = our_channels(live, saved.catalog)
    now = {resource["name"]: (kind, resource) for kind, resource in _resources(live, saved.catalog)}
    new: dict[tuple[Kind, str], list[str]] = {}
    for name, (kind, resource) in now.items():
        if name not in saved.live:
            new.setdefault((kind, _id(resource)), []).append(name)
    moves: list[str] = []
    left: list[Change] = []
    done: list[Change] = []
    claimed: set[str] = set()
    for change in saved.plan.changes:
        if change.kind is Kind.METRIC:
            (done if _described(change, live) else left).append(change)
            continue
        if change.action is Action.CREATE:
            made = new.get((change.kind, change.id), [])
            claimed.update(made)
            if not made:
                left.append(change)
            elif len(made) > 1 or not _is_as_planned(change, now[made[0]][1], names):
                moves.append(f"{change.kind} {change.id} was created by somebody else")
            else:
                done.append(change)
            continue
        claimed.add(change.name)
        found = now[change.name][1] if change.name in now else None
        if found is not None and fingerprint(change.kind, found) == change.fingerprint:
            left.append(change)
        elif (
            found is None
            if change.action is Action.DELETE
            else found is not None and _is_as_planned(change, found, names)
        ):
            done.append(change)
        else:
            moves.append(_moved_words(change.kind, change.id, found))
    for name in sorted((saved.live.keys() | now.keys()) - claimed):
        if name not in now:
            moves.append(f"{name} was deleted")
            continue
        kind, resource = now[name]
        if name not in saved.live:
            moves.append(f"{kind} {_id(resource)} was created")
        elif fingerprint(kind, resource) != saved.live[name]:
            moves.append(_moved_words(kind, _id(resource), resource))
    if moves:
        listed = "; ".join(moves[:5]) + (f"; and {len(moves) - 5} more" if len(moves) > 5 else "")
        raise RefusedError(
            f"After the plan was made {listed}. Nothing was changed.",
            where=f"project {saved.project}, catalog {saved.catalog}",
            todo="Plan again, and read what changed.",
        )
    return replace(
        saved.plan,
        changes=tuple(left),
        unchanged=(*saved.plan.unchanged, *(replace(one, action=Action.NONE) for one in done)),
        channel_names={identity: name for name, identity in reversed(names.items())},
    )


def _described(change: Change, live: Live) -> bool:
    """Whether a metric is there with all its labels; services may have made it meanwhile."""
    return any(
        metric["type"] == change.id and not missing_labels(change.body, metric)
        for metric in live.metrics
    )


def _is_as_planned(change: Change, resource: Json, names: Mapping[str, str]) -> bool:
    if change.kind is Kind.CHANNEL:
        digest = resource["userLabels"].get(KEY_DIGEST)
        found, wanted = (
            canonical_channel(one, has_secret=change.secret or digest is not None)
            for one in (resource, change.body)
        )
        if change.secret and digest is not None:
            # A secret that was not at hand when planning shows only in the label.
            wanted["userLabels"].setdefault(KEY_DIGEST, digest)
        return found == wanted
    return canonical_policy(resource, names) == canonical_policy(change.body, {})


def _id(resource: Json) -> str:
    labels = resource.get("userLabels", {})
    identity: str = labels.get(ALERT_ID) or labels.get(CHANNEL) or resource["name"]
    return identity


def _moved_words(kind: Kind, identity: str, resource: Json | None) -> str:
    if resource is None:
        return f"{kind} {identity} was deleted"
    return f"{kind} {identity} was edited{edit_words(resource)}"


def with_digests(plan: Plan, digests: Mapping[str, str]) -> Plan:
    """The plan with the digests, by channel id, of the secrets that are at hand now.

    A RefusedError when a secret is not the one that was planned with.
    """

    def completed(change: Change) -> Change:
        if not change.secret or change.id not in digests:
            return change
        labels = change.body["userLabels"]
        if labels.get(KEY_DIGEST, digests[change.id]) != digests[change.id]:
            raise RefusedError(
                f"Channel {change.id} was planned with another secret; nothing was changed.",
                where=f"channel {change.id}",
                todo="Plan again with the secret that is set now, or set the one that was planned.",
            )
        labels = {**labels, KEY_DIGEST: digests[change.id]}
        return replace(change, body={**change.body, "userLabels": labels})

    return replace(plan, changes=tuple(completed(change) for change in plan.changes))


# The file


def write_plan(file: Path, saved: SavedPlan) -> None:
    """Write a plan; all of it or, when it fails with an OSError, nothing."""
    body = _to_json(saved)
    text = json.dumps({**body, "digest": _digest(body)}, indent=2, ensure_ascii=False)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_plan(file: Path) -> SavedPlan:
    """Read a plan; a RefusedError when it is none, of another version, or was edited."""
    todo = "Make it anew with `python -m alerts plan --out FILE`."
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        known = isinstance(body, dict) and body.get("format") == _FORMAT
    except OSError as error:
        raise RefusedError(
            f"The plan cannot be read: {error.strerror}.", where=str(file), todo=todo
        ) from error
    except (ValueError, RecursionError):
        body, known = {}, True
    if not known:
        raise RefusedError("This is no plan of this version.", where=str(file), todo=todo)
    try:
        if body.pop("digest", None) == _digest(body):
            return _from_json(body)
    except (KeyError, TypeError, ValueError):
        # Somebody took the trouble to make the digest fit.
        pass
    raise RefusedError(
        "The plan is not as it was written: it was edited or cut off.", where=str(file), todo=todo
    )


def check_purpose(saved: SavedPlan, file: Path, target: Target, catalog: str) -> None:
    """A RefusedError when a plan was made for another project, Cloud Monitoring or catalog."""
    for what, planned, given in (
        ("catalog", saved.catalog, catalog),
        ("project", saved.project, target.project),
        ("Cloud Monitoring", saved.target_kind, str(target.kind)),
    ):
        if planned != given:
            raise RefusedError(
                f"The plan was made for {what} {planned!r}, not {given!r}.",
                where=str(file),
                todo=f"Name the {what} that it was made for, or plan anew.",
            )


def _to_json(saved: SavedPlan) -> Json:
    plan = saved.plan
    return {
        "format": _FORMAT,
        "target": {"kind": saved.target_kind, "project": saved.project},
        "catalog": saved.catalog,
        "catalog_digest": saved.catalog_digest,
        "prune": saved.prune,
        "changes": [_change_to_json(change) for change in plan.changes],
        "stale": [_change_to_json(change) for change in plan.stale],
        "unchanged": [{"kind": str(one.kind), "id": one.id} for one in plan.unchanged],
        "foreign": plan.foreign,
        "live": dict(saved.live),
    }


def _from_json(body: Mapping[str, Any]) -> SavedPlan:
    return SavedPlan(
        target_kind=body["target"]["kind"],
        project=body["target"]["project"],
        catalog=body["catalog"],
        catalog_digest=body["catalog_digest"],
        prune=body["prune"],
        plan=Plan(
            changes=tuple(_change_from_json(change) for change in body["changes"]),
            stale=tuple(_change_from_json(change) for change in body["stale"]),
            unchanged=tuple(
                Change(action=Action.NONE, kind=Kind(one["kind"]), id=one["id"])
                for one in body["unchanged"]
            ),
            foreign=body["foreign"],
        ),
        live=body["live"],
    )


def _change_to_json(change: Change) -> Json:
    return {
        "action": str(change.action),
        "kind": str(change.kind),
        "id": change.id,
        "reason": change.reason,
        "edited": change.edited,
        "fields": [
            {"parts": list(one.parts), "live": one.live, "desired": one.desired}
            for one in change.fields
        ],
        "name": change.name,
        "live": change.live,
        "body": change.body,
        "mask": list(change.mask),
        "secret": change.secret,
        "fingerprint": change.fingerprint,
    }


def _change_from_json(body: Mapping[str, Any]) -> Change:
    return Change(
        action=Action(body["action"]),
        kind=Kind(body["kind"]),
        id=body["id"],
        reason=body["reason"],
        edited=body["edited"],
        fields=tuple(
            FieldChange(parts=tuple(one["parts"]), live=one["live"], desired=one["desired"])
            for one in body["fields"]
        ),
        name=body["name"],
        live=body["live"],
        body=body["body"],
        mask=tuple(body["mask"]),
        secret=body["secret"],
        fingerprint=body["fingerprint"],
    )
