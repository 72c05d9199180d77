"""A policy that does not say how bad it is."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Unset and unspecified are the same."""
    if not candidate.severity:
        yield Hit(
            path=("severity",), text="No severity: whoever is paged cannot tell how bad it is."
        )


RULE = Rule(
    id="missing-severity",
    level=Level.WARNING,
    finds="a policy without a severity",
    why="Notifications cannot be routed or sorted by it, so the trivial wakes people like the "
    "grave.",
    remedy="Set severity to CRITICAL, ERROR or WARNING.",
    check=check,
)
