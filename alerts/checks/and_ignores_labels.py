"""Conditions joined by AND whose groups nobody compares."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Two conditions that are split by a label of the metric are enough."""
    if not str(candidate.body.get("combiner", "")).startswith("AND"):
        return
    split = [condition for condition in candidate.conditions if _labels(condition)]
    if len(split) < 2:
        return
    labels = sorted(set().union(*(_labels(condition) for condition in split)))
    yield Hit(
        path=("combiner",),
        text=f"The conditions are split by {', '.join(labels)}, which AND does not compare: the "
        "policy fires when one value meets one of them and another value the other.",
    )


def _labels(condition: ConditionText) -> set[str]:
    group_by = condition.selection.group_by if condition.selection else None
    return {path[2] for path in group_by or () if path[:2] == ("metric", "labels")}


RULE = Rule(
    id="and-ignores-labels",
    level=Level.WARNING,
    finds="an AND of conditions that are each split by a label of the metric",
    why="It pages for a coincidence: one route has the share of errors, another one the traffic.",
    remedy="Put the second demand into the first condition, or live with it and say so in a "
    "suppression.",
    check=check,
)
