"""Documentation that explains and never says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings

_LISTED = re.compile(r"(?m)^\s*(?:[-*+]|\d+[.)])\s+\S")
_VERBS = (
    "add|ask|call|check|compare|consider|contact|drain|find|inspect|investigate|look|open|read|"
    "restart|review|roll back|run|scale|see|stop|verify|view"
)
_TOLD = re.compile(rf"(?im)(?:^|[.!?:;,]\s+|\*\*|\[|\bto |\bplease |\band )(?:{_VERBS})\b")


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """A list, or a sentence that tells to do something, is a step."""
    content = candidate.content
    if content.strip() and not _LISTED.search(content) and not _TOLD.search(content):
        yield Hit(
            path=("documentation", "content"),
            text="The documentation explains the alert and names no first step.",
        )


RULE = Rule(
    id="no-first-step",
    level=Level.NOTE,
    finds="documentation that names no first step",
    why="At night people follow steps better than explanations.",
    remedy="Write two or three steps, each beginning with a verb.",
    check=check,
)
