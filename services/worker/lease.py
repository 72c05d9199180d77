"""Who works on what, for how long, and what becomes of it: every write to a unit of work.

A lease is taken, renewed while work goes on, and taken over once it expires. Results count only
from the holder of the lease, so each is stored once however often its message is delivered. The
database's clock judges, so workers' clocks need not agree.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Engine, and_, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from speakfit.database import (
    Chunk,
    ChunkStatus,
    Recording,
    RecordingStatus,
    database_now,
    transaction,
)
from speakfit.jobs import ATTEMPTS, PREPARE, TRANSCRIBE, Job, post

logger = logging.getLogger(__name__)

UNFINISHED_CHUNK = (ChunkStatus.PENDING, ChunkStatus.LEASED)
UNFINISHED_RECORDING = (RecordingStatus.QUEUED, RecordingStatus.PROCESSING)

_TOKEN = "SPEAKFIT_WORKER_TOKEN"


def begin_worker() -> str:
    """A token that every lease of this worker's processes begins with; call before they start."""
    os.environ[_TOKEN] = token = secrets.token_hex(8)
    return token


def _new_owner() -> uuid.UUID:
    return uuid.UUID(hex=os.environ.get(_TOKEN, secrets.token_hex(8)) + secrets.token_hex(8))


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A recording that is ours to prepare."""

    recording_id: uuid.UUID
    owner: uuid.UUID
    traceparent: str | None
    duration_seconds: float


@dataclass(frozen=True, kw_only=True)
class ChunkWork:
    """A chunk that is ours to transcribe."""

    recording_id: uuid.UUID
    index: int
    owner: uuid.UUID
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A chunk of a prepared recording, in seconds."""

    start_seconds: float
    end_seconds: float


def _free(table: type[Recording] | type[Chunk]) -> ColumnElement[bool]:
    return or_(table.lease_expires_at.is_(None), table.lease_expires_at < database_now())


def claimable_recording() -> ColumnElement[bool]:
    """Accepted, not prepared, and under no living lease."""
    return and_(
        Recording.status.in_(UNFINISHED_RECORDING),
        Recording.speech.is_(None),
        _free(Recording),
    )


def claimable_chunk() -> ColumnElement[bool]:
    """Not finished and under no living lease."""
    return and_(Chunk.status.in_(UNFINISHED_CHUNK), _free(Chunk))


def _this_chunk(recording_id: uuid.UUID, index: int) -> ColumnElement[bool]:
    return and_(Chunk.recording_id == recording_id, Chunk.index == index)


def _changed(result: Any) -> bool:
    return cast("CursorResult[Any]", result).rowcount > 0


def claim_recording(
    engine: Engine, recording_id: uuid.UUID, lease: timedelta
) -> Preparation | None:
    """Take a recording to prepare; None when another holds it or nothing is left to do."""
    owner = _new_owner()
    with transaction(engine) as session:
        row = session.execute(
            update(Recording)
            .where(
                Recording.id == recording_id,
                Recording.attempts < ATTEMPTS,
                claimable_recording(),
            )
            .values(
                status=RecordingStatus.PROCESSING,
                attempts=Recording.attempts + 1,
                lease_owner=owner,
                lease_expires_at=database_now(lease),
            )
            .returning(Recording.traceparent, Recording.duration_seconds)
            .execution_options(synchronize_session=False)
        ).one_or_none()
    if row is None:
        return None
    return Preparation(
        recording_id=recording_id,
        owner=owner,
        traceparent=row.traceparent,
        duration_seconds=row.duration_seconds,
    )


def claim_chunk(
    engine: Engine, recording_id: uuid.UUID, index: int, lease: timedelta
) -> ChunkWork | None:
    """Take a chunk to transcribe; None when another holds it or nothing is left to do."""
    owner = _new_owner()
    with transaction(engine) as session:
        row = session.execute(
            update(Chunk)
            .where(
                _this_chunk(recording_id, index),
                Chunk.attempts < ATTEMPTS,
                claimable_chunk(),
            )
            .values(
                status=ChunkStatus.LEASED,
                attempts=Chunk.attempts + 1,
                lease_owner=owner,
                lease_expires_at=database_now(lease),
            )
            .returning(Chunk.start_seconds, Chunk.end_seconds)
            .execution_options(synchronize_session=False)
        ).one_or_none()
    if row is None:
        return None
    return ChunkWork(
        recording_id=recording_id,
        index=index,
        owner=owner,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
    )


