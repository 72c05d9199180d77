"""telemetry-silent: no API replica reports anything, so every other alert is blind.

Ours: the founding document does not ask for it, but silence would look like health.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    Absence,
    Aggregation,
    Aligner,
    Guidance,
    Policy,
    Reducer,
    Severity,
    Signal,
)
from speakfit.metrics import RESOURCE_TYPE, WORKERS_ALIVE

POLICIES = (
    Policy(
        subject="telemetry-silent",
        severity=Severity.CRITICAL,
        title="SpeakFit sends no telemetry",
        owner="platform",
        guidance=Guidance(
            meaning="No API replica has exported a metric: the API is down, or its exports fail.",
            users_feel="Perhaps nothing, perhaps everything: nobody can tell until this is fixed.",
            first_steps=(
                "Ask the API itself: GET /readyz. No answer means an outage, not a blind spot.",
                "Read the API's log for failed exports (credentials, quota, network).",
                "Until it reports again, watch the API and the queue by hand.",
            ),
        ),
        conditions=(
            Absence(
                # The one metric that every API replica exports every 30 s whatever happens,
                # zero included; request metrics stop at night without anything being wrong.
                key="telemetry of every API replica",
                signal=Signal(metric=WORKERS_ALIVE, resource_type=RESOURCE_TYPE),
                # Reduced to one line: a replica that is scaled in is no outage.
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                duration=timedelta(minutes=10),
            ),
        ),
    ),
)
