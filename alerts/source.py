"""Policies as the Python that would declare them: what `import` writes. Pure.

The text is formatted like the rest of a catalog (100 columns, one field a line where a value does
not fit), names only what it needs, and gives the identical values when it is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from enum import Enum
from keyword import iskeyword
from typing import Any

from alerts import policy as language
from alerts.condition import signals
from alerts.metric import Metric
from alerts.policy import Policy

WIDTH = 100
_STEP = 4
_UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
_LANGUAGE_NAMES = frozenset(language.__all__)


class _Writer:
    """Writes values as expressions, and remembers which names they need."""

    def __init__(self, names: Mapping[Metric, str]) -> None:
        self.names = names
        self.used: set[str] = set()

    def expression(self, value: Any, indent: int, before: int) -> str:
        """A value as Python; `before` columns of its first line are taken already."""
        if isinstance(value, Metric) and value in self.names:
            return self.names[value]
        line = self._flat(value)
        # The comma behind it needs a column too.
        if "\n" not in line and before + len(line) + 1 <= WIDTH:
            return line
        inner = indent + _STEP
        if isinstance(value, str):
            return self._text(value, indent)
        if is_dataclass(value):
            items = [self._item(f"{name}=", part, inner) for name, part in self._members(value)]
            return self._block(f"{self._named(value)}(", items, ")", indent)
        if isinstance(value, Mapping):
            items = [self._item(f"{self._flat(key)}: ", part, inner) for key, part in value.items()]
            return self._block("{", items, "}", indent)
        if isinstance(value, list | tuple):
            items = [self._item("", part, inner) for part in value]
            ends = ("(", ")") if isinstance(value, tuple) else ("[", "]")
            return self._block(ends[0], items, ends[1], indent)
        return line

    def _item(self, head: str, value: Any, indent: int) -> str:
        return f"{head}{self.expression(value, indent, indent + len(head))}"

    @staticmethod
    def _block(begin: str, items: Sequence[str], end: str, indent: int) -> str:
        inner = " " * (indent + _STEP)
        lines = "".join(f"{inner}{item},\n" for item in items)
        return f"{begin}\n{lines}{' ' * indent}{end}"

    def _text(self, value: str, indent: int) -> str:
        """A long text as adjoining literals, a line of the text or a few words each."""
        inner = " " * (indent + _STEP)
        room = WIDTH - len(inner)
        pieces = [
            piece for line in value.splitlines(keepends=True) for piece in _pieces(line, room)
        ]
        return "(\n" + "".join(f"{inner}{piece}\n" for piece in pieces) + f"{' ' * indent})"

    def _flat(self, value: Any) -> str:
        """A value on one line."""
        if isinstance(value, Metric) and value in self.names:
            return self.names[value]
        if isinstance(value, Enum):
            self.used.add(type(value).__name__)
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, timedelta):
            return self._duration(value)
        if isinstance(value, str):
            return literal(value)
        if is_dataclass(value):
            inside = ", ".join(f"{name}={self._flat(part)}" for name, part in self._members(value))
            return f"{self._named(value)}({inside})"
        if isinstance(value, Mapping):
            inside = ", ".join(
                f"{self._flat(key)}: {self._flat(part)}" for key, part in value.items()
            )
            return "{" + inside + "}"
        if isinstance(value, tuple):
            inside = ", ".join(self._flat(part) for part in value)
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, list):
            return "[" + ", ".join(self._flat(part) for part in value) + "]"
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            # Thresholds read as they were meant: 100, not 100.0.
            return str(int(value))
        return repr(value)

    def _duration(self, value: timedelta) -> str:
        self.used.add("timedelta")
        if not value:
            return "timedelta(0)"
        if value.microseconds:
            return f"timedelta(seconds={value.total_seconds()!r})"
        seconds = value // timedelta(seconds=1)
        unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
        return f"timedelta({unit}={seconds // size})"

    def _named(self, value: Any) -> str:
        name = type(value).__name__
        self.used.add(name)
        return name

    @staticmethod
    def _members(value: Any) -> list[tuple[str, Any]]:
        """The fields that differ from their default, or have none."""
        found = []
        for one in fields(value):
            part = getattr(value, one.name)
            if isinstance(value, Policy) and one.name == "runbook" and part == value.subject:
                continue
            if not _is_default(one, part):
                found.append((one.name, part))
        return found


def _is_default(one: Field[Any], value: Any) -> bool:
    if one.default is not MISSING:
        return bool(value == one.default)
    if one.default_factory is not MISSING:
        return bool(value == one.default_factory())
    return False


def literal(text: str) -> str:
    """A text as a Python literal on one line; in double quotes unless that needs more escapes."""
    # JSON's escapes are Python's too; what is not printable is escaped as well.
    raw = json.dumps(text, ensure_ascii=False)
    if '"' in text and "'" not in text:
        raw = "'" + raw[1:-1].replace('\\"', '"') + "'"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)


def _pieces(line: str, room: int) -> Iterable[str]:
    """A line of text as literals of at most `room` columns, broken behind spaces."""
    left = line
    while len(literal(left)) > room:
        # Escapes make a literal longer than its text, so the break is looked for from there.
        end = room - 2
        while end > 1 and len(literal(left[:end])) > room:
            end -= 1
        space = left.rfind(" ", 1, end)
        cut = space + 1 if space > 0 else end
        yield literal(left[:cut])
        left = left[cut:]
    if left:
        yield literal(left)


def constant(text: str, taken: Iterable[str]) -> str:
    """A name for a module's constant, made of any text, unlike those taken."""
    name = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_") or "POLICY"
    if name[0].isdigit() or (iskeyword(name.lower()) and name in ("NONE", "TRUE", "FALSE")):
        name = f"_{name}"
    found, number, all_taken = name, 1, set(taken)
    while found in all_taken:
        number += 1
        found = f"{name}_{number}"
    return found


