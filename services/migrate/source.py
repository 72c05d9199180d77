"""The SQLite file: what it holds, read without ever writing to it or beside it.

A file that lies still is opened as immutable: no lock, no file beside it. Where a write-ahead log
or a rollback journal holds part of the truth, SQLite must write to read it, so it gets a private
copy of all of them. The files' SHA-256 proves at the end that nothing changed.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote as quote_path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from services.migrate.values import text_or_undecodable
from speakfit.errors import RefusedError, SettingsError, TargetError

_MAGIC = b"SQLite format 3\x00"
_SIDECARS = ("-wal", "-journal")
_NEWEST_PRAGMA = (3, 37, 0)
_AT_ONCE = 2**20


@dataclass(frozen=True, kw_only=True)
class SourceColumn:
    """One column as the application declared it."""

    name: str
    declared: str
    required: bool
    default: str | None
    generated: bool


@dataclass(frozen=True, kw_only=True)
class SourceKey:
    """A foreign key; without `parent_columns` it refers to nothing that is there."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str
    on_update: str


@dataclass(frozen=True, kw_only=True)
class SourceIndex:
    """An index or unique constraint on plain columns."""

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """One table, and how its rows are told apart."""

    name: str
    columns: tuple[SourceColumn, ...]
    cursor: tuple[str, ...]
    """What orders and finds its rows: SQLite's own row number, or else the primary key."""
    primary_key: tuple[str, ...]
    row_number: str | None
    """The INTEGER PRIMARY KEY, which SQLite fills in by itself."""
    highest: int | None
    """The highest number that AUTOINCREMENT has given, maybe to a row deleted since."""
    keys: tuple[SourceKey, ...]
    indexes: tuple[SourceIndex, ...]
    notes: tuple[str, ...]
    """What of it has no counterpart and is left behind, in words; never rows."""
    rows: int

    def column(self, name: str) -> SourceColumn | None:
        """The column of this name; SQLite does not look at case."""
        return next((one for one in self.columns if one.name.lower() == name.lower()), None)


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open source; `check_unchanged` is cheap, `prove_unchanged` reads the files again."""

    path: Path
    connection: sqlite3.Connection
    fingerprint: str
    """SHA-256 of the database file and what lies beside it and belongs to it."""
    copied: bool
    revision: str | None
    """Alembic's, where the file has one: then it may be a database of ours."""
    tables: tuple[SourceTable, ...]
    virtual: tuple[str, ...]
    notes: tuple[str, ...]
    stamps: tuple[tuple[str, int, int], ...]

    def check_unchanged(self) -> None:
        """A RefusedError when size or time of a file is another than at the start."""
        if _stamps(self.path) != self.stamps:
            raise _changed(self.path)

    def prove_unchanged(self) -> None:
        """A RefusedError when the files are not byte for byte those of the start."""
        if _fingerprint(self.path) != self.fingerprint:
            raise _changed(self.path)


def quoted(name: str) -> str:
    """A name as an identifier of SQL, on both databases."""
    return '"' + name.replace('"', '""') + '"'


