"""The PostgreSQL that rows go to, and the journal in it that makes a killed migration go on.

The journal is a schema of its own. A batch and the note of how far it went are one transaction,
so after a kill at any moment the two agree.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from services.migrate.source import quoted
from services.migrate.values import send_function
from speakfit.database import alembic_config, head_revision, known_revisions, make_engine
from speakfit.errors import RefusedError, SettingsError, TargetError

JOURNAL = "speakfit_migrate"

_LOCK = 5244
_LOCK_LIMIT = timedelta(seconds=15)
_NO_LIMIT = timedelta(days=7)

_MAKE_JOURNAL = f"""
CREATE SCHEMA IF NOT EXISTS {JOURNAL};
CREATE TABLE {JOURNAL}.run (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fingerprint text NOT NULL,
    choices json NOT NULL,
    stage text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    report json
);
CREATE TABLE {JOURNAL}.progress (
    number serial,
    table_name text PRIMARY KEY,
    place text NOT NULL,
    made_here boolean NOT NULL,
    position json,
    copied bigint NOT NULL DEFAULT 0,
    finished boolean NOT NULL DEFAULT false,
    rows_before bigint NOT NULL,
    sum_before numeric NOT NULL
);
"""


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """A column as PostgreSQL describes it."""

    name: str
    kind: str
    """format_type's name, such as `character varying(16)`."""
    required: bool
    filled: bool
    """Whether PostgreSQL fills it in when it is not given."""


@dataclass(frozen=True, kw_only=True)
class TargetKey:
    """A foreign key of the target."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the journal says about a migration into this database."""

    fingerprint: str
    choices: dict[str, Any]
    stage: str
    report: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one table is, and what was in it before."""

    position: list[Any] | None
    copied: int
    finished: bool
    rows_before: int
    sum_before: int


def engine_of(url: str) -> Engine:
    """An engine without time limits; takes postgresql://, postgres:// and postgresql+psycopg://."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in (
        "postgresql",
        "postgres",
        "postgresql+psycopg",
    ):
        raise SettingsError(
            "The target is not the address of a PostgreSQL database.",
            where="--to",
            todo="Use postgresql://USER@HOST:PORT/NAME; the password may come from PGPASSWORD.",
        )
    whole = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    return make_engine(whole, statement_limit=_NO_LIMIT)


def shown(url: str) -> str:
    """The address without its password, for people."""
    parsed = make_url(url)
    return parsed.set(drivername="postgresql", password=None, query={}).render_as_string()


def raw(connection: Connection) -> psycopg.Connection[Any]:
    """The driver's connection under SQLAlchemy's, in the same transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextmanager
def connected(engine: Engine, address: str) -> Iterator[psycopg.Connection[Any]]:
    """The one connection that moves rows, alone of its kind on this database."""
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise TargetError(
            f"The target does not answer: {str(error.orig).strip().splitlines()[-1]}",
            where=address,
            todo="Start the database, or correct --to; the password may come from PGPASSWORD.",
        ) from error
    try:
        driver = raw(connection)
        _lock(driver, address)
        encoding = _one(driver, "SHOW server_encoding")
        if encoding != "UTF8":
            raise RefusedError(
                f"The target keeps text as {encoding}, not as UTF8.",
                where=address,
                todo="Make the database anew with ENCODING 'UTF8' TEMPLATE template0.",
            )
        driver.commit()
        yield driver
    finally:
        # Closed, not returned: the lock ends with the session.
        connection.invalidate()
        connection.close()


def _lock(connection: psycopg.Connection[Any], address: str) -> None:
    """Wait a little: the session of a migration that was killed ends a moment after it."""
    deadline = time.monotonic() + _LOCK_LIMIT.total_seconds()
    while not _one(connection, f"SELECT pg_try_advisory_lock({_LOCK})"):
        if time.monotonic() > deadline:
            raise RefusedError(
                "Another migration into this database is running.",
                where=address,
                todo="Wait until it has ended.",
            )
        time.sleep(0.1)


def _one(connection: psycopg.Connection[Any], query: str, values: tuple[Any, ...] = ()) -> Any:
    # Without values psycopg leaves % alone, which may be part of a name.
    row = connection.execute(query, values or None).fetchone()
    return None if row is None else row[0]


# ---- the tables


def revision_of(connection: Connection) -> str | None:
    """Alembic's revision of the target; a RefusedError when this code does not know it."""
    from alembic.runtime.migration import MigrationContext

    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in known_revisions():
        raise RefusedError(
            f"The target is at revision {revision}, which this release does not know.",
            where="alembic_version",
            todo="Use the release that made it, or name an empty database.",
        )
    return revision


