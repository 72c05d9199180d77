"""A warning that cannot come before the critical page about the same."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText
from alerts.rule import Alternative, Hit, Level, Rule, Surroundings, measures_of

_GRAVITY = {"WARNING": 0, "ERROR": 1, "CRITICAL": 2}


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Said of the milder policy, when whatever meets its conditions meets the graver one's."""
    for alternative in candidate.alternatives:
        measures = measures_of(alternative)
        if measures is None or candidate.severity not in _GRAVITY:
            continue
        for other, theirs in around.by_measure.get(measures, ()):
            if _GRAVITY.get(other.severity, -1) > _GRAVITY[candidate.severity] and _never_before(
                alternative, theirs
            ):
                at = alternative[0].limit
                yield Hit(
                    path=at.path if at else alternative[0].path,
                    text=f"Whatever meets {_called(alternative)} meets {other.id!r} "
                    f"({other.severity}) as soon or sooner, so this {candidate.severity} never "
                    "comes first.",
                )


def _called(alternative: Alternative) -> str:
    if len(alternative) > 1:
        return "these conditions"
    label = alternative[0].label
    return label[0].lower() + label[1:]


def _never_before(mild: Alternative, grave: Alternative) -> bool:
    by_measure = {condition.measure: condition for condition in grave}
    return all(_as_strict(one, by_measure[one.measure]) for one in mild)


def _as_strict(mild: ConditionText, grave: ConditionText) -> bool:
    """Whether the milder condition holds only where the graver one holds as well."""
    if mild.duration is None or grave.duration is None or mild.duration < grave.duration:
        return False
    first, second = mild.limit, grave.limit
    if first is None or second is None:
        # An absence has no limit: only how long it lasts can tell two apart.
        return first is second is None
    if first.above != second.above:
        return False
    return first.value >= second.value if first.above else first.value <= second.value


RULE = Rule(
    id="tiers-out-of-order",
    level=Level.ERROR,
    finds="a warning that never comes before the critical one",
    why="The time to act before it is grave, which is all a warning is for, is lost.",
    remedy="Give the milder policy the nearer threshold or the shorter duration.",
    check=check,
)
