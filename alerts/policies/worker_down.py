"""worker-down: no live GPU worker, so nothing is transcribed.

Threshold and duration from the founding document.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    Aggregation,
    Aligner,
    Guidance,
    MissingData,
    Policy,
    Reducer,
    Severity,
    Signal,
    Threshold,
)
from speakfit.metrics import RESOURCE_TYPE, WORKERS_ALIVE

POLICIES = (
    Policy(
        subject="worker-down",
        severity=Severity.CRITICAL,
        title="SpeakFit has no transcription worker",
        owner="platform",
        guidance=Guidance(
            meaning="No worker has written a fresh heartbeat to Postgres.",
            users_feel="Uploads are accepted, but no transcript is finished.",
            first_steps=(
                "Look whether worker processes run and why the last one ended.",
                "Restart or resize the workers; nothing accepted is lost, the queue waits.",
                "Watch the queue drain after the first heartbeat is back.",
            ),
        ),
        conditions=(
            Threshold(
                key="live transcription workers",
                # API replicas report the count, zero included, so a fleet that never started
                # pages as well as one that died.
                signal=Signal(metric=WORKERS_ALIVE, resource_type=RESOURCE_TYPE),
                # The highest count of any replica: one that lost its database must not page
                # for workers that the others can see.
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                below=1,
                duration=timedelta(minutes=5),
                missing_data=MissingData.KEEPS,
            ),
        ),
    ),
)
