"""Whether a release may have more traffic: its own series against the alert conditions. Pure.

The catalog's policies are evaluated by the engine over what the new release alone reported, from
its last traffic step until now. Whatever would have opened an incident makes it unhealthy, unless
the release before it has the same one: then it is not the release, and nobody is promoted. Too few
requests, or a condition that is violated and has not yet lasted, prove nothing either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from alerts.backtest import Backtest, Outcome, Standing
from alerts.wording import duration_words
from speakfit.engine.points import MetricKind, Series
from speakfit.engine.wire import to_ns
from speakfit.metrics import REQUEST_DURATION, REQUESTS

DECIDING = frozenset({REQUESTS.type, REQUEST_DURATION.type})
"""Policies that read nothing else must have been evaluated: traffic alone makes their series."""


class Health(StrEnum):
    """What the telemetry says of a release."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judgement, and what it rests on."""

    health: Health
    requests: int
    """Answered by the new release since its last traffic step."""
    judged: tuple[str, ...]
    """Ids of the policies whose conditions were evaluated on its series."""
    reasons: tuple[str, ...]
    """Why it is not healthy; empty when it is."""

    def __str__(self) -> str:
        return f"{self.health}: {self.requests:,} requests, {len(self.judged)} policies evaluated"


def judge(
    mine: Backtest,
    before: Backtest | None,
    *,
    requests: int,
    minimum: int,
    reads: Iterable[tuple[str, frozenset[str]]],
) -> Verdict:
    """Judge a release by what policies would have done.

    `before` is the same for the release that it replaces, None when nobody needs it;
    `reads` are the metric types that each policy reads, by its id.
    """
    metrics = dict(reads)
    theirs = {
        one.entrant.id for one in (before.outcomes if before is not None else ()) if one.incidents
    }
    bad, unsure, judged = [], [], []
    for outcome in mine.outcomes:
        name = outcome.entrant.id
        if outcome.standing is Standing.REPLAYED:
            judged.append(name)
        elif metrics[name] <= DECIDING:
            unsure.append(f"{name} could not be evaluated: {_why(outcome)}")
        if outcome.incidents:
            words = outcome.incidents[0].incident.summary
            if name in theirs:
                unsure.append(f"{name} is met, and by the release before it too: {words}")
            else:
                bad.append(f"{name}: {words}")
        elif _still_beyond(outcome, mine):
            assert outcome.near is not None
            unsure.append(
                f"{name} is violated now and has not lasted "
                f"{duration_words(outcome.near.needed)} yet"
            )
    if requests < minimum:
        unsure.append(f"{requests:,} of at least {minimum:,} requests")
    health = Health.UNHEALTHY if bad else Health.INCONCLUSIVE if unsure else Health.HEALTHY
    return Verdict(health=health, requests=requests, judged=tuple(judged), reasons=(*bad, *unsure))


def _why(outcome: Outcome) -> str:
    return f"{outcome.standing}{f' ({outcome.reason})' if outcome.reason else ''}"


def _still_beyond(outcome: Outcome, mine: Backtest) -> bool:
    near = outcome.near
    if near is None or not near.runs:
        return False
    return near.longest_at_ns + to_ns(near.longest) >= mine.end_ns


def answered(series: Sequence[Series], *, since_ns: int) -> int:
    """How many requests counters gained after a time; a restart counts anew."""
    return round(
        sum(_gained(one, since_ns) for one in series if one.key.metric_type == REQUESTS.type)
    )


def _gained(series: Series, since_ns: int) -> float:
    if series.kind is not MetricKind.CUMULATIVE:
        return 0.0
    total = before = 0.0
    began = None
    for start, end, value in zip(
        series.start_ns.tolist(), series.end_ns.tolist(), series.numbers.tolist(), strict=True
    ):
        if start != began:
            before, began = 0.0, start
        if end > since_ns:
            total += value - before
        before = value
    return total
