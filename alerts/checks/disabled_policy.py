"""A policy that is switched off."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Unset means switched on."""
    if not candidate.enabled:
        yield Hit(path=("enabled",), text="It is switched off: it opens no incidents.")


RULE = Rule(
    id="disabled-policy",
    level=Level.NOTE,
    finds="a policy that is switched off",
    why="It was to be off for an hour, and in a year nobody knows why it is off.",
    remedy="Switch it on or delete it; to be quiet for a while there are snoozes, which end.",
    check=check,
)
