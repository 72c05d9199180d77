"""A condition that another policy has already."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alerts.candidate import Candidate, ConditionText
from alerts.rule import Alternative, Hit, Level, Rule, Surroundings, measures_of

Trigger = tuple[object, bool | None, float | None, timedelta | None]


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Said of the later of two policies. A condition that only holds with others is no duplicate
    unless the others are the same too."""
    for alternative in candidate.alternatives:
        measures = measures_of(alternative)
        if measures is None or not candidate.enabled:
            continue
        for other, theirs in around.by_measure.get(measures, ()):
            if theirs is alternative:
                break
            if other.enabled and _fires_when(theirs) == _fires_when(alternative):
                what = alternative[0].label if len(alternative) == 1 else "Its conditions"
                verb = "is" if len(alternative) == 1 else "are all"
                yield Hit(
                    path=alternative[0].path,
                    text=f"{what} {verb} in {other.id!r} too: each trouble opens two incidents.",
                )
                break


def _fires_when(alternative: Alternative) -> frozenset[Trigger]:
    return frozenset(map(_trigger, alternative))


def _trigger(condition: ConditionText) -> Trigger:
    limit = condition.limit
    return (
        condition.measure,
        limit.above if limit else None,
        limit.value if limit else None,
        condition.duration,
    )


RULE = Rule(
    id="duplicate-condition",
    level=Level.WARNING,
    finds="a condition that another policy has too",
    why="Two pages for one trouble, and whoever tunes one of them forgets the other.",
    remedy="Delete one; where two teams must hear of it, give one policy both channels.",
    check=check,
)
