"""Policies that are put to a test: those of a catalog and those that are live, in the same form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from alerts.encode import (
    ALERT_ID,
    CATALOG,
    MANAGED_BY,
    MANAGER,
    Json,
    policy_json,
)
from alerts.history import Selection
from alerts.policy import Catalog
from speakfit.engine.filters import parse_filter
from speakfit.engine.policies import AlertPolicySpec, DescriptorLookup, parse_policy
from speakfit.errors import InvalidArgument, NotFound


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One policy as REST JSON, and as the engine reads it."""

    id: str
    """Its alert id; the display name of a policy that nobody gave one."""
    body: Json
    spec: AlertPolicySpec | None
    refusal: str = ""
    """Why the engine cannot read it."""

    @property
    def severity(self) -> str:
        """`warning`, `critical`, `error`, or nothing."""
        severity = str(self.body.get("severity", ""))
        return "" if severity == "SEVERITY_UNSPECIFIED" else severity.lower()

    @property
    def subject(self) -> str:
        """What the policy is about: its id without the severity."""
        return self.id.removesuffix(f"-{self.severity}")


def entrants(
    bodies: Iterable[Json],
    *,
    descriptors: DescriptorLookup,
    known_as: Mapping[str, str] | None = None,
) -> tuple[Entrant, ...]:
    """Policies in REST form; one that cannot be read keeps the reason in Google's words.

    `known_as` gives the ids of policies that carry none, by display name.
    """
    return tuple(_entrant(body, descriptors, known_as or {}) for body in bodies)


def _entrant(body: Json, descriptors: DescriptorLookup, known_as: Mapping[str, str]) -> Entrant:
    name = identity(body, known_as)
    try:
        spec = parse_policy(body, descriptors=descriptors)
    except (InvalidArgument, NotFound) as error:
        return Entrant(id=name, body=body, spec=None, refusal=error.what)
    return Entrant(id=name, body=body, spec=spec)


def identity(body: Mapping[str, Any], known_as: Mapping[str, str] | None = None) -> str:
    """The alert id of a policy in REST form; its display name, or what that is known as, else."""
    name = str(body.get("displayName") or body.get("name") or "policy without a name")
    return str(body.get("userLabels", {}).get(ALERT_ID) or (known_as or {}).get(name, name))


def proposed_bodies(catalog: Catalog, *, runbook_base_url: str) -> tuple[Json, ...]:
    """What a catalog compiles to."""
    return tuple(
        policy_json(policy, catalog, runbook_base_url=runbook_base_url)
        for policy in catalog.policies
    )


def live_bodies(policies: Iterable[Mapping[str, Any]], catalog: Catalog) -> tuple[Json, ...]:
    """Those of the live policies that are this catalog's; the others do not change."""
    return tuple(
        dict(policy)
        for policy in policies
        if policy.get("userLabels", {}).get(MANAGED_BY) == MANAGER
        and policy.get("userLabels", {}).get(CATALOG) == catalog.name
    )


def either(first: DescriptorLookup, second: DescriptorLookup) -> DescriptorLookup:
    """What one knows of a metric; where it knows nothing, what the other does."""
    return lambda metric_type: first(metric_type) or second(metric_type)


def lead_of(entrants: Iterable[Entrant]) -> timedelta:
    """How much history comes before the first evaluation, so that every window is full."""
    return max(
        (one.spec.lookback for one in entrants if one.spec is not None),
        default=timedelta(0),
    )


def selections(policies: Iterable[Mapping[str, Any]]) -> tuple[Selection, ...]:
    """What policies in REST form read: each metric type with its resource type, labels left out.

    A filter that cannot be read selects nothing; whoever evaluates the policy says why.
    """
    found: set[Selection] = set()
    for policy in policies:
        for text in _filters(policy):
            try:
                parsed = parse_filter(text)
            except InvalidArgument:
                continue
            found |= {
                Selection(metric_type=metric_type, resource_type=resource_type)
                for metric_type in parsed.metric_types or ()
                for resource_type in parsed.resource_types or ("",)
            }
    return tuple(
        sorted(
            one for one in found if not any(other != one and other.covers(one) for other in found)
        )
    )


def _filters(policy: Mapping[str, Any]) -> Iterator[str]:
    for condition in policy.get("conditions", ()):
        for kind in ("conditionThreshold", "conditionAbsent"):
            body = condition.get(kind)
            for name in ("filter", "denominatorFilter"):
                text = body.get(name) if isinstance(body, Mapping) else None
                if isinstance(text, str) and text:
                    yield text
