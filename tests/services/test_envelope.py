"""Every answer carries its request's id, its trace and headers for browsers; so do log lines."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, select

from services.api import __main__ as command
from services.api import problems
from services.api.envelope import Envelope
from speakfit.database import Recording, transaction
from speakfit.telemetry import JsonLines
from speakfit.tracing import parent, span
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY
from tests.services.test_recordings import assert_problem

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"


def assert_enveloped(answer: httpx.Response) -> None:
    assert answer.headers.get_list("x-request-id") != []
    assert len(answer.headers["traceparent"]) == len(GIVEN)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "max-age=" in answer.headers["strict-transport-security"]
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/docs", 200),
        ("GET", "/v1/recordings/none", 404),
        ("GET", "/nowhere", 404),
        ("PATCH", "/v1/recordings", 405),
        ("POST", "/v1/recordings", 415),
    ],
)
def test_every_answer_carries_them(method: str, path: str, status: int, api: httpx.Client) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert_enveloped(answer)
    refused = api.request(method, path, headers={"Authorization": "Bearer x"})
    assert refused.status_code in (200, 401)
    assert_enveloped(refused)


def test_an_error_nobody_expected_carries_them_and_tells_nothing() -> None:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Envelope)

    @app.get("/")
    async def crash() -> None:
        raise RuntimeError("hunter2")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            with span("what the measuring layer begins", of=parent(GIVEN)):
                return await client.get("/")

    answer = asyncio.run(ask())
    assert_problem(answer, 500, "internal")
    assert_enveloped(answer)
    assert "hunter2" not in answer.text


def test_an_id_and_a_trace_that_are_sent_are_kept(api: httpx.Client) -> None:
    sent = {"X-Request-Id": "app-7:42.a_b", "traceparent": GIVEN}
    answer = api.get("/healthz", headers=sent)
    assert answer.headers["x-request-id"] == sent["X-Request-Id"]
    version, trace, span, flags = answer.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span not in (GIVEN.split("-")[2], "0" * 16), "a span of our own"


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 65, '{"a":1}', "é".encode()])
def test_an_id_that_is_not_sane_is_replaced(wrong: str | bytes, api: httpx.Client) -> None:
    answer = api.get("/healthz", headers=[(b"X-Request-Id", wrong)])
    assert answer.headers["x-request-id"] not in (wrong, "")
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "wrong", ["", "00-" + "0" * 32 + GIVEN[35:], GIVEN.upper(), GIVEN[:-1], "ff" + GIVEN[2:]]
)
def test_a_malformed_trace_is_not_passed_on(wrong: str, api: httpx.Client) -> None:
    answer = api.get("/healthz", headers={"traceparent": wrong})
    assert answer.headers["traceparent"].split("-")[1] not in (TRACE, "0" * 32)


def test_the_log_line_and_the_work_belong_to_the_trace_of_the_answer(
    api: httpx.Client, engine: Engine, server_dir: Path
) -> None:
    answer = api.post(
        "/v1/recordings",
        files={"file": KENNEDY.read_bytes()},
        headers={"traceparent": GIVEN, "X-Request-Id": "the-upload"},
    )
    assert answer.status_code == 202

    def lines() -> list[dict[str, Any]]:
        log = (server_dir / "api.log").read_text().splitlines()
        return [json.loads(line) for line in log if '"request"' in line and "the-upload" in line]

    line = until(lines, what="the request's line in the log")[0]
    assert line["severity"] == "INFO"
    assert line["logging.googleapis.com/trace"] == TRACE
    assert line["logging.googleapis.com/spanId"] == answer.headers["traceparent"].split("-")[2]
    assert line["logging.googleapis.com/trace_sampled"] is True
    labels = line["logging.googleapis.com/labels"]
    assert (labels["service"], labels["request_id"]) == ("api", "the-upload")
    assert all(isinstance(value, str) for value in labels.values())
    asked = line["httpRequest"]
    assert (asked["requestMethod"], asked["status"]) == ("POST", 202)
    assert asked["requestUrl"] == "/v1/recordings"
    assert asked["latency"].endswith("s")
    with transaction(engine) as session:
        assert session.scalars(select(Recording.traceparent)).one() == answer.headers["traceparent"]


def test_with_a_project_a_line_names_its_trace_as_cloud_logging_links_it() -> None:
    record = logging.makeLogRecord({"msg": "hello", "levelname": "WARNING"})
    lines = JsonLines("api", project="acme")
    assert "logging.googleapis.com/trace" not in json.loads(lines.format(record))
    with span("anything", of=parent(GIVEN)):
        line = json.loads(lines.format(record))
    assert line["logging.googleapis.com/trace"] == f"projects/acme/traces/{TRACE}"
    assert line["severity"] == "WARNING"


def test_answers_on_a_kept_connection_are_sent_at_once() -> None:
    # asyncio sets TCP_NODELAY only on connections of a listener that names its protocol.
    with command._listener("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
