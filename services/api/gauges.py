"""What every API replica reads for the gauges: the queue, the workers, connections, the broker.

Read from PostgreSQL and by every replica, so that the figures are true with all workers dead and
with Redis emptied (docs/decisions.md). Policies reduce over replicas with MAX.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import redis
from sqlalchemy import Engine, case, exists, func, or_, select, text
from sqlalchemy.orm import Session

from speakfit.clock import Clock, RealClock
from speakfit.database import (
    Chunk,
    ChunkStatus,
    DeadLetter,
    Recording,
    RecordingStatus,
    WorkerHeartbeat,
    database_now,
    transaction,
)
from speakfit.jobs import unacknowledged_count, waiting_count
from speakfit.metrics import (
    DATABASE_CONNECTIONS,
    QUEUE_BROKER,
    QUEUE_DEAD_LETTERS,
    QUEUE_DEPTH,
    QUEUE_DRAIN_TIME,
    QUEUE_IN_FLIGHT,
    QUEUE_OLDEST_AGE,
    WORKER_BUSY,
    WORKER_PROCESSES,
    WORKERS_ALIVE,
    Metric,
)
from speakfit.telemetry import Readings, real_interval
from speakfit.totals import Reading

MISSED_BEATS = 3
"""A worker is dead after this many heartbeat intervals without one."""

PACE_OVER = timedelta(minutes=5)
"""How far back the chunks are counted that tell how fast the queue drains."""

_CONNECTION_SHARE = text(
    "SELECT count(*)::float8 / (current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int)"
    " FROM pg_stat_activity WHERE backend_type = 'client backend'"
)

DATABASE_GAUGES: tuple[Metric, ...] = (
    QUEUE_DEPTH, QUEUE_DEAD_LETTERS, WORKERS_ALIVE, WORKER_PROCESSES, DATABASE_CONNECTIONS,
)  # fmt: skip
"""What policies read."""

PACE_GAUGES: tuple[Metric, ...] = (
    QUEUE_IN_FLIGHT, QUEUE_OLDEST_AGE, QUEUE_DRAIN_TIME, WORKER_BUSY,
)  # fmt: skip
"""What tells how it goes; should asking take too long, the others are still exported."""

_UNFINISHED_RECORDING = Recording.status.in_((RecordingStatus.QUEUED, RecordingStatus.PROCESSING))


def queue_depth(session: Session) -> int:
    """Chunks accepted and not finished; of a recording being cut, also what is still to come."""
    cut = session.scalar(
        select(func.count())
        .select_from(Chunk)
        .where(Chunk.status.in_((ChunkStatus.PENDING, ChunkStatus.LEASED)))
    )
    made = (
        select(func.count())
        .select_from(Chunk)
        .where(Chunk.recording_id == Recording.id)
        .correlate(Recording)
        .scalar_subquery()
    )
    to_come = session.scalar(
        select(
            func.sum(case((Recording.expected_chunks > made, Recording.expected_chunks - made)))
        ).where(
            _UNFINISHED_RECORDING,
            Recording.speech.is_(None),
        )
    )
    return int(cut or 0) + int(to_come or 0)


def in_flight(session: Session) -> int:
    """Chunks that a worker holds."""
    return (
        session.scalar(
            select(func.count()).select_from(Chunk).where(Chunk.status == ChunkStatus.LEASED)
        )
        or 0
    )


def oldest_age(session: Session) -> timedelta:
    """How long ago the recording was accepted whose next chunk, or cutting, waits longest."""
    waits = exists().where(Chunk.recording_id == Recording.id, Chunk.status == ChunkStatus.PENDING)
    uncut = (Recording.status == RecordingStatus.QUEUED) & Recording.speech.is_(None)
    oldest, now = session.execute(
        select(func.min(Recording.created_at), database_now()).where(
            _UNFINISHED_RECORDING, or_(uncut, waits)
        )
    ).one()
    return max(now - oldest, timedelta(0)) if oldest is not None else timedelta(0)


def drain_time(depth: int, finished: int, waited: timedelta) -> timedelta | None:
    """How long the queue takes at its pace; None while the pace is not known.

    A queue that begins to fill on an idle service has no pace yet, and guessing one would only
    frighten. Once something has waited for the whole of PACE_OVER and nothing was finished, the
    pace is zero, and the answer the longest that is ever told.
    """
    longest = timedelta(seconds=QUEUE_DRAIN_TIME.highest)
    if depth == 0:
        return timedelta(0)
    if finished:
        return min(depth * PACE_OVER / finished, longest)
    return longest if waited >= PACE_OVER else None


def finished_chunks(session: Session) -> int:
    """Chunks finished within PACE_OVER."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Chunk)
            .where(Chunk.finished_at > database_now(-PACE_OVER), Chunk.status == ChunkStatus.DONE)
        )
        or 0
    )