@contextmanager
def renewed(engine: Engine, work: Preparation | ChunkWork, lease: timedelta) -> Iterator[None]:
    """Renew the lease from a thread every third of its length, as long as the block runs.

    CTranslate2 releases the interpreter's lock, so the thread gets its turn while it computes.
    """
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(lease.total_seconds() / 3):
            try:
                if not _renew(engine, work, lease):
                    # Another worker has it; what we make will be discarded when stored.
                    return
            except SQLAlchemyError as error:
                logger.warning("a lease could not be renewed: %s", type(error).__name__)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _renew(engine: Engine, work: Preparation | ChunkWork, lease: timedelta) -> bool:
    with transaction(engine) as session:
        return _changed(session.execute(_held(work).values(lease_expires_at=database_now(lease))))


def _held(work: Preparation | ChunkWork) -> Any:
    """An UPDATE that touches the row only while the lease is ours."""
    if isinstance(work, ChunkWork):
        statement = update(Chunk).where(
            _this_chunk(work.recording_id, work.index),
            Chunk.lease_owner == work.owner,
            Chunk.status == ChunkStatus.LEASED,
        )
    else:
        statement = update(Recording).where(
            Recording.id == work.recording_id,
            Recording.lease_owner == work.owner,
            Recording.status == RecordingStatus.PROCESSING,
        )
    return statement.execution_options(synchronize_session=False)


def give_back(engine: Engine, work: Preparation | ChunkWork, *, forgiven: bool) -> None:
    """End the lease at once, so that the sweep can hand the work out again.

    `forgiven` says that the work is not to blame: then it has not used an attempt, even where
    another worker took it over meanwhile and counted its own.
    """
    values: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
    values["status"] = (
        ChunkStatus.PENDING if isinstance(work, ChunkWork) else RecordingStatus.QUEUED
    )
    with transaction(engine) as session:
        if forgiven:
            session.execute(_one_attempt_less(work))
        session.execute(_held(work).values(values))


def _one_attempt_less(work: Preparation | ChunkWork) -> Any:
    """An UPDATE that takes one attempt back from work that goes on."""
    if isinstance(work, ChunkWork):
        statement = (
            update(Chunk)
            .where(
                _this_chunk(work.recording_id, work.index),
                Chunk.status.in_(UNFINISHED_CHUNK),
                Chunk.attempts > 0,
            )
            .values(attempts=Chunk.attempts - 1)
        )
    else:
        statement = (
            update(Recording)
            .where(
                Recording.id == work.recording_id,
                Recording.status.in_(UNFINISHED_RECORDING),
                Recording.speech.is_(None),
                Recording.attempts > 0,
            )
            .values(attempts=Recording.attempts - 1)
        )
    return statement.execution_options(synchronize_session=False)


def hand_over(engine: Engine, token: str) -> int:
    """Give back, unblamed, all that a stopping worker's processes still hold, and count it."""
    first, last = uuid.UUID(hex=token + "0" * 16), uuid.UUID(hex=token + "f" * 16)
    with transaction(engine) as session:
        chunks = session.execute(
            update(Chunk)
            .where(Chunk.lease_owner.between(first, last), Chunk.status == ChunkStatus.LEASED)
            .values(
                status=ChunkStatus.PENDING,
                attempts=Chunk.attempts - 1,
                lease_owner=None,
                lease_expires_at=None,
            )
            .execution_options(synchronize_session=False)
        )
        recordings = session.execute(
            update(Recording)
            .where(
                Recording.lease_owner.between(first, last),
                Recording.status == RecordingStatus.PROCESSING,
            )
            .values(
                status=RecordingStatus.QUEUED,
                attempts=Recording.attempts - 1,
                lease_owner=None,
                lease_expires_at=None,
            )
            .execution_options(synchronize_session=False)
        )
        return sum(cast("CursorResult[Any]", one).rowcount for one in (chunks, recordings))


