"""Everything is killed at random moments, and nothing that was accepted is lost or doubled.

SIGKILL to a transcribing process, a whole worker, the API, Valkey and PostgreSQL, each started
again soon after, as Kubernetes or systemd would. The seed is printed; SPEAKFIT_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import redis
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from speakfit.database import (
    Chunk,
    ChunkStatus,
    DeadLetter,
    OutboxMessage,
    Recording,
    RecordingStatus,
    make_engine,
    transaction,
    upgrade,
)
from speakfit.errors import StackError
from speakfit.jobs import unacknowledged_count, waiting_count
from speakfit_ops.servers import Server, postgres, valkey
from tests.conftest import ROOT, free_port, fresh_key
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY, samples_of, silence, write_wav

VICTIMS = ("child", "worker", "api", "valkey", "postgres")
DEATHS_A_ROUND = 2
"""Fewer than the attempts that work has: nobody else is to blame for them here."""


@dataclass(kw_only=True)
class Fleet:
    """API, worker and both servers as processes that die and come back."""

    folder: Path
    environment: dict[str, str]
    database: Server
    broker: Server
    port: int
    running: dict[str, subprocess.Popen[Any]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a part that is not there, and wait for servers to answer."""
        log = self.folder / f"{name}.log"
        server = {"postgres": self.database, "valkey": self.broker}.get(name)
        if server is not None:
            # The remains of a killed one hold its port and its memory for a moment.
            until(lambda: self._start_server(name, server, log), 30, name)
            return
        arguments = {
            "api": ["services.api", "--port", str(self.port)],
            "worker": ["services.worker", "--processes", "2"],
        }[name]
        with log.open("a") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_server(self, name: str, server: Server, log: Path) -> bool:
        try:
            self.running[name] = server.start(log)
            server.wait_ready(self.running[name], log)
        except StackError:
            return False
        return True

    def kill(self, name: str) -> None:
        """SIGKILL a part with all its processes; of a child nothing else."""
        if name == "child":
            with suppress(psutil.Error):
                children = psutil.Process(self.running["worker"].pid).children()
                pool = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
                if pool:
                    random.choice(pool).kill()
            return
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        """Leave nothing behind."""
        for name in list(self.running):
            self.kill(name)

    def revive(self) -> None:
        """Start again whatever has died, killed or of its own accord."""
        for name in ("postgres", "valkey", "api", "worker"):
            process = self.running.get(name)
            if process is None or process.poll() is not None:
                self.start(name)


@contextmanager
def fleet(environment: dict[str, str], server_dir: Path, folder: Path) -> Iterator[Fleet]:
    """A fleet of its own on a database of its own."""
    name = secrets.token_hex(4)
    database = postgres(server_dir / f"mortal-postgres-{name}", free_port())
    broker = valkey(folder / "valkey", free_port())
    own = {
        **environment,
        "DATABASE_URL": database.url,
        "REDIS_URL": broker.url,
        "AUDIO_DIR": str(folder / "audio"),
        # Exporting is not what is proved here.
        "MONITORING_EMULATOR_HOST": "",
    }
    made = Fleet(folder=folder, environment=own, database=database, broker=broker, port=free_port())
    with ExitStack() as stack:
        stack.callback(made.end)
        made.start("postgres")
        made.start("valkey")
        engine = make_engine(database.url)
        upgrade(engine)
        engine.dispose()
        made.start("api")
        made.start("worker")
        yield made


def endure(fleet: Fleet, clips: list[Path], *, rounds: int, at_once: int) -> None:
    """Upload, kill, start again, and look whether everything is there once."""
    seed = int(os.environ.get("SPEAKFIT_SEED") or secrets.randbits(32))
    print(f"SPEAKFIT_SEED={seed}")
    chance = random.Random(seed)
    headers = {"Authorization": f"Bearer {fresh_key(fleet.database.url)}"}
    engine = make_engine(fleet.database.url)
    accepted: dict[str, Path] = {}
    base = f"http://127.0.0.1:{fleet.port}"
    with httpx.Client(base_url=base, headers=headers, timeout=10) as api:
        for _ in range(rounds):
            killing = threading.Thread(target=_kill_some, args=(fleet, chance))
            killing.start()
            for _ in range(at_once):
                clip = chance.choice(clips)
                accepted[_accepted(api, clip)] = clip
            killing.join()
            fleet.revive()

            def ended() -> bool:
                # A worker whose child is killed while it starts ends, for its supervisor to restart
                # (Celery: "Could not start worker processes"), and some time after the kill.
                fleet.revive()
                return _all_completed(engine)

            try:
                until(ended, 60, "the end of every recording")
            except AssertionError as error:
                raise AssertionError(f"{error}: {_unfinished(engine)}") from None
        _assert_once(engine, accepted)
        client = redis.Redis.from_url(fleet.broker.url)
        # What a killed worker held comes back after the visibility time-out and finds nothing.
        if rounds > 1:
            until(lambda: not _held(client), 200, "an empty queue")
        client.close()
    engine.dispose()


