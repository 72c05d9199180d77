"""Rows on their way: read and checked, copied in batches, compared at the end."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any

import psycopg

from services.migrate import target
from services.migrate.plan import KeyPlan, Plan, TablePlan
from services.migrate.source import Source, quoted
from services.migrate.values import Encoder, MisfitError, Undecodable, encoder, zone_named
from speakfit.errors import MigrationError, SettingsError

Say = Callable[[str, int], None]
"""Told a table and how many rows of it are done since the last word."""

Key = tuple[Any, ...]

BATCH_ROWS = 20_000
_BATCH_BYTES = 32 * 2**20
_PIECE = 256 * 2**10
_SAY_EVERY = 2_000
_SHOWN = 100
_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One value that PostgreSQL cannot hold, or one row that refers to nothing."""

    table: str
    key: str
    """The row, by its primary key or else SQLite's row number."""
    column: str
    reason: str


@dataclass(kw_only=True)
class Checked:
    """What a table was found to hold: what will be copied, and what will not."""

    rows: int = 0
    sum: int = 0
    """Over the rows that fit, as target.count_and_sum makes it."""
    rejected: set[Key] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    """The first ones; `counts` counts all."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


class Rejects:
    """The file of rows that do not fit, one JSON object a line; it appears when it is whole."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._output = None
        if path is not None:
            self._new = path.with_name(path.name + ".new")
            # The rows are somebody's data: nobody else may read the file.
            try:
                descriptor = os.open(self._new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            except OSError as error:
                raise SettingsError(
                    f"The file for rejected rows cannot be written: {error.strerror}.",
                    where=str(self._new),
                    todo="Name a file in a folder that can be written to with --rejects.",
                ) from error
            self._output = os.fdopen(descriptor, "w", encoding="utf-8")

    def write(
        self, table: TablePlan, values: Sequence[Any], reasons: Sequence[tuple[str, str]]
    ) -> None:
        """Keep one row with all its values and every reason."""
        if self._output is None:
            return
        names = [column.name for column in table.columns]
        line = {
            "table": table.name,
            "reasons": [{"column": column, "reason": reason} for column, reason in reasons],
            "row": {n: _as_json(value) for n, value in zip(names, values, strict=True)},
        }
        self._output.write(json.dumps(line) + "\n")

    def close(self, *, keep: bool) -> None:
        """Make the file durable under its name, or leave nothing of it."""
        if self._output is None or self._path is None:
            return
        self._output.flush()
        os.fsync(self._output.fileno())
        self._output.close()
        if keep:
            self._new.replace(self._path)
        else:
            self._new.unlink()


def _as_json(value: Any) -> Any:
    """A value of SQLite; what JSON does not have is told by its type."""
    if isinstance(value, Undecodable):
        return {"text_hex": value.hex()}
    if isinstance(value, bytes):
        return {"blob_hex": value.hex()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"real": repr(value)}
    return value


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value["blob_hex"]) if isinstance(value, dict) else value


def _cursor(table: TablePlan) -> list[str]:
    names = {column.name for column in table.source.columns}
    # SQLite's row number is no column and keeps its bare name.
    return [quoted(one) if one in names else one for one in table.source.cursor]


def _row_text(table: TablePlan, key: Key, values: Sequence[Any]) -> str:
    """How a person finds the row again."""
    primary = table.source.primary_key
    if not primary:
        return ", ".join(f"{n}={v}" for n, v in zip(table.source.cursor, key, strict=True))
    at = {column.name: index for index, column in enumerate(table.columns)}
    return ", ".join(f"{name}={values[at[name]]!r}" for name in primary)


def read(source: Source, table: TablePlan, after: Key | None = None) -> Iterator[tuple[Any, ...]]:
    """Every row in a fixed order: what orders it, then its values."""
    cursor = ", ".join(_cursor(table))
    columns = ", ".join(quoted(column.name) for column in table.columns)
    query = f"SELECT {cursor}, {columns} FROM {quoted(table.name)}"
    if after is not None:
        query += f" WHERE ({cursor}) > ({', '.join('?' * len(after))})"
    rows: Iterator[tuple[Any, ...]] = source.connection.execute(
        f"{query} ORDER BY {cursor}", after or ()
    )
    return rows


def _encoders(table: TablePlan, zone: str) -> list[Encoder]:
    # What a table of ours holds without a zone was written as UTC (speakfit.database.Instant).
    where = zone_named("UTC" if table.ours else zone)
    made = [encoder(one.kind, required=one.required, zone=where) for one in table.columns]
    return [one for one in made if one is not None]


def _misfits(
    table: TablePlan, encoders: Sequence[Encoder], values: Sequence[Any]
) -> list[tuple[str, str]]:
    found = []
    for column, encode, value in zip(table.columns, encoders, values, strict=True):
        try:
            encode(value)
        except MisfitError as misfit:
            found.append((column.name, str(misfit)))
    return found


def _digest(encoded: bytes) -> int:
    return int.from_bytes(md5(encoded, usedforsecurity=False).digest()[:8], "big", signed=True)


