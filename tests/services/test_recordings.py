"""Speech in, transcript out: real API, worker, PostgreSQL, Valkey and model, over real sockets."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import redis
from sqlalchemy import Engine, select, text

from speakfit.database import (
    Chunk,
    OutboxMessage,
    Recording,
    WorkerHeartbeat,
    head_revision,
    make_engine,
    transaction,
    upgrade,
)
from speakfit.jobs import TRANSCRIBE, Job, make_celery, send, waiting_count
from speakfit.metrics import CHUNKS, QUEUE_DEPTH, REQUEST_DURATION, REQUESTS, WORKERS_ALIVE
from tests.conftest import ROOT, Process, free_port, service, serving_api
from tests.recording_monitoring import RecordingMonitoring, until
from tests.services.speech import (
    AUSTEN,
    CODECS,
    KENNEDY,
    encode,
    known_text,
    samples_of,
    silence,
    word_error_rate,
    write_wav,
)

ENDS = ("completed", "failed")


@pytest.fixture
def worker(environment: dict[str, str], engine: Engine, tmp_path: Path) -> Iterator[Process]:
    """One worker that lives, on the clean database."""
    with started_worker(environment, engine, tmp_path / "worker.log") as process:
        yield process


def started_worker(environment: dict[str, str], engine: Engine, log: Path) -> Any:
    return service("services.worker", environment, log)


def upload(api: httpx.Client, path: Path) -> str:
    answer = api.post("/v1/recordings", files={"file": ("name is not used", path.read_bytes())})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def finished(api: httpx.Client, recording_id: str, seconds: float = 60) -> dict[str, Any]:
    def end() -> dict[str, Any] | None:
        view: dict[str, Any] = api.get(f"/v1/recordings/{recording_id}").json()
        return view if view["status"] in ENDS else None

    found: dict[str, Any] = until(end, seconds, "the end of the recording")
    return found


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert {"type", "title", "status", "detail", "instance", "todo"} <= body.keys()
    assert body["status"] == status


def test_speech_becomes_a_transcript_with_times_and_coaching(
    api: httpx.Client, worker: Process, monitoring: RecordingMonitoring
) -> None:
    chunks_before = monitoring.total(CHUNKS.type, outcome="done")
    wishes = {"fillers": "verbatim-pass", "language": "en"}
    answer = api.post("/v1/recordings", params=wishes, files={"file": AUSTEN.read_bytes()})
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == accepted["links"]["self"]
    assert accepted["status"] == "queued"
    assert accepted["content_type"] == "audio/flac"
    for wanted in ({}, {"format": "srt"}):
        answer = api.get(accepted["links"]["transcript"], params=wanted)
        assert_problem(answer, 409, "not-completed")

    view = finished(api, accepted["id"])
    assert (view["status"], view["progress"], view["error"]) == ("completed", 1.0, None)
    transcript = api.get(view["links"]["transcript"]).json()
    assert word_error_rate(known_text("austen"), transcript["text"]) <= 0.10
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert all(0 <= w["start"] <= w["end"] <= view["duration_seconds"] for w in words)
    # Without these the encoder would wait 0.2 s a chunk for memory (services/worker/__main__.py).
    inherited = [
        child.environ() for child in psutil.Process(worker.popen.pid).children(recursive=True)
    ]
    assert inherited
    assert {one.get("MALLOC_ARENA_MAX") for one in inherited} == {"1"}
    assert {one.get("MALLOC_MMAP_THRESHOLD_") for one in inherited} == {str(64 << 20)}
    coaching = transcript["coaching"]
    assert 150 < coaching["words_per_minute"] < 250
    assert 20 < coaching["speaking_seconds"] < view["duration_seconds"]
    assert coaching["pauses"]
    assert coaching["filler_words"] == {
        "total": 0, "by_word": {}, "found": [], "method": "verbatim-pass", "recall": 0.94,
    }  # fmt: skip

    assert_formats(api, view["links"]["transcript"], transcript["text"])

    # What both sides export of it.
    until(lambda: monitoring.total(CHUNKS.type, outcome="done") > chunks_before, what="the count")
    until(lambda: monitoring.latest(WORKERS_ALIVE.type) == 1, what="a live worker")
    until(lambda: monitoring.latest(QUEUE_DEPTH.type) == 0, what="an empty queue")
    born = monitoring.series(
        REQUESTS.type, http_route="/v1/recordings/{recording_id}", status_class="5xx"
    )
    assert born[-1].points[0].value.int64_value == 0
    uploads = monitoring.series(
        REQUEST_DURATION.type, http_route="/v1/recordings", http_request_method="POST"
    )
    assert uploads[-1].metric.labels["route_class"] == "transfer"


def assert_formats(api: httpx.Client, link: str, text: str) -> None:
    """The same text in every format, by the parameter or by Accept."""
    kinds = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
    for name, media in kinds.items():
        by_name = api.get(link, params={"format": name})
        by_accept = api.get(link, headers={"Accept": media})
        assert by_name.headers["content-type"] == f"{media}; charset=utf-8"
        assert by_name.headers["vary"] == "Accept"
        assert by_accept.text == by_name.text
        shown = [line for line in by_name.text.splitlines() if line and "-->" not in line]
        said = " ".join(line for line in shown if line != "WEBVTT" and not line.isdigit())
        assert said == text, name
    assert by_name.text.startswith("WEBVTT\n\n00:00:0")
    assert_problem(api.get(link, params={"format": "doc"}), 422, "invalid-request")


def test_every_format_is_accepted_and_transcribed(
    api: httpx.Client, worker: Process, tmp_path: Path
) -> None:
    spoken = samples_of(KENNEDY)
    ids = {kind: upload(api, encode(tmp_path / f"a.{kind}", spoken)) for kind in CODECS}
    for kind, recording_id in ids.items():
        view = finished(api, recording_id)
        assert view["status"] == "completed", (kind, view)
        text = api.get(view["links"]["transcript"]).json()["text"]
        assert word_error_rate(known_text("kennedy"), text) <= 0.15, kind
    fillers = api.get(view["links"]["transcript"]).json()["coaching"]["filler_words"]
    assert (fillers["method"], fillers["recall"]) == ("transcript", 0.25)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    api: httpx.Client,
    environment: dict[str, str],
    engine: Engine,
    tmp_path: Path,
) -> None:
    spoken = samples_of(AUSTEN)
    gap = silence(5.0)
    path = write_wav(tmp_path / "long.wav", np.concatenate([spoken, gap, spoken, gap, spoken]))
    recording_id = upload(api, path)
    with started_worker(environment, engine, tmp_path / "first.log") as first:
        until(lambda: _leased(engine), what="a chunk at work")
        first.kill()
    with started_worker(environment, engine, tmp_path / "second.log"):
        view = finished(api, recording_id)
    assert view["status"] == "completed"
    assert view["chunks"] == {"done": 3, "total": 3}
    with transaction(engine) as session:
        attempts = session.scalars(select(Chunk.attempts).order_by(Chunk.index)).all()
    assert max(attempts) == 2, "the interrupted chunk was taken over"
    text = api.get(view["links"]["transcript"]).json()["text"]
    assert word_error_rate(" ".join([known_text("austen")] * 3), text) <= 0.10


def _leased(engine: Engine) -> bool:
    with transaction(engine) as session:
        return "leased" in session.scalars(select(Chunk.status)).all()


def test_an_emptied_redis_loses_nothing(
    api: httpx.Client,
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    ids = [upload(api, KENNEDY) for _ in range(2)]
    until(lambda: waiting_count(broker) == 2, what="both messages in the broker")
    broker.flushall()
    with started_worker(environment, engine, tmp_path / "worker.log"):
        assert [finished(api, one)["status"] for one in ids] == ["completed"] * 2
        # And once more under the feet of a worker that is running.
        again = upload(api, KENNEDY)
        broker.flushall()
        assert finished(api, again)["status"] == "completed"


def test_a_message_delivered_again_changes_nothing(
    api: httpx.Client, worker: Process, engine: Engine, broker: redis.Redis, redis_url: str
) -> None:
    recording_id = upload(api, KENNEDY)
    before = finished(api, recording_id)
    transcript = api.get(before["links"]["transcript"]).json()
    celery = make_celery(redis_url)
    job = Job(task=TRANSCRIBE, recording_id=uuid.UUID(recording_id), chunk_index=0)
    for _ in range(3):
        send(celery, job)
    celery.close()
    until(lambda: waiting_count(broker) == 0 and broker.hlen("unacked") == 0, what="delivery")
    assert finished(api, recording_id) == before
    assert api.get(before["links"]["transcript"]).json() == transcript
    with transaction(engine) as session:
        assert session.scalars(select(Chunk.attempts)).all() == [1]


def test_a_silent_recording_fails_and_says_so(
    api: httpx.Client, worker: Process, tmp_path: Path
) -> None:
    view = finished(api, upload(api, write_wav(tmp_path / "silent.wav", silence(3))))
    assert view["status"] == "failed"
    assert view["error"]["code"] == "no-speech"
    assert_problem(api.get(view["links"]["transcript"]), 409, "no-speech")


def truncated_wav(folder: Path) -> bytes:
    return write_wav(folder / "a.wav", samples_of(KENNEDY)).read_bytes()[:100_000]


def truncated_m4a(folder: Path) -> bytes:
    whole = encode(folder / "a.m4a", samples_of(KENNEDY)).read_bytes()
    return whole[: len(whole) // 2]


def truncated_ogg(folder: Path) -> bytes:
    whole = encode(folder / "a.ogg", samples_of(AUSTEN)).read_bytes()
    return whole[: len(whole) // 2]


def ogg_cut_between_pages(folder: Path) -> bytes:
    whole = encode(folder / "a.ogg", samples_of(AUSTEN)).read_bytes()
    return whole[: whole.rindex(b"OggS")]


BAD_FILES: dict[str, tuple[Any, int, str]] = {
    "no bytes": (lambda _: b"", 422, "empty"),
    "text": (lambda _: b"Ask not what your country can do for you. " * 50, 415, "not-audio"),
    "a playlist": (lambda _: b"#EXTM3U\nfile:///etc/passwd\n", 415, "not-audio"),
    "a header only": (lambda _: b"RIFF\x24\x00\x00\x00WAVEfmt ", 422, "truncated"),
    "half a flac": (lambda _: KENNEDY.read_bytes()[:100_000], 422, "truncated"),
    "half a wav": (truncated_wav, 422, "truncated"),
    "half an m4a": (truncated_m4a, 422, "truncated"),
    "half an ogg": (truncated_ogg, 422, "truncated"),
    "an ogg without its last page": (ogg_cut_between_pages, 422, "truncated"),
    "too long": (
        lambda folder: write_wav(folder / "l.wav", silence(101)).read_bytes(),
        422,
        "too-long",
    ),
    "too large": (lambda _: bytes(5 * 1024 * 1024), 413, "too-large"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing_behind(
    name: str, api: httpx.Client, environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    make, status, code = BAD_FILES[name]
    folder = Path(environment["AUDIO_DIR"])

    def files() -> set[Path]:
        return {path for path in folder.rglob("*") if path.is_file()}

    before = files()
    answer = api.post("/v1/recordings", files={"file": make(tmp_path)})
    assert_problem(answer, status, code)
    assert files() == before
    with transaction(engine) as session:
        assert session.scalars(select(Recording)).all() == []
        assert session.scalars(select(OutboxMessage)).all() == []


def test_requests_that_are_not_uploads_are_refused(api: httpx.Client) -> None:
    assert_problem(api.post("/v1/recordings", content=b"x"), 415, "not-multipart")
    assert_problem(api.post("/v1/recordings?language=xx", content=b"x"), 422, "invalid-request")
    assert_problem(api.post("/v1/recordings", files={"other": b"x"}), 422, "no-file")
    twice = [("file", KENNEDY.read_bytes()), ("file", AUSTEN.read_bytes())]
    answer = api.post("/v1/recordings", files=twice)
    assert_problem(answer, 422, "two-files")
    assert "`file`" in answer.json()["detail"]
    broken = api.post(
        "/v1/recordings",
        content=b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert_problem(broken, 400, "incomplete-upload")


def test_a_stop_under_stalled_uploads_is_no_error_of_the_server(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    own = {**environment, "AUDIO_DIR": str(tmp_path / "audio")}
    head = (
        b"POST /v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        b"Authorization: %s\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'
    )
    incoming = tmp_path / "audio" / ".incoming"
    log = tmp_path / "api.log"
    with ExitStack() as stalled:
        with serving_api(own, log) as api:
            for _ in range(3):
                line = stalled.enter_context(
                    socket.create_connection((api.base_url.host, api.base_url.port or 0))
                )
                line.sendall(head % api.headers["authorization"].encode())
            until(lambda: len(list(incoming.glob("*.part"))) == 3, what="three stalled uploads")
        requests = [json.loads(one) for one in log.read_text().splitlines() if '"request"' in one]
    assert [one["status"] for one in requests] == [499] * 3
    assert list(incoming.glob("*")) == []


@pytest.mark.parametrize("name", ["1b4e28ba-2fa1-41d2-883f-0016d3cca427", "nonsense"])
def test_an_unknown_id_is_not_found(api: httpx.Client, name: str) -> None:
    assert_problem(api.get(f"/v1/recordings/{name}"), 404, "unknown-recording")
    assert_problem(api.get(f"/v1/recordings/{name}/transcript"), 404, "unknown-recording")


def test_unknown_paths_and_methods_are_problems_under_one_label(
    api: httpx.Client, monitoring: RecordingMonitoring
) -> None:
    assert_problem(api.get("/secret/path"), 404, "not-found")
    assert_problem(api.delete("/v1/recordings"), 405, "method-not-allowed")
    until(
        lambda: monitoring.total(REQUESTS.type, http_route="unmatched", status_class="4xx") > 0,
        what="the count of unmatched requests",
    )
    routes = {one.metric.labels["http_route"] for one in monitoring.series(REQUESTS.type)}
    assert not any("secret" in route for route in routes)

    def classes() -> set[tuple[str, str]]:
        return {
            (one.metric.labels["http_route"], one.metric.labels["route_class"])
            for one in monitoring.series(REQUEST_DURATION.type)
            if one.metric.labels["http_response_status_code"] in ("404", "405")
        }

    # Exported in a request after that of the counts.
    until(lambda: ("unmatched", "unmatched") in classes(), what="their durations")
    # Only a known route's own 404 counts as quick work of ours.
    known = classes() - {("unmatched", "unmatched")}
    assert known
    assert all("{" in route and kind != "unmatched" for route, kind in known)


def test_readiness_names_every_part_and_its_latency(api: httpx.Client) -> None:
    answer = api.get("/readyz")
    assert answer.status_code == 200
    checks = answer.json()["checks"]
    assert checks.keys() == {"database", "redis", "migrations", "storage"}
    assert all(check["ok"] and check["milliseconds"] >= 0 for check in checks.values())


def test_a_database_that_stands_still_is_told_in_time_and_not_waited_for(
    api: httpx.Client, engine: Engine
) -> None:
    assert api.get("/readyz").status_code == 200
    others = text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'speakfit' AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        stopped = connection.scalars(others).all()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                answer = api.get("/readyz")
                assert answer.status_code == 503
                checks = answer.json()["checks"]
                assert checks["database"]["detail"] == "no answer in 2 s"
                assert checks["redis"]["ok"]
                assert checks["storage"]["ok"]
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    until(lambda: api.get("/readyz").status_code == 200, what="the API to be ready again")


@pytest.mark.parametrize(("revision", "status"), [("a newer one", 200), ("0001", 503)])
def test_tables_of_a_newer_release_will_do_and_those_of_an_older_will_not(
    api: httpx.Client, engine: Engine, revision: str, status: int
) -> None:
    at = text("UPDATE alembic_version SET version_num = :revision")
    try:
        with engine.begin() as connection:
            connection.execute(at, {"revision": revision})
        assert api.get("/readyz").status_code == status
    finally:
        with engine.begin() as connection:
            connection.execute(at, {"revision": head_revision()})


def test_without_its_database_and_broker_the_api_lives_and_says_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lost = {
        **environment,
        "DATABASE_URL": f"postgresql+psycopg://u:p@127.0.0.1:{free_port()}/x",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "AUDIO_DIR": str(tmp_path / "audio"),
    }
    with serving_api(lost, tmp_path / "api.log") as api:
        ready = api.get("/readyz")
        assert ready.status_code == 503
        checks = ready.json()["checks"]
        assert [name for name, check in checks.items() if check["ok"]] == ["storage"]
        answer = api.post("/v1/recordings", files={"file": KENNEDY.read_bytes()})
        assert_problem(answer, 503, "unavailable")
        assert [path for path in (tmp_path / "audio").rglob("*") if path.is_file()] == []


def test_a_full_disk_refuses_the_upload_and_keeps_serving(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    # A limit on file size fails a write where a full disk would, through the same path.
    script = tmp_path / "small_disk.py"
    script.write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "sys.argv = ['services.api', '--port', '0']\n"
        "runpy.run_module('services.api', run_name='__main__')\n"
    )
    small = {
        **environment,
        "PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}",
        "AUDIO_DIR": str(tmp_path / "audio"),
    }
    with serving_api(small, tmp_path / "api.log", module="small_disk") as api:
        answer = api.post("/v1/recordings", files={"file": KENNEDY.read_bytes()})
        assert_problem(answer, 507, "disk-full")
        assert list((tmp_path / "audio" / ".incoming").glob("*")) == []
        assert api.get("/readyz").status_code == 200


def test_a_worker_that_stops_on_purpose_takes_its_heartbeat_back(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    def workers() -> int:
        with transaction(engine) as session:
            return len(session.scalars(select(WorkerHeartbeat)).all())

    with started_worker(environment, engine, tmp_path / "worker.log") as worker:
        until(lambda: workers() == 1, what="the first heartbeat")
        assert worker.stop() == 0
    assert workers() == 0


@pytest.mark.parametrize(
    ("module", "wrong", "named"),
    [
        ("services.api", {"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ("services.api", {"DATABASE_URL": "mysql://u:hidden@h/x"}, "DATABASE_URL"),
        ("services.api", {"REDIS_URL": ""}, "REDIS_URL is not set"),
        ("services.api", {"CHUNK_LEASE": "soon"}, "CHUNK_LEASE"),
        ("services.worker", {"WHISPER_MODEL": ""}, "WHISPER_MODEL is not set"),
        ("services.worker", {"WHISPER_MODEL": "/nowhere"}, "WHISPER_MODEL"),
        (
            "services.worker",
            {"DATABASE_URL": "postgresql+psycopg://u:hidden@127.0.0.1:1/x"},
            "database does not answer",
        ),
    ],
)
def test_a_wrong_setting_is_told_in_one_message_and_no_secret(
    module: str, wrong: dict[str, str], named: str
) -> None:
    good = {
        "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}",
        "DATABASE_URL": "sqlite://",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "WHISPER_MODEL": "tiny.en",
    }
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={**good, **wrong},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert named in done.stderr
    assert "to do:" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr + done.stdout


def test_a_used_port_is_told_and_the_api_ends(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "services.api", "--port", str(port)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot have port {port}" in done.stderr


@pytest.mark.slow
def test_the_services_run_on_sqlite_too(
    environment: dict[str, str], broker: redis.Redis, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/speakfit.db"
    laptop = {**environment, "DATABASE_URL": url, "AUDIO_DIR": str(tmp_path / "audio")}
    engine = make_engine(url)
    upgrade(engine)
    with (
        serving_api(laptop, tmp_path / "api.log") as api,
        started_worker(laptop, engine, tmp_path / "worker.log"),
    ):
        ids = [upload(api, KENNEDY) for _ in range(3)]
        assert [finished(api, one)["status"] for one in ids] == ["completed"] * 3
    engine.dispose()
