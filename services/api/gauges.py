"""What every API replica reads for the gauges: queue depth, live workers, connections, broker.

Read from PostgreSQL and by every replica, so that the figures are true with all workers dead and
with Redis emptied (docs/decisions.md). Policies reduce over replicas with MAX.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import redis
from sqlalchemy import Engine, case, func, select, text
from sqlalchemy.orm import Session

from speakfit.clock import Clock, RealClock
from speakfit.database import (
    Chunk,
    ChunkStatus,
    Recording,
    RecordingStatus,
    WorkerHeartbeat,
    database_now,
    transaction,
)
from speakfit.jobs import unacknowledged_count, waiting_count
from speakfit.metrics import DATABASE_CONNECTIONS, QUEUE_BROKER, QUEUE_DEPTH, WORKERS_ALIVE, Metric
from speakfit.telemetry import Reading, Readings, real_interval

MISSED_BEATS = 3
"""A worker is dead after this many heartbeat intervals without one."""

_CONNECTION_SHARE = text(
    "SELECT count(*)::float8 / (current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int)"
    " FROM pg_stat_activity WHERE backend_type = 'client backend'"
)

DATABASE_GAUGES: tuple[Metric, ...] = (QUEUE_DEPTH, WORKERS_ALIVE, DATABASE_CONNECTIONS)


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
            Recording.status.in_((RecordingStatus.QUEUED, RecordingStatus.PROCESSING)),
            Recording.speech.is_(None),
        )
    )
    return int(cut or 0) + int(to_come or 0)


def workers_alive(session: Session, fresh: timedelta) -> int:
    """Workers whose heartbeat is younger than `fresh`, by the database's clock."""
    return (
        session.scalar(
            select(func.count())
            .select_from(WorkerHeartbeat)
            .where(WorkerHeartbeat.at > database_now(-fresh))
        )
        or 0
    )


def database_gauges(
    engine: Engine, interval: timedelta, clock: Callable[[], Clock | None]
) -> Callable[[], Readings]:
    """Reads the gauges that PostgreSQL knows, in one transaction."""

    def read() -> Readings:
        fresh = real_interval(interval, clock() or RealClock()) * MISSED_BEATS
        with transaction(engine) as session:
            readings: dict[Metric, list[Reading]] = {
                QUEUE_DEPTH: [Reading(value=queue_depth(session), labels={})],
                WORKERS_ALIVE: [Reading(value=workers_alive(session, fresh), labels={})],
            }
            if engine.dialect.name == "postgresql":
                share = session.scalar(_CONNECTION_SHARE) or 0.0
                readings[DATABASE_CONNECTIONS] = [Reading(value=share, labels={})]
            return readings

    return read


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
