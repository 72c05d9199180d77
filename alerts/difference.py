"""What differs between two canonical forms, and the lines that show it to people. Pure.

A long text shows its changed lines only, a filter its changed terms, a list its changed members;
a duration and a threshold are read with their unit. Machines get every value whole.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from alerts.wording import duration_words
from speakfit.engine.filters import All, parse_filter
from speakfit.errors import InvalidArgument

_TEXTS = frozenset({"content", "query"})
_FILTERS = frozenset({"filter", "denominatorFilter"})
_LONG = 60
"""Characters up to which both sides of a change stand on one line."""
_DURATION = re.compile(r"\d+s")
_LABELS = frozenset({"userLabels", "labels", "labelExtractors"})


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field that differs; None on a side where it is absent."""

    parts: tuple[str | int, ...]
    """The way to the field; the second part of a condition's is its display name."""
    live: Any
    desired: Any

    @property
    def path(self) -> str:
        """`conditions["queue depth"].conditionThreshold.duration`."""
        return _path(self.parts)


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    last: str | int = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() or last in _LABELS:
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
        last = part
    return text


def differences(live: Mapping[str, Any], desired: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Every leaf that is not the same on both sides, in the order of their paths."""
    before = dict(_leaves(live, ()))
    after = dict(_leaves(desired, ()))
    changed = [
        parts for parts in before.keys() | after.keys() if before.get(parts) != after.get(parts)
    ]
    return tuple(
        FieldChange(parts=parts, live=before.get(parts), desired=after.get(parts))
        for parts in sorted(changed, key=_path)
    )


def _leaves(
    value: Any, parts: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, Mapping) and (value or len(parts) < 2):
        for key, inner in value.items():
            yield from _leaves(inner, (*parts, key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*parts, index))
    else:
        yield parts, value


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a difference: how deep it stands, its sign (`+`, `-`, `~` or none), its text."""

    depth: int
    sign: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Glossary:
    """What the words of a difference need beside the difference itself."""

    units: Mapping[str, str] = field(default_factory=dict)
    """The UCUM unit of each metric type."""
    channels: Mapping[str, str] = field(default_factory=dict)
    """What people call each live channel, by the server's name."""
    policies: Mapping[str, str] = field(default_factory=dict)
    """What each policy of the catalog fires on, by id."""


def difference_lines(
    fields: Iterable[FieldChange],
    *,
    live: Mapping[str, Any],
    desired: Mapping[str, Any],
    glossary: Glossary,
) -> Iterator[Line]:
    """The lines for the fields that differ between two canonical policies.

    Fields of the policy itself come first, then its conditions, each under its display name, and
    long texts last.
    """
    own, texts = [], []
    conditions: dict[str, list[FieldChange]] = {}
    for one in fields:
        if one.parts[0] == "conditions" and len(one.parts) > 1:
            conditions.setdefault(str(one.parts[1]), []).append(one)
        elif one.parts[-1] in _TEXTS:
            texts.append(one)
        else:
            own.append(one)
    for one in own:
        yield from field_lines(one, one.parts, 0, glossary, unit=None)
    for key, changed in conditions.items():
        before = live.get("conditions", {}).get(key)
        after = desired.get("conditions", {}).get(key)
        name = json.dumps(key, ensure_ascii=False)
        if after is None:
            # What it was is not what must be read here, but what its end does.
            yield Line(depth=0, sign="-", text=f"condition {name}; its open incidents close")
            continue
        yield Line(depth=0, sign="~" if before else "+", text=f"condition {name}")
        unit = _threshold_unit(after, glossary.units)
        for one in changed:
            # The kind of a condition is said by its fields.
            yield from field_lines(one, one.parts[3:] or one.parts[2:], 1, glossary, unit=unit)
    for one in texts:
        yield from field_lines(one, one.parts, 0, glossary, unit=None)


def field_lines(
    one: FieldChange,
    parts: tuple[str | int, ...],
    depth: int,
    glossary: Glossary,
    *,
    unit: str | None,
) -> Iterator[Line]:
    """The lines of one field, called by `parts`; `unit` is that of a threshold among them."""
    name = _path(parts)
    sign = "+" if one.live is None else "-" if one.desired is None else "~"
    taken, given, about = _pieces(one, glossary, unit)
    sides = [one.live, one.desired]
    partial = about or any(isinstance(side, list) and len(side) > 1 for side in sides)
    short = len("".join((*taken, *given))) <= _LONG
    if short and not partial and len(taken) + len(given) == 2 - sides.count(None):
        shown = " -> ".join((*taken, *given))
        yield Line(depth=depth, sign=sign, text=f"{name}: {shown}")
        return
    yield Line(depth=depth, sign=sign, text=f"{name}{about}")
    for mark, pieces in (("-", taken), ("+", given)):
        for piece in pieces:
            yield Line(depth=depth + 1, sign=mark, text=piece)


def _pieces(
    one: FieldChange, glossary: Glossary, unit: str | None
) -> tuple[list[str], list[str], str]:
    """What goes away, what comes, and a remark on what is left out."""
    leaf = next((part for part in reversed(one.parts) if isinstance(part, str)), "")
    live, desired = one.live, one.desired
    if leaf in _TEXTS and isinstance(live, str) and isinstance(desired, str):
        before, after = live.splitlines(), desired.splitlines()
        taken, given = _changed_lines(before, after)
        total = max(len(before), len(after))
        if total > 1:
            return taken, given, f" ({max(len(taken), len(given))} of {total} lines)"
        return taken, given, ""
    if leaf in _FILTERS and isinstance(live, str) and isinstance(desired, str):
        before, after = _terms(live), _terms(desired)
        same = [term for term in before if term in after]
        taken = [term for term in before if term not in same]
        given = [term for term in after if term not in same]
        if same and (taken or given):
            return taken, given, f" ({len(same)} {'term' if len(same) == 1 else 'terms'} the same)"
    if isinstance(live, list | None) and isinstance(desired, list | None):
        before = [_member(value, glossary) for value in live or ()]
        after = [_member(value, glossary) for value in desired or ()]
        taken = [value for value in before if value not in after]
        given = [value for value in after if value not in before]
        if taken or given:
            return taken, given, ""
    return (
        [] if live is None else _value(live, leaf, unit),
        [] if desired is None else _value(desired, leaf, unit),
        "",
    )


def _changed_lines(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    taken, given = [], []
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            taken += before[i1:i2]
            given += after[j1:j2]
    return taken, given


def _terms(text: str) -> list[str]:
    try:
        expression = parse_filter(text).expression
    except InvalidArgument:
        return [text]
    operands = expression.operands if isinstance(expression, All) else (expression,)
    return [str(operand) for operand in operands]


def _member(value: Any, glossary: Glossary) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text} ({glossary.channels[text]})" if text in glossary.channels else text


def _value(value: Any, leaf: str, unit: str | None) -> list[str]:
    if leaf in _TEXTS and isinstance(value, str):
        return value.splitlines()
    if leaf == "thresholdValue" and isinstance(value, float):
        return [_quantity(value, unit)]
    if isinstance(value, str):
        if _DURATION.fullmatch(value):
            return [duration_words(timedelta(seconds=int(value[:-1])))]
        return [value if leaf in _FILTERS else json.dumps(value, ensure_ascii=False)]
    return [json.dumps(value, ensure_ascii=False)]


def _quantity(value: float, unit: str | None) -> str:
    """A value in full, with its UCUM unit; a share in percent."""
    exact = Decimal(repr(value))
    if unit == "1":
        exact, unit = exact * 100, "%"
    shown = f"{exact:f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return f"{shown} {unit}" if unit else shown


def _threshold_unit(condition: Mapping[str, Any], units: Mapping[str, str]) -> str | None:
    """The UCUM unit that a condition's threshold is in; None when it is not known.

    Aligners and reducers that count give counts, rates are per second; a ratio is a share.
    """
    body = condition.get("conditionThreshold", {})
    if body.get("denominatorFilter"):
        return "1"
    try:
        types = parse_filter(body.get("filter", "")).metric_types or frozenset()
    except InvalidArgument:
        return None
    found = {units.get(name) for name in types}
    unit = found.pop() if len(found) == 1 else None
    for aggregation in body.get("aggregations", ()):
        steps = (
            str(aggregation.get("perSeriesAligner", "")),
            str(aggregation.get("crossSeriesReducer", "")),
        )
        if any("FRACTION_TRUE" in step for step in steps):
            unit = "1"
        elif any("COUNT" in step for step in steps):
            unit = None
        elif "ALIGN_RATE" in steps and unit is not None:
            unit = f"{unit}/s"
        elif "ALIGN_PERCENT_CHANGE" in steps:
            unit = "%"
    return unit
