"""The audio store: a folder, and a bucket behind Google's own protocol on loopback."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, select, update

from speakfit.database import Recording, StoredObject, database_now, transaction
from speakfit.errors import AudioError, StoreError
from speakfit.objects import hold_object, put_object, remove_unused, unused_objects
from speakfit.store import (
    AudioStore,
    BucketStore,
    LocalStore,
    checksum_of,
    chunk_folder,
    chunk_key,
    object_key,
)
from tests.conftest import free_port, service, serving_api
from tests.services.speech import AUSTEN, KENNEDY
from tests.services.test_recordings import assert_problem, finished, upload

BUCKET = "speakfit-audio"
CONTENT = os.urandom(300_000)


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """A server of Google Cloud Storage's protocol, with one bucket."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AudioStore:
    if request.param == "folder":
        return LocalStore(tmp_path / "store", tmp_path / "scratch")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("bucket_server"))
    return BucketStore(f"gs://{BUCKET}/audio", tmp_path / "scratch")


def part_of(store: AudioStore, content: bytes = CONTENT) -> tuple[Path, str]:
    part = store.new_part()
    part.write_bytes(content)
    return part, checksum_of(part)


def test_what_is_put_comes_back_as_a_proven_local_file(store: AudioStore, tmp_path: Path) -> None:
    part, checksum = part_of(store)
    key = object_key(checksum)
    for _ in range(2):
        store.put(part, key)
    part.unlink()
    with store.local(key, checksum) as path:
        assert path.read_bytes() == CONTENT
    assert list((tmp_path / "scratch" / ".incoming").iterdir()) == [], "no copy stays"
    assert [path for path in tmp_path.rglob(".*.part") if path.is_file()] == []
    store.write(key, CONTENT[:-1])
    with pytest.raises(AudioError) as refused, store.local(key, checksum):
        pass
    assert refused.value.code == "damaged"
    store.remove(key)
    store.remove(key)
    with pytest.raises(FileNotFoundError), store.local(key, checksum):
        pass


def test_the_chunks_of_one_recording_go_and_no_others(store: AudioStore) -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    for recording_id in (one, other):
        store.write(chunk_key(recording_id, 0), b"samples")
        store.write(chunk_key(recording_id, 1), b"more samples")
    store.remove_folder(chunk_folder(one))
    store.remove_folder(chunk_folder(one))
    with pytest.raises(FileNotFoundError):
        store.read(chunk_key(one, 1))
    assert store.read(chunk_key(other, 1)) == b"more samples"


def test_a_bucket_that_is_away_is_told_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_server: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket_server)
    missing = BucketStore("gs://no-such-bucket", tmp_path / "scratch")
    part, checksum = part_of(missing)
    with pytest.raises(StoreError, match="AUDIO_STORE"):
        missing.put(part, object_key(checksum))
    assert part.exists()


def recorded(engine: Engine, key: str, checksum: str) -> None:
    with transaction(engine) as session:
        assert hold_object(session, key)
        session.add(
            Recording(
                id=uuid.uuid4(),
                object_key=key,
                content_type="audio/wav",
                size_bytes=1,
                checksum=checksum,
                duration_seconds=1.0,
                expected_chunks=1,
                created_at=database_now(),
            )
        )


def test_an_object_goes_with_its_last_recording(either_engine: Engine, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", tmp_path)
    part, checksum = part_of(store)
    put_object(either_engine, store, part, checksum=checksum, size_bytes=1)
    key = put_object(either_engine, store, part, checksum=checksum, size_bytes=1)
    recorded(either_engine, key, checksum)
    assert not remove_unused(either_engine, store, key)
    with transaction(either_engine) as session:
        assert unused_objects(session, timedelta(0)) == []
        session.delete(session.scalars(select(Recording)).one())
    with transaction(either_engine) as session:
        assert unused_objects(session) == [], "an upload may be at work with it"
        session.execute(update(StoredObject).values(touched_at=database_now(timedelta(hours=-2))))
    with transaction(either_engine) as session:
        assert unused_objects(session) == [key]
    assert remove_unused(either_engine, store, key)
    assert not (tmp_path / "store" / key).exists()
    with transaction(either_engine) as session:
        assert not hold_object(session, key), "an upload at work must put it anew"


def test_an_object_is_not_removed_while_its_recording_is_being_made(
    engine: Engine, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store", tmp_path)
    part, checksum = part_of(store)
    key = put_object(engine, store, part, checksum=checksum, size_bytes=1)
    removed: list[bool] = []
    remover = threading.Thread(target=lambda: removed.append(remove_unused(engine, store, key)))
    with transaction(engine) as session:
        assert hold_object(session, key)
        remover.start()
        remover.join(0.3)
        assert removed == [], "it waits for the one who makes the recording"
        session.add(
            Recording(
                id=uuid.uuid4(),
                object_key=key,
                content_type="audio/wav",
                size_bytes=1,
                checksum=checksum,
                duration_seconds=1.0,
                expected_chunks=1,
                created_at=database_now(),
            )
        )
    remover.join(10)
    assert removed == [False]
    assert (tmp_path / "store" / key).exists()


@pytest.mark.slow
def test_api_and_worker_on_two_machines_share_a_bucket_and_outlive_its_absence(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    common = {
        **environment,
        "AUDIO_STORE": f"gs://{BUCKET}/audio",
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
    }
    machines = [{**common, "AUDIO_DIR": str(tmp_path / name)} for name in ("api", "worker")]
    try:
        with (
            serving_api(machines[0], tmp_path / "api.log") as api,
            service("services.worker", machines[1], tmp_path / "worker.log"),
        ):
            assert finished(api, upload(api, KENNEDY))["status"] == "completed"
            server.stop()
            assert_problem(
                api.post("/v1/recordings", files={"file": AUSTEN.read_bytes()}), 503, "unavailable"
            )
            assert not api.get("/readyz").json()["checks"]["storage"]["ok"]
    finally:
        server.stop()
    assert list(tmp_path.rglob("*.part")) == []
    with transaction(engine) as session:
        assert len(session.scalars(select(Recording)).all()) == 1