def source_path(url: str) -> Path:
    """The file that `sqlite:///FILE` names; a SettingsError for anything else."""
    try:
        parsed = make_url(url)
        name = parsed.database if parsed.get_backend_name() == "sqlite" else None
    except ArgumentError:
        name = None
    if not name or name == ":memory:" or name.startswith("file:"):
        raise SettingsError(
            "The source is not the address of a SQLite file.",
            where="--from",
            todo="Use sqlite:///FILE; four slashes begin an absolute path.",
        )
    return Path(name)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open the file for reading; a SettingsError or TargetError when it is no SQLite database."""
    if sqlite3.sqlite_version_info < _NEWEST_PRAGMA:
        raise TargetError(
            f"This Python has SQLite {sqlite3.sqlite_version}; 3.37 or newer is needed.",
            where="sqlite3",
            todo="Use a newer Python.",
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise SettingsError(
            f"The source cannot be read: {error.strerror}.",
            where=str(path),
            todo="Name an existing file with --from sqlite:///FILE.",
        ) from error
    if magic != _MAGIC:
        raise SettingsError(
            "The source is not a SQLite database.",
            where=str(path),
            todo="Name the file of the old database with --from sqlite:///FILE.",
        )
    stamps = _stamps(path)
    fingerprint = _fingerprint(path)
    private = any(size for name, size, _ in stamps if name != path.name)
    try:
        with tempfile.TemporaryDirectory(prefix="speakfit-migrate-") as folder:
            where = _private_copy(path, Path(folder)) if private else path
            mode = "rw" if private else "ro&immutable=1"
            address = f"file:{quote_path(str(where.absolute()))}?mode={mode}"
            connection = sqlite3.connect(address, uri=True, isolation_level=None)
            try:
                connection.text_factory = text_or_undecodable
                connection.execute("PRAGMA temp_store=MEMORY")
                source = _describe(path, connection, fingerprint, stamps, copied=private)
                if private:
                    # A copy that was made while somebody wrote may be torn.
                    source.prove_unchanged()
                yield source
            finally:
                connection.close()
    except sqlite3.DatabaseError as error:
        raise TargetError(
            f"SQLite cannot read the source: {error}.",
            where=str(path),
            todo="Check it with `sqlite3 FILE 'PRAGMA integrity_check'`; restore a backup, or save "
            "what can be saved with `sqlite3 FILE .recover`.",
        ) from error


def _files(path: Path) -> list[Path]:
    beside = [path.with_name(path.name + end) for end in _SIDECARS]
    return [path, *(file for file in beside if file.exists())]


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    found = [(file.name, file.stat()) for file in _files(path)]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found if stat.st_size)


def _fingerprint(path: Path) -> str:
    """SHA-256 over the files that hold something, each after its name."""
    whole = hashlib.sha256()
    for file in _files(path):
        if file.stat().st_size:
            whole.update(file.name.removeprefix(path.name).encode() + b"\n")
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()


def _private_copy(path: Path, folder: Path) -> Path:
    needed = sum(file.stat().st_size for file in _files(path))
    if shutil.disk_usage(folder).free < needed + _AT_ONCE:
        raise TargetError(
            f"The source has a journal, so it is copied before it is read: {needed:,} bytes, "
            "which do not fit.",
            where=str(folder),
            todo="Stop the old application so that it folds its journal in, or set TMPDIR to a "
            "folder with room.",
        )
    for file in _files(path):
        shutil.copyfile(file, folder / file.name)
    return folder / path.name


def _changed(path: Path) -> RefusedError:
    return RefusedError(
        "The source changed while it was read; what was copied is not the whole of it.",
        where=str(path),
        todo="Stop the old application, then start over with --start-over.",
    )


def _describe(
    path: Path,
    connection: sqlite3.Connection,
    fingerprint: str,
    stamps: tuple[tuple[str, int, int], ...],
    *,
    copied: bool,
) -> Source:
    listed = connection.execute("PRAGMA main.table_list").fetchall()
    names = sorted(
        (name, kind, bool(without_rowid))
        for _, name, kind, _, without_rowid, _ in listed
        if not name.startswith("sqlite_")
    )
    triggers = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    ).fetchall()
    notes = [f"view {name} is not copied" for name, kind, _ in names if kind == "view"]
    notes += [f"trigger {name} is not copied" for (name,) in triggers]
    plain = [(name, bare) for name, kind, bare in names if kind == "table"]
    primary = {name: _primary_key(connection, name) for name, _ in plain}
    revision = None
    if "alembic_version" in primary:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        revision = str(rows[0][0]) if len(rows) == 1 else None
    return Source(
        path=path,
        connection=connection,
        fingerprint=fingerprint,
        copied=copied,
        revision=revision,
        tables=tuple(_table(connection, name, bare, primary) for name, bare in plain),
        virtual=tuple(name for name, kind, _ in names if kind == "virtual"),
        notes=tuple(notes),
        stamps=stamps,
    )


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    ordered = sorted((row[5], row[1]) for row in rows if row[5])
    return tuple(name for _, name in ordered)


def _table(
    connection: sqlite3.Connection,
    name: str,
    without_rowid: bool,
    primary: dict[str, tuple[str, ...]],
) -> SourceTable:
    described = connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})").fetchall()
    columns = tuple(
        SourceColumn(
            name=column,
            declared=declared or "",
            required=bool(required),
            default=default,
            generated=hidden in (2, 3),
        )
        for _, column, declared, required, default, _, hidden in described
        if hidden != 1
    )
    notes = [f"{name}.{c.name} is generated and copied as a value" for c in columns if c.generated]
    key = primary[name]
    cursor = key
    row_number = None
    if not without_rowid:
        taken = {column.name.lower() for column in columns}
        free = [alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken]
        cursor = (free[0],) if free else key
        (declared,) = [row[2] for row in described if row[5]] if len(key) == 1 else [""]
        row_number = key[0] if (declared or "").upper() == "INTEGER" else None
    indexes, left = _indexes(connection, name)
    return SourceTable(
        name=name,
        columns=columns,
        cursor=cursor,
        primary_key=key,
        row_number=row_number,
        highest=_highest(connection, name),
        keys=_keys(connection, name, primary),
        indexes=indexes,
        notes=(*notes, *left),
        rows=connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0],
    )


def _highest(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        row = connection.execute(
            "SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)
        ).fetchone()
    except sqlite3.OperationalError:
        # The table of sequences exists only where AUTOINCREMENT is used.
        return None
    return row[0] if type(row[0]) is int else None


def _keys(
    connection: sqlite3.Connection, table: str, primary: dict[str, tuple[str, ...]]
) -> tuple[SourceKey, ...]:
    found: dict[int, list[tuple[str, str, str | None, str, str]]] = {}
    for number, _, parent, column, to, on_update, on_delete, _ in connection.execute(
        f"PRAGMA main.foreign_key_list({quoted(table)})"
    ).fetchall():
        found.setdefault(number, []).append((parent, column, to, on_update, on_delete))
    known = {name.lower(): name for name in primary}
    keys = []
    for number in sorted(found):
        parts = found[number]
        parent = known.get(parts[0][0].lower())
        columns = tuple(part[1] for part in parts)
        to = tuple(part[2] for part in parts if part[2] is not None)
        if parent is not None and not to:
            to = primary[parent]
        keys.append(
            SourceKey(
                columns=columns,
                parent=parent or parts[0][0],
                parent_columns=to if parent is not None and len(to) == len(columns) else (),
                on_update=parts[0][3],
                on_delete=parts[0][4],
            )
        )
    return tuple(keys)


def _indexes(
    connection: sqlite3.Connection, table: str
) -> tuple[tuple[SourceIndex, ...], list[str]]:
    indexes, left = [], []
    for _, name, unique, origin, partial in connection.execute(
        f"PRAGMA main.index_list({quoted(table)})"
    ).fetchall():
        if origin == "pk":
            continue
        parts = connection.execute(f"PRAGMA main.index_xinfo({quoted(name)})").fetchall()
        columns = [row[2] for row in parts if row[5]]
        if partial or None in columns:
            left.append(f"index {name} is partial or on an expression and is not made")
        else:
            indexes.append(SourceIndex(name=name, columns=tuple(columns), unique=bool(unique)))
    return tuple(indexes), left
