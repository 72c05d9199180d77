"""How plans are told: coloured lines for people, the same in plain text in a pipe, JSON whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alerts.canonical import canonical_policy
from alerts.difference import FieldChange, Glossary, Line, difference_lines
from alerts.plan import Action, Change, Kind, Live, Plan
from alerts.policy import Catalog
from alerts.terminal import count, tell
from alerts.wording import policy_words

if TYPE_CHECKING:
    from rich.console import Console

SIGNS = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.DELETE: "-",
}
COLOURS = {"+": "green", "~": "yellow", "-": "red"}
PAST = {Action.CREATE: "created", Action.UPDATE: "updated", Action.DELETE: "deleted"}


def glossary(catalog: Catalog, live: Live) -> Glossary:
    """The words that a catalog and a project lend to a report."""
    from alerts.encode import known_metrics

    return Glossary(
        units={name: metric.unit for name, metric in known_metrics(catalog).items()},
        channels={
            channel["name"]: f"{channel.get('displayName', '')!r}, {channel.get('type', '')}"
            for channel in live.channels
        },
        policies={policy.id: policy_words(policy) for policy in catalog.policies},
    )


def tell_plan(out: Console, plan: Plan, words: Glossary, *, prune: bool) -> None:
    """Every change with its fields, what is kept, and one line that sums it up."""
    for change in plan.changes:
        tell_change(out, change, words, channels=plan.channel_names)
    for change in plan.stale:
        kept = change.reason if prune else f"{change.reason}; kept without --prune"
        tell(out, f"  ? stale {change.kind} {change.id}: {kept}")
    tell(out, outcome(plan))


def tell_change(
    out: Console, change: Change, words: Glossary, *, channels: Mapping[str, str]
) -> None:
    """One change: its sign and reason, then the fields that differ."""
    sign = SIGNS[change.action]
    line = head = f"  {sign} {change.action} {change.kind} {change.id}"
    if change.action is Action.CREATE and change.id in words.policies:
        line += f": {words.policies[change.id]}"
    if change.action is Action.DELETE and change.kind is not Kind.METRIC:
        line += f": {change.live.get('displayName', '')!r}"
    if change.reason:
        line += f"  ({change.reason})"
    # The action's word is all that a pipe gets; colour only repeats it.
    tell(out, line, (head, COLOURS[sign]))
    tell_lines(out, change_lines(change, words, channels=channels))


def change_lines(change: Change, words: Glossary, *, channels: Mapping[str, str]) -> Iterable[Line]:
    """The fields that differ, with both sides for the words around them."""
    if change.kind is not Kind.POLICY:
        return difference_lines(change.fields, live={}, desired={}, glossary=words)
    names = {name: identity for identity, name in channels.items()}
    return difference_lines(
        change.fields,
        live=canonical_policy(change.live, names),
        desired=canonical_policy(change.body, names),
        glossary=words,
    )


def edit_lines(change: Change, words: Glossary, *, channels: Mapping[str, str]) -> Iterable[Line]:
    """The same the other way round: from what the catalog says to what somebody made of it."""
    edits = [
        FieldChange(parts=one.parts, live=one.desired, desired=one.live) for one in change.fields
    ]
    return change_lines(
        replace(change, fields=tuple(edits), live=change.body, body=change.live),
        words,
        channels=channels,
    )


def tell_lines(out: Console, lines: Iterable[Line]) -> None:
    """A difference, below the line of its change."""
    for one in lines:
        text = f"{one.sign} {one.text}" if one.sign else one.text
        tell(out, " " * (6 + 4 * one.depth) + text, (text, COLOURS.get(one.sign, "")))


def outcome(plan: Plan, noun: str = "policy") -> str:
    """`Plan: 2 to create, 1 to delete; 12 unchanged; 3 policies of others left alone.`"""
    parts = []
    if plan.changes:
        counts = {action: plan.number(action) for action in SIGNS}
        parts.append("Plan: " + ", ".join(f"{n} to {action}" for action, n in counts.items() if n))
        if plan.unchanged:
            parts.append(f"{len(plan.unchanged)} unchanged")
    elif plan.unchanged:
        same = count(len(plan.unchanged), "resource")
        parts.append(f"No changes: {same} as the catalog wants")
    else:
        parts.append("No changes: there is nothing of this catalog")
    if plan.stale:
        parts.append(f"{len(plan.stale)} stale kept")
    if plan.foreign:
        parts.append(f"{count(plan.foreign, noun)} of others left alone")
    return "; ".join(parts) + "."


def change_json(change: Change) -> dict[str, Any]:
    """One change for machines."""
    return {
        "action": str(change.action),
        "kind": str(change.kind),
        "id": change.id,
        "reason": change.reason,
        "name": change.name,
        "fields": [
            {"path": field.path, "live": field.live, "desired": field.desired}
            for field in change.fields
        ],
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for machines, with all that would be sent; secrets are never in it."""
    return {
        "changes": [{**change_json(change), "body": change.body} for change in plan.changes],
        "stale": [change_json(change) for change in plan.stale],
        "unchanged": [f"{change.kind} {change.id}" for change in plan.unchanged],
        "foreign": plan.foreign,
        "summary": {str(action): plan.number(action) for action in SIGNS},
    }
