"""What work leaves behind: the cuts of a recording, the words of a chunk, and how both end.

Everything is stored by the holder of the lease or not at all. Cutting the same audio again makes
the same cuts: rows that stand are kept with their results, and from where another release cut
otherwise they are made anew. Rows are locked in one order everywhere, recording, then chunk.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session

from services.worker.lease import (
    UNFINISHED_CHUNK,
    ChunkWork,
    Preparation,
    changed,
    new_owner,
    update_held,
)
from speakfit.database import (
    Chunk,
    ChunkStatus,
    Recording,
    RecordingStatus,
    database_now,
    transaction,
)
from speakfit.jobs import CHUNK_LENGTH, TRANSCRIBE, Job, post


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A chunk of a recording, in seconds."""

    index: int
    start_seconds: float
    end_seconds: float


def finished_chunks(engine: Engine, recording_id: uuid.UUID) -> frozenset[int]:
    """The chunks of an earlier attempt that need no audio any more."""
    with transaction(engine) as session:
        return frozenset(
            session.scalars(
                select(Chunk.index).where(
                    Chunk.recording_id == recording_id, Chunk.status == ChunkStatus.DONE
                )
            )
        )


def store_cuts(engine: Engine, work: Preparation, cuts: Sequence[Cut]) -> bool:
    """Keep some cuts and ask for their transcription, in one transaction; False when not ours."""
    left = max(0.0, work.duration_seconds - cuts[-1].end_seconds)
    expected = cuts[-1].index + 1 + math.ceil(left / CHUNK_LENGTH.total_seconds())
    with transaction(engine) as session:
        if not changed(session.execute(update_held(work).values(expected_chunks=expected))):
            return False
        if _add(session, work, cuts):
            # Whatever ends this attempt, it came further than those before.
            session.execute(update_held(work).values(attempts=1))
    return True


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What storing a recording's last cuts did."""

    kept: bool
    recording_finished: bool = False
    next: ChunkWork | None = None
    """The only chunk of a short recording, which stays with the process that cut it."""


def store_last_cuts(
    engine: Engine,
    work: Preparation,
    cuts: Sequence[Cut],
    *,
    count: int,
    speech: list[list[float]],
    lease: timedelta,
) -> Ended:
    """Keep the last of `count` cuts and what was heard; the recording is wholly cut."""
    with transaction(engine) as session:
        ending = update_held(work).values(
            speech=speech,
            expected_chunks=count,
            error_detail=None,
            lease_owner=None,
            lease_expires_at=None,
        )
        if not changed(session.execute(ending)):
            return Ended(kept=False)
        _forget_from(session, work, count)
        if len(cuts) == count == 1 and (kept := _add_as_ours(session, work, cuts[0], lease)):
            return Ended(kept=True, next=kept)
        _add(session, work, cuts)
        finished = _complete(session, work.recording_id)
    return Ended(kept=True, recording_finished=finished)


def _add(session: Session, work: Preparation, cuts: Sequence[Cut]) -> int:
    """Make the rows and messages that are missing, and count them."""
    missing = _missing(session, work, cuts)
    for cut in missing:
        session.add(_row(work, cut))
        post(
            session,
            Job(
                task=TRANSCRIBE,
                recording_id=work.recording_id,
                chunk_index=cut.index,
                traceparent=work.traceparent,
            ),
        )
    return len(missing)


def _add_as_ours(
    session: Session, work: Preparation, cut: Cut, lease: timedelta
) -> ChunkWork | None:
    if not _missing(session, work, [cut]):
        return None
    ours = ChunkWork(
        recording_id=work.recording_id,
        index=cut.index,
        owner=new_owner(),
        traceparent=work.traceparent,
        start_seconds=cut.start_seconds,
        end_seconds=cut.end_seconds,
        wishes=work.wishes,
    )
    row = _row(work, cut)
    row.status, row.attempts, row.lease_owner = ChunkStatus.LEASED, 1, ours.owner
    session.add(row)
    session.flush()
    session.execute(update_held(ours).values(lease_expires_at=database_now(lease)))
    return ours


