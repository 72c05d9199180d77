"""Limits: how often, how much waits, how slowly; and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import json
import re
import select
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI, Request
from sqlalchemy import Engine, update

from services.api import problems
from services.api.backlog import room_after
from services.api.deadlines import Deadlines, Limits
from services.api.keys import create_key
from services.api.rate_limit import Buckets, Quota, Taken
from speakfit.database import Recording, RecordingStatus, transaction
from speakfit.store import object_key
from tests.conftest import free_port, fresh_key, service, serving_api
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY
from tests.services.test_recordings import assert_problem, upload

RATE = re.compile(r'"caller";r=(\d+);t=(\d+)')


@pytest.fixture(scope="module")
def _strict_api(environment: dict[str, str], server_dir: Path) -> Iterator[httpx.Client]:
    strict = {
        **environment,
        "MAX_QUEUE_CHUNKS": "3",
        "RATE_LIMIT_REQUESTS": "200",
        "RATE_LIMIT_WINDOW": "PT1H",
        "CLIENT_TIMEOUT": "PT0.5S",
    }
    with serving_api(strict, server_dir / "strict-api.log") as client:
        yield client


@pytest.fixture
def strict(
    _strict_api: httpx.Client, database_url: str, engine: Engine, broker: redis.Redis
) -> httpx.Client:
    """The API with little patience, called with a key of its own."""
    _strict_api.headers["Authorization"] = f"Bearer {fresh_key(database_url)}"
    return _strict_api


def test_a_caller_who_asks_too_often_is_told_when_to_come_back(
    strict: httpx.Client, database_url: str
) -> None:
    answers = [strict.get("/v1/recordings/none") for _ in range(201)]
    assert [answer.status_code for answer in answers] == [404] * 200 + [429]
    left = []
    for answer in answers:
        assert answer.headers["ratelimit-policy"] == '"caller";q=200;w=3600'
        told = RATE.fullmatch(answer.headers["ratelimit"])
        assert told is not None
        left.append(int(told[1]))
    assert left == [*range(199, -1, -1), 0]
    refused = answers[-1]
    assert_problem(refused, 429, "rate-limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 18, "an hour for 200"
    other = {"Authorization": f"Bearer {fresh_key(database_url, name='other')}"}
    assert strict.get("/v1/recordings/none", headers=other).status_code == 404
    assert strict.get("/healthz").status_code == 200


def test_a_bucket_fills_again_and_never_beyond(redis_url: str, broker: redis.Redis) -> None:
    quota = Quota(requests=100, window=timedelta(seconds=10))

    async def take_all() -> tuple[int, list[Taken | None]]:
        buckets = Buckets(redis_url, quota)
        caller = uuid.uuid4()
        key = f"speakfit:rate:{caller}"
        # Many at once: none may be given out twice.
        taken = await asyncio.gather(*(buckets.take(caller) for _ in range(150)))
        allowed = sum(1 for one in taken if one is not None and one.allowed)
        broker.hincrby(key, "at", -1000)
        after_a_second = [await buckets.take(caller) for _ in range(2)]
        broker.hincrby(key, "at", -3_600_000)
        after_an_hour = await buckets.take(caller)
        broker.hincrby(key, "at", 3_600_000)
        clock_set_back = await buckets.take(caller)
        await buckets.close()
        return allowed, [*after_a_second, after_an_hour, clock_set_back]

    allowed, later = asyncio.run(take_all())
    seconds, hour, back = later[0], later[2], later[3]
    assert 100 <= allowed <= 110
    assert seconds is not None
    assert 9 <= seconds.left <= 20
    assert hour is not None
    assert 98 <= hour.left <= 99
    assert back is not None
    assert 97 <= back.left <= 98


def test_without_redis_nobody_is_limited_and_redis_is_left_alone_for_a_while(
    redis_url: str, broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    quota = Quota(requests=1, window=timedelta(hours=1))
    port = free_port()

    async def ask() -> list[Taken | None]:
        buckets = Buckets(f"redis://127.0.0.1:{port}/0", quota, now=lambda: now[0])
        first = await buckets.take(uuid.UUID(int=1))
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.setblocking(False)
            await buckets.take(uuid.UUID(int=1))
            with pytest.raises(BlockingIOError):
                listener.accept()
            now[0] = 6.0
            silent = await buckets.take(uuid.UUID(int=1))
            listener.accept()[0].close()
        await buckets.close()
        return [first, silent]

    assert asyncio.run(ask()) == [None, None]
    assert len(caplog.messages) == 2, "once a pause, not once a request"
    caplog.clear()

    async def back() -> None:
        buckets = Buckets(redis_url, quota, now=lambda: now[0])
        buckets._unlimited = 7
        assert await buckets.take(uuid.UUID(int=1)) is not None
        await buckets.close()

    asyncio.run(back())
    assert caplog.messages == ["callers are limited again; 7 requests were not"]


def test_a_full_queue_refuses_work_before_it_is_sent_and_nothing_else(
    strict: httpx.Client, engine: Engine
) -> None:
    kept = upload(strict, KENNEDY)
    with transaction(engine) as session:
        session.execute(update(Recording).values(expected_chunks=3))

    def refused() -> httpx.Response | None:
        answer = strict.post("/v1/recordings", files={"file": KENNEDY.read_bytes()})
        return answer if answer.status_code != 202 else None

    # The depth is counted once a second.
    answer = until(refused, 10, "a full queue")
    assert_problem(answer, 503, "queue-full")
    assert int(answer.headers["retry-after"]) >= 1
    assert strict.get(f"/v1/recordings/{kept}").status_code == 200
    with transaction(engine) as session:
        session.execute(update(Recording).values(status=RecordingStatus.CANCELLED))
    until(lambda: refused() is None, 10, "room again")


@pytest.mark.parametrize(
    ("depth", "finished", "seconds"), [(100, 0, 60), (100, 300, 1), (129, 30, 300), (9999, 1, 3600)]
)
def test_whoever_is_refused_is_told_when_there_will_be_room(
    depth: int, finished: int, seconds: int
) -> None:
    assert room_after(depth=depth, bound=100, finished=finished) == timedelta(seconds=seconds)


def connect(api: httpx.Client) -> socket.socket:
    return socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=20)


def heard(line: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    parts = []
    while part := line.recv(65536):
        parts.append(part)
    return b"".join(parts)


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    problem: dict[str, Any] = json.loads(body)
    return problem


@pytest.mark.slow
def test_a_client_that_never_ends_its_head_is_cut(strict: httpx.Client) -> None:
    with connect(strict) as slow, connect(strict) as silent:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        # Bytes that trickle in do not buy more time.
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.1):
                try:
                    slow.sendall(b"X-A: b\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert problem_of(heard(slow))["code"] == "too-slow"
        finally:
            stop.set()
            thread.join()
        assert heard(silent) == b"", "who said nothing gets no answer"


def test_the_answer_reaches_a_client_that_sends_on(strict: httpx.Client) -> None:
    with connect(strict) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert select.select([line], [], [], 20)[0], "an answer, or the end"
        # A closed connection answers the first of these with a reset, which takes the answer along.
        for _ in range(3):
            line.sendall(b"X-A: b\r\n")
            time.sleep(0.05)
        assert problem_of(heard(line))["code"] == "too-slow"


@pytest.mark.slow
def test_a_kept_connection_may_rest_and_ask_again(strict: httpx.Client) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(strict) as line:
        for _ in range(3):
            line.sendall(ask[:10])
            line.sendall(ask[10:])
            answer = b""
            while not answer.endswith(b"}"):
                answer += line.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.7)
        line.sendall(ask[:10])
        assert problem_of(heard(line))["status"] == 408


def test_an_upload_that_stalls_is_answered_and_leaves_nothing_behind(
    strict: httpx.Client, environment: dict[str, str]
) -> None:
    head = (
        "POST /v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        f"Authorization: {strict.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'
    )
    with connect(strict) as line:
        line.sendall(head.encode())
        problem = problem_of(heard(line))
    assert (problem["status"], problem["code"]) == (408, "too-slow")
    assert list((Path(environment["AUDIO_DIR"]) / ".incoming").glob("*")) == []


def test_what_is_not_http_is_a_problem_too(strict: httpx.Client) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    ):
        with connect(strict) as line:
            line.sendall(nonsense)
            problem = problem_of(heard(line))
        assert (problem["status"], problem["code"]) == (400, "not-http"), nonsense[:40]


def test_a_head_that_grows_and_grows_is_cut_before_it_ends(strict: httpx.Client) -> None:
    with connect(strict) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
        with suppress(OSError):
            for _ in range(400):
                line.sendall(b"b" * 1000)
                # Until it answers, piece by piece.
                if select.select([line], [], [], 0.005)[0]:
                    break
        assert problem_of(heard(line))["code"] == "not-http"


def within(limits: Limits, body: list[tuple[float, bytes]]) -> tuple[httpx.Response, list[str]]:
    """Answer of a small real application behind the layer, and what its routes saw."""
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Deadlines, limits=limits, routes=[])
    saw: list[str] = []

    @app.post("/slow")
    def slow() -> None:
        time.sleep(0.5)
        saw.append("ended")

    @app.post("/read")
    async def read(request: Request) -> int:
        try:
            return len(await request.body())
        except Exception as error:
            saw.append(type(error).__name__)
            raise

    async def content() -> Any:
        for wait, piece in body:
            await asyncio.sleep(wait)
            yield piece

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.post("/read" if body else "/slow", content=content())

    return asyncio.run(ask()), saw


def test_a_handler_that_takes_too_long_is_answered_for() -> None:
    answer, saw = within(Limits(answer=timedelta(seconds=0.1)), [])
    assert_problem(answer, 504, "too-late")
    assert saw == ["ended"], "its thread was not cut in the middle"
    answer, saw = within(Limits(answer=timedelta(seconds=5)), [])
    assert (answer.status_code, saw) == (200, ["ended"])


def test_a_body_must_keep_its_pace() -> None:
    limits = Limits(client=timedelta(seconds=0.2), bytes_per_second=1000)
    drops = [(0.05, b"x")] * 20
    answer, saw = within(limits, drops)
    assert_problem(answer, 408, "too-slow")
    assert saw == ["_TooSlowError"]
    fast = [(0.05, b"x" * 100)] * 10
    answer, saw = within(limits, fast)
    assert (answer.status_code, answer.json(), saw) == (200, 1000, [])


def test_a_stop_lets_the_upload_under_way_finish_and_keeps_it(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    # The port as Cloud Run gives it.
    port = free_port()
    own = {**environment, "AUDIO_DIR": str(tmp_path / "audio"), "PORT": str(port)}
    form = httpx.Request("POST", "http://api/", files={"file": KENNEDY.read_bytes()})
    content = form.read()
    head = (
        f"POST /v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        f"Authorization: Bearer {create_key(engine, name='tests').key}\r\n"
        f"Content-Type: {form.headers['content-type']}\r\n\r\n"
    )

    def reached() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return False
        return True

    with service("services.api", own, tmp_path / "api.log") as process:
        until(reached, what="the API")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(head.encode() + content[:1000])
            incoming = tmp_path / "audio" / ".incoming"
            until(lambda: list(incoming.glob("*.part")), what="an upload under way")
            process.popen.send_signal(signal.SIGTERM)
            until(lambda: not reached(), what="no new connections")
            line.sendall(content[1000:])
            answer = heard(line)
        assert process.popen.wait(10) == 0, process.log.read_text()
    assert answer.startswith(b"HTTP/1.1 202")
    accepted = json.loads(answer.partition(b"\r\n\r\n")[2])
    with transaction(engine) as session:
        kept = session.get_one(Recording, uuid.UUID(accepted["id"]))
        assert kept.status == RecordingStatus.QUEUED
    assert (tmp_path / "audio" / object_key(kept.checksum)).read_bytes() != b""