def upgrade_within(connection: Connection, revision: str) -> None:
    """Bring the tables to a revision inside the open transaction."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    try:
        # speakfit.database.upgrade takes the same lock.
        connection.execute(text("SELECT pg_advisory_xact_lock(5241)"))
        command.upgrade(config, revision)
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise RefusedError(
            f"The target cannot be brought to revision {revision}: {reason}.",
            where="the target database",
            todo="Name an empty database, and a user who may make tables in it.",
        ) from error


def at_head(connection: Connection) -> bool:
    """Whether the tables are exactly those that this code declares, types and all."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from speakfit.database import Table

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in Table.metadata.tables

    context = MigrationContext.configure(connection, opts={"include_name": ours})
    return revision_of(connection) == head_revision() and not compare_metadata(
        context, Table.metadata
    )


def tables_in(connection: Connection, schema: str) -> set[str]:
    """Tables and views of a schema."""
    found = inspect(connection)
    return {*found.get_table_names(schema), *found.get_view_names(schema)}


def columns_of(
    connection: psycopg.Connection[Any], schema: str, table: str
) -> tuple[TargetColumn, ...]:
    """The columns in their order."""
    rows = connection.execute(
        """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull,
               atthasdef OR attidentity <> ''
        FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum
        """,
        (where(schema, table),),
    ).fetchall()
    return tuple(
        TargetColumn(name=name, kind=kind, required=required, filled=filled)
        for name, kind, required, filled in rows
    )


def keys_of(connection: psycopg.Connection[Any], schema: str, table: str) -> tuple[TargetKey, ...]:
    """The foreign keys that PostgreSQL enforces and has checked for every row."""
    rows = connection.execute(
        """
        SELECT ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (n, at)
                     JOIN pg_attribute ON attrelid = conrelid AND attnum = k.n ORDER BY at),
               parent.relname,
               ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (n, at)
                     JOIN pg_attribute ON attrelid = confrelid AND attnum = k.n ORDER BY at)
        FROM pg_constraint JOIN pg_class AS parent ON parent.oid = confrelid
        WHERE contype = 'f' AND convalidated AND conrelid = to_regclass(%s)
        ORDER BY conname
        """,
        (where(schema, table),),
    ).fetchall()
    return tuple(
        TargetKey(columns=tuple(columns), parent=parent, parent_columns=tuple(parents))
        for columns, parent, parents in rows
    )


def where(schema: str, table: str) -> str:
    """The table's full name for SQL."""
    return f"{quoted(schema)}.{quoted(table)}"


def is_empty(connection: psycopg.Connection[Any], schema: str, table: str) -> bool:
    """Whether the table has no row."""
    return not _one(connection, f"SELECT EXISTS (SELECT FROM {where(schema, table)})")