def _row(work: Preparation, cut: Cut) -> Chunk:
    return Chunk(
        recording_id=work.recording_id,
        index=cut.index,
        start_seconds=cut.start_seconds,
        end_seconds=cut.end_seconds,
    )


def _missing(session: Session, work: Preparation, cuts: Sequence[Cut]) -> list[Cut]:
    """Those without a row, after rows that were cut otherwise are gone."""
    standing = {
        Cut(index=index, start_seconds=start, end_seconds=end)
        for index, start, end in session.execute(
            select(Chunk.index, Chunk.start_seconds, Chunk.end_seconds).where(
                Chunk.recording_id == work.recording_id,
                Chunk.index.in_([cut.index for cut in cuts]),
            )
        ).tuples()
    }
    missing = [cut for cut in cuts if cut not in standing]
    if missing:
        _forget_from(session, work, missing[0].index)
        return [cut for cut in cuts if cut.index >= missing[0].index]
    return []


def _forget_from(session: Session, work: Preparation, index: int) -> None:
    session.execute(
        delete(Chunk)
        .where(Chunk.recording_id == work.recording_id, Chunk.index >= index)
        .execution_options(synchronize_session=False)
    )


def fail_preparation(engine: Engine, work: Preparation, *, code: str, detail: str) -> bool:
    """Give a recording up and what was cut of it; False when it is not ours any more."""
    with transaction(engine) as session:
        mine = session.execute(
            update_held(work).values(
                status=RecordingStatus.FAILED,
                error_code=code,
                error_detail=detail,
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        if not changed(mine):
            return False
        abandon_chunks(session, work.recording_id, "The rest of the recording cannot be used.")
    return True


def abandon_chunks(session: Session, recording_id: uuid.UUID, reason: str) -> None:
    """Nobody will read the rest of a failed recording: it must not count as waiting work."""
    session.execute(
        update(Chunk)
        .where(Chunk.recording_id == recording_id, Chunk.status.in_(UNFINISHED_CHUNK))
        .values(
            status=ChunkStatus.FAILED,
            error=reason,
            finished_at=database_now(),
            lease_owner=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What storing a result did."""

    kept: bool
    recording_finished: bool = False


def store_result(engine: Engine, work: ChunkWork, result: dict[str, Any], *, model: str) -> Stored:
    """Keep the result while the lease is ours, and complete the recording with its last chunk."""
    with transaction(engine) as session:
        _lock(session, work.recording_id)
        mine = session.execute(
            update_held(work).values(
                status=ChunkStatus.DONE,
                result=result,
                model=model,
                error=None,
                finished_at=database_now(),
                lease_owner=None,
                lease_expires_at=None,
            )
        )
        if not changed(mine):
            return Stored(kept=False)
        finished = _complete(session, work.recording_id)
    return Stored(kept=True, recording_finished=finished)


def _lock(session: Session, recording_id: uuid.UUID) -> None:
    """Put two last chunks in order: the later one sees the earlier one's commit."""
    session.execute(
        select(Recording.id).where(Recording.id == recording_id).with_for_update(key_share=True)
    )


def _complete(session: Session, recording_id: uuid.UUID) -> bool:
    """Complete the recording if it is wholly cut and no chunk is unfinished; the row is locked."""
    unfinished = (
        select(func.count())
        .select_from(Chunk)
        .where(Chunk.recording_id == recording_id, Chunk.status != ChunkStatus.DONE)
    )
    return changed(
        session.execute(
            update(Recording)
            .where(
                Recording.id == recording_id,
                Recording.status == RecordingStatus.PROCESSING,
                Recording.speech.is_not(None),
                unfinished.scalar_subquery() == 0,
            )
            .values(status=RecordingStatus.COMPLETED, finished_at=database_now())
            .execution_options(synchronize_session=False)
        )
    )


def still_wanted(engine: Engine, recording_id: uuid.UUID) -> bool:
    """Whether a recording is there and neither ended nor cancelled."""
    with transaction(engine) as session:
        status = session.scalar(select(Recording.status).where(Recording.id == recording_id))
        return status in (RecordingStatus.QUEUED, RecordingStatus.PROCESSING)
