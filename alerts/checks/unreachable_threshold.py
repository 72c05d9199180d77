"""A threshold beyond every value that can be measured."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.reach import reach
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Compares the limit with what aggregation, ratio and metric allow."""
    for condition in candidate.conditions:
        limit = condition.limit
        if limit is None:
            continue
        values = reach(condition, candidate)
        end = values.high if limit.above else values.low
        if (limit.value >= end) if limit.above else (limit.value <= end):
            side, least = ("above", "more") if limit.above else ("below", "less")
            yield Hit(
                path=limit.path,
                text=f"{condition.label} waits for values {side} {limit.value:g}, but what it "
                f"measures can never be {least} than {end:g}.",
            )


RULE = Rule(
    id="unreachable-threshold",
    level=Level.ERROR,
    finds="a threshold that the metric can never reach",
    why="The alert looks like protection and can never fire.",
    remedy="Choose a threshold within what can be measured; a share is written 0.8, not 80.",
    check=check,
)
