"""SIGKILL at random moments, again and again: the migration goes on and loses nothing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from services.migrate.run import Status
from speakfit.errors import MigrationError
from speakfit_ops.servers import postgres
from tests.conftest import ROOT, free_port
from tests.migrate import old_databases
from tests.migrate.test_migrate import everything, files, move, rows
from tests.new_postgres import new_postgres

KILLS = 25


def start(source: Path, url: str) -> subprocess.Popen[bytes]:
    options = ("--from", f"sqlite:///{source}", "--include-other", "--batch-rows", "500")
    return subprocess.Popen(
        [sys.executable, "-m", "services.migrate", *options],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "DATABASE_URL": url,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_goes_on_and_ends_equal(tmp_path: Path, database_url: str) -> None:
    source = tmp_path / "old.db"
    old_databases.ours(source, recordings=1_000, chunks=10)
    with sqlite3.connect(source) as old:
        old.executescript(old_databases.OTHER)
        old.executemany(
            "INSERT INTO users (email) VALUES (?)", [(f"{n}@x",) for n in range(10_000)]
        )
    old.close()
    before = files(tmp_path)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with new_postgres(database_url) as url:
        began = time.monotonic()
        whole = start(source, url)
        _, told = whole.communicate(timeout=300)
        assert whole.returncode == 0, told
        lasts = time.monotonic() - began
    killed = 0
    while killed < KILLS:
        with new_postgres(database_url) as url:
            process = start(source, url)
            while process.returncode is None:
                try:
                    _, told = process.communicate(timeout=chance.uniform(0.2, 0.8) * lasts)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed += 1
                    process = start(source, url)
            assert process.returncode == 0, (seed, told.decode())
            assert everything(url) == everything(f"sqlite:///{source}"), seed
            assert rows(url, "SELECT count(*), count(DISTINCT email), max(id) FROM users") == [
                (10_000, 10_000, 10_000)
            ]
            assert files(tmp_path) == before
    print(f"killed {killed} times, seed {seed}, one run lasts {lasts:.1f} s")


@pytest.mark.slow
def test_a_database_that_dies_meanwhile_stops_the_migration_and_it_goes_on(
    tmp_path: Path, server_dir: Path
) -> None:
    source = tmp_path / "old.db"
    old_databases.ours(source, recordings=500)
    server = postgres(server_dir / "dying", free_port())
    log = server_dir / "dying.log"
    process = server.start(log)
    server.wait_ready(process, log)
    batches = 0

    def kill(stage: str) -> None:
        nonlocal batches
        batches += stage == "copying"
        if batches == 20:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    with pytest.raises(MigrationError, match="Copying stopped") as stopped:
        move(source, server.url, kill, batch_rows=50)
    assert stopped.value.exit_code == 4
    assert str(make_url(server.url).password) not in str(stopped.value)
    # A postmaster that was killed leaves its lock and, for a moment, its children.
    (server.data_dir / "postmaster.pid").unlink(missing_ok=True)
    with server.running(log):
        report = move(source, server.url, batch_rows=50)
        assert (report.status, report.resumed) == (Status.MOVED, True)
        assert 0 < report.copied < sum(one.target_rows for one in report.compared)
        assert everything(server.url) == everything(f"sqlite:///{source}")
