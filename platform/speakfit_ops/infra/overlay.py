"""What Google's provider knows about our resource types and its schema does not tell.

Forced replacement, conflicts, arguments that need each other, values, units and a few rules of the
services behind: each was read in the provider's source or in Google's documentation and is written
down by hand for the types in use, no others. The stand-in provider raises them as the real one
would, at validation or in the plan; where the real one would only learn from Google's answer, we
are early.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from speakfit_ops.infra.schema import Block

Step = str | int


class Unknown:
    """A value that Terraform will know only after apply; nobody judges it."""


UNKNOWN = Unknown()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one resource's arguments, and where."""

    summary: str
    detail: str = ""
    path: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Form:
    """A text's form: what it must match, and how to say so."""

    pattern: str
    words: str


Rule = Callable[[Mapping[str, Any]], Iterator[Problem]]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """About one resource type; attributes are named by dotted paths through its blocks."""

    replaced: frozenset[str] = frozenset()
    """A change of these destroys the resource and makes a new one; `block` covers all in it."""
    conflicts: tuple[tuple[str, ...], ...] = ()
    """At most one of each group may be set; siblings."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Exactly one of each group must be set; siblings."""
    needs: tuple[tuple[str, str], ...] = ()
    """The first of each pair asks for the second; siblings."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and most, in the unit that the argument is in."""
    sensitive: frozenset[str] = frozenset()
    made_up: Mapping[str, Any] = field(default_factory=dict)
    """What an apply without a cloud answers where just any text would not do."""
    rules: tuple[Rule, ...] = ()


def problems(facts: Facts, block: Block, config: Any) -> Iterator[Problem]:
    """What the provider would refuse in a resource's arguments; unknown values are never judged."""
    if not isinstance(config, dict):
        return
    for path, attribute in block.paths():
        dotted = ".".join(path)
        if attribute.read_only:
            for where, value in at(config, path):
                if not isinstance(value, (list, dict)) or value:
                    yield Problem(
                        summary="Value for unconfigurable attribute",
                        detail=f'Can\'t configure a value for "{path[-1]}": Google decides it.',
                        path=where,
                    )
        values = facts.values.get(dotted, attribute.values)
        form, span = facts.forms.get(dotted), facts.ranges.get(dotted)
        if not (values or form or span):
            continue
        for where, value in at(config, path):
            for item in value if isinstance(value, list) else [value]:
                yield from _judge(path[-1], where, item, values, form, span)
    for kind, groups in (("conflicts", facts.conflicts), ("one of", facts.one_of)):
        for group in groups:
            yield from _exclusive(config, group, exactly_one=kind == "one of")
    for first, second in facts.needs:
        for where, owner in _owners(config, first):
            if _given(owner, first) and not _given(owner, second):
                yield Problem(
                    summary="Missing required argument",
                    detail=f'"{_last(first)}": all of `{_last(first)},{_last(second)}` must be '
                    "specified",
                    path=(*where, _last(first)),
                )
    for rule in facts.rules:
        yield from rule(config)


def replaced(facts: Facts, prior: Any, planned: Any) -> Iterator[tuple[Step, ...]]:
    """The attributes whose change makes a new resource out of an old one."""
    for dotted in sorted(facts.replaced):
        path = tuple(dotted.split("."))
        before = dict(at(prior, path, nulls=True))
        after = dict(at(planned, path, nulls=True))
        if before != after:
            # Terraform wants one that exists; where a block came or went, the outermost does.
            yield next((where for where in after if before.get(where) != after[where]), path[:1])


def _judge(
    name: str,
    where: tuple[Step, ...],
    value: Any,
    values: tuple[str, ...],
    form: Form | None,
    span: tuple[float, float] | None,
) -> Iterator[Problem]:
    if isinstance(value, str):
        if values and value not in values:
            yield Problem(
                summary=f"expected {name} to be one of {list(values)}, got {value}", path=where
            )
        if form is not None and not re.fullmatch(form.pattern, value):
            yield Problem(
                summary=f'invalid value for {name}: "{value}"',
                detail=f"It must be {form.words}.",
                path=where,
            )
    elif isinstance(value, (int, float)) and span is not None and not span[0] <= value <= span[1]:
        yield Problem(
            summary=f"expected {name} to be in the range ({span[0]:g} - {span[1]:g}), got {value}",
            path=where,
        )


def _exclusive(
    config: Mapping[str, Any], group: tuple[str, ...], *, exactly_one: bool
) -> Iterator[Problem]:
    names = ",".join(_last(name) for name in group)
    for where, owner in _owners(config, group[0]):
        given = [_last(name) for name in group if _given(owner, name)]
        if len(given) > 1:
            yield Problem(
                summary="Conflicting configuration arguments",
                detail=f'"{given[0]}": conflicts with {given[1]}',
                path=(*where, given[0]),
            )
        elif exactly_one and not given:
            yield Problem(
                summary="Invalid combination of arguments",
                detail=f'"{_last(group[0])}": one of `{names}` must be specified',
                path=where,
            )


def _owners(config: Any, dotted: str) -> Iterator[tuple[tuple[Step, ...], dict[str, Any]]]:
    """The objects that hold the last part of a path."""
    above = tuple(dotted.split("."))[:-1]
    if not above:
        yield (), config
        return
    for where, value in at(config, above):
        for step, item in items(value):
            if isinstance(item, dict):
                yield (*where, *step), item


def _given(owner: Mapping[str, Any], dotted: str) -> bool:
    value = owner.get(_last(dotted))
    return value is not None and value != [] and value != {} and value != ""


def _last(dotted: str) -> str:
    return dotted.rsplit(".", 1)[-1]


def at(
    value: Any, path: tuple[str, ...], *, nulls: bool = False, where: tuple[Step, ...] = ()
) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Each value at a path, with the steps to it through repeated blocks."""
    if not path:
        if value is not None or nulls:
            yield where, value
        return
    for step, item in items(value):
        if isinstance(item, dict) and path[0] in item:
            yield from at(item[path[0]], path[1:], nulls=nulls, where=(*where, *step, path[0]))


def blocks(owner: Mapping[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The blocks of one name in an object, numbered; none where they are not known yet."""
    found = owner.get(name)
    if isinstance(found, list):
        for number, item in enumerate(found):
            if isinstance(item, dict):
                yield number, item


def items(value: Any) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """A list's items with their numbers; anything else is one item without."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield (number,), item
    else:
        yield (), value
