"""A threshold that every value is beyond."""

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
        end = values.low if limit.above else values.high
        if (end > limit.value) if limit.above else (end < limit.value):
            side, least = ("above", "less") if limit.above else ("below", "more")
            yield Hit(
                path=limit.path,
                text=f"{condition.label} holds {side} {limit.value:g}, and what it measures can "
                f"never be {least} than {end:g}: any data at all is trouble.",
            )


RULE = Rule(
    id="always-fires",
    level=Level.ERROR,
    finds="a threshold that every value is beyond",
    why="The alert fires as soon as there is data, and is muted for good the day after.",
    remedy="Choose a threshold within what can be measured, and look whether above and below are "
    "what was meant.",
    check=check,
)
