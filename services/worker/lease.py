"""Who works on what, and for how long.

A lease is taken on the work whose turn it is, renewed while work goes on, and taken over once it
expires. Results count only from the holder of the lease, so each is stored once however often its
message is delivered. The database's clock judges, so workers' clocks need not agree.

Turns are a count, not a time. Every time work is begun, its caller and its recording get a turn
behind all others; the caller served longest ago is next, and of their recordings the one served
longest ago. So a recording of three hours, or a caller who sends fifty, delays the others by one
chunk each.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Engine,
    and_,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from speakfit.database import (
    Caller,
    Chunk,
    ChunkStatus,
    Recording,
    RecordingStatus,
    database_now,
    transaction,
)
from speakfit.jobs import ATTEMPTS, PREPARE, TRANSCRIBE, Job
from speakfit.wishes import NO_WISHES, Wishes

logger = logging.getLogger(__name__)

UNFINISHED_CHUNK = (ChunkStatus.PENDING, ChunkStatus.LEASED)
UNFINISHED_RECORDING = (RecordingStatus.QUEUED, RecordingStatus.PROCESSING)

_TOKEN = "SPEAKFIT_WORKER_TOKEN"


def begin_worker() -> str:
    """A token that every lease of this worker's processes begins with; call before they start."""
    os.environ[_TOKEN] = token = secrets.token_hex(8)
    return token


