"""The OpenAPI document: every answer of every route, the problems among them, with examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from services.api.callers import is_open
from services.api.problems import MEDIA_TYPE, is_openai

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "instance", "code", "todo"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened in this case."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "code": {"type": "string", "description": "A stable word for programs."},
        "todo": {"type": "string", "description": "What the caller can do."},
    },
    "examples": [
        {
            "type": "https://speakfit.example/problems/unknown-recording",
            "title": "There is no such recording.",
            "status": 404,
            "detail": "No recording has this id.",
            "instance": "/v1/recordings/1b4e28ba-2fa1-41d2-883f-0016d3cca427",
            "code": "unknown-recording",
            "todo": "Use the id that the upload answered.",
        }
    ],
}
_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error in the shape that OpenAI's clients read.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": "string", "description": "A stable word for programs."},
            },
        }
    },
    "examples": [
        {
            "error": {
                "message": "There is no such model. The only one is whisper-1. "
                "Send `model=whisper-1`.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        }
    ],
}
_ANYWHERE: dict[int, str] = {
    400: "The request is not valid HTTP, its form or its framing is malformed.",
    405: "The path has no such method.",
    408: "The request came too slowly.",
    500: "Something went wrong on our side.",
    503: "The service cannot take this now; Retry-After says when to ask again.",
    504: "The answer was not ready in time.",
}
_CLOSED: dict[int, str] = {
    401: "The request does not prove who calls (RFC 6750).",
    403: "The caller's key lacks the scope.",
    429: "The caller asks too often; Retry-After says how long to wait.",
}
_HEADERS: dict[str, str] = {
    "X-Request-Id": "Names this request in our logs; sent along, it is kept.",
    "traceparent": "W3C trace context of this request.",
}
_LIMIT_HEADERS: dict[str, str] = {
    "RateLimit": "What is left to the caller, and in how many seconds all of it is.",
    "RateLimit-Policy": "How often the caller may ask.",
}
_RETRY_AFTER = (408, 429, 503, 504, 507)
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

_RECORDING: dict[str, Any] = {
    "id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
    "status": "processing",
    "progress": 0.5,
    "chunks": {"done": 1, "total": 2},
    "duration_seconds": 41.32,
    "content_type": "audio/flac",
    "checksum_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "error": None,
    "created_at": "2026-11-25T09:30:00Z",
    "finished_at": None,
    "links": {
        "self": "/v1/recordings/1b4e28ba-2fa1-41d2-883f-0016d3cca427",
        "transcript": "/v1/recordings/1b4e28ba-2fa1-41d2-883f-0016d3cca427/transcript",
    },
}
_UPLOAD: dict[str, Any] = {
    "id": "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
    "size_bytes": 120000044,
    "checksum_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": "2026-11-25T09:30:00Z",
    "expires_at": "2026-11-25T10:30:00Z",
    "recording": None,
    "links": {
        "self": "/v1/uploads/6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        "complete": "/v1/uploads/6ba7b810-9dad-41d1-80b4-00c04fd430c8/complete",
    },
}
_EXAMPLES: Mapping[str, Any] = {
    "Transcription": {
        "text": "Ask not what your country can do for you.",
        "usage": {"type": "duration", "seconds": 11},
    },
    "RecordingView": _RECORDING,
    "RecordingPage": {"recordings": [_RECORDING], "next_cursor": None},
    "UploadRequest": {
        "size_bytes": _UPLOAD["size_bytes"],
        "checksum_sha256": _UPLOAD["checksum_sha256"],
    },
    "NewUploadView": {
        **_UPLOAD,
        "target": {
            "method": "PUT",
            "url": "https://storage.googleapis.com/speakfit-audio/uploads/"
            "6ba7b810-9dad-41d1-80b4-00c04fd430c8?X-Goog-Signature=...",
            "headers": {
                "x-goog-content-length-range": "120000044,120000044",
                "x-goog-if-generation-match": "0",
            },
        },
    },
    "UploadView": _UPLOAD,
    "Readiness": {
        "ready": True,
        "degraded": [],
        "checks": {"database": {"ok": True, "milliseconds": 0.84, "detail": "answers"}},
    },
}


def problem_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses` of a route: the problems that only it answers."""
    return {status: _problem(HTTPStatus(status).phrase + ".") for status in statuses}


def describe(app: FastAPI, routes: Iterable[APIRoute]) -> None:
    """Make /openapi.json complete; built once, when it is first asked for."""
    every = {
        (method.lower(), route.path): route for route in routes for method in route.methods or ()
    }

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _complete(document, every)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _complete(document: dict[str, Any], every: Mapping[tuple[str, str], APIRoute]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    schemas["OpenAIError"] = _OPENAI_ERROR
    for name, example in _EXAMPLES.items():
        if name in schemas:
            schemas[name].setdefault("examples", [example])
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                _complete_operation(operations[method], opened=is_open(every[method, path]))
                if is_openai(path):
                    _tell_errors_as_openai(operations[method]["responses"])


def _complete_operation(operation: dict[str, Any], *, opened: bool) -> None:
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        answers["422"] = _problem("The request is not valid.")
    if not opened:
        operation.setdefault("security", [{"bearer": []}])
    for status, description in (_ANYWHERE if opened else {**_ANYWHERE, **_CLOSED}).items():
        answers.setdefault(str(status), _problem(description))
    told = _HEADERS if opened else {**_HEADERS, **_LIMIT_HEADERS}
    for status_text, answer in answers.items():
        headers = answer.setdefault("headers", {})
        for name, description in told.items():
            headers.setdefault(name, _header(description))
        if status_text == "401":
            headers["WWW-Authenticate"] = _header("How to say who calls.")
        if status_text.isdigit() and int(status_text) in _RETRY_AFTER:
            headers["Retry-After"] = _header("Seconds to wait.")
    operation["responses"] = dict(sorted(answers.items()))


def _tell_errors_as_openai(answers: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/OpenAIError"}
    for status, answer in answers.items():
        if status[0] in "45":
            answer["content"] = {"application/json": {"schema": schema}}


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
