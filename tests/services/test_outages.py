"""What a worker survives: a broker that dies under its feet, a full disk."""

from __future__ import annotations

import resource
import ssl
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from sqlalchemy import Engine, select

from speakfit.database import Chunk, ChunkStatus, Recording, transaction
from speakfit.jobs import make_celery
from speakfit_ops.servers import valkey
from tests.conftest import free_port, service, serving_api
from tests.recording_monitoring import until
from tests.services.speech import AUSTEN, samples_of, silence, write_wav
from tests.services.test_recordings import finished, upload


def long_speech(folder: Path) -> Path:
    """Speech that becomes three chunks."""
    spoken, gap = samples_of(AUSTEN), silence(5.0)
    return write_wav(folder / "long.wav", np.concatenate([spoken, gap, spoken, gap, spoken]))


def chunks(engine: Engine) -> list[tuple[str, int]]:
    with transaction(engine) as session:
        rows = session.execute(select(Chunk.status, Chunk.attempts).order_by(Chunk.index)).all()
        return [(status, attempts) for status, attempts in rows]


def busy(engine: Engine) -> bool:
    return ChunkStatus.LEASED in [status for status, _ in chunks(engine)]


def test_a_broker_killed_under_a_busy_worker_loses_nothing_and_stops_nothing(
    environment: dict[str, str], engine: Engine, server_dir: Path, tmp_path: Path
) -> None:
    server = valkey(server_dir / "mortal-valkey", free_port())
    server.prepare()
    own = {**environment, "REDIS_URL": server.url, "AUDIO_DIR": str(tmp_path / "audio")}
    log = tmp_path / "valkey.log"
    process = server.start(log)
    try:
        server.wait_ready(process, log)
        with (
            serving_api(own, tmp_path / "api.log") as api,
            service("services.worker", own, tmp_path / "worker.log") as worker,
        ):
            recording_id = upload(api, long_speech(tmp_path))
            until(lambda: busy(engine), what="a chunk at work")
            process.kill()
            process.wait()
            # Only now its acknowledgement has failed and is not tried again.
            until(lambda: "Couldn't ack" in worker.log.read_text(), what="a lost acknowledgement")
            process = server.start(log)
            server.wait_ready(process, log)
            view = finished(api, recording_id, 30)
            assert worker.popen.poll() is None, "the same worker finished it"
    finally:
        server.stop(process)
    assert (view["status"], view["chunks"]) == ("completed", {"done": 3, "total": 3})
    assert [status for status, _ in chunks(engine)] == ["done"] * 3


def test_a_full_disk_under_the_worker_loses_nothing_that_was_accepted(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    own = {**environment, "AUDIO_DIR": str(tmp_path / "audio")}
    unlimited = resource.RLIM_INFINITY
    with (
        serving_api(own, tmp_path / "api.log") as api,
        service("services.worker", own, tmp_path / "worker.log") as worker,
    ):
        # A limit on file size fails a write where a full disk would; processes inherit it.
        resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, (100_000, unlimited))
        recording_id = upload(api, AUSTEN)

        def paused() -> int:
            return worker.log.read_text().count("this process pauses")

        until(lambda: paused() >= 2, 40, "trouble twice")
        assert api.get(f"/v1/recordings/{recording_id}").json()["status"] != "failed"
        for process in psutil.Process(worker.popen.pid).children(recursive=True):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        assert finished(api, recording_id)["status"] == "completed"
    with transaction(engine) as session:
        assert session.scalars(select(Recording.attempts)).all() == [1]


@pytest.mark.parametrize(
    ("address", "verified"),
    [
        ("rediss://u:p@broker:6379/0", ssl.CERT_REQUIRED),
        ("rediss://u:p@broker:6379/0?ssl_cert_reqs=none", ssl.CERT_NONE),
        ("redis://u:p@broker:6379/0", None),
    ],
)
def test_an_encrypted_broker_address_stays_encrypted(
    address: str, verified: ssl.VerifyMode | None
) -> None:
    connection = make_celery(address).connection_for_read()
    options = connection.ssl or {}
    assert options.get("ssl_cert_reqs") == verified