def _unfinished(engine: Engine) -> list[str]:
    """What a round that does not end waits for."""
    with transaction(engine) as session:
        recordings = session.execute(
            select(
                Recording.id, Recording.status, Recording.attempts, Recording.lease_expires_at
            ).where(Recording.status != RecordingStatus.COMPLETED)
        ).all()
        chunks = session.execute(
            select(
                Chunk.recording_id, Chunk.index, Chunk.status, Chunk.attempts, Chunk.error
            ).where(Chunk.status != ChunkStatus.DONE)
        ).all()
    return [str(tuple(row)) for row in (*recordings, *chunks)]


def _held(client: redis.Redis) -> int:
    return waiting_count(client) + unacknowledged_count(client)


def _kill_some(fleet: Fleet, chance: random.Random) -> None:
    for _ in range(DEATHS_A_ROUND):
        time.sleep(chance.uniform(0, 2))
        victim = chance.choice(VICTIMS)
        print("kill", victim)
        fleet.kill(victim)
        time.sleep(chance.uniform(0, 1))
        fleet.revive()


def _accepted(api: httpx.Client, clip: Path) -> str:
    return str(until(lambda: _upload(api, clip), 60, "an upload"))


def _upload(api: httpx.Client, clip: Path) -> str | None:
    """The id of what was accepted; None when nobody answered or nothing was accepted."""
    try:
        answer = api.post("/v1/recordings", files={"file": clip.read_bytes()})
    except httpx.TransportError:
        time.sleep(0.1)
        return None
    return str(answer.json()["id"]) if answer.status_code == 202 else None


def _all_completed(engine: Engine) -> bool:
    try:
        with transaction(engine) as session:
            left = select(func.count()).where(Recording.status != "completed")
            return not session.scalar(left.select_from(Recording))
    except SQLAlchemyError:
        return False


def _assert_once(engine: Engine, accepted: dict[str, Path]) -> None:
    with transaction(engine) as session:
        recordings = {str(one.id): one for one in session.scalars(select(Recording))}
        chunks = session.scalars(select(Chunk).order_by(Chunk.recording_id, Chunk.index)).all()
        assert session.scalars(select(DeadLetter)).all() == []
        assert session.scalars(select(OutboxMessage)).all() == []
    assert accepted.keys() <= recordings.keys(), "none lost"
    heard: dict[str, list[str]] = {}
    for chunk in chunks:
        assert (chunk.status, chunk.lease_owner) == ("done", None)
        result = chunk.result or {}
        heard.setdefault(str(chunk.recording_id), []).append(
            " ".join(segment["text"] for segment in result["segments"])
        )
    assert heard.keys() == recordings.keys()
    texts: dict[Path, list[str]] = {}
    for recording_id, clip in accepted.items():
        recording = recordings[recording_id]
        assert (recording.status, recording.lease_owner) == ("completed", None)
        assert recording.expected_chunks == len(heard[recording_id])
        assert heard[recording_id] == texts.setdefault(clip, heard[recording_id])
    print({clip.name: len(text) for clip, text in texts.items()}, len(recordings), "recordings")


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """A short recording of one chunk and one of three."""
    spoken = samples_of(KENNEDY)[: 4 * 16_000]
    gap = silence(5.0)
    return [
        write_wav(tmp_path / "short.wav", spoken),
        write_wav(tmp_path / "long.wav", np.concatenate([spoken, gap, spoken, gap, spoken])),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_recordings_outlive_forty_deaths(
    environment: dict[str, str], server_dir: Path, tmp_path: Path, clips: list[Path]
) -> None:
    with fleet(environment, server_dir, tmp_path) as mortal:
        endure(mortal, clips, rounds=20, at_once=10)


def test_some_recordings_outlive_two_deaths(
    environment: dict[str, str], server_dir: Path, tmp_path: Path, clips: list[Path]
) -> None:
    with fleet(environment, server_dir, tmp_path) as mortal:
        endure(mortal, clips, rounds=1, at_once=3)
