"""A query in the language that Cloud Monitoring gives up."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.conditions import ConditionKind


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Monitoring Query Language, which its own proto calls deprecated."""
    for condition in candidate.conditions:
        if condition.kind is ConditionKind.MQL:
            yield Hit(
                path=condition.at("query"),
                text=f"{condition.label} is written in Monitoring Query Language, which is "
                "deprecated.",
            )


RULE = Rule(
    id="deprecated-language",
    level=Level.WARNING,
    finds="a condition in Monitoring Query Language",
    why="Google has deprecated it: what is written in it today must be written again.",
    remedy="Write the condition in PromQL, or as a threshold.",
    check=check,
)
