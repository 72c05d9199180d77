"""Leases on both databases: who may take what, and what is stored."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from services.api.gauges import queue_depth
from services.worker.lease import (
    Cut,
    begin_worker,
    claim_chunk,
    claim_recording,
    claimable_jobs,
    fail_exhausted,
    give_back,
    hand_over,
    renewed,
    store_preparation,
    store_result,
)
from speakfit.database import Chunk, OutboxMessage, Recording, database_now, transaction
from speakfit.jobs import ATTEMPTS

LEASE = timedelta(seconds=60)
GONE = timedelta(seconds=-1)
RESULT = {"language": "en", "segments": []}


def accepted(engine: Engine, expected_chunks: int = 1) -> uuid.UUID:
    recording_id = uuid.uuid4()
    with transaction(engine) as session:
        session.add(
            Recording(
                id=recording_id,
                content_type="audio/wav",
                size_bytes=1,
                checksum="0" * 64,
                duration_seconds=60.0,
                expected_chunks=expected_chunks,
                created_at=database_now(),
            )
        )
    return recording_id


def prepared(engine: Engine, chunks: int) -> uuid.UUID:
    recording_id = accepted(engine)
    work = claim_recording(engine, recording_id, LEASE)
    assert work is not None
    cuts = [Cut(start_seconds=30.0 * i, end_seconds=30.0 * (i + 1)) for i in range(chunks)]
    assert store_preparation(engine, work, [[0.0, 30.0 * chunks]], cuts)
    return recording_id


def status(engine: Engine, recording_id: uuid.UUID) -> str:
    with transaction(engine) as session:
        return session.scalars(select(Recording.status).where(Recording.id == recording_id)).one()


def test_only_one_worker_gets_a_chunk_until_its_lease_expires(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 1)
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is not None
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is None
    with transaction(either_engine) as session:
        session.execute(update(Chunk).values(lease_expires_at=database_now(GONE)))
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is not None


def test_a_result_counts_only_from_the_holder_of_the_lease(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 1)
    slow = claim_chunk(either_engine, recording_id, 0, GONE)
    quick = claim_chunk(either_engine, recording_id, 0, LEASE)
    assert slow is not None
    assert quick is not None
    assert not store_result(either_engine, slow, {"language": "xx", "segments": []}).kept
    assert store_result(either_engine, quick, RESULT).kept
    assert not store_result(either_engine, quick, {"language": "yy", "segments": []}).kept
    with transaction(either_engine) as session:
        assert session.scalars(select(Chunk.result)).one() == RESULT
    assert status(either_engine, recording_id) == "completed"


def test_a_finished_chunk_is_not_handed_out_again(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 2)
    work = claim_chunk(either_engine, recording_id, 0, LEASE)
    assert work is not None
    store_result(either_engine, work, RESULT)
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is None
    assert status(either_engine, recording_id) == "processing"


def test_preparing_makes_chunks_and_their_messages_in_one_transaction(
    either_engine: Engine,
) -> None:
    recording_id = accepted(either_engine)
    late = claim_recording(either_engine, recording_id, GONE)
    holder = claim_recording(either_engine, recording_id, LEASE)
    assert late is not None
    assert holder is not None
    cuts = [Cut(start_seconds=0.0, end_seconds=30.0)]
    assert not store_preparation(either_engine, late, [[0.0, 1.0]], cuts)
    with transaction(either_engine) as session:
        assert session.scalars(select(Chunk)).all() == []
    assert store_preparation(either_engine, holder, [[0.0, 1.0]], cuts)
    with transaction(either_engine) as session:
        assert len(session.scalars(select(Chunk)).all()) == 1
        assert [m.chunk_index for m in session.scalars(select(OutboxMessage))] == [0]


def test_a_renewed_lease_outlives_its_first_length(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 1)
    short = timedelta(milliseconds=300)
    work = claim_chunk(either_engine, recording_id, 0, short)
    assert work is not None

    def expiry() -> object:
        with transaction(either_engine) as session:
            return session.scalars(select(Chunk.lease_expires_at)).one()

    first = expiry()
    from tests.recording_monitoring import until

    with renewed(either_engine, work, short):
        until(lambda: expiry() != first, what="a renewal")


def test_what_is_given_back_can_be_taken_at_once(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 1)
    work = claim_chunk(either_engine, recording_id, 0, LEASE)
    assert work is not None
    give_back(either_engine, work, forgiven=False)
    with transaction(either_engine) as session:
        assert [job.chunk_index for job in claimable_jobs(session, 10)] == [0]
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is not None


def test_trouble_that_is_not_the_works_fault_uses_no_attempt(either_engine: Engine) -> None:
    recording_id = accepted(either_engine)
    for _ in range(ATTEMPTS + 1):
        preparation = claim_recording(either_engine, recording_id, LEASE)
        assert preparation is not None
        give_back(either_engine, preparation, forgiven=True)
        assert status(either_engine, recording_id) == "queued"
    recording_id = prepared(either_engine, 1)
    for _ in range(ATTEMPTS + 1):
        # The database was away until the lease ran out and another took the work over.
        late = claim_chunk(either_engine, recording_id, 0, GONE)
        other = claim_chunk(either_engine, recording_id, 0, LEASE)
        assert late is not None
        assert other is not None
        give_back(either_engine, late, forgiven=True)
        give_back(either_engine, other, forgiven=True)
    with transaction(either_engine) as session:
        assert fail_exhausted(session) == []
        assert session.scalars(select(Chunk.attempts)).all() == [0]


def test_a_stopping_worker_hands_over_what_is_its_own_and_nothing_else(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEAKFIT_WORKER_TOKEN", "0" * 16)
    recording_id = prepared(either_engine, 2)
    waiting = accepted(either_engine)
    token = begin_worker()
    assert claim_chunk(either_engine, recording_id, 0, LEASE) is not None
    assert claim_recording(either_engine, waiting, LEASE) is not None
    begin_worker()
    other = claim_chunk(either_engine, recording_id, 1, LEASE)
    assert other is not None
    assert hand_over(either_engine, token) == 2
    with transaction(either_engine) as session:
        rows = session.execute(select(Chunk.status, Chunk.attempts).order_by(Chunk.index)).all()
        assert [tuple(row) for row in rows] == [("pending", 0), ("leased", 1)]
        assert session.get_one(Recording, waiting).attempts == 0
    assert claim_recording(either_engine, waiting, LEASE) is not None
    assert store_result(either_engine, other, RESULT).kept


def test_a_chunk_that_kills_its_workers_fails_its_recording_in_the_end(
    either_engine: Engine,
) -> None:
    recording_id = prepared(either_engine, 3)
    for _ in range(ATTEMPTS):
        assert claim_chunk(either_engine, recording_id, 1, GONE) is not None
    assert claim_chunk(either_engine, recording_id, 1, LEASE) is None
    with transaction(either_engine) as session:
        assert fail_exhausted(session) == [recording_id]
    with transaction(either_engine) as session:
        recording = session.get_one(Recording, recording_id)
        assert (recording.status, recording.error_code) == ("failed", "chunk-failed")
        assert queue_depth(session) == 0
        assert claimable_jobs(session, 10) == []


def test_queue_depth_counts_what_no_worker_has_looked_at_yet(either_engine: Engine) -> None:
    accepted(either_engine, expected_chunks=7)
    prepared(either_engine, 2)
    with transaction(either_engine) as session:
        assert queue_depth(session) == 9
