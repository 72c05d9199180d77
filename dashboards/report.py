"""How plans and drift of dashboards are told: tile by tile, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alerts.difference import FieldChange, Glossary, Line, field_lines
from alerts.plan import Action, Change, Plan
from alerts.report import COLOURS, SIGNS, outcome, tell_lines
from alerts.terminal import count, tell
from dashboards.shape import Json

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = Glossary()
_NAMES = {
    "xyChart": "chart",
    "alertChart": "alert chart",
    "scorecard": "number",
    "incidentList": "incident list",
    "sectionHeader": "section header",
    "collapsibleGroup": "group",
    "timeSeriesTable": "table",
}


def contents(body: Json) -> str:
    """`9 charts, 4 numbers, 1 incident list`: what a dashboard in REST form shows."""
    kinds = Counter(
        _named(key)
        for tile in body.get("mosaicLayout", {}).get("tiles", ())
        for key in tile["widget"]
        if key not in ("title", "id", "sectionHeader", "collapsibleGroup")
    )
    return ", ".join(count(number, noun) for noun, number in kinds.most_common())


def tell_plan(out: Console, plan: Plan, *, prune: bool) -> None:
    """Every change tile by tile, what is kept, and one line that sums it up."""
    for change in plan.changes:
        tell_change(out, change)
    for change in plan.stale:
        kept = change.reason if prune else f"{change.reason}; kept without --prune"
        tell(out, f"  ? stale {change.kind} {change.id}: {kept}")
    tell(out, outcome(plan, "dashboard"))


def tell_change(out: Console, change: Change) -> None:
    """One change: its sign and reason, then the tiles that differ."""
    sign = SIGNS[change.action]
    line = head = f"  {sign} {change.action} {change.kind} {change.id}"
    if change.action is Action.CREATE:
        line += f": {change.body['displayName']!r}, {contents(change.body)}"
    elif change.action is Action.DELETE:
        line += f": {change.live.get('displayName', '')!r}"
    if change.reason:
        line += f"  ({change.reason})"
    tell(out, line, (head, COLOURS[sign]))
    tell_lines(out, change_lines(change))


def change_lines(change: Change) -> Iterator[Line]:
    """The fields that differ: the dashboard's own first, then each tile under its title."""
    tiles: dict[str, list[FieldChange]] = {}
    for one in change.fields:
        if one.parts[0] == "tiles" and len(one.parts) > 1:
            tiles.setdefault(str(one.parts[1]), []).append(one)
        else:
            yield from field_lines(one, one.parts, 0, _WORDS, unit=None)
    for title, fields in tiles.items():
        first = fields[0]
        if len(first.parts) == 2:
            sign = "+" if first.live is None else "-"
            yield Line(
                depth=0, sign=sign, text=f'{_named(str(first.desired or first.live))} "{title}"'
            )
            continue
        yield Line(depth=0, sign="~", text=f'tile "{title}"')
        for one in fields:
            yield from field_lines(one, one.parts[2:], 1, _WORDS, unit=None)


def reversed_change(change: Change) -> Change:
    """The same the other way round: from what the catalog says to what somebody made of it."""
    return replace(
        change,
        fields=tuple(
            FieldChange(parts=one.parts, live=one.desired, desired=one.live)
            for one in change.fields
        ),
    )


def _named(kind: Any) -> str:
    return _NAMES.get(str(kind), str(kind))
