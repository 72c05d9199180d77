"""A JSON body is small: what is larger is refused before any of it is read as JSON.

The framework would hold a body of any size in memory. Uploads are read by their routes, in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import Problem

LARGEST_JSON_BYTES = 64 * 1024


class SmallBodies:
    """ASGI layer in front of the routes that take JSON."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if route.body_field is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._route(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        messages = await _small(scope, receive)
        if messages is None:
            scope["route"] = route
            await _too_large().response(scope["path"])(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)

    def _route(self, scope: Scope) -> APIRoute | None:
        if scope["type"] != "http":
            return None
        matching = (route for route in self._routes if route.matches(scope)[0] is Match.FULL)
        return next(matching, None)


async def _small(scope: Scope, receive: Receive) -> list[Message] | None:
    """The messages of a body, None when it is too large."""
    announced = Headers(scope=scope).get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > LARGEST_JSON_BYTES:
        return None
    messages: list[Message] = []
    received, more = 0, True
    while more:
        message = await receive()
        messages.append(message)
        received += len(message.get("body", b""))
        if received > LARGEST_JSON_BYTES:
            return None
        more = message["type"] == "http.request" and message.get("more_body", False)
    return messages


def _too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-large",
        title="The body is too large.",
        detail=f"JSON of at most {LARGEST_JSON_BYTES} bytes is read.",
        todo="Send what the route describes and no more.",
    )
