"""Verdicts: in which evaluations series meet a condition, and what is remembered of them.

The measured values of a series become stretches in which the condition is met, by way of the
duration window, which restarts whenever a measurement does not satisfy the condition
(alerts/concepts-indepth), and of what the policy says about missing data. Series are judged side
by side, as they were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np

from speakfit.engine.columns import Columns
from speakfit.engine.conditions import (
    AbsenceCondition,
    MissingData,
    Operator,
    ThresholdCondition,
)
from speakfit.engine.points import NEVER, Bools, Floats, Ints, Keys, SeriesKey
from speakfit.engine.runs import NO_MANY_RUNS, ManyRuns, Runs, stretches
from speakfit.engine.states import States
from speakfit.engine.wire import to_ns

AUTO_CLOSE_DELAY = timedelta(minutes=15)
"""Data must be missing this long before the auto-close timer starts (facts §2)."""
ABSENT_GRACE = timedelta(hours=24)
"""Incidents about missing data stay open this much longer than auto-close (facts §2)."""
_LONGEST_NS = 2**62
"""Longer durations than these 146 years cannot be told apart, and int64 must not overflow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """One series under one condition, at all evaluation times, for who watches a replay."""

    key: SeriesKey
    violating: Runs
    """Where the comparison holds, or missing data counts for it; `met` once that has lasted."""
    met: Runs
    values: Floats | None
    """Measured value, NaN where missing; None for an absence."""
    first_known: int
    """The first evaluation at which the series has had data."""
    silence: Ints | None = None
    """Nanoseconds that an absence's series has been silent, 0 before its first point; None for a
    threshold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """Series under one condition, at all evaluation times."""

    keys: Keys
    at_ns: Ints
    violating: ManyRuns
    met: ManyRuns
    values: Floats | None
    """Measured values, NaN where missing; None for an absence."""
    states: States
    """After the last evaluation."""
    last_seen: Callable[[Ints, Ints], Ints]
    """When series (by row) had data the last time before or in evaluations; NEVER if not yet."""
    limit_ns: int
    """A series that has been without data for so long is gone."""
    silence: Ints | None = None
    """Of an absence, as in Verdict."""

    def known(self, rows: Ints, indices: Ints) -> Bools:
        """Whether series count in evaluations: they have had data and are not gone."""
        return self._counts(self.last_seen(rows, indices), self.at_ns[indices])

    @property
    def known_at_last(self) -> Bools:
        """Whether series are known in the last evaluation."""
        return self._counts(self.states.last_seen_ns, self.at_ns[-1:])

    def _counts(self, seen: Ints, at_ns: Ints) -> Bools:
        return (seen > NEVER) & (at_ns - seen < self.limit_ns)

    def each(self) -> Iterator[Verdict]:
        """Every series by itself."""
        rows, every = range(len(self.keys)), np.arange(len(self.at_ns))
        for row, violating, met in zip(
            rows, self.violating.by_row(rows), self.met.by_row(rows), strict=True
        ):
            seen = self.last_seen(np.full_like(every, row), every)
            yield Verdict(
                key=self.keys.each[row],
                violating=violating,
                met=met,
                values=None if self.values is None else self.values[row],
                # Times ascend, so what was never seen comes first.
                first_known=int(np.searchsorted(seen, NEVER, side="right")),
                silence=None if self.silence is None else self.silence[row],
            )


def _settle(
    violating: Bools, decided: Ints, at_ns: Ints, *, duration_ns: int, prior: States
) -> tuple[ManyRuns, ManyRuns, Ints]:
    """Where violations are, where they have lasted the duration, since when the last ones are.

    `decided` are the evaluations that decide anything, counted through all series. The others
    change nothing: a pending run goes on, a met condition stays met.
    """
    rows, length = violating.shape
    starts = np.arange(rows + 1) * length
    bounds = np.searchsorted(decided, starts)
    flags = violating.ravel()
    begins, ends = stretches(
        flags if len(flags) == len(decided) else flags.take(decided), bounds[1:-1]
    )
    row = np.searchsorted(bounds, begins, side="right") - 1
    some, lasts = bounds[1:] > bounds[:-1], ends == bounds[row + 1]
    # What lasts to the end of its series has nothing decided after it.
    after = decided[np.where(lasts, begins, ends)]
    runs = ManyRuns(
        row=row,
        first=decided[begins] - starts[row],
        end=np.where(lasts, length, after - starts[row]),
    )
    pending = prior.pending_since_ns[row]
    since = np.where((begins == bounds[row]) & (pending > NEVER), pending, at_ns[runs.first])
    pending_since = np.where(some, NEVER, prior.pending_since_ns)
    pending_since[row[lasts]] = since[lasts]
    reached = starts[row] + np.searchsorted(at_ns, since + duration_ns)
    lasting = np.maximum(np.searchsorted(decided, reached), begins)
    chosen = np.flatnonzero(lasting < ends)
    met = ManyRuns(
        row=row[chosen],
        first=decided[lasting[chosen]] - starts[row[chosen]],
        end=runs.end[chosen],
    )
    if prior.met.any():
        heads = np.full(rows, length)
        heads[some] = decided[bounds[:-1][some]] - starts[:-1][some]
        met = _kept_met(met, heads, np.flatnonzero(prior.met & (heads > 0)))
        runs = _kept_met(runs, heads, np.flatnonzero(prior.met & ~some))
    return runs, met, pending_since


def _kept_met(runs: ManyRuns, heads: Ints, kept: Ints) -> ManyRuns:
    """Some series are met already and stay so up to their first decided evaluation at least."""
    first = np.where(np.isin(runs.row, kept) & (runs.first == heads[runs.row]), 0, runs.first)
    alone = np.setdiff1d(kept, runs.row[first == 0])
    row = np.append(runs.row, alone)
    first = np.append(first, np.zeros_like(alone))
    end = np.append(runs.end, heads[alone])
    order = np.lexsort((first, row))
    return ManyRuns(row=row[order], first=first[order], end=end[order])


def judge_threshold(
    condition: ThresholdCondition,
    columns: Columns,
    at_ns: Ints,
    *,
    states: States,
    auto_close: timedelta,
) -> Verdicts:
    """Where measured series meet a threshold condition, after what is remembered of them."""
    prior = states.of(columns.keys)
    above = condition.operator is Operator.GT
    some = columns.highest > condition.threshold if above else columns.lowest < condition.threshold
    active = condition.missing is MissingData.ACTIVE
    limit = to_ns(auto_close + (ABSENT_GRACE if active else AUTO_CLOSE_DELAY))
    # Nearly every series is well, and nothing has to be looked for in it.
    trouble = some | ~columns.complete & (active | prior.busy)
    last_seen = partial(_last_seen, columns, at_ns, prior.last_seen_ns)
    after = States.none(columns.keys, last_seen_ns=last_seen(*columns.ends))
    violated, met = NO_MANY_RUNS, NO_MANY_RUNS
    if trouble.any():
        rows = np.flatnonzero(trouble)
        part = columns.take(rows)
        violating = (
            part.numbers > condition.threshold if above else part.numbers < condition.threshold
        )
        violated, met, pending_since = _judge_part(
            condition, part, violating, at_ns, prior=prior.take(rows), limit=limit
        )
        violated, met = violated.under(rows), met.under(rows)
        after.pending_since_ns[rows] = pending_since
        after.met[met.row[met.end == len(at_ns)]] = True
    return Verdicts(
        keys=columns.keys,
        at_ns=at_ns,
        violating=violated,
        met=met,
        values=columns.numbers,
        states=after,
        last_seen=last_seen,
        limit_ns=limit,
    )


def _last_seen(columns: Columns, at_ns: Ints, before: Ints, rows: Ints, indices: Ints) -> Ints:
    """The last evaluation, up to some, in which series had a value; `before` all, when then."""
    silences = columns.silences
    if not len(silences):
        return at_ns[indices]
    length = len(at_ns)
    cells = rows * length + indices
    place = np.searchsorted(silences.row * length + silences.first, cells, side="right") - 1
    inside = (place >= 0) & (cells < silences.row[place] * length + silences.end[place])
    first = silences.first[place]
    silent_since = np.where(first > 0, at_ns[first - 1], before[rows])
    return np.where(inside, silent_since, at_ns[indices])


def _judge_part(
    condition: ThresholdCondition,
    columns: Columns,
    violating: Bools,
    at_ns: Ints,
    *,
    prior: States,
    limit: int,
) -> tuple[ManyRuns, ManyRuns, Ints]:
    """Where series violate the condition, where they meet it, since when they violate it."""
    decided = columns.present
    if columns.missing is not None:
        gone = _gone(columns, at_ns, limit=limit, seen_before=prior.last_seen_ns)
        if condition.missing in (MissingData.ACTIVE, MissingData.INACTIVE):
            # Nothing is decided for a series before it has had data.
            heard = np.where(
                columns.missing.all(axis=1), len(at_ns), columns.missing.argmin(axis=1)
            )
            first = np.where(prior.last_seen_ns > NEVER, 0, heard)
            decided = np.flatnonzero(np.arange(len(at_ns)) >= first[:, None])
            if condition.missing is MissingData.ACTIVE:
                silent = columns.missing if gone is None else columns.missing & ~gone
                violating = violating | silent
        elif gone is not None:
            decided = np.flatnonzero(gone | ~columns.missing)
    return _settle(
        violating,
        decided,
        at_ns,
        duration_ns=min(to_ns(condition.duration), _LONGEST_NS),
        prior=prior,
    )


def _gone(columns: Columns, at_ns: Ints, *, limit: int, seen_before: Ints) -> Bools | None:
    """Where data has been missing for `limit` since it was last there; None for nowhere."""
    silences = columns.silences
    first, end = silences.first, silences.end
    seen = np.where(first > 0, at_ns[first - 1], seen_before[silences.row])
    # The last evaluation before the next data decides whether a silence ever lasts so long.
    lasts = np.flatnonzero((seen > NEVER) & (at_ns[end - 1] - seen >= limit))
    if not len(lasts):
        return None
    gone = np.zeros((len(columns), len(at_ns)), dtype=np.bool_)
    for row, until, since in zip(silences.row[lasts], end[lasts], seen[lasts], strict=True):
        gone[row, int(np.searchsorted(at_ns, since + limit)) : until] = True
    return gone


def judge_absence(
    condition: AbsenceCondition,
    keys: Keys,
    newest: Ints,
    at_ns: Ints,
    *,
    states: States,
    auto_close: timedelta,
) -> Verdicts:
    """Where series have been silent for the duration; each must have spoken once.

    `newest` are the ends of their last points, by series and evaluation.
    """
    seen = np.maximum(newest, states.of(keys).last_seen_ns[:, None])
    silent = np.where(seen > NEVER, at_ns - seen, 0)
    long = silent >= to_ns(condition.duration)
    limit = to_ns(condition.duration + auto_close + ABSENT_GRACE)
    met = ManyRuns.of(long & (silent < limit)) if long.any() else NO_MANY_RUNS
    after = States.none(keys, last_seen_ns=seen[:, -1])
    after.met[met.row[met.end == len(at_ns)]] = True
    return Verdicts(
        keys=keys,
        at_ns=at_ns,
        violating=met,
        met=met,
        values=None,
        states=after,
        last_seen=lambda rows, indices: seen[rows, indices],
        limit_ns=limit,
        silence=silent,
    )
