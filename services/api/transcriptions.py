"""OpenAI's `POST /v1/audio/transcriptions`, and its list of models: its client works unmodified.

A transcription is a recording like any other, for which the request waits. Who goes away lets go of
it, unless an Idempotency-Key says that they will ask again; who waits longer than the time limit is
told where it goes on.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Literal, NoReturn, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from services.api.backlog import HasRoom
from services.api.callers import Reader, Writer
from services.api.description import problem_answers
from services.api.idempotency import Claim, Named, answered_once
from services.api.keys import Identity
from services.api.measure import CLIENT_GONE
from services.api.problems import Problem
from services.api.recordings import Given, Services, accept_upload, own_recording
from services.api.renditions import (
    MEDIA_TYPES,
    TranscriptFormat,
    plain_contents,
    read_transcript,
    render,
)
from services.api.transcript import Segment, Transcript
from services.api.uploads import FIELD, receive
from speakfit.database import Recording, RecordingStatus, transaction
from speakfit.jobs import cancel as cancel_recording
from speakfit.languages import LANGUAGES
from speakfit.wishes import Wishes

MODEL = "whisper-1"
"""OpenAI's name for Whisper. Which size and device stand behind it is the operator's choice."""

RECORDING_HEADER = "X-Recording-Id"

_Kind = TypeVar("_Kind", bound=StrEnum)
_LONGEST_PROMPT = 4000
_ENDED = (RecordingStatus.COMPLETED, RecordingStatus.FAILED, RecordingStatus.CANCELLED)
# A status read costs half a millisecond; an answer may come by so much late.
_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(milliseconds=500)


class ResponseFormat(StrEnum):
    """OpenAI's formats, but for the one that tells speakers apart."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE_JSON = "verbose_json"


class Granularity(StrEnum):
    """What verbose_json tells times of."""

    WORD = "word"
    SEGMENT = "segment"


class Usage(BaseModel):
    """What OpenAI bills by."""

    type: Literal["duration"] = "duration"
    seconds: int


class Transcription(BaseModel):
    """OpenAI's `json`."""

    text: str
    usage: Usage


class TimedWord(BaseModel):
    """OpenAI's word."""

    word: str
    start: float
    end: float


class TimedSegment(BaseModel):
    """OpenAI's segment; `tokens` are not kept, and `seek` is the start in hundredths."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscription(BaseModel):
    """OpenAI's `verbose_json`; `words` and `segments` as timestamp_granularities ask for them."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    words: list[TimedWord] | None = None
    segments: list[TimedSegment] | None = None
    usage: Usage


class Model(BaseModel):
    """OpenAI's model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(BaseModel):
    """OpenAI's list of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the form asks for beside the file."""

    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    wishes: Wishes


router = APIRouter(prefix="/v1", tags=["OpenAI"])

_TEXT: dict[str, Any] = {"type": "string"}
_GRANULARITIES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "enum": list(Granularity)},
    "description": "Only with verbose_json; segment where none is named.",
}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD, "model"],
                    "additionalProperties": False,
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "wav, mp3, m4a, ogg, flac or webm; its name is not used",
                        },
                        "model": {**_TEXT, "enum": [MODEL]},
                        "language": {
                            **_TEXT,
                            "enum": sorted(LANGUAGES),
                            "description": "ISO 639-1; left out, the model tells it.",
                        },
                        "prompt": {
                            **_TEXT,
                            "maxLength": _LONGEST_PROMPT,
                            "description": "Begins every chunk: style and names to be expected. "
                            "Whisper reads the last 223 tokens.",
                        },
                        "response_format": {**_TEXT, "enum": list(ResponseFormat)},
                        "temperature": {
                            "type": "number",
                            "minimum": 0,
                            "maximum": 1,
                            "description": "Of sampling; 0, the default, rises where the model "
                            "is unsure.",
                        },
                        "timestamp_granularities[]": _GRANULARITIES,
                        "timestamp_granularities": _GRANULARITIES,
                        "stream": {**_TEXT, "enum": ["false"]},
                        "chunking_strategy": {
                            **_TEXT,
                            "enum": ["auto"],
                            "description": "Cuts are always made where nobody speaks.",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "/audio/transcriptions",
    openapi_extra=_FORM,
    response_model=Transcription | VerboseTranscription,
    responses={
        HTTPStatus.OK.value: {
            "content": plain_contents(),
            "headers": {
                RECORDING_HEADER: {
                    "description": "The recording that it became.",
                    "schema": {"type": "string"},
                }
            },
        },
        **problem_answers(404, 409, 413, 415, 422, 507),
    },
)
async def transcribe(
    request: Request, services: Given, caller: Writer, _: HasRoom, key: Named
) -> Response:
    """Transcribe a file while the caller waits, in OpenAI's words and shapes."""
    upload = await receive(request, services.store, services.settings.max_upload_bytes)

    def create(claim: Claim | None) -> dict[str, Any]:
        return accept_upload(services, caller, upload, claim, form.wishes)

    try:
        form = read_form(upload.fields)
        accepted = await run_in_threadpool(
            answered_once, services.engine, caller, key,
            route="POST /v1/audio/transcriptions",
            payload=f"{upload.checksum} {form.wishes.stored()}",
            status=HTTPStatus.ACCEPTED, create=create,
        )  # fmt: skip
    finally:
        upload.discard()
    recording_id = uuid.UUID(json.loads(bytes(accepted.body))["id"])
    if not await _ended(services, request, recording_id):
        if not await request.is_disconnected():
            raise _too_long(recording_id, services.settings.transcription_timeout)
        if key is None:
            await run_in_threadpool(_let_go, services, recording_id)
        return Response(status_code=CLIENT_GONE)
    found = await run_in_threadpool(_read, services, caller, recording_id)
    answer = _answer(found, form)
    answer.headers[RECORDING_HEADER] = str(recording_id)
    return answer