def new_owner() -> uuid.UUID:
    """A name for one lease, which begins with this worker's token."""
    return uuid.UUID(hex=os.environ.get(_TOKEN, secrets.token_hex(8)) + secrets.token_hex(8))


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A recording that is ours to cut."""

    recording_id: uuid.UUID
    owner: uuid.UUID
    traceparent: str | None
    duration_seconds: float
    object_key: str | None
    checksum: str
    wishes: Wishes = NO_WISHES


@dataclass(frozen=True, kw_only=True)
class ChunkWork:
    """A chunk that is ours to transcribe."""

    recording_id: uuid.UUID
    index: int
    owner: uuid.UUID
    traceparent: str | None
    start_seconds: float
    end_seconds: float
    wishes: Wishes = NO_WISHES


def _free(table: type[Recording] | type[Chunk]) -> ColumnElement[bool]:
    return or_(table.lease_expires_at.is_(None), table.lease_expires_at < database_now())


def claimable_recording() -> ColumnElement[bool]:
    """Accepted, not wholly cut, and under no living lease."""
    return and_(
        Recording.status.in_(UNFINISHED_RECORDING),
        Recording.speech.is_(None),
        _free(Recording),
    )


def claimable_chunk() -> ColumnElement[bool]:
    """Not finished and under no living lease."""
    return and_(Chunk.status.in_(UNFINISHED_CHUNK), _free(Chunk))


def changed(result: Any) -> bool:
    """Whether an UPDATE found its row."""
    return cast("CursorResult[Any]", result).rowcount > 0


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """The recording whose turn it is."""

    recording_id: uuid.UUID
    caller_id: uuid.UUID | None
    traceparent: str | None
    wishes: Wishes
    owner: uuid.UUID | None
    to_cut: bool
    turn: int
    """The turn it gets when work on it begins: behind all that wait."""


def claim(
    engine: Engine, lease: timedelta, *, cutting: Iterable[Preparation] = ()
) -> Preparation | ChunkWork | None:
    """Take the work whose turn it is; None when nobody's is waiting.

    `cutting` are recordings that this process has begun to cut and holds; when it is the turn of
    one of them it is the answer. A recording is cut before its chunks are transcribed, for other
    processes wait for chunks.
    """
    held = {preparation.owner: preparation for preparation in cutting}
    missed: list[uuid.UUID] = []
    while True:
        with transaction(engine) as session:
            found = _whose_turn(session, list(held), missed)
            if found is None:
                return None
            work = _take(session, found, held, lease)
        if work is not None:
            return work
        # Another process was quicker.
        missed.append(found.recording_id)


def _whose_turn(
    session: Session, held: list[uuid.UUID], missed: list[uuid.UUID]
) -> _Candidate | None:
    to_cut = or_(
        and_(claimable_recording(), Recording.attempts < ATTEMPTS),
        Recording.lease_owner.in_(held),
    )
    to_transcribe = exists().where(
        Chunk.recording_id == Recording.id, Chunk.attempts < ATTEMPTS, claimable_chunk()
    )
    # A recording of no caller takes turns as if it were a caller.
    callers_turn = func.coalesce(Caller.turn, Recording.turn)
    row = session.execute(
        select(
            Recording.id,
            Recording.caller_id,
            Recording.traceparent,
            Recording.options,
            Recording.lease_owner,
            to_cut.label("to_cut"),
        )
        .outerjoin(Caller, Caller.id == Recording.caller_id)
        .where(
            Recording.status.in_(UNFINISHED_RECORDING),
            Recording.id.not_in(missed),
            or_(to_cut, to_transcribe),
        )
        .order_by(callers_turn, Recording.turn, Recording.created_at)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    highest = session.execute(
        select(func.max(Recording.turn), func.max(Caller.turn))
        .select_from(Recording)
        .outerjoin(Caller, Caller.id == Recording.caller_id)
        .where(Recording.status.in_(UNFINISHED_RECORDING))
    ).one()
    return _Candidate(
        recording_id=row.id,
        caller_id=row.caller_id,
        traceparent=row.traceparent,
        wishes=Wishes.of(row.options),
        owner=row.lease_owner,
        to_cut=row.to_cut,
        turn=1 + max(turn or 0 for turn in highest),
    )


def _take(
    session: Session,
    found: _Candidate,
    held: dict[uuid.UUID, Preparation],
    lease: timedelta,
) -> Preparation | ChunkWork | None:
    """Rows are locked in one order everywhere, recording, chunk, caller: nobody waits in a ring."""
    work: Preparation | ChunkWork | None
    if not found.to_cut:
        session.execute(
            update(Recording)
            .where(Recording.id == found.recording_id)
            .values(turn=found.turn)
            .execution_options(synchronize_session=False)
        )
        work = _take_chunk(session, found, lease)
    elif found.owner in held:
        work = held[found.owner]
        mine = update_held(work).values(turn=found.turn)
        work = work if changed(session.execute(mine)) else None
    else:
        work = _take_recording(session, found, lease)
    if work is not None and found.caller_id is not None:
        session.execute(
            update(Caller)
            .where(Caller.id == found.caller_id)
            .values(turn=found.turn)
            .execution_options(synchronize_session=False)
        )
    return work


def _take_recording(session: Session, found: _Candidate, lease: timedelta) -> Preparation | None:
    owner = new_owner()
    row = session.execute(
        update(Recording)
        .where(
            Recording.id == found.recording_id,
            Recording.attempts < ATTEMPTS,
            claimable_recording(),
        )
        .values(
            status=RecordingStatus.PROCESSING,
            attempts=Recording.attempts + 1,
            turn=found.turn,
            lease_owner=owner,
            lease_expires_at=database_now(lease),
        )
        .returning(
            Recording.traceparent,
            Recording.duration_seconds,
            Recording.object_key,
            Recording.checksum,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return Preparation(
        recording_id=found.recording_id,
        owner=owner,
        traceparent=row.traceparent,
        duration_seconds=row.duration_seconds,
        object_key=row.object_key,
        checksum=row.checksum,
        wishes=found.wishes,
    )


def _take_chunk(session: Session, found: _Candidate, lease: timedelta) -> ChunkWork | None:
    owner = new_owner()
    free = and_(
        Chunk.recording_id == found.recording_id, Chunk.attempts < ATTEMPTS, claimable_chunk()
    )
    first = (
        select(Chunk.index)
        .where(free)
        .order_by(Chunk.index)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = session.execute(
        update(Chunk)
        .where(Chunk.recording_id == found.recording_id, Chunk.index == first.scalar_subquery())
        .values(
            status=ChunkStatus.LEASED,
            attempts=Chunk.attempts + 1,
            lease_owner=owner,
            lease_expires_at=database_now(lease),
        )
        .returning(Chunk.index.label("chunk_index"), Chunk.start_seconds, Chunk.end_seconds)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return ChunkWork(
        recording_id=found.recording_id,
        index=row.chunk_index,
        owner=owner,
        traceparent=found.traceparent,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
        wishes=found.wishes,
    )


class Renewal:
    """Renews a lease from a thread every third of its length, until it is stopped or lost.

    CTranslate2 releases the interpreter's lock, so the thread gets its turn while it computes.
    """

    def __init__(self, engine: Engine, work: Preparation | ChunkWork, lease: timedelta) -> None:
        self._engine = engine
        self._work = work
        self._lease = lease
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_on, name="lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another holds the work now, or it was taken back; what we make is discarded."""
        return not self._stop.is_set() and not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _renew_on(self) -> None:
        while not self._stop.wait(self._lease.total_seconds() / 3):
            try:
                if not self._renew():
                    return
            except SQLAlchemyError as error:
                logger.warning("a lease could not be renewed: %s", type(error).__name__)

    def _renew(self) -> bool:
        with transaction(self._engine) as session:
            renewed = update_held(self._work).values(lease_expires_at=database_now(self._lease))
            return changed(session.execute(renewed))


