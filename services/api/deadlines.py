"""Nobody holds a connection or waits for ever: slow clients get 408, slow answers become 504.

Three clocks run: for the head of a request (in uvicorn's protocol, before any application sees
it), for its body (which must keep coming, and at a pace), and for the answer after the body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.api.callers import name_route
from services.api.ledger import route_class
from services.api.problems import MEDIA_TYPE, Problem
from speakfit.metrics import RouteClass

LARGEST_HEAD_BYTES = 16 * 1024
_LINGER = timedelta(seconds=2)
"""How long a client that was refused may go on sending before the connection is closed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a request may take; the defaults suit Cloud Run behind its load balancer."""

    client: timedelta = timedelta(seconds=10)
    """To send a head; between two pieces of a body; and before its pace is judged."""
    bytes_per_second: int = 1024
    """The pace; a second of the thinnest speech codec is about as large."""
    answer: timedelta = timedelta(seconds=30)
    """From the end of the body to the beginning of the answer."""
    compute: timedelta = timedelta(minutes=5)
    """The same for routes that compute while their caller waits; Cloud Run's own limit."""


class _TooSlowError(Exception):
    """The body came too slowly; what reads it gives up and cleans up."""


class Deadlines:
    """ASGI layer around whatever reads bodies and answers.

    A handler that runs in a thread cannot be stopped. Its caller is answered at the limit; it ends
    in its own time, and what it answers then goes nowhere.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._limits = limits
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(self._limits, scope, receive, send, self._routes)
        try:
            await self._app(scope, request.receive, request.send)
        except _TooSlowError:
            pass
        except Exception as error:
            if not request.cut:
                raise
            logger.error("unexpected error after the deadline", exc_info=error)
        finally:
            request.disarm()
        if request.too_slow:
            await request.refuse(_too_slow())


class _Request:
    """The clocks of one request."""

    def __init__(
        self,
        limits: Limits,
        scope: Scope,
        receive: Receive,
        send: Send,
        routes: Sequence[APIRoute],
    ) -> None:
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._routes = routes
        self._began: float | None = None
        self._got = 0
        self._complete = False
        self._answered = False
        self._extended = False
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None
        self.too_slow = False
        self.cut = False
        self._arm(limits.answer)

    async def receive(self) -> Message:
        if self._complete or self._answered:
            # Nothing is left to come but the client's going away.
            return await self._receive()
        if self._began is None:
            self._began = time.monotonic()
        self.disarm()
        try:
            async with asyncio.timeout(self._limits.client.total_seconds()):
                message = await self._receive()
        except TimeoutError:
            self.too_slow = True
            raise _TooSlowError from None
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete = True
                self._arm(self._limits.answer)
            elif self._behind(time.monotonic() - self._began):
                self.too_slow = True
                raise _TooSlowError
        return message

    def _behind(self, passed: float) -> bool:
        due = self._limits.bytes_per_second * passed
        return passed > self._limits.client.total_seconds() and self._got < due

    async def send(self, message: Message) -> None:
        if self.cut or self.too_slow:
            return
        if message["type"] == "http.response.start":
            self._answered = True
            self.disarm()
        await self._send(message)

    def _arm(self, limit: timedelta) -> None:
        if not self._answered and not self.cut:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(limit.total_seconds(), self._expire)

    def disarm(self) -> None:
        """Stop the clock of the answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        path = getattr(self._scope.get("route"), "path", "")
        kind = route_class(self._scope["method"], path)
        if kind in (RouteClass.COMPUTE, RouteClass.STREAMING) and not self._extended:
            self._extended = True
            self._arm(self._limits.compute - self._limits.answer)
            return
        self._late = asyncio.get_running_loop().create_task(self.refuse(_too_late()))

    async def refuse(self, problem: Problem) -> None:
        """Answer in the handler's place, unless it has begun to answer."""
        if self._answered or self.cut:
            return
        self.cut = True
        if "route" not in self._scope:
            name_route(self._routes, self._scope)
        answer = problem.response(self._scope["path"])
        await answer(self._scope, self._receive, self._send)


def _too_slow() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_TIMEOUT,
        "too-slow",
        title="The request came too slowly.",
        detail="Its body stopped, or came slower than is waited for. Nothing was accepted.",
        todo="Send it again over a better line.",
        headers={"Connection": "close"},
    )


def _too_late() -> Problem:
    return Problem(
        HTTPStatus.GATEWAY_TIMEOUT,
        "too-late",
        title="The answer was not ready in time.",
        detail="The work may have been done all the same.",
        todo="Try again; with the same Idempotency-Key nothing is done twice.",
        headers={"Retry-After": "5"},
    )


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with a clock and a size for heads, and problems for what is not HTTP.

    uvicorn waits for ever for the first head of a connection, so a few hundred silent clients
    would use up every file descriptor; and it takes a head of any length.
    """

    def __init__(self, *given: Any, head_limit: timedelta, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_limit = head_limit
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm_head()
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._linger is not None:
            return
        if self._in_head:
            # The parser tells of a header only when it has all of it.
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head:
            self._disarm_head()
        elif self._head_bytes > LARGEST_HEAD_BYTES:
            self.send_400_response("")
        elif self._head_timer is None:
            self._arm_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        told = sum(len(name) + len(value) for name, value in self.headers)
        hosts = sum(name == b"host" for name, _ in self.headers)
        # Whatever a callback raises, the parser takes for malformed input.
        if len(self.url) + told > LARGEST_HEAD_BYTES:
            raise ValueError("the head is too large")
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise ValueError("one Host header is needed (RFC 9112, section 3.2)")
        super().on_headers_complete()

    def _arm_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_limit.total_seconds(), self._head_late)

    def _disarm_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._linger is not None:
            return
        if self._in_head:
            self._refuse(_too_slow())
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """In place of uvicorn's plain text."""
        self._refuse(
            Problem(
                HTTPStatus.BAD_REQUEST,
                "not-http",
                title="The request is not valid HTTP.",
                detail="Its head or its framing is malformed, or its head is too large.",
                todo="Send HTTP/1.1 with a head of at most 16 KiB.",
                headers={"Connection": "close"},
            )
        )

    def _refuse(self, problem: Problem) -> None:
        self._disarm_head()
        if self._leave_cycle():
            self.transport.close()
            return
        body: dict[str, Any] = problem.document("")
        content = json.dumps(body).encode()
        self.transport.write(
            f"HTTP/1.1 {problem.status} {problem.status.phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(content)}\r\n"
            "connection: close\r\n"
            "cache-control: no-store\r\n"
            "x-content-type-options: nosniff\r\n\r\n".encode()
            + content
        )
        # Closing under a client that still sends resets the connection, and a reset may take the
        # answer with it: so first only our side ends (RFC 9112, section 9.6).
        self.transport.write_eof()
        self._linger = self.loop.call_later(_LINGER.total_seconds(), self.transport.close)

    def _leave_cycle(self) -> bool:
        """Let go of the request whose body turned out malformed; whether it was being answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return bool(cycle.response_started)
