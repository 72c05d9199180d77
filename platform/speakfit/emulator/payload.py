"""JSON bodies as Google's front end reads them, and what it says about one that does not fit.

The texts are those of public error answers and of protobuf's own JSON reader; several faults are
told at once, one a line, and again as google.rpc.BadRequest (captures in GitHub issues
google-wallet/rest-samples#22, monitoring-dashboard-samples#694, google-cloud-python#4825,
cloud-custodian#7629).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import duration_pb2, json_format, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2

from speakfit.emulator.answers import DetailedInvalidArgument

_START = "Invalid JSON payload received."
_EXCERPT = 40
"""Characters shown before a syntax error."""

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NOT_NUMBERS = ("NaN", "Infinity", "-Infinity")
_TYPE_NAMES = {
    number: name for name, number in vars(FieldDescriptor).items() if name.startswith("TYPE_")
}
_ILLEGAL = {
    "google.protobuf.Timestamp": "Illegal timestamp format; timestamps must end with 'Z' or have "
    "a valid timezone offset.",
    "google.protobuf.Duration": "Illegal duration format; duration must end with 's'",
}
_PARSED: dict[str, Any] = {
    "google.protobuf.Timestamp": timestamp_pb2.Timestamp,
    "google.protobuf.Duration": duration_pb2.Duration,
}
_FREE = frozenset({"google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.FieldMask"})
"""Types whose JSON is not looked into here."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One fault: the field that holds it and what Google would say."""

    field: str
    text: str


def refusal(violations: Iterable[Violation]) -> DetailedInvalidArgument:
    """The error that tells all faults."""
    found = list(violations)
    details = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=one.field, description=one.text)
            for one in found
        ]
    )
    return DetailedInvalidArgument("\n".join(one.text for one in found), details=(details,))


def _syntax(text: str, position: int) -> str:
    line_start = text.rfind("\n", 0, position) + 1
    line_end = text.find("\n", position)
    first = max(line_start, position - _EXCERPT)
    last = min(len(text) if line_end < 0 else line_end, position + _EXCERPT)
    what = "Unexpected end of string." if position >= len(text) else "Unexpected token."
    return f"{_START} {what}\n{text[first:last]}\n{' ' * (position - first)}^"


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body, empty for an empty one; InvalidArgument in Google's words."""

    def no_constant(name: str) -> Any:
        raise json.JSONDecodeError("not JSON", text, max(0, text.find(name)))

    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        said = f"{_START} Encountered non UTF-8 code points."
        raise refusal([Violation(field="", text=said)]) from error
    if not text.strip():
        return {}
    try:
        body = json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise refusal([Violation(field="", text=_syntax(text, error.pos))]) from error
    except (RecursionError, ValueError) as error:
        # A number of thousands of digits is a ValueError.
        raise refusal([Violation(field="", text=f"{_START} Message too deep.")]) from error
    if not isinstance(body, dict):
        said = f'{_START} Unknown name "": Root element must be a message.'
        raise refusal([Violation(field="", text=said)])
    return body


def fill(message: Any, body: dict[str, Any], *, at: str = "") -> None:
    """Set a message from JSON; InvalidArgument tells every fault, `at` is where the body stands."""
    try:
        body = _spelled(body, message.DESCRIPTOR)
        found = list(_message(body, message.DESCRIPTOR, at))
        if found:
            raise refusal(found)
        json_format.ParseDict(body, message)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise unreadable(at) from error


def unreadable(at: str) -> DetailedInvalidArgument:
    """The error for what no rule of this module knows, for instance a lone surrogate in a text."""
    return refusal([Violation(field=at, text=f"{_START} The value cannot be read.")])


def _spelled(value: Any, descriptor: Any) -> Any:
    """JSON with its durations as text, where they are objects of seconds and nanos.

    Google's page on policies about objectives writes them so; json_format does not read it.
    """
    if isinstance(value, list):
        return [_spelled(item, descriptor) for item in value]
    if not isinstance(value, dict) or descriptor is None:
        return value
    if descriptor.full_name == "google.protobuf.Duration":
        try:
            seconds, nanos = int(value.get("seconds", 0)), int(value.get("nanos", 0))
        except (TypeError, ValueError):
            return value
        known = value.keys() <= {"seconds", "nanos"} and 0 <= nanos < 10**9
        return f"{seconds}.{nanos:09d}s" if known else value
    if descriptor.GetOptions().map_entry:
        return value
    found = {}
    for name, item in value.items():
        field = find_field(descriptor, name)
        found[name] = item if field is None else _spelled(item, field.message_type)
    return found


def _shown(value: Any) -> str:
    return json.dumps(value)[:200]


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


