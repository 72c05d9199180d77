"""Uploads beyond what one request may carry: an address for the file, then a recording of it.

The caller announces a file, puts it to a signed address, and says that it is there. The address is
the bucket's own where audio is kept in one, so that the file passes the API by; else it is ours.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services.api.asked import Asked
from services.api.backlog import HasRoom
from services.api.callers import OPEN, Reader, Writer
from services.api.description import problem_answers
from services.api.idempotency import Claim, Named, answered_once
from services.api.keys import Identity
from services.api.problems import Problem
from services.api.recordings import Given, RecordingView, Services, accept_upload, show
from services.api.signing import Permit
from services.api.uploads import Upload, receive_bytes, storage_problems, too_large
from speakfit.database import UploadSession, database_now, transaction
from speakfit.errors import StoreError
from speakfit.store import LocalStore, Target, checksum_of, staging_key
from speakfit.wishes import Wishes

LASTS = timedelta(hours=1)
"""How long an address may be used, and what was put there be completed."""

_TURN = timedelta(seconds=10)
_LARGEST_INTEGER = 2**53 - 1
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


class UploadRequest(BaseModel):
    """The file that is to come."""

    model_config = ConfigDict(extra="forbid")

    size_bytes: int = Field(ge=1, le=_LARGEST_INTEGER)
    checksum_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """When it is given, other bytes are refused."""


class TargetView(BaseModel):
    """Where the file goes: send exactly this, and the file as body."""

    method: str
    url: str
    headers: dict[str, str]


class UploadLinks(BaseModel):
    """Where to go on."""

    self: str
    complete: str


class UploadView(BaseModel):
    """How an upload stands."""

    id: str
    size_bytes: int
    checksum_sha256: str | None
    created_at: datetime
    expires_at: datetime
    recording: str | None
    """Address of the recording it became."""
    links: UploadLinks


class NewUploadView(UploadView):
    """An upload, and where its file goes; whoever has the address may use it."""

    target: TargetView


class _TakenError(Exception):
    """Another request completed the upload, or it was forgotten meanwhile."""


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=NewUploadView,
    responses=problem_answers(409, 413, 422),
)
def create(
    asked: UploadRequest, request: Request, services: Given, caller: Writer, _: HasRoom, key: Named
) -> JSONResponse:
    """Announce a file of up to MAX_SIGNED_UPLOAD_BYTES and get the address that takes it."""
    limit = services.settings.max_signed_upload_bytes
    if asked.size_bytes > limit:
        raise too_large(limit)
    return answered_once(
        services.engine,
        caller,
        key,
        route="POST /v1/uploads",
        payload=asked.model_dump_json(),
        status=HTTPStatus.CREATED,
        create=lambda claim: _announce(asked, request, services, caller, claim),
    )


def _announce(
    asked: UploadRequest,
    request: Request,
    services: Services,
    caller: Identity,
    claim: Claim | None,
) -> dict[str, Any]:
    upload_id = uuid.uuid4()
    with storage_problems():
        target = services.store.sign(
            staging_key(upload_id), size_bytes=asked.size_bytes, lasts=LASTS
        )
    with transaction(services.engine) as session:
        upload = UploadSession(
            id=upload_id,
            caller_id=caller.caller_id,
            size_bytes=asked.size_bytes,
            checksum=asked.checksum_sha256,
            created_at=database_now(),
            expires_at=database_now(LASTS),
        )
        session.add(upload)
        session.flush()
        session.refresh(upload)
        given = target or _own_target(services, request, upload)
        answer = NewUploadView(
            **_view(upload).model_dump(),
            target=TargetView(method="PUT", url=given.url, headers=given.headers),
        ).model_dump(mode="json")
        if claim is not None:
            claim.settle(session, HTTPStatus.CREATED, answer)
        return answer


def _own_target(services: Services, request: Request, upload: UploadSession) -> Target:
    assert isinstance(services.store, LocalStore)
    permit = Permit.until(upload.id, upload.expires_at)
    with storage_problems():
        signature = permit.sign(services.store.secret())
    address = request.url_for("put_content", upload_id=str(upload.id))
    url = address.include_query_params(expires=permit.expires, signature=signature)
    return Target(url=str(url), headers={})


@router.get("/{upload_id}", responses=problem_answers(404))
def show_upload(upload_id: str, services: Given, caller: Reader) -> UploadView:
    """How an upload stands; it is forgotten some time after it has expired."""
    with transaction(services.engine) as session:
        return _view(_own(session, caller, upload_id)[0])


@router.put(
    "/{upload_id}/content",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra={**OPEN, **_FILE},
    responses=problem_answers(403, 404, 410, 412, 413, 422, 507),
)
async def put_content(
    upload_id: str,
    request: Request,
    services: Given,
    expires: Annotated[int, Query(ge=0, le=_LARGEST_INTEGER)],
    signature: Annotated[str, Query(max_length=64)],
) -> None:
    """Take an announced file; the address is the proof, where the store has none of its own."""
    size_bytes = await run_in_threadpool(_admit, services, upload_id, expires, signature)
    part = await receive_bytes(request, services.store, size_bytes)
    try:
        await run_in_threadpool(_stage, services, uuid.UUID(upload_id), part)
    finally:
        part.unlink(missing_ok=True)


def _admit(services: Services, upload_id: str, expires: int, signature: str) -> int:
    """How many bytes the address takes; a Problem when it takes none."""
    store = services.store
    try:
        permit = Permit(upload_id=uuid.UUID(upload_id), expires=expires)
    except ValueError:
        raise _forged() from None
    if not isinstance(store, LocalStore):
        raise _unknown()
    with storage_problems():
        if not permit.proven_by(signature, store.secret()):
            raise _forged()
    with transaction(services.engine) as session:
        row = session.execute(
            select(UploadSession, UploadSession.expires_at <= database_now()).where(
                UploadSession.id == permit.upload_id
            )
        ).one_or_none()
        if row is None:
            raise _unknown()
        upload, expired = row
        if expired:
            raise _expired()
        if upload.recording_id is not None or store.holds(staging_key(upload.id)):
            raise _taken_before()
        size_bytes: int = upload.size_bytes
        return size_bytes


def _stage(services: Services, upload_id: uuid.UUID, part: Path) -> None:
    assert isinstance(services.store, LocalStore)
    with storage_problems():
        if not services.store.put_once(part, staging_key(upload_id)):
            raise _taken_before()


@router.post(
    "/{upload_id}/complete",
    status_code=HTTPStatus.ACCEPTED,
    response_model=RecordingView,
    responses=problem_answers(404, 409, 410, 415, 422, 507),
)
def complete(
    upload_id: str, services: Given, caller: Writer, wishes: Asked, _: HasRoom
) -> JSONResponse:
    """Make a recording of the file that was put; sent again, it tells of the same recording."""
    with transaction(services.engine) as session:
        upload, expired = _own(session, caller, upload_id)
        if upload.recording_id is None and expired:
            raise _expired()
    answer = _accept(services, caller, upload, wishes) if upload.recording_id is None else None
    if answer is None:
        became = _became(services, caller, upload_id)
        answer = show(str(became), services, caller).model_dump(mode="json")
    return JSONResponse(
        answer,
        status_code=HTTPStatus.ACCEPTED,
        headers={"Location": answer["links"]["self"]},
    )


@dataclass(frozen=True, kw_only=True)
class _Becoming:
    """Notes what an upload became, together with the recording: there is never a second one."""

    upload_id: uuid.UUID

    def settle(self, session: Session, status: HTTPStatus, answer: dict[str, Any]) -> None:
        if not session.scalars(
            update(UploadSession)
            .where(UploadSession.id == self.upload_id, UploadSession.recording_id.is_(None))
            .values(recording_id=uuid.UUID(answer["id"]))
            .returning(UploadSession.id)
            .execution_options(synchronize_session=False)
        ).one_or_none():
            raise _TakenError


def _accept(
    services: Services, caller: Identity, upload: UploadSession, wishes: Wishes
) -> dict[str, Any] | None:
    """The recording; None when another request has made it, or there is no file."""
    becoming = _Becoming(upload_id=upload.id)
    try:
        with storage_problems(), _staged(services, upload) as file:
            answer = accept_upload(services, caller, _checked(file, upload), becoming, wishes)
    except (FileNotFoundError, _TakenError):
        return None
    except Problem as problem:
        if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            # It will never do; so the address is free for another try.
            _clear(services, upload)
        raise
    _clear(services, upload)
    return answer


def _became(services: Services, caller: Identity, upload_id: str) -> uuid.UUID:
    """The recording that an upload is by now; a Problem when there was no file to make one of."""
    with transaction(services.engine) as session:
        recording_id = _own(session, caller, upload_id)[0].recording_id
    if recording_id is None:
        raise _not_there()
    return recording_id


_one_at_a_time = threading.Lock()


@contextmanager
def _staged(services: Services, upload: UploadSession) -> Iterator[Path]:
    """The file; one copy at a time, because the disk of Cloud Run is memory."""
    key = staging_key(upload.id)
    if isinstance(services.store, LocalStore):
        with services.store.staged(key) as file:
            yield file
        return
    if not _one_at_a_time.acquire(timeout=_TURN.total_seconds()):
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "busy",
            title="Other large uploads are being completed.",
            detail="The file is safe; nothing was done with it.",
            todo="Complete it again in some seconds.",
            headers={"Retry-After": "5"},
        )
    try:
        with services.store.staged(key) as file:
            yield file
    finally:
        _one_at_a_time.release()


def _checked(file: Path, upload: UploadSession) -> Upload:
    size_bytes = file.stat().st_size
    if size_bytes != upload.size_bytes:
        raise _other_file(f"It has {size_bytes} bytes; {upload.size_bytes} were announced.")
    checksum = checksum_of(file)
    if upload.checksum not in (None, checksum):
        raise _other_file(f"Its SHA-256 is {checksum}; {upload.checksum} was announced.")
    return Upload(part=file, size_bytes=size_bytes, checksum=checksum)


def _clear(services: Services, upload: UploadSession) -> None:
    """What cannot be removed now goes when the upload has expired."""
    try:
        services.store.remove(staging_key(upload.id))
    except (OSError, StoreError):
        return


def _own(session: Session, caller: Identity, upload_id: str) -> tuple[UploadSession, bool]:
    """The caller's upload of this id and whether it has expired."""
    try:
        known = uuid.UUID(upload_id)
    except ValueError:
        raise _unknown() from None
    row = session.execute(
        select(UploadSession, UploadSession.expires_at <= database_now()).where(
            UploadSession.id == known, UploadSession.caller_id == caller.caller_id
        )
    ).one_or_none()
    if row is None:
        raise _unknown()
    return row[0], row[1]