def check(source: Source, plan: Plan, zone: str, rejects: Rejects, say: Say) -> dict[str, Checked]:
    """Read every row as it would be copied, and find each that PostgreSQL would not take.

    This is also one side of the comparison at the end: it reads in one go what copying reads in
    batches, so a batch that was skipped or doubled cannot hide.
    """
    found: dict[str, Checked] = {}
    for number, table in enumerate(plan.tables):
        found[table.name] = checked = Checked()
        encoders = _encoders(table, zone)
        width = len(table.source.cursor)
        for count, row in enumerate(read(source, table), 1):
            values = row[width:]
            try:
                encoded = b"".join([e(v) for e, v in zip(encoders, values, strict=True)])
            except MisfitError:
                reasons = _misfits(table, encoders, values)
                _reject(table, checked, row[:width], values, reasons, rejects)
            else:
                checked.rows += 1
                checked.sum += _digest(encoded)
            if count % _SAY_EVERY == 0:
                say(table.name, _SAY_EVERY)
        say(table.name, (checked.rows + len(checked.rejected)) % _SAY_EVERY)
        _note_rejected(source, number, table, checked.rejected)
    _reject_orphans(source, plan, zone, found, rejects)
    return found


def _reject(
    table: TablePlan,
    checked: Checked,
    key: Key,
    values: Sequence[Any],
    reasons: Sequence[tuple[str, str]],
    rejects: Rejects,
) -> None:
    checked.rejected.add(key)
    for column, reason in reasons:
        checked.counts[column, reason] += 1
        if len(checked.problems) < _SHOWN:
            where = _row_text(table, key, values)
            checked.problems.append(
                Problem(table=table.name, key=where, column=column, reason=reason)
            )
    rejects.write(table, values, reasons)


def _note_rejected(source: Source, number: int, table: TablePlan, keys: set[Key]) -> None:
    """Rejected rows as a table in memory, for SQLite to look up."""
    names = [f"k{at}" for at in range(len(table.source.cursor))]
    source.connection.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS rejected_{number}"
        f" ({', '.join(names)}, PRIMARY KEY ({', '.join(names)})) WITHOUT ROWID"
    )
    source.connection.executemany(
        f"INSERT OR IGNORE INTO temp.rejected_{number} VALUES ({', '.join('?' * len(names))})",
        keys,
    )


def _reject_orphans(
    source: Source, plan: Plan, zone: str, found: dict[str, Checked], rejects: Rejects
) -> None:
    """Rows whose parent is missing or rejected; again and again, for they are parents as well."""
    numbers = {table.name: number for number, table in enumerate(plan.tables)}
    tables = {table.name: table for table in plan.tables}
    again = True
    while again:
        again = False
        for table in plan.tables:
            encoders = _encoders(table, zone)
            for key in table.keys:
                query = _orphans(table, tables[key.parent], key, numbers)
                orphans = source.connection.execute(query).fetchall()
                checked = found[table.name]
                column = ", ".join(key.columns)
                reason = f"refers to a row of {key.parent} that is missing or does not fit"
                for orphan in orphans:
                    values = _row(source, table, orphan)
                    encoded = [e(v) for e, v in zip(encoders, values, strict=True)]
                    checked.rows -= 1
                    checked.sum -= _digest(b"".join(encoded))
                    _reject(table, checked, orphan, values, [(column, reason)], rejects)
                if orphans:
                    again = True
                    _note_rejected(source, numbers[table.name], table, set(orphans))


def _row(source: Source, table: TablePlan, key: Key) -> tuple[Any, ...]:
    columns = ", ".join(quoted(column.name) for column in table.columns)
    this = " AND ".join(f"{one} = ?" for one in _cursor(table))
    row: tuple[Any, ...] = source.connection.execute(
        f"SELECT {columns} FROM {quoted(table.name)} WHERE {this}", key
    ).fetchone()
    return row


def _orphans(table: TablePlan, parent: TablePlan, key: KeyPlan, numbers: dict[str, int]) -> str:
    spelt = {column.target: quoted(column.name) for column in table.columns}
    mine = [f"child.{spelt[one]}" for one in key.columns]
    theirs = {column.target: quoted(column.name) for column in parent.columns}
    # Both comparisons: the first finds by index, the second is as exact as PostgreSQL.
    same = " AND ".join(
        f"parent.{theirs[other]} = {one} AND parent.{theirs[other]} = {one} COLLATE BINARY"
        for one, other in zip(mine, key.parent_columns, strict=True)
    )
    given = " AND ".join(f"{one} IS NOT NULL" for one in mine)

    def not_rejected(name: str, of: TablePlan) -> str:
        matches = " AND ".join(f"gone.k{at} = {name}.{one}" for at, one in enumerate(_cursor(of)))
        return (
            f"NOT EXISTS (SELECT 1 FROM temp.rejected_{numbers[of.name]} AS gone WHERE {matches})"
        )

    cursor = ", ".join(f"child.{one}" for one in _cursor(table))
    return (
        f"SELECT {cursor} FROM {quoted(table.name)} AS child"
        f" WHERE {given} AND {not_rejected('child', table)}"
        f" AND NOT EXISTS (SELECT 1 FROM {quoted(parent.name)} AS parent"
        f" WHERE {same} AND {not_rejected('parent', parent)})"
    )