# Whisper's publication; OpenAI's field is no date of ours.
_WHISPER = Model(
    id=MODEL, created=int(datetime(2022, 9, 21, tzinfo=UTC).timestamp()), owned_by="speakfit"
)


@router.get("/models")
async def models(_caller: Reader) -> Models:
    """The one model that can be named; clients ask for it before they offer a choice."""
    return Models(data=[_WHISPER])


@router.get("/models/{model}", responses=problem_answers(404))
async def show_model(model: str, _caller: Reader) -> Model:
    """What is known of it."""
    _check_model(model)
    return _WHISPER


async def _ended(services: Services, request: Request, recording_id: uuid.UUID) -> bool:
    """Wait for the end of the work; False when the caller is gone or the time is up."""
    limit = time.monotonic() + services.settings.transcription_timeout.total_seconds()
    pause = _FIRST_PAUSE
    while True:
        if await run_in_threadpool(_status, services, recording_id) in _ENDED:
            return True
        if time.monotonic() >= limit or await request.is_disconnected():
            return False
        await asyncio.sleep(pause.total_seconds())
        pause = min(pause * 1.2, _LONGEST_PAUSE)


def _status(services: Services, recording_id: uuid.UUID) -> str:
    """CANCELLED also when it was deleted meanwhile."""
    with transaction(services.engine) as session:
        status = session.scalar(select(Recording.status).where(Recording.id == recording_id))
        return status or RecordingStatus.CANCELLED


def _let_go(services: Services, recording_id: uuid.UUID) -> None:
    with transaction(services.engine) as session:
        cancel_recording(session, recording_id)
    services.store.remove_chunks(recording_id)


def _read(services: Services, caller: Identity, recording_id: uuid.UUID) -> Transcript:
    with transaction(services.engine) as session:
        recording = own_recording(session, caller, str(recording_id))
        if recording.status == RecordingStatus.FAILED:
            # Here the audio itself is the request.
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                recording.error_code or "failed",
                title="The file could not be transcribed.",
                detail=recording.error_detail or "No reason was kept.",
                todo="Send a better recording.",
                param=FIELD,
            )
        return read_transcript(session, recording)


def read_form(fields: Mapping[str, Sequence[str]]) -> Form:
    """What the fields ask for; a Problem names the first that is wrong."""
    given = {name: values for name, values in fields.items() if values != [""]}
    granularities = [
        *given.pop("timestamp_granularities[]", ()),
        *given.pop("timestamp_granularities", ()),
    ]
    single: dict[str, str] = {}
    for name, values in given.items():
        if name not in _FORM_FIELDS:
            _refuse(name, "unknown-parameter", f"There is no parameter `{name}`.")
        if len(values) > 1:
            _refuse(name, "invalid-value", f"`{name}` is there more than once.")
        single[name] = values[0]
    if "model" not in single:
        _refuse("model", "missing-parameter", "You must name a model.")
    _check_model(single["model"])
    if single.get("stream", "false").lower() not in ("false", "0"):
        _refuse("stream", "unsupported-value", "Streaming is not supported; send `stream=false`.")
    if single.get("chunking_strategy", "auto") != "auto":
        _refuse("chunking_strategy", "unsupported-value", "Only `auto` is supported.")
    response_format = _member(
        ResponseFormat, "response_format", single.get("response_format", ResponseFormat.JSON)
    )
    asked = frozenset(
        _member(Granularity, "timestamp_granularities[]", one) for one in granularities
    )
    if asked and response_format is not ResponseFormat.VERBOSE_JSON:
        _refuse(
            "timestamp_granularities[]",
            "invalid-value",
            "Timestamps are only told with `response_format=verbose_json`.",
        )
    language = single.get("language")
    if language is not None and language not in LANGUAGES:
        _refuse("language", "invalid-value", "It is no ISO 639-1 code that Whisper knows.")
    prompt = single.get("prompt")
    if prompt is not None and len(prompt) > _LONGEST_PROMPT:
        _refuse("prompt", "string-too-long", f"At most {_LONGEST_PROMPT} characters are taken.")
    return Form(
        response_format=response_format,
        granularities=asked or frozenset({Granularity.SEGMENT}),
        wishes=Wishes(
            language=language, prompt=prompt, temperature=_temperature(single.get("temperature"))
        ),
    )


