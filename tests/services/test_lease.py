"""Leases on both databases: who may take what, in which order, and what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from services.api.gauges import queue_depth
from services.worker.dead_letters import bury_exhausted
from services.worker.lease import (
    ChunkWork,
    Preparation,
    begin_worker,
    claim,
    claimable_jobs,
    give_back,
    hand_over,
    renewed,
)
from services.worker.results import Cut, fail_preparation, store_cuts, store_last_cuts, store_result
from speakfit.database import (
    Caller,
    Chunk,
    DeadLetter,
    OutboxMessage,
    Recording,
    database_now,
    transaction,
)
from speakfit.jobs import ATTEMPTS
from tests.recording_monitoring import until

LEASE = timedelta(seconds=60)
GONE = timedelta(seconds=-1)
RESULT = {"language": "en", "segments": []}


def accepted(
    engine: Engine, expected_chunks: int = 1, caller: uuid.UUID | None = None
) -> uuid.UUID:
    recording_id = uuid.uuid4()
    with transaction(engine) as session:
        session.add(
            Recording(
                id=recording_id,
                caller_id=caller,
                content_type="audio/wav",
                size_bytes=1,
                checksum="0" * 64,
                duration_seconds=30.0 * expected_chunks,
                expected_chunks=expected_chunks,
                created_at=database_now(),
            )
        )
    return recording_id


def a_caller(engine: Engine) -> uuid.UUID:
    caller = uuid.uuid4()
    with transaction(engine) as session:
        session.add(Caller(id=caller, subject=f"key:{caller}", created_at=database_now()))
    return caller


def cuts(indexes: Iterable[int], shift: float = 0.0) -> list[Cut]:
    return [
        Cut(index=i, start_seconds=30.0 * i + shift, end_seconds=30.0 * (i + 1)) for i in indexes
    ]


def claim_recording(engine: Engine, lease: timedelta = LEASE) -> Preparation:
    work = claim(engine, lease)
    assert isinstance(work, Preparation)
    return work


def claim_chunk(engine: Engine, lease: timedelta = LEASE) -> ChunkWork:
    work = claim(engine, lease)
    assert isinstance(work, ChunkWork)
    return work


def cut_wholly(engine: Engine, work: Preparation, chunks: int) -> None:
    """Cut it as a long recording is cut; a single chunk is not kept by who cut it."""
    assert store_cuts(engine, work, cuts(range(chunks)))
    ended = store_last_cuts(engine, work, [], count=chunks, speech=[[0.0, 1.0]], lease=LEASE)
    assert ended.kept
    assert ended.next is None


def prepared(engine: Engine, chunks: int) -> uuid.UUID:
    recording_id = accepted(engine, chunks)
    cut_wholly(engine, claim_recording(engine), chunks)
    return recording_id


def status(engine: Engine, recording_id: uuid.UUID) -> str:
    with transaction(engine) as session:
        return session.scalars(select(Recording.status).where(Recording.id == recording_id)).one()


def rows(engine: Engine) -> list[tuple[int, str, int]]:
    with transaction(engine) as session:
        found = session.execute(
            select(Chunk.index, Chunk.status, Chunk.attempts).order_by(Chunk.index)
        ).tuples()
        return [(index, status, attempts) for index, status, attempts in found]


def finish(engine: Engine, work: ChunkWork) -> None:
    assert store_result(engine, work, RESULT, model="tiny.en").kept


def test_only_one_worker_gets_a_chunk_until_its_lease_expires(either_engine: Engine) -> None:
    prepared(either_engine, 1)
    claim_chunk(either_engine)
    assert claim(either_engine, LEASE) is None
    with transaction(either_engine) as session:
        session.execute(update(Chunk).values(lease_expires_at=database_now(GONE)))
    claim_chunk(either_engine)


def test_a_result_counts_only_from_the_holder_of_the_lease(either_engine: Engine) -> None:
    recording_id = prepared(either_engine, 1)
    slow = claim_chunk(either_engine, GONE)
    quick = claim_chunk(either_engine)
    other = {"language": "xx", "segments": []}
    assert not store_result(either_engine, slow, other, model="base").kept
    finish(either_engine, quick)
    assert not store_result(either_engine, quick, other, model="base").kept
    with transaction(either_engine) as session:
        found = session.execute(select(Chunk.result, Chunk.model)).one()
        assert tuple(found) == (RESULT, "tiny.en")
    assert status(either_engine, recording_id) == "completed"
    assert claim(either_engine, LEASE) is None


def test_chunks_are_there_as_soon_as_they_are_cut_but_complete_nothing(
    either_engine: Engine,
) -> None:
    recording_id = accepted(either_engine, 2)
    late = claim_recording(either_engine, GONE)
    holder = claim_recording(either_engine)
    assert not store_cuts(either_engine, late, cuts([0]))
    assert rows(either_engine) == []
    assert store_cuts(either_engine, holder, cuts([0]))
    with transaction(either_engine) as session:
        assert [m.chunk_index for m in session.scalars(select(OutboxMessage))] == [0]
        assert queue_depth(session) == 2
    finish(either_engine, claim_chunk(either_engine))
    assert status(either_engine, recording_id) == "processing"
    # All that was cut is done when the end is found: nobody else will complete it.
    ended = store_last_cuts(either_engine, holder, [], count=1, speech=[[0.0, 1.0]], lease=LEASE)
    assert ended.recording_finished
    assert status(either_engine, recording_id) == "completed"


def test_the_only_chunk_of_a_short_recording_stays_with_who_cut_it(either_engine: Engine) -> None:
    recording_id = accepted(either_engine)
    holder = claim_recording(either_engine)
    ended = store_last_cuts(
        either_engine, holder, cuts([0]), count=1, speech=[[0.0, 1.0]], lease=LEASE
    )
    assert ended.next is not None
    assert claim(either_engine, LEASE) is None
    with transaction(either_engine) as session:
        assert session.scalars(select(OutboxMessage)).all() == []
    finish(either_engine, ended.next)
    assert status(either_engine, recording_id) == "completed"


def test_cutting_again_keeps_what_stands_and_remakes_what_was_cut_otherwise(
    either_engine: Engine,
) -> None:
    accepted(either_engine, 4)
    first = claim_recording(either_engine, GONE)
    with transaction(either_engine) as session:
        session.execute(update(Recording).values(lease_expires_at=database_now(LEASE)))
    assert store_cuts(either_engine, first, cuts([0, 1, 2]))
    for _ in range(3):
        finish(either_engine, claim_chunk(either_engine))
    with transaction(either_engine) as session:
        session.execute(update(Recording).values(lease_expires_at=database_now(GONE)))
        session.execute(OutboxMessage.__table__.delete())
    # A worker of another release finds the first two cuts alike, the third not.
    second = claim_recording(either_engine)
    assert store_cuts(either_engine, second, [*cuts([0, 1]), *cuts([2], shift=0.5)])
    assert rows(either_engine) == [(0, "done", 1), (1, "done", 1), (2, "pending", 0)]
    with transaction(either_engine) as session:
        assert [m.chunk_index for m in session.scalars(select(OutboxMessage))] == [2]


def test_a_renewed_lease_outlives_its_first_length(either_engine: Engine) -> None:
    prepared(either_engine, 1)
    short = timedelta(milliseconds=300)
    work = claim_chunk(either_engine, short)

    def expiry() -> object:
        with transaction(either_engine) as session:
            return session.scalars(select(Chunk.lease_expires_at)).one()

    first = expiry()
    with renewed(either_engine, work, short) as renewal:
        until(lambda: expiry() != first, what="a renewal")
        with transaction(either_engine) as session:
            session.execute(update(Chunk).values(lease_owner=uuid.uuid4()))
        until(lambda: renewal.lost, what="a lost lease")


def test_what_is_given_back_can_be_taken_at_once(either_engine: Engine) -> None:
    prepared(either_engine, 1)
    give_back(either_engine, claim_chunk(either_engine), error="ValueError", forgiven=False)
    with transaction(either_engine) as session:
        assert [job.chunk_index for job in claimable_jobs(session, 10)] == [0]
    claim_chunk(either_engine)


def test_trouble_that_is_not_the_works_fault_uses_no_attempt(either_engine: Engine) -> None:
    accepted(either_engine)
    for _ in range(ATTEMPTS + 1):
        work = claim_recording(either_engine)
        give_back(either_engine, work, error="OSError", forgiven=True)
    cut_wholly(either_engine, claim_recording(either_engine), 1)
    for _ in range(ATTEMPTS + 1):
        # The database was away until the lease ran out and another took the work over.
        late = claim_chunk(either_engine, GONE)
        other = claim_chunk(either_engine)
        give_back(either_engine, late, error="OSError", forgiven=True)
        give_back(either_engine, other, error="OSError", forgiven=True)
    with transaction(either_engine) as session:
        assert bury_exhausted(session) == []
    assert rows(either_engine) == [(0, "pending", 0)]


def test_an_attempt_that_came_further_is_not_held_against_a_long_recording(
    either_engine: Engine,
) -> None:
    accepted(either_engine, ATTEMPTS + 3)
    for reached in range(1, ATTEMPTS + 3):
        work = claim_recording(either_engine)
        assert store_cuts(either_engine, work, cuts(range(reached)))
        give_back(either_engine, work, error="ValueError", forgiven=False)
        while isinstance(chunk := claim(either_engine, LEASE), ChunkWork):
            finish(either_engine, chunk)
        assert chunk is not None
        give_back(either_engine, chunk, error="OSError", forgiven=True)
    with transaction(either_engine) as session:
        assert bury_exhausted(session) == []


def test_a_stopping_worker_hands_over_what_is_its_own_and_nothing_else(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEAKFIT_WORKER_TOKEN", "0" * 16)
    prepared(either_engine, 2)
    token = begin_worker()
    claim_chunk(either_engine)
    begin_worker()
    other = claim_chunk(either_engine)
    monkeypatch.setenv("SPEAKFIT_WORKER_TOKEN", token)
    waiting = accepted(either_engine)
    claim_recording(either_engine)
    assert hand_over(either_engine, token) == 2
    assert rows(either_engine) == [(0, "pending", 0), (1, "leased", 1)]
    with transaction(either_engine) as session:
        assert session.get_one(Recording, waiting).attempts == 0
    assert {claim(either_engine, LEASE).__class__ for _ in range(2)} == {ChunkWork, Preparation}
    finish(either_engine, other)


def test_a_chunk_that_kills_its_workers_is_a_dead_letter_in_the_end(
    either_engine: Engine,
) -> None:
    recording_id = prepared(either_engine, 3)
    for _ in range(ATTEMPTS):
        assert claim_chunk(either_engine, GONE).index == 0
    assert claim_chunk(either_engine).index == 1
    with transaction(either_engine) as session:
        assert bury_exhausted(session) == [recording_id]
    with transaction(either_engine) as session:
        recording = session.get_one(Recording, recording_id)
        assert (recording.status, recording.error_code) == ("failed", "chunk-failed")
        assert queue_depth(session) == 0
        assert claimable_jobs(session, 10) == []
        letter = session.scalars(select(DeadLetter)).one()
        assert (letter.chunk_index, letter.attempts, letter.settled_at) == (0, ATTEMPTS, None)
    assert claim(either_engine, LEASE) is None


def test_a_refused_recording_leaves_no_chunk_waiting(either_engine: Engine) -> None:
    accepted(either_engine, 3)
    work = claim_recording(either_engine)
    assert store_cuts(either_engine, work, cuts([0, 1]))
    assert fail_preparation(either_engine, work, code="truncated", detail="It is damaged.")
    assert claim(either_engine, LEASE) is None
    with transaction(either_engine) as session:
        assert queue_depth(session) == 0


def served(engine: Engine, turns: int, held: Sequence[Preparation] = ()) -> list[uuid.UUID]:
    """Whose work is done in so many turns; every recording waits with many chunks."""
    order = []
    for _ in range(turns):
        work = claim(engine, LEASE, cutting=held)
        assert work is not None
        order.append(work.recording_id)
        if isinstance(work, ChunkWork):
            finish(engine, work)
    return order


def test_callers_take_turns_and_so_do_the_recordings_of_one(either_engine: Engine) -> None:
    greedy, modest = a_caller(either_engine), a_caller(either_engine)
    long = [accepted(either_engine, 360, greedy) for _ in range(2)]
    for _ in long:
        cut_wholly(either_engine, claim_recording(either_engine), 9)
    modest_long, own_short = (
        accepted(either_engine, 9, modest),
        accepted(either_engine, 1, greedy),
    )
    cut_wholly(either_engine, claim_recording(either_engine), 9)
    order = served(either_engine, 6)
    assert order[1::2] == [modest_long] * 3
    assert sorted(order[0::2], key=str) == sorted([*long, own_short], key=str)


def test_a_long_recording_that_is_being_cut_takes_turns_too(either_engine: Engine) -> None:
    greedy, modest = a_caller(either_engine), a_caller(either_engine)
    long = accepted(either_engine, 360, greedy)
    held = claim_recording(either_engine)
    short = [accepted(either_engine, 1, modest) for _ in range(2)]
    order = served(either_engine, 4, [held])
    assert order == [short[0], long, short[1], long]


def test_callers_who_come_back_at_once_do_not_starve_an_older_one(engine: Engine) -> None:
    patient = a_caller(engine)
    waiting = accepted(engine, 9, patient)
    cut_wholly(engine, claim_recording(engine), 9)
    eager = [a_caller(engine) for _ in range(12)]
    for caller in eager:
        accepted(engine, 1, caller)
    order: list[uuid.UUID] = []
    while order.count(waiting) < 2:
        work = claim(engine, LEASE)
        assert work is not None
        assert len(order) < 40
        order.append(work.recording_id)
        if isinstance(work, Preparation):
            # Who was served sends the next recording at once.
            with transaction(engine) as session:
                caller = session.get_one(Recording, work.recording_id).caller_id
            assert fail_preparation(engine, work, code="no-speech", detail="Silent.")
            accepted(engine, 1, caller)
    assert len(order) == 26, "once among all thirteen, twice in two rounds"


def test_queue_depth_counts_what_no_worker_has_looked_at_yet(either_engine: Engine) -> None:
    prepared(either_engine, 2)
    accepted(either_engine, expected_chunks=7)
    with transaction(either_engine) as session:
        assert queue_depth(session) == 9
