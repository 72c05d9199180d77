"""Uploads at signed addresses: announced, put, completed; and what is refused on the way."""

from __future__ import annotations

import hashlib
import json
import uuid
import wave
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Engine, func, select, text, update

from services.api.bodies import LARGEST_JSON_BYTES
from services.api.keys import create_key
from speakfit.database import Caller, Recording, UploadSession, database_now, transaction
from speakfit.objects import remove_expired_uploads
from speakfit.store import BucketStore, LocalStore, object_key, staging_key
from tests.conftest import serving_api
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY
from tests.services.test_recordings import assert_problem
from tests.services.test_store import BUCKET, bucket_server

__all__ = ["bucket_server"]

SPOKEN = KENNEDY.read_bytes()
CHECKSUM = hashlib.sha256(SPOKEN).hexdigest()


def announced(api: httpx.Client, content: bytes = SPOKEN, **more: Any) -> dict[str, Any]:
    answer = api.post("/v1/uploads", json={"size_bytes": len(content), **more})
    assert answer.status_code == 201, answer.text
    view: dict[str, Any] = answer.json()
    assert answer.headers["location"] == view["links"]["self"]
    return view


def put(upload: dict[str, Any], content: bytes = SPOKEN, **changed: str) -> httpx.Response:
    """As somebody does who has the address and no key."""
    target = upload["target"]
    url = httpx.URL(target["url"]).copy_merge_params(changed)
    return httpx.request(target["method"], url, headers=target["headers"], content=content)


def complete(api: httpx.Client, upload: dict[str, Any], **wishes: str) -> httpx.Response:
    return api.post(upload["links"]["complete"], params=wishes)


def staged(environment: dict[str, str]) -> list[Path]:
    folder = Path(environment["AUDIO_DIR"])
    return [*(folder / "uploads").glob("*"), *(folder / ".incoming").glob("*")]


@pytest.fixture(autouse=True)
def _nothing_staged(environment: dict[str, str]) -> None:
    for path in staged(environment):
        path.unlink()


