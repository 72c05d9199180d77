"""Idempotency-Key: a request that is sent again gets the first one's answer, and does nothing.

draft-ietf-httpapi-idempotency-key-header: 409 while the first is being worked on, 422 when the
same key comes with another payload. The answer is stored in the transaction that creates what it
tells of. So whatever dies in between, there is one recording or none, and never two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.api.keys import Identity
from services.api.problems import Problem
from speakfit.database import IdempotencyKey, database_now, transaction

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
"""An answer that carries it is an earlier one's."""
_LOCK = timedelta(minutes=2)
"""A request that takes longer has died with its process."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Settlement(Protocol):
    """What has to be kept together with an answer."""

    def settle(self, session: Session, status: HTTPStatus, answer: dict[str, Any]) -> None:
        """Keep it, in the transaction that makes the answer true; what it raises undoes that."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to answer a key; only its holder's answer is kept."""

    caller: Identity
    key: str
    until: datetime

    def settle(self, session: Session, status: HTTPStatus, answer: dict[str, Any]) -> None:
        """Keep the answer, in the transaction that makes it true.

        Raises a Problem, and so undoes that transaction, when another request took the key over.
        """
        kept = session.scalars(
            update(IdempotencyKey)
            .where(*self._mine())
            .values(status_code=int(status), answer=answer)
            .returning(IdempotencyKey.key)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if kept is None:
            raise _in_progress()

    def release(self, engine: Engine) -> None:
        """Nothing was created: the same key may be tried again at once."""
        with transaction(engine) as session:
            session.execute(
                delete(IdempotencyKey)
                .where(*self._mine(), IdempotencyKey.status_code.is_(None))
                .execution_options(synchronize_session=False)
            )

    def _mine(self) -> tuple[Any, ...]:
        return (
            IdempotencyKey.caller_id == self.caller.caller_id,
            IdempotencyKey.key == self.key,
            IdempotencyKey.locked_until == self.until,
        )


async def _read_key(
    _declared: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="Names the request, so that sent again it is answered and not repeated.",
        ),
    ] = None,
    *,
    request: Request,
) -> str | None:
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid-idempotency-key",
            title="The Idempotency-Key cannot be used.",
            detail="It is one header of 1 to 255 visible ASCII characters.",
            todo="Send a UUID, a new one for each thing to create.",
        )
    return given[0]


Named = Annotated[str | None, Depends(_read_key)]
"""For a route that creates: the key that the request brought, None when it brought none."""


def claim(
    engine: Engine, caller: Identity, key: str, *, route: str, payload: str
) -> Claim | JSONResponse:
    """The right to answer this request, or the answer that was given before.

    Raises a Problem when it is being worked on (409) or was another request (422).
    """
    fingerprint = hashlib.sha256(f"{route}\n{payload}".encode()).hexdigest()
    with transaction(engine) as session:
        insert = (
            postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        )
        until = session.scalars(
            insert(IdempotencyKey)
            .values(
                caller_id=caller.caller_id,
                key=key,
                fingerprint=fingerprint,
                created_at=database_now(),
                locked_until=database_now(_LOCK),
            )
            .on_conflict_do_nothing()
            .returning(IdempotencyKey.locked_until)
        ).one_or_none()
        if until is not None:
            return Claim(caller=caller, key=key, until=until)
        known = session.scalars(
            select(IdempotencyKey)
            .where(IdempotencyKey.caller_id == caller.caller_id, IdempotencyKey.key == key)
            .with_for_update()
        ).one_or_none()
        if known is None:
            # Released this very moment.
            raise _in_progress()
        if known.fingerprint != fingerprint:
            raise _another_payload()
        if known.status_code is not None:
            return _response(known.status_code, known.answer or {}, {REPLAYED: "true"})
        taken = session.scalars(
            update(IdempotencyKey)
            .where(
                IdempotencyKey.caller_id == caller.caller_id,
                IdempotencyKey.key == key,
                IdempotencyKey.locked_until < database_now(),
            )
            .values(locked_until=database_now(_LOCK))
            .returning(IdempotencyKey.locked_until)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if taken is None:
            raise _in_progress()
        return Claim(caller=caller, key=key, until=taken)


def answered_once(
    engine: Engine,
    caller: Identity,
    key: str | None,
    *,
    route: str,
    payload: str,
    status: HTTPStatus,
    create: Callable[[Claim | None], dict[str, Any]],
) -> JSONResponse:
    """Create and answer; or answer as before, when the key was answered before.

    `create` settles the claim in its transaction. What it raises leaves the key free.
    """
    held = None if key is None else claim(engine, caller, key, route=route, payload=payload)
    if isinstance(held, JSONResponse):
        return held
    try:
        answer = create(held)
    except BaseException:
        if held is not None:
            with suppress(SQLAlchemyError):
                held.release(engine)
        raise
    return _response(status, answer)


def _response(
    status: int, answer: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    location = {"Location": answer["links"]["self"]}
    return JSONResponse(answer, status_code=status, headers={**location, **(headers or {})})


def _in_progress() -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "request-in-progress",
        title="The same request is being worked on.",
        detail="Another request with this Idempotency-Key has not been answered yet.",
        todo="Send it again in some seconds; it will be answered, not repeated.",
        headers={"Retry-After": "2"},
    )


def _another_payload() -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        title="The Idempotency-Key belongs to another request.",
        detail="It was sent before with another payload or to another address.",
        todo="Use a new key for each thing to create.",
    )
