"""The HTTP side: Cloud Monitoring REST, the embedded PagerDuty, the console and readiness."""

from __future__ import annotations

import json
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from speakfit.emulator import rest_front
from speakfit.emulator.answers import failure_of
from speakfit.emulator.console import console_page
from speakfit.emulator.pagerduty_endpoint import Answer as PagerDutyAnswer
from speakfit.emulator.pagerduty_endpoint import Request as PagerDutyRequest
from speakfit.errors import InvalidArgument, WireError

if TYPE_CHECKING:
    from speakfit.emulator.server import Emulator

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
MAX_BODY = 8 * 1_024 * 1_024
"""Bytes of a request, on both wires."""

_PAGERDUTY_ROOTS = (
    "incidents",
    "services",
    "users",
    "escalation_policies",
    "oncalls",
    "schedules",
    "maintenance_windows",
    "log_entries",
    "change_events",
)


async def _body(request: Request) -> bytes | None:
    """The request's body, unpacked, or None when it is larger than any call needs.

    InvalidArgument for an encoding other than gzip, the one that Google's APIs document, and for
    bytes that are not what they are said to be.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise InvalidArgument(f"The content encoding {encoding[:32]} is not supported.")
    raw = await _read(request)
    if not raw or encoding != "gzip":
        return raw
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        # One byte more than allowed is enough to know that there is more.
        unpacked = unpacker.decompress(raw, MAX_BODY + 1)
    except zlib.error as error:
        raise InvalidArgument("The body is not gzip.") from error
    if len(unpacked) > MAX_BODY:
        return None
    if not unpacker.eof:
        raise InvalidArgument("The body is not gzip.")
    return unpacked


async def _read(request: Request) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


def _error(status: int, code: str, text: str) -> JSONResponse:
    error = {"code": status, "message": text, "status": code}
    return JSONResponse({"error": error}, status_code=status)


def _pagerduty_response(answer: PagerDutyAnswer) -> Response:
    headers = dict(answer.headers)
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)


def http_app(emulator: Emulator) -> Starlette:
    """The ASGI application of one emulator, whose parts a reset replaces."""

    async def monitoring(request: Request) -> Response:
        raw = await _body(request)
        if raw is None:
            return _error(400, "INVALID_ARGUMENT", f"The body is larger than {MAX_BODY} bytes.")
        status, answer = await run_in_threadpool(
            rest_front.answer,
            emulator.backend,
            method=request.method,
            path=request.url.path,
            query=request.query_params.multi_items(),
            body=raw,
        )
        return JSONResponse(answer, status_code=status)

    async def enqueue(request: Request) -> Response:
        raw = await _body(request)
        call: Any = emulator.pagerduty.enqueue
        if request.url.path.startswith("/v2/change"):
            call = emulator.pagerduty.enqueue_change
        return _pagerduty_response(await run_in_threadpool(call, raw))

    async def pagerduty_rest(request: Request) -> Response:
        asked = PagerDutyRequest(
            method=request.method,
            path=request.url.path,
            query=request.query_params.multi_items(),
            headers=dict(request.headers),
            body=await _body(request),
        )
        return _pagerduty_response(await run_in_threadpool(emulator.pagerduty.answer, asked))

    def incidents(_request: Request) -> Response:
        return JSONResponse({"incidents": emulator.incidents()})

    def verification_codes(_request: Request) -> Response:
        return JSONResponse({"verificationCodes": emulator.backend.channels.verification_codes()})

    async def advance(request: Request) -> Response:
        raw = await _body(request)
        try:
            seconds = json.loads(raw or b"{}")["seconds"]
            by = timedelta(seconds=seconds)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InvalidArgument('The body must be {"seconds": NUMBER}.') from error
        evaluations = await run_in_threadpool(emulator.advance, by)
        return JSONResponse({"nowNs": str(emulator.clock.now_ns()), "evaluations": evaluations})

    def console(_request: Request) -> Response:
        return HTMLResponse(
            console_page(emulator),
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
                "Cache-Control": "no-store",
            },
        )

    def ready(_request: Request) -> Response:
        if emulator.serving:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("starting\n", status_code=503)

    def refused(_request: Request, error: Exception) -> Response:
        failure = failure_of(error, where="HTTP")
        return _error(failure.http_status, failure.code, failure.text)

    def unrouted(_request: Request, error: Exception) -> Response:
        # A verb that no call of a path knows.
        status = getattr(error, "status_code", 404)
        return _error(status, "NOT_FOUND", "No such method.")

    def gone(_request: Request, _error: Exception) -> Response:
        # The client left in the middle of its request; nobody reads this.
        return Response(status_code=400)

    return Starlette(
        exception_handlers={
            WireError: refused,
            HTTPException: unrouted,
            ClientDisconnect: gone,
        },
        routes=[
            Route("/", console),
            Route("/readyz", ready),
            Route("/emulator/v1/incidents", incidents),
            Route("/emulator/v1/verificationCodes", verification_codes),
            # It does not exist unless the clock is there to be moved.
            *(
                [Route("/emulator/v1/clock:advance", advance, methods=["POST"])]
                if emulator.options.manual_clock
                else []
            ),
            Route("/v2/enqueue", enqueue, methods=["POST"]),
            Route("/v2/change/enqueue", enqueue, methods=["POST"]),
            *(
                Route(f"/{name}{{rest:path}}", pagerduty_rest, methods=_METHODS)
                for name in _PAGERDUTY_ROOTS
            ),
            Route("/{path:path}", monitoring, methods=_METHODS),
        ],
    )
