"""What a worker's main process does besides Celery: its heartbeat, the outbox and the sweep.

The main process imports no model and no gRPC. Everything here is the database and the broker;
trouble with either is logged and tried again, because the worker must outlive both.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta

from celery import Celery
from sqlalchemy import Engine, delete, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.worker.dead_letters import bury_exhausted
from services.worker.lease import claimable_jobs
from services.worker.watch import Watch
from speakfit.database import (
    IdempotencyKey,
    OutboxMessage,
    WorkerHeartbeat,
    database_now,
    transaction,
)
from speakfit.errors import StoreError
from speakfit.jobs import (
    BROKER_ERRORS,
    make_redis,
    relay_outbox,
    send,
    waiting_count,
)
from speakfit.objects import remove_expired_uploads, remove_unused, unused_objects
from speakfit.settings import Settings
from speakfit.store import open_store

SWEEP_EVERY = timedelta(milliseconds=500)
_TIDY_EVERY = timedelta(minutes=10)
_ANSWERS_KEPT = timedelta(days=1)

_AT_ONCE = 1_000
_UNKNOWN_SCALE_BEAT = timedelta(seconds=1)
_SHORTEST_BEAT = timedelta(milliseconds=250)
_FORGET_WORKERS_AFTER = timedelta(days=1)
_SWEEP_LOCK = 5242

logger = logging.getLogger(__name__)


class Sweep:
    """Keeps as many messages in the broker as PostgreSQL says there is work nobody holds.

    So a killed worker's chunks go on when their lease expires, and an emptied Redis loses
    nothing. Messages are sent when two sweeps in a row miss them: one may fall between a
    message's delivery and the lease that follows.
    """

    def __init__(self, engine: Engine, app: Celery, settings: Settings) -> None:
        self._engine = engine
        self._app = app
        self._store = open_store(settings)
        self._redis = make_redis(settings.require("redis_url"))
        self._missed = 0
        self._tidy_at = 0.0

    def once(self) -> int:
        """Sweep, and count what was sent again; raises when the database or broker is away."""
        relay_outbox(self._engine, self._app)
        with transaction(self._engine) as session:
            if not self._alone(session):
                return 0
            failed = bury_exhausted(session)
            jobs = claimable_jobs(session, _AT_ONCE)
            unsent = session.scalar(select(func.count()).select_from(OutboxMessage)) or 0
        for recording_id in failed:
            logger.error("a recording failed", extra={"context": {"recording": str(recording_id)}})
            self._store.remove_chunks(recording_id)
        missing = max(0, len(jobs) - unsent - waiting_count(self._redis)) if jobs else 0
        again = jobs[: min(missing, self._missed)]
        for job in again:
            send(self._app, job)
        self._missed = missing - len(again)
        if again:
            logger.info("sent %d messages again that the broker had lost", len(again))
        self._tidy()
        return len(again)

    def _tidy(self) -> None:
        """Remove audio that no recording refers to, and answers that nobody asks for again."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + _TIDY_EVERY.total_seconds()
        with transaction(self._engine) as session:
            session.execute(
                delete(IdempotencyKey).where(
                    IdempotencyKey.created_at < database_now(-_ANSWERS_KEPT)
                )
            )
            unused = unused_objects(session)
        try:
            for key in unused:
                remove_unused(self._engine, self._store, key)
            remove_expired_uploads(self._engine, self._store)
        except (OSError, StoreError) as error:
            logger.warning("unused audio could not be removed: %s", type(error).__name__)

    def _alone(self, session: Session) -> bool:
        """One worker sweeps at a time, else each lost message would be sent once a worker."""
        if session.get_bind().dialect.name != "postgresql":
            return True
        return bool(session.scalar(text(f"SELECT pg_try_advisory_xact_lock({_SWEEP_LOCK})")))


class Heartbeat:
    """Tells PostgreSQL that this worker lives, every export interval of policy time."""

    def __init__(self, engine: Engine, settings: Settings, *, processes: int) -> None:
        self._engine = engine
        self._settings = settings
        self._processes = processes
        self.worker_id = f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._scale: float | None = None

    def beat(self) -> None:
        """Write the heartbeat, and forget workers that died long ago."""
        with transaction(self._engine) as session:
            known = session.execute(
                update(WorkerHeartbeat)
                .where(WorkerHeartbeat.worker_id == self.worker_id)
                .values(at=database_now(), processes=self._processes)
                .returning(WorkerHeartbeat.worker_id)
                .execution_options(synchronize_session=False)
            ).one_or_none()
            if known is None:
                session.add(
                    WorkerHeartbeat(
                        worker_id=self.worker_id,
                        started_at=database_now(),
                        at=database_now(),
                        processes=self._processes,
                    )
                )
                session.execute(
                    delete(WorkerHeartbeat)
                    .where(WorkerHeartbeat.at < database_now(-_FORGET_WORKERS_AFTER))
                    .execution_options(synchronize_session=False)
                )

    def end(self) -> None:
        """Take the heartbeat back: this worker stops on purpose."""
        with transaction(self._engine) as session:
            session.execute(
                delete(WorkerHeartbeat).where(WorkerHeartbeat.worker_id == self.worker_id)
            )

    def interval(self) -> timedelta:
        """Real time to the next beat; short while the policy clock's scale is not known."""
        if self._scale is None:
            self._scale = ask_scale(self._settings)
        if self._scale is None:
            return _UNKNOWN_SCALE_BEAT
        return max(self._settings.export_interval / self._scale, _SHORTEST_BEAT)


def ask_scale(settings: Settings) -> float | None:
    """The policy clock's scale, asked by a short-lived process: gRPC stays out of this one.

    None while the target does not answer; 1 without an emulator.
    """
    if not settings.monitoring_emulator_host:
        return 1.0
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "services.worker.clock_scale"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return float(answer.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None


class Vitals:
    """The threads of the main process; one hung dependency must not stop the others."""

    def __init__(self, sweep: Sweep, heartbeat: Heartbeat, watch: Watch) -> None:
        self._sweep = sweep
        self._heartbeat = heartbeat
        self._watch = watch
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
            threading.Thread(target=self._sweep_on, name="sweep", daemon=True),
            threading.Thread(target=self._watch_on, name="watch", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads and take the heartbeat back; trouble is logged."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2.0)
        try:
            self._heartbeat.end()
        except SQLAlchemyError as error:
            logger.warning("the heartbeat could not be taken back: %s", type(error).__name__)

    def _beat(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._heartbeat.beat()
            except SQLAlchemyError as error:
                logger.warning("the heartbeat could not be written: %s", type(error).__name__)
            left = self._heartbeat.interval().total_seconds() - (time.monotonic() - began)
            self._stop.wait(max(0.05, left))

    def _sweep_on(self) -> None:
        while not self._stop.wait(SWEEP_EVERY.total_seconds()):
            try:
                self._sweep.once()
            except (SQLAlchemyError, *BROKER_ERRORS) as error:
                logger.warning("the sweep failed: %s", type(error).__name__)
                self._stop.wait(1.0)

    def _watch_on(self) -> None:
        while not self._stop.wait(SWEEP_EVERY.total_seconds()):
            self._watch.kill_late()