def _view(upload: UploadSession) -> UploadView:
    path = f"/v1/uploads/{upload.id}"
    became = upload.recording_id
    return UploadView(
        id=str(upload.id),
        size_bytes=upload.size_bytes,
        checksum_sha256=upload.checksum,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        recording=None if became is None else f"/v1/recordings/{became}",
        links=UploadLinks(self=path, complete=f"{path}/complete"),
    )


def _unknown() -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        "unknown-upload",
        title="There is no such upload.",
        detail="No upload has this id.",
        todo="Announce the file: POST to /v1/uploads.",
    )


def _forged() -> Problem:
    return Problem(
        HTTPStatus.FORBIDDEN,
        "invalid-signature",
        title="The address is not one of ours.",
        detail="Its signature does not fit it.",
        todo="Use the address exactly as POST to /v1/uploads gave it.",
    )


def _expired() -> Problem:
    return Problem(
        HTTPStatus.GONE,
        "upload-expired",
        title="The upload has expired.",
        detail=f"An address lasts {LASTS.total_seconds() / 60:g} minutes.",
        todo="Announce the file again: POST to /v1/uploads.",
    )


def _taken_before() -> Problem:
    return Problem(
        HTTPStatus.PRECONDITION_FAILED,
        "already-uploaded",
        title="The address has taken a file already.",
        detail="The file that was put first is kept.",
        todo="Complete the upload, or announce another file.",
    )


def _not_there() -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "not-uploaded",
        title="The file is not there.",
        detail="Nothing was put to the address of this upload, or not all of it.",
        todo="PUT the file to the address, then complete the upload.",
    )


def _other_file(detail: str) -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "other-file",
        title="The file is not the one that was announced.",
        detail=detail,
        todo="PUT the right file to the same address, then complete the upload.",
    )
