"""/healthz tells that the process serves; /readyz that what it needs answers, and how fast."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial

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


ANSWER_LIMIT = timedelta(seconds=2)
"""What is silent for longer fails; Cloud Run gives its probe 4 s (terraform/modules/api)."""
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
async def readyz(request: Request) -> JSONResponse:
    """Database, broker, migrations and audio store; 503 while a needed one fails."""
    probes: Probes = request.app.state.probes
    checks = await probes.ask()
    failing = [name for name, check in checks.items() if not check.ok]
    degraded = [name for name in failing if name in SPARED]
    ready = failing == degraded
    return JSONResponse(
        Readiness(ready=ready, degraded=degraded, checks=checks).model_dump(),
        status_code=200 if ready else 503,
    )


class Probes:
    """Asks everything at once, on threads of its own: the routes' may all wait for one of these.

    What is silent is asked again only when it has spoken, so asking often piles nothing up.
    """

    def __init__(self, services: Services) -> None:
        address = services.settings.require("redis_url")
        self._checks: dict[str, Callable[[], str]] = {
            "database": partial(_database, services.engine),
            "redis": partial(_redis, address),
            "migrations": partial(_migrations, services.engine),
            "storage": partial(_storage, services.store),
        }
        self._asked: dict[str, Future[Check]] = {}

    async def ask(self) -> dict[str, Check]:
        """How each is, within ANSWER_LIMIT."""
        for name, check in self._checks.items():
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = _begun(check)
        asked = dict(self._asked)
        answers = {name: asyncio.wrap_future(answer) for name, answer in asked.items()}
        limit = ANSWER_LIMIT.total_seconds()
        await asyncio.wait(answers.values(), timeout=limit)
        silent = Check(ok=False, milliseconds=limit * 1000, detail=f"no answer in {limit:g} s")
        return {
            name: answer.result() if answer.done() else silent for name, answer in answers.items()
        }


def _begun(check: Callable[[], str]) -> Future[Check]:
    """A check under way; an executor's threads would be waited for when the process ends."""
    answer: Future[Check] = Future()
    threading.Thread(
        target=lambda: answer.set_result(_timed(check)), name="readyz", daemon=True
    ).start()
    return answer


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


def _redis(address: str) -> str:
    with make_redis(address) as client:
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
