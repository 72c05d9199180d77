"""A condition that contradicts itself or another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from alerts.candidate import Candidate, ConditionText, Selection
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.filters import All, Comparison


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Filters that no series passes, triggers that too few series can pull, limits that exclude
    each other."""
    for condition, selection in candidate.each_selection():
        why = _contradiction(selection)
        if why:
            yield Hit(path=selection.path, text=f"{condition.label} selects nothing: {why}.")
    for condition in candidate.conditions:
        yield from _trigger(condition)
    for alternative in candidate.alternatives:
        for first, second in combinations(alternative, 2):
            yield from _exclusive(first, second)


def _contradiction(selection: Selection) -> str:
    if selection.filter is None:
        return ""
    expression = selection.filter.expression
    terms = expression.operands if isinstance(expression, All) else (expression,)
    wanted: dict[tuple[str, ...], str] = {}
    for term in terms:
        if (
            isinstance(term, Comparison)
            and term.operator == "="
            and isinstance(term.value, str)
            and wanted.setdefault(term.path, term.value) != term.value
        ):
            return (
                f"{'.'.join(term.path)} cannot be {wanted[term.path]!r} and {term.value!r} at once"
            )
    return ""


def _trigger(condition: ConditionText) -> Iterator[Hit]:
    trigger = condition.body.get("trigger")
    count = trigger.get("count") if isinstance(trigger, dict) else None
    selection = condition.selection
    if not isinstance(count, int) or count <= 1 or selection is None or not selection.single:
        return
    lines = len(selection.metric_types) * len(
        (selection.filter.resource_types if selection.filter else None) or ()
    )
    if 0 < lines < count:
        yield Hit(
            path=condition.at("trigger"),
            text=f"{condition.label} wants {count} series beyond the limit, but aggregation leaves "
            f"{lines}.",
        )


def _exclusive(first: ConditionText, second: ConditionText) -> Iterator[Hit]:
    one, other, selection = first.limit, second.limit, first.selection
    if one is None or other is None or selection is None or not selection.single:
        return
    if first.measure is None or first.measure != second.measure or one.above == other.above:
        return
    above, below = (one, other) if one.above else (other, one)
    if below.value <= above.value:
        yield Hit(
            path=other.path,
            text=f"{first.label} and {second.label[0].lower()}{second.label[1:]} measure the same, "
            f"which cannot be above {above.value:g} and below {below.value:g} at once.",
        )


RULE = Rule(
    id="never-fires",
    level=Level.ERROR,
    finds="a policy that contradicts itself, so that it can never fire",
    why="It looks like protection and is none.",
    remedy="Write OR where either is meant, or correct the one that is wrong.",
    check=check,
)
