"""Incidents that stay open for days after their data ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alerts.candidate import Candidate, duration
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.engine.policies import DEFAULT_AUTO_CLOSE

LONGEST = timedelta(days=1)


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Unset means seven days."""
    strategy = candidate.body.get("alertStrategy")
    written = strategy.get("autoClose") if isinstance(strategy, dict) else None
    length = DEFAULT_AUTO_CLOSE if written is None else duration(written)
    if length is not None and length > LONGEST:
        how = "unset, which means seven days" if written is None else f"{written}"
        yield Hit(
            path=("alertStrategy", "autoClose"),
            text=f"Auto-close is {how}: when the series ends with its machine, the incident stays "
            "open that long and hides the next.",
        )


RULE = Rule(
    id="late-auto-close",
    level=Level.NOTE,
    finds="an auto-close longer than a day",
    why="While an incident is open its series opens no other, and a list of dead incidents is "
    "read by nobody.",
    remedy="Set alertStrategy.autoClose to between 1800s and 86400s.",
    check=check,
)
