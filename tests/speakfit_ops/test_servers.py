"""PostgreSQL and Valkey from wheels: they keep their data and say why they cannot start."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from speakfit.errors import StackError
from speakfit_ops.servers import Server, postgres, valkey
from tests.conftest import free_port


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="speakfit-servers-"))
    yield found
    shutil.rmtree(found)


def test_postgres_keeps_its_data_and_wants_its_password(folder: Path) -> None:
    log = folder / "log"
    server = postgres(folder / "data", free_port())
    address = server.url.replace("+psycopg", "")
    password = address.split(":")[2].split("@")[0]
    with server.running(log), psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (x int)")
    assert password not in " ".join(server.command)
    assert (folder / "data.password").stat().st_mode & 0o077 == 0
    with postgres(folder / "data", free_port()).running(log) as again:
        address = again.url.replace("+psycopg", "")
        with psycopg.connect(address) as connection:
            connection.execute("SELECT x FROM kept")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(address.replace(password, "guessed"))


def test_valkey_keeps_its_data_and_refuses_to_drop_any(folder: Path) -> None:
    log = folder / "log"
    with (
        valkey(folder / "data", free_port()).running(log) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.lpush("queue", "work")
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    with (
        valkey(folder / "data", free_port()).running(log) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.lrange("queue", 0, -1) == [b"work"]


@pytest.mark.parametrize("make", [postgres, valkey])
def test_a_used_port_is_told_before_anything_starts(
    make: Callable[[Path, int], Server], folder: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = make(folder / "data", port)
        with pytest.raises(StackError, match=f"cannot have port {port}"):
            server.start(folder / "log")


def test_a_server_that_dies_is_told_with_the_end_of_its_log(folder: Path) -> None:
    server = postgres(folder / "data", free_port())
    server.prepare()
    (folder / "data" / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(StackError, match="nonsense"), server.running(folder / "log"):
        pytest.fail("it must not start")
