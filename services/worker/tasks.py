"""The two tasks, and the child process they run in.

Model, database pool and telemetry are made in the child: none of them survives being inherited.
A message only says that there is work. Who gets it does the work whose turn it is, and goes on
until there is none; so a message delivered twice, or too late, finds nothing to do and ends there.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
import uuid
import wave
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery import Celery, Task, shared_task
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, SQLAlchemyError

from services.worker.dead_letters import AUDIO_MISSING
from services.worker.engines import Speech, SpeechEngine, make_speech_engine
from services.worker.lease import ChunkWork, Preparation, Renewal, claim, give_back, renewed
from services.worker.measured import be_born, measured
from services.worker.results import (
    Cut,
    fail_preparation,
    finished_chunks,
    still_wanted,
    store_cuts,
    store_last_cuts,
    store_result,
)
from services.worker.speech import Stretch, VoiceActivity, next_batch, spans, steps
from services.worker.watch import Watched
from speakfit.audio import Samples, decode, pack_chunk, unpack_chunk
from speakfit.database import engine_from
from speakfit.errors import AudioError, SpeakFitError
from speakfit.jobs import BROKER_ERRORS, CHUNK_LENGTH, PREPARE, TRANSCRIBE, relay_outbox
from speakfit.metrics import (
    AUDIO,
    CHUNKS,
    MODEL_LOAD_DURATION,
    REAL_TIME_FACTOR,
    Outcome,
    Pool,
)
from speakfit.pool import POOL_GAUGES, TASK_POOL, pool_gauges
from speakfit.settings import Settings, read_settings
from speakfit.store import AudioStore, chunk_key, open_store, source_key
from speakfit.telemetry import Telemetry, configure_logging, make_telemetry
from speakfit.tracing import begin_tracing, end_tracing, span

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
# Cutting costs about 50 ms a chunk: a turn of it is shorter than one of transcribing. The first
# tells a short recording from a long one, whose first chunk others wait for.
_FIRST_BATCH = 2
_BATCH = 8
_LEAST_SHARE = 0.2
_SHORTEST_PAUSE = timedelta(milliseconds=250)
_LONGEST_PAUSE = timedelta(seconds=30)

DONE = {"outcome": Outcome.DONE}
FAILED = {"outcome": Outcome.FAILED}

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Cutting:
    """A recording that is being cut, between two batches of its cuts."""

    work: Preparation
    renewal: Renewal
    windows: Generator[Samples]
    steps: Iterator[Stretch | None]
    judged: list[float]
    finished: frozenset[int] = frozenset()
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class _Next:
    """A chunk that stays with the process that cut it, and its samples."""

    work: ChunkWork
    samples: Samples


@dataclass(kw_only=True)
class Child:
    """What one transcribing process holds for its whole life."""

    settings: Settings
    engine: Engine
    telemetry: Telemetry
    speech: SpeechEngine
    watched: Watched
    store: AudioStore
    cuttings: list[Cutting] = field(default_factory=list)
    next: _Next | None = None
    troubles: int = 0
    """How often in a row this machine or a server, not the audio, kept it from working."""


_children: list[Child] = []


@setup_logging.connect
def _log_as_json(**_: Any) -> None:
    """Celery configures no logging where this signal has a receiver."""
    configure_logging("worker", project=read_settings().google_cloud_project)
    # Two lines a chunk that say nothing the metrics do not.
    for chatty in ("celery.app.trace", "celery.worker.strategy", "faster_whisper"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@worker_process_init.connect
def _begin(**_: Any) -> None:
    try:
        settings = read_settings()
        telemetry = make_telemetry(settings, service="worker")
        begin_tracing(settings, telemetry.resource)
        for outcome in (DONE, FAILED):
            telemetry.count(CHUNKS, outcome, 0)
        telemetry.count(AUDIO, {}, 0)
        telemetry.distribution(REAL_TIME_FACTOR, {})
        be_born(telemetry)
        engine = engine_from(settings, TASK_POOL)
        telemetry.observe(POOL_GAUGES, pool_gauges(engine, Pool.WORKER))
        telemetry.start()
        began = time.monotonic()
        speech = make_speech_engine(settings)
        speech.load()
        VoiceActivity()
        telemetry.record(MODEL_LOAD_DURATION, {}, time.monotonic() - began)
        _children.append(
            Child(
                settings=settings,
                engine=engine,
                telemetry=telemetry,
                speech=speech,
                watched=Watched(getattr(current_process(), "index", 0)),
                store=open_store(settings),
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
        end_tracing()
        child.telemetry.shutdown()
        child.speech.close()
        child.engine.dispose()


def _child() -> Child:
    if not _children:
        raise SpeakFitError(
            "This process has no model.",
            where="services.worker",
            todo="Start the worker with `python -m services.worker`.",
        )
    return _children[0]


@shared_task(name=PREPARE, bind=True)
def prepare(self: Task[Any, Any], _recording_id: str) -> None:
    """A recording waits to be cut."""
    _serve(_child(), self.app)


@shared_task(name=TRANSCRIBE, bind=True)
def transcribe_chunk(self: Task[Any, Any], _recording_id: str, _index: int) -> None:
    """A chunk waits to be transcribed."""
    _serve(_child(), self.app)


def _serve(child: Child, app: Celery) -> None:
    """Do the work whose turn it is until there is none, or this process is in trouble or stopped.

    Long recordings stay open between two batches of their cuts and take turns like everybody, so
    three hours keep nobody else waiting. What is open is never left.
    """
    while not child.watched.stopping and (_serve_one(child, app) or child.cuttings):
        pass
    _put_down(child)


def _put_down(child: Child) -> None:
    """What is open when this process is stopped goes to others, who need not wait for a lease."""
    if child.next is not None:
        kept, child.next = child.next, None
        _give_back(child, kept.work, error="stopped", forgiven=True)
    for cutting in list(child.cuttings):
        _close(child, cutting)
        _give_back(child, cutting.work, error="stopped", forgiven=True)


def _serve_one(child: Child, app: Celery) -> bool:
    lease = child.settings.chunk_lease
    if child.next is not None:
        kept, child.next = child.next, None
        return _transcribe(child, kept.work, kept.samples)
    for lost in [cutting for cutting in child.cuttings if cutting.renewal.lost]:
        _close(child, lost)
    try:
        work = claim(child.engine, lease, cutting=[one.work for one in child.cuttings])
    except SQLAlchemyError:
        logger.exception("no work could be claimed")
        _pause(child)
        return False
    if isinstance(work, ChunkWork):
        return _transcribe(child, work, None)
    if isinstance(work, Preparation):
        return _cut(child, app, work)
    for lost in list(child.cuttings):
        _close(child, lost)
    return False


def _attempt(
    child: Child,
    work: Preparation | ChunkWork,
    limit: timedelta,
    act: Callable[[], None],
    end: Callable[[], None],
) -> bool:
    """Act on work that is ours; on an error end it, give it back, and say whether it is to blame.

    Trouble of this machine or of a server (disk full, database away, GPU gone) is not the work's
    fault: nothing accepted may be lost to it. The work goes back for others and this process
    pauses, longer each time, instead of taking the next. Audio that is missing may be either: the
    attempt counts, and there is a pause before the next.
    """
    try:
        with child.watched.within(limit), measured(child.telemetry, work):
            act()
    except Exception as error:
        end()
        missing = isinstance(error, FileNotFoundError)
        forgiven = not missing and not isinstance(error, _BLAMED)
        logger.exception(
            "an attempt failed", extra={"context": {"blamed": not forgiven, **_named(work)}}
        )
        met = AUDIO_MISSING if missing else _told(error)
        _give_back(child, work, error=met, forgiven=forgiven)
        if forgiven or missing:
            _pause(child)
        return not forgiven
    child.troubles = 0
    return True


def _named(work: Preparation | ChunkWork) -> dict[str, str | int]:
    name: dict[str, str | int] = {"recording": str(work.recording_id)}
    return {**name, "chunk": work.index} if isinstance(work, ChunkWork) else name


def _told(error: Exception) -> str:
    """The kind of an error and where it was raised; its text may hold what was said."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where


