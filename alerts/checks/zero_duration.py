"""A condition that one single measurement can meet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.conditions import ConditionKind

_KINDS = (ConditionKind.THRESHOLD, ConditionKind.PROMQL, ConditionKind.MQL)
_BURN_RATE = "select_slo_"
"""Filters on a service level objective bring their window with them."""


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Unset is zero; an absence must have a duration anyway."""
    for condition in candidate.conditions:
        if condition.kind not in _KINDS or condition.duration != timedelta(0):
            continue
        if str(condition.body.get("filter", "")).lstrip().startswith(_BURN_RATE):
            continue
        yield Hit(
            path=condition.at("duration"),
            text=f"{condition.label} has no duration: one measurement beyond the limit opens an "
            "incident, and the next one below closes it.",
        )


RULE = Rule(
    id="zero-duration",
    level=Level.WARNING,
    finds="a condition that holds at once",
    why="One late or odd point pages somebody, and a value that hovers at the limit pages again "
    "and again.",
    remedy="Set a duration of at least 60s, as long as the trouble may last without harm.",
    check=check,
)
