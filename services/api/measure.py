"""Measures and traces every request where it enters and leaves.

An own ASGI layer, because the stock instrumentation leaves out the route of a 404 and the class
of a route, and halves the requests a second. Health probes are not measured: they would thin out
the percentile that pages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from http import HTTPStatus

from opentelemetry.trace import Span, SpanKind
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speakfit.metrics import (
    METHODS,
    OTHER_METHOD,
    REJECTIONS,
    REQUEST_DURATION,
    REQUESTS,
    STATUS_CLASSES,
    Rejection,
    RouteClass,
)
from speakfit.telemetry import Telemetry
from speakfit.tracing import fail, parent, span

UNMATCHED = "unmatched"
PROBES = ("/healthz", "/readyz")
CLIENT_GONE = 499
"""nginx's word for a request that ended before it had an answer; it is not an error of ours."""

_METHODS = frozenset(METHODS)
_ROUTE_CLASSES = {("POST", "/v1/recordings"): RouteClass.TRANSFER}

logger = logging.getLogger(__name__)


def route_class(method: str, route: str) -> RouteClass:
    """How quick the route is meant to be; an upload lasts as long as the caller's line."""
    if route == UNMATCHED:
        return RouteClass.UNMATCHED
    return _ROUTE_CLASSES.get((method, route), RouteClass.INTERACTIVE)


class Measure:
    """ASGI layer around the whole application."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        answered = False

        async def watch(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                answered = True
                status = message["status"]
            await send(message)

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
                    self._record(method, route, status, time.perf_counter() - began)
                if request.is_recording():
                    _describe(request, method, route, status)

    def _record(self, method: str, route: str, status: int, seconds: float) -> None:
        kind = route_class(method, route)
        self._telemetry.record(
            REQUEST_DURATION,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": str(status),
                "route_class": kind,
            },
            seconds,
        )
        self._telemetry.count(
            REQUESTS,
            {
                "http.route": route,
                "status_class": f"{status // 100}xx",
                "route_class": kind,
            },
        )
        logger.info(
            "request",
            extra={
                "context": {
                    "method": method,
                    "route": route,
                    "status": status,
                    "httpRequest": {
                        "requestMethod": method,
                        "requestUrl": route,
                        "status": status,
                        "latency": f"{seconds:.4f}s",
                    },
                    "seconds": round(seconds, 4),
                }
            },
        )


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
