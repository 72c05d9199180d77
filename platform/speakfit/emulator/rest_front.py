"""REST in front of the route table: JSON as Google's API writes and reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from speakfit.emulator import unpublished
from speakfit.emulator.answers import failure_of
from speakfit.emulator.backend import Backend
from speakfit.emulator.routes import ROUTES, Route
from speakfit.errors import InvalidArgument

_SYSTEM_PARAMETERS = frozenset(
    {
        "$.xgafv", "$alt", "access_token", "alt", "callback", "fields", "key", "oauth_token",
        "prettyPrint", "quotaUser", "uploadType", "upload_protocol",
    }
)  # fmt: skip
"""Query parameters that every Google API accepts and that are no request fields."""

_UNKNOWN_FIELD = re.compile(r'has no field named "(?P<field>[^"]*)"(?: at "(?P<at>[^"]*)")?')
_ONEOF = re.compile(
    r'should not have multiple "(?P<oneof>\w+)" oneof fields(?: at "(?P<at>[^"]*)")?'
)
_ENUM = re.compile(
    r"Invalid enum value (?P<value>.+?) for enum type (?P<type>[\w.]+)"
    r"(?: at (?P<at>[\w.\[\]]+?))?\.*$"
)
_DASHBOARDS = "google.monitoring.dashboard.v1."
_DURATION = "google.protobuf.Duration"
_FIELD_MASK = "google.protobuf.FieldMask"


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def _json_text(error: Exception, body: str) -> str:
    """json_format's complaint in the words of Google's front end, where they are known."""
    text = str(error)
    unknown = _UNKNOWN_FIELD.search(text)
    root = "" if body == "*" else body

    def place(at: str | None) -> str:
        inner = ".".join(_snake(part) for part in (at or "").split(".")[1:])
        return ".".join(part for part in (root, inner) if part)

    if unknown:
        at = place(unknown.group("at"))
        named = f" at '{at}'" if at else ""
        return (
            f'Invalid JSON payload received. Unknown name "{unknown.group("field")}"{named}: '
            "Cannot find field."
        )
    oneof = _ONEOF.search(text)
    if oneof:
        return (
            f"Invalid value at '{place(oneof.group('at'))}' (oneof), oneof field "
            f"'{oneof.group('oneof')}' is already set."
        )
    enum = _ENUM.search(text)
    if enum:
        return (
            f"Invalid value at '{place(enum.group('at'))}' (type.googleapis.com/"
            f'{enum.group("type")}), "{enum.group("value")}"'
        )
    return f"Invalid JSON payload received. {text}"


def _field(descriptor: Any, name: str) -> Any:
    for field in descriptor.fields:
        if name in (field.name, field.json_name):
            return field
    return None


def _convert(field: Any, text: str) -> Any:
    """A query parameter's text as json_format expects the field."""
    if field.type == field.TYPE_BOOL:
        lowered = text.lower()
        if lowered not in ("true", "false"):
            raise InvalidArgument(f"Invalid value at '{field.name}' (TYPE_BOOL), \"{text}\"")
        return lowered == "true"
    if field.type == field.TYPE_ENUM and text.isdigit():
        return int(text)
    return text


def _set_mask(message: Any, field: Any, text: str) -> None:
    # json_format would refuse the snake_case paths that gcloud sends.
    mask = getattr(message, field.name)
    mask.paths.extend(path.strip() for path in text.split(",") if path.strip())


