"""A bucket that answers 503, resets or breaks off: nothing accepted is lost, statuses are right."""

from __future__ import annotations

import resource
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from sqlalchemy import Engine, select

from speakfit import store as store_module
from speakfit.database import Chunk, Recording, transaction
from speakfit.errors import StoreError
from speakfit.store import BucketStore, chunk_key, object_key
from tests.conftest import service, serving_api
from tests.recording_monitoring import until
from tests.services.faulty_bucket import Fault, FaultyBucket
from tests.services.speech import AUSTEN, KENNEDY
from tests.services.test_recordings import assert_problem, finished, upload
from tests.services.test_store import BUCKET, CONTENT, part_of
from tests.services.test_uploads import announced, complete, put, signer

__all__ = ["signer"]
pytestmark = pytest.mark.slow


@pytest.fixture
def bucket() -> Iterator[FaultyBucket]:
    with FaultyBucket(BUCKET).serving() as server:
        yield server


@pytest.fixture
def store(bucket: FaultyBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketStore:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.address)
    return BucketStore(f"gs://{BUCKET}/audio", tmp_path / "scratch")


@pytest.fixture
def hasty(store: BucketStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket's client tries as often as ever, and rests for no time in between."""
    import gcsfs.retry

    async def rest(_seconds: float) -> None:
        return

    monkeypatch.setattr(gcsfs.retry, "asyncio", SimpleNamespace(sleep=rest))


def test_a_call_ends_while_its_client_would_try_on(
    store: BucketStore, bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_CALL_LIMIT", timedelta(seconds=1))
    bucket.fail(Fault.UNAVAILABLE)
    with pytest.raises(StoreError, match="FSTimeoutError"):
        store.read("anything")


@pytest.mark.parametrize("fault", Fault)
def test_one_failure_of_the_store_is_not_seen(
    fault: Fault, store: BucketStore, bucket: FaultyBucket, tmp_path: Path
) -> None:
    part, checksum = part_of(store)
    key = object_key(checksum)
    if fault is not Fault.CUT:
        bucket.fail(fault, times=1)
    store.put(part, key)
    part.unlink()
    bucket.fail(fault, times=1)
    with store.local(key, checksum) as path:
        assert path.read_bytes() == CONTENT
    assert bucket.failed == 1
    assert list((tmp_path / "scratch" / ".incoming").iterdir()) == []


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.usefixtures("hasty")
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_store_that_keeps_failing_is_told_in_our_words_and_leaves_nothing(
    fault: Fault, store: BucketStore, bucket: FaultyBucket, tmp_path: Path
) -> None:
    # Large enough to be on its way still when the line breaks.
    content = CONTENT * 15
    part, checksum = part_of(store, content)
    key = object_key(checksum)
    store.put(part, key)
    bucket.fail(fault)
    with pytest.raises(StoreError, match="AUDIO_STORE"), store.local(key, checksum):
        pass
    with pytest.raises(StoreError):
        store.read(key)
    if fault is not Fault.CUT:
        for act in (
            lambda: store.put(part, key),
            lambda: store.write(chunk_key(uuid.UUID(int=1), 0), b"samples"),
            lambda: store.remove(key),
            store.check,
        ):
            with pytest.raises(StoreError):
                act()
    bucket.heal()
    part.unlink()
    assert list((tmp_path / "scratch" / ".incoming").iterdir()) == []
    with store.local(key, checksum) as path:
        assert path.read_bytes() == content


def test_services_wait_for_a_store_that_fails_and_lose_nothing(
    bucket: FaultyBucket,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
    signer: Path,
) -> None:
    common = {
        **environment,
        "AUDIO_STORE": f"gs://{BUCKET}/audio",
        "STORAGE_EMULATOR_HOST": bucket.address,
        "GOOGLE_APPLICATION_CREDENTIALS": str(signer),
    }
    machines = [{**common, "AUDIO_DIR": str(tmp_path / name)} for name in ("api", "worker")]
    with serving_api(machines[0], tmp_path / "api.log") as api:
        before = upload(api, AUSTEN)
        large = announced(api)
        assert put(large).status_code == 200
        bucket.fail(Fault.RESET)
        with service("services.worker", machines[1], tmp_path / "worker.log") as worker:
            # What must be stored is refused and leaves nothing; what needs no store goes on.
            with ThreadPoolExecutor(4) as pool:
                audio = {"file": KENNEDY.read_bytes()}
                answers = [
                    pool.submit(api.post, "/v1/recordings", files=audio),
                    pool.submit(complete, api, large),
                    pool.submit(api.delete, f"/v1/recordings/{before}"),
                ]
                ready = api.get("/readyz").json()
            for answer in answers:
                assert_problem(answer.result(), 503, "unavailable")
                assert answer.result().headers["retry-after"] == "5"
            assert not ready["checks"]["storage"]["ok"]
            retried = api.post(f"/v1/recordings/{before}/retry")
            assert retried.status_code == 202, "the failed delete cancelled it"
            until(
                lambda: "this process pauses" in worker.log.read_text(), 60, "the worker's trouble"
            )
            assert api.get(f"/v1/recordings/{before}").json()["status"] in ("queued", "processing")
            bucket.heal()
            assert finished(api, before)["status"] == "completed"
            kept = complete(api, large)
            assert kept.status_code == 202, "the file was kept"
            assert finished(api, kept.json()["id"])["status"] == "completed"
    with transaction(engine) as session:
        assert len(session.scalars(select(Recording)).all()) == 2
        assert max(session.scalars(select(Chunk.attempts))) == 1
        assert session.scalars(select(Recording.attempts)).all() == [1, 1]
    assert list(tmp_path.rglob("*.part")) == []


def test_a_full_disk_under_a_bucket_keeps_the_upload_to_be_completed_later(
    bucket: FaultyBucket,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
    signer: Path,
) -> None:
    script = tmp_path / "small_disk.py"
    script.write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "sys.argv = ['services.api', '--port', '0']\n"
        "runpy.run_module('services.api', run_name='__main__')\n"
    )
    own = {
        **environment,
        "PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}",
        "AUDIO_DIR": str(tmp_path / "audio"),
        "AUDIO_STORE": f"gs://{BUCKET}/audio",
        "STORAGE_EMULATOR_HOST": bucket.address,
        "GOOGLE_APPLICATION_CREDENTIALS": str(signer),
    }
    with serving_api(own, tmp_path / "api.log", module="small_disk") as api:
        large = announced(api)
        assert put(large).status_code == 200
        assert_problem(complete(api, large), 507, "disk-full")
        key = api.headers["authorization"]
    with serving_api(own, tmp_path / "roomy.log") as api:
        api.headers["Authorization"] = key
        assert complete(api, large).status_code == 202
    assert list(tmp_path.rglob("*.part")) == []