def store_preparation(
    engine: Engine, work: Preparation, speech: list[list[float]], cuts: list[Cut]
) -> bool:
    """Keep what was found and ask for the chunks, in one transaction; False when not ours."""
    with transaction(engine) as session:
        mine = session.execute(
            _held(work).values(
                speech=speech,
                expected_chunks=len(cuts),
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        if not _changed(mine):
            return False
        for index, cut in enumerate(cuts):
            session.add(
                Chunk(
                    recording_id=work.recording_id,
                    index=index,
                    start_seconds=cut.start_seconds,
                    end_seconds=cut.end_seconds,
                )
            )
            post(
                session,
                Job(
                    task=TRANSCRIBE,
                    recording_id=work.recording_id,
                    chunk_index=index,
                    traceparent=work.traceparent,
                ),
            )
    return True


def fail_preparation(engine: Engine, work: Preparation, *, code: str, detail: str) -> bool:
    """Give a recording up; False when it is not ours any more."""
    with transaction(engine) as session:
        mine = session.execute(
            _held(work).values(
                status=RecordingStatus.FAILED,
                error_code=code,
                error_detail=detail,
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        return _changed(mine)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What storing a result did."""

    kept: bool
    recording_finished: bool


def store_result(engine: Engine, work: ChunkWork, result: dict[str, Any]) -> Stored:
    """Keep the result while the lease is ours, and complete the recording with its last chunk."""
    with transaction(engine) as session:
        mine = session.execute(
            _held(work).values(
                status=ChunkStatus.DONE,
                result=result,
                error=None,
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        if not _changed(mine):
            return Stored(kept=False, recording_finished=False)
        finished = _complete(session, work.recording_id)
    return Stored(kept=True, recording_finished=finished)


def _complete(session: Session, recording_id: uuid.UUID) -> bool:
    # The lock puts two last chunks in order: the later one sees the earlier one's commit.
    recording = session.scalars(
        select(Recording).where(Recording.id == recording_id).with_for_update()
    ).one()
    unfinished = session.scalar(
        select(func.count())
        .select_from(Chunk)
        .where(Chunk.recording_id == recording_id, Chunk.status.in_(UNFINISHED_CHUNK))
    )
    if unfinished or recording.status != RecordingStatus.PROCESSING:
        return False
    session.execute(
        update(Recording)
        .where(Recording.id == recording_id)
        .values(status=RecordingStatus.COMPLETED, finished_at=database_now())
        .execution_options(synchronize_session=False)
    )
    return True


def fail_exhausted(session: Session) -> list[uuid.UUID]:
    """Give up what was begun too often and never finished; the recordings that failed by it.

    Work that kills its worker would otherwise kill every worker, for ever.
    """
    detail = f"It was begun {ATTEMPTS} times and never finished; the audio may be damaged."
    prepared = session.scalars(
        update(Recording)
        .where(Recording.attempts >= ATTEMPTS, claimable_recording())
        .values(
            status=RecordingStatus.FAILED,
            error_code="preparation-failed",
            error_detail=detail,
            finished_at=database_now(),
        )
        .returning(Recording.id)
        .execution_options(synchronize_session=False)
    ).all()
    poisonous = session.scalars(
        update(Chunk)
        .where(Chunk.attempts >= ATTEMPTS, claimable_chunk())
        .values(status=ChunkStatus.FAILED, error=detail, finished_at=database_now())
        .returning(Chunk.recording_id)
        .execution_options(synchronize_session=False)
    ).all()
    for recording_id in set(poisonous):
        session.execute(
            update(Recording)
            .where(Recording.id == recording_id, Recording.status == RecordingStatus.PROCESSING)
            .values(
                status=RecordingStatus.FAILED,
                error_code="chunk-failed",
                error_detail="A part could not be transcribed. " + detail,
                finished_at=database_now(),
            )
            .execution_options(synchronize_session=False)
        )
        # Nobody will read the rest: it must not count as waiting work.
        session.execute(
            update(Chunk)
            .where(Chunk.recording_id == recording_id, Chunk.status.in_(UNFINISHED_CHUNK))
            .values(
                status=ChunkStatus.FAILED,
                error="Another part of the recording failed.",
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
            .execution_options(synchronize_session=False)
        )
    return [*prepared, *set(poisonous)]


def claimable_jobs(session: Session, limit: int) -> list[Job]:
    """Work that nobody holds, oldest first."""
    recordings = session.execute(
        select(Recording.id, Recording.traceparent)
        .where(claimable_recording())
        .order_by(Recording.created_at)
        .limit(limit)
    ).all()
    chunks = session.execute(
        select(Chunk.recording_id, Chunk.index, Recording.traceparent)
        .join(Recording, Recording.id == Chunk.recording_id)
        .where(claimable_chunk())
        .order_by(Recording.created_at, Chunk.index)
        .limit(limit)
    ).all()
    return [
        *(Job(task=PREPARE, recording_id=r.id, traceparent=r.traceparent) for r in recordings),
        *(
            Job(task=TRANSCRIBE, recording_id=recording, chunk_index=index, traceparent=traceparent)
            for recording, index, traceparent in chunks
        ),
    ][:limit]
