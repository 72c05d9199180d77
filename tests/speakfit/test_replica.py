"""Reads on a real streaming replica: fresh ones go there, all others to the primary."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from speakfit.database import make_engine
from speakfit.errors import SettingsError
from speakfit.replica import Reads, reads_from
from speakfit.settings import Settings
from speakfit_ops.servers import Server, postgres
from tests.conftest import free_port
from tests.recording_monitoring import until

LAG = timedelta(seconds=2)


@pytest.fixture(scope="module")
def standby(server_dir: Path, database_url: str) -> Server:
    """A copy of the tests' PostgreSQL that follows it once it is started."""
    data = server_dir / "standby"
    password = server_dir / "standby.password"
    shutil.copy2(server_dir / "postgres.password", password)
    server = postgres(data, free_port())
    data.mkdir(mode=0o700)
    if server.account.uid is not None and server.account.gid is not None:
        os.chown(data, server.account.uid, server.account.gid)
    url = make_url(database_url)
    subprocess.run(
        [
            str(Path(server.command[0]).with_name("pg_basebackup")),
            *("-D", str(data), "-R", "-X", "stream", "-c", "fast"),
            *("-h", str(url.host), "-p", str(url.port), "-U", str(url.username)),
        ],
        env={"PATH": os.defpath, "PGPASSWORD": str(url.password)},
        cwd=data,
        check=True,
        capture_output=True,
        timeout=120,
        user=server.account.uid,
        group=server.account.gid,
        extra_groups=server.account.extra_groups,
    )
    return server


@pytest.fixture
def replica(standby: Server, server_dir: Path) -> Iterator[Engine]:
    """The running replica."""
    with standby.running(server_dir / "standby.log") as server:
        engine = make_engine(server.url)
        yield engine
        engine.dispose()


@pytest.fixture
def reads(engine: Engine, replica: Engine) -> Reads:
    """Reads that have found the replica fresh."""
    reads = Reads(engine, replica, max_lag=LAG)
    assert reads.engine() is engine, "nothing is known yet, so the primary is asked"
    until(lambda: reads.engine() is replica, what="the replica to be fresh")
    return reads


def is_standby(session: Session) -> bool:
    return bool(session.scalar(text("SELECT pg_is_in_recovery()")))


def write(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO worker_heartbeats VALUES (:name, now(), now(), 1)"), {"name": name}
        )


def names(session: Session) -> set[str]:
    return set(session.scalars(text("SELECT worker_id FROM worker_heartbeats")))


def test_lists_are_read_from_the_replica_and_one_sees_what_one_wrote(
    reads: Reads, engine: Engine, replica: Engine
) -> None:
    assert reads.run(is_standby) is True
    with replica.connect() as connection:
        connection.execute(text("SELECT pg_wal_replay_pause()"))
        connection.commit()
        write(engine, "mine")
        mine = reads.position()
        # Another's list may be older, by no more than the bound; mine may not.
        assert "mine" in reads.run(names, after=mine)
        assert reads.run(is_standby, after=mine) is False
        assert "mine" not in names_on(replica)
        until(lambda: reads.engine() is engine, what="the replica to be too old")
        assert "mine" in reads.run(names)
        connection.execute(text("SELECT pg_wal_replay_resume()"))
        connection.commit()
    until(lambda: reads.engine(mine) is replica, what="the replica to have caught up")
    assert "mine" in reads.run(names, after=mine)


def names_on(engine: Engine) -> set[str]:
    with Session(engine) as session:
        return names(session)


def test_a_replica_that_dies_under_a_query_costs_no_answer(
    reads: Reads, engine: Engine, replica: Engine
) -> None:
    tries = []

    def interrupted(session: Session) -> bool:
        tries.append(is_standby(session))
        if tries == [True]:
            with replica.connect() as connection:
                own = session.scalar(text("SELECT pg_backend_pid()"))
                connection.execute(text("SELECT pg_terminate_backend(:own)"), {"own": own})
            session.execute(text("SELECT 1"))
        return is_standby(session)

    assert reads.run(interrupted) is False
    assert tries == [True, False]
    assert reads.engine() is engine, "it is not asked again before it has been found fresh"


def test_a_query_that_only_reads_cannot_write_on_either_side(reads: Reads, engine: Engine) -> None:
    def writes(session: Session) -> None:
        session.execute(text("DELETE FROM worker_heartbeats"))

    for after in (None, reads.position() + 2**40):
        with pytest.raises(DBAPIError, match="read-only transaction"):
            reads.run(writes, after=after)


def test_a_replica_that_is_away_or_is_none_is_never_asked(engine: Engine) -> None:
    away = make_engine("postgresql+psycopg://u:p@127.0.0.1:1/x")
    for wrong in (away, engine.execution_options()):
        reads = Reads(engine, wrong, max_lag=timedelta(milliseconds=50))
        for _ in range(20):
            assert reads.engine() is engine
            assert reads.run(is_standby) is False
            until(reads._lock.acquire, what="the check to end")
            reads._lock.release()
    away.dispose()


def test_without_a_replica_every_read_is_the_primarys(either_engine: Engine) -> None:
    reads = reads_from(Settings(database_replica_url=None), either_engine)
    assert reads.engine(reads.position()) is either_engine
    assert reads.run(names) == set()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://root:secret@localhost/x"])
def test_an_address_that_cannot_be_a_replica_is_refused(engine: Engine, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        reads_from(Settings(database_replica_url=url), engine)
    assert refused.value.where == "DATABASE_REPLICA_URL"
    assert "secret" not in str(refused.value)
