"""The recordings: accept one, tell how it stands."""

from __future__ import annotations

import math
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from celery import Celery
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Engine, ScalarSelect, bindparam, func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services.api.asked import Asked
from services.api.backlog import HasRoom
from services.api.callers import Reader, Writer
from services.api.description import problem_answers
from services.api.idempotency import Claim, Named, Settlement, answered_once
from services.api.keys import Identity
from services.api.problems import Problem
from services.api.uploads import FIELD, Upload, receive, storage_problems
from speakfit.audio import Probe, probe, too_long
from speakfit.database import (
    Chunk,
    ChunkStatus,
    Recording,
    RecordingStatus,
    database_now,
    lone_read,
    transaction,
)
from speakfit.errors import AudioError
from speakfit.jobs import CHUNK_LENGTH, PREPARE, Job, post
from speakfit.objects import hold_object, put_object
from speakfit.replica import Reads
from speakfit.settings import Settings
from speakfit.store import AudioStore
from speakfit.tracing import traceparent
from speakfit.wishes import NO_WISHES, Wishes

_AUDIO_STATUS = {"not-audio": HTTPStatus.UNSUPPORTED_MEDIA_TYPE}

_UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "wav, mp3, m4a, ogg, flac or webm",
                        }
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the routes need; made once by the application."""

    settings: Settings
    engine: Engine
    reads: Reads
    store: AudioStore
    celery: Celery
    outbox_has_news: threading.Event


class Links(BaseModel):
    """Where to look next."""

    self: str
    transcript: str


class Chunks(BaseModel):
    """How far it is; the total is an estimate until the recording is cut."""

    done: int
    total: int


class Failure(BaseModel):
    """Why a recording failed."""

    code: str
    detail: str


class RecordingView(BaseModel):
    """How a recording stands."""

    id: str
    status: RecordingStatus
    progress: float
    chunks: Chunks
    duration_seconds: float
    content_type: str
    checksum_sha256: str
    error: Failure | None
    created_at: datetime
    finished_at: datetime | None
    links: Links


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_services)]

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=_UPLOAD_FORM,
    response_model=RecordingView,
    responses=problem_answers(409, 413, 415, 422, 507),
)
async def accept(
    request: Request, services: Given, caller: Writer, wishes: Asked, _: HasRoom, key: Named
) -> JSONResponse:
    """Accept audio for transcription; from the 202 on it cannot be lost."""
    upload = await receive(request, services.store, services.settings.max_upload_bytes)

    def create(claim: Claim | None) -> dict[str, Any]:
        return accept_upload(services, caller, upload, claim, wishes)

    try:
        answer = await run_in_threadpool(
            answered_once, services.engine, caller, key,
            route="POST /v1/recordings", payload=f"{upload.checksum} {wishes.stored()}",
            status=HTTPStatus.ACCEPTED, create=create,
        )  # fmt: skip
    finally:
        upload.discard()
    return answer


def accept_upload(
    services: Services,
    caller: Identity,
    upload: Upload,
    settlement: Settlement | None,
    wishes: Wishes = NO_WISHES,
) -> dict[str, Any]:
    """Make a recording of a file that is on the disk, and what the caller is told of it."""
    measured = _measure(upload, services.settings)
    view = None
    while view is None:
        view = _keep(services, caller, upload, measured, wishes, settlement)
    services.outbox_has_news.set()
    return view


def _keep(
    services: Services,
    caller: Identity,
    upload: Upload,
    measured: Probe,
    wishes: Wishes,
    settlement: Settlement | None,
) -> dict[str, Any] | None:
    """Store the audio and its recording; None when a delete of equal audio came between."""
    # What goes wrong from here on leaves at most an unused object, which the sweep removes.
    with storage_problems():
        key = put_object(
            services.engine,
            services.store,
            upload.part,
            checksum=upload.checksum,
            size_bytes=upload.size_bytes,
        )
    with transaction(services.engine) as session:
        if not hold_object(session, key):
            return None
        recording = Recording(
            id=uuid.uuid4(),
            caller_id=caller.caller_id,
            object_key=key,
            options=wishes.stored(),
            content_type=measured.content_type,
            size_bytes=upload.size_bytes,
            checksum=upload.checksum,
            duration_seconds=measured.duration.total_seconds(),
            expected_chunks=max(1, math.ceil(measured.duration / CHUNK_LENGTH)),
            traceparent=traceparent(),
            created_at=database_now(),
        )
        session.add(recording)
        # The outbox row refers to the recording, which must be there first.
        session.flush()
        post(session, Job(task=PREPARE, recording_id=recording.id, traceparent=traceparent()))
        session.flush()
        # Read before the commit: after it nothing may turn the 202 into an error.
        session.refresh(recording)
        answer = view_of(recording, done=0).model_dump(mode="json")
        if settlement is not None:
            settlement.settle(session, HTTPStatus.ACCEPTED, answer)
        return answer


def _measure(upload: Upload, settings: Settings) -> Probe:
    try:
        longest = settings.max_recording_duration.total_seconds()
        measured = probe(upload.part, longest_seconds=longest)
        if measured.duration > settings.max_recording_duration:
            raise too_long(longest)
    except AudioError as error:
        raise Problem(
            _AUDIO_STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY),
            error.code,
            title=error.what,
            detail="Nothing was accepted.",
            todo=error.todo,
        ) from error
    return measured


@router.get("/{recording_id}", responses=problem_answers(404))
def show(recording_id: str, services: Given, caller: Reader) -> RecordingView:
    """How the recording stands and how far it is."""
    asked = {"recording": _known(recording_id), "caller": caller.caller_id}
    with lone_read(services.engine) as session:
        row = session.execute(_STANDING, asked).one_or_none()
        if row is None:
            raise _unknown()
        return view_of(row[0], done=row[1])


def own_recording(session: Session, caller: Identity, recording_id: str) -> Recording:
    """The caller's recording of this id; what belongs to others is as unknown as what is not."""
    recording = session.scalar(select(Recording).where(*_owned(caller, recording_id)))
    if recording is None:
        raise _unknown()
    return recording