_FORM_FIELDS = (
    *("model", "language", "prompt", "response_format", "temperature", "stream"),
    "chunking_strategy",
)


def _check_model(model: str) -> None:
    if model != MODEL:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "model-not-found",
            title="There is no such model.",
            detail=f"The only one is {MODEL}.",
            todo=f"Send `model={MODEL}`.",
            param="model",
        )


def _temperature(given: str | None) -> float | None:
    """OpenAI's 0 is not Whisper's: it rises where the model is unsure, as ours does by default."""
    try:
        value = float(given or 0)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        _refuse("temperature", "invalid-value", "It is a number from 0 to 1.")
    return value or None


def _member(kind: type[_Kind], field: str, value: str) -> _Kind:
    try:
        return kind(value)
    except ValueError:
        _refuse(field, "invalid-value", f"It is one of: {', '.join(kind)}.")


def _refuse(field: str, code: str, detail: str) -> NoReturn:
    raise Problem(
        HTTPStatus.BAD_REQUEST,
        code,
        title=f"The parameter `{field[:64]}` cannot be taken.",
        detail=detail,
        todo="Correct it; /docs describes every parameter.",
        param=field[:64],
    )


def _too_long(recording_id: uuid.UUID, limit: timedelta) -> Problem:
    return Problem(
        HTTPStatus.GATEWAY_TIMEOUT,
        "too-late",
        title="The transcription was not ready in time.",
        detail=f"It takes longer than {limit.total_seconds():g} s and goes on as a recording.",
        todo=f"Ask /v1/recordings/{recording_id} until it is completed, or cancel it there.",
        # The client would send all of it again, and again.
        headers={
            RECORDING_HEADER: str(recording_id),
            "X-Should-Retry": "false",
            "Retry-After": "30",
        },
    )


def _answer(found: Transcript, form: Form) -> Response:
    usage = Usage(seconds=math.ceil(found.duration_seconds))
    match form.response_format:
        case ResponseFormat.JSON:
            return JSONResponse(Transcription(text=found.text, usage=usage).model_dump())
        case ResponseFormat.VERBOSE_JSON:
            verbose = VerboseTranscription(
                language=LANGUAGES.get(found.language or "", found.language or "english"),
                duration=found.duration_seconds,
                text=found.text,
                words=_words(found) if Granularity.WORD in form.granularities else None,
                segments=[_segment(place, segment) for place, segment in enumerate(found.segments)]
                if Granularity.SEGMENT in form.granularities
                else None,
                usage=usage,
            )
            return JSONResponse(verbose.model_dump(exclude_none=True))
        case _:
            kind = TranscriptFormat(form.response_format)
            text = f"{MEDIA_TYPES[kind]}; charset=utf-8"
            return Response(render(found, kind), headers={"Content-Type": text})


def _words(found: Transcript) -> list[TimedWord]:
    return [
        TimedWord(word=word.word, start=word.start, end=word.end)
        for segment in found.segments
        for word in segment.words
    ]


def _segment(place: int, segment: Segment) -> TimedSegment:
    """What a chunk of an earlier release did not keep is made of its words."""
    text = segment.text.encode()
    surety = [math.log(max(word.probability, 1e-6)) for word in segment.words]
    mean = sum(surety) / len(surety) if surety else 0.0
    return TimedSegment(
        id=place,
        seek=int(segment.start * 100),
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=[],
        temperature=segment.temperature or 0.0,
        avg_logprob=round(mean, 4) if segment.avg_logprob is None else segment.avg_logprob,
        compression_ratio=round(len(text) / len(zlib.compress(text)), 4),
        no_speech_prob=segment.no_speech_prob or 0.0,
    )
