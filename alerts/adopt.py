"""Makes a live policy ours, whoever made it: its labels change, and nothing else. Pure.

Identity lives in user labels, so adopting is one update with the mask `user_labels`: the policy
and its conditions keep their names, and open incidents stay open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from alerts import source
from alerts.decode import MetricLookup, policy_of
from alerts.encode import ALERT_ID, CATALOG, MANAGED_BY, MANAGER, Json
from alerts.plan import (
    Action,
    Change,
    Desired,
    Kind,
    Live,
    fingerprint,
    is_ours,
    make_plan,
    our_channels,
    with_spec_hash,
)
from alerts.policy import Severity
from speakfit.errors import CatalogError, RefusedError

_OUTPUT_ONLY = ("creationRecord", "mutationRecord", "validity")


def named_policy(name: str, policies: Iterable[Json], *, where: str) -> Json:
    """A live policy by number, full name or display name; a CatalogError unless it is one."""
    matching = [
        body
        for body in policies
        if name in (body["name"], body["name"].rpartition("/")[2], body.get("displayName"))
    ]
    if len(matching) == 1:
        return matching[0]
    numbers = ", ".join(body["name"].rpartition("/")[2] for body in matching)
    raise CatalogError(
        f"{len(matching)} live policies are called {name!r}."
        if matching
        else f"No live policy is called {name!r}.",
        where=where,
        todo=f"Name one by its number: {numbers}."
        if matching
        else "Give a display name, a number or a full name.",
    )


def adoption(policy: Json, live: Live, *, desired: Desired, policy_id: str) -> Change | None:
    """The update that makes a live policy ours under an id; None when it is that already.

    A RefusedError when another tool or catalog claims it, or when the id is live elsewhere. A
    policy of ours whose id left the catalog gets the new one: that is how a policy is renamed.
    """
    labels = policy.get("userLabels", {})
    where = policy["name"]
    if is_ours(policy, desired.catalog):
        if labels.get(ALERT_ID) == policy_id:
            return None
        if labels.get(ALERT_ID) in desired.policies:
            raise RefusedError(
                f"It is {labels[ALERT_ID]} of this catalog already; nothing was changed.",
                where=where,
                todo=f"Take {labels[ALERT_ID]} out of the catalog first, if it is to be renamed.",
            )
    elif labels.get(MANAGED_BY) == MANAGER:
        raise RefusedError(
            f"It belongs to catalog {labels.get(CATALOG)!r}; nothing was changed.",
            where=where,
            todo="Take it out of that catalog, and remove its label `catalog`.",
        )
    elif MANAGED_BY in labels:
        raise RefusedError(
            f"It is managed by {labels[MANAGED_BY]!r}; nothing was changed.",
            where=where,
            todo=f"Two tools would undo each other's edits: take it out of that one, and remove "
            f"its label `{MANAGED_BY}`.",
        )
    for other in live.policies:
        if is_ours(other, desired.catalog) and other["userLabels"].get(ALERT_ID) == policy_id:
            raise RefusedError(
                f"{policy_id} is live already: {other['name']}; nothing was changed.",
                where=where,
                todo="Choose another id, or delete that one first.",
            )
    ours = {MANAGED_BY: MANAGER, CATALOG: desired.catalog, ALERT_ID: policy_id}
    body = {key: value for key, value in policy.items() if key not in _OUTPUT_ONLY}
    body = with_spec_hash(
        {**body, "userLabels": {**labels, **ours}}, our_channels(live, desired.catalog)
    )
    return Change(
        action=Action.UPDATE,
        kind=Kind.POLICY,
        id=policy_id,
        name=policy["name"],
        live=policy,
        body={"notificationChannels": [], **body},
        mask=("user_labels",),
        fingerprint=fingerprint(Kind.POLICY, policy),
    )


def afterwards(change: Change, live: Live, desired: Desired) -> Change | None:
    """What an apply would do to the policy once it is adopted; None for nothing."""
    adopted = [
        {**policy, "userLabels": change.body["userLabels"]}
        if policy["name"] == change.name
        else policy
        for policy in live.policies
    ]
    plan = make_plan(desired, replace(live, policies=tuple(adopted)))
    found = [one for one in plan.changes if (one.kind, one.id) == (Kind.POLICY, change.id)]
    return found[0] if found else None


def lost_conditions(change: Change, desired: Desired) -> list[str]:
    """Display names of live conditions that the catalog calls otherwise or does not have."""
    wanted = {one["displayName"] for one in desired.policies[change.id]["conditions"]}
    live = [str(one.get("displayName", "")) for one in change.live.get("conditions", ())]
    return [name for name in live if name not in wanted]


def python_of(policy: Mapping[str, Any], *, policy_id: str, metric_of: MetricLookup) -> str:
    """The Python that declares a live policy under an id; it compiles back to the same policy.

    A CatalogError when its severity does not fit the id, or when the language cannot say it.
    """
    severity = str(policy.get("severity", "")).lower()
    known = [str(one) for one in Severity]
    subject = policy_id.removesuffix(f"-{severity}") if severity in known else policy_id
    if severity in known and subject == policy_id:
        stem, _, last = policy_id.rpartition("-")
        better = stem if stem and last in known else policy_id
        raise CatalogError(
            f"The policy's severity is {severity}, so its id ends with -{severity}.",
            where=f"--as {policy_id}",
            todo=f"For example --as {better}-{severity}; another severity is a change of code "
            "afterwards.",
        )
    declared = policy_of(policy, subject=subject, metric_of=metric_of)
    return source.module([declared], catalog=None, origin=f"Made of {policy['name']}")
