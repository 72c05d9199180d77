"""Measures every request where it enters and leaves: duration, status class, route template.

An own ASGI layer, because the stock instrumentation leaves out the route of a 404 and the class
of a route. Health probes are not measured: they would thin out the percentile that pages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from http import HTTPStatus

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speakfit.metrics import REQUEST_DURATION, REQUESTS, RouteClass
from speakfit.telemetry import Telemetry

UNMATCHED = "unmatched"
PROBES = ("/healthz", "/readyz")
CLIENT_GONE = 499
"""nginx's word for a request that ended before it had an answer; it is not an error of ours."""
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
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

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            # Only a stop cancels: the upload never ended, so nothing was accepted and lost.
            status = status if answered else CLIENT_GONE
            raise
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The framework finds a route for a wrong method too, but that route does not answer.
        route = UNMATCHED if status == HTTPStatus.METHOD_NOT_ALLOWED else _template(scope)
        if route in PROBES:
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
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


def _template(scope: Scope) -> str:
    """The route's pattern, never the path: a path is unbounded and may hold anything."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED


def be_born(telemetry: Telemetry, routes: Iterable[BaseRoute]) -> None:
    """Make every request counter known at zero, so that the first 5xx of a route is seen."""
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
