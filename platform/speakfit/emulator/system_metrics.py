"""Metrics that Google's services write: a policy may name them although nobody wrote them here.

Cloud Monitoring knows some thousands of them. Here their kind is read from what the policy does to
them; a policy that no kind would allow is refused as it would be for the real metric.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from speakfit.engine.filters import parse_filter
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.errors import WireError

USER_DOMAINS = (
    "custom.googleapis.com/", "workload.googleapis.com/", "external.googleapis.com/",
    "prometheus.googleapis.com/",
)  # fmt: skip
"""Where users write: metrics below these exist once somebody has declared or written them."""

_SYSTEM = re.compile(
    r"([a-z0-9-]+\.)*(googleapis\.com|kubernetes\.io|istio\.io|knative\.dev)"
    r"(/[A-Za-z0-9_.:\-]+)+"
)


def _of(kind: MetricKind, value_type: ValueType) -> Descriptor:
    return Descriptor(kind=kind, value_type=value_type)


_GAUGE = _of(MetricKind.GAUGE, ValueType.DOUBLE)
_COUNTER = _of(MetricKind.CUMULATIVE, ValueType.INT64)
_COUNTS = _of(MetricKind.DELTA, ValueType.INT64)
_LATENCY = _of(MetricKind.DELTA, ValueType.DISTRIBUTION)
_FLAG = _of(MetricKind.GAUGE, ValueType.BOOL)
_SPREAD = _of(MetricKind.GAUGE, ValueType.DISTRIBUTION)

_CANDIDATES = (
    _GAUGE, _COUNTER, _COUNTS, _LATENCY, _FLAG, _SPREAD,
    _of(MetricKind.CUMULATIVE, ValueType.DISTRIBUTION),
)  # fmt: skip

_BY_ALIGNER = {
    "ALIGN_DELTA": _COUNTER,
    "ALIGN_RATE": _COUNTER,
    "ALIGN_COUNT_TRUE": _FLAG,
    "ALIGN_COUNT_FALSE": _FLAG,
    "ALIGN_FRACTION_TRUE": _FLAG,
    **{f"ALIGN_PERCENTILE_{rank}": _LATENCY for rank in ("99", "95", "50", "05")},
}


def is_system_metric(metric_type: str) -> bool:
    """Whether a metric type belongs to one of Google's services, not to users."""
    return bool(_SYSTEM.fullmatch(metric_type)) and not metric_type.startswith(USER_DOMAINS)


def _sides(policy: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Every filter of a policy with the aggregations that are applied to what it selects."""
    for condition in policy.get("conditions", ()):
        for body in condition.values():
            if isinstance(body, Mapping):
                yield str(body.get("filter", "")), body.get("aggregations", [])
                yield (
                    str(body.get("denominatorFilter", "")),
                    body.get("denominatorAggregations", []),
                )


def _likely(policy: Mapping[str, Any]) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    for text, aggregations in _sides(policy):
        try:
            names = (parse_filter(text).metric_types or ()) if text.strip() else ()
        except WireError:
            # The policy is refused for it later, in the engine's words.
            continue
        first = aggregations[0] if aggregations else {}
        likely = _BY_ALIGNER.get(str(first.get("perSeriesAligner", "")), _GAUGE)
        found.update({name: likely for name in names if is_system_metric(name)})
    return found


def guesses(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Descriptor]]:
    """What the system metrics of a policy (REST JSON) may be, the likeliest first.

    Always at least one guess; empty when the policy names no system metric.
    """
    likely = _likely(policy)
    yield likely
    for candidate in _CANDIDATES if likely else ():
        yield dict.fromkeys(likely, candidate)
