"""Every error answer as RFC 9457 problem details: what went wrong, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_TYPES = "https://speakfit.example/problems/"


def is_openai(path: str) -> bool:
    """Whether errors of a path have OpenAI's shape, whichever layer makes them."""
    return path.startswith(("/v1/audio/", "/v1/models"))


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is an error; `code` is a stable word, `todo` what the caller can do."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        *,
        title: str,
        detail: str,
        todo: str,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.todo = todo
        self.headers = headers
        self.param = param
        """The form field that is wrong; only OpenAI's shape tells it."""

    def document(self, instance: str) -> dict[str, Any]:
        """What RFC 9457 calls the problem details object."""
        return {
            "type": _TYPES + self.code,
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "todo": self.todo,
        }

    def openai_document(self) -> dict[str, Any]:
        """The same in the shape that OpenAI's clients read."""
        named = {
            HTTPStatus.UNAUTHORIZED: ("invalid_request_error", "invalid_api_key"),
            HTTPStatus.TOO_MANY_REQUESTS: ("requests", "rate_limit_exceeded"),
        }
        server = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind, code = named.get(
            self.status,
            ("server_error" if server else "invalid_request_error", self.code.replace("-", "_")),
        )
        message = " ".join((self.title, self.detail, self.todo))
        return {"error": {"message": message, "type": kind, "param": self.param, "code": code}}

    def response(self, instance: str) -> JSONResponse:
        """The answer; the path as instance, never the query, which may hold anything."""
        openai = is_openai(instance)
        return JSONResponse(
            self.openai_document() if openai else self.document(instance),
            status_code=int(self.status),
            media_type="application/json" if openai else MEDIA_TYPE,
            headers=dict(self.headers or {}),
        )


def unavailable(part: str) -> Problem:
    """A server we need is away; nothing that was accepted is lost."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        title=f"The {part} does not answer.",
        detail="Recordings accepted before are safe and will be worked on.",
        todo="Try again in some seconds.",
        headers={"Retry-After": "5"},
    )


def of_database(error: Exception) -> Problem:
    """What the caller is told when the database fails; the log gets the kind of error only."""
    logger.error("database error: %s", type(error).__name__)
    return unavailable("database")


def of_anything() -> Problem:
    """What the caller is told of an error that nobody expected."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        title="Something went wrong on our side.",
        detail="The error is in our log.",
        todo="Try again; tell us when it stays, with the X-Request-Id of the answer.",
    )


def install(app: FastAPI) -> None:
    """Answer every error that is expected, the framework's included, as a problem."""

    async def of_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response(request.url.path)

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _of_status(error.status_code, error.headers).response(request.url.path)

    async def of_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        places = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
        return Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid-request",
            title="The request is not valid.",
            detail=f"Not valid: {places}.",
            todo="Correct it; /docs describes every parameter.",
        ).response(request.url.path)

    async def of_sql(request: Request, error: Exception) -> JSONResponse:
        return of_database(error).response(request.url.path)

    handlers: dict[Any, Any] = {
        Problem: of_problem,
        HTTPException: of_http,
        RequestValidationError: of_validation,
        SQLAlchemyError: of_sql,
    }
    for kind, answer in handlers.items():
        app.add_exception_handler(kind, answer)


def _of_status(status_code: int, headers: Mapping[str, str] | None) -> Problem:
    status = HTTPStatus(status_code)
    return Problem(
        status,
        status.phrase.lower().replace(" ", "-"),
        title=status.phrase + ".",
        detail=status.description or status.phrase + ".",
        todo="Check method and path; /docs lists them all.",
        headers=headers,
    )
