"""Windows that are shorter than the time between two points."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Needs to know how often the metric is written."""
    for condition, selection in candidate.each_selection():
        for step in selection.steps[:1]:
            for facts in candidate.facts(selection):
                if facts.interval and step.period and step.period < facts.interval:
                    yield Hit(
                        path=(*step.path, "alignmentPeriod"),
                        text=f"{condition.label} looks at windows of "
                        f"{step.period.total_seconds():g} s, but {facts.type} is written every "
                        f"{facts.interval.total_seconds():g} s: most windows are empty.",
                    )


RULE = Rule(
    id="period-below-interval",
    level=Level.WARNING,
    finds="an alignment period shorter than the export interval",
    why="Every second window is missing data, so the duration starts again and again.",
    remedy="Make the alignment period at least as long as the time between two points.",
    check=check,
)
