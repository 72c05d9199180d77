"""Measures and traces every request where it enters and leaves.

An own ASGI layer, because the stock instrumentation leaves out the route of a 404 and the class
of a route, and halves the requests a second. Health probes are not measured: they would thin out
the percentile that pages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable
from http import HTTPStatus

from opentelemetry.trace import Span, SpanKind
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.ledger import UNMATCHED, Entry, Ledger, route_class
from speakfit.correlation import request_id
from speakfit.metrics import (
    METHODS,
    OTHER_METHOD,
    REJECTIONS,
    REQUESTS,
    STATUS_CLASSES,
    Rejection,
    RouteClass,
)
from speakfit.telemetry import Telemetry
from speakfit.tracing import fail, parent, span

PROBES = ("/healthz", "/readyz")
CLIENT_GONE = 499
"""nginx's word for a request that ended before it had an answer; it is not an error of ours."""

_METHODS = frozenset(METHODS)


class Measure:
    """ASGI layer around the whole application."""

    def __init__(self, app: ASGIApp, ledger: Ledger) -> None:
        self._app = app
        self._note = ledger.note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        answered = False

        # No coroutine of its own around the one that it hands on: this is the way of every message.
        def watch(message: Message) -> Awaitable[None]:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                answered = True
                status = message["status"]
            return send(message)

        method = scope["method"] if scope["method"] in _METHODS else OTHER_METHOD
        with span(method, kind=SpanKind.SERVER, of=parent(_given(scope))) as request:
            try:
                await self._app(scope, receive, watch)
            except asyncio.CancelledError:
                # Only a stop cancels: the upload never ended, so nothing was accepted and lost.
                status = status if answered else CLIENT_GONE
                raise
            finally:
                # The framework finds a route for a wrong method too, but it does not answer.
                route = UNMATCHED if status == HTTPStatus.METHOD_NOT_ALLOWED else _template(scope)
                if route not in PROBES:
                    self._note(
                        Entry(
                            began, time.perf_counter(), method, route, status, request,
                            request_id.get(),
                        )
                    )  # fmt: skip
                if request.is_recording():
                    _describe(request, method, route, status)


def _given(scope: Scope) -> str | None:
    """The caller's trace context."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            given: str = value.decode("latin-1")
            return given
    return None


def _describe(request: Span, method: str, route: str, status: int) -> None:
    """What is known of a request only when it has been answered."""
    request.update_name(f"{method} {route}")
    request.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        fail(request, str(status))


def _template(scope: Scope) -> str:
    """The route's pattern, never the path: a path is unbounded and may hold anything."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED


def be_born(telemetry: Telemetry, routes: Iterable[BaseRoute]) -> None:
    """Make every counter of requests known at zero, so that the first 5xx of a route is seen."""
    for reason in Rejection:
        telemetry.count(REJECTIONS, {"reason": reason}, 0)
    known = {(UNMATCHED, RouteClass.UNMATCHED)}
    for route in routes:
        path = getattr(route, "path", None)
        if path is None or path in PROBES:
            continue
        for method in getattr(route, "methods", None) or ():
            known.add((path, route_class(method, path)))
    for path, kind in sorted(known):
        for status_class in STATUS_CLASSES:
            telemetry.count(
                REQUESTS,
                {"http.route": path, "status_class": status_class, "route_class": kind},
                0,
            )
