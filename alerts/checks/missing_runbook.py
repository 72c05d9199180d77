"""Nothing in the notification leads to a page that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings

_ADDRESS = re.compile(r"https?://\S")


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """A link of the documentation, or any address in its text, counts."""
    if not candidate.links and not _ADDRESS.search(candidate.content):
        yield Hit(
            path=("documentation", "links"),
            text="No link leads from the notification to a runbook.",
        )


RULE = Rule(
    id="missing-runbook",
    level=Level.WARNING,
    finds="a policy that links to no runbook",
    why="Whoever is woken starts from nothing, and finds out at night what others knew by day.",
    remedy="Write a page on what to look at and what to do, and link it in documentation.links.",
    check=check,
)
