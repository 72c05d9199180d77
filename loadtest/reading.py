"""What a policy's conditions read now, asked of Cloud Monitoring as the console's charts ask it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from alerts.encode import policy_json, policy_message
from alerts.gateway import Gateway
from alerts.policy import Catalog, Policy
from speakfit.clock import Clock

_LEAST = timedelta(minutes=3)
_SILENT_AFTER = timedelta(minutes=2)
_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The newest value of one condition, None without any, and whether it breaks the limit."""

    condition: str
    value: float | None
    broken: bool

    @property
    def text(self) -> str:
        """`p95 request duration of interactive routes: 5.62`."""
        return f"{self.condition}: " + ("nothing" if self.value is None else f"{self.value:.3g}")


def read_policy(
    gateway: Gateway, clock: Clock, policy: Policy, catalog: Catalog
) -> tuple[Reading, ...]:
    """One reading a condition; of a ratio its numerator, which breaks as soon as it is not zero.

    A TargetError when the server does not answer.
    """
    message = policy_message(policy_json(policy, catalog, runbook_base_url=""))
    return tuple(_read(gateway, clock, condition) for condition in message.conditions)


def _read(gateway: Gateway, clock: Clock, condition: Any) -> Reading:
    absent = "condition_absent" in condition
    rule = condition.condition_absent if absent else condition.condition_threshold
    aggregation = rule.aggregations[0]
    span = max(_LEAST, 2 * aggregation.alignment_period)
    now_ns = clock.now_ns()
    start_ns = now_ns - int(span.total_seconds()) * _SECOND
    newest: tuple[int, float] | None = None
    # Clients write and read in real time; only what is aligned is in policy time.
    found = gateway.series(
        filter=rule.filter,
        interval={
            "end_time": _stamp(clock.to_real_ns(now_ns)),
            "start_time": _stamp(clock.to_real_ns(start_ns)),
        },
        aggregation=aggregation,
    )
    for series in found:
        for point in series.points:
            at = clock.to_policy_ns(point.interval.end_time.ToNanoseconds())
            which = point.value.WhichOneof("value")
            value = float(getattr(point.value, which))
            # Of several lines at one time the one that is worst for most conditions.
            if newest is None or (at, value) > newest:
                newest = at, value
    return Reading(
        condition=condition.display_name,
        value=newest[1] if newest else None,
        broken=_broken(rule, newest, now_ns, absent=absent),
    )


def _stamp(ns: int) -> dict[str, int]:
    return {"seconds": ns // _SECOND, "nanos": ns % _SECOND}


def _broken(rule: Any, newest: tuple[int, float] | None, now_ns: int, *, absent: bool) -> bool:
    if absent:
        old_ns = int(_SILENT_AFTER.total_seconds()) * _SECOND
        return newest is None or now_ns - newest[0] > old_ns
    if newest is None:
        return False
    if rule.denominator_filter:
        return newest[1] > 0
    below = rule.comparison.name == "COMPARISON_LT"
    limit = float(rule.threshold_value)
    return newest[1] < limit if below else newest[1] > limit
