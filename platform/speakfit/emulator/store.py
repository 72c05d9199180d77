"""Everything the emulator must remember, in one SQLite file; what was answered OK is on disk.

Without a folder the same tables live in memory. One connection and one lock: SQLite has a single
writer anyway, and a transaction that spans several tables is then simply a `with` block.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from speakfit.errors import SettingsError, Unavailable

_FILE = "emulator.sqlite3"
_VERSION = 3

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (collection, name)
);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    newest_ns INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS pending ON notifications (state, id);
"""


class _Closed:
    """Stands where the connection was, for calls that outlive it."""

    def __getattr__(self, _name: str) -> Any:
        raise Unavailable("The emulator has been stopped or reset.")

    def close(self) -> None:
        """Closing twice does no harm."""


class Store:
    """Documents by collection and name, points by series, and notifications still to be sent."""

    def __init__(self, folder: Path | None) -> None:
        self.durable = folder is not None
        self.lock = threading.RLock()
        self._depth = 0
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Routing keys are in it, and SQLite would make it readable for everybody.
                (folder / _FILE).touch(mode=0o600)
            # A time-out of zero: a second emulator on the same folder is an error, not a wait.
            self._db = sqlite3.connect(
                ":memory:" if folder is None else folder / _FILE,
                check_same_thread=False,
                isolation_level=None,
                timeout=0,
            )
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            # A commit is with the system before it is answered, so a killed process loses nothing;
            # to wait for the disk as well would guard against a power cut only.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript("BEGIN IMMEDIATE;" + _TABLES + "COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"The data folder cannot be used: {error}.",
                where=str(folder),
                todo="Stop the other emulator that uses it, or name another --data-dir.",
            ) from error
        version = self.fact("version")
        if version is None:
            self.set_fact("version", _VERSION)
        elif version != _VERSION:
            raise SettingsError(
                f"The data folder has version {version}, this emulator reads {_VERSION}.",
                where=str(folder),
                todo="Name another --data-dir.",
            )
        if self.fact("identity") is None:
            self.set_fact("identity", secrets.token_hex(8))
        self.identity: str = self.fact("identity")
        """Tells this data from all other; page tokens hold it."""

    def close(self) -> None:
        """Close the file; later calls raise Unavailable."""
        with self.lock:
            self._db.close()
            self._db = cast(sqlite3.Connection, _Closed())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside commit together or not at all; may be nested.

        Raises Unavailable when the disk refuses (full, gone, read-only).
        """
        with self.lock:
            if self._depth:
                yield
                return
            self._depth = 1
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise Unavailable(f"The emulator cannot store data: {error}.") from error
                raise
            finally:
                self._depth = 0

    # Facts: single values, JSON.

    def fact(self, key: str) -> Any:
        """A stored value, or None."""
        with self.lock:
            row = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_fact(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO facts VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, json.dumps(value)),
            )

    # Documents, in the order they were first written.

    def put(self, collection: str, name: str, body: bytes) -> None:
        """Write or replace one document."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO documents (collection, name, body) VALUES (?, ?, ?) "
                "ON CONFLICT (collection, name) DO UPDATE SET body = excluded.body",
                (collection, name, body),
            )

    def get(self, collection: str, name: str) -> bytes | None:
        """One document, or None."""
        with self.lock:
            row = self._db.execute(
                "SELECT body FROM documents WHERE collection = ? AND name = ?", (collection, name)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def remove(self, collection: str, name: str) -> bool:
        """Delete one document; False when there was none."""
        with self.transaction():
            done = self._db.execute(
                "DELETE FROM documents WHERE collection = ? AND name = ?", (collection, name)
            )
            return done.rowcount > 0

    def documents(self, collection: str) -> list[tuple[str, bytes]]:
        """All names and bodies of a collection, oldest first."""
        with self.lock:
            return [
                (str(name), bytes(body))
                for name, body in self._db.execute(
                    "SELECT name, body FROM documents WHERE collection = ? ORDER BY position",
                    (collection,),
                )
            ]

    # Series and points.

    def add_series(self, number: int, identity: str) -> None:
        """Name a series; its number is what its points refer to."""
        with self.transaction():
            self._db.execute("INSERT INTO series VALUES (?, ?)", (number, identity))

    def add_batch(self, newest_ns: int, body: bytes) -> None:
        """Append the points of one call; nothing to do when not durable."""
        if self.durable:
            with self.transaction():
                self._db.execute(
                    "INSERT INTO batches (newest_ns, body) VALUES (?, ?)", (newest_ns, body)
                )

    def series(self) -> list[tuple[int, str]]:
        """Numbers and identities of all series."""
        with self.lock:
            return list(self._db.execute("SELECT id, identity FROM series ORDER BY id"))

    def last_series(self) -> int:
        """The highest number a series ever had."""
        with self.lock:
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'series'")
            found = row.fetchone()
        return int(found[0]) if found else 0

    def batches(self) -> Iterator[bytes]:
        """All batches of points, oldest first; meant for the start."""
        with self.lock:
            for (body,) in self._db.execute("SELECT body FROM batches ORDER BY id"):
                yield bytes(body)

    def drop_batches(self, before_ns: int) -> None:
        """Forget the batches whose newest point ended before a time."""
        with self.transaction():
            self._db.execute("DELETE FROM batches WHERE newest_ns < ?", (before_ns,))

    def drop_series(self, numbers: Iterable[int]) -> None:
        """Forget series; numbers are not used again, so their points stay without an owner."""
        with self.transaction():
            for number in numbers:
                self._db.execute("DELETE FROM series WHERE id = ?", (number,))

    # Notifications.

    def add_notification(self, *, incident: str, channel: str, body: str) -> None:
        """Queue one notification behind all earlier ones."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO notifications (incident, channel, body) VALUES (?, ?, ?)",
                (incident, channel, body),
            )

    def drop_notifications(self, incident: str) -> None:
        """Forget all notifications of an incident, sent or not."""
        with self.transaction():
            self._db.execute("DELETE FROM notifications WHERE incident = ?", (incident,))

    def notifications(
        self, state: str | None = None, *, incident: str | None = None
    ) -> list[tuple[int, str, str, str, str, int, str]]:
        """(id, incident, channel, body, state, attempts, error), oldest first."""
        with self.lock:
            return list(
                self._db.execute(
                    "SELECT id, incident, channel, body, state, attempts, error FROM notifications "
                    "WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR incident = ?2) "
                    "ORDER BY id",
                    (state, incident),
                )
            )

    def set_notification(self, number: int, *, state: str, attempts: int, error: str) -> None:
        """Record how an attempt went; a finished notification forgets its body and its key."""
        with self.transaction():
            self._db.execute(
                "UPDATE notifications SET state = ?, attempts = ?, error = ?, "
                "body = CASE WHEN ? = 'pending' THEN body ELSE '' END WHERE id = ?",
                (state, attempts, error, state, number),
            )
