"""Tells what happened to the live policies behind the catalog's back. Pure.

A policy whose live form is no longer what its `spec-hash` label says was edited outside; a change
in code that nobody has applied yet is no drift. Without a state file a policy that was deleted
cannot be told from one that was never applied, and it is said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from alerts.difference import FieldChange
from alerts.encode import MANAGED_BY
from alerts.plan import Action, Change, Desired, Kind, Live, Plan, is_ours, make_plan


class State(StrEnum):
    """How something live departs from the catalog."""

    EDITED = "edited"
    """Ours, and not as it was last written."""
    DELETED = "deleted"
    """In the catalog, and not live."""
    LEFT = "left behind"
    """Ours, live, and not in the catalog: removed from it, or a copy."""
    UNMANAGED = "unmanaged"
    """Nobody's code: made in the console or by hand."""
    INVALID = "invalid"
    """Ours, and Cloud Monitoring says that it cannot evaluate it: it opens no incident."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One departure: what, of which policy or channel, since when and by whom if known."""

    state: State
    kind: Kind
    id: str
    """The id in the catalog; the server's name of what is unmanaged."""
    title: str = ""
    name: str = ""
    by: str = ""
    at: str = ""
    detail: str = ""
    change: Change | None = None
    """What an apply would do about an edit; its fields read from live to catalog."""

    @property
    def fields(self) -> tuple[FieldChange, ...]:
        """The fields that differ."""
        return self.change.fields if self.change is not None else ()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Everything that drifted, and how much did not."""

    drifts: tuple[Drift, ...]
    clean: int
    """Policies and channels that are as the catalog wants."""
    pending: int
    """Policies that only wait for an apply: changed in code, not outside."""
    others: int
    """Live policies that another catalog or tool claims by its label."""
    plan: Plan

    def number(self, state: State) -> int:
        """How many drifted one way."""
        return sum(1 for drift in self.drifts if drift.state is state)


def survey(desired: Desired, live: Live) -> Survey:
    """Compare what is live with what the catalog last wrote."""
    plan = make_plan(desired, live)
    drifts = [*_ours(plan), *_invalid(live, desired.catalog), *_unmanaged(live, desired.catalog)]
    order = list(State)
    clean = [change for change in plan.unchanged if change.kind is not Kind.METRIC]
    pending = [change for change in plan.changes if _is_pending(change)]
    return Survey(
        drifts=tuple(sorted(drifts, key=lambda one: (order.index(one.state), one.kind, one.id))),
        clean=len(clean),
        pending=len(pending),
        others=plan.foreign - sum(1 for one in drifts if one.state is State.UNMANAGED),
        plan=plan,
    )


def _is_pending(change: Change) -> bool:
    # Labels are added to a metric, never taken away: those that lack are new in code. What
    # differs in a channel may come from either side; it carries no hash.
    return change.action is Action.UPDATE and change.kind is not Kind.CHANNEL and not change.edited


def _ours(plan: Plan) -> Iterator[Drift]:
    for change in plan.changes:
        if change.action is Action.CREATE:
            yield Drift(
                state=State.DELETED,
                kind=change.kind,
                id=change.id,
                title=change.body.get("displayName", ""),
                detail="in the catalog and not live: deleted, or never applied",
            )
        elif not _is_pending(change):
            yield replace(
                _of(State.EDITED, change.kind, change.id, change.live),
                change=change,
                detail="the code changed too: the fields show both"
                if "changed in code" in change.reason
                else "",
            )
    for change in plan.stale:
        yield replace(_of(State.LEFT, change.kind, change.id, change.live), detail=change.reason)


def _invalid(live: Live, catalog: str) -> Iterator[Drift]:
    for policy in live.policies:
        if is_ours(policy, catalog) and policy.get("validity", {}).get("code", 0):
            identity = policy["userLabels"].get("alert-id", policy["name"])
            yield replace(
                _of(State.INVALID, Kind.POLICY, identity, policy),
                detail=policy["validity"].get("message", ""),
            )


def _unmanaged(live: Live, catalog: str) -> Iterator[Drift]:
    for policy in live.policies:
        if MANAGED_BY not in policy.get("userLabels", {}):
            yield _of(State.UNMANAGED, Kind.POLICY, policy["name"], policy)


def _of(state: State, kind: Kind, identity: str, resource: Mapping[str, Any]) -> Drift:
    record: Mapping[str, str] = resource.get("mutationRecord") or next(
        reversed(resource.get("mutationRecords", ())), {}
    )
    return Drift(
        state=state,
        kind=kind,
        id=identity,
        title=resource.get("displayName", ""),
        name=resource.get("name", ""),
        by=record.get("mutatedBy", ""),
        at=record.get("mutateTime", ""),
    )
