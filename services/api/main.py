"""The API as an ASGI application: `services.api.main:create_app` is its factory."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from celery import Celery
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from services.api import (
    lifecycle,
    problems,
    readiness,
    recordings,
    renditions,
    transcriptions,
    upload_sessions,
)
from services.api.backlog import Backlog
from services.api.bodies import SmallBodies
from services.api.callers import Callers, Guard, make_verifiers
from services.api.deadlines import Deadlines, Limits
from services.api.description import describe
from services.api.envelope import Envelope
from services.api.gauges import (
    DATABASE_GAUGES,
    PACE_GAUGES,
    broker_gauges,
    database_gauges,
    pace_gauges,
)
from services.api.ledger import Ledger
from services.api.measure import Measure, be_born
from services.api.rate_limit import Buckets, Quota, RateLimit
from speakfit.database import make_engine
from speakfit.jobs import BROKER_ERRORS, make_celery, make_redis, relay_outbox
from speakfit.metrics import QUEUE_BROKER, REJECTIONS, Pool, Rejection
from speakfit.pool import GAUGE_POOL, POOL_GAUGES, api_pool, pool_gauges
from speakfit.replica import reads_from
from speakfit.settings import Settings, read_settings
from speakfit.store import open_store
from speakfit.telemetry import Telemetry, configure_logging, make_telemetry
from speakfit.tracing import begin_tracing, end_tracing

ROUTERS = (
    recordings.router,
    lifecycle.router,
    renditions.router,
    transcriptions.router,
    upload_sessions.router,
    readiness.router,
)
"""Everything the API answers; the voice that reads feedback aloud will be one more."""

_ANSWERING = timedelta(seconds=10)
"""What a route that waits for work has left to tell how it ended."""
_RELAY_EVERY = timedelta(seconds=1)
_GAUGE_STATEMENT_LIMIT = timedelta(seconds=1)

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; a SettingsError names what is missing before anything starts."""
    settings = settings or read_settings()
    configure_logging("api", project=settings.google_cloud_project)
    # One line a request is ours, with the route instead of the path.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    engine = make_engine(settings.require("database_url"), pool=api_pool(settings))
    reads = reads_from(settings, engine)
    celery = make_celery(settings.require("redis_url"))
    store = open_store(settings)
    news = threading.Event()
    telemetry = make_telemetry(settings, service="api")
    begin_tracing(settings, telemetry.resource)
    ledger = Ledger(telemetry)
    relay = _Relay(engine, celery, news)
    buckets = _buckets(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        store.free_parts()
        telemetry.start()
        ledger.start()
        relay.start()
        try:
            yield
        finally:
            relay.stop()
            if buckets is not None:
                await buckets.close()
            ledger.stop()
            await run_in_threadpool(telemetry.shutdown)
            await run_in_threadpool(end_tracing)
            reads.dispose()
            engine.dispose()

    app = FastAPI(
        title="SpeakFit",
        description="Upload speech; get its transcript and coaching figures.",
        version="1",
        lifespan=lifespan,
    )
    app.state.services = recordings.Services(
        settings=settings,
        engine=engine,
        reads=reads,
        store=store,
        celery=celery,
        outbox_has_news=news,
    )
    app.state.probes = readiness.Probes(app.state.services)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    describe(app, every_route())
    callers = Callers(make_verifiers(settings, engine))

    def refused(reason: Rejection) -> Callable[[], None]:
        return lambda: telemetry.count(REJECTIONS, {"reason": reason})

    app.state.backlog = Backlog(engine, settings.max_queue_chunks, refused(Rejection.QUEUE_FULL))
    # The last added is the outermost: refusals are measured too, and carry what answers carry.
    app.add_middleware(SmallBodies, routes=every_route())
    if buckets is not None:
        app.add_middleware(
            RateLimit,
            buckets=buckets,
            routes=every_route(),
            refused=refused(Rejection.RATE_LIMITED),
        )
    app.add_middleware(Guard, callers=callers, routes=every_route())
    limits = Limits(
        client=settings.client_timeout,
        answer=settings.answer_timeout,
        compute=max(Limits.compute, settings.transcription_timeout + _ANSWERING),
    )
    app.add_middleware(Deadlines, limits=limits, routes=every_route())
    app.add_middleware(Envelope)
    app.add_middleware(Measure, ledger=ledger)
    be_born(telemetry, every_route())
    _observe(telemetry, settings, engine)
    return app


def _buckets(settings: Settings) -> Buckets | None:
    if settings.rate_limit_requests == 0:
        return None
    quota = Quota(requests=settings.rate_limit_requests, window=settings.rate_limit_window)
    return Buckets(settings.require("redis_url"), quota)


def every_route() -> list[APIRoute]:
    """Every route of ours; the framework's own, which document them, are not among them."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def _observe(telemetry: Telemetry, settings: Settings, engine: Engine) -> None:
    """The gauges have a connection of their own: a busy pool must not blind us."""
    gauge_engine = make_engine(
        settings.require("database_url"), pool=GAUGE_POOL, statement_limit=_GAUGE_STATEMENT_LIMIT
    )
    for metrics, gauges in ((DATABASE_GAUGES, database_gauges), (PACE_GAUGES, pace_gauges)):
        telemetry.observe(
            metrics, gauges(gauge_engine, settings.export_interval, lambda: telemetry.clock)
        )
    telemetry.observe(POOL_GAUGES, pool_gauges(engine, Pool.API))
    telemetry.observe([QUEUE_BROKER], broker_gauges(make_redis(settings.require("redis_url"))))


class _Relay:
    """Sends the outbox from a thread, so that a slow broker delays no answer."""

    def __init__(self, engine: Engine, celery: Celery, news: threading.Event) -> None:
        self._engine = engine
        self._celery = celery
        self._news = news
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.wait(_RELAY_EVERY.total_seconds())
            self._news.clear()
            try:
                relay_outbox(self._engine, self._celery)
            except (SQLAlchemyError, *BROKER_ERRORS) as error:
                # The rows stay; the next round or a worker sends them.
                logger.warning("the outbox could not be sent: %s", type(error).__name__)
                self._stop.wait(_RELAY_EVERY.total_seconds())
