"""The release whose newest revision is 0001: its tables, and what API and worker do to them.

Frozen: it is never changed to fit newer tables. `work` follows one recording from its upload to
its transcript, and another that fails, with every kind of statement that this release makes.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

LEASE = timedelta(seconds=6)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_tables = MetaData()
recordings = Table(
    "recordings",
    _tables,
    Column("id", Uuid, primary_key=True),
    Column("status", String(16)),
    Column("error_code", String(64)),
    Column("error_detail", Text),
    Column("content_type", String(64)),
    Column("size_bytes", BigInteger),
    Column("checksum", String(64)),
    Column("duration_seconds", Float),
    Column("expected_chunks", Integer),
    # Absent is SQL's NULL here, not JSON's.
    Column("speech", JSON(none_as_null=True)),
    Column("traceparent", String(64)),
    Column("lease_owner", Uuid),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("attempts", Integer),
    Column("created_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
)
chunks = Table(
    "chunks",
    _tables,
    Column("recording_id", Uuid, ForeignKey("recordings.id"), primary_key=True),
    Column("chunk_index", Integer, primary_key=True),
    Column("start_seconds", Float),
    Column("end_seconds", Float),
    Column("status", String(16)),
    Column("error", Text),
    Column("lease_owner", Uuid),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("attempts", Integer),
    Column("result", JSON(none_as_null=True)),
    Column("finished_at", DateTime(timezone=True)),
)
outbox = Table(
    "outbox",
    _tables,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("task", String(64)),
    Column("recording_id", Uuid, ForeignKey("recordings.id")),
    Column("chunk_index", Integer),
    Column("traceparent", String(64)),
    Column("created_at", DateTime(timezone=True)),
)
worker_heartbeats = Table(
    "worker_heartbeats",
    _tables,
    Column("worker_id", String(64), primary_key=True),
    Column("started_at", DateTime(timezone=True)),
    Column("at", DateTime(timezone=True)),
    Column("processes", Integer),
)


def work(engine: Engine) -> dict[str, Any]:
    """Do one of everything, and tell what came of it; nothing in the answer is accidental."""
    good, bad = uuid.UUID(int=1), uuid.UUID(int=2)
    for one in (good, bad):
        _accept(engine, one)
    answer: dict[str, Any] = {"sent": [_relay(engine), _relay(engine)], "beat": _beat(engine)}
    answer["uncut"] = _queue_depth(engine)
    answer["prepared"] = [_prepare(engine, good), _prepare(engine, good)]
    answer["depth"] = _queue_depth(engine)
    answer["stored"] = [_transcribe(engine, good, index) for index in (0, 1, 1)]
    answer["recording"] = _complete(engine, good)
    answer["failed"] = _fail(engine, bad)
    answer["done"] = _queue_depth(engine)
    answer["seen"] = _read(engine, good)
    _forget(engine, good, bad)
    return answer


def _accept(engine: Engine, recording: uuid.UUID) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(recordings).values(
                id=recording,
                status="queued",
                content_type="audio/wav",
                size_bytes=960_044,
                checksum="0" * 64,
                duration_seconds=31.5,
                expected_chunks=2,
                attempts=0,
                created_at=NOW,
            )
        )
        connection.execute(
            insert(outbox).values(task="speakfit.prepare", recording_id=recording, created_at=NOW)
        )


def _relay(engine: Engine) -> int:
    with engine.begin() as connection:
        waiting = connection.execute(
            select(outbox).order_by(outbox.c.id).limit(200).with_for_update(skip_locked=True)
        ).all()
        for message in waiting:
            connection.execute(delete(outbox).where(outbox.c.id == message.id))
        return len(waiting)


def _beat(engine: Engine) -> int:
    with engine.begin() as connection:
        known = connection.execute(
            update(worker_heartbeats)
            .where(worker_heartbeats.c.worker_id == "worker")
            .values(at=NOW, processes=2)
            .returning(worker_heartbeats.c.worker_id)
        ).one_or_none()
        if known is None:
            connection.execute(
                insert(worker_heartbeats).values(
                    worker_id="worker", started_at=NOW, at=NOW, processes=2
                )
            )
        alive = select(func.count()).select_from(worker_heartbeats)
        return connection.execute(
            alive.where(worker_heartbeats.c.at > NOW - timedelta(minutes=1))
        ).scalar_one()


def _queue_depth(engine: Engine) -> int:
    with engine.begin() as connection:
        cut = connection.execute(
            select(func.count())
            .select_from(chunks)
            .where(chunks.c.status.in_(("pending", "leased")))
        ).scalar_one()
        uncut = connection.execute(
            select(func.coalesce(func.sum(recordings.c.expected_chunks), 0)).where(
                recordings.c.status.in_(("queued", "processing")), recordings.c.speech.is_(None)
            )
        ).scalar_one()
        return int(cut) + int(uncut)


def _prepare(engine: Engine, recording: uuid.UUID) -> bool:
    owner = uuid.UUID(int=7)
    with engine.begin() as connection:
        claimed = connection.execute(
            update(recordings)
            .where(
                recordings.c.id == recording,
                recordings.c.attempts < 4,
                recordings.c.status.in_(("queued", "processing")),
                recordings.c.speech.is_(None),
                or_(
                    recordings.c.lease_expires_at.is_(None),
                    recordings.c.lease_expires_at < NOW,
                ),
            )
            .values(
                status="processing",
                attempts=recordings.c.attempts + 1,
                lease_owner=owner,
                lease_expires_at=NOW + LEASE,
            )
            .returning(recordings.c.traceparent, recordings.c.duration_seconds)
        ).one_or_none()
        if claimed is None:
            return False
    with engine.begin() as connection:
        connection.execute(
            update(recordings)
            .where(recordings.c.id == recording, recordings.c.lease_owner == owner)
            .values(
                speech=[[0.0, 31.5]], expected_chunks=2, lease_owner=None, lease_expires_at=None
            )
        )
        for index in (0, 1):
            connection.execute(
                insert(chunks).values(
                    recording_id=recording,
                    chunk_index=index,
                    start_seconds=index * 30.0,
                    end_seconds=index * 30.0 + 30.0,
                    status="pending",
                    attempts=0,
                )
            )
            connection.execute(
                insert(outbox).values(
                    task="speakfit.transcribe_chunk",
                    recording_id=recording,
                    chunk_index=index,
                    created_at=NOW,
                )
            )
    return True


def _transcribe(engine: Engine, recording: uuid.UUID, index: int) -> bool:
    owner = uuid.UUID(int=8)
    this = (chunks.c.recording_id == recording, chunks.c.chunk_index == index)
    with engine.begin() as connection:
        claimed = connection.execute(
            update(chunks)
            .where(
                *this,
                chunks.c.attempts < 4,
                chunks.c.status.in_(("pending", "leased")),
                or_(chunks.c.lease_expires_at.is_(None), chunks.c.lease_expires_at < NOW),
            )
            .values(
                status="leased",
                attempts=chunks.c.attempts + 1,
                lease_owner=owner,
                lease_expires_at=NOW + LEASE,
            )
            .returning(chunks.c.start_seconds, chunks.c.end_seconds)
        ).one_or_none()
    if claimed is None:
        return False
    with engine.begin() as connection:
        stored = connection.execute(
            update(chunks)
            .where(*this, chunks.c.lease_owner == owner, chunks.c.status == "leased")
            .values(
                status="done",
                result={"text": f"part {index}"},
                error=None,
                finished_at=NOW,
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        return stored.rowcount == 1


def _complete(engine: Engine, recording: uuid.UUID) -> str:
    with engine.begin() as connection:
        connection.execute(
            select(recordings).where(recordings.c.id == recording).with_for_update()
        ).one()
        connection.execute(
            update(recordings)
            .where(recordings.c.id == recording)
            .values(status="completed", finished_at=NOW)
        )
        return connection.execute(
            select(recordings.c.status).where(recordings.c.id == recording)
        ).scalar_one()


def _fail(engine: Engine, recording: uuid.UUID) -> list[uuid.UUID]:
    with engine.begin() as connection:
        return list(
            connection.execute(
                update(recordings)
                .where(recordings.c.attempts >= 0, recordings.c.status == "queued")
                .values(
                    status="failed",
                    error_code="preparation-failed",
                    error_detail="It was begun 4 times and never finished.",
                    finished_at=NOW,
                )
                .returning(recordings.c.id)
            ).scalars()
        )


def _read(engine: Engine, recording: uuid.UUID) -> dict[str, Any]:
    with engine.begin() as connection:
        row = connection.execute(select(recordings).where(recordings.c.id == recording)).one()
        done = connection.execute(
            select(func.count())
            .select_from(chunks)
            .where(chunks.c.recording_id == recording, chunks.c.status == "done")
        ).scalar_one()
        results = connection.execute(
            select(chunks.c.result)
            .where(chunks.c.recording_id == recording)
            .order_by(chunks.c.chunk_index)
        ).scalars()
        return {**row._mapping, "done": done, "results": list(results)}


def _forget(engine: Engine, *those: uuid.UUID) -> None:
    """Leave nothing, by the cascades that this release relies on."""
    with engine.begin() as connection:
        connection.execute(delete(recordings).where(recordings.c.id.in_(those)))
        connection.execute(delete(worker_heartbeats))
        for table in (chunks, outbox):
            left = connection.execute(select(func.count()).select_from(table)).scalar_one()
            assert left == 0, f"rows of {table.name} outlive their recording"
