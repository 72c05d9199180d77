"""A mean over everything, in which one bad part disappears."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings

_MIDDLES = ("REDUCE_MEAN", "REDUCE_PERCENTILE_50")


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """The mean of a distribution is that of all its values: it has no outliers to lose."""
    for condition in candidate.conditions:
        selection = condition.selection
        if selection is None or not selection.single or condition.limit is None:
            continue
        if any(facts.value_type == "DISTRIBUTION" for facts in candidate.facts(selection)):
            continue
        for step in selection.steps:
            if step.reducer in _MIDDLES and not step.group_by:
                yield Hit(
                    path=(*step.path, "crossSeriesReducer"),
                    text=f"{condition.label} reduces all series to their middle: one of ten may be "
                    "on fire and it hardly moves.",
                )


RULE = Rule(
    id="mean-hides-outlier",
    level=Level.NOTE,
    finds="a mean of all series without groups",
    why="The machine that fails is averaged away by those that do not.",
    remedy="Group by what can fail alone, or reduce by the maximum.",
    check=check,
)
