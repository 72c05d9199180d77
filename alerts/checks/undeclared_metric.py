"""A metric that nobody declares, in a catalog."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.nearest import did_you_mean
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.emulator.system_metrics import is_system_metric


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Google's own metrics need no declaration, and files declare nothing."""
    if not candidate.of_catalog:
        return
    for condition, selection in candidate.each_selection():
        for name in sorted(selection.metric_types - set(candidate.metrics)):
            if not is_system_metric(name):
                near = did_you_mean(name, candidate.metrics, otherwise="", alike=0.9)
                yield Hit(
                    path=selection.path,
                    text=f"{condition.label} reads {name}, which the catalog does not declare. "
                    f"{near}".rstrip(),
                )


RULE = Rule(
    id="undeclared-metric",
    level=Level.ERROR,
    finds="a metric that the catalog does not declare",
    why="Cloud Monitoring answers 404 to a policy on a metric nobody has written, and a mistyped "
    "one never fires.",
    remedy="Add the metric to the catalog's metrics, or correct its name.",
    check=check,
)
