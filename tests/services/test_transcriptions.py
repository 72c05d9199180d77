"""The official OpenAI client, unmodified, against the real API, worker and model."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
import redis
from openai.types.audio import TranscriptionVerbose
from sqlalchemy import Engine, select

from services.api.problems import Problem
from services.api.transcriptions import Granularity, ResponseFormat, read_form
from speakfit.database import Recording, transaction
from tests.conftest import Process, serving_api
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY, known_text, word_error_rate
from tests.services.test_recordings import started_worker

MODEL = "whisper-1"


@pytest.fixture
def worker(environment: dict[str, str], engine: Engine, tmp_path: Path) -> Iterator[Process]:
    """One worker that lives, on the clean database."""
    with started_worker(environment, engine, tmp_path / "worker.log") as process:
        yield process


def client_of(api: httpx.Client, key: str | None = None) -> openai.OpenAI:
    known = api.headers["Authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{api.base_url}/v1", api_key=key or known, max_retries=0)


def test_the_official_client_gets_every_format(
    api: httpx.Client, worker: Process, engine: Engine
) -> None:
    said = known_text("kennedy")
    with client_of(api) as client:
        transcribe = client.audio.transcriptions.create
        # One key: what was transcribed once is told again in every format.
        once = {"Idempotency-Key": "kennedy"}
        plain = transcribe(file=KENNEDY, model=MODEL, extra_headers=once)
        assert word_error_rate(said, plain.text) <= 0.15
        assert plain.usage is not None
        assert (plain.usage.type, plain.usage.seconds) == ("duration", 11)
        text = transcribe(file=KENNEDY, model=MODEL, response_format="text", extra_headers=once)
        assert cast(str, text) == plain.text + "\n"
        verbose = transcribe(
            file=("anything.bin", KENNEDY.read_bytes()), model=MODEL, language="en",
            prompt="A speech.", temperature=0.2, response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )  # fmt: skip
        assert isinstance(verbose, TranscriptionVerbose)
        assert (verbose.language, round(float(verbose.duration))) == ("english", 11)
        assert verbose.words is not None
        assert verbose.segments is not None
        assert " ".join(word.word for word in verbose.words) == verbose.text
        assert [one.id for one in verbose.segments] == list(range(len(verbose.segments)))
        assert verbose.segments[0].temperature == 0.2
        assert -2 < verbose.segments[0].avg_logprob < 0 <= verbose.segments[0].no_speech_prob < 0.5
        subtitles = {
            kind: transcribe(file=KENNEDY, model=MODEL, response_format=kind, extra_headers=once)
            for kind in ("srt", "vtt")
        }
        assert str(subtitles["srt"]).startswith("1\n00:00:0")
        assert str(subtitles["vtt"]).startswith("WEBVTT\n\n00:00:0")
    with transaction(engine) as session:
        wished = session.scalars(select(Recording.options).order_by(Recording.created_at)).all()
    assert wished == [None, {"language": "en", "prompt": "A speech.", "temperature": 0.2}]


def test_the_client_finds_the_one_model(api: httpx.Client) -> None:
    with client_of(api) as client:
        assert [one.id for one in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).object == "model"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.models.retrieve("gpt-4o-transcribe")
        assert unknown.value.code == "model_not_found"


def test_its_errors_are_the_clients_own(api: httpx.Client) -> None:
    with client_of(api, key=f"sf_{'0' * 16}_{'0' * 64}") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.audio.transcriptions.create(file=KENNEDY, model=MODEL)
        assert (refused.value.code, refused.value.type) == (
            "invalid_api_key",
            "invalid_request_error",
        )
    with client_of(api) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.audio.transcriptions.create(file=KENNEDY, model="gpt-4o-transcribe")
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as streamed:
            client.audio.transcriptions.create(file=KENNEDY, model=MODEL, stream=True)
        assert (streamed.value.code, streamed.value.param) == ("unsupported_value", "stream")
        with pytest.raises(openai.APIStatusError) as text:
            client.audio.transcriptions.create(file=b"just text" * 99, model=MODEL)
        assert (text.value.status_code, text.value.code) == (415, "not_audio")
    many = {f"f{place}": "x" for place in range(40)}
    crowded = api.post("/v1/audio/transcriptions", files={"file": b"x"}, data=many)
    assert (crowded.status_code, crowded.json()["error"]["code"]) == (413, "fields_too_large")


def test_who_goes_away_lets_go_of_the_work_unless_they_will_ask_again(
    api: httpx.Client, engine: Engine
) -> None:
    def statuses() -> list[str]:
        with transaction(engine) as session:
            return list(session.scalars(select(Recording.status).order_by(Recording.created_at)))

    leave(api, {})
    until(lambda: statuses() == ["cancelled"], what="the end of the work")
    leave(api, {"Idempotency-Key": "again"})
    until(lambda: len(statuses()) == 2, what="the second recording")
    # A third one's end tells that the second one's request was over too.
    leave(api, {})
    until(lambda: statuses()[2:] == ["cancelled"], what="the end of the third")
    assert statuses() == ["cancelled", "queued", "cancelled"]


def leave(api: httpx.Client, headers: dict[str, str]) -> None:
    """Send a whole request and hang up once it is accepted."""
    request = api.build_request(
        "POST", "/v1/audio/transcriptions",
        files={"file": KENNEDY.read_bytes()}, data={"model": MODEL}, headers=headers,
    )  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((api.base_url.host, api.base_url.port or 0)) as line:
        line.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode())
        line.sendall(request.read())
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)


@pytest.mark.slow
def test_who_waits_too_long_is_told_where_it_goes_on(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    hasty = {**environment, "TRANSCRIPTION_TIMEOUT": "PT0.2S"}
    with serving_api(hasty, tmp_path / "api.log") as api, client_of(api) as client:
        with pytest.raises(openai.InternalServerError) as late:
            client.with_options(max_retries=2).audio.transcriptions.create(
                file=KENNEDY, model=MODEL
            )
        assert (late.value.status_code, late.value.code) == (504, "too_late")
        recording_id = late.value.response.headers["x-recording-id"]
        assert recording_id in late.value.message
        assert api.get(f"/v1/recordings/{recording_id}").json()["status"] == "queued"
        listed: list[Any] = api.get("/v1/recordings").json()["recordings"]
        assert len(listed) == 1, "the client does not send it again"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": []}, "model"),
        ({"response_format": ["diarized_json"]}, "response_format"),
        ({"temperature": ["1.1"]}, "temperature"),
        ({"temperature": ["nan"]}, "temperature"),
        ({"temperature": ["warm"]}, "temperature"),
        ({"language": ["english"]}, "language"),
        ({"language": ["en", "de"]}, "language"),
        ({"prompt": ["x" * 4001]}, "prompt"),
        ({"stream": ["true"]}, "stream"),
        ({"chunking_strategy": ["{}"]}, "chunking_strategy"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities[]"),
        (
            {"timestamp_granularities": ["letter"], "response_format": ["verbose_json"]},
            "timestamp_granularities[]",
        ),
        ({"include[]": ["logprobs"]}, "include[]"),
    ],
)
def test_a_wrong_parameter_is_named(fields: dict[str, list[str]], param: str) -> None:
    with pytest.raises(Problem) as refused:
        read_form({name: value for name, value in ({"model": [MODEL]} | fields).items() if value})
    assert refused.value.param == param
    assert json.loads(bytes(refused.value.response("/v1/audio/transcriptions").body))["error"]


def test_granularities_are_taken_under_both_names() -> None:
    for name in ("timestamp_granularities", "timestamp_granularities[]"):
        form = read_form(
            {"model": [MODEL], "response_format": ["verbose_json"], name: ["word"], "prompt": [""]}
        )
        assert form.granularities == {Granularity.WORD}
    usual = read_form({"model": [MODEL], "temperature": ["0"], "stream": ["False"]})
    assert usual.granularities == {Granularity.SEGMENT}
    assert usual.response_format is ResponseFormat.JSON
    assert usual.wishes.stored() is None