# ---- copying


def copy_table(
    source: Source,
    connection: psycopg.Connection[Any],
    table: TablePlan,
    zone: str,
    rejected: set[Key],
    batch_rows: int,
    say: Say,
) -> int:
    """Copy what is not copied yet, batch by batch, and count the rows of this run."""
    progress = target.read_progress(connection, table.name)
    connection.commit()
    if progress.finished:
        return 0
    position = progress.position
    after = None if position is None else tuple(_from_json(one) for one in position)
    rows = read(source, table, after)
    encoders = _encoders(table, zone)
    copied = progress.copied
    columns = ", ".join(quoted(column.target) for column in table.columns)
    goal = f"{target.where(table.schema, table.name)} ({columns})"
    finished = False
    while not finished:
        source.check_unchanged()
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(f"COPY {goal} FROM STDIN (FORMAT BINARY)") as copy:
                batch = _Batch(table, encoders, rejected)
                finished = batch.fill(rows, copy, batch_rows, say)
            copied += batch.rows
            if batch.last is not None:
                position = [_as_json(one) for one in batch.last]
            target.write_progress(connection, table.name, position, copied, finished=finished)
    return copied - progress.copied


class _Batch:
    """One COPY: binary rows, sent in pieces while the next ones are made."""

    def __init__(self, table: TablePlan, encoders: Sequence[Encoder], rejected: set[Key]) -> None:
        self._table = table
        self._encoders = encoders
        self._rejected = rejected
        self._fields = len(table.columns).to_bytes(2, "big")
        self.rows = 0
        self.last: Key | None = None

    def fill(
        self, rows: Iterator[tuple[Any, ...]], copy: psycopg.Copy, most: int, say: Say
    ) -> bool:
        """Send up to `most` rows; True when there are no more."""
        width = len(self._table.source.cursor)
        piece, size, sent, read_now = [_HEADER], 0, 0, 0
        finished = True
        for row in rows:
            self.last = key = row[:width]
            read_now += 1
            if key not in self._rejected:
                encoded = self._encode(key, row[width:])
                piece.append(encoded)
                size += len(encoded)
                self.rows += 1
            if size > _PIECE:
                copy.write(b"".join(piece))
                sent += size
                piece, size = [], 0
            if read_now % _SAY_EVERY == 0:
                say(self._table.name, _SAY_EVERY)
            if read_now >= most or sent > _BATCH_BYTES:
                finished = False
                break
        copy.write(b"".join([*piece, _TRAILER]))
        say(self._table.name, read_now % _SAY_EVERY)
        return finished

    def _encode(self, key: Key, values: Sequence[Any]) -> bytes:
        try:
            return self._fields + b"".join(
                [e(v) for e, v in zip(self._encoders, values, strict=True)]
            )
        except MisfitError as misfit:
            raise MigrationError(
                f"A row of {self._table.name} that was fine when it was checked {misfit}.",
                where=_row_text(self._table, key, values),
                todo="Let nobody write to the source, then start over with --start-over.",
            ) from misfit


# ---- comparing


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One table on both sides."""

    table: str
    source_rows: int
    rejected: int
    target_rows: int
    source_sum: int
    target_sum: int
    types: bool
    sequences: bool
    keys: bool

    @property
    def equal(self) -> bool:
        """Whether nothing is missing, doubled or changed."""
        return (
            self.target_rows == self.source_rows - self.rejected
            and self.target_sum == self.source_sum
            and self.types
            and self.sequences
            and self.keys
        )


def compare(connection: psycopg.Connection[Any], table: TablePlan, checked: Checked) -> Compared:
    """Count and sum what the target holds now, less what it held before, and look at the rest."""
    progress = target.read_progress(connection, table.name)
    rows, total = target.count_and_sum(connection, table.schema, table.name, table.kinds)
    there = {
        column.name: (column.kind, column.required)
        for column in target.columns_of(connection, table.schema, table.name)
    }
    wanted = {column.target: (column.kind, column.required) for column in table.columns}
    keys = {
        (key.columns, key.parent) for key in target.keys_of(connection, table.schema, table.name)
    }
    return Compared(
        table=table.name,
        source_rows=table.source.rows,
        rejected=len(checked.rejected),
        target_rows=rows - progress.rows_before,
        source_sum=checked.sum,
        target_sum=total - progress.sum_before,
        types=wanted.items() <= there.items(),
        sequences=all(
            target.sequence_is_beyond(connection, sequence, table.schema, table.name, column)
            for column, sequence in target.sequences_of(connection, table.schema, table.name)
        ),
        keys={(key.columns, key.parent) for key in table.keys} <= keys,
    )
