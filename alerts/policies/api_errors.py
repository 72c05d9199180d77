"""api-errors: a route answers with 5xx too often.

Thresholds from the founding document; durations and the minimum count are ours: one error at
night is 100 % of the traffic and must page nobody.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    Aggregation,
    Aligner,
    Combiner,
    Guidance,
    MissingData,
    Ratio,
    Reducer,
    Severity,
    Signal,
    Threshold,
    Tier,
    tiered,
)
from speakfit.metrics import REQUESTS, RESOURCE_TYPE

FEWEST_ERRORS = 5
"""5xx answers of one route in the window below which nobody is told."""

_ERRORS = Signal(metric=REQUESTS, resource_type=RESOURCE_TYPE, labels={"status_class": "5xx"})
_PER_ROUTE = Aggregation(
    aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_SUM, group_by=("http.route",)
)

POLICIES = tiered(
    subject="api-errors",
    title="SpeakFit API answers with errors",
    owner="platform",
    guidance=Guidance(
        meaning="A share of one route's answers above the limit is 5xx, and they are at least "
        f"{FEWEST_ERRORS} in the window.",
        users_feel="Uploads or transcripts fail with an error message.",
        first_steps=(
            "Read which route it is in the incident's labels, then its errors in the API's log.",
            "Check Postgres and Redis: GET /readyz of the API names the one that fails.",
            "Roll back when it began with a deploy.",
        ),
    ),
    # Cloud Monitoring does not match the conditions of a policy by metric label: the policy
    # fires when ANY route breaks the share while ANY route, perhaps another one, has five
    # errors. At worst a quiet route's single error pages while a busy route has five harmless
    # ones; the share itself is still broken somewhere. A test pins this.
    combiner=Combiner.ALL,
    tiers={
        Severity.WARNING: Tier(limit=0.01, duration=timedelta(minutes=5)),
        Severity.CRITICAL: Tier(limit=0.05, duration=timedelta(minutes=2)),
    },
    conditions=lambda tier: (
        Ratio(
            key="share of 5xx answers per route",
            signal=_ERRORS,
            denominator=Signal(metric=REQUESTS, resource_type=RESOURCE_TYPE),
            aggregation=_PER_ROUTE,
            above=tier.limit,
            duration=tier.duration,
            missing_data=MissingData.CLOSES,
        ),
        Threshold(
            key="5xx answers per route",
            signal=_ERRORS,
            aggregation=Aggregation(
                aligner=Aligner.ALIGN_DELTA,
                period=tier.duration,
                reducer=Reducer.REDUCE_SUM,
                group_by=("http.route",),
            ),
            # Whole numbers: more than 4 is at least 5, and Cloud Monitoring only knows "more".
            above=FEWEST_ERRORS - 1,
            # The shortest that allows a decision on missing data.
            duration=timedelta(minutes=1),
            missing_data=MissingData.CLOSES,
        ),
    ),
)
