"""dead-letters: work was given up after its last attempt, and nobody has decided what to do.

Ours: a recording that failed this way is quiet; no other policy would ever tell of it.
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
from speakfit.metrics import QUEUE_DEAD_LETTERS, RESOURCE_TYPE

POLICIES = (
    Policy(
        subject="dead-letters",
        severity=Severity.WARNING,
        title="SpeakFit gave up work",
        owner="platform",
        guidance=Guidance(
            meaning="Work was begun as often as allowed, never finished and is not settled.",
            users_feel="A recording failed although its upload was accepted; the others go on.",
            first_steps=(
                "List what was given up and why: `python -m services.worker dead-letters list`.",
                "One recording is its own fault; many with one error are ours.",
                "Put the cause right, then try the work again with `dead-letters retry`.",
            ),
        ),
        conditions=(
            Threshold(
                key="dead letters not settled",
                signal=Signal(metric=QUEUE_DEAD_LETTERS, resource_type=RESOURCE_TYPE),
                # Every API replica counts the same rows in Postgres.
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                above=0,
                duration=timedelta(minutes=5),
                # An API that cannot count has settled nothing.
                missing_data=MissingData.KEEPS,
            ),
        ),
    ),
)
