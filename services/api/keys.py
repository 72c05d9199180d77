"""API keys: made, listed, revoked and recognised.

A key reads `sf_ID_SECRET`. The id finds its row; of the secret, 256 random bits, only the SHA-256
is kept: nothing that random needs a slow hash, and nobody who reads the table can use it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Engine, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from speakfit.database import ApiKey, Caller, database_now, transaction
from speakfit.errors import SpeakFitError

_FORM = re.compile(r"sf_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODYS_HASH = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
_LAST_USED_EVERY = timedelta(minutes=1)


class Scope(StrEnum):
    """What a caller may do."""

    READ = "recordings:read"
    WRITE = "recordings:write"


ALL_SCOPES = tuple(Scope)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who calls, and what they may do; a caller is one row of `callers`."""

    caller_id: uuid.UUID
    scopes: frozenset[Scope]


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made; `key` is shown once and is nowhere kept."""

    id: str
    key: str
    name: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class KeyState:
    """What may be told about a key: everything but its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str
    """`active`, `expired` or `revoked`."""


def create_key(
    engine: Engine,
    *,
    name: str,
    scopes: Iterable[Scope] = ALL_SCOPES,
    lifetime: timedelta | None = None,
) -> NewKey:
    """A new key for the caller of this name, who may have several: to rotate, make, then revoke."""
    if not _NAME.fullmatch(name):
        raise SpeakFitError(
            "The name of a caller is 1 to 64 letters, digits, dots, dashes and underscores.",
            where=f"name {name[:80]!r}",
            todo="Name the program that will hold the key, for example `mobile-app`.",
        )
    if lifetime is not None and lifetime <= timedelta(0):
        raise SpeakFitError(
            "A key must live for a while.",
            where=f"expires {lifetime}",
            todo="Give a length such as P90D, or leave it out for a key without an end.",
        )
    granted = tuple(dict.fromkeys(scopes))
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    caller_id = caller_of(engine, f"key:{name}")
    with transaction(engine) as session:
        row = ApiKey(
            id=key_id,
            caller_id=caller_id,
            secret_hash=_hash(secret),
            scopes=list(granted),
            created_at=database_now(),
            expires_at=None if lifetime is None else database_now(ahead=lifetime),
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        return NewKey(
            id=key_id,
            key=f"sf_{key_id}_{secret}",
            name=name,
            scopes=granted,
            expires_at=row.expires_at,
        )


def list_keys(engine: Engine) -> list[KeyState]:
    """Every key there is, oldest first."""
    with transaction(engine) as session:
        now = _now(session)
        rows = session.execute(
            select(ApiKey, Caller.subject).join(Caller).order_by(ApiKey.created_at, ApiKey.id)
        ).all()
    return [_state(row, subject, now) for row, subject in rows]


def revoke_key(engine: Engine, key_id: str) -> KeyState:
    """End a key; doing it again changes nothing. A SpeakFitError when there is none."""
    with transaction(engine) as session:
        session.execute(
            update(ApiKey)
            .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
            .values(revoked_at=database_now())
        )
        found = session.execute(
            select(ApiKey, Caller.subject).join(Caller).where(ApiKey.id == key_id)
        ).one_or_none()
        if found is None:
            raise SpeakFitError(
                "There is no such key.",
                where=f"key {key_id[:32]!r}",
                todo="Take the id, not the key itself, from `python -m services.api keys list`.",
            )
        return _state(found[0], found[1], _now(session))


def identify_key(engine: Engine, shown: str) -> Identity | None:
    """Who shows this key; None when it is unknown, wrong, expired or revoked.

    An unknown id takes the same steps as a known one: a look into the table, a hash and a
    comparison that takes as long wherever two hashes differ.
    """
    form = _FORM.fullmatch(shown)
    if form is None:
        return None
    key_id, secret = form.groups()
    with transaction(engine) as session:
        row = session.get(ApiKey, key_id)
        matches = hmac.compare_digest(_hash(secret), row.secret_hash if row else _NOBODYS_HASH)
        if row is None or not matches:
            return None
        now = _now(session)
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            return None
        _note_use(session, key_id)
        known = {str(scope) for scope in Scope}
        # A newer release may grant what this one does not know.
        scopes = frozenset(Scope(scope) for scope in row.scopes if scope in known)
        return Identity(caller_id=row.caller_id, scopes=scopes)


def caller_of(engine: Engine, subject: str) -> uuid.UUID:
    """The caller of a subject, made when first seen; two who make it at once get the same."""
    for _ in range(2):
        with transaction(engine) as session:
            found = session.scalar(select(Caller.id).where(Caller.subject == subject))
        if found is not None:
            return found
        try:
            with transaction(engine) as session:
                made = Caller(id=uuid.uuid4(), subject=subject, created_at=database_now())
                session.add(made)
                session.flush()
                return made.id
        except IntegrityError:
            continue
    raise SpeakFitError(
        "A caller could not be made.", where="table callers", todo="Try again."
    )  # pragma: no cover - only when the row is deleted between two statements


def _note_use(session: Session, key_id: str) -> None:
    """At most once a minute: a write for each request would cost more than the check."""
    session.execute(
        update(ApiKey)
        .where(
            ApiKey.id == key_id,
            or_(
                ApiKey.last_used_at.is_(None),
                ApiKey.last_used_at < database_now(ahead=-_LAST_USED_EVERY),
            ),
        )
        .values(last_used_at=database_now())
    )


def _now(session: Session) -> datetime:
    now: datetime = session.execute(select(database_now())).scalar_one()
    return now


def _state(row: ApiKey, subject: str, now: datetime) -> KeyState:
    expired = row.expires_at is not None and row.expires_at <= now
    state = "revoked" if row.revoked_at else "expired" if expired else "active"
    return KeyState(
        id=row.id,
        name=subject.removeprefix("key:"),
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        state=state,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
