"""What every answer carries: the request's id, its trace, and headers that keep browsers safe.

An own ASGI layer, so that refusals and errors of any layer carry them too.
"""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.callers import DOCUMENTATION
from services.api.problems import of_anything
from speakfit.correlation import known_request_id, request_id
from speakfit.tracing import traceparent

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"

_SECURITY = {
    # A transcript is private: no cache may keep it.
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# The pages that show the OpenAPI document load their scripts from where FastAPI points.
_DOCUMENTATION_POLICY = (
    "default-src 'none'; frame-ancestors 'none'; connect-src 'self'; worker-src blob:; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; img-src data: https://fastapi.tiangolo.com"
)

logger = logging.getLogger(__name__)


class Envelope:
    """ASGI layer between the measuring one, whose log line it gives its ids, and all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = known_request_id(Headers(scope=scope).get(REQUEST_ID))
        # Each request has a context of its own, which ends with it.
        request_id.set(request)
        answered = False

        async def enclose(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                _write(MutableHeaders(raw=message["headers"]), request, scope["path"])
            await send(message)

        try:
            await self._app(scope, receive, enclose)
        except Exception as error:
            logger.error("unexpected error", exc_info=error)
            if answered:
                raise
            await of_anything().response(scope["path"])(scope, receive, enclose)


def _write(headers: MutableHeaders, request: str, path: str) -> None:
    headers[REQUEST_ID] = request
    context = traceparent()
    if context is not None:
        headers[TRACEPARENT] = context
    for name, value in _SECURITY.items():
        headers.setdefault(name, value)
    if path in DOCUMENTATION:
        headers["content-security-policy"] = _DOCUMENTATION_POLICY
