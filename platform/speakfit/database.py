"""The tables, the sessions on them, and the migrations that make them.

PostgreSQL (or SQLite on a laptop) owns the truth about recordings and chunks; the broker only
carries hints. Leases are judged by the database's clock, never by a worker's.

    python -m speakfit.database upgrade | current
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    Uuid,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement

from speakfit.errors import SettingsError, SpeakFitError
from speakfit.pool import LONE_POOL, WORKER_POOL, BoundedConnection, PoolSize, WatchedPool
from speakfit.settings import Settings, read_settings
from speakfit.tracing import trace_queries

MIGRATIONS = Path(__file__).parent / "migrations"

CONNECT_LIMIT = timedelta(seconds=3)
STATEMENT_LIMIT = timedelta(seconds=10)
SILENCE = timedelta(seconds=2)
"""How much longer than a statement may take its client waits for the server to say so."""


class RecordingStatus(StrEnum):
    """Where a recording stands; completed is final, failed and cancelled may be tried again."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChunkStatus(StrEnum):
    """Where a chunk stands; done is final, failed and cancelled may be tried again."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Instant(TypeDecorator[datetime]):
    """A point in time, UTC and aware on both databases; SQLite stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name != "sqlite" else _naive(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


def _naive(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)


class database_now(ColumnElement[datetime]):  # noqa: N801 - reads as an SQL function in queries
    """The database's clock plus `ahead`; moves within a transaction, unlike CURRENT_TIMESTAMP."""

    inherit_cache = False
    type = Instant()

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead_seconds = ahead.total_seconds()


@compiles(database_now, "postgresql")
def _postgres_now(element: database_now, compiler: SQLCompiler, **_: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {element.ahead_seconds:.6f}))"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **_: Any) -> str:
    # The text form SQLAlchemy stores datetimes in, so that they compare as strings.
    return (
        f"(strftime('%Y-%m-%d %H:%M:%f', 'now', '{element.ahead_seconds:+.6f} seconds') || '000')"
    )


class Table(DeclarativeBase):
    """Base of every table."""


class Caller(Table):
    """Who may call the API: a person or a program, known by one subject."""

    __tablename__ = "callers"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), unique=True)
    """`key:NAME` for holders of API keys, `google:SUB` for Google accounts; never an address."""
    turn: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """When work of theirs was last begun, counted in turns; the lowest is served next."""
    created_at: Mapped[datetime] = mapped_column(Instant)


class ApiKey(Table):
    """A key that a caller shows; only the hash of its secret part is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """The part of the key that is no secret: it finds this row."""
    caller_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("callers.id", ondelete="CASCADE"), index=True
    )
    secret_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret part, hexadecimal."""
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)


class StoredObject(Table):
    """An upload in the audio store, named by its content; several recordings may share it."""

    __tablename__ = "stored_objects"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    touched_at: Mapped[datetime] = mapped_column(Instant, index=True)
    """When an upload last named it; what no recording refers to is removed some time later."""


class UploadSession(Table):
    """A promise to take an upload at a signed address, until it expires or is completed."""

    __tablename__ = "upload_sessions"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    caller_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("callers.id", ondelete="CASCADE"), index=True
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    checksum: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 that the caller announced, hexadecimal."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
    recording_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    """The recording it became."""


