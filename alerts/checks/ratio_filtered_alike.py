"""A ratio of something to itself."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText
from alerts.promql import Operation, parts
from alerts.reach import without_guard
from alerts.rule import Hit, Level, Rule, Surroundings

_ALWAYS_ONE = "so the ratio is 1 whenever there is any data, however many fail"


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Both sides select the same series and aggregate them alike; spelling does not matter."""
    for condition in candidate.conditions:
        yield from _threshold(condition)
        yield from _query(condition)


def _threshold(condition: ConditionText) -> Iterator[Hit]:
    above, below = condition.selection, condition.denominator
    if above is None or below is None:
        return
    if above.terms == below.terms and above.operations == below.operations:
        yield Hit(
            path=below.path,
            text=f"{condition.label}: numerator and denominator are filtered alike, {_ALWAYS_ONE}.",
        )


def _query(condition: ConditionText) -> Iterator[Hit]:
    for part in parts(condition.query) if condition.query else ():
        if (
            isinstance(part, Operation)
            and part.operator == "/"
            and without_guard(part.left) == without_guard(part.right)
        ):
            yield Hit(
                path=condition.at("query"),
                text=f"{condition.label} divides a query by itself, {_ALWAYS_ONE}.",
            )


RULE = Rule(
    id="ratio-filtered-alike",
    level=Level.ERROR,
    finds="a ratio whose two sides select the same series",
    why="Such an alert fires on the first data point or never, and tells nothing about the share "
    "it is named after.",
    remedy="Leave out of the denominator what makes the numerator a part, such as the error class.",
    check=check,
)
