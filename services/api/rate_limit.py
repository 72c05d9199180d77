"""How often a caller may ask: a token bucket in Redis that all API processes share.

Answers tell in `RateLimit` and `RateLimit-Policy` what is left, as draft-ietf-httpapi-ratelimit-
headers-10 writes it; 429 also in Retry-After. Without Redis nobody is limited: recordings are
accepted without it too.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

import redis
import redis.asyncio
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.callers import name_route
from services.api.keys import Identity
from services.api.problems import Problem

_POLICY = '"caller"'
_ANSWER_LIMIT = timedelta(milliseconds=250)
_PAUSE = timedelta(seconds=5)
_CONNECTIONS = 32

# Redis's clock, so that processes on machines whose clocks differ share one bucket.
_TAKE = """
local capacity, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local passed = math.max(0, now - (tonumber(kept[2]) or now))
local tokens = math.min(capacity, (tonumber(kept[1]) or capacity) + passed * capacity / window)
local taken = 0
if tokens >= 1 then
  taken = 1
  tokens = tokens - 1
end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], window)
return {taken, math.floor(tokens * 1000)}
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Quota:
    """So many requests in a window, all at once or evenly."""

    requests: int
    window: timedelta

    @property
    def policy(self) -> str:
        """For RateLimit-Policy."""
        return f"{_POLICY};q={self.requests};w={math.ceil(self.window.total_seconds())}"

    def seconds_for(self, tokens: float) -> int:
        """How long the bucket takes to gain so many tokens, in whole seconds."""
        return max(1, math.ceil(tokens * self.window.total_seconds() / self.requests))


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of one request's token."""

    allowed: bool
    left: float
    """Tokens that remain; below 1 the next request must wait."""


class Buckets:
    """One bucket a caller, in Redis; None for an answer means that Redis gave none."""

    def __init__(
        self, redis_url: str, quota: Quota, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.quota = quota
        self._now = now
        self._away_until = -math.inf
        self._unlimited = 0
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_CONNECTIONS,
            timeout=_ANSWER_LIMIT.total_seconds(),
            socket_timeout=_ANSWER_LIMIT.total_seconds(),
            socket_connect_timeout=_ANSWER_LIMIT.total_seconds(),
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._take = self._client.register_script(_TAKE)

    async def take(self, caller_id: uuid.UUID) -> Taken | None:
        """Take one token; after a failure Redis is left alone for some seconds."""
        if self._now() < self._away_until:
            self._unlimited += 1
            return None
        window = int(self.quota.window.total_seconds() * 1000)
        try:
            taken, thousandths = await self._take(
                keys=[f"speakfit:rate:{caller_id}"], args=[self.quota.requests, window]
            )
        except (redis.RedisError, OSError) as error:
            self._unlimited += 1
            self._away_until = self._now() + _PAUSE.total_seconds()
            logger.warning(
                "callers are not limited: Redis gives no answer (%s)", type(error).__name__
            )
            return None
        if self._unlimited:
            logger.warning("callers are limited again; %d requests were not", self._unlimited)
            self._unlimited = 0
        return Taken(allowed=bool(taken), left=int(thousandths) / 1000)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


class RateLimit:
    """ASGI layer behind the one that knows the caller; strangers on open routes are not counted."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        buckets: Buckets,
        routes: Sequence[APIRoute],
        refused: Callable[[], None],
    ) -> None:
        self._app = app
        self._buckets = buckets
        self._routes = routes
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Identity | None = scope.get("state", {}).get("caller")
        if scope["type"] != "http" or caller is None:
            await self._app(scope, receive, send)
            return
        taken = await self._buckets.take(caller.caller_id)
        if taken is None:
            await self._app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._write(MutableHeaders(raw=message["headers"]), taken)
            await send(message)

        if taken.allowed:
            await self._app(scope, receive, tell)
            return
        self._refused()
        name_route(self._routes, scope)
        wait = self._buckets.quota.seconds_for(1 - taken.left)
        await _too_often(self._buckets.quota, wait).response(scope["path"])(scope, receive, tell)

    def _write(self, headers: MutableHeaders, taken: Taken) -> None:
        quota = self._buckets.quota
        until_full = quota.seconds_for(quota.requests - taken.left)
        headers["ratelimit-policy"] = quota.policy
        headers["ratelimit"] = f"{_POLICY};r={int(taken.left)};t={until_full}"


def _too_often(quota: Quota, wait: int) -> Problem:
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "rate-limited",
        title="The caller asks too often.",
        detail=f"At most {quota.requests} in {quota.window.total_seconds():g} s are answered.",
        todo="Wait as long as Retry-After says; the RateLimit header tells what is left.",
        headers={"Retry-After": str(wait)},
    )
