"""transcription-stalled: workers live and chunks wait, yet none is finished.

Ours: a live process that consumes nothing looks healthy to worker-down.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    Aggregation,
    Aligner,
    Combiner,
    Guidance,
    MissingData,
    Policy,
    Reducer,
    Severity,
    Signal,
    Threshold,
)
from speakfit.metrics import CHUNKS, QUEUE_DEPTH, RESOURCE_TYPE, WORKERS_ALIVE

_LASTING = timedelta(minutes=10)

POLICIES = (
    Policy(
        subject="transcription-stalled",
        severity=Severity.CRITICAL,
        title="SpeakFit transcription stands still",
        owner="platform",
        guidance=Guidance(
            meaning="Workers send heartbeats and chunks wait, but no chunk is finished.",
            users_feel="Uploads are accepted, but no transcript is finished.",
            first_steps=(
                "Look at the chunks that are leased again and again: one may crash the model.",
                "Check that the workers still consume from Redis.",
                "Restart the workers; leases expire and the chunks are taken over.",
            ),
        ),
        # Each condition is reduced to one line, so there is nothing to match. They live on
        # different resources (chunks on workers, the counts on API replicas): matching
        # resources would never fire.
        combiner=Combiner.ALL,
        conditions=(
            Threshold(
                key="chunks finished per minute",
                # A chunk that fails again and again is no progress.
                signal=Signal(
                    metric=CHUNKS, resource_type=RESOURCE_TYPE, labels={"outcome": "done"}
                ),
                aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_SUM),
                # Below one half is zero, whatever an interpolated delta leaves over.
                below=0.5,
                duration=_LASTING,
                missing_data=MissingData.KEEPS,
            ),
            Threshold(
                key="chunks accepted and not finished",
                signal=Signal(metric=QUEUE_DEPTH, resource_type=RESOURCE_TYPE),
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                above=0,
                duration=_LASTING,
                missing_data=MissingData.KEEPS,
            ),
            Threshold(
                key="live transcription workers",
                signal=Signal(metric=WORKERS_ALIVE, resource_type=RESOURCE_TYPE),
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                above=0,
                duration=_LASTING,
                missing_data=MissingData.KEEPS,
            ),
        ),
    ),
)
