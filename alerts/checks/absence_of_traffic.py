"""An absence of what is only written while there is traffic."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.conditions import ConditionKind

_FLOWS = ("DELTA", "CUMULATIVE")
_OF_FLOWS = ("ALIGN_DELTA", "ALIGN_RATE")


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Counters tell by their kind, or by an aligner that reads nothing else."""
    for condition in candidate.conditions:
        selection = condition.selection
        if condition.kind is not ConditionKind.ABSENT or selection is None:
            continue
        counted = any(facts.kind in _FLOWS for facts in candidate.facts(selection))
        if counted or any(step.aligner in _OF_FLOWS for step in selection.steps[:1]):
            yield Hit(
                path=selection.path,
                text=f"{condition.label} waits for the silence of a counter, which is silent "
                "whenever nobody asks for anything, and says nothing of a counter that was never "
                "written.",
            )


RULE = Rule(
    id="absence-of-traffic",
    level=Level.WARNING,
    finds="an absence condition on a metric that is only written under traffic",
    why="It pages in every quiet night, and a service that never came up pages nobody.",
    remedy="Watch a gauge that is written whatever happens, such as a heartbeat, or count below a "
    "threshold with missing data as trouble.",
    check=check,
)