def transcribed() -> ScalarSelect[int]:
    """How many chunks of a recording that is selected are done."""
    return (
        select(func.count())
        .select_from(Chunk)
        .where(Chunk.recording_id == Recording.id, Chunk.status == ChunkStatus.DONE)
        .correlate(Recording)
        .scalar_subquery()
    )


# Made once: callers ask this again and again, and making it takes longer than its answer.
_STANDING = select(Recording, transcribed()).where(
    Recording.id == bindparam("recording"), Recording.caller_id == bindparam("caller")
)


def _owned(caller: Identity, recording_id: str) -> tuple[ColumnElement[bool], ...]:
    return (Recording.id == _known(recording_id), Recording.caller_id == caller.caller_id)


def _known(recording_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(recording_id)
    except ValueError:
        raise _unknown() from None


def _unknown() -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        "unknown-recording",
        title="There is no such recording.",
        detail="No recording has this id.",
        todo="Use the id that the upload answered.",
    )


def not_ready(recording: Recording) -> Problem:
    """Why a recording has no transcript."""
    if recording.status == RecordingStatus.FAILED:
        return Problem(
            HTTPStatus.CONFLICT,
            recording.error_code or "failed",
            title="The recording failed, there is no transcript.",
            detail=recording.error_detail or "No reason was kept.",
            todo="Upload a better recording.",
        )
    if recording.status == RecordingStatus.CANCELLED:
        return Problem(
            HTTPStatus.CONFLICT,
            "cancelled",
            title="The recording was cancelled, there is no transcript.",
            detail="Its work was ended before it was completed.",
            todo="Have it tried again: POST to its /retry.",
        )
    return Problem(
        HTTPStatus.CONFLICT,
        "not-completed",
        title="The transcript is not ready.",
        detail=f"The recording is {recording.status}.",
        todo="Ask for the recording until its status is completed.",
        headers={"Retry-After": "1"},
    )


def view_of(recording: Recording, *, done: int) -> RecordingView:
    """What callers see of a recording."""
    total = recording.expected_chunks
    path = f"/v1/recordings/{recording.id}"
    failed = recording.status == RecordingStatus.FAILED
    return RecordingView(
        id=str(recording.id),
        status=RecordingStatus(recording.status),
        progress=round(done / total, 3) if total else 0.0,
        chunks=Chunks(done=done, total=total),
        duration_seconds=round(recording.duration_seconds, 3),
        content_type=recording.content_type,
        checksum_sha256=recording.checksum,
        error=Failure(code=recording.error_code or "failed", detail=recording.error_detail or "")
        if failed
        else None,
        created_at=recording.created_at,
        finished_at=recording.finished_at,
        links=Links(self=path, transcript=path + "/transcript"),
    )