def _bind_query(message: Any, parameters: Iterable[tuple[str, str]]) -> None:
    tree: dict[str, Any] = {}
    for name, text in parameters:
        if name in _SYSTEM_PARAMETERS:
            continue
        descriptor, place = message.DESCRIPTOR, tree
        parts = name.split(".")
        field = None
        for index, part in enumerate(parts):
            field = _field(descriptor, part) if descriptor is not None else None
            if field is None:
                raise InvalidArgument(
                    f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query '
                    f"parameter. Field '{name}' could not be found in request message."
                )
            descriptor = field.message_type
            if index < len(parts) - 1:
                place = place.setdefault(field.json_name, {})
                if not isinstance(place, dict):
                    raise InvalidArgument(f"Invalid value at '{name}'.")
        assert field is not None
        if field.message_type is not None and field.message_type.full_name == _FIELD_MASK:
            if len(parts) == 1:
                _set_mask(message, field, text)
        elif field.is_repeated:
            place.setdefault(field.json_name, []).append(_convert(field, text))
        else:
            place[field.json_name] = _convert(field, text)
    try:
        json_format.ParseDict(tree, message)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise InvalidArgument(_json_text(error, "*")) from error


def _bind_body(route: Route, message: Any, raw: bytes) -> None:
    try:
        body = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"Invalid JSON payload received. {error}") from error
    if not isinstance(body, dict):
        raise InvalidArgument("Invalid JSON payload received. The body must be a JSON object.")
    target = message if route.body == "*" else getattr(message, route.body)
    try:
        try:
            _fill(target, body, route)
        except json_format.ParseError:
            spelled = _spelled(body, target.DESCRIPTOR)
            if spelled == body:
                raise
            target.Clear()
            _fill(target, spelled, route)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(_json_text(error, route.body)) from error


def _fill(target: Any, body: dict[str, Any], route: Route) -> None:
    target.SetInParent()
    if not route.rpc.startswith(_DASHBOARDS):
        json_format.ParseDict(body, target)
        return
    json_format.ParseDict(unpublished.published(body, target.DESCRIPTOR, at=route.body), target)
    unpublished.attach(body, target)


def _spelled(value: Any, descriptor: Any) -> Any:
    """JSON with its durations as text, where they are objects of seconds and nanos.

    Google's page on policies about objectives writes them so; json_format does not read it.
    """
    if isinstance(value, list):
        return [_spelled(item, descriptor) for item in value]
    if not isinstance(value, dict) or descriptor is None:
        return value
    if descriptor.full_name == _DURATION:
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
        field = _field(descriptor, name)
        found[name] = item if field is None else _spelled(item, field.message_type)
    return found


def _bind_path(message: Any, groups: dict[str, str]) -> None:
    for group, value in groups.items():
        *outer, last = group.split("__")
        target = message
        for name in outer:
            target = getattr(target, name)
        setattr(target, last, value)


def _find(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    for route in ROUTES:
        if route.method == method:
            match = route.pattern.fullmatch(path)
            if match:
                return route, match.groupdict()
    return None


def answer(
    backend: Backend, *, method: str, path: str, query: list[tuple[str, str]], body: bytes
) -> tuple[int, dict[str, Any]]:
    """One REST call: the HTTP status and the JSON of its answer."""
    where = f"{method} {path}"
    try:
        found = _find(method, path)
        if found is None:
            return 404, {
                "error": {
                    "code": 404,
                    "message": f"No such method: {where}.",
                    "status": "NOT_FOUND",
                }
            }
        route, groups = found
        request = None
        if route.request is not None:
            request = route.request()
            _bind_query(request, query)
            if route.body:
                _bind_body(route, request, body)
            _bind_path(request, groups)
        message = route.answer(backend, request)
        body_of_answer = json_format.MessageToDict(message)
        if route.rpc.startswith(_DASHBOARDS):
            unpublished.restore(message, body_of_answer)
        return 200, body_of_answer
    except Exception as error:
        failure = failure_of(error, where=where)
    payload: dict[str, Any] = {
        "code": failure.http_status,
        "message": failure.text,
        "status": failure.code,
    }
    if failure.details:
        payload["details"] = [
            {
                "@type": f"type.googleapis.com/{detail.DESCRIPTOR.full_name}",
                **json_format.MessageToDict(detail),
            }
            for detail in failure.details
        ]
    return failure.http_status, {"error": payload}
