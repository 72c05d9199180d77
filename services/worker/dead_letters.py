"""Work that was begun as often as allowed and never finished: set aside, looked at, tried again.

Work that kills its worker would otherwise kill every worker, for ever. Its recording fails, its
other chunks are not transcribed for nobody, and a row of `dead_letters` waits for a decision.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Engine, and_, select, update
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
    transaction,
)
from speakfit.errors import SpeakFitError
from speakfit.jobs import ATTEMPTS, PREPARE, TRANSCRIBE, retry

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


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter, and how its recording stands now."""

    id: int
    task: str
    recording_id: uuid.UUID
    chunk_index: int | None
    attempts: int
    error: str
    died_at: datetime
    settled_at: datetime | None
    recording_status: str
    recording_error: str | None
    """The code that its caller sees."""
    start_seconds: float | None
    """Where in the recording the chunk lies; None for a whole recording."""
    end_seconds: float | None


def list_letters(engine: Engine, *, settled: bool = False) -> list[Letter]:
    """Those that wait for a decision, the oldest first; with `settled` the others too."""
    with transaction(engine) as session:
        return _letters(session, [] if settled else [DeadLetter.settled_at.is_(None)])


def show_letter(engine: Engine, letter_id: int) -> Letter:
    """One of them; a SpeakFitError when there is none."""
    with transaction(engine) as session:
        return _one(session, letter_id)


def retry_letters(engine: Engine, ids: Sequence[int] | None = None) -> list[Letter]:
    """Try their recordings again from the beginning, None for all that wait; what was settled.

    Chunks that are transcribed stay so. A letter whose recording goes on already is only settled.
    """
    with transaction(engine) as session:
        chosen = _chosen(session, ids)
        for letter in chosen:
            retry(session, letter.recording_id)
        return _settle(session, chosen)


def drop_letters(engine: Engine, ids: Sequence[int] | None = None) -> list[Letter]:
    """Let them go, None for all that wait: their recordings stay failed."""
    with transaction(engine) as session:
        return _settle(session, _chosen(session, ids))


def _letters(session: Session, where: Sequence[ColumnElement[bool]]) -> list[Letter]:
    rows = session.execute(
        select(
            DeadLetter,
            Recording.status,
            Recording.error_code,
            Chunk.start_seconds,
            Chunk.end_seconds,
        )
        .join(Recording, Recording.id == DeadLetter.recording_id)
        .outerjoin(
            Chunk,
            and_(
                Chunk.recording_id == DeadLetter.recording_id,
                Chunk.index == DeadLetter.chunk_index,
            ),
        )
        .where(*where)
        .order_by(DeadLetter.id)
        .execution_options(populate_existing=True)
    ).tuples()
    return [
        Letter(
            id=letter.id,
            task=letter.task,
            recording_id=letter.recording_id,
            chunk_index=letter.chunk_index,
            attempts=letter.attempts,
            error=letter.error,
            died_at=letter.died_at,
            settled_at=letter.settled_at,
            recording_status=status,
            recording_error=code,
            start_seconds=start,
            end_seconds=end,
        )
        for letter, status, code, start, end in rows
    ]


def _one(session: Session, letter_id: int) -> Letter:
    found = _letters(session, [DeadLetter.id == letter_id])
    if not found:
        raise SpeakFitError(
            "There is no such dead letter.",
            where=f"dead letter {letter_id}",
            todo="`python -m services.worker dead-letters list --settled` lists them all.",
        )
    return found[0]


def _chosen(session: Session, ids: Sequence[int] | None) -> list[Letter]:
    if ids is None:
        return _letters(session, [DeadLetter.settled_at.is_(None)])
    return [_one(session, letter_id) for letter_id in ids]


def _settle(session: Session, letters: Sequence[Letter]) -> list[Letter]:
    ids = [letter.id for letter in letters]
    session.execute(
        update(DeadLetter)
        .where(DeadLetter.id.in_(ids), DeadLetter.settled_at.is_(None))
        .values(settled_at=database_now())
        .execution_options(synchronize_session=False)
    )
    return _letters(session, [DeadLetter.id.in_(ids)])
