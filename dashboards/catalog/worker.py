"""worker: what waits, who works on it, and how fast."""

from __future__ import annotations

from dashboards.board import Board, Section
from dashboards.panel import (
    alerts,
    chart,
    gauge,
    guide,
    heatmap,
    incidents,
    of,
    percentiles,
    rate,
    watched,
)
from speakfit.metrics import (
    AUDIO,
    CHUNKS,
    MODEL_LOAD_DURATION,
    PROCESS_DURATION,
    QUEUE_BROKER,
    QUEUE_DEPTH,
    QUEUE_DRAIN_TIME,
    QUEUE_IN_FLIGHT,
    QUEUE_OLDEST_AGE,
    REAL_TIME_FACTOR,
    WORKER_BUSY,
    WORKER_PROCESSES,
)

BOARD = Board(
    id="worker",
    title="SpeakFit: worker and queue",
    sections=(
        Section(
            title="Queue",
            subtitle="Counted in Postgres by every API replica, so it is true with all workers "
            "dead.",
            panels=(
                chart(
                    "Chunks accepted and not finished",
                    gauge(of(QUEUE_DEPTH), legend="all"),
                    gauge(of(QUEUE_IN_FLIGHT), legend="held by a worker"),
                    limits="queue-depth",
                ),
                chart(
                    "How long",
                    gauge(of(QUEUE_OLDEST_AGE), legend="the oldest waits since"),
                    gauge(of(QUEUE_DRAIN_TIME), legend="done in"),
                ),
                watched("Dead letters", "dead-letters"),
                chart("Messages in Redis", gauge(of(QUEUE_BROKER), group_by=("state",))),
            ),
        ),
        Section(
            title="Workers",
            panels=(
                watched("Live workers", "worker-down"),
                chart(
                    "Transcribing processes",
                    gauge(of(WORKER_PROCESSES), legend="there are"),
                    gauge(of(WORKER_BUSY), legend="at work"),
                ),
                percentiles("Time of a task", of(PROCESS_DURATION)),
                percentiles("Loading the model", of(MODEL_LOAD_DURATION)),
            ),
        ),
        Section(
            title="Throughput",
            panels=(
                watched("Chunks finished in a minute", "transcription-stalled"),
                rate("Chunks by outcome", of(CHUNKS), group_by=("outcome",)),
                rate("Audio transcribed", of(AUDIO)),
                heatmap("Time as a share of the audio's length", of(REAL_TIME_FACTOR)),
            ),
        ),
        Section(
            title="Alerts",
            panels=(
                *alerts("queue-depth", "worker-down", "transcription-stalled", "dead-letters"),
                incidents(
                    "Incidents of worker and queue",
                    "queue-depth",
                    "worker-down",
                    "transcription-stalled",
                    "dead-letters",
                ),
            ),
        ),
        Section(
            title="First steps",
            folded=True,
            panels=(
                guide("queue-depth"),
                guide("worker-down"),
                guide("transcription-stalled"),
                guide("dead-letters"),
            ),
        ),
    ),
)
