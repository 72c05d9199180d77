"""A threshold that does not say what silence means."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.conditions import ConditionKind

_FIELD = "evaluationMissingData"
_UNDECIDED = ("", "EVALUATION_MISSING_DATA_UNSPECIFIED")


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Threshold conditions only: no other kind has the field."""
    for condition in candidate.conditions:
        if condition.kind is not ConditionKind.THRESHOLD:
            continue
        if (condition.body.get(_FIELD) or "") in _UNDECIDED:
            yield Hit(
                path=condition.at(_FIELD),
                text=f"{condition.label} does not say what missing data means: an open incident "
                "stays open when its series falls silent, and a silent series opens none.",
            )


RULE = Rule(
    id="missing-data-undecided",
    level=Level.WARNING,
    finds="a threshold condition without a decision on missing data",
    why="When the process that reports dies, the alert about it goes blind instead of firing.",
    remedy="Set evaluationMissingData (missing_data= in a catalog): ACTIVE when silence is "
    "trouble, INACTIVE when it is health, NO_OP when it says nothing.",
    check=check,
)
