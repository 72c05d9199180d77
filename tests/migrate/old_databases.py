"""SQLite files as they are found in the field: ours with rows in it, and another application's."""

from __future__ import annotations

import json
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from speakfit.database import (
    Caller,
    Chunk,
    ChunkStatus,
    OutboxMessage,
    Recording,
    RecordingStatus,
    make_engine,
    transaction,
    upgrade,
)

BORN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def ours(path: Path, recordings: int, chunks: int = 3) -> None:
    """A database of this release, written by its own code."""
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    with transaction(engine) as session:
        caller = Caller(id=uuid.uuid4(), subject="key:coach", created_at=BORN)
        session.add(caller)
        session.flush()
        for number in range(recordings):
            recording = Recording(
                id=uuid.uuid4(),
                caller_id=caller.id if number % 2 else None,
                status=RecordingStatus.COMPLETED,
                content_type="audio/wav",
                size_bytes=2**40 + number,
                checksum="5" * 64,
                duration_seconds=31.1 + number,
                expected_chunks=chunks,
                speech=[[0.1, 0.30000000000000004]] if number % 3 else None,
                created_at=BORN + timedelta(microseconds=number),
            )
            session.add(recording)
            session.flush()
            for index in range(chunks):
                session.add(
                    Chunk(
                        recording_id=recording.id,
                        index=index,
                        start_seconds=index * 30.0,
                        end_seconds=index * 30.0 + 29.9,
                        status=ChunkStatus.DONE,
                        result={"text": f"Grüße 🎤 {number} \u0000", "words": [1, 2.5, None]},
                    )
                )
            session.add(
                OutboxMessage(task="speakfit.prepare", recording_id=recording.id, created_at=BORN)
            )
    engine.dispose()


def of_release(path: Path, revision: str, recordings: int) -> None:
    """A database of an earlier release, by plain SQL that knows only its columns."""
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine, revision)
    engine.dispose()
    with sqlite3.connect(path) as old:
        old.executemany(
            "INSERT INTO recordings (id, status, content_type, size_bytes, checksum,"
            " duration_seconds, expected_chunks, attempts, created_at)"
            " VALUES (?, 'queued', 'audio/wav', 1, 'c', 1.5, 1, 0, '2026-01-02 03:04:05.000000')",
            [(uuid.uuid4().hex,) for _ in range(recordings)],
        )
    old.close()


OTHER = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email VARCHAR(20) NOT NULL UNIQUE COLLATE NOCASE,
    admin BOOLEAN NOT NULL DEFAULT 0,
    joined DATETIME DEFAULT CURRENT_TIMESTAMP,
    born DATE,
    settings JSON,
    balance DECIMAL(10,2) DEFAULT 0,
    "order" TEXT DEFAULT 'it''s'
);
CREATE TABLE sessions (
    user_id INTEGER NOT NULL REFERENCES USERS(ID) ON DELETE CASCADE,
    day TEXT NOT NULL,
    score REAL,
    audio BLOB,
    seen DATETIME,
    anything,
    PRIMARY KEY (user_id, day)
) WITHOUT ROWID;
CREATE TABLE "5% lose notes" (
    text, parent INTEGER REFERENCES "5% lose notes"(number), number INTEGER PRIMARY KEY
);
CREATE INDEX sessions_by_score ON sessions (score);
CREATE INDEX late ON sessions (day) WHERE score > 1;
CREATE VIEW admins AS SELECT * FROM users WHERE admin;
CREATE TRIGGER tidy AFTER DELETE ON users BEGIN SELECT 1; END;
"""


def other(path: Path) -> None:
    """An application of somebody else, with all that SQLite lets through."""
    with sqlite3.connect(path) as old:
        old.executescript(OTHER)
        old.executemany(
            'INSERT INTO users (email, admin, joined, born, settings, balance, "order")'
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                ("a@x", 1, "2026-07-01 12:00:00", "1990-02-28", '{"a": [1.0]}', 12.5, "x"),
                ("b@x", 0, "2026-07-01T12:00:00+02:00", None, json.dumps("ü"), -0.07, None),
                ("c@x" + "y" * 40, 0, None, None, 5, 10_000, ""),
                ("deleted@x", 0, None, None, None, 1, "gone"),
            ],
        )
        old.execute("DELETE FROM users WHERE email = 'deleted@x'")
        old.executemany(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (1, "monday", 1.5, b"\x00\xff", 1_767_000_000, 1),
                (1, "tuesday", 9e999, None, 1_767_000_001, "two"),
                (2, "monday", 3, b"", None, 2.5),
            ],
        )
        old.executemany(
            'INSERT INTO "5% lose notes" VALUES (?, ?, ?)',
            [("child first", 9, 3), ("parent", None, 9)],
        )
    old.close()