class IdempotencyKey(Table):
    """An answer that is given again to a request that is sent again (Idempotency-Key)."""

    __tablename__ = "idempotency_keys"

    caller_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("callers.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column("idempotency_key", String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of route and payload, hexadecimal; another payload under the same key is refused."""
    status_code: Mapped[int | None] = mapped_column(Integer)
    """None while the first request is still being worked on."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    locked_until: Mapped[datetime] = mapped_column(Instant)
    """When a request that never finished no longer stands in the way."""


LAST_TURN = text(
    "(SELECT coalesce(max(turn), 0) + 1 FROM recordings WHERE status IN ('queued', 'processing'))"
)
"""Behind all that wait: so new recordings of a caller cannot starve an old one of theirs."""


class Recording(Table):
    """One accepted upload; also the unit of work `prepare`, under a lease of its own."""

    __tablename__ = "recordings"
    __table_args__ = (Index("recordings_of_caller", "caller_id", "created_at", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    caller_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("callers.id"))
    """Whose it is; None for those accepted before callers were known, which nobody sees."""
    object_key: Mapped[str | None] = mapped_column(String(255), index=True)
    """Where the audio store keeps it; None for those in a folder of their own."""
    options: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """How the caller wants it transcribed (language, prompt); None for the defaults."""
    status: Mapped[str] = mapped_column(String(16), default=RecordingStatus.QUEUED, index=True)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    checksum: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the upload, hexadecimal."""
    duration_seconds: Mapped[float]
    expected_chunks: Mapped[int] = mapped_column(Integer)
    """Chunks it will have, estimated when accepted: queue depth must be true with no worker."""
    speech: Mapped[list[list[float]] | None] = mapped_column(JSON)
    """Voice activity as [start, end] in seconds; None until prepared."""
    traceparent: Mapped[str | None] = mapped_column(String(64))
    lease_owner: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    turn: Mapped[int] = mapped_column(BigInteger, default=LAST_TURN, server_default="0")
    """When work on it was last begun, or it was accepted, counted in turns; of one caller's
    recordings the lowest is served next."""
    created_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class Chunk(Table):
    """One stretch of a recording near 30 s, transcribed as a task of its own, stored once."""

    __tablename__ = "chunks"
    __table_args__ = (
        # Queue depth and the sweep look only at what is unfinished.
        Index(
            "chunks_unfinished",
            "status",
            postgresql_where=text("status IN ('pending', 'leased')"),
        ),
        # How fast the queue drains is asked before every export.
        Index("chunks_finished", "finished_at"),
    )

    recording_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column("chunk_index", Integer, primary_key=True)
    start_seconds: Mapped[float]
    end_seconds: Mapped[float]
    status: Mapped[str] = mapped_column(String(16), default=ChunkStatus.PENDING)
    error: Mapped[str | None] = mapped_column(Text)
    lease_owner: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    model: Mapped[str | None] = mapped_column(String(128))
    """What transcribed it."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class OutboxMessage(Table):
    """A message to send, written in the transaction that needs it; deleted once sent."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    task: Mapped[str] = mapped_column(String(64))
    recording_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), index=True
    )
    chunk_index: Mapped[int | None] = mapped_column(Integer)
    traceparent: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Instant)


class DeadLetter(Table):
    """Work that was begun as often as allowed and never finished; kept until it is tried again."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    task: Mapped[str] = mapped_column(String(64))
    recording_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), index=True
    )
    chunk_index: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(Text)
    """What the last attempt met; never what was said."""
    died_at: Mapped[datetime] = mapped_column(Instant)
    settled_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    """When somebody tried it again or let it go; None while it waits for a decision."""


class WorkerHeartbeat(Table):
    """The last sign of life of a worker's main process."""

    __tablename__ = "worker_heartbeats"

    worker_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(Instant)
    at: Mapped[datetime] = mapped_column(Instant, index=True)
    processes: Mapped[int] = mapped_column(Integer)


def make_engine(
    url: str,
    *,
    pool: PoolSize = LONE_POOL,
    statement_limit: timedelta = STATEMENT_LIMIT,
) -> Engine:
    """An engine that never waits for ever: connecting, pool and statements are bounded.

    Parameters never appear in error texts. Raises SettingsError for an address it cannot use.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _bad_url() from error
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        trace_queries(engine)
        return engine
    if parsed.get_backend_name() != "postgresql" or parsed.get_driver_name() != "psycopg":
        raise _bad_url()
    limit_ms = int(statement_limit.total_seconds() * 1000)
    engine = create_engine(
        parsed,
        hide_parameters=True,
        poolclass=WatchedPool,
        pool_size=pool.kept,
        max_overflow=pool.more,
        pool_timeout=CONNECT_LIMIT.total_seconds(),
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": int(CONNECT_LIMIT.total_seconds()),
            "options": f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms}",
            "application_name": "speakfit",
        },
    )
    silence_limit = statement_limit + SILENCE if statement_limit else None

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Any:
        connection = BoundedConnection.connect(*arguments, **options)
        connection.silence_limit = silence_limit
        return connection

    trace_queries(engine)
    return engine


def _bad_url() -> SettingsError:
    return SettingsError(
        "DATABASE_URL is not an address this platform can use.",
        where="DATABASE_URL",
        todo="Use postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME or sqlite:///FILE.",
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that commits at the end and rolls back on an error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def lone_read(engine: Engine) -> Iterator[Session]:
    """A session for one statement that reads: without BEGIN and COMMIT, two trips fewer."""
    with Session(_at_once(engine)) as session:
        yield session


@lru_cache(maxsize=8)
def _at_once(engine: Engine) -> Engine:
    # Made once: making it takes longer than a read.
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Bring the tables up to a revision and name what they are at; safe to run side by side.

    Tables of a newer release are left alone: this code was rolled back to, or is being replaced.
    """
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    with _migrating(engine) as config:
        connection = config.attributes["connection"]
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and not is_behind(current):
            return str(current)
        command.upgrade(config, revision)
    return head_revision() if revision == "head" else revision


