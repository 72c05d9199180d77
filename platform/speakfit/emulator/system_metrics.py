"""Metrics that Google's services write: a policy may name them although nobody wrote them here.

Cloud Monitoring knows some thousands of them. Here their kind is read from what the policy does to
them; a policy that no kind would allow is refused as it would be for the real metric.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speakfit.engine.align import PERCENTILES, Aligner
from speakfit.engine.filters import parse_filter
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.reduce import Aggregation, aggregated_type, parse_aggregation
from speakfit.errors import WireError

USER_DOMAINS = (
    "custom.googleapis.com/", "workload.googleapis.com/", "external.googleapis.com/",
    "prometheus.googleapis.com/",
)  # fmt: skip
"""Where users write: metrics below these exist once somebody has declared or written them."""

_SYSTEM = re.compile(
    r"([a-z0-9-]+\.)*(googleapis\.com|kubernetes\.io|istio\.io|knative\.dev|netapp\.com)"
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
    Aligner.ALIGN_DELTA: _COUNTER,
    Aligner.ALIGN_RATE: _COUNTER,
    Aligner.ALIGN_COUNT_TRUE: _FLAG,
    Aligner.ALIGN_COUNT_FALSE: _FLAG,
    Aligner.ALIGN_FRACTION_TRUE: _FLAG,
    **dict.fromkeys(PERCENTILES, _LATENCY),
}


def is_system_metric(metric_type: str) -> bool:
    """Whether a metric type belongs to one of Google's services, not to users."""
    return bool(_SYSTEM.fullmatch(metric_type)) and not metric_type.startswith(USER_DOMAINS)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A filter of a policy with what is done to the metrics it names."""

    filter: str
    steps: tuple[Aggregation, ...]
    numeric: bool


def _steps(value: Any) -> tuple[Aggregation, ...]:
    try:
        return tuple(parse_aggregation(step, field="aggregations") for step in value or ())
    except WireError:
        # The policy is refused for it later, in the engine's words.
        return ()


def _sides(policy: Mapping[str, Any]) -> Iterator[_Side]:
    for condition in policy.get("conditions", ()):
        for kind, body in condition.items():
            if not isinstance(body, Mapping):
                continue
            for prefix, text in (
                ("aggregations", "filter"),
                ("denominatorAggregations", "denominatorFilter"),
            ):
                yield _Side(
                    filter=str(body.get(text, "")),
                    steps=_steps(body.get(prefix)),
                    numeric=kind == "conditionThreshold",
                )


def _fits(descriptor: Descriptor, side: _Side) -> bool:
    """Whether such a metric can be aggregated as asked, to numbers where they are needed."""
    try:
        _kind, value_type = aggregated_type(side.steps, descriptor.kind, descriptor.value_type)
    except WireError:
        return False
    return not side.numeric or value_type not in (ValueType.DISTRIBUTION, ValueType.STRING)


def guessed(policy: Mapping[str, Any]) -> dict[str, Descriptor]:
    """What the system metrics of a policy (REST JSON) may be: the likeliest that all it does fits.

    Where nothing fits, the likeliest of all, so that the policy is refused as the real one is.
    """
    uses: dict[str, list[_Side]] = {}
    for side in _sides(policy):
        try:
            names = (parse_filter(side.filter).metric_types or ()) if side.filter.strip() else ()
        except WireError:
            # The policy is refused for it later, in the engine's words.
            continue
        for name in names:
            if is_system_metric(name):
                uses.setdefault(name, []).append(side)
    found: dict[str, Descriptor] = {}
    for name, sides in uses.items():
        aligner = sides[0].steps[0].aligner if sides[0].steps else Aligner.ALIGN_NONE
        likely = _BY_ALIGNER.get(aligner, _GAUGE)
        found[name] = next(
            (
                candidate
                for candidate in (likely, *_CANDIDATES)
                if all(_fits(candidate, side) for side in sides)
            ),
            likely,
        )
    return found