def dead_letters(session: Session) -> int:
    """Work given up that waits for somebody's decision."""
    return (
        session.scalar(
            select(func.count()).select_from(DeadLetter).where(DeadLetter.settled_at.is_(None))
        )
        or 0
    )


def workers_alive(session: Session, fresh: timedelta) -> tuple[int, int]:
    """Workers whose heartbeat is younger than `fresh` by the database's clock; their processes."""
    workers, processes = session.execute(
        select(func.count(), func.coalesce(func.sum(WorkerHeartbeat.processes), 0)).where(
            WorkerHeartbeat.at > database_now(-fresh)
        )
    ).one()
    return int(workers), int(processes)


def living_leases(session: Session) -> int:
    """Leases that have not run out: a process holds one while it works."""
    return sum(
        session.scalar(
            select(func.count())
            .select_from(table)
            .where(unfinished, table.lease_expires_at > database_now())
        )
        or 0
        for table, unfinished in (
            (Recording, _UNFINISHED_RECORDING),
            (Chunk, Chunk.status == ChunkStatus.LEASED),
        )
    )


def database_gauges(
    engine: Engine, interval: timedelta, clock: Callable[[], Clock | None]
) -> Callable[[], Readings]:
    """Reads the gauges that PostgreSQL knows, in one transaction."""

    def read() -> Readings:
        fresh = real_interval(interval, clock() or RealClock()) * MISSED_BEATS
        with transaction(engine) as session:
            workers, processes = workers_alive(session, fresh)
            values: dict[Metric, float] = {
                QUEUE_DEPTH: queue_depth(session),
                QUEUE_DEAD_LETTERS: dead_letters(session),
                WORKERS_ALIVE: workers,
                WORKER_PROCESSES: processes,
            }
            if engine.dialect.name == "postgresql":
                values[DATABASE_CONNECTIONS] = session.scalar(_CONNECTION_SHARE) or 0.0
        return _readings(values)

    return read


def pace_gauges(
    engine: Engine, interval: timedelta, clock: Callable[[], Clock | None]
) -> Callable[[], Readings]:
    """Reads how the work goes, in one transaction of its own."""

    def read() -> Readings:
        fresh = real_interval(interval, clock() or RealClock()) * MISSED_BEATS
        with transaction(engine) as session:
            waited = oldest_age(session)
            _, processes = workers_alive(session, fresh)
            values: dict[Metric, float] = {
                QUEUE_IN_FLIGHT: in_flight(session),
                QUEUE_OLDEST_AGE: waited.total_seconds(),
                # One that cuts a long recording and transcribes in between holds two leases.
                WORKER_BUSY: min(living_leases(session), processes),
            }
            drain = drain_time(queue_depth(session), finished_chunks(session), waited)
            if drain is not None:
                values[QUEUE_DRAIN_TIME] = drain.total_seconds()
        return _readings(values)

    return read


def _readings(values: dict[Metric, float]) -> Readings:
    return {metric: [Reading(value=value, labels={})] for metric, value in values.items()}


def broker_gauges(client: redis.Redis) -> Callable[[], Readings]:
    """Reads what Redis holds; a diagnostic, no policy hangs on it."""

    def read() -> Readings:
        return {
            QUEUE_BROKER: [
                Reading(value=waiting_count(client), labels={"state": "waiting"}),
                Reading(value=unacknowledged_count(client), labels={"state": "unacked"}),
            ]
        }

    return read