@contextmanager
def renewed(engine: Engine, work: Preparation | ChunkWork, lease: timedelta) -> Iterator[Renewal]:
    """Renew the lease as long as the block runs."""
    renewal = Renewal(engine, work, lease)
    try:
        yield renewal
    finally:
        renewal.stop()


def update_held(work: Preparation | ChunkWork) -> Any:
    """An UPDATE that touches the row only while the lease is ours."""
    if isinstance(work, ChunkWork):
        statement = update(Chunk).where(
            Chunk.recording_id == work.recording_id,
            Chunk.index == work.index,
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


def give_back(engine: Engine, work: Preparation | ChunkWork, *, error: str, forgiven: bool) -> None:
    """End the lease at once, so that others can take the work; `error` is what was met.

    `forgiven` says that the work is not to blame: then it has not used an attempt, even where
    another worker took it over meanwhile and counted its own.
    """
    values: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
    if isinstance(work, ChunkWork):
        values |= {"status": ChunkStatus.PENDING, "error": error}
    else:
        values |= {"error_detail": error}
    with transaction(engine) as session:
        if forgiven:
            session.execute(_one_attempt_less(work))
        session.execute(update_held(work).values(values))


def _one_attempt_less(work: Preparation | ChunkWork) -> Any:
    """An UPDATE that takes one attempt back from work that goes on."""
    if isinstance(work, ChunkWork):
        statement = (
            update(Chunk)
            .where(
                Chunk.recording_id == work.recording_id,
                Chunk.index == work.index,
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
    freed = {"lease_owner": None, "lease_expires_at": None}
    with transaction(engine) as session:
        recordings = session.execute(
            update(Recording)
            .where(
                Recording.lease_owner.between(first, last),
                Recording.status == RecordingStatus.PROCESSING,
            )
            .values(attempts=Recording.attempts - 1, **freed)
            .execution_options(synchronize_session=False)
        )
        chunks = session.execute(
            update(Chunk)
            .where(Chunk.lease_owner.between(first, last), Chunk.status == ChunkStatus.LEASED)
            .values(status=ChunkStatus.PENDING, attempts=Chunk.attempts - 1, **freed)
            .execution_options(synchronize_session=False)
        )
        return sum(cast("CursorResult[Any]", one).rowcount for one in (recordings, chunks))


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
        .where(claimable_chunk(), Recording.status.in_(UNFINISHED_RECORDING))
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
