"""REST in front of the route table: JSON as Google's API writes and reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from speakfit.emulator import payload, unpublished
from speakfit.emulator.answers import failure_of
from speakfit.emulator.backend import Backend
from speakfit.emulator.routes import ROUTES, Route
from speakfit.errors import InvalidArgument, Unimplemented

_SYSTEM_PARAMETERS = frozenset(
    {
        "$.xgafv", "$alt", "access_token", "alt", "callback", "fields", "key", "oauth_token",
        "prettyPrint", "quotaUser", "uploadType", "upload_protocol",
    }
)  # fmt: skip
"""Query parameters that every Google API accepts and that are no request fields."""

_DASHBOARDS = "google.monitoring.dashboard.v1."
_OTHER_PARENTS = re.compile(r"^(/v[13]/)(organizations|folders)(?=/)")
_MASK = re.compile(r"update(_m|M)ask(\.paths)?")


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
        mask = payload.find_field(descriptor, parts[0]) if _MASK.fullmatch(name) else None
        if mask is not None:
            _set_mask(message, mask, text)
            continue
        field = None
        for index, part in enumerate(parts):
            field = payload.find_field(descriptor, part) if descriptor is not None else None
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
        if field.is_repeated:
            place.setdefault(field.json_name, []).append(_convert(field, text))
        else:
            place[field.json_name] = _convert(field, text)
    payload.fill(message, tree)


def _bind_body(route: Route, message: Any, raw: bytes) -> None:
    body = payload.read_object(raw)
    target = message if route.body == "*" else getattr(message, route.body)
    target.SetInParent()
    at = "" if route.body == "*" else route.body
    if not route.rpc.startswith(_DASHBOARDS):
        payload.fill(target, body, at=at)
        return
    try:
        payload.fill(target, unpublished.published(body, target.DESCRIPTOR, at=at), at=at)
        unpublished.attach(body, target)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise payload.unreadable(at) from error


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
        if found is None and _find(method, _OTHER_PARENTS.sub(r"\1projects", path)) is not None:
            raise Unimplemented("Organizations and folders exist in Cloud Monitoring but not here.")
        if found is None:
            return 404, {
                "error": {
                    "code": 404,
                    "message": f"No such method: {where[:200]}.",
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