def module(policies: Sequence[Policy], *, catalog: str | None, origin: str) -> str:
    """A module that declares these policies; `origin` says where they were found.

    `catalog` names the catalog that they make up; None declares the policies alone.
    """
    taken: set[str] = {"CATALOG"}
    metrics: dict[Metric, str] = {}
    for policy in policies:
        for condition in policy.conditions:
            for signal in signals(condition):
                metric = signal.metric
                if isinstance(metric, Metric) and metric not in metrics:
                    name = constant(metric.type.partition("/")[2] or metric.type, taken)
                    metrics[metric] = name
                    taken.add(name)
    plain = _Writer({})
    declared = [
        f"{name} = {plain.expression(metric, 0, len(name) + 3)}" for metric, name in metrics.items()
    ]
    writer = _Writer(metrics)
    bodies, names = [], []
    for policy in policies:
        name = constant(policy.id, taken)
        taken.add(name)
        names.append(name)
        bodies.append(f"{name} = {writer.expression(policy, 0, len(name) + 3)}")
    used = writer.used | plain.used
    if catalog is not None:
        used |= {"Catalog"}
        listed = "".join(f"        {name},\n" for name in names)
        bodies.append(
            f"CATALOG = Catalog(\n    name={literal(catalog)},\n    policies=(\n{listed}    ),\n"
            "    routes=(),\n)"
        )
    imports = ["from datetime import timedelta", ""] if "timedelta" in used else []
    known = sorted(used & _LANGUAGE_NAMES, key=_isorted)
    imports += ["from alerts.policy import (", *(f"    {name}," for name in known), ")"]
    head = f'"""{catalog}: alert policies, {origin}."""' if catalog else f'"""{origin}."""'
    text = "\n".join([head, "", "from __future__ import annotations", "", *imports])
    return "\n\n".join([text, *(["\n".join(declared)] if declared else []), *bodies]) + "\n"


def _isorted(name: str) -> tuple[bool, str]:
    """The order that import sorters use: constants, classes, functions."""
    return name.islower(), name.lower()
