"""Values as the API's JSON writes them: durations ("300s"), enums, integers, objects, lists.

Refusals speak like Google's JSON front end, which names the path of the field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from speakfit.errors import InvalidArgument

_Kind = TypeVar("_Kind", bound=StrEnum)
_NUMBER = re.compile(r"-?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,2})?")
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")


MAX_DURATION = timedelta(seconds=315_576_000_000)
"""google.protobuf.Duration ends at ten thousand years either way."""


def to_ns(length: timedelta) -> int:
    """Exact nanoseconds of a timedelta."""
    return (length // timedelta(microseconds=1)) * 1_000


def parse_duration(value: object, *, field: str) -> timedelta:
    """Read google.protobuf.Duration in JSON form; finer than microseconds is cut.

    Raises InvalidArgument in the words of Google's JSON front end.
    """
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgument(
            f"Invalid value at '{field}' (type.googleapis.com/google.protobuf.Duration), "
            f'"{value}"'
        )
    sign, seconds, fraction = found.groups()
    length = timedelta(seconds=int(seconds), microseconds=int((fraction or "0").ljust(9, "0")[:6]))
    if length > MAX_DURATION:
        raise InvalidArgument(
            f"Invalid value at '{field}' (type.googleapis.com/google.protobuf.Duration), "
            f"Field '{field}', duration out of range, \"{value}\""
        )
    return -length if sign else length


def print_duration(length: timedelta) -> str:
    """The JSON form of a duration, such as "300s"."""
    microseconds = length // timedelta(microseconds=1)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{seconds}s" if not rest else f"{sign}{seconds}.{rest:06d}".rstrip("0") + "s"


def parse_enum(kind: type[_Kind], value: object, *, field: str) -> _Kind:
    """A member by wire name; the first one when the field is unset; InvalidArgument if unknown."""
    members = list(kind)
    if value is None:
        return members[0]
    for member in members:
        if member.value == value:
            return member
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_ENUM), \"{value}\"")


def parse_text(value: object, *, field: str) -> str:
    """A string; unset is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_STRING), {value}")


def parse_bool(value: object, *, field: str, default: bool = False) -> bool:
    """A bool; unset is `default`."""
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_BOOL), \"{value}\"")


def parse_number(value: object, *, field: str) -> float:
    """A double; JSON may write it as text, but NaN and the infinities are no threshold."""
    if value is None:
        return 0.0
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_DOUBLE), \"{value}\"")


def parse_integer(value: object, *, field: str) -> int:
    """An integer; JSON may write it as text; unset is zero."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_INT32), \"{value}\"")


def camel(name: str) -> str:
    """The JSON name of a field, which JSON may also spell as the proto does."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def parse_object(value: object, *, field: str, known: Collection[str]) -> Mapping[str, Any]:
    """A JSON object, by JSON names, that has none but the known members; unset is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"Invalid value at '{field}' (TYPE_MESSAGE), \"{value}\"")
    for name in value:
        if not isinstance(name, str) or camel(name) not in known:
            raise InvalidArgument(
                f'Invalid JSON payload received. Unknown name "{name}" at '
                f"'{field}': Cannot find field."
            )
    return {camel(name): item for name, item in value.items()}


def parse_list(value: object, *, field: str) -> list[Any]:
    """A JSON list; unset is empty."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    raise InvalidArgument(f"Invalid value at '{field}' (TYPE_MESSAGE), \"{value}\"")
