"""api-latency: interactive routes answer too slowly.

The founding document asks for warnings above 2 s and pages above 5 s; the durations are ours.
Only interactive routes count: event streams, uploads and synchronous transcription are slow by
design.
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
from speakfit.metrics import REQUEST_DURATION, RESOURCE_TYPE, RouteClass

POLICIES = tiered(
    subject="api-latency",
    title="SpeakFit API is slow",
    owner="platform",
    guidance=Guidance(
        meaning="The slowest 5 % of interactive API requests, all replicas together, take longer "
        "than the limit.",
        users_feel="The app hangs when opening a recording or its transcript.",
        first_steps=(
            "Look whether database-connections or queue-depth page too: then start there.",
            "Compare with the last deploy; roll back when it began with it.",
            "Find the slow route in the latency panel, then its requests in the API's log.",
        ),
    ),
    tiers={
        Severity.WARNING: Tier(limit=2.0, duration=timedelta(minutes=5)),
        Severity.CRITICAL: Tier(limit=5.0, duration=timedelta(minutes=2)),
    },
    conditions=lambda tier: (
        Threshold(
            key="p95 request duration of interactive routes",
            signal=Signal(
                metric=REQUEST_DURATION,
                resource_type=RESOURCE_TYPE,
                labels={"route_class": RouteClass.INTERACTIVE},
            ),
            # The exporter writes cumulative distributions, which percentile aligners refuse:
            # the delta of each series first, then the percentile of all of them together. Not
            # grouped by route: a route asked twice a night has no percentile worth waking for.
            aggregation=Aggregation(
                aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_PERCENTILE_95
            ),
            above=tier.limit,
            duration=tier.duration,
            missing_data=MissingData.CLOSES,
        ),
    ),
)
