"""One attempt at a piece of work, measured and traced: how long it took and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import SpanKind

from services.worker.lease import ChunkWork, Preparation
from speakfit.jobs import PREPARE, QUEUE, TRANSCRIBE
from speakfit.metrics import PROCESS_DURATION, Outcome
from speakfit.telemetry import Telemetry
from speakfit.tracing import parent, span

_SYSTEM = {"messaging.system": "celery", "messaging.operation.name": "process"}


def be_born(telemetry: Telemetry) -> None:
    """Make every series of the attempts known before the first."""
    for task in (PREPARE, TRANSCRIBE):
        for outcome in Outcome:
            telemetry.distribution(PROCESS_DURATION, _labels(task, outcome))


def _labels(task: str, outcome: Outcome) -> dict[str, str]:
    return {**_SYSTEM, "task": task.removeprefix("speakfit."), "outcome": outcome}


@contextmanager
def measured(telemetry: Telemetry, work: Preparation | ChunkWork) -> Iterator[None]:
    """Around the attempt: its duration, and a span in the trace of the recording's upload.

    The trace comes from the database with the work, not from the message: a message that was lost
    and sent again, or that woke this process for other work, cuts no trace.
    """
    task = PREPARE if isinstance(work, Preparation) else TRANSCRIBE
    began = time.monotonic()
    outcome = Outcome.FAILED
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.type": "process",
        "messaging.destination.name": QUEUE,
        "speakfit.recording.id": str(work.recording_id),
    }
    if isinstance(work, ChunkWork):
        attributes["speakfit.chunk.index"] = work.index
    with span(
        f"process {task}",
        kind=SpanKind.CONSUMER,
        of=parent(work.traceparent),
        attributes=attributes,
    ):
        try:
            yield
            outcome = Outcome.DONE
        finally:
            telemetry.record(PROCESS_DURATION, _labels(task, outcome), time.monotonic() - began)