def count_and_sum(
    connection: psycopg.Connection[Any], schema: str, table: str, columns: Mapping[str, str]
) -> tuple[int, int]:
    """How many rows there are, and the sum of 64 bits of each one's MD5.

    A row is its columns (name to kind) in binary form, each after its length, as COPY sends it. A
    sum does not depend on the order of rows, and notices a row that is there twice.
    """
    fields = [
        f"coalesce(int4send(octet_length({send_function(kind)}({quoted(name)})))"
        f" || {send_function(kind)}({quoted(name)}), '\\xffffffff'::bytea)"
        for name, kind in columns.items()
    ]
    # In pairs of pairs: one long chain would copy what is already joined once a column.
    while len(fields) > 1:
        fields = [" || ".join(fields[at : at + 2]) for at in range(0, len(fields), 2)]
        fields = [f"({field})" for field in fields]
    row = connection.execute(
        "SELECT count(*),"
        f" coalesce(sum(('x' || left(md5({fields[0]}), 16))::bit(64)::bigint), 0)"
        f" FROM {where(schema, table)}"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def sequences_of(
    connection: psycopg.Connection[Any], schema: str, table: str
) -> list[tuple[str, str]]:
    """Each column that a sequence fills in, and the sequence."""
    rows = connection.execute(
        """
        SELECT attname, pg_get_serial_sequence(%(where)s, attname)
        FROM pg_attribute
        WHERE attrelid = to_regclass(%(where)s) AND attnum > 0 AND NOT attisdropped
          AND pg_get_serial_sequence(%(where)s, attname) IS NOT NULL
        """,
        {"where": where(schema, table)},
    ).fetchall()
    return [(column, sequence) for column, sequence in rows]


def push_sequence(
    connection: psycopg.Connection[Any],
    sequence: str,
    schema: str,
    table: str,
    column: str,
    highest: int | None,
) -> None:
    """Let the next number be beyond every number ever given, those of deleted rows included."""
    most = _one(connection, f"SELECT max({quoted(column)}) FROM {where(schema, table)}")
    last = _one(connection, f"SELECT CASE WHEN is_called THEN last_value END FROM {sequence}")
    given = [number for number in (most, last, highest) if number is not None]
    if given:
        connection.execute("SELECT setval(%s::regclass, %s)", (sequence, max(given)))


def sequence_is_beyond(
    connection: psycopg.Connection[Any], sequence: str, schema: str, table: str, column: str
) -> bool:
    """Whether the next number is one that no row has."""
    return bool(
        _one(
            connection,
            f"SELECT coalesce(max({quoted(column)}), 0) < (SELECT last_value + is_called::int"
            f" FROM {sequence}) FROM {where(schema, table)}",
        )
    )


# ---- the journal


def begin_run(
    connection: psycopg.Connection[Any], fingerprint: str, choices: Mapping[str, Any]
) -> None:
    """Open the journal; part of the transaction that makes the tables."""
    connection.execute(f"DROP SCHEMA IF EXISTS {JOURNAL} CASCADE")
    connection.execute(_MAKE_JOURNAL)
    connection.execute(
        f"INSERT INTO {JOURNAL}.run (fingerprint, choices, stage) VALUES (%s, %s, 'copying')",
        (fingerprint, json.dumps(choices)),
    )


def begin_table(
    connection: psycopg.Connection[Any],
    table: str,
    place: str,
    before: tuple[int, int],
    *,
    made_here: bool,
) -> None:
    """Note what is in a table before the first row is copied; parents come first."""
    connection.execute(
        f"INSERT INTO {JOURNAL}.progress"
        " (table_name, place, made_here, rows_before, sum_before) VALUES (%s, %s, %s, %s, %s)",
        (table, place, made_here, *before),
    )


def forget_run(connection: psycopg.Connection[Any]) -> None:
    """Take back all that an unfinished migration did; a RefusedError when it cannot be told."""
    with connection.transaction():
        rows = connection.execute(
            f"SELECT place, made_here, rows_before FROM {JOURNAL}.progress ORDER BY number DESC"
        ).fetchall()
        if any(before for _, _, before in rows):
            raise RefusedError(
                "The unfinished migration added to rows that were there before; the two cannot be "
                "told apart any more.",
                where=JOURNAL,
                todo="Let it go on, restore the target from a backup, or name another database.",
            )
        for place, made_here, _ in rows:
            statement = f"DROP TABLE {place} CASCADE" if made_here else f"DELETE FROM {place}"
            connection.execute(statement)
        connection.execute(f"DROP SCHEMA {JOURNAL} CASCADE")


def read_run(connection: psycopg.Connection[Any]) -> Run | None:
    """The migration that was begun or done here, if any."""
    if _one(connection, "SELECT to_regclass(%s)", (f"{JOURNAL}.run",)) is None:
        return None
    row = connection.execute(
        f"SELECT fingerprint, choices, stage, report FROM {JOURNAL}.run"
    ).fetchone()
    if row is None:
        return None
    return Run(fingerprint=row[0], choices=row[1], stage=row[2], report=row[3])


def read_progress(connection: psycopg.Connection[Any], table: str) -> Progress:
    """How far the table is."""
    row = connection.execute(
        "SELECT position, copied, finished, rows_before, sum_before"
        f" FROM {JOURNAL}.progress WHERE table_name = %s",
        (table,),
    ).fetchone()
    assert row is not None, table
    return Progress(
        position=row[0],
        copied=row[1],
        finished=row[2],
        rows_before=row[3],
        sum_before=int(row[4]),
    )


def write_progress(
    connection: psycopg.Connection[Any],
    table: str,
    position: list[Any] | None,
    copied: int,
    *,
    finished: bool,
) -> None:
    """Note how far the table is, in the transaction of its batch."""
    connection.execute(
        f"UPDATE {JOURNAL}.progress SET position = %s, copied = %s, finished = %s"
        " WHERE table_name = %s",
        (json.dumps(position), copied, finished, table),
    )


def set_stage(
    connection: psycopg.Connection[Any], stage: str, report: Mapping[str, Any] | None = None
) -> None:
    """`copying`, `copied`, then `done` with its report."""
    connection.execute(
        f"UPDATE {JOURNAL}.run SET stage = %s, report = %s",
        (stage, None if report is None else json.dumps(report)),
    )
