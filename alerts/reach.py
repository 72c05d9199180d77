"""Which values a condition can measure at all, as an interval; pure arithmetic, no data.

Counts and rates cannot be negative, a part cannot be more than its whole, and a metric may say what
its lowest and highest values are. Where nothing is known the interval has no end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from alerts.candidate import Candidate, ConditionText, Selection
from alerts.metric_facts import MetricFacts
from alerts.promql import Call, Constant, Negative, Operation, Query, Reduction, Selector

_KEEPS = {
    *("ALIGN_NONE", "ALIGN_INTERPOLATE", "ALIGN_NEXT_OLDER", "ALIGN_MIN", "ALIGN_MAX"),
    *("ALIGN_MEAN", "REDUCE_NONE", "REDUCE_MIN", "REDUCE_MAX", "REDUCE_MEAN"),
    *(f"{kind}_PERCENTILE_{rank}" for kind in ("ALIGN", "REDUCE") for rank in (99, 95, 50, "05")),
}
_ADDS = {"ALIGN_SUM", "REDUCE_SUM"}
_COUNTS = {
    *("ALIGN_COUNT", "ALIGN_COUNT_TRUE", "ALIGN_COUNT_FALSE", "ALIGN_STDDEV"),
    *("REDUCE_COUNT", "REDUCE_COUNT_TRUE", "REDUCE_COUNT_FALSE", "REDUCE_STDDEV"),
}
_FRACTIONS = {"ALIGN_FRACTION_TRUE", "REDUCE_FRACTION_TRUE"}
_FLOWS = {"ALIGN_DELTA", "ALIGN_RATE"}
_PARTIAL_ALIGNERS = {"ALIGN_DELTA", "ALIGN_RATE", "ALIGN_SUM", "ALIGN_COUNT"}
_PARTIAL_REDUCERS = {"REDUCE_NONE", "REDUCE_SUM", "REDUCE_COUNT"}
_RATES = {"rate", "irate", "increase", "count_over_time", "changes", "resets"}
_PARTIAL_CALLS = {"rate", "irate", "increase", "count_over_time", "sum_over_time"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The lowest and the highest value that can occur; infinite where there is no end."""

    low: float = -math.inf
    high: float = math.inf


ANY = Reach()
SHARE = Reach(low=0.0, high=1.0)
NOT_NEGATIVE = Reach(low=0.0)


def reach(condition: ConditionText, candidate: Candidate) -> Reach:
    """The values that are compared with the limit of a condition."""
    if isinstance(condition.query, Operation) and condition.limit is not None:
        return _of_query(condition.query.left)
    above, below = condition.selection, condition.denominator
    if above is None:
        return ANY
    if below is None:
        return _of_selection(above, candidate.facts(above))
    if is_part(above, below):
        return SHARE
    lows = [_of_selection(side, candidate.facts(side)).low for side in (above, below)]
    return NOT_NEGATIVE if min(lows) >= 0 else ANY


def is_part(above: Selection, below: Selection) -> bool:
    """Whether one selection counts some of what another counts, so that the ratio is a share."""
    return (
        above.operations == below.operations
        and below.terms <= above.terms
        and below.filter is not None
        and bool(below.metric_types)
        and all(
            step.aligner in _PARTIAL_ALIGNERS and step.reducer in _PARTIAL_REDUCERS
            for step in above.steps[:1]
        )
        and bool(above.steps)
    )


def is_part_of_query(above: Query, below: Query) -> bool:
    """The same for two sides of a PromQL division."""
    match above, below:
        case Reduction(), Reduction():
            return (
                above.operator == below.operator in ("sum", "count")
                and (above.by, above.without) == (below.by, below.without)
                and is_part_of_query(above.operand, below.operand)
            )
        case Call(), Call():
            return (
                above.function == below.function
                and above.function in _PARTIAL_CALLS
                and is_part_of_query(above.arguments[0], below.arguments[0])
            )
        case Selector(), Selector():
            return (
                bool(above.metric)
                and (above.metric, above.range, above.shift)
                == (below.metric, below.range, below.shift)
                and below.matchers <= above.matchers
            )
    return False


def without_guard(query: Query) -> Query:
    """A query without the comparison that only keeps it from dividing by zero."""
    if (
        isinstance(query, Operation)
        and query.operator in (">", ">=", "!=")
        and isinstance(query.right, Constant)
    ):
        return query.left
    return query


def _of_selection(selection: Selection, known: tuple[MetricFacts, ...]) -> Reach:
    values = (
        Reach(low=min(one.lowest for one in known), high=max(one.highest for one in known))
        if known
        else ANY
    )
    for step in selection.steps:
        values = _after(step.reducer, _after(step.aligner, values))
    return values


def _after(operation: str, values: Reach) -> Reach:
    if operation in _KEEPS:
        return values
    if operation in _FLOWS:
        # A flow is counted between two times: neither a delta nor a rate is ever negative.
        return NOT_NEGATIVE
    if operation == "ALIGN_PERCENT_CHANGE":
        return Reach(low=-100.0)
    if operation in _ADDS:
        return Reach(
            low=0.0 if values.low >= 0 else -math.inf, high=0.0 if values.high <= 0 else math.inf
        )
    if operation in _COUNTS:
        return NOT_NEGATIVE
    return SHARE if operation in _FRACTIONS else ANY


def _of_query(query: Query) -> Reach:
    match query:
        case Constant(value=float(value)) | Constant(value=int(value)):
            return Reach(low=value, high=value)
        case Call(function=function) if function in _RATES:
            return NOT_NEGATIVE
        case Call(function="label_replace" | "label_join", arguments=arguments):
            return _of_query(arguments[0])
        case Reduction(operator="sum"):
            return NOT_NEGATIVE if _of_query(query.operand).low >= 0 else ANY
        case Reduction(operator="avg" | "min" | "max" | "topk" | "bottomk"):
            return _of_query(query.operand)
        case Reduction(operator="count"):
            return NOT_NEGATIVE
        case Negative(operand=operand):
            inner = _of_query(operand)
            return Reach(low=-inner.high, high=-inner.low)
        case Operation():
            return _of_operation(query)
    return ANY


def _of_operation(query: Operation) -> Reach:
    above, below = query.left, without_guard(query.right)
    if query.operator == "/" and is_part_of_query(above, below):
        return SHARE
    left, right = _of_query(query.left), _of_query(query.right)
    if query.operator == "+":
        return Reach(low=left.low + right.low, high=left.high + right.high)
    if query.operator == "-":
        return Reach(low=left.low - right.high, high=left.high - right.low)
    if query.operator in ("*", "/") and left.low >= 0 and right.low >= 0:
        return _scaled(query.operator, left, right)
    if query.operator in (">", ">=", "<", "<=", "and", "unless"):
        return left
    return ANY


def _scaled(operator: str, left: Reach, right: Reach) -> Reach:
    """Products and quotients of what is not negative, as far as one side is a number."""
    if right.low == right.high and right.low > 0:
        factor = right.low if operator == "*" else 1 / right.low
        return Reach(low=left.low * factor, high=left.high * factor)
    if operator == "*" and left.low == left.high and left.low > 0:
        return Reach(low=right.low * left.low, high=right.high * left.low)
    return NOT_NEGATIVE