def recordings(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.scalar(select(func.count()).select_from(Recording)) or 0


def test_a_file_beyond_one_request_becomes_one_recording(
    api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as output:
        output.setparams((1, 2, 48_000, 0, "NONE", ""))
        output.writeframes(np.random.default_rng(7).bytes(2 * 48_000 * 50))
    content = path.read_bytes()
    assert len(content) > int(environment["MAX_UPLOAD_BYTES"])
    assert api.post("/v1/recordings", files={"file": content}).status_code == 413

    upload = announced(api, content, checksum_sha256=hashlib.sha256(content).hexdigest())
    assert put(upload, content).status_code == 204
    answer = complete(api, upload)
    assert answer.status_code == 202, answer.text
    view = answer.json()
    assert (view["status"], view["checksum_sha256"]) == ("queued", upload["checksum_sha256"])
    assert answer.headers["location"] == view["links"]["self"]
    assert api.get(upload["links"]["self"]).json()["recording"] == view["links"]["self"]
    assert staged(environment) == []
    kept = Path(environment["AUDIO_DIR"]) / object_key(view["checksum_sha256"])
    assert kept.read_bytes() == content

    again = complete(api, upload)
    assert (again.status_code, again.json()["id"]) == (202, view["id"])
    assert_problem(put(upload, content), 412, "already-uploaded")
    assert recordings(engine) == 1


def test_what_is_wished_for_is_said_when_it_is_complete(api: httpx.Client, engine: Engine) -> None:
    upload = announced(api)
    assert put(upload).status_code == 204
    assert_problem(complete(api, upload, language="klingon"), 422, "invalid-request")
    assert complete(api, upload, language="de", fillers="verbatim-pass").status_code == 202
    with transaction(engine) as session:
        kept = session.scalars(select(Recording.options)).all()
    assert kept == [{"language": "de", "fillers": "verbatim-pass"}]


def test_an_address_takes_what_was_announced_once_and_nothing_else(
    api: httpx.Client, environment: dict[str, str]
) -> None:
    upload = announced(api)
    assert_problem(complete(api, upload), 409, "not-uploaded")
    signature = parse_qs(urlsplit(upload["target"]["url"]).query)["signature"][0]
    other = f"{int(signature[0], 16) ^ 1:x}{signature[1:]}"
    assert_problem(put(upload, signature=other), 403, "invalid-signature")
    assert_problem(put(upload, signature="\u00e9"), 403, "invalid-signature")
    assert_problem(put(upload, expires="4000000000"), 403, "invalid-signature")
    elsewhere = upload["target"]["url"].replace(upload["id"], announced(api)["id"])
    assert_problem(httpx.put(elsewhere, content=SPOKEN), 403, "invalid-signature")
    assert_problem(put(upload, SPOKEN + b"x"), 413, "too-large")
    assert_problem(put(upload, SPOKEN[:-1]), 400, "incomplete-upload")
    assert staged(environment) == [], "what is refused leaves nothing"
    assert put(upload).status_code == 204
    assert_problem(put(upload), 412, "already-uploaded")
    assert complete(api, upload).status_code == 202


def test_what_is_put_once_is_not_replaced(tmp_path: Path) -> None:
    # Both may have been let in before either was there.
    store = LocalStore(tmp_path, tmp_path)
    for content, taken in ((b"first", True), (b"second", False)):
        part = store.new_part()
        part.write_bytes(content)
        assert store.put_once(part, "uploads/x") is taken
    assert store.read("uploads/x") == b"first"
    assert [path for path in tmp_path.rglob(".*.part") if path.is_file()] == []


def test_other_bytes_than_announced_are_refused_and_the_right_ones_taken(
    api: httpx.Client, environment: dict[str, str], engine: Engine
) -> None:
    upload = announced(api, checksum_sha256=CHECKSUM)
    assert put(upload, bytes(len(SPOKEN))).status_code == 204
    assert_problem(complete(api, upload), 422, "other-file")
    assert recordings(engine) == 0
    assert put(upload).status_code == 204
    assert complete(api, upload).json()["checksum_sha256"] == CHECKSUM
    silent = announced(api, bytes(9))
    assert put(silent, bytes(9)).status_code == 204
    assert_problem(complete(api, silent), 415, "not-audio")
    assert staged(environment) == []


def test_what_has_expired_is_refused_and_forgotten(
    api: httpx.Client, environment: dict[str, str], engine: Engine
) -> None:
    waiting, full = announced(api), announced(api)
    assert put(full).status_code == 204
    with transaction(engine) as session:
        session.execute(update(UploadSession).values(expires_at=database_now(-timedelta(hours=2))))
    assert_problem(put(waiting), 410, "upload-expired")
    assert_problem(complete(api, full), 410, "upload-expired")
    folder = Path(environment["AUDIO_DIR"])
    remove_expired_uploads(engine, LocalStore(folder, folder))
    assert staged(environment) == []
    assert_problem(api.get(full["links"]["self"]), 404, "unknown-upload")


def test_an_upload_is_forgotten_only_when_it_has_expired_for_a_while(
    either_engine: Engine, tmp_path: Path
) -> None:
    store, caller, ids = LocalStore(tmp_path, tmp_path), uuid.uuid4(), [uuid.uuid4(), uuid.uuid4()]
    with transaction(either_engine) as session:
        session.add(Caller(id=caller, subject="key:x", created_at=database_now()))
        session.flush()
        for upload_id, age in zip(ids, (timedelta(minutes=59), timedelta(minutes=61)), strict=True):
            store.write(staging_key(upload_id), b"x")
            session.add(
                UploadSession(
                    id=upload_id, caller_id=caller, size_bytes=1,
                    created_at=database_now(), expires_at=database_now(-age),
                )
            )  # fmt: skip
    remove_expired_uploads(either_engine, store)
    with transaction(either_engine) as session:
        assert session.scalars(select(UploadSession.id)).all() == ids[:1]
    assert [store.holds(staging_key(one)) for one in ids] == [True, False]


def test_completed_by_two_at_once_it_is_one_recording(api: httpx.Client, engine: Engine) -> None:
    first, upload = announced(api), announced(api)
    assert [put(first).status_code, put(upload).status_code] == [204, 204]
    made = complete(api, first).json()["id"]

    def waits() -> bool:
        with transaction(engine) as session:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return bool(session.scalar(text(waiting)))

    with ThreadPoolExecutor(1) as pool:
        # Stands for the other request, which has completed and not yet committed.
        with transaction(engine) as session:
            session.execute(
                update(UploadSession)
                .where(UploadSession.id == uuid.UUID(upload["id"]))
                .values(recording_id=uuid.UUID(made))
            )
            late = pool.submit(complete, api, upload)
            until(waits, what="the second at the row of the first")
        answer = late.result()
    assert (answer.status_code, answer.json()["id"]) == (202, made)
    assert recordings(engine) == 1


def test_an_upload_belongs_to_who_announced_it(api: httpx.Client, engine: Engine) -> None:
    upload = announced(api)
    put(upload)
    stranger = {"Authorization": f"Bearer {create_key(engine, name='somebody-else').key}"}
    for method, link in (("GET", "self"), ("POST", "complete")):
        answer = api.request(method, upload["links"][link], headers=stranger)
        assert_problem(answer, 404, "unknown-upload")
    assert recordings(engine) == 0


def test_an_announcement_sent_again_is_answered_once_and_too_much_is_refused(
    api: httpx.Client, engine: Engine
) -> None:
    key = {"Idempotency-Key": "one"}
    asked = {"size_bytes": 1000}
    first, second = (api.post("/v1/uploads", json=asked, headers=key) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    other = api.post("/v1/uploads", json={"size_bytes": 1001}, headers=key)
    assert_problem(other, 422, "idempotency-key-reused")
    assert_problem(api.post("/v1/uploads", json={"size_bytes": 2**40}), 413, "too-large")
    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(UploadSession)) == 1


def test_json_that_is_too_large_is_refused_however_it_comes(api: httpx.Client) -> None:
    kind = {"Content-Type": "application/json"}
    fits = json.dumps({"size_bytes": 1}).encode().ljust(LARGEST_JSON_BYTES)
    assert api.post("/v1/uploads", content=fits, headers=kind).status_code == 201
    assert api.post("/v1/uploads", content=iter([fits]), headers=kind).status_code == 201
    for content in (fits + b" ", iter([fits, b" "])):
        answer = api.post("/v1/uploads", content=content, headers=kind)
        assert_problem(answer, 413, "body-too-large")
    deep = api.post("/v1/uploads", content=b"[" * LARGEST_JSON_BYTES, headers=kind)
    assert deep.status_code in (400, 422)


@pytest.fixture
def signer(tmp_path: Path) -> Path:
    """A service account with a key of its own, as Google's clients read it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account", "project_id": "p", "private_key_id": "1", "client_id": "1",
        "private_key": pem.decode(), "client_email": "api@p.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:1/token",
    }  # fmt: skip
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    return path


@pytest.mark.slow
def test_a_bucket_takes_the_file_at_its_own_address(
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
    bucket_server: str,
    signer: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {
        **environment,
        "AUDIO_DIR": str(tmp_path / "audio"),
        "AUDIO_STORE": f"gs://{BUCKET}/audio",
        "STORAGE_EMULATOR_HOST": bucket_server,
        "GOOGLE_APPLICATION_CREDENTIALS": str(signer),
    }
    with serving_api(own, tmp_path / "api.log") as api:
        upload = announced(api, checksum_sha256=CHECKSUM)
        target = urlsplit(upload["target"]["url"])
        assert f"http://{target.netloc}" == bucket_server
        signed = parse_qs(target.query)
        assert signed["X-Goog-Algorithm"] == ["GOOG4-RSA-SHA256"]
        assert signed["X-Goog-Expires"] == ["3600"]
        # Google refuses another size and a second file, since the caller must send these.
        assert {*upload["target"]["headers"]} < {*signed["X-Goog-SignedHeaders"][0].split(";")}
        size = str(len(SPOKEN))
        assert upload["target"]["headers"] == {
            "x-goog-content-length-range": f"{size},{size}",
            "x-goog-if-generation-match": "0",
        }
        assert_problem(complete(api, upload), 409, "not-uploaded")
        assert put(upload).status_code == 200
        answer = complete(api, upload)
        assert (answer.status_code, answer.json()["checksum_sha256"]) == (202, CHECKSUM)
        ours = api.put(
            f"/v1/uploads/{upload['id']}/content", params={"expires": 1, "signature": ""}
        )
        assert_problem(ours, 404, "unknown-upload")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket_server)
    store = BucketStore(f"gs://{BUCKET}/audio", tmp_path / "scratch")
    assert store.read(object_key(CHECKSUM)) == SPOKEN
    with pytest.raises(FileNotFoundError):
        store.read(staging_key(uuid.UUID(upload["id"])))
    assert list((tmp_path / "audio").rglob("*.part")) == []
