"""Dashboard fields that Google's server has although the shipped messages lack them.

Dashboards exported from Cloud Monitoring hold fields such as `breakdowns` or `displayHorizontal`.
Most of them are in the API's discovery document (monitoring v1, revision 20260903), which is newer
than the protos; some are only in GoogleCloudPlatform/monitoring-dashboard-samples. They are known
here by message and name and kept as they came, in an unknown field of the message they belong to,
so that they survive the store, etags and a read-modify-write over gRPC just as with a newer server.
Any other name is refused as Google refuses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from google.cloud import monitoring_dashboard_v1
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet

from speakfit.errors import InvalidArgument

_NUMBER = 50_000
_LENGTH_DELIMITED = 2
_PACKAGE = "google.monitoring.dashboard.v1."

_NUMBER_TEXT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|-?Infinity|NaN")
_TYPES: dict[type, str] = {bool: "TYPE_BOOL", str: "TYPE_STRING", float: "TYPE_DOUBLE"}

_TEXTS = [str]
_FUNCTION = {"type": str, "parameters": [{"doubleValue": float, "intValue": float}]}
_MEASURES = [{"aggregationFunction": _FUNCTION, "column": str}]
_BREAKDOWNS = [{"aggregationFunction": _FUNCTION, "column": str, "limit": float, "sortOrder": str}]
_DIMENSIONS = [
    {
        "column": str, "columnType": str, "floatBinSize": float, "maxBinCount": float,
        "numericBinSize": float, "sortColumn": str, "sortOrder": str, "timeBinSize": str,
        "xMax": float, "xMin": float,
    }
]  # fmt: skip
_SLICED = {"breakdowns": _BREAKDOWNS, "dimensions": _DIMENSIONS, "measures": _MEASURES}

_KNOWN: dict[str, dict[str, Any]] = {
    "Dashboard": {
        "annotations": {
            "defaultResourceNames": _TEXTS,
            "eventAnnotations": [
                {
                    "displayName": str, "enabled": bool, "eventType": str, "filter": str,
                    "resourceNames": _TEXTS,
                }
            ],
        },
        # The samples.
        "description": str,
    },
    "DashboardFilter": {
        "stringArray": {"values": _TEXTS},
        "stringArrayValue": {"values": _TEXTS},
        "timeSeriesQuery": "TimeSeriesQuery",
        "valueType": str,
    },
    "Widget": {
        "filterControl": {"templateVariable": str},
        "timeRange": {
            "absoluteWindow": {"endTime": str, "startTime": str},
            "relativeDuration": str,
        },
        "treemap": {
            "dataSets": [
                {
                    "breakdowns": _BREAKDOWNS, "measures": _MEASURES,
                    "timeSeriesQuery": "TimeSeriesQuery",
                }
            ],
            "treemapHierarchy": _TEXTS,
        },
        "visibilityCondition": {
            "templateVariableCondition": {
                "comparator": str, "templateVariable": str, "templateVariableValue": str,
            }
        },
    },
    # The samples have showLegend, the discovery document the other.
    "ChartOptions": {"displayHorizontal": bool, "showLegend": bool},
    "XyChart.DataSet": {**_SLICED, "sort": [{"column": str, "direction": str}]},
    "Scorecard": _SLICED,
    # The samples have the threshold.
    "PieChart": {"sliceAggregatedThreshold": float},
    "PieChart.PieChartDataSet": _SLICED,
    # The samples have both.
    "TimeSeriesTable": {
        "displayColumnType": bool,
        "opsAnalyticsSettings": {"maxRows": float, "pageSize": float, "showFilterBar": bool},
    },
    "TimeSeriesTable.TableDataSet": _SLICED,
    "TimeSeriesTable.ColumnSettings": {
        "alignment": str, "displayName": str, "thresholds": ["Threshold"],
    },
    "SingleViewGroup": {"displayType": str},
    "TimeSeriesQuery": {
        # The samples.
        "apiSource": str,
        "opsAnalyticsQuery": {
            "sql": str,
            # The samples.
            "queryExecutionRules": {"useReservedSlots": bool}, "queryHandle": str,
            "savedQueryId": str,
        },
        "traceQuery": {
            "resourceContainer": str,
            "spanDataValue": str,
            "spanFilters": {
                "apphubServices": _TEXTS, "apphubWorkloads": _TEXTS, "applicationIds": _TEXTS,
                "attributes": [{"key": str, "value": _TEXTS}],
                "displayNames": _TEXTS, "isRootSpan": bool, "kinds": _TEXTS, "maxDuration": str,
                "minDuration": str, "services": _TEXTS, "status": _TEXTS,
            },
        },
    },
}  # fmt: skip
"""Fields by message: a type, the members of an object, a list of one of these, or a message."""

_VALUES = {"DashboardFilter.FilterType": frozenset({"VALUE_ONLY"})}
"""Enum values by enum."""

_FRAME = frozenset(
    {
        "Dashboard", "GridLayout", "MosaicLayout", "MosaicLayout.Tile", "RowLayout",
        "RowLayout.Row", "ColumnLayout", "ColumnLayout.Column", "Widget",
    }
)  # fmt: skip
"""Messages around what a widget shows; no sample has an unknown field there."""


def _local(full_name: str) -> str:
    return full_name.removeprefix(_PACKAGE)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def _field(descriptor: Any, name: str) -> Any:
    for field in descriptor.fields:
        if name in (field.name, field.json_name):
            return field
    return None


def _holds_nothing(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_holds_nothing(item) for item in value.values())
    if isinstance(value, list):
        return all(_holds_nothing(item) for item in value)
    return value in (None, False, 0, "", "0")


def _unknown(name: str, at: str) -> InvalidArgument:
    return InvalidArgument(
        f"Invalid JSON payload received. Unknown name \"{name}\" at '{at}': Cannot find field."
    )


def _kept_as_is(descriptor: Any, name: str, value: Any) -> bool:
    """Whether a JSON member is for the server only; not, where the messages know it or nobody.

    The console exports what it has with its default value. A member that holds nothing says
    nothing either, so it is kept below a widget even when nobody has met it yet.
    """
    message = _local(descriptor.full_name)
    field = _field(descriptor, name)
    if field is not None:
        return (
            field.enum_type is not None
            and isinstance(value, str)
            and value in _VALUES.get(_local(field.enum_type.full_name), ())
        )
    if _camel(name) in _KNOWN.get(message, {}):
        return True
    return message not in _FRAME and _holds_nothing(value)


def _checked(value: Any, shape: Any, at: str) -> Any:
    """A value of this shape with its names as the server writes them, or Google's refusal."""
    if value is None:
        return None
    if isinstance(shape, type):
        good = isinstance(value, shape) and not isinstance(value, bool)
        if shape is bool:
            good = isinstance(value, bool)
        elif shape is float:
            good = (isinstance(value, (int, float)) and not isinstance(value, bool)) or (
                isinstance(value, str) and _NUMBER_TEXT.fullmatch(value) is not None
            )
        if not good:
            raise InvalidArgument(
                f"Invalid value at '{at}' ({_TYPES[shape]}), {json.dumps(value)[:64]}"
            )
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise InvalidArgument(f"Invalid value at '{at}', {json.dumps(value)[:64]}")
        return [_checked(item, shape[0], f"{at}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        raise InvalidArgument(f"Invalid value at '{at}', {json.dumps(value)[:64]}")
    if isinstance(shape, str):
        kind = getattr(monitoring_dashboard_v1, shape).pb()
        message = kind()
        json_format.ParseDict(published(value, kind.DESCRIPTOR, at=at), message)
        attach(value, message)
        body = json_format.MessageToDict(message)
        restore(message, body)
        return body
    kept = {}
    for name, item in value.items():
        inner = shape.get(_camel(name))
        if inner is None and not _holds_nothing(item):
            raise _unknown(name, at)
        kept[_camel(name)] = (
            item if inner is None else _checked(item, inner, f"{at}.{_snake(_camel(name))}")
        )
    return kept


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


def _check_form(field: Any, value: Any, at: str) -> None:
    """Refuse a list for a message, and anything but a list for a repeated one."""
    inner = field.message_type
    if value is None or inner is None or not inner.full_name.startswith(_PACKAGE):
        return
    if inner.GetOptions().map_entry:
        return
    if isinstance(value, list) and not field.is_repeated:
        raise InvalidArgument(
            f"Invalid value at '{at}', Proto field is not repeating, cannot start list."
        )
    for item in value if field.is_repeated and isinstance(value, list) else [value]:
        if not isinstance(item, dict) or (field.is_repeated and item is value):
            raise InvalidArgument(f"Invalid value at '{at}', {json.dumps(item)[:64]}")


def published(body: dict[str, Any], descriptor: Any, *, at: str) -> dict[str, Any]:
    """The JSON without what only the server knows; `at` is its path in the request.

    InvalidArgument in Google's words for a name that nobody knows.
    """
    kept: dict[str, Any] = {}
    for name, value in body.items():
        field = _field(descriptor, name)
        if _kept_as_is(descriptor, name, value):
            shape = _KNOWN.get(_local(descriptor.full_name), {}).get(_camel(name))
            if shape is not None:
                _checked(value, shape, f"{at}.{_snake(_camel(name))}")
            continue
        if field is None:
            raise _unknown(name, at)
        place = f"{at}.{_snake(field.json_name)}"
        _check_form(field, value, place)
        kept[name] = list(value) if isinstance(value, list) else value
        for inner, item, index in _children(descriptor, name, value):
            if index is None:
                kept[name] = published(item, inner, at=place)
            else:
                kept[name][index] = published(item, inner, at=f"{place}[{index}]")
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
    shapes = _KNOWN.get(_local(descriptor.full_name), {})
    extra = {}
    for name, value in body.items():
        if _kept_as_is(descriptor, name, value):
            field, known = _field(descriptor, name), _camel(name)
            if field is not None:
                known = field.json_name
            extra[known] = _checked(value, shapes[known], "") if known in shapes else value
    if extra:
        raw = json.dumps(extra, sort_keys=True).encode()
        tag = _varint(_NUMBER << 3 | _LENGTH_DELIMITED)
        message.MergeFromString(tag + _varint(len(raw)) + raw)
    for name, value in body.items():
        for _inner, item, index in _children(descriptor, name, value):
            child = getattr(message, _field(descriptor, name).name)
            attach(item, child if index is None else child[index])


def extras(message: Any) -> dict[str, Any]:
    """What `attach` put into this message itself."""
    found: dict[str, Any] = {}
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
                found.update(extra)
    return found


def restore(message: Any, body: dict[str, Any]) -> None:
    """Put back into a message's JSON what `attach` put into the message."""
    body.update(extras(message))
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
