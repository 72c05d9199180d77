"""queue-depth: chunks are accepted faster than they are finished.

Thresholds from the founding document; the durations are ours.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    Aggregation,
    Aligner,
    Guidance,
    MissingData,
    Reducer,
    Severity,
    Signal,
    Threshold,
    Tier,
    tiered,
)
from speakfit.metrics import QUEUE_DEPTH, RESOURCE_TYPE

POLICIES = tiered(
    subject="queue-depth",
    title="SpeakFit transcription queue is long",
    owner="platform",
    guidance=Guidance(
        meaning="More chunks are accepted and not finished than the workers clear in time.",
        users_feel="Transcripts take minutes to hours instead of seconds.",
        first_steps=(
            "Check that workers live (worker-down) and finish chunks (transcription-stalled).",
            "Compare arrivals with throughput; a burst drains by itself.",
            "Add workers when throughput is at its ceiling.",
        ),
    ),
    tiers={
        Severity.WARNING: Tier(limit=100, duration=timedelta(minutes=5)),
        Severity.CRITICAL: Tier(limit=500, duration=timedelta(minutes=2)),
    },
    conditions=lambda tier: (
        Threshold(
            key="chunks accepted and not finished",
            signal=Signal(metric=QUEUE_DEPTH, resource_type=RESOURCE_TYPE),
            # Every API replica counts the same rows in Postgres, so the largest is the newest
            # truth and a sum would count them once per replica.
            aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
            above=tier.limit,
            duration=tier.duration,
            # No data means the API cannot count: no reason to believe that the queue is empty.
            missing_data=MissingData.KEEPS,
        ),
    ),
)
