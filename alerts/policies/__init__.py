"""SpeakFit's catalog: one file per subject, thresholds from the founding document."""

from __future__ import annotations

from alerts.policies import (
    api_errors,
    api_latency,
    database_connections,
    dead_letters,
    queue_depth,
    telemetry_silent,
    transcription_stalled,
    worker_down,
)
from alerts.policy import Catalog
from alerts.routing import ROUTES
from speakfit.metrics import METRICS

CATALOG = Catalog(
    name="speakfit",
    policies=(
        *api_latency.POLICIES,
        *queue_depth.POLICIES,
        *api_errors.POLICIES,
        *worker_down.POLICIES,
        *telemetry_silent.POLICIES,
        *database_connections.POLICIES,
        *transcription_stalled.POLICIES,
        *dead_letters.POLICIES,
    ),
    routes=ROUTES,
    metrics=METRICS,
)
"""What `python -m alerts` manages unless told otherwise."""
