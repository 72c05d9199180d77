"""Uploads in the audio store that several recordings may share, and when they may go.

An upload first names its object in the database, then puts the file, and last makes its
recording in a transaction that names the object again. Whoever removes an object holds its row
meanwhile. So an object is never removed under a recording: either the remover sees the
recording, or the second naming finds no row and the upload puts the file anew.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, delete, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from speakfit.database import Recording, StoredObject, UploadSession, database_now, transaction
from speakfit.store import AudioStore, object_key, staging_key

UNUSED_FOR = timedelta(hours=1)
"""How long an object that no recording refers to is left to an upload that may be at work."""

_AT_ONCE = 100


def put_object(
    engine: Engine, store: AudioStore, part: Path, *, checksum: str, size_bytes: int
) -> str:
    """Name the object and put its file; the key. The recording is still to be made."""
    key = object_key(checksum)
    with transaction(engine) as session:
        insert = postgresql.insert if _on_postgres(session) else sqlite.insert
        session.execute(
            insert(StoredObject)
            .values(key=key, size_bytes=size_bytes, touched_at=database_now())
            .on_conflict_do_update(
                index_elements=[StoredObject.key], set_={"touched_at": database_now()}
            )
        )
    store.put(part, key)
    return key


def hold_object(session: Session, key: str) -> bool:
    """Name the object in the transaction that makes its recording; False when it was removed."""
    named = session.scalars(
        update(StoredObject)
        .where(StoredObject.key == key)
        .values(touched_at=database_now())
        .returning(StoredObject.key)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return named is not None


def remove_unused(engine: Engine, store: AudioStore, key: str) -> bool:
    """Remove an object unless a recording refers to it; True when it is gone.

    An upload of the same content that is at work notices and puts the file anew.
    """
    with transaction(engine) as session:
        # SQLite knows one writer at a time, so writing the row is locking it.
        if not hold_object(session, key):
            return False
        # A statement of its own: it sees every recording made before we got the row.
        if session.scalar(select(exists().where(Recording.object_key == key))):
            return False
        store.remove(key)
        session.execute(delete(StoredObject).where(StoredObject.key == key))
    return True


def unused_objects(session: Session, unused_for: timedelta = UNUSED_FOR) -> list[str]:
    """Keys that no recording refers to and no upload has named for a while."""
    return list(
        session.scalars(
            select(StoredObject.key)
            .where(
                StoredObject.touched_at < database_now(-unused_for),
                ~exists().where(Recording.object_key == StoredObject.key),
            )
            .order_by(StoredObject.touched_at)
            .limit(_AT_ONCE)
        )
    )


def remove_expired_uploads(
    engine: Engine, store: AudioStore, expired_for: timedelta = UNUSED_FOR
) -> None:
    """Forget uploads to signed addresses that expired a while ago, and what is left of them."""
    with transaction(engine) as session:
        expired = list(
            session.scalars(
                select(UploadSession.id)
                .where(UploadSession.expires_at < database_now(-expired_for))
                .order_by(UploadSession.expires_at)
                .limit(_AT_ONCE)
            )
        )
    for upload_id in expired:
        # The file first: whoever dies in between leaves a row that leads to it.
        store.remove(staging_key(upload_id))
        with transaction(engine) as session:
            session.execute(delete(UploadSession).where(UploadSession.id == upload_id))


def _on_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
