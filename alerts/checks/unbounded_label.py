"""Incidents by a label that never runs out of values."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText, Selection
from alerts.promql import Reduction, parts
from alerts.rule import Hit, Level, Rule, Surroundings

_OF_ONE = (
    "user|customer|account|visitor|session|request|trace|span|message|event|order|cart|invoice|"
    "transaction|payment|correlation|recording|upload|document|object|file|job|run|build|query|"
    "execution|conversation|thread"
)
_UNBOUNDED = re.compile(
    rf"((http|grpc|rpc|x|client|app)_)?({_OF_ONE})_?(id|uid|guid|uuid)|(.*_)?(uuid|guid|e?mail|email_address)"
    r"|(client|remote|source|src|peer|user)_(ip|address|addr)|ip|ip_address"
    r"|(http_|request_|full_|raw_)?(url|uri|target|path)|url_(full|path|query)|(http_)?user_agent"
    r"|(.*_)?timestamp|(db_)?(statement|query_text)|sql|(error|exception)_message|stack_?trace"
)


def unbounded(label: str) -> bool:
    """Whether a label's name says that each of its values is new."""
    return bool(_UNBOUNDED.fullmatch(re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")))


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Looks at the labels that are left after aggregation: each of their values is an incident."""
    for condition in candidate.conditions:
        for selection in condition.selections[:1]:
            yield from _selection(candidate, condition, selection)
        kept = {
            label
            for part in (parts(condition.query) if condition.query else ())
            if isinstance(part, Reduction)
            for label in part.by or ()
        }
        for label in filter(unbounded, sorted(kept)):
            yield _hit(condition, ("query",), label)


def _selection(
    candidate: Candidate, condition: ConditionText, selection: Selection
) -> Iterator[Hit]:
    for step in selection.steps:
        for path in step.group_by:
            if len(path) == 3 and unbounded(path[-1]):
                yield Hit(path=(*step.path, "groupByFields"), text=_text(condition, path[-1]))
    if selection.group_by is None:
        pinned = {one.path[-1] for one in selection.comparisons if one.operator == "="}
        for facts in candidate.facts(selection):
            for label in sorted((facts.labels or frozenset()) - pinned):
                if unbounded(label):
                    yield _hit(condition, ("aggregations",), label)


def _hit(condition: ConditionText, parts_of_path: tuple[str, ...], label: str) -> Hit:
    return Hit(path=condition.at(*parts_of_path), text=_text(condition, label))


def _text(condition: ConditionText, label: str) -> str:
    return (
        f"{condition.label} keeps the label {label}, of which there are new values for ever: each "
        "opens an incident of its own, and most have too few points to be judged."
    )


RULE = Rule(
    id="unbounded-label",
    level=Level.WARNING,
    finds="a condition that is split by a label of unbounded cardinality",
    why="One outage becomes a thousand pages, and the series cost more than what they watch.",
    remedy="Group by what has few values, such as route, region or class; leave the rest to logs.",
    check=check,
)
