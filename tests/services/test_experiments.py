"""What Celery alone does badly, done to our worker: every experiment that was measured with it.

Each test names in its first line what Celery did in the same place.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import redis
from sqlalchemy import Engine, select

from services.worker.stopping import END_AFTER
from speakfit.database import Chunk, DeadLetter, OutboxMessage, Recording, transaction
from speakfit.jobs import (
    ATTEMPTS,
    PREPARE,
    TRANSCRIBE,
    Job,
    make_celery,
    send,
    unacknowledged_count,
    waiting_count,
)
from speakfit.settings import Settings
from tests.conftest import Process, fresh_key, service, serving_api
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY, samples_of, silence, write_wav
from tests.services.test_outages import busy, chunks, long_speech
from tests.services.test_recordings import finished, upload

pytestmark = pytest.mark.slow

TAKE_OVER_WITHIN = 20.0
SPOT_MACHINE_ENDS = 25.0

# Runs in every process of the worker, before anything is transcribed.
HOOK = """
import os
os.environ["REMAP_SIGTERM"] = "SIGQUIT"
import ctypes, pathlib, runpy, signal, time
import services.worker.tasks as tasks
store = tasks.store_result

def once(name):
    try:
        pathlib.Path(__file__).with_name(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def hooked(engine, work, *rest, **named):
    {act}
    return store(engine, work, *rest, **named)

tasks.store_result = hooked
if __name__ == "__main__":
    runpy.run_module("services.worker", run_name="__main__")
"""


@contextmanager
def hooked_worker(environment: dict[str, str], folder: Path, act: str) -> Iterator[Process]:
    """A worker that does `act` between transcribing a chunk and storing it."""
    (folder / "hooked_worker.py").write_text(HOOK.format(act=act))
    own = {**environment, "PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"}
    with service("hooked_worker", own, folder / "worker.log") as worker:
        yield worker


def transcribing(worker: Process) -> psutil.Process:
    """The one process of its pool."""
    children = psutil.Process(worker.popen.pid).children()
    (found,) = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    return found


def empty(broker: redis.Redis, engine: Engine) -> bool:
    with transaction(engine) as session:
        unsent = session.scalars(select(OutboxMessage)).all()
    return not unsent and waiting_count(broker) == 0 and unacknowledged_count(broker) == 0


def test_a_killed_child_costs_one_attempt_even_when_its_message_is_lost(
    api: httpx.Client,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    """Celery: restarted after 4.7 s, or message gone, according to a setting."""
    with service("services.worker", environment, tmp_path / "worker.log") as worker:
        recording_id = upload(api, long_speech(tmp_path))
        until(lambda: busy(engine), what="a chunk at work")
        transcribing(worker).kill()
        broker.flushall()
        assert finished(api, recording_id)["status"] == "completed"
        assert worker.popen.poll() is None
    assert max(attempts for _, attempts in chunks(engine)) == 2
    assert [status for status, _ in chunks(engine)] == ["done"] * 3


def test_a_chunk_that_kills_its_process_ends_as_a_dead_letter_and_blocks_nobody(
    api: httpx.Client,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    """Celery: 6 deaths in 25 s, endless; with bounded retries of its own 4 deaths and no trace."""
    poison = "work.index == 1 and os.kill(os.getpid(), signal.SIGKILL)"
    with hooked_worker(environment, tmp_path, poison):
        bad = upload(api, long_speech(tmp_path))
        good = [upload(api, KENNEDY) for _ in range(3)]
        assert [finished(api, one)["status"] for one in good] == ["completed"] * 3
        view = finished(api, bad)
        assert (view["status"], view["error"]["code"]) == ("failed", "chunk-failed")
        until(lambda: empty(broker, engine), what="an empty queue")
    with transaction(engine) as session:
        letter = session.scalars(select(DeadLetter)).one()
        assert (str(letter.recording_id), letter.chunk_index) == (bad, 1)
        assert letter.attempts == ATTEMPTS
        innocent = select(Chunk.attempts).where(Chunk.recording_id != letter.recording_id)
        assert set(session.scalars(innocent)) == {1}


def test_a_killed_worker_is_taken_over_within_twenty_seconds(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: redelivered after 87.9 s, or 17.9 s at best."""
    # The lease that production has.
    lease = Settings.model_fields["chunk_lease"].default.total_seconds()
    own = {**environment, "CHUNK_LEASE": f"PT{lease:g}S"}
    slow = "once('first') and time.sleep(600)"
    with hooked_worker(own, tmp_path, slow) as first:
        recording_id = upload(api, long_speech(tmp_path))
        until(lambda: (tmp_path / "first").exists(), what="a chunk that takes long")
        with service("services.worker", own, tmp_path / "second.log"):
            until(lambda: _done(engine) == 2, what="the other chunks")
            first.kill()
            until(lambda: _done(engine) == 3, TAKE_OVER_WITHIN, "the chunk that was taken over")
            assert finished(api, recording_id)["status"] == "completed"
    assert sorted(attempts for _, attempts in chunks(engine)) == [1, 1, 2]


def _done(engine: Engine) -> int:
    return [status for status, _ in chunks(engine)].count("done")


def test_a_stop_lets_a_chunk_of_seconds_finish_and_begins_no_other(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: requeued after 1.3 s, or sleeps its whole window; a plain SIGTERM waits for all."""
    with hooked_worker(environment, tmp_path, "once('begun'); time.sleep(2)") as worker:
        recording_id = upload(api, long_speech(tmp_path))
        until(lambda: (tmp_path / "begun").exists(), what="a chunk at work")
        assert worker.stop() == 0
    assert chunks(engine) == [("done", 1), ("pending", 0), ("pending", 0)]
    with service("services.worker", environment, tmp_path / "second.log"):
        assert finished(api, recording_id)["status"] == "completed"


HANGS = {
    "in Python": "time.sleep(600)",
    "in native code that keeps the lock": "ctypes.PyDLL(None).pause()",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("how", HANGS)
def test_a_stop_does_not_wait_for_what_hangs(
    how: str, api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: waits without end for what is stopped or deep in native code."""
    assert END_AFTER.total_seconds() < SPOT_MACHINE_ENDS
    # Only handing over can free the chunk: its lease outlives the test.
    patient = {**environment, "CHUNK_LEASE": "PT10M"}
    with hooked_worker(patient, tmp_path, f"once('begun'); {HANGS[how]}") as worker:
        recording_id = upload(api, KENNEDY)
        until(lambda: (tmp_path / "begun").exists(), what="a chunk that hangs")
        worker.popen.terminate()
        worker.popen.wait(SPOT_MACHINE_ENDS)
        assert not _left(worker)
    assert chunks(engine) == [("pending", 0)]
    with service("services.worker", patient, tmp_path / "second.log"):
        assert finished(api, recording_id)["status"] == "completed"


def _left(worker: Process) -> list[int]:
    """Processes of the worker's group that outlived it."""
    return [
        one.pid
        for one in psutil.process_iter()
        if one.status() != psutil.STATUS_ZOMBIE and _group(one.pid) == worker.popen.pid
    ]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.parametrize("how", ["in native code that keeps the lock", "stopped"])
def test_a_process_that_hangs_is_killed_in_proportion_to_its_chunk(
    how: str, api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: threads' time-outs never fire; only a pool's hard limit does, the same for all."""
    own = {**environment, "CHUNK_TIME_LIMIT": "PT12S"}
    with hooked_worker(own, tmp_path, f"once('begun') and {HANGS[how]}") as worker:
        assert finished(api, upload(api, KENNEDY))["status"] == "completed"
        assert "hung; it is killed" in worker.log.read_text()
    assert chunks(engine) == [("done", 2)]


def test_a_process_whose_parent_is_gone_begins_nothing_more(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: an orphan finishes its task; ours would go on while there is work."""
    with hooked_worker(environment, tmp_path, "once('begun'); time.sleep(1)") as worker:
        upload(api, long_speech(tmp_path))
        until(lambda: (tmp_path / "begun").exists(), what="a chunk at work")
        os.kill(worker.popen.pid, signal.SIGKILL)
        worker.popen.wait()
        until(lambda: not _left(worker), what="the end of the orphan")
    assert _done(engine) <= 1


def test_work_whose_audio_vanished_fails_after_its_tries(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Before: it was retried for ever, as trouble of the machine."""
    recording_id = upload(api, KENNEDY)
    with transaction(engine) as session:
        key = session.get_one(Recording, uuid.UUID(recording_id)).object_key
    assert key is not None
    (Path(environment["AUDIO_DIR"]) / key).unlink()
    with service("services.worker", environment, tmp_path / "worker.log"):
        view = finished(api, recording_id)
    assert (view["status"], view["error"]["code"]) == ("failed", "audio-missing")
    with transaction(engine) as session:
        assert session.scalars(select(DeadLetter)).one().attempts == ATTEMPTS
        assert session.scalars(select(Recording.attempts)).all() == [ATTEMPTS]


def test_deliveries_out_of_order_and_many_times_over_change_nothing(
    api: httpx.Client,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Celery: at least once, in any order; a task must bear it."""
    recording_id = uuid.UUID(upload(api, long_speech(tmp_path)))
    until(lambda: waiting_count(broker) == 1, what="its message")
    broker.flushall()
    celery = make_celery(redis_url)
    for index in (2, 1, 0):
        for _ in range(3):
            send(celery, Job(task=TRANSCRIBE, recording_id=recording_id, chunk_index=index))
    send(celery, Job(task=PREPARE, recording_id=recording_id))
    send(celery, Job(task=PREPARE, recording_id=uuid.uuid4()))
    celery.close()
    with service("services.worker", environment, tmp_path / "worker.log"):
        assert finished(api, str(recording_id))["status"] == "completed"
        until(lambda: empty(broker, engine), what="an empty queue")
    assert chunks(engine) == [("done", 1)] * 3


def test_a_clock_that_jumps_under_a_worker_changes_nothing(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    """Celery: a jump ahead makes every unacknowledged message come back at once."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "real, file = time.time, pathlib.Path(__file__).with_name('offset')\n"
        "time.time = lambda: real() + float(file.read_text() or 0)\n"
    )
    slowly = "once('begun'); time.sleep(1)"
    with hooked_worker(environment, tmp_path, slowly):
        recording_id = upload(api, long_speech(tmp_path))
        until(lambda: (tmp_path / "begun").exists(), what="a chunk at work")
        for days in (1, -2, 400):
            offset.write_text(str(days * 86_400))
            time.sleep(1)
        assert finished(api, recording_id)["status"] == "completed"
    assert chunks(engine) == [("done", 1)] * 3


WORKER_MEMORY = 500_000_000
THREE_HOURS = 180


def test_three_hours_are_cut_once_in_little_memory_and_keep_nobody_waiting(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    """Celery: first come, first served; and a lease shorter than a task is taken over."""
    own = {
        **environment,
        "AUDIO_DIR": str(tmp_path / "audio"),
        "MAX_UPLOAD_BYTES": str(500_000_000),
        "MAX_RECORDING_DURATION": "PT3H1M",
    }
    minute = np.concatenate([samples_of(KENNEDY)[:32_000], silence(58)])
    path = write_wav(tmp_path / "long.wav", np.tile(minute, THREE_HOURS))
    largest = 0
    with (
        serving_api(own, tmp_path / "api.log") as api,
        service("services.worker", own, tmp_path / "first.log") as worker,
        service("services.worker", own, tmp_path / "second.log"),
    ):
        long = upload(api, path)
        api.headers["Authorization"] = f"Bearer {fresh_key(own['DATABASE_URL'], 'another')}"
        until(lambda: busy(engine), what="a chunk at work")
        short = upload(api, KENNEDY)
        assert finished(api, short)["status"] == "completed"
        assert _done(engine) < THREE_HOURS / 2

        def ended() -> bool:
            nonlocal largest
            largest = max(largest, _memory(worker))
            with transaction(engine) as session:
                return session.get_one(Recording, uuid.UUID(long)).status == "completed"

        until(ended, 150, "the end of three hours")
    with transaction(engine) as session:
        assert session.scalars(select(Recording.attempts)).all() == [1, 1]
    assert set(chunks(engine)) == {("done", 1)}
    assert len(chunks(engine)) == THREE_HOURS + 1
    print(f"{largest / 1e6:.0f} MB")
    assert largest < WORKER_MEMORY


def _memory(worker: Process) -> int:
    """Bytes of all its processes, each page that they share counted once."""
    root = psutil.Process(worker.popen.pid)
    return sum(one.memory_full_info().pss for one in [root, *root.children(recursive=True)])
