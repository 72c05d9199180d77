"""A million rows from SQLite to PostgreSQL: seconds of each stage, and the engines' own share.

    python -m tests.benchmarks.migrate [ROWS]

The source is a database of ours: one recording for every twenty chunks, each chunk with a
transcript of about 600 bytes. Beside it stands what the two databases need for themselves: SQLite
to read every row, and PostgreSQL to COPY the same rows as text made by PostgreSQL itself.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from services.migrate.plan import Choices, Plan
from services.migrate.rows import Say
from services.migrate.run import Order, Status, migrate
from speakfit.database import make_engine, upgrade
from speakfit_ops.servers import postgres
from tests.conftest import free_port

CHUNKS = 20
MOMENT = "2026-01-02 03:04:05.678901"


class _Silent:
    def planned(self, plan: Plan, address: str, *, resumed: bool) -> None:
        pass

    @contextmanager
    def stage(self, words: str, rows: int) -> Iterator[Say]:
        yield lambda table, done: None


def _fill(path: Path, rows: int) -> int:
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    words = [{"word": f"word{n}", "start": n * 0.31, "end": n * 0.31 + 0.2} for n in range(9)]
    result = json.dumps({"text": "so it was said " * 8, "words": words})
    recordings = rows // (CHUNKS + 1)
    with sqlite3.connect(path) as old:
        for _ in range(recordings):
            recording = uuid.uuid4().hex
            old.execute(
                "INSERT INTO recordings (id, status, content_type, size_bytes, checksum,"
                " duration_seconds, expected_chunks, speech, attempts, created_at, finished_at)"
                " VALUES (?, 'completed', 'audio/wav', 9600044, ?, 600.5, 20, ?, 1, ?, ?)",
                (recording, recording * 2, "[[0.1, 599.9]]", MOMENT, MOMENT),
            )
            old.executemany(
                "INSERT INTO chunks (recording_id, chunk_index, start_seconds, end_seconds,"
                " status, attempts, result, finished_at) VALUES (?, ?, ?, ?, 'done', 1, ?, ?)",
                [(recording, n, n * 30.0, n * 30.0 + 30, result, MOMENT) for n in range(CHUNKS)],
            )
    old.close()
    return recordings * (CHUNKS + 1)


def _bare_read(path: Path) -> float:
    began = time.perf_counter()
    with sqlite3.connect(path) as old:
        for table in ("recordings", "chunks"):
            for _ in old.execute(f"SELECT * FROM {table}"):
                pass
    old.close()
    return time.perf_counter() - began


def _bare_copy(url: str) -> float:
    """COPY out to a file of PostgreSQL's own text, empty the tables, and COPY it in again."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        kept: dict[str, list[bytes]] = {}
        for table in ("recordings", "chunks"):
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                kept[table] = [bytes(block) for block in copy]
        connection.execute("TRUNCATE recordings CASCADE")
        connection.commit()
        began = time.perf_counter()
        for table, blocks in kept.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for block in blocks:
                    copy.write(block)
        connection.commit()
        return time.perf_counter() - began


def main(rows: int) -> None:
    """Print one line a stage."""
    folder = Path(tempfile.mkdtemp(prefix="speakfit-benchmark-"))
    try:
        path = folder / "old.db"
        made = _fill(path, rows)
        size = path.stat().st_size / 2**20
        print(f"{made:,} rows, {size:.0f} MiB of SQLite")
        server = postgres(folder / "pg", free_port())
        with server.running(folder / "pg.log") as running:
            began = time.perf_counter()
            report = migrate(
                Order(source=f"sqlite:///{path}", target=running.url, choices=Choices()),
                _Silent(),
            )
            took = time.perf_counter() - began
            assert report.status is Status.MOVED, report.status
            for stage, seconds in report.seconds.items():
                print(f"  {stage:<10}{seconds:8.1f} s")
            print(f"  {'all':<10}{took:8.1f} s, {made / took:,.0f} rows/s")
            print(f"SQLite alone reads them in {_bare_read(path):.1f} s")
            print(f"PostgreSQL alone copies them in {_bare_copy(running.url):.1f} s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
