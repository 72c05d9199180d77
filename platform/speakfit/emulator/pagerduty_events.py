"""The rules of PagerDuty's Events API v2, as pure functions from a body to its errors.

Rules, lengths and the form of answers are PagerDuty's documentation ("Events API v2", "Send an
Alert Event", "Send a Change Event") and its published OpenAPI description. The words of an error
are known for a missing or wrong key and for the severity; the others follow their form and are
assumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ROUTING_KEY_LENGTH = 32
MAX_DEDUP_KEY = 255
MAX_SUMMARY = 1_024
MAX_BODY = 512 * 1_024
CALLS_PER_MINUTE = 120
"""About this many calls a minute and key, "over a 60 second window looking back"."""

_MAX_DEPTH = 100

SEVERITIES = ("critical", "warning", "error", "info")
ACTIONS = ("trigger", "acknowledge", "resolve")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer; a body of None is an answer without content."""

    status: int
    body: dict[str, Any] | None
    headers: Mapping[str, str] = field(default_factory=dict)


def accepted(message: str, **more: str) -> Answer:
    """202: the event was taken."""
    return Answer(status=202, body={"status": "success", "message": message, **more})


def invalid(*errors: str, status: int = 400) -> Answer:
    """400: the event breaks rules; sending it again cannot help."""
    return Answer(
        status=status,
        body={
            "status": "invalid event",
            "message": "Event object is invalid",
            "errors": list(errors),
        },
    )


def throttled(wait: float) -> Answer:
    """429 with the seconds after which the next call of this key is taken."""
    return Answer(
        status=429,
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
        body={
            "status": "throttle exceeded",
            "message": "Requests for this service are arriving too quickly.  Please retry later.",
            "errors": ["Enhance Your Calm."],
        },
    )


def broken(reason: str) -> Answer:
    """503: nothing was stored; the event must be sent again."""
    return Answer(
        status=503,
        body={"status": "internal error", "message": "Event not processed", "errors": [reason]},
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(raw: bytes) -> Any:
    """JSON that can be told again as it was read; ValueError otherwise.

    NaN, half surrogates and nesting without end pass Python's reader and break its writer.
    """
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    level, depth = [body], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return body


def read(raw: bytes | None) -> dict[str, Any] | Answer:
    """The event in a request's body (None: larger than is even read), or why it is none."""
    if raw is None or len(raw) > MAX_BODY:
        return invalid("Event size exceeds the limit of 512 KB", status=413)
    try:
        body = parse(raw)
    except ValueError:
        return _unrecognized("JSON parse error")
    if not isinstance(body, dict):
        return _unrecognized("Event object is not a JSON object")
    return body


def _unrecognized(error: str) -> Answer:
    return Answer(
        status=400,
        body={
            "status": "invalid event",
            "message": "Event object format is unrecognized",
            "errors": [error],
        },
    )


def alert_errors(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with a body for /v2/enqueue; empty when nothing is."""
    errors = _key_errors(body)
    action = body.get("event_action")
    if not action:
        errors.append("'event_action' is missing or blank")
    elif action not in ACTIONS:
        errors.append(f"'event_action' is invalid (should be one of {', '.join(ACTIONS)})")
    dedup_key = body.get("dedup_key")
    if dedup_key is not None and not isinstance(dedup_key, str):
        errors.append("'dedup_key' is not a string")
    elif dedup_key is not None and len(dedup_key) > MAX_DEDUP_KEY:
        errors.append(f"'dedup_key' is too long (maximum is {MAX_DEDUP_KEY} characters)")
    elif action in ("acknowledge", "resolve") and not dedup_key:
        errors.append("'dedup_key' is missing or blank")
    if action != "trigger":
        return errors
    errors += _text_errors(body, "client", "client_url")
    errors += _link_errors(body.get("links")) + _image_errors(body.get("images"))
    payload = body.get("payload")
    if not isinstance(payload, dict):
        return [*errors, "'payload' is missing or blank"]
    errors += _required_errors(payload, "summary", "source", "severity")
    severity = payload.get("severity")
    if isinstance(severity, str) and severity and severity not in SEVERITIES:
        errors.append(
            "'payload.severity' is invalid (must be one of the following: "
            "'critical', 'warning', 'error' or 'info')"
        )
    errors += _text_errors(payload, "component", "group", "class", prefix="payload.")
    return errors + _payload_errors(payload)


def change_errors(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with a body for /v2/change/enqueue; empty when nothing is."""
    errors = _key_errors(body) + _link_errors(body.get("links"))
    errors += _image_errors(body.get("images"))
    payload = body.get("payload")
    if not isinstance(payload, dict):
        return [*errors, "'payload' is missing or blank"]
    errors += _required_errors(payload, "summary")
    errors += _text_errors(payload, "source", prefix="payload.")
    return errors + _payload_errors(payload)


def parse_time(text: object) -> datetime | None:
    """An ISO 8601 time, None when it is not one; without an offset it is UTC by the reader."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _key_errors(body: Mapping[str, Any]) -> list[str]:
    key = body.get("routing_key")
    if not key or not isinstance(key, str):
        return ["'routing_key' is missing or blank"]
    if len(key) != ROUTING_KEY_LENGTH:
        return [f"Length of 'routing_key' is incorrect (should be {ROUTING_KEY_LENGTH} characters)"]
    return []


def _required_errors(payload: Mapping[str, Any], *names: str) -> list[str]:
    errors = []
    for name in names:
        value = payload.get(name)
        if value is None or value == "":
            errors.append(f"'payload.{name}' is missing or blank")
        elif not isinstance(value, str):
            errors.append(f"'payload.{name}' is not a string")
        elif not value.strip():
            errors.append(f"'payload.{name}' is missing or blank")
    return errors


def _payload_errors(payload: Mapping[str, Any]) -> list[str]:
    errors = []
    summary = payload.get("summary")
    if isinstance(summary, str) and len(summary) > MAX_SUMMARY:
        errors.append(f"'payload.summary' is too long (maximum is {MAX_SUMMARY} characters)")
    timestamp = payload.get("timestamp")
    if timestamp is not None and parse_time(timestamp) is None:
        errors.append("'payload.timestamp' is invalid (should be an ISO 8601 time)")
    details = payload.get("custom_details")
    if details is not None and not isinstance(details, dict):
        errors.append("'payload.custom_details' is not an object")
    return errors


def _text_errors(body: Mapping[str, Any], *names: str, prefix: str = "") -> list[str]:
    return [
        f"'{prefix}{name}' is not a string"
        for name in names
        if body.get(name) is not None and not isinstance(body[name], str)
    ]


def _link_errors(links: object) -> list[str]:
    return _list_errors("links", links, required="href", optional=("text",))


def _image_errors(images: object) -> list[str]:
    errors = _list_errors("images", images, required="src", optional=("href", "alt"))
    if not errors and isinstance(images, list):
        errors = [
            f"'images[{index}].src' is not an https address"
            for index, image in enumerate(images)
            if not image["src"].lower().startswith("https://")
        ]
    return errors


def _list_errors(
    name: str, items: object, *, required: str, optional: tuple[str, ...]
) -> list[str]:
    if items is None:
        return []
    if not isinstance(items, list):
        return [f"'{name}' is not an array"]
    errors = []
    for index, item in enumerate(items):
        place = f"{name}[{index}]"
        if not isinstance(item, dict) or not item.get(required):
            errors.append(f"'{place}.{required}' is missing or blank")
            continue
        if not isinstance(item[required], str):
            errors.append(f"'{place}.{required}' is not a string")
        errors += _text_errors(item, *optional, prefix=f"{place}.")
    return errors
