"""/healthz tells that the process serves; /readyz that what it needs answers, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Engine, text

from services.api.callers import OPEN
from services.api.recordings import Services
from speakfit.database import current_revision, is_behind
from speakfit.jobs import make_redis
from speakfit.settings import release
from speakfit.store import AudioStore


class Check(BaseModel):
    """One thing the API needs."""

    ok: bool
    milliseconds: float
    detail: str


class Readiness(BaseModel):
    """All that the API needs."""

    ready: bool
    degraded: list[str]
    """What fails and is not needed to accept recordings and to answer."""
    checks: dict[str, Check]


SPARED = ("redis",)
"""Recordings are accepted without it: the outbox keeps their messages until it is back."""

router = APIRouter(tags=["operation"])


@router.get("/healthz", openapi_extra=OPEN)
async def healthz() -> dict[str, str]:
    """The process serves; nothing else is asked, so a lost database does not restart it."""
    return {"status": "ok", "release": release()}


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness}},
    openapi_extra=OPEN,
)
def readyz(request: Request) -> JSONResponse:
    """Database, broker, migrations and audio store; 503 while a needed one fails."""
    services: Services = request.app.state.services
    client = make_redis(services.settings.require("redis_url"))
    checks = {
        "database": _timed(lambda: _database(services.engine)),
        "redis": _timed(lambda: _redis(client)),
        "migrations": _timed(lambda: _migrations(services.engine)),
        "storage": _timed(lambda: _storage(services.store)),
    }
    failing = [name for name, check in checks.items() if not check.ok]
    degraded = [name for name in failing if name in SPARED]
    ready = failing == degraded
    return JSONResponse(
        Readiness(ready=ready, degraded=degraded, checks=checks).model_dump(),
        status_code=200 if ready else 503,
    )


def _timed(check: Callable[[], str]) -> Check:
    began = time.perf_counter()
    try:
        detail, ok = check(), True
    except Exception as error:
        # The text of a driver's error may name addresses and accounts.
        detail, ok = type(error).__name__, False
    return Check(ok=ok, milliseconds=round((time.perf_counter() - began) * 1000, 2), detail=detail)


def _database(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return "answers"


def _redis(client: redis.Redis) -> str:
    with client:
        client.ping()
    return "answers"


def _storage(store: AudioStore) -> str:
    store.check()
    return "answers"


class _BehindError(Exception):
    """The tables are older than this code."""


def _migrations(engine: Engine) -> str:
    current = current_revision(engine)
    if is_behind(current):
        raise _BehindError
    return f"at {current}"
