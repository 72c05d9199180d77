"""The two tasks, and the child process they run in.

Model, database pool and telemetry are made in the child: none of them survives being inherited.
A message delivered twice, or too late, finds no lease to take and ends there.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
import wave
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from celery import Task, shared_task
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, SQLAlchemyError

from services.worker.engine import load_model, transcribe
from services.worker.lease import (
    ChunkWork,
    Cut,
    Preparation,
    claim_chunk,
    claim_recording,
    fail_preparation,
    give_back,
    renewed,
    store_preparation,
    store_result,
)
from services.worker.speech import VoiceActivity, spans, stretches
from services.worker.sweep import remove_chunks
from speakfit.audio import chunk_path, decode, read_chunk, source_path, write_chunk
from speakfit.database import engine_from
from speakfit.errors import AudioError, SpeakFitError
from speakfit.jobs import BROKER_ERRORS, PREPARE, TRANSCRIBE, relay_outbox
from speakfit.metrics import CHUNKS
from speakfit.settings import Settings, read_settings
from speakfit.telemetry import Telemetry, configure_logging, make_telemetry

Work = TypeVar("Work", Preparation, ChunkWork)

# What a bad byte in the audio, or our own mistake about it, raises. Everything else is taken for
# trouble of the machine or a server: wrongly forgiven work only waits, wrongly blamed work is lost.
_BLAMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DataError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    wave.Error,
)
_SHORTEST_PAUSE = timedelta(milliseconds=250)
_LONGEST_PAUSE = timedelta(seconds=30)

DONE = {"outcome": "done"}
FAILED = {"outcome": "failed"}

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Child:
    """What one transcribing process holds for its whole life."""

    settings: Settings
    engine: Engine
    telemetry: Telemetry
    model: Any
    troubles: int = 0
    """How often in a row this machine or a server, not the audio, kept it from working."""


_children: list[Child] = []


@setup_logging.connect
def _log_as_json(**_: Any) -> None:
    """Celery configures no logging where this signal has a receiver."""
    configure_logging("worker")
    # Two lines a chunk that say nothing the metrics do not.
    for chatty in ("celery.app.trace", "celery.worker.strategy", "faster_whisper"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@worker_process_init.connect
def _begin(**_: Any) -> None:
    try:
        settings = read_settings()
        telemetry = make_telemetry(settings, service="worker")
        for outcome in (DONE, FAILED):
            telemetry.count(CHUNKS, outcome, 0)
        telemetry.start()
        began = time.monotonic()
        model = load_model(settings)
        logger.info("model loaded in %.2f s", time.monotonic() - began)
        _children.append(
            Child(
                settings=settings,
                engine=engine_from(settings),
                telemetry=telemetry,
                model=model,
            )
        )
    except Exception:
        # Celery would swallow it and every task would fail; a worker that cannot work must stop.
        logger.exception("the worker process could not begin; stopping the worker")
        os.kill(os.getppid(), signal.SIGTERM)


@worker_process_shutdown.connect
def _end(**_: Any) -> None:
    while _children:
        child = _children.pop()
        child.telemetry.shutdown()
        child.engine.dispose()


def _child() -> Child:
    if not _children:
        raise SpeakFitError(
            "This process has no model.",
            where="services.worker",
            todo="Start the worker with `python -m services.worker`.",
        )
    return _children[0]


def _attempt(
    child: Child,
    claim: Callable[[], Work | None],
    work_on: Callable[[Work], None],
) -> None:
    """Work under a lease; on an error give the work back, and say whether it was to blame.

    Trouble of this machine or of a server (disk full, database away, GPU gone) is not the work's
    fault: nothing accepted may be lost to it. The work goes back for others and this process
    pauses, longer each time, instead of taking the next.
    """
    work: Work | None = None
    try:
        work = claim()
        if work is None:
            return
        with renewed(child.engine, work, child.settings.chunk_lease):
            work_on(work)
    except _BLAMED:
        if work is not None:
            give_back(child.engine, work, forgiven=False)
        raise
    except Exception:
        child.troubles += 1
        pause = min(_SHORTEST_PAUSE * 2 ** min(child.troubles - 1, 20), _LONGEST_PAUSE)
        logger.exception("trouble; the work is given back, this process pauses %s", pause)
        _give_back_and_pause(child, work, pause.total_seconds())
    else:
        child.troubles = 0


def _give_back_and_pause(
    child: Child, work: Preparation | ChunkWork | None, seconds: float
) -> None:
    """While the database is away it is asked on: an attempt must not stay counted."""
    until = time.monotonic() + seconds
    while work is not None:
        try:
            give_back(child.engine, work, forgiven=True)
            work = None
        except SQLAlchemyError:
            time.sleep(_SHORTEST_PAUSE.total_seconds())
    time.sleep(max(0.0, until - time.monotonic()))


@shared_task(name=PREPARE, bind=True)
def prepare(self: Task[Any, Any], recording_id: str) -> None:
    """Decode, find speech, cut into chunks and ask for their transcription."""
    child = _child()
    lease = child.settings.chunk_lease
    known = uuid.UUID(recording_id)

    def work_on(work: Preparation) -> None:
        try:
            _prepare(child, work)
        except AudioError as error:
            fail_preparation(
                child.engine, work, code=error.code, detail=f"{error.what} {error.todo}"
            )
            logger.info(
                "recording refused",
                extra={"context": {"recording": recording_id, "code": error.code}},
            )

    _attempt(child, lambda: claim_recording(child.engine, known, lease), work_on)
    try:
        relay_outbox(child.engine, self.app)
    except (SQLAlchemyError, *BROKER_ERRORS) as error:
        logger.warning("the sweep will send the chunks: %s", type(error).__name__)


def _prepare(child: Child, work: Preparation) -> None:
    audio_dir = child.settings.audio_dir
    limit = child.settings.max_recording_duration.total_seconds()
    judged: list[float] = []
    cuts: list[Cut] = []
    windows = decode(source_path(audio_dir, work.recording_id), longest_seconds=limit)
    for stretch in stretches(windows, VoiceActivity(), judged):
        write_chunk(chunk_path(audio_dir, work.recording_id, len(cuts)), stretch.samples)
        cuts.append(Cut(start_seconds=stretch.start_seconds, end_seconds=stretch.end_seconds))
    if not cuts:
        raise AudioError(
            "No speech was found in the recording.",
            code="no-speech",
            todo="Check the microphone and record again.",
        )
    speech = [
        [round(start, 3), round(end, 3)]
        for start, end in spans(judged, duration=work.duration_seconds)
    ]
    store_preparation(child.engine, work, speech, cuts)


@shared_task(name=TRANSCRIBE)
def transcribe_chunk(recording_id: str, index: int) -> None:
    """Transcribe one chunk under a lease and store its words once."""
    child = _child()
    lease = child.settings.chunk_lease
    known = uuid.UUID(recording_id)

    def work_on(work: ChunkWork) -> None:
        try:
            path = chunk_path(child.settings.audio_dir, work.recording_id, index)
            result = transcribe(
                child.model,
                read_chunk(path),
                start_seconds=work.start_seconds,
                end_seconds=work.end_seconds,
            )
            stored = store_result(child.engine, work, result)
        except Exception:
            child.telemetry.count(CHUNKS, FAILED)
            raise
        if stored.kept:
            child.telemetry.count(CHUNKS, DONE)
        if stored.recording_finished:
            remove_chunks(child.settings.audio_dir, work.recording_id)
            logger.info("recording completed", extra={"context": {"recording": recording_id}})

    _attempt(child, lambda: claim_chunk(child.engine, known, index, lease), work_on)
