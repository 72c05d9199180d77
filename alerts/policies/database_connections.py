"""database-connections: Postgres is running out of connections.

Ours: the founding document lists the metric without a threshold.
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
from speakfit.metrics import DATABASE_CONNECTIONS, RESOURCE_TYPE

POLICIES = tiered(
    subject="database-connections",
    title="SpeakFit database is running out of connections",
    owner="platform",
    guidance=Guidance(
        meaning="Connections in use, all clients together, are near the number Postgres allows.",
        users_feel="Nothing yet; at 100 % every request and every worker fails.",
        first_steps=(
            "List who holds the connections: pg_stat_activity by application and state.",
            "End the sessions that are idle in a transaction.",
            "Lower the number of API replicas or worker processes when they hold them all.",
        ),
    ),
    tiers={
        Severity.WARNING: Tier(limit=0.80, duration=timedelta(minutes=5)),
        Severity.CRITICAL: Tier(limit=0.95, duration=timedelta(minutes=2)),
    },
    conditions=lambda tier: (
        Threshold(
            key="database connections in use",
            signal=Signal(metric=DATABASE_CONNECTIONS, resource_type=RESOURCE_TYPE),
            # Every replica reads the same share from Postgres; the highest is the nearest to
            # the limit.
            aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
            above=tier.limit,
            duration=tier.duration,
            # A full database answers nobody, so silence is no sign of recovery.
            missing_data=MissingData.KEEPS,
        ),
    ),
)
