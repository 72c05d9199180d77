"""A label that no series of the metric carries."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText, Selection
from alerts.document import Path
from alerts.nearest import did_you_mean
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Needs to know all labels of the metric; those of the resource are not looked at."""
    for condition, selection in candidate.each_selection():
        known = [facts.labels for facts in candidate.facts(selection)]
        if known and None not in known:
            labels = frozenset(label for one in known for label in one or ())
            yield from _strangers(condition, selection, labels)


def _strangers(
    condition: ConditionText, selection: Selection, labels: frozenset[str]
) -> Iterator[Hit]:
    used: list[tuple[Path, tuple[str, ...], str]] = [
        (selection.path, one.path, "selects by") for one in selection.comparisons
    ]
    used += [
        ((*step.path, "groupByFields"), path, "groups by")
        for step in selection.steps
        for path in step.group_by
    ]
    for at, path, verb in used:
        if path[:2] == ("metric", "labels") and path[2] not in labels | {"*"}:
            near = did_you_mean(path[2], labels, otherwise="", alike=0.7)
            yield Hit(
                path=at,
                text=f"{condition.label} {verb} the label {path[2]}, which no series carries. "
                f"{near}".rstrip(),
            )


RULE = Rule(
    id="undeclared-label",
    level=Level.ERROR,
    finds="a label that the metric does not have",
    why="A filter on it selects nothing, so the alert is silent; a group by it is one group.",
    remedy="Use a label of the metric as Cloud Monitoring stores it: dots become underscores.",
    check=check,
)
