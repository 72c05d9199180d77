"""A notification that carries nothing but numbers."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Only the text counts; links alone explain nothing."""
    if not candidate.content.strip():
        yield Hit(
            path=("documentation", "content"),
            text="The notification says that something is beyond a limit, and not what that means.",
        )


RULE = Rule(
    id="missing-documentation",
    level=Level.WARNING,
    finds="a policy without documentation",
    why="The page is the first thing that a woken person reads, and often the only one.",
    remedy="Write in documentation.content what it means, what users feel and what to do first.",
    check=check,
)
