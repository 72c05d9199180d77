"""A percentile of seconds that is compared with what can only be milliseconds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText
from alerts.promql import Call, Operation, Selector, parts
from alerts.rule import Hit, Level, Rule, Surroundings

LEAST = 1000
"""Seconds, above which a percentile of durations is not believed: a quarter of an hour."""

_IN_SECONDS = re.compile(r"_seconds(_bucket|_sum)?(/(histogram|summary)(:.*)?)?")
"""Prometheus' convention: a metric's name ends with its base unit."""


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """By the metric's unit, or by the unit in its name."""
    for condition in candidate.conditions:
        limit = condition.limit
        if limit is not None and limit.value >= LEAST and _seconds(candidate, condition):
            yield Hit(
                path=limit.path,
                text=f"{condition.label} compares a percentile of seconds with {limit.value:g}, "
                f"which is {limit.value / 3600:.1f} h.",
            )


def _seconds(candidate: Candidate, condition: ConditionText) -> bool:
    if isinstance(condition.query, Operation):
        quantiles = [
            part
            for part in parts(condition.query.left)
            if isinstance(part, Call) and part.function == "histogram_quantile"
        ]
        return any(
            isinstance(part, Selector) and _IN_SECONDS.search(part.metric)
            for quantile in quantiles
            for part in parts(quantile)
        )
    selection = condition.selection
    if selection is None or not any(
        "_PERCENTILE_" in name for step in selection.steps for name in (step.aligner, step.reducer)
    ):
        return False
    return any(facts.unit == "s" for facts in candidate.facts(selection)) or any(
        _IN_SECONDS.search(name) for name in selection.metric_types
    )


RULE = Rule(
    id="milliseconds-meant",
    level=Level.WARNING,
    finds="a percentile of seconds compared with hours",
    why="The threshold was written in milliseconds, so nothing that still answers reaches it.",
    remedy="Divide the threshold by 1000.",
    check=check,
)
