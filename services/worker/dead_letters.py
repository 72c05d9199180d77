"""Work that was begun as often as allowed and never finished: set aside, looked at, tried again.

Work that kills its worker would otherwise kill every worker, for ever. Its recording fails, its
other chunks are not transcribed for nobody, and a row of `dead_letters` waits for a decision.
"""

from __future__ import annotations

import uuid

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.worker.lease import claimable_chunk, claimable_recording
from services.worker.results import abandon_chunks
from speakfit.database import (
    Chunk,
    ChunkStatus,
    DeadLetter,
    Recording,
    RecordingStatus,
    database_now,
)
from speakfit.jobs import ATTEMPTS, PREPARE, TRANSCRIBE

AUDIO_MISSING = "The audio is not in the store any more."
"""What an attempt met that found no file."""

_DIED = "The process that worked on it died, or hung and was killed."


def bury_exhausted(session: Session) -> list[uuid.UUID]:
    """Give up what has no attempt left; the recordings that failed by it."""
    failed = _bury_preparations(session)
    poisonous = session.scalars(
        select(Chunk.recording_id)
        .where(Chunk.attempts >= ATTEMPTS, claimable_chunk())
        .distinct()
        .order_by(Chunk.recording_id)
    ).all()
    for recording_id in poisonous:
        if _bury_chunks(session, recording_id):
            failed.append(recording_id)
    return failed


def _bury_preparations(session: Session) -> list[uuid.UUID]:
    buried = session.execute(
        update(Recording)
        .where(Recording.attempts >= ATTEMPTS, claimable_recording())
        .values(
            status=RecordingStatus.FAILED,
            finished_at=database_now(),
            lease_owner=None,
            lease_expires_at=None,
        )
        .returning(Recording.id, Recording.attempts, Recording.error_detail)
        .execution_options(synchronize_session=False)
    ).tuples()
    failed = []
    for recording_id, attempts, error in buried.all():
        _fail(session, recording_id, code="preparation-failed", error=error)
        _bury(session, PREPARE, recording_id, None, attempts, error)
        failed.append(recording_id)
    return failed


def _bury_chunks(session: Session, recording_id: uuid.UUID) -> bool:
    # The recording is locked before its chunks, as everywhere.
    wanted = session.scalar(
        select(Recording.id)
        .where(
            Recording.id == recording_id,
            Recording.status.in_((RecordingStatus.QUEUED, RecordingStatus.PROCESSING)),
        )
        .with_for_update(key_share=True)
    )
    if wanted is None:
        return False
    buried = (
        session.execute(
            update(Chunk)
            .where(
                Chunk.recording_id == recording_id, Chunk.attempts >= ATTEMPTS, claimable_chunk()
            )
            .values(
                status=ChunkStatus.FAILED,
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
            .returning(Chunk.index, Chunk.attempts, Chunk.error)
            .execution_options(synchronize_session=False)
        )
        .tuples()
        .all()
    )
    for index, attempts, error in buried:
        _bury(session, TRANSCRIBE, recording_id, index, attempts, error)
    if buried:
        _fail(session, recording_id, code="chunk-failed", error=buried[0][2])
    return bool(buried)


def _fail(session: Session, recording_id: uuid.UUID, *, code: str, error: str | None) -> None:
    missing = error == AUDIO_MISSING
    detail = f"It was begun {ATTEMPTS} times and never finished; the audio may be damaged."
    if code == "chunk-failed":
        detail = f"A part could not be transcribed. {detail}"
    session.execute(
        update(Recording)
        .where(Recording.id == recording_id)
        .values(
            status=RecordingStatus.FAILED,
            error_code="audio-missing" if missing else code,
            error_detail=AUDIO_MISSING if missing else detail,
            finished_at=database_now(),
            lease_owner=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )
    abandon_chunks(session, recording_id, "Another part of the recording failed.")


def _bury(
    session: Session,
    task: str,
    recording_id: uuid.UUID,
    index: int | None,
    attempts: int,
    error: str | None,
) -> None:
    session.add(
        DeadLetter(
            task=task,
            recording_id=recording_id,
            chunk_index=index,
            attempts=attempts,
            error=error or _DIED,
            died_at=database_now(),
        )
    )
