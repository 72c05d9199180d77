"""What the gauges say of a database with known work in it."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text, update

from services.api.gauges import PACE_OVER, database_gauges, drain_time, pace_gauges
from services.worker.results import store_result
from speakfit.clock import RealClock
from speakfit.database import (
    Chunk,
    DeadLetter,
    Recording,
    WorkerHeartbeat,
    database_now,
    make_engine,
    transaction,
)
from speakfit.jobs import TRANSCRIBE
from speakfit.metrics import POOL_CONNECTIONS, POOL_MAX, POOL_PENDING, Pool
from speakfit.pool import PoolSize, pool_gauges
from tests.recording_monitoring import until
from tests.services.test_lease import RESULT, accepted, claim_chunk, prepared

HOUR = timedelta(hours=1)


def gauges(engine: Engine) -> dict[str, float]:
    found: dict[str, float] = {}
    for gauges_of in (database_gauges, pace_gauges):
        read = gauges_of(engine, timedelta(seconds=30), RealClock)
        found |= {metric.name: readings[0].value for metric, readings in read().items()}
    return found


def test_gauges_tell_what_waits_what_is_held_and_what_was_given_up(either_engine: Engine) -> None:
    idle = gauges(either_engine)
    assert {name: value for name, value in idle.items() if "queue" in name or "worker" in name} == {
        "speakfit.queue.depth": 0,
        "speakfit.queue.in_flight": 0,
        "speakfit.queue.oldest_age": 0.0,
        "speakfit.queue.drain_time": 0.0,
        "speakfit.queue.dead_letters": 0,
        "speakfit.worker.alive": 0,
        "speakfit.worker.processes": 0,
        "speakfit.worker.busy": 0,
    }

    known = prepared(either_engine, 4)
    held = [claim_chunk(either_engine) for _ in range(2)]
    accepted(either_engine, expected_chunks=3)
    assert "speakfit.queue.drain_time" not in gauges(either_engine), "no pace is known yet"
    store_result(either_engine, held[0], RESULT, model="tiny.en")
    with transaction(either_engine) as session:
        session.execute(
            update(Recording).where(Recording.id == known).values(created_at=database_now(-HOUR))
        )
        for settled_at in (None, None, database_now()):
            session.add(
                DeadLetter(
                    task=TRANSCRIBE,
                    recording_id=known,
                    attempts=4,
                    error="It hung.",
                    died_at=database_now(),
                    settled_at=settled_at,
                )
            )
        for worker, at in (("lives", database_now()), ("lives too", database_now()),
                           ("is dead", database_now(-HOUR))):  # fmt: skip
            session.add(
                WorkerHeartbeat(worker_id=worker, started_at=database_now(), at=at, processes=3)
            )
    busy = gauges(either_engine)
    assert busy.pop("speakfit.queue.oldest_age") == pytest.approx(3600, abs=60)
    assert busy.pop("speakfit.database.connections", 0.1) > 0
    assert busy == {
        "speakfit.queue.depth": 6,
        "speakfit.queue.in_flight": 1,
        "speakfit.queue.drain_time": 6 * PACE_OVER.total_seconds(),
        "speakfit.queue.dead_letters": 2,
        "speakfit.worker.alive": 2,
        "speakfit.worker.processes": 6,
        "speakfit.worker.busy": 1,
    }

    with transaction(either_engine) as session:
        session.execute(update(Chunk).values(lease_expires_at=database_now(-HOUR)))
        session.execute(update(Chunk).values(finished_at=database_now(-HOUR)))
        assert session.scalar(select(Chunk.status).where(Chunk.index == 1)) == "leased"
    lost = gauges(either_engine)
    assert lost["speakfit.worker.busy"] == 0, "a dead worker's lease has run out"
    assert lost["speakfit.queue.drain_time"] == 86_400, "one has waited an hour, none was finished"


def test_a_pace_that_is_not_known_is_not_made_up() -> None:
    assert drain_time(0, 0, HOUR) == timedelta(0)
    assert drain_time(7, 0, PACE_OVER - timedelta(seconds=1)) is None
    assert drain_time(7, 0, PACE_OVER) == timedelta(days=1)
    assert drain_time(20, 10, HOUR) == timedelta(minutes=10)
    assert drain_time(10**6, 1, HOUR) == timedelta(days=1)


def test_a_pool_tells_who_has_a_connection_and_who_waits_for_one(engine: Engine) -> None:
    small = make_engine(
        engine.url.render_as_string(hide_password=False), pool=PoolSize(kept=1, more=1)
    )
    read = pool_gauges(small, Pool.API)

    def told() -> dict[str, float]:
        readings = read()
        pending, limit = readings[POOL_PENDING][0], readings[POOL_MAX][0]
        states = {
            one.labels["db.client.connection.state"]: one.value
            for one in readings[POOL_CONNECTIONS]
        }
        return {**states, "pending": pending.value, "max": limit.value}

    with small.connect(), small.connect() as second:

        def ask() -> None:
            with small.connect() as third:
                third.execute(text("SELECT 1"))

        assert told() == {"used": 2, "idle": 0, "pending": 0, "max": 2}
        waiting = threading.Thread(target=ask)
        waiting.start()
        until(lambda: told()["pending"] == 1, what="a thread that waits")
        second.close()
        waiting.join(10)
    assert told()["pending"] == told()["used"] == 0
    assert pool_gauges(make_engine("sqlite://"), Pool.API)() == {}
    small.dispose()
