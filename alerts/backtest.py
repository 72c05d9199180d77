"""What policies would have done over recorded history: incidents, pages, and what came near. Pure.

Every policy is evaluated by the engine at the same times in one pass over the series. What cannot
be evaluated here, or was not recorded, is told as such and never as quiet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

import numpy as np

from alerts.entrant import Entrant, selections
from alerts.history import History, Json, Selection
from alerts.wording import duration_words
from speakfit.engine.conditions import (
    AbsenceCondition,
    MissingData,
    Operator,
    ThresholdCondition,
)
from speakfit.engine.incidents import (
    Incident,
    IncidentClosed,
    PolicyState,
    Replay,
    replay_many,
)
from speakfit.engine.notices import Occasion, notices
from speakfit.engine.points import Bools, Floats, Ints, Series, SeriesKey
from speakfit.engine.policies import AlertPolicySpec, Combiner
from speakfit.engine.runs import Runs
from speakfit.engine.verdicts import Verdict
from speakfit.engine.wire import to_ns

EVERY = timedelta(minutes=1)
WATERMARK = timedelta(minutes=1)
"""The last minute of a history may lack exports that were on their way."""
WEEK = timedelta(weeks=1)
_MOST_LINES = 8
"""Lines of one chart; the ones that came nearest to the limit."""

_Condition = ThresholdCondition | AbsenceCondition


class Standing(StrEnum):
    """Whether the history says what a policy would have done."""

    REPLAYED = "replayed"
    DISABLED = "disabled"
    NOT_EVALUATED = "not evaluated here"
    UNREADABLE = "cannot be read"
    NOT_RECORDED = "not recorded"
    NO_DATA = "no data"
    TOO_SHORT = "history too short"

    @property
    def known(self) -> bool:
        """Whether no incident means none."""
        return self in (Standing.REPLAYED, Standing.DISABLED)


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """One incident, and what it would have told."""

    incident: Incident
    since_ns: int
    """When the trouble behind it began: as long before the opening as the policy waits."""
    closed_ns: int
    """The end of the replay when it was still open."""
    pages: Mapping[str, int]
    """Notifications by channel: the opening and reminders."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A time in which a policy had at least one incident open."""

    since_ns: int
    """When the trouble of its first incident began."""
    opened_ns: int
    closed_ns: int
    """The end of the replay when it was still open."""

    @property
    def length(self) -> timedelta:
        """How long it lasted."""
        return timedelta(microseconds=(self.closed_ns - self.opened_ns) // 1_000)


@dataclass(frozen=True, kw_only=True)
class Near:
    """What came near an incident and brought none."""

    runs: int
    """Stretches beyond the limit that ended before their time."""
    longest: timedelta
    """The longest of them, of the `needed` duration."""
    needed: timedelta
    longest_at_ns: int
    """When it began."""
    share: float
    """The most that was measured, as a share of the limit; infinite beyond a limit of zero."""
    at_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One measured series in a chart: the least and the most of each column of pixels."""

    key: SeriesKey
    low: Floats
    high: Floats
    share: float
    """The most it came to, as a share of the limit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """What one condition measured; an absence measures the seconds since the newest point."""

    title: str
    limit: float
    above: bool
    absence: bool
    duration: timedelta
    unit: str
    """UCUM unit of what is compared; empty when aggregation makes something else of it."""
    at_ns: Ints
    """When each column of pixels begins."""
    lines: tuple[Line, ...]
    """The one that came nearest first."""
    more: int
    """Series that are not drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one policy would have done."""

    entrant: Entrant
    standing: Standing
    reason: str = ""
    """Why the history says nothing, where it does not."""
    incidents: tuple[Occurrence, ...] = ()
    """In the order of their opening; some may still be open at the end."""
    episodes: tuple[Episode, ...] = ()
    near: Near | None = None
    charts: tuple[Chart, ...] = ()

    @property
    def pages(self) -> dict[str, int]:
        """Notifications by channel: openings and reminders, not the news of a closing."""
        spec = self.entrant.spec
        found = dict.fromkeys(() if spec is None else spec.notification_channels, 0)
        for one in self.incidents:
            for channel, number in one.pages.items():
                found[channel] = found.get(channel, 0) + number
        return found

    @property
    def paged(self) -> int:
        """Notifications on all channels."""
        return sum(self.pages.values())

    @property
    def in_alert(self) -> timedelta:
        """How long at least one incident was open."""
        return sum((one.length for one in self.episodes), timedelta(0))

    @property
    def longest(self) -> timedelta:
        """The longest time at a stretch."""
        return max((one.length for one in self.episodes), default=timedelta(0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Backtest:
    """What policies would have done between two times, evaluated every so often."""

    start_ns: int
    end_ns: int
    every: timedelta
    outcomes: tuple[Outcome, ...]
    """In the order of the entrants."""

    @property
    def length(self) -> timedelta:
        """How much time was replayed."""
        return timedelta(microseconds=(self.end_ns - self.start_ns) // 1_000) + self.every

    def weekly(self, number: int) -> float:
        """So many a week, over the time that was replayed."""
        return number * (WEEK / self.length)


def backtest(
    entrants: Sequence[Entrant],
    history: History,
    *,
    since: timedelta | None = None,
    every: timedelta = EVERY,
    columns: int = 0,
) -> Backtest:
    """Replay policies over a history, or over the part of it that begins `since` ago.

    Evaluation begins where every window is full: the first hours of a history are the lead of its
    longest window. `columns` asks for charts of so many columns of pixels.
    """
    outcomes = [_prospect(one, history) for one in entrants]
    chosen = [number for number, one in enumerate(outcomes) if one.standing is Standing.REPLAYED]
    specs = [spec for number in chosen if (spec := entrants[number].spec) is not None]
    times = _times(history, specs, since=since, every=every)
    if not len(times):
        return Backtest(
            start_ns=history.end_ns,
            end_ns=history.end_ns,
            every=every,
            outcomes=tuple(_too_short(one) for one in outcomes),
        )
    seen: set[Selection] = set()
    watches = [_Watch(spec, times, columns) for spec in specs]
    results = replay_many(
        [
            Replay(spec=spec, state=PolicyState.empty(), active_since_ns=history.start_ns)
            for spec in specs
        ],
        _noting(history.series, seen),
        times,
        project=history.project,
        watch=lambda number, condition, verdict: watches[number].see(condition, verdict),
    )
    for number, spec, watch, (state, events) in zip(chosen, specs, watches, results, strict=True):
        missing = _unseen(entrants[number], seen)
        if missing:
            outcomes[number] = Outcome(
                entrant=entrants[number], standing=Standing.NO_DATA, reason=missing
            )
            continue
        closed = [event.incident for event in events if isinstance(event, IncidentClosed)]
        incidents = sorted([*closed, *state.open], key=lambda incident: incident.started_ns)
        outcomes[number] = _outcome(
            entrants[number], spec, incidents, times, watch, history.descriptors
        )
    return Backtest(
        start_ns=int(times[0]),
        end_ns=int(times[-1]),
        every=every,
        outcomes=tuple(outcomes),
    )


def _prospect(entrant: Entrant, history: History) -> Outcome:
    """The outcome of a policy as far as it is known before the replay."""
    standing, reason = _standing(entrant, history)
    return Outcome(entrant=entrant, standing=standing, reason=reason)


def _too_short(outcome: Outcome) -> Outcome:
    if outcome.standing is not Standing.REPLAYED:
        return outcome
    return replace(outcome, standing=Standing.TOO_SHORT, reason="no time is left to evaluate it at")


def _standing(entrant: Entrant, history: History) -> tuple[Standing, str]:
    spec = entrant.spec
    if spec is None:
        return Standing.UNREADABLE, entrant.refusal
    if not spec.enabled:
        return Standing.DISABLED, "it is disabled and tells nobody"
    if not spec.evaluated:
        kinds = sorted({one.kind.value for one in spec.conditions if not one.evaluated})
        return Standing.NOT_EVALUATED, f"it has {', '.join(kinds)}"
    missing = [one for one in selections([entrant.body]) if not history.covers(one)]
    if missing:
        return Standing.NOT_RECORDED, _selection_words(missing)
    if 2 * to_ns(spec.lookback) > history.end_ns - history.start_ns:
        length = timedelta(microseconds=(history.end_ns - history.start_ns) // 1_000)
        return (
            Standing.TOO_SHORT,
            f"{duration_words(length)}, and its windows reach back {duration_words(spec.lookback)}",
        )
    return Standing.REPLAYED, ""


def _selection_words(those: Iterable[Selection]) -> str:
    return ", ".join(
        one.metric_type + (f" on {one.resource_type}" if one.resource_type else "") for one in those
    )


def _unseen(entrant: Entrant, seen: set[Selection]) -> str:
    """What a policy reads of which there is not a single series."""
    return _selection_words(
        wanted
        for wanted in selections([entrant.body])
        if not any(wanted.covers(one) for one in seen)
    )


def _noting(series: Iterable[Series], seen: set[Selection]) -> Iterator[Series]:
    for one in series:
        seen.add(Selection(metric_type=one.key.metric_type, resource_type=one.key.resource_type))
        yield one


def _times(
    history: History,
    specs: Sequence[AlertPolicySpec],
    *,
    since: timedelta | None,
    every: timedelta,
) -> Ints:
    """Multiples of `every`, as the emulator evaluates, from where every window is full."""
    step = to_ns(every)
    if not specs:
        return np.arange(0)
    lead = max(spec.lookback for spec in specs)
    begin = history.start_ns + to_ns(lead)
    if since is not None:
        begin = max(begin, history.end_ns - to_ns(since))
    last = history.end_ns - to_ns(WATERMARK)
    return np.arange(-(-begin // step), last // step + 1, dtype=np.int64) * step


def _outcome(
    entrant: Entrant,
    spec: AlertPolicySpec,
    incidents: Sequence[Incident],
    times: Ints,
    watch: _Watch,
    descriptors: Mapping[str, Json],
) -> Outcome:
    occurrences = tuple(_occurrence(spec, one, int(times[-1])) for one in incidents)
    episodes = _episodes(occurrences)
    return Outcome(
        entrant=entrant,
        standing=Standing.REPLAYED,
        incidents=occurrences,
        episodes=episodes,
        near=watch.near(episodes),
        charts=watch.charts(descriptors),
    )


def _occurrence(spec: AlertPolicySpec, incident: Incident, end_ns: int) -> Occurrence:
    told = Counter(
        notice.channel
        for notice in notices(
            spec,
            opened_ns=incident.started_ns,
            closed_ns=incident.ended_ns,
            after_ns=incident.started_ns - 1,
            until_ns=end_ns,
        )
        if notice.occasion is not Occasion.CLOSED
    )
    return Occurrence(
        incident=incident,
        since_ns=incident.started_ns - to_ns(_patience(spec, incident.condition_name)),
        closed_ns=end_ns if incident.ended_ns is None else incident.ended_ns,
        pages=dict(told),
    )


def _patience(spec: AlertPolicySpec, condition_name: str) -> timedelta:
    """How long the trouble behind an incident had lasted when it opened.

    Conditions that must hold together wait for the most patient one.
    """
    either = spec.combiner in (Combiner.OR, Combiner.UNSPECIFIED)
    return max(
        one.duration
        for one in spec.conditions
        if isinstance(one, (ThresholdCondition, AbsenceCondition))
        and (one.name == condition_name or not either)
    )


def _episodes(occurrences: Sequence[Occurrence]) -> tuple[Episode, ...]:
    """Incidents that overlap or touch make one episode; they come in the order of opening."""
    found: list[Episode] = []
    for one in occurrences:
        opened_ns = one.incident.started_ns
        if found and opened_ns <= found[-1].closed_ns:
            last = found[-1]
            found[-1] = Episode(
                since_ns=min(last.since_ns, one.since_ns),
                opened_ns=last.opened_ns,
                closed_ns=max(last.closed_ns, one.closed_ns),
            )
        else:
            found.append(
                Episode(since_ns=one.since_ns, opened_ns=opened_ns, closed_ns=one.closed_ns)
            )
    return tuple(found)


# What came near


def shares(condition: _Condition, verdict: Verdict) -> tuple[Floats, Bools]:
    """How near each evaluation was, as a share of the limit, and whether it was beyond it.

    Where data is missing, what the policy says about it decides: the last value stays, silence is
    health, or silence is trouble.
    """
    if isinstance(condition, AbsenceCondition):
        assert verdict.silence is not None
        share = verdict.silence / to_ns(condition.duration)
        return share, share >= 1.0
    values = verdict.values
    assert values is not None
    above = condition.operator is Operator.GT
    beyond = values > condition.threshold if above else values < condition.threshold
    share = _share(values, condition.threshold, above=above)
    missing = np.isnan(values)
    if missing.any():
        if condition.missing is MissingData.ACTIVE:
            silent = missing & (np.arange(len(values)) >= verdict.first_known)
            return np.where(silent, 1.0, np.nan_to_num(share)), beyond | silent
        if condition.missing is MissingData.INACTIVE:
            return np.where(missing, 0.0, share), beyond
        # A value that is missing is the one before it.
        before = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
        known = before >= 0
        return np.where(known, share[before], 0.0), beyond[before] & known
    return share, beyond


def _share(values: Floats, limit: float, *, above: bool) -> Floats:
    """1 at the limit, more beyond it; infinite beyond a limit of zero, or on its other side."""
    if not above:
        values, limit = -values, -limit
    with np.errstate(divide="ignore", invalid="ignore"):
        if limit > 0:
            found = np.maximum(values / limit, 0.0)
        elif limit < 0:
            found = np.where(values < 0, limit / values, np.inf)
        else:
            found = np.where(values > 0, np.inf, 0.0)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stretches:
    """Runs beyond the limit, and how long such a run must be to open an incident."""

    runs: Runs
    needed: timedelta


class _Watch:
    """Sees what the conditions of one policy measure while it is replayed."""

    def __init__(self, spec: AlertPolicySpec, times: Ints, columns: int) -> None:
        """`columns` is 0 when nothing is drawn."""
        self._spec = spec
        self._times = times
        self._edges = (
            np.unique(np.linspace(0, len(times), columns, endpoint=False, dtype=np.int64))
            if columns and len(times)
            else None
        )
        self._either = spec.combiner in (Combiner.OR, Combiner.UNSPECIFIED)
        self._matching = spec.combiner is Combiner.AND_WITH_MATCHING_RESOURCE
        self._stretches: list[_Stretches] = []
        self._most: dict[str, dict[object, Floats]] = {}
        self._beyond: dict[str, dict[object, Bools]] = {}
        self._lines: dict[str, list[Line]] = {}
        self._count: dict[str, int] = {}

    def see(self, condition: _Condition, verdict: Verdict) -> None:
        """One series under one condition."""
        share, beyond = shares(condition, verdict)
        if self._either and beyond.any():
            self._stretches.append(_Stretches(runs=Runs.of(beyond), needed=condition.duration))
        # Conditions that must hold together are looked at together, resource by resource if so
        # asked for; each alone may well be beyond its limit all night.
        place: object = None
        if self._matching:
            place = (verdict.key.resource_type, verdict.key.resource_labels)
        most = self._most.setdefault(condition.name, {})
        flags = self._beyond.setdefault(condition.name, {})
        most[place] = np.maximum(most[place], share) if place in most else share
        if not self._either:
            flags[place] = flags[place] | beyond if place in flags else beyond
        if self._edges is not None:
            self._draw(condition, verdict, float(share.max(initial=0.0)))

    def _draw(self, condition: _Condition, verdict: Verdict, share: float) -> None:
        assert self._edges is not None
        lines = self._lines.setdefault(condition.name, [])
        self._count[condition.name] = self._count.get(condition.name, 0) + 1
        if len(lines) >= _MOST_LINES and share <= lines[-1].share:
            return
        if isinstance(condition, AbsenceCondition):
            assert verdict.silence is not None
            values: Floats = verdict.silence / 1e9
        else:
            assert verdict.values is not None
            values = verdict.values
        lines.append(
            Line(
                key=verdict.key,
                low=np.fmin.reduceat(values, self._edges),
                high=np.fmax.reduceat(values, self._edges),
                share=share,
            )
        )
        lines.sort(key=lambda line: line.share, reverse=True)
        del lines[_MOST_LINES:]

    def near(self, episodes: Sequence[Episode]) -> Near | None:
        """What brought no incident; None when nothing was measured."""
        share, stretches = self._either_way()
        if share is None:
            return None
        outside = np.ones(len(self._times), dtype=np.bool_)
        for one in episodes:
            first, last = np.searchsorted(self._times, [one.since_ns, one.closed_ns])
            outside[first : last + 1] = False
        best = int(np.argmax(np.where(outside, share, -1.0)))
        runs, longest, needed, at_ns = 0, timedelta(-1), timedelta(0), 0
        for stretch in stretches:
            for first, end in zip(stretch.runs.first, stretch.runs.end, strict=True):
                if not outside[first:end].all():
                    continue
                runs += 1
                begin_ns = int(self._times[first])
                length = timedelta(microseconds=(int(self._times[end - 1]) - begin_ns) // 1_000)
                if length > longest:
                    longest, needed, at_ns = length, stretch.needed, begin_ns
        return Near(
            runs=runs,
            longest=max(longest, timedelta(0)),
            needed=needed,
            longest_at_ns=at_ns,
            share=float(share[best]) if outside[best] else 0.0,
            at_ns=int(self._times[best]),
        )

    def _either_way(self) -> tuple[Floats | None, list[_Stretches]]:
        if self._either:
            arrays = [array for most in self._most.values() for array in most.values()]
            return (np.maximum.reduce(arrays) if arrays else None), self._stretches
        names = [one.name for one in self._spec.conditions]
        if not all(name in self._most for name in names):
            return None, []
        places = set.intersection(*(set(self._most[name]) for name in names))
        needed = max(
            one.duration
            for one in self._spec.conditions
            if isinstance(one, (ThresholdCondition, AbsenceCondition))
        )
        together = [
            np.minimum.reduce([self._most[name][place] for name in names]) for place in places
        ]
        stretches = [
            _Stretches(
                runs=Runs.of(np.logical_and.reduce([self._beyond[n][place] for n in names])),
                needed=needed,
            )
            for place in places
        ]
        return (np.maximum.reduce(together) if together else None), stretches

    def charts(self, descriptors: Mapping[str, Json]) -> tuple[Chart, ...]:
        """One for each condition that measured anything."""
        if self._edges is None:
            return ()
        return tuple(
            Chart(
                title=one.display_name,
                limit=one.threshold
                if isinstance(one, ThresholdCondition)
                else one.duration.total_seconds(),
                above=not isinstance(one, ThresholdCondition) or one.operator is Operator.GT,
                absence=isinstance(one, AbsenceCondition),
                duration=one.duration,
                unit=_unit(one, descriptors),
                at_ns=self._times[self._edges],
                lines=tuple(self._lines[one.name]),
                more=self._count[one.name] - len(self._lines[one.name]),
            )
            for one in self._spec.conditions
            if isinstance(one, (ThresholdCondition, AbsenceCondition)) and one.name in self._lines
        )


def _unit(condition: _Condition, descriptors: Mapping[str, Json]) -> str:
    if isinstance(condition, AbsenceCondition):
        return "s"
    if condition.burn_rate is not None:
        return ""
    if condition.denominator_filter is not None:
        return "1"
    steps = {step.aligner.value for step in condition.aggregations}
    steps |= {step.reducer.value for step in condition.aggregations}
    if any("RATE" in step or "COUNT" in step or "CHANGE" in step for step in steps):
        return ""
    if any("FRACTION" in step for step in steps):
        return "1"
    units = {
        str(descriptors.get(name, {}).get("unit", ""))
        for name in condition.filter.metric_types or ()
    }
    return units.pop() if len(units) == 1 else ""
