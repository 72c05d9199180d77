"""A percentile of buckets that cannot show whether the threshold was passed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText, Selection
from alerts.metric_facts import MetricFacts
from alerts.rule import Hit, Level, Rule, Surroundings

WIDEST = 0.25
"""How wide the bucket around a threshold may be, as a part of the threshold."""


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Needs the metric's buckets, so it is silent about metrics that nobody has declared."""
    for condition in candidate.conditions:
        selection, limit = condition.selection, condition.limit
        if selection is None or limit is None or condition.denominator is not None:
            continue
        rank = _rank(selection)
        if rank is None:
            continue
        for facts in candidate.facts(selection):
            if facts.value_type == "DISTRIBUTION" and facts.buckets:
                text = _trouble(condition, facts, rank, limit.value)
                if text:
                    yield Hit(path=limit.path, text=f"{condition.label}: {text}")


def _rank(selection: Selection) -> int | None:
    """The percentile that is taken, when one is."""
    for step in selection.steps:
        for operation in (step.aligner, step.reducer):
            _, found, rank = operation.partition("_PERCENTILE_")
            if found and rank.isdigit():
                return int(rank)
    return None


def _trouble(condition: ConditionText, facts: MetricFacts, rank: int, limit: float) -> str:
    bounds = facts.buckets
    unit = f" {facts.unit}" if facts.unit else ""
    if limit >= bounds[-1]:
        return (
            f"the buckets of {facts.type} end at {bounds[-1]:g}{unit}, and no percentile of them "
            f"is ever above, so {limit:g}{unit} cannot be seen."
        )
    at = bisect_left(bounds, limit)
    if bounds[at] == limit:
        return ""
    low, high = (bounds[at - 1] if at else min(0.0, bounds[0])), bounds[at]
    if high - low <= WIDEST * abs(limit):
        return ""
    shown = low + (high - low) * rank / 100
    return (
        f"{limit:g}{unit} lies inside the bucket from {low:g} to {high:g}{unit} of {facts.type}, "
        f"and percentiles are interpolated there: whatever falls into it, p{rank} is reported as "
        f"about {shown:g}{unit}."
    )


RULE = Rule(
    id="percentile-outside-buckets",
    level=Level.ERROR,
    finds="a percentile of buckets that cannot show the threshold",
    why="A percentile is interpolated inside its bucket, so between two distant bounds it says "
    "where the bounds are and not how slow anything was.",
    remedy="Give the histogram a bound at the threshold, or move the threshold to a bound.",
    check=check,
)
