"""A query that is no PromQL."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate, without_placeholders
from alerts.promql import QueryError, parse_query
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.conditions import ConditionKind


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """What is filled in later may stand where no name can: then nothing is said."""
    for condition in candidate.conditions:
        text = condition.body.get("query")
        if condition.kind is not ConditionKind.PROMQL or not isinstance(text, str):
            continue
        try:
            parse_query(without_placeholders(text))
        except QueryError as error:
            if "${" not in text and text.strip():
                yield Hit(
                    path=condition.at("query"),
                    text=f"{condition.label} has no query that can be read: {error}.",
                )


RULE = Rule(
    id="unreadable-query",
    level=Level.ERROR,
    finds="a query that is no PromQL",
    why="It is refused when it is applied, or never evaluated.",
    remedy="Correct the query; a counter needs a range such as [5m] inside rate().",
    check=check,
)
