"""What a change of policies changes: pages, incidents missed or new, and how soon they open. Pure.

Two incidents are the same when the troubles behind them overlap: from when the condition began to
be violated until the incident closed. So a policy that opens sooner is compared with the one that
opens later, even if one is closed before the other opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median_low

from alerts.backtest import Episode, Outcome
from alerts.wording import duration_words


@dataclass(frozen=True, kw_only=True)
class Match:
    """One trouble, and the first incident of either side that it brought."""

    current: Episode | None
    proposed: Episode | None

    @property
    def sooner(self) -> timedelta | None:
        """How much sooner the proposed one opens; negative for later, None when one is missing."""
        if self.current is None or self.proposed is None:
            return None
        return timedelta(microseconds=(self.current.opened_ns - self.proposed.opened_ns) // 1_000)


def match(current: Sequence[Episode], proposed: Sequence[Episode]) -> tuple[Match, ...]:
    """Pair the episodes of two sides; several that overlap are one trouble."""
    ordered = sorted(
        [(one, True) for one in current] + [(one, False) for one in proposed],
        key=lambda pair: pair[0].since_ns,
    )
    groups: list[list[tuple[Episode, bool]]] = []
    reach = -1
    for episode, live in ordered:
        if groups and episode.since_ns <= reach:
            groups[-1].append((episode, live))
        else:
            groups.append([(episode, live)])
        reach = max(reach, episode.closed_ns)
    return tuple(
        Match(
            current=_first(one for one, live in group if live),
            proposed=_first(one for one, live in group if not live),
        )
        for group in groups
    )


def _first(episodes: Iterable[Episode]) -> Episode | None:
    return min(episodes, key=lambda one: one.opened_ns, default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """One policy before and after; None where it does not exist."""

    id: str
    current: Outcome | None
    proposed: Outcome | None

    @property
    def known(self) -> bool:
        """Whether the history says what both would have done."""
        return all(one is None or one.standing.known for one in (self.current, self.proposed))

    @property
    def pages(self) -> tuple[int, int]:
        """Pages before and after."""
        before, after = self.current, self.proposed
        return (0 if before is None else before.paged, 0 if after is None else after.paged)

    @property
    def in_alert(self) -> tuple[timedelta, timedelta]:
        """Time in alert before and after."""
        nothing = timedelta(0)
        before, after = self.current, self.proposed
        return (
            nothing if before is None else before.in_alert,
            nothing if after is None else after.in_alert,
        )

    @property
    def matches(self) -> tuple[Match, ...]:
        """The troubles of both sides."""
        before, after = self.current, self.proposed
        return match(
            () if before is None else before.episodes, () if after is None else after.episodes
        )

    @property
    def missed(self) -> int:
        """Troubles that the current policy tells and the proposed one would not."""
        return sum(1 for one in self.matches if one.proposed is None)

    @property
    def new(self) -> int:
        """Troubles that only the proposed policy would tell."""
        return sum(1 for one in self.matches if one.current is None)

    @property
    def sooner(self) -> timedelta | None:
        """How much sooner the proposed one opens, in the median; None when they share nothing."""
        found = [one.sooner for one in self.matches if one.sooner is not None]
        return median_low(found) if found else None

    @property
    def changed(self) -> bool:
        """Whether the proposed policy would do anything else, or might."""
        if not self.known or self.current is None or self.proposed is None:
            return True
        return self.pages[0] != self.pages[1] or _told(self.current) != _told(self.proposed)

    @property
    def quiet(self) -> bool:
        """Whether a policy that comes or goes changes nothing, because it never opens."""
        comes_or_goes = self.current is None or self.proposed is None
        return comes_or_goes and self.known and not self.matches

    def words(self) -> str:
        """`+3 pages (2 → 5), 1 incident missed, 4 min faster, time in alert 12 min → 40 min`."""
        if self.proposed is not None and not self.proposed.standing.known:
            return f"{self.proposed.standing}: {self.proposed.reason}"
        if self.current is not None and not self.current.standing.known:
            return f"current policy {self.current.standing}: {self.current.reason}"
        if not self.changed:
            return "behaves as before"
        before, after = self.pages
        if self.quiet:
            return "new, no page" if self.current is None else "gone, no page less"
        parts = [
            f"{after - before:+,} {'page' if abs(after - before) == 1 else 'pages'} "
            f"({before:,} → {after:,})"
            if before != after
            else f"{before:,} {'page' if before == 1 else 'pages'} as before"
        ]
        for number, what in ((self.missed, "missed"), (self.new, "new")):
            if number:
                parts.append(f"{number:,} {'incident' if number == 1 else 'incidents'} {what}")
        sooner = self.sooner
        if sooner:
            parts.append(
                f"{duration_words(abs(sooner))} {'faster' if sooner > timedelta(0) else 'slower'}"
            )
        alert_before, alert_after = self.in_alert
        if alert_before != alert_after:
            parts.append(
                f"time in alert {duration_words(alert_before)} → {duration_words(alert_after)}"
            )
        if self.current is None:
            parts.insert(0, "new")
        elif self.proposed is None:
            parts.insert(0, "gone")
        return ", ".join(parts)


def _told(outcome: Outcome) -> list[tuple[object, ...]]:
    """What tells one incident from another; the server's name of a condition does not."""
    return [
        (one.incident.condition_display_name, one.incident.series, one.incident.started_ns,
         one.closed_ns)
        for one in outcome.incidents
    ]  # fmt: skip


def compare(current: Sequence[Outcome], proposed: Sequence[Outcome]) -> tuple[Comparison, ...]:
    """Every policy of either side, the proposed ones first, in their order."""
    before = {one.entrant.id: one for one in current}
    after = {one.entrant.id: one for one in proposed}
    return tuple(
        Comparison(id=identity, current=before.get(identity), proposed=after.get(identity))
        for identity in dict.fromkeys([*after, *before])
    )
