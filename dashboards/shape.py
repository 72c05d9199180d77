"""Frozen values to REST JSON and back, led by their type hints. Pure.

A field `min_alignment_period` is the member `minAlignmentPeriod`. A field that may be one of
several kinds of value is a oneof of the API: each kind is a member of its own, named after its
class. What has the server's default value is not written, as protobuf's own JSON does.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from alerts.nearest import did_you_mean
from speakfit.engine.wire import print_duration
from speakfit.errors import CatalogError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json = dict[str, Any]
Leftover = Callable[[str, str, str, Any], None]
"""Told of a member that no field has: the class, the member, its path, its value."""

_Kind = TypeVar("_Kind", bound="DataclassInstance")
_DURATION = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?s")
_INTEGER = re.compile(r"-?\d{1,18}")


def camel(name: str) -> str:
    """`y2_axis` as the API writes it: `y2Axis`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def key_of(kind: type) -> str:
    """The member that a kind of value is in a oneof: `XyChart` is `xyChart`."""
    return kind.__name__[0].lower() + kind.__name__[1:]


def holds_nothing(value: Any) -> bool:
    """Whether a JSON value says no more than that it is there."""
    if isinstance(value, Mapping):
        return all(holds_nothing(one) for one in value.values())
    if isinstance(value, list):
        return all(holds_nothing(one) for one in value)
    return value in (None, False, 0, "", "0", "0s") or _unspecified(value)


def write(value: Any) -> Json:
    """A frozen value in REST form."""
    body: Json = {}
    hints = _hints(type(value))
    for one in fields(value):
        part = getattr(value, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if part == default or part is None or (isinstance(part, tuple | Mapping) and not part):
            continue
        named = key_of(type(part)) if len(_kinds(hints[one.name])) > 1 else camel(one.name)
        body[named] = _written(part)
    return body


def read(kind: type[_Kind], body: Any, *, at: str = "", leftover: Leftover | None = None) -> _Kind:
    """A frozen value of REST form.

    Raises CatalogError with the path of what is wrong. A member that no field has is refused too,
    or handed to `leftover`; where it holds nothing it is skipped.
    """
    if not isinstance(body, Mapping):
        raise _wrong(at, body, "an object")
    hints, members = _hints(kind), _members_of(kind)
    given: dict[str, Any] = {}
    for member, value in body.items():
        path = f"{at}.{member}" if at else str(member)
        name = members.get(member) or members.get(camel(str(member)))
        if value is None:
            continue
        if name is None:
            if not holds_nothing(value):
                _left_over(kind, str(member), path, value, members, leftover)
            continue
        kinds = _kinds(hints[name])
        if len(kinds) > 1:
            if name in given:
                raise CatalogError(
                    f"{member} stands beside another one of {', '.join(map(key_of, kinds))}.",
                    where=path,
                    todo="Keep one of them: the API takes no more.",
                )
            chosen = next(one for one in kinds if key_of(one) in (member, camel(str(member))))
            given[name] = read(chosen, value, at=path, leftover=leftover)
        else:
            part = _read(hints[name], value, path, leftover)
            if part is not None:
                given[name] = part
    return _made(kind, given, at)


def _made(kind: type[_Kind], given: Mapping[str, Any], at: str) -> _Kind:
    for one in fields(kind):
        needed = one.default is MISSING and one.default_factory is MISSING
        if needed and one.name not in given:
            raise CatalogError(
                f"{camel(one.name)} is missing.",
                where=at or "dashboard",
                todo=f"Give it: {key_of(kind)} needs one.",
            )
    try:
        return kind(**given)
    except CatalogError as error:
        # A value knows its own rules, and not where it stands.
        raise CatalogError(
            error.what, where=".".join(filter(None, (at, error.where))), todo=error.todo
        ) from error


def _left_over(
    kind: type,
    member: str,
    path: str,
    value: Any,
    members: Mapping[str, str],
    leftover: Leftover | None,
) -> None:
    if leftover is None:
        raise CatalogError(
            f"{key_of(kind)} has no member {member!r}.",
            where=path,
            todo=did_you_mean(member, members, otherwise=f"There are: {', '.join(members)}."),
        )
    leftover(kind.__name__, member, path, value)


_HINTS: dict[Any, dict[str, Any]] = {}
_MEMBERS: dict[Any, dict[str, str]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind)
        _HINTS[kind] = {one.name: hints[one.name] for one in fields(kind)}
    return _HINTS[kind]


def _members_of(kind: Any) -> dict[str, str]:
    """The field of each member."""
    if kind not in _MEMBERS:
        _MEMBERS[kind] = {
            member: name for name, hint in _hints(kind).items() for member in _members(name, hint)
        }
    return _MEMBERS[kind]


def _kinds(hint: Any) -> tuple[Any, ...]:
    """What a value may be beside absent: one kind, or those of a oneof."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(one for one in typing.get_args(hint) if one is not types.NoneType)
    return (hint,)


def _members(name: str, hint: Any) -> Iterator[str]:
    kinds = _kinds(hint)
    if len(kinds) > 1:
        yield from map(key_of, kinds)
    else:
        yield camel(name)


def _written(value: Any) -> Any:
    if is_dataclass(value):
        return write(value)
    if isinstance(value, tuple):
        return [_written(one) for one in value]
    if isinstance(value, timedelta):
        return print_duration(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _unspecified(value: Any) -> bool:
    return isinstance(value, str) and value.endswith("_UNSPECIFIED")


def _read(hint: Any, value: Any, at: str, leftover: Leftover | None) -> Any:
    (kind,) = _kinds(hint)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(at, value, "a list")
        inner = typing.get_args(kind)[0]
        return tuple(_read(inner, one, f"{at}[{n}]", leftover) for n, one in enumerate(value))
    if origin is not None:
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            raise _wrong(at, value, "an object of texts")
        return dict(value)
    if is_dataclass(kind):
        return read(typing.cast("type[Any]", kind), value, at=at, leftover=leftover)
    if issubclass(kind, StrEnum):
        if _unspecified(value):
            return None
        try:
            return kind(value)
        except ValueError:
            raise _wrong(at, value, f"one of {', '.join(kind)}") from None
    return _SCALARS[kind](value, at)


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise _wrong(at, value, "a text")
    return value


def _truth(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(at, value, "true or false")
    return value


def _integer(value: Any, at: str) -> int:
    # JSON of protobuf writes 64-bit numbers as texts.
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise _wrong(at, value, "a whole number")
    return int(value)


def _number(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(at, value, "a number")
    return float(value)


def _duration(value: Any, at: str) -> timedelta:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(at, value, "a duration in seconds such as 60s")
    return timedelta(
        seconds=int(found[1]), microseconds=int((found[2] or "0").ljust(9, "0")) // 1000
    )


_SCALARS: dict[type, Callable[[Any, str], Any]] = {
    str: _text,
    bool: _truth,
    int: _integer,
    float: _number,
    timedelta: _duration,
}


def _wrong(at: str, value: Any, wanted: str) -> CatalogError:
    shown = repr(value)
    return CatalogError(
        f"It is {shown if len(shown) <= 60 else shown[:57] + '...'}, not {wanted}.",
        where=at or "dashboard",
        todo=f"Write {wanted}.",
    )
