"""What a plan would have done on recorded history, change by change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from alerts.backtest import EVERY, Backtest, backtest
from alerts.comparison import Comparison, compare
from alerts.encode import Json
from alerts.entrant import entrants
from alerts.history import History, instant, minute
from alerts.plan import Action, Change, Kind
from alerts.tally import comparison_json
from alerts.wording import duration_words
from speakfit.engine.policies import DescriptorLookup


@dataclass(frozen=True, kw_only=True, eq=False)
class Behaviour:
    """Every policy that a plan creates, changes or deletes, before and after."""

    result: Backtest
    compared: tuple[Comparison, ...]

    def lines(self) -> list[str]:
        """For people: what was replayed, then one line a policy, then what it comes to."""
        result = self.result
        if not any(one.known for one in self.compared):
            return [
                "On recorded history: nothing is known.",
                *(f"  {one.id}: {one.words()}" for one in self.compared),
            ]
        # An evaluation more or less is no reason to speak of minutes.
        length = timedelta(hours=round(result.length / timedelta(hours=1))) or result.length
        return [
            f"On recorded history, {minute(result.start_ns)} to {minute(result.end_ns)} UTC "
            f"({duration_words(length)}):",
            *(f"  {one.id}: {one.words()}" for one in self.compared),
            f"Together: {self.total()}.",
        ]

    def total(self) -> str:
        """`+3 pages (2 → 5), 1 incident missed`; what is not known is counted by itself."""
        known = [one for one in self.compared if one.known]
        before = sum(one.pages[0] for one in known)
        after = sum(one.pages[1] for one in known)
        noun = "page" if abs(after - before) == 1 else "pages"
        parts = [
            f"{after - before:+,} {noun} ({before:,} → {after:,})"
            if before != after
            else "no page more or less"
        ]
        for number, what in (
            (sum(one.missed for one in known), "missed"),
            (sum(one.new for one in known), "new"),
        ):
            if number:
                parts.append(f"{number:,} {'incident' if number == 1 else 'incidents'} {what}")
        unknown = len(self.compared) - len(known)
        if unknown:
            parts.append(f"{unknown} {'policy' if unknown == 1 else 'policies'} not known")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "start": instant(self.result.start_ns),
            "end": instant(self.result.end_ns),
            "words": self.total(),
            "policies": [comparison_json(one, self.result, before=True) for one in self.compared],
        }


def policies_of(
    changes: Iterable[Change], live: Iterable[Json]
) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """The policies that changes touch, as they are and as they will be, in REST form."""
    touched = [one for one in changes if one.kind is Kind.POLICY and one.action is not Action.NONE]
    names = {one.name for one in touched if one.name}
    return (
        tuple(policy for policy in live if policy.get("name") in names),
        tuple(one.body for one in touched if one.action is not Action.DELETE),
    )


def behaviour(
    changes: Sequence[Change],
    live: Iterable[Json],
    history: History,
    *,
    descriptors: DescriptorLookup,
    since: timedelta | None = None,
    every: timedelta = EVERY,
) -> Behaviour:
    """Replay the policies that changes touch, as they are live and as they will be."""
    before, after = (
        entrants(bodies, descriptors=descriptors) for bodies in policies_of(changes, live)
    )
    result = backtest([*before, *after], history, since=since, every=every)
    outcomes = result.outcomes
    return Behaviour(
        result=result, compared=compare(outcomes[: len(before)], outcomes[len(before) :])
    )
