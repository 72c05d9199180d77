"""A completed recording's transcript in the form that its reader wants: json, text, srt or vtt."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.api.callers import Reader
from services.api.description import problem_answers
from services.api.recordings import Given, not_ready, own_recording
from services.api.seams import Heard
from services.api.subtitles import cues, subrip, webvtt
from services.api.transcript import Transcript, assemble
from speakfit.database import Chunk, Recording, RecordingStatus, transaction


class TranscriptFormat(StrEnum):
    """What a transcript can be had as."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"


MEDIA_TYPES = {
    TranscriptFormat.JSON: "application/json",
    TranscriptFormat.TEXT: "text/plain",
    TranscriptFormat.SRT: "application/x-subrip",
    TranscriptFormat.VTT: "text/vtt",
}

_EXAMPLES = {
    TranscriptFormat.TEXT: "Ask not what your country can do for you.\n",
    TranscriptFormat.SRT: "1\n00:00:01,200 --> 00:00:04,050\nAsk not what your country\n"
    "can do for you.\n",
    TranscriptFormat.VTT: "WEBVTT\n\n00:00:01.200 --> 00:00:04.050\nAsk not what your country\n"
    "can do for you.\n",
}


def plain_contents() -> dict[str, Any]:
    """For OpenAPI's `content`: the formats that are text."""
    return {
        MEDIA_TYPES[kind]: {"schema": {"type": "string"}, "example": example}
        for kind, example in _EXAMPLES.items()
    }


router = APIRouter(prefix="/v1/recordings", tags=["recordings"])


@router.get(
    "/{recording_id}/transcript",
    response_model=Transcript,
    responses={
        HTTPStatus.OK.value: {
            "content": plain_contents(),
            "headers": {
                "Vary": {"description": "Always Accept.", "schema": {"type": "string"}},
            },
        },
        **problem_answers(404, 409),
    },
)
def transcript(
    recording_id: str,
    request: Request,
    services: Given,
    caller: Reader,
    chosen: Annotated[
        TranscriptFormat | None,
        Query(alias="format", description="Left out, Accept decides; json where it does not."),
    ] = None,
) -> Response:
    """Text, segments, words with times and coaching figures, or text or subtitles alone; 409
    until completed.
    """
    wanted = chosen or accepted(request.headers.getlist("accept"))
    with transaction(services.engine) as session:
        found = read_transcript(session, own_recording(session, caller, recording_id))
    answer = (
        JSONResponse(found.model_dump(mode="json"))
        if wanted is TranscriptFormat.JSON
        else Response(render(found, wanted), media_type=MEDIA_TYPES[wanted])
    )
    answer.headers["Vary"] = "Accept"
    if wanted is TranscriptFormat.SRT:
        # Starlette names a charset for text/* only.
        answer.headers["Content-Type"] = f"{MEDIA_TYPES[wanted]}; charset=utf-8"
    return answer


def read_transcript(session: Session, recording: Recording) -> Transcript:
    """The transcript of a completed recording; a Problem says why there is none."""
    if recording.status != RecordingStatus.COMPLETED:
        raise not_ready(recording)
    chunks = session.execute(
        select(Chunk.start_seconds, Chunk.end_seconds, Chunk.model, Chunk.result)
        .where(Chunk.recording_id == recording.id)
        .order_by(Chunk.index)
    ).tuples()
    return assemble(
        recording_id=str(recording.id),
        duration_seconds=recording.duration_seconds,
        chunks=[
            Heard(start=start, end=end, model=model, result=result)
            for start, end, model, result in chunks
            if result is not None
        ],
        speech=recording.speech or [],
    )


def render(found: Transcript, wanted: TranscriptFormat) -> str:
    """The transcript in one of its formats."""
    match wanted:
        case TranscriptFormat.JSON:
            return found.model_dump_json()
        case TranscriptFormat.TEXT:
            return found.text + "\n"
        case TranscriptFormat.SRT:
            return subrip(cues(found.segments))
        case TranscriptFormat.VTT:
            return webvtt(cues(found.segments))


def accepted(headers: list[str]) -> TranscriptFormat:
    """The format that Accept prefers (RFC 9110, section 12.5.1); JSON where it names none of ours.

    Of equals the first named wins. Wildcards name none: whoever takes anything gets JSON.
    """
    best, weight = TranscriptFormat.JSON, 0.0
    named = {media: kind for kind, media in MEDIA_TYPES.items()}
    for entry in ",".join(headers).split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = min(float(value), 1.0)
                except ValueError:
                    quality = 0.0
        if media in named and quality > weight:
            best, weight = named[media], quality
    return best
