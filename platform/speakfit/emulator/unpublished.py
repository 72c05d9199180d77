"""Dashboard fields that Google's server keeps although the published messages lack them.

Dashboards exported from Cloud Monitoring hold fields such as `breakdowns` or `displayHorizontal`
that no published proto declares (seen in GoogleCloudPlatform/monitoring-dashboard-samples). They
are kept as they came, in an unknown field of the message they belong to, so that they survive the
store, etags and a read-modify-write over gRPC just as with a newer server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

_NUMBER = 50_000
_LENGTH_DELIMITED = 2
_PACKAGE = "google.monitoring.dashboard.v1."
_ENUM_VALUE = re.compile(r"[A-Z][A-Z0-9_]*")

_STRICT = {
    f"{_PACKAGE}{name}": frozenset[str]()
    for name in (
        "GridLayout", "MosaicLayout", "MosaicLayout.Tile", "RowLayout", "RowLayout.Row",
        "ColumnLayout", "ColumnLayout.Column", "Widget",
    )
} | {f"{_PACKAGE}Dashboard": frozenset({"annotations", "description"})}  # fmt: skip
"""Messages whose fields are all published, with the exceptions seen; others may hold more."""


def _field(descriptor: Any, name: str) -> Any:
    for field in descriptor.fields:
        if name in (field.name, field.json_name):
            return field
    return None


def _kept_as_is(descriptor: Any, name: str, value: Any) -> bool:
    """Whether a JSON member is for the server only: an unknown name, or an unknown enum value."""
    field = _field(descriptor, name)
    if field is not None:
        unknown_value = (
            field.enum_type is not None
            and isinstance(value, str)
            and _ENUM_VALUE.fullmatch(value) is not None
            and value not in field.enum_type.values_by_name
        )
        if not unknown_value or not field.enum_type.full_name.startswith(_PACKAGE):
            return False
    strict = _STRICT.get(descriptor.full_name)
    if strict is not None:
        # A new kind of widget is an object in a member of its own.
        return name in strict or (descriptor.name == "Widget" and isinstance(value, dict))
    return bool(descriptor.full_name.startswith(_PACKAGE))


def _children(descriptor: Any, name: str, value: Any) -> Iterator[tuple[Any, Any, int | None]]:
    """(message descriptor, JSON, position in a list) of every message below a JSON field."""
    field = _field(descriptor, name)
    if field is None or field.message_type is None:
        return
    inner = field.message_type
    if inner.GetOptions().map_entry or not inner.full_name.startswith(_PACKAGE):
        return
    if field.is_repeated:
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield inner, item, index
    elif isinstance(value, dict):
        yield inner, value, None


def published(body: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    """The JSON without what only the server knows; unknown names elsewhere stay and are refused."""
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if _kept_as_is(descriptor, name, value):
            continue
        kept[name] = list(value) if isinstance(value, list) else value
        for inner, item, index in _children(descriptor, name, value):
            if index is None:
                kept[name] = published(item, inner)
            else:
                kept[name][index] = published(item, inner)
    return kept


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def attach(body: dict[str, Any], message: Any) -> None:
    """Put into a message, parsed from `published(body)`, what that left out."""
    descriptor = message.DESCRIPTOR
    extra = {name: value for name, value in body.items() if _kept_as_is(descriptor, name, value)}
    if extra:
        raw = json.dumps(extra, sort_keys=True).encode()
        tag = _varint(_NUMBER << 3 | _LENGTH_DELIMITED)
        message.MergeFromString(tag + _varint(len(raw)) + raw)
    for name, value in body.items():
        for _inner, item, index in _children(descriptor, name, value):
            child = getattr(message, _field(descriptor, name).name)
            attach(item, child if index is None else child[index])


def restore(message: Any, body: dict[str, Any]) -> None:
    """Put back into a message's JSON what `attach` put into the message."""
    kept = UnknownFieldSet(message)
    for index in range(len(kept)):
        unknown = kept[index]
        if unknown.field_number == _NUMBER and isinstance(unknown.data, bytes):
            try:
                extra = json.loads(unknown.data)
            except ValueError:
                # Somebody else's field of this number.
                continue
            if isinstance(extra, dict):
                body.update(extra)
    for name, value in list(body.items()):
        field = _field(message.DESCRIPTOR, name)
        if field is None or field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        child = getattr(message, field.name)
        if field.is_repeated:
            for one, item in zip(child, value, strict=True):
                if isinstance(item, dict):
                    restore(one, item)
        elif isinstance(value, dict):
            restore(child, value)