@cache
def _fields(descriptor: Any) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for field in descriptor.fields:
        # proto-plus adds an underscore to names that Python reserves.
        by_name[field.name.rstrip("_")] = by_name[field.json_name] = field
    return by_name


def find_field(descriptor: Any, name: str) -> Any:
    """A field by its name in either spelling, or None."""
    return _fields(descriptor).get(name)


def _wrong(at: str, kind: str, value: Any) -> Violation:
    return Violation(field=at, text=f"Invalid value at '{at}' ({kind}), {_shown(value)}")


def _message(body: dict[str, Any], descriptor: Any, at: str) -> Iterator[Violation]:
    chosen: set[str] = set()
    for name, value in body.items():
        field = find_field(descriptor, name)
        if field is None:
            place = f" at '{at}'" if at else ""
            yield Violation(
                field=at, text=f'{_START} Unknown name "{name}"{place}: Cannot find field.'
            )
            continue
        if value is None:
            continue
        oneof = field.containing_oneof
        if oneof is not None:
            if oneof.name in chosen:
                yield Violation(
                    field=at,
                    text=f"Invalid value at '{at}' (oneof), oneof field '{oneof.name}' is already "
                    f"set. Cannot set '{name}'",
                )
            chosen.add(oneof.name)
        yield from _field(field, value, name, at)


def _field(field: Any, value: Any, name: str, at: str) -> Iterator[Violation]:
    inner = _join(at, field.name.rstrip("_"))
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        if not isinstance(value, dict):
            yield _wrong(inner, f"type.googleapis.com/{kind.full_name}", value)
            return
        item = kind.fields_by_name["value"]
        for index, one in enumerate(value.values()):
            yield from _single(item, one, name, f"{inner}[{index}].value")
    elif field.is_repeated:
        if not isinstance(value, list):
            yield from _single(field, value, name, inner, listed=True)
            return
        for index, one in enumerate(value):
            yield from _single(field, one, name, f"{inner}[{index}]")
    elif isinstance(value, list):
        place = f" at '{at}'" if at else ""
        yield Violation(
            field=at,
            text=f'{_START} Unknown name "{name}"{place}: Proto field is not repeating, cannot '
            "start list.",
        )
    else:
        yield from _single(field, value, name, inner)


def _single(
    field: Any, value: Any, name: str, at: str, *, listed: bool = False
) -> Iterator[Violation]:
    """One value of a field; `listed` is a lone value where a list belongs."""
    kind = field.message_type
    if kind is None:
        if listed or not _scalar_fits(field, value):
            yield _wrong(at, _scalar_type(field), value)
    elif listed:
        yield _wrong(at, f"type.googleapis.com/{kind.full_name}", value)
    elif kind.full_name in _ILLEGAL:
        yield from _time(kind.full_name, value, name, at)
    elif kind.full_name.endswith("Value") and kind.full_name.startswith("google.protobuf."):
        # Wrappers are written as what they wrap.
        wrapped = kind.fields_by_name.get("value")
        if wrapped is not None and not _scalar_fits(wrapped, value):
            yield _wrong(at, _scalar_type(wrapped), value)
    elif kind.full_name in _FREE:
        return
    elif isinstance(value, dict):
        yield from _message(value, kind, at)
    else:
        yield _wrong(at, f"type.googleapis.com/{kind.full_name}", value)


def _time(kind: str, value: Any, name: str, at: str) -> Iterator[Violation]:
    if isinstance(value, str):
        try:
            _PARSED[kind]().FromJsonString(value)
        except ValueError:
            pass
        else:
            return
    snake = at.rpartition(".")[2] or name
    yield Violation(
        field=at,
        text=f"Invalid value at '{at}' (type.googleapis.com/{kind}), Field '{snake}', "
        f"{_ILLEGAL[kind]}",
    )


def _scalar_type(field: Any) -> str:
    if field.enum_type is not None:
        return f"type.googleapis.com/{field.enum_type.full_name}"
    return _TYPE_NAMES[field.type]


def _scalar_fits(field: Any, value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if field.enum_type is not None:
        # Numbers without a name are taken, as over gRPC; what they mean is judged later.
        return (whole and value in _INTEGERS[FieldDescriptor.CPPTYPE_INT32]) or (
            isinstance(value, str) and value in field.enum_type.values_by_name
        )
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return isinstance(value, bool)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return isinstance(value, str)
    if isinstance(value, str) and (_NUMBER.fullmatch(value) or value in _NOT_NUMBERS):
        value = float(value) if not value.lstrip("-").isdigit() or len(value) > 30 else int(value)
        whole = isinstance(value, int)
    if field.cpp_type in _INTEGERS:
        if isinstance(value, float) and value.is_integer():
            value, whole = int(value), True
        return whole and value in _INTEGERS[field.cpp_type]
    return whole or isinstance(value, float)