def downgrade(engine: Engine, revision: str) -> None:
    """Bring the tables down to a revision, `base` for none; what it did not know is dropped."""
    from alembic import command

    with _migrating(engine) as config:
        command.downgrade(config, revision)


@contextmanager
def _migrating(engine: Engine) -> Iterator[Any]:
    """Alembic's configuration on one transaction that nobody else migrates beside."""
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # SQLite alters a table by making it anew. Dropping the old one while keys are
            # enforced would delete every row that refers to it, and inside a transaction
            # enforcement cannot be switched. Without BEGIN, its DDL would commit bit by bit.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            # Two replicas starting together must not both create the tables.
            connection.execute(text("SELECT pg_advisory_xact_lock(5241)"))
            # An index on a large table takes its time; only waiting for others stays bounded.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            driver: Any = connection.connection.driver_connection
            kept, driver.silence_limit = driver.silence_limit, None
        config = alembic_config()
        config.attributes["connection"] = connection
        try:
            yield config
            connection.commit()
        finally:
            connection.rollback()
            if sqlite:
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            else:
                driver.silence_limit = kept


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """Every revision of this code, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    known = tuple(script.revision for script in reversed(list(scripts)))
    if not known:
        raise SpeakFitError(
            "No migration is installed.", where=str(MIGRATIONS), todo="Install the package again."
        )
    return known


def head_revision() -> str:
    """The newest revision this code knows."""
    return known_revisions()[-1]


def is_behind(revision: str | None) -> bool:
    """Whether this code needs newer tables than those at a revision.

    A revision that it does not know is of a newer release. That one only expands what this code
    uses (docs/migrations.md), so this code goes on: during a rollout, and after a rollback.
    """
    return revision != head_revision() and (revision is None or revision in known_revisions())


def current_revision(engine: Engine) -> str | None:
    """The revision the database is at; None before the first migration."""
    from alembic.runtime.migration import MigrationContext

    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def alembic_config() -> Any:
    """Where alembic finds our revisions; a connection is put into its attributes."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def engine_from(settings: Settings, pool: PoolSize = WORKER_POOL) -> Engine:
    """The engine that DATABASE_URL names; see speakfit.pool for the share of each process."""
    return make_engine(settings.require("database_url"), pool=pool)


@contextmanager
def opened() -> Iterator[Engine]:
    """The engine that DATABASE_URL names, for a command; what it refuses is a SpeakFitError."""
    engine = engine_from(read_settings())
    try:
        yield engine
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__).strip()
        raise SpeakFitError(
            f"The database refused: {reason.splitlines()[0]}",
            where="DATABASE_URL",
            todo="Start the database, and bring it up to date with "
            "`python -m speakfit.database upgrade`.",
        ) from error
    finally:
        engine.dispose()


def main(arguments: list[str]) -> int:
    """`upgrade` migrates, `current` compares; 0 fine, 1 error, 2 behind, 64 usage."""
    if arguments not in (["upgrade"], ["current"]):
        print(
            "usage: python -m speakfit.database upgrade | current\n"
            "  upgrade  bring the tables at DATABASE_URL to the newest revision\n"
            "  current  print the revision of the database and of the code; exit 2 when behind"
        )
        return 0 if arguments in (["--help"], ["-h"]) else 64
    try:
        engine = engine_from(read_settings())
        if arguments == ["upgrade"]:
            print(f"database is at revision {upgrade(engine)}")
            return 0
        current = current_revision(engine)
        print(f"database is at revision {current or 'none'}, code at {head_revision()}")
        return 2 if is_behind(current) else 0
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__).strip()
        failed = SpeakFitError(
            f"The database refused: {reason}",
            where="DATABASE_URL",
            todo="Start the database, or correct the address.",
        )
        print(failed, file=sys.stderr)
        return failed.exit_code
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
