"""What a caller does with recordings they have: list, cancel, try again, delete."""

from __future__ import annotations

import binascii
import logging
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import delete, literal, select, tuple_
from sqlalchemy.orm import Session

from services.api.backlog import HasRoom
from services.api.callers import Reader, Writer
from services.api.description import problem_answers
from services.api.keys import Identity
from services.api.problems import Problem
from services.api.recordings import (
    Given,
    RecordingView,
    own_recording,
    transcribed,
    view_of,
)
from services.api.uploads import storage_problems
from speakfit.database import Instant, Recording, RecordingStatus, transaction
from speakfit.errors import StoreError
from speakfit.jobs import cancel as cancel_recording
from speakfit.jobs import retry as retry_recording
from speakfit.objects import remove_unused
from speakfit.store import chunk_folder, source_key

LONGEST_PAGE = 100

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])


class RecordingPage(BaseModel):
    """Some recordings of the caller, the newest first."""

    recordings: list[RecordingView]
    next_cursor: str | None
    """Ask with it for what is older; None when nothing is."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The last recording of a page; a page is what is older, whatever comes or goes meanwhile."""

    created_at: datetime
    recording_id: uuid.UUID

    def __str__(self) -> str:
        text = f"{self.created_at.isoformat()} {self.recording_id}"
        return urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises a Problem for what was never a cursor of ours; nothing in it has to be secret."""
        try:
            plain = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
            created_at, _, recording_id = plain.partition(" ")
            parsed = cls(
                created_at=datetime.fromisoformat(created_at),
                recording_id=uuid.UUID(recording_id),
            )
            if parsed.created_at.utcoffset() is None or str(parsed) != text:
                raise ValueError(text)
        except (binascii.Error, ValueError, OverflowError):
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid-cursor",
                title="The cursor is not one of ours.",
                detail="`cursor` must be what a page gave as `next_cursor`.",
                todo="Begin again without a cursor.",
            ) from None
        return parsed


@router.get("", responses=problem_answers(422))
def list_recordings(
    services: Given,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="Recordings a page.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next_cursor` of the page before.")
    ] = None,
    status: Annotated[
        RecordingStatus | None, Query(description="Only those that stand like this.")
    ] = None,
) -> RecordingPage:
    """The caller's recordings, the newest first; may lag behind by DATABASE_REPLICA_MAX_LAG."""
    after = Cursor.parse(cursor) if cursor is not None else None
    return services.reads.run(
        lambda session: _page(session, caller, limit=limit, after=after, status=status)
    )


def _page(
    session: Session,
    caller: Identity,
    *,
    limit: int,
    after: Cursor | None,
    status: RecordingStatus | None,
) -> RecordingPage:
    query = (
        select(Recording, transcribed())
        .where(Recording.caller_id == caller.caller_id)
        .order_by(Recording.created_at.desc(), Recording.id.desc())
        # One more tells whether there is another page.
        .limit(limit + 1)
    )
    if status is not None:
        query = query.where(Recording.status == status)
    if after is not None:
        last = tuple_(
            literal(after.created_at, Instant()), literal(after.recording_id, Recording.id.type)
        )
        query = query.where(tuple_(Recording.created_at, Recording.id) < last)
    rows = session.execute(query).tuples().all()
    page = rows[:limit]
    more = len(rows) > limit
    return RecordingPage(
        recordings=[view_of(recording, done=done) for recording, done in page],
        next_cursor=str(Cursor(created_at=page[-1][0].created_at, recording_id=page[-1][0].id))
        if more
        else None,
    )


@router.post("/{recording_id}/cancel", responses=problem_answers(404, 409))
def cancel(recording_id: str, services: Given, caller: Writer) -> RecordingView:
    """End the work on a recording; its audio stays, so that it can be tried again."""
    with transaction(services.engine) as session:
        recording = own_recording(session, caller, recording_id)
        ended = cancel_recording(session, recording.id)
        session.refresh(recording)
        if not ended and recording.status != RecordingStatus.CANCELLED:
            raise _settled(recording, "cancelled", todo="There is nothing left to cancel.")
        view = _seen(session, recording)
    services.store.remove_chunks(recording.id)
    return view


@router.post(
    "/{recording_id}/retry",
    status_code=HTTPStatus.ACCEPTED,
    responses=problem_answers(404, 409),
)
def retry(recording_id: str, services: Given, caller: Writer, _: HasRoom) -> RecordingView:
    """Work again on a recording that failed or was cancelled; what is transcribed stays."""
    with transaction(services.engine) as session:
        recording = own_recording(session, caller, recording_id)
        if not retry_recording(session, recording.id):
            session.refresh(recording)
            raise _settled(
                recording, "tried again", todo="Only what failed or was cancelled can be."
            )
        session.refresh(recording)
        view = _seen(session, recording)
    services.outbox_has_news.set()
    return view


@router.delete(
    "/{recording_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problem_answers(404),
)
def remove(recording_id: str, services: Given, caller: Writer) -> None:
    """Delete a recording: its audio, its words and the work on it. It cannot be undone."""
    store = services.store
    with transaction(services.engine) as session:
        recording = own_recording(session, caller, recording_id)
        cancel_recording(session, recording.id)
    # A store that is away leaves the recording to be asked for again, not audio without one.
    with storage_problems():
        store.remove_folder(chunk_folder(recording.id))
        if recording.object_key is None:
            store.remove(source_key(recording.id, None))
    with transaction(services.engine) as session:
        session.execute(delete(Recording).where(Recording.id == recording.id))
    if recording.object_key is not None:
        try:
            remove_unused(services.engine, store, recording.object_key)
        except (OSError, StoreError):
            # Nothing refers to it any more: the sweep removes it.
            logger.warning("deleted audio is left to the sweep")


def _seen(session: Session, recording: Recording) -> RecordingView:
    return view_of(
        recording,
        done=session.scalar(select(transcribed()).where(Recording.id == recording.id)) or 0,
    )


def _settled(recording: Recording, what: str, *, todo: str) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "wrong-status",
        title=f"The recording cannot be {what}.",
        detail=f"It is {recording.status}.",
        todo=todo,
    )