def _give_back(child: Child, work: Preparation | ChunkWork, *, error: str, forgiven: bool) -> None:
    """While the database is away it is asked on: an attempt must not stay counted."""
    while True:
        try:
            give_back(child.engine, work, error=error, forgiven=forgiven)
            return
        except SQLAlchemyError:
            time.sleep(_SHORTEST_PAUSE.total_seconds())


def _pause(child: Child) -> None:
    child.troubles += 1
    pause = min(_SHORTEST_PAUSE * 2 ** min(child.troubles - 1, 20), _LONGEST_PAUSE)
    logger.warning("trouble of ours; this process pauses %s", pause)
    time.sleep(pause.total_seconds())


def _cut(child: Child, app: Celery, work: Preparation) -> bool:
    """Cut one batch: of a recording that is open here, or of a new one."""
    open_here = [one for one in child.cuttings if one.work == work]
    held = open_here[0] if open_here else _open(child, work)

    def act() -> None:
        try:
            _cut_batch(child, held)
        except AudioError as error:
            _close(child, held)
            detail = f"{error.what} {error.todo}"
            fail_preparation(child.engine, work, code=error.code, detail=detail)
            child.store.remove_chunks(work.recording_id)
            logger.info(
                "recording refused", extra={"context": {**_named(work), "code": error.code}}
            )

    limit = child.settings.chunk_time_limit
    if not held.judged:
        # The first batch fetches and checks the whole file.
        limit += timedelta(seconds=work.duration_seconds / 2)
    going_on = _attempt(child, work, limit, act, lambda: _close(child, held))
    try:
        relay_outbox(child.engine, app)
    except (SQLAlchemyError, *BROKER_ERRORS) as error:
        logger.warning("the sweep will send the chunks: %s", type(error).__name__)
    return going_on


