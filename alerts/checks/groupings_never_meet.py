"""Conditions, or sides of a query, whose groups have no labels in common to be matched by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from alerts.candidate import Candidate, ConditionText
from alerts.promql import Call, Constant, Operation, Query, Reduction, parts
from alerts.rule import Hit, Level, Rule, Surroundings

_MATCHED = {"+", "-", "*", "/", "%", "^", "and", "==", "!=", ">", "<", ">=", "<="}
_SAME_LABELS = {"abs", "ceil", "floor", "round", "clamp", "clamp_min", "clamp_max"}


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """AND_WITH_MATCHING_RESOURCE compares resources; PromQL compares all labels."""
    if candidate.body.get("combiner") == "AND_WITH_MATCHING_RESOURCE":
        for first, second in combinations(candidate.conditions, 2):
            why = _apart(first, second)
            if why:
                yield Hit(
                    path=second.path,
                    text=f"{first.label} and {second.label[0].lower()}{second.label[1:]} must hold "
                    f"on one resource, but {why}.",
                )
    for condition in candidate.conditions:
        for part in parts(condition.query) if condition.query else ():
            if isinstance(part, Operation) and _never_matches(part):
                yield Hit(
                    path=condition.at("query"),
                    text=f"{condition.label}: the sides of {part.operator!r} are grouped by "
                    f"{_listed(_labels(part.left))} and by {_listed(_labels(part.right))}, so no "
                    "series of one matches any of the other.",
                )


def _apart(first: ConditionText, second: ConditionText) -> str:
    """Why two conditions can never hold on one resource; empty when they can."""
    one, other = first.selection, second.selection
    if one is None or other is None or one.filter is None or other.filter is None:
        return ""
    types = one.filter.resource_types, other.filter.resource_types
    if types[0] and types[1] and not types[0] & types[1]:
        return f"one reads {_listed(types[0])} and the other {_listed(types[1])}"
    labels = _resource_labels(one.group_by), _resource_labels(other.group_by)
    if labels[0] != labels[1]:
        return f"aggregation leaves the first {_left(labels[0])} and the second {_left(labels[1])}"
    return ""


def _resource_labels(group_by: tuple[tuple[str, ...], ...] | None) -> frozenset[str] | None:
    if group_by is None or ("resource", "labels", "*") in group_by:
        return None
    return frozenset(path[2] for path in group_by if path[:2] == ("resource", "labels"))


def _left(labels: frozenset[str] | None) -> str:
    return "every label of its resource" if labels is None else f"only {_listed(labels)} of it"


def _never_matches(part: Operation) -> bool:
    if part.operator not in _MATCHED or part.on is not None or part.ignoring is not None:
        return False
    left, right = _labels(part.left), _labels(part.right)
    return left is not None and right is not None and left != right


def _labels(query: Query) -> frozenset[str] | None:
    """The labels that the series of a query carry; None when that is not certain."""
    match query:
        case Reduction(operator=operator) if operator not in ("topk", "bottomk"):
            return query.by
        case Call(function=function, arguments=arguments) if function in _SAME_LABELS:
            return _labels(arguments[0])
        case Operation(right=Constant()):
            return _labels(query.left)
        case Operation(left=Constant()):
            return _labels(query.right)
        case Operation(operator=operator) if operator in _MATCHED and query.one_to_one:
            left = _labels(query.left)
            return left if left == _labels(query.right) else None
    return None


def _listed(labels: frozenset[str] | None) -> str:
    return ", ".join(sorted(labels)) if labels else "nothing"


RULE = Rule(
    id="groupings-never-meet",
    level=Level.ERROR,
    finds="conditions or sides of a query whose groups can never match",
    why="Each side is right and together they find nothing, so the alert is silent for ever.",
    remedy="Group both by the same labels, or say by on(...) or the combiner AND what is meant.",
    check=check,
)
