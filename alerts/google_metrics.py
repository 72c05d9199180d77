"""Some of Google's own metrics that policies often read: enough to see a wrong unit.

From the lists of metrics in Cloud Monitoring's documentation (monitoring/api/metrics_gcp,
metrics_kubernetes, metrics_agent). What is not here is not known, and rules are silent about it.
"""

from __future__ import annotations

from collections.abc import Iterator

from alerts.metric_facts import MetricFacts

_SHARES = (
    "compute.googleapis.com/instance/cpu/utilization",
    "cloudsql.googleapis.com/database/cpu/utilization",
    "cloudsql.googleapis.com/database/disk/utilization",
    "cloudsql.googleapis.com/database/memory/utilization",
    "redis.googleapis.com/stats/memory/usage_ratio",
    "redis.googleapis.com/stats/memory/system_memory_usage_ratio",
)
_PERCENTAGES = (
    "agent.googleapis.com/cpu/utilization",
    "agent.googleapis.com/disk/percent_used",
    "agent.googleapis.com/memory/percent_used",
)
_MILLISECONDS = (
    "loadbalancing.googleapis.com/https/backend_latencies",
    "loadbalancing.googleapis.com/https/total_latencies",
    "run.googleapis.com/request_latencies",
)


def _facts() -> Iterator[MetricFacts]:
    for name in _SHARES:
        # A CPU that may burst shows a little more than 1, so there is no highest value.
        yield MetricFacts(type=name, kind="GAUGE", value_type="DOUBLE", unit="10^2.%", lowest=0)
    for name in _PERCENTAGES:
        yield MetricFacts(
            type=name, kind="GAUGE", value_type="DOUBLE", unit="%", lowest=0, highest=100
        )
    for name in _MILLISECONDS:
        yield MetricFacts(type=name, kind="DELTA", value_type="DISTRIBUTION", unit="ms", lowest=0)
    yield MetricFacts(
        type="kubernetes.io/container/memory/limit_utilization",
        kind="GAUGE",
        value_type="DOUBLE",
        unit="1",
        lowest=0,
        highest=1,
    )


GOOGLE_METRICS = {facts.type: facts for facts in _facts()}
"""By type."""