def _open(child: Child, work: Preparation) -> Cutting:
    """Nothing is read yet, so nothing fails here."""
    windows = _windows(child, work)
    judged: list[float] = []
    cutting = Cutting(
        work=work,
        renewal=Renewal(child.engine, work, child.settings.chunk_lease),
        windows=windows,
        steps=steps(windows, VoiceActivity(), judged),
        judged=judged,
    )
    child.cuttings.append(cutting)
    return cutting


def _windows(child: Child, work: Preparation) -> Generator[Samples]:
    """The recording's samples; closing it lets go of the local copy of a file in a bucket."""
    limit = child.settings.max_recording_duration.total_seconds()
    with child.store.local(source_key(work.recording_id, work.object_key), work.checksum) as path:
        yield from decode(path, longest_seconds=limit)


def _close(child: Child, cutting: Cutting) -> None:
    cutting.renewal.stop()
    cutting.windows.close()
    if cutting in child.cuttings:
        child.cuttings.remove(cutting)


def _cut_batch(child: Child, cutting: Cutting) -> None:
    work, lease = cutting.work, child.settings.chunk_lease
    if cutting.count == 0:
        cutting.finished = finished_chunks(child.engine, work.recording_id)
    size = _BATCH if cutting.count else _FIRST_BATCH
    batch, more = next_batch(cutting.steps, cutting.judged, size)
    cuts = [
        Cut(index=index, start_seconds=one.start_seconds, end_seconds=one.end_seconds)
        for index, one in enumerate(batch, start=cutting.count)
    ]
    for cut, stretch in zip(cuts, batch, strict=True):
        if cut.index not in cutting.finished:
            key = chunk_key(work.recording_id, cut.index)
            child.store.write(key, pack_chunk(stretch.samples))
    cutting.count += len(cuts)
    if more:
        if cuts and not store_cuts(child.engine, work, cuts):
            _discard(child, cutting)
        return
    if not cutting.count:
        raise AudioError(
            "No speech was found in the recording.",
            code="no-speech",
            todo="Check the microphone and record again.",
        )
    heard = spans(cutting.judged, duration=work.duration_seconds)
    speech = [[round(start, 3), round(end, 3)] for start, end in heard]
    ended = store_last_cuts(
        child.engine, work, cuts, count=cutting.count, speech=speech, lease=lease
    )
    if not ended.kept:
        _discard(child, cutting)
        return
    _close(child, cutting)
    if ended.next is not None:
        child.next = _Next(work=ended.next, samples=batch[0].samples)
    if ended.recording_finished:
        _complete(child, work.recording_id)


def _discard(child: Child, cutting: Cutting) -> None:
    """Another process cuts it now, or it was cancelled or deleted: then its chunks go too."""
    _close(child, cutting)
    if not still_wanted(child.engine, cutting.work.recording_id):
        child.store.remove_chunks(cutting.work.recording_id)


def _transcribe(child: Child, work: ChunkWork, samples: Samples | None) -> bool:
    """Transcribe one chunk under its lease and store its words once."""

    def act() -> None:
        try:
            heard = Speech(
                samples=unpack_chunk(child.store.read(key)) if samples is None else samples,
                start_seconds=work.start_seconds,
                end_seconds=work.end_seconds,
                wishes=work.wishes,
            )
            began = time.monotonic()
            with span("transcribe"):
                (result,) = child.speech.transcribe([heard])
            taken = time.monotonic() - began
            stored = store_result(child.engine, work, result, model=child.speech.model)
        except Exception:
            child.telemetry.count(CHUNKS, FAILED)
            raise
        if stored.kept:
            seconds = work.end_seconds - work.start_seconds
            child.telemetry.count(CHUNKS, DONE)
            child.telemetry.count(AUDIO, {}, seconds)
            child.telemetry.record(REAL_TIME_FACTOR, {}, taken / seconds)
        if stored.recording_finished:
            _complete(child, work.recording_id)

    key = chunk_key(work.recording_id, work.index)
    limit = time_limit(child.settings.chunk_time_limit, work)
    with renewed(child.engine, work, child.settings.chunk_lease) as renewal:
        return _attempt(child, work, limit, act, renewal.stop)


def time_limit(limit: timedelta, work: ChunkWork) -> timedelta:
    """In proportion to the chunk's length, but at least a fifth: some work is the same for all."""
    share = timedelta(seconds=work.end_seconds - work.start_seconds) / CHUNK_LENGTH
    return limit * min(1.0, max(_LEAST_SHARE, share))


def _complete(child: Child, recording_id: uuid.UUID) -> None:
    child.store.remove_chunks(recording_id)
    logger.info("recording completed", extra={"context": {"recording": str(recording_id)}})
