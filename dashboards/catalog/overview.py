"""overview: is SpeakFit well, and if not, where to look."""

from __future__ import annotations

from dashboards.board import Board, Section
from dashboards.panel import (
    WHOLE,
    health,
    incidents,
    of,
    percentiles,
    rate,
    watched,
)
from speakfit.metrics import CHUNKS, REQUEST_DURATION, REQUESTS, RouteClass

BOARD = Board(
    id="overview",
    title="SpeakFit: overview",
    sections=(
        Section(
            title="Now",
            subtitle="Yellow and red are the thresholds of the alert policies.",
            panels=(
                health("p95 of interactive requests", "api-latency"),
                health("5xx of the worst route", "api-errors"),
                health("Chunks in the queue", "queue-depth"),
                health("Live workers", "worker-down"),
            ),
        ),
        Section(
            title="What pages",
            panels=(
                incidents(
                    "Incidents",
                    "api-latency",
                    "api-errors",
                    "queue-depth",
                    "worker-down",
                    "telemetry-silent",
                    "database-connections",
                    "transcription-stalled",
                    "dead-letters",
                    width=WHOLE,
                ),
            ),
        ),
        Section(
            title="The way of a recording",
            subtitle="Requests come in, chunks wait, workers finish them.",
            panels=(
                rate("Requests by status", of(REQUESTS), group_by=("status_class",)),
                percentiles(
                    "Interactive requests",
                    of(REQUEST_DURATION, route_class=RouteClass.INTERACTIVE),
                    limits="api-latency",
                ),
                watched("Queue depth", "queue-depth"),
                rate("Chunks finished", of(CHUNKS), group_by=("outcome",)),
            ),
        ),
    ),
)
