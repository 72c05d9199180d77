"""Incidents: conditions combined into what opens and what closes, with state that survives.

One evaluation and a month of them are the same code: `replay` takes evaluation times and the
state before them, and returns the events and the state after. One incident is opened for every
violating series of every condition while the combiner is satisfied.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import groupby
from math import isnan
from operator import itemgetter
from typing import Any

import numpy as np

from speakfit.engine.align import Reading
from speakfit.engine.blocks import block_length, blocks
from speakfit.engine.conditions import AbsenceCondition, MissingData, Operator, ThresholdCondition
from speakfit.engine.filters import Filter
from speakfit.engine.grids import Grids
from speakfit.engine.judges import Gathering, Judge, Silences
from speakfit.engine.points import Bools, Floats, Ints, Series, SeriesKey
from speakfit.engine.policies import AlertPolicySpec, Combiner, Severity
from speakfit.engine.reduce import Aggregation, reach_ns, select
from speakfit.engine.runs import Runs
from speakfit.engine.states import NO_STATES, States
from speakfit.engine.text import absence_summary, closed_summary, threshold_summary
from speakfit.engine.verdicts import Verdict, Verdicts

MAX_OPEN_INCIDENTS = 1_000
"""Open incidents per policy (facts §2); more are not opened."""

STATE_VERSION = 2


class CloseReason(StrEnum):
    """Why an incident closed."""

    RECOVERED = "recovered"
    MISSING_DATA = "missing-data"
    AUTO_CLOSED = "auto-closed"
    COMBINER = "combiner"
    DISABLED = "disabled"
    CONDITION_REMOVED = "condition-removed"
    SNOOZED = "snoozed"
    POLICY_DELETED = "policy-deleted"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One violating series of one condition, open or closed."""

    policy_name: str
    policy_display_name: str
    condition_name: str
    condition_display_name: str
    series: SeriesKey
    severity: Severity
    started_ns: int
    observed_value: float | None
    threshold_value: float | None
    comparison: Operator | None
    summary: str
    ended_ns: int | None = None
    close_reason: CloseReason | None = None

    @property
    def identity(self) -> tuple[str, SeriesKey]:
        """What makes two incidents the same while open: condition and series."""
        return (self.condition_name, self.series)

    def to_json(self) -> dict[str, Any]:
        """All of it, times as text because JSON numbers end at 2**53."""
        return {
            "policyName": self.policy_name,
            "policyDisplayName": self.policy_display_name,
            "conditionName": self.condition_name,
            "conditionDisplayName": self.condition_display_name,
            "series": self.series.to_json(),
            "severity": self.severity.value,
            "startedNs": str(self.started_ns),
            "endedNs": None if self.ended_ns is None else str(self.ended_ns),
            "observedValue": self.observed_value,
            "thresholdValue": self.threshold_value,
            "comparison": None if self.comparison is None else self.comparison.value,
            "closeReason": None if self.close_reason is None else self.close_reason.value,
            "summary": self.summary,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Incident:
        """Read what to_json wrote."""
        return cls(
            policy_name=value["policyName"],
            policy_display_name=value["policyDisplayName"],
            condition_name=value["conditionName"],
            condition_display_name=value["conditionDisplayName"],
            series=SeriesKey.from_json(value["series"]),
            severity=Severity(value["severity"]),
            started_ns=int(value["startedNs"]),
            ended_ns=None if value["endedNs"] is None else int(value["endedNs"]),
            observed_value=value["observedValue"],
            threshold_value=value["thresholdValue"],
            comparison=None if value["comparison"] is None else Operator(value["comparison"]),
            close_reason=None
            if value["closeReason"] is None
            else CloseReason(value["closeReason"]),
            summary=value["summary"],
        )


@dataclass(frozen=True, kw_only=True)
class IncidentOpened:
    """An evaluation opened an incident."""

    at_ns: int
    incident: Incident


@dataclass(frozen=True, kw_only=True)
class IncidentClosed:
    """An evaluation closed an incident."""

    at_ns: int
    incident: Incident


Event = IncidentOpened | IncidentClosed


@dataclass(frozen=True, kw_only=True)
class PolicyState:
    """What a policy remembers between evaluations; immutable, and JSON both ways."""

    series: Mapping[str, States]
    """By condition name."""
    open: tuple[Incident, ...]

    @classmethod
    def empty(cls) -> PolicyState:
        """The state of a policy that was never evaluated."""
        return cls(series={}, open=())

    def to_json(self) -> dict[str, Any]:
        """A JSON object; times as text because JSON numbers end at 2**53."""
        return {
            "version": STATE_VERSION,
            "series": {name: states.to_json() for name, states in self.series.items()},
            "open": [incident.to_json() for incident in self.open],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PolicyState:
        """Read what to_json wrote; a ValueError for another version."""
        if value.get("version") != STATE_VERSION:
            raise ValueError(f"policy state of version {value.get('version')} cannot be read")
        return cls(
            series={name: States.from_json(one) for name, one in value["series"].items()},
            open=tuple(Incident.from_json(incident) for incident in value["open"]),
        )


_Evaluated = ThresholdCondition | AbsenceCondition
Watch = Callable[[int, ThresholdCondition | AbsenceCondition, Verdict], None]
"""Is told every verdict of a replay: the number of the policy, the condition, and the verdict."""


@dataclass(frozen=True, kw_only=True)
class Snooze:
    """A time in which policies open no incidents and those that are open close (snooze.proto)."""

    start_ns: int
    end_ns: int
    """Not part of the snooze any more."""
    policies: frozenset[str] = frozenset()
    """Names of the policies it is for."""
    filter: Filter | None = None
    """Only series that pass are snoozed; None for all."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What is evaluated: a policy, what it remembers, and since when it stands as it is."""

    spec: AlertPolicySpec
    state: PolicyState
    active_since_ns: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Violation:
    """One series that meets a condition at some time, without what nobody asks for later.

    A month of values for every violating series of twenty policies would not fit into memory.
    """

    condition: _Evaluated
    key: SeriesKey
    met: Runs
    values: Floats | None
    """Measured where met, one run after the other."""
    reasons: Mapping[int, CloseReason]
    """Why an incident would close where the condition is not met any more, unless recovered."""

    @cached_property
    def identity(self) -> tuple[str, SeriesKey]:
        """That of the incident."""
        return (self.condition.name, self.key)

    @cached_property
    def _runs(self) -> tuple[list[int], list[int], list[int]]:
        lengths = self.met.end - self.met.first
        before = np.cumsum(lengths) - lengths
        return self.met.first.tolist(), self.met.end.tolist(), before.tolist()

    def value_at(self, index: int) -> float | None:
        """The measured value in an evaluation in which the condition is met."""
        if self.values is None:
            return None
        first, _, before = self._runs
        run = bisect_right(first, index) - 1
        value = float(self.values[before[run] + index - first[run]])
        return None if isnan(value) else value

    def met_at(self, index: int) -> bool:
        """Whether the condition is met in an evaluation."""
        first, end, _ = self._runs
        run = bisect_right(first, index) - 1
        return run >= 0 and index < end[run]


class _Tally:
    """Gathers the verdicts on one condition."""

    def __init__(self, condition: _Evaluated, times: Ints, opened: Set[SeriesKey]) -> None:
        """`opened` are the series that have an open incident."""
        self.condition = condition
        self.violations: list[_Violation] = []
        self._times = times
        self._opened = opened
        self._steps = np.zeros(len(times) + 1, dtype=np.int64)
        self._known = np.zeros(len(times), dtype=np.int64)
        self._percent = condition.trigger.percent is not None
        # Of a series that is well nobody asks anything later, unless silence may count.
        self._remembers_all = (
            self._percent
            or isinstance(condition, AbsenceCondition)
            or condition.missing is MissingData.ACTIVE
        )
        self._states: list[States] = []

    def add(self, verdicts: Verdicts) -> None:
        """Some more series."""
        met, states = verdicts.met, verdicts.states
        if self._percent:
            rows, indices = np.indices((len(verdicts.keys), len(self._times)))
            known = verdicts.known(rows.ravel(), indices.ravel())
            self._known += known.reshape(rows.shape).sum(axis=0)
        if len(met):
            np.add.at(self._steps, met.first, 1)
            np.subtract.at(self._steps, met.end, 1)
        if len(met) or self._opened:
            self.violations += _violations(self.condition, verdicts, self._opened)
        kept = states.busy | verdicts.known_at_last if self._remembers_all else states.busy
        if kept.any():
            self._states.append(states.take(np.flatnonzero(kept)))

    @property
    def states(self) -> States:
        """What is to be remembered."""
        return States.joined(self._states)

    @property
    def satisfied(self) -> Bools:
        """Whether enough series meet the condition."""
        meeting = np.cumsum(self._steps[:-1])
        trigger = self.condition.trigger
        if trigger.percent is None:
            return meeting >= trigger.count
        return (meeting > 0) & (meeting * 100.0 >= trigger.percent * self._known)


def _violations(
    condition: _Evaluated, verdicts: Verdicts, opened: Set[SeriesKey]
) -> Iterator[_Violation]:
    """The series that meet the condition at some time or have an open incident."""
    met, keys = verdicts.met, verdicts.keys
    opened_rows = (keys.place[key] for key in opened & keys.place.keys())
    rows = sorted({*met.row.tolist(), *opened_rows})
    for row, runs in zip(rows, met.by_row(rows), strict=True):
        yield _violation(condition, verdicts, row, runs)


def _violation(condition: _Evaluated, verdicts: Verdicts, row: int, met: Runs) -> _Violation:
    closing = met.end[met.end < len(verdicts.at_ns)]
    if not len(met) or met.first[0] > 0:
        closing = np.append(0, closing)
    reasons: dict[int, CloseReason] = {}
    values = None if verdicts.values is None else verdicts.values[row]
    if len(closing):
        if values is not None:
            missing = closing[np.isnan(values[closing])]
            reasons = dict.fromkeys(missing.tolist(), CloseReason.MISSING_DATA)
        unknown = closing[~verdicts.known(np.full_like(closing, row), closing)]
        reasons |= dict.fromkeys(unknown.tolist(), CloseReason.AUTO_CLOSED)
    return _Violation(
        condition=condition,
        key=verdicts.keys.each[row],
        met=met,
        values=None
        if values is None
        else np.concatenate(
            [
                values[:0],
                *(
                    values[first:end]
                    for first, end in zip(met.first.tolist(), met.end.tolist(), strict=True)
                ),
            ]
        ),
        reasons=reasons,
    )


def _resource(key: SeriesKey) -> tuple[object, ...]:
    return (key.resource_type, key.resource_labels)


class _Gates:
    """Where trigger, combiner and snoozes let the incidents of a series be open."""

    def __init__(
        self,
        spec: AlertPolicySpec,
        tallies: Sequence[_Tally],
        times: Ints,
        *,
        snoozes: Sequence[Snooze],
        project: str,
    ) -> None:
        """Gates for one policy."""
        self.times = times
        self._project = project
        self._snoozes = [
            snooze
            for snooze in snoozes
            if spec.name in snooze.policies
            and snooze.start_ns <= times[-1]
            and snooze.end_ns > times[0]
        ]
        self._single = {
            tally.condition.name
            for tally in tallies
            if tally.condition.trigger.percent is None and tally.condition.trigger.count <= 1
        }
        self._satisfied = {tally.condition.name: tally.satisfied for tally in tallies}
        self._either = spec.combiner in (Combiner.OR, Combiner.UNSPECIFIED)
        self._all = np.zeros(len(times), dtype=np.bool_)
        self._resources: dict[tuple[object, ...], Bools] | None = None
        if self._either or not spec.evaluated:
            # A condition that is not evaluated here is never known to be met.
            return
        self._all = np.logical_and.reduce(list(self._satisfied.values()))
        if spec.combiner is not Combiner.AND:
            self._resources = _matching_resources(tallies, self._all)

    def firing(self, violation: _Violation) -> Runs:
        """When an incident of the series is to be open."""
        snoozed = [snooze for snooze in self._snoozes if self._covers(snooze, violation.key)]
        if self._either and violation.condition.name in self._single and not snoozed:
            return violation.met
        firing = violation.met.flags(len(self.times))
        firing &= self._satisfied[violation.condition.name]
        if not self._either:
            firing &= (
                self._all
                if self._resources is None
                else self._resources.get(_resource(violation.key), self._all)
            )
        for snooze in snoozed:
            firing[_during(snooze, self.times)] = False
        return Runs.of(firing)

    def reason(self, violation: _Violation, index: int) -> CloseReason:
        """Why an incident closes that was open before."""
        if not violation.met_at(index):
            return violation.reasons.get(index, CloseReason.RECOVERED)
        at = self.times[index]
        if any(
            snooze.start_ns <= at < snooze.end_ns and self._covers(snooze, violation.key)
            for snooze in self._snoozes
        ):
            return CloseReason.SNOOZED
        return CloseReason.COMBINER

    def _covers(self, snooze: Snooze, key: SeriesKey) -> bool:
        return snooze.filter is None or snooze.filter.matches(key, project=self._project)


def _during(snooze: Snooze, times: Ints) -> slice:
    return slice(*np.searchsorted(times, [snooze.start_ns, snooze.end_ns]))


def _matching_resources(
    tallies: Sequence[_Tally], everywhere: Bools
) -> dict[tuple[object, ...], Bools]:
    """For each resource that violates: where all conditions are met on it."""
    gates = {
        _resource(violation.key): everywhere.copy()
        for tally in tallies
        for violation in tally.violations
    }
    for tally in tallies:
        meeting: dict[tuple[object, ...], Bools] = {}
        for violation in tally.violations:
            resource = _resource(violation.key)
            flags = violation.met.flags(len(everywhere))
            meeting[resource] = meeting[resource] | flags if resource in meeting else flags
        for resource, gate in gates.items():
            gate &= meeting.get(resource, False)
    return gates


def _opening(spec: AlertPolicySpec, violation: _Violation, index: int, at_ns: int) -> Incident:
    condition = violation.condition
    if isinstance(condition, ThresholdCondition):
        observed = violation.value_at(index)
        threshold, operator = condition.threshold, condition.operator
        summary = threshold_summary(
            violation.key,
            above=operator is Operator.GT,
            threshold=threshold,
            observed=observed,
        )
        return _incident(spec, violation, at_ns, observed, threshold, operator, summary)
    summary = absence_summary(violation.key, duration=condition.duration)
    return _incident(spec, violation, at_ns, None, None, None, summary)


def _incident(
    spec: AlertPolicySpec,
    violation: _Violation,
    at_ns: int,
    observed: float | None,
    threshold: float | None,
    operator: Operator | None,
    summary: str,
) -> Incident:
    return Incident(
        policy_name=spec.name,
        policy_display_name=spec.display_name,
        condition_name=violation.condition.name,
        condition_display_name=violation.condition.display_name,
        series=violation.key,
        severity=spec.severity,
        started_ns=at_ns,
        observed_value=observed,
        threshold_value=threshold,
        comparison=operator,
        summary=summary,
    )


def _closing(incident: Incident, at_ns: int, reason: CloseReason) -> IncidentClosed:
    closed = Incident(
        policy_name=incident.policy_name,
        policy_display_name=incident.policy_display_name,
        condition_name=incident.condition_name,
        condition_display_name=incident.condition_display_name,
        series=incident.series,
        severity=incident.severity,
        started_ns=incident.started_ns,
        observed_value=incident.observed_value,
        threshold_value=incident.threshold_value,
        comparison=incident.comparison,
        summary=closed_summary(incident.series),
        ended_ns=at_ns,
        close_reason=reason,
    )
    return IncidentClosed(at_ns=at_ns, incident=closed)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Edges:
    """Where series begin and end to fire: by evaluation, then by rank."""

    index: Ints
    opens: Bools
    rank: Ints
    violations: tuple[_Violation, ...]
    """By rank: conditions in their order, series in that of their keys."""

    def __iter__(self) -> Iterator[tuple[int, bool, int]]:
        return zip(self.index.tolist(), self.opens.tolist(), self.rank.tolist(), strict=True)


def _edges(
    tallies: Sequence[_Tally], gates: _Gates, open_before: Collection[tuple[str, SeriesKey]]
) -> _Edges:
    """What begins and what ends, in the order in which it is told."""
    violations = tuple(
        violation
        for tally in tallies
        for violation in sorted(tally.violations, key=lambda violation: violation.key)
    )
    index, opens, ranks = [], [], []
    for rank, violation in enumerate(violations):
        firing = gates.firing(violation)
        begins, ends = firing.first, firing.end[firing.end < len(gates.times)]
        if violation.identity in open_before:
            if len(begins) and begins[0] == 0:
                begins = begins[1:]
            else:
                ends = np.append(0, ends)
        for found, opening in ((begins, True), (ends, False)):
            index.append(found)
            opens.append(np.full(len(found), opening))
            ranks.append(np.full(len(found), rank))
    if not index:
        nothing = np.zeros(0, dtype=np.int64)
        return _Edges(index=nothing, opens=nothing > 0, rank=nothing, violations=())
    all_index, all_opens, all_ranks = map(np.concatenate, (index, opens, ranks))
    order = np.lexsort((all_ranks, all_index))
    return _Edges(
        index=all_index[order],
        opens=all_opens[order],
        rank=all_ranks[order],
        violations=violations,
    )


def replay(
    spec: AlertPolicySpec,
    state: PolicyState,
    series: Iterable[Series],
    at_ns: Sequence[int] | Ints,
    *,
    active_since_ns: int = 0,
    snoozes: Sequence[Snooze] = (),
    project: str = "",
) -> tuple[PolicyState, tuple[Event, ...]]:
    """Evaluate a policy at ascending times, all later than those of the state.

    `series` may hold anything; filters choose. `active_since_ns` is when the policy was created
    or changed. A disabled policy closes what is open and opens nothing.
    """
    one = Replay(spec=spec, state=state, active_since_ns=active_since_ns)
    return replay_many([one], series, at_ns, snoozes=snoozes, project=project)[0]


def replay_many(
    replays: Sequence[Replay],
    series: Iterable[Series],
    at_ns: Sequence[int] | Ints,
    *,
    snoozes: Sequence[Snooze] = (),
    project: str = "",
    watch: Watch | None = None,
) -> tuple[tuple[PolicyState, tuple[Event, ...]], ...]:
    """Evaluate many policies in one pass over the series, which may come from a generator.

    What several conditions measure alike is measured once. Gives what replay would give for each.
    `watch` sees what each series measured, which the events do not tell.
    """
    times = np.asarray(at_ns, dtype=np.int64)
    if not len(times):
        return tuple((one.state, ()) for one in replays)
    if len(times) > 1 and not bool(np.all(np.diff(times) > 0)):
        raise ValueError("evaluation times ascend strictly")
    shared = _Shared(times, project)
    tallied = [
        _attend(one, shared, None if watch is None else partial(watch, number))
        if one.spec.enabled
        else []
        for number, one in enumerate(replays)
    ]
    shared.read(series)
    results = []
    for one, judged in zip(replays, tallied, strict=True):
        for judge, _ in judged:
            judge.finish()
        tallies = [tally for _, tally in judged]
        results.append(_conclude(one, tallies, times, snoozes=snoozes, project=project))
    return tuple(results)


class _Shared:
    """What the conditions of all policies ask of the series, each thing asked once."""

    def __init__(self, times: Ints, project: str) -> None:
        """Nothing is asked yet."""
        self.times = times
        self._project = project
        self._gatherings: dict[tuple[Filter, tuple[Aggregation, ...]], Gathering] = {}
        self._silences: dict[tuple[Filter, tuple[Aggregation, ...]], Silences] = {}

    def gathering(self, filter_: Filter, aggregations: tuple[Aggregation, ...]) -> Gathering:
        """Aggregated columns of what passes a filter."""
        name = (filter_, aggregations)
        if name not in self._gatherings:
            self._gatherings[name] = Gathering(filter_, aggregations, self.times)
        return self._gatherings[name]

    def silences(self, filter_: Filter, aggregations: tuple[Aggregation, ...]) -> Silences:
        """Newest points of what passes a filter."""
        name = (filter_, aggregations)
        if name not in self._silences:
            self._silences[name] = Silences(filter_, aggregations)
        return self._silences[name]

    def read(self, series: Iterable[Series]) -> None:
        """Hand every block of series to those whose filter some of it passes."""
        everything: list[Gathering | Silences] = [
            *self._gatherings.values(),
            *self._silences.values(),
        ]
        by_filter: dict[Filter, list[Gathering | Silences]] = {}
        for asked in everything:
            by_filter.setdefault(asked.filter, []).append(asked)
        reach = reach_ns(step for _, steps in self._gatherings for step in steps)
        grids = Grids(self.times, reach)
        for block in blocks(series, block_length(self.times, reach)):
            reading = Reading(block, grids.of(block))
            metric_type = block.series[0].key.metric_type
            for filter_, those in by_filter.items():
                # Most filters name their metric: other series need not be tried.
                if filter_.metric_types is not None and metric_type not in filter_.metric_types:
                    continue
                chosen = select(block.keys, filter_, self._project)
                if len(chosen.rows):
                    for asked in those:
                        asked.add(reading, chosen)
        for asked in everything:
            asked.finish()


def _attend(
    one: Replay, shared: _Shared, watch: Callable[[_Evaluated, Verdict], None] | None
) -> list[tuple[Judge, _Tally]]:
    """Put the questions of every condition that is evaluated here."""
    found = []
    for condition in one.spec.conditions:
        if not isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            continue
        opened = {
            incident.series
            for incident in one.state.open
            if incident.condition_name == condition.name
        }
        tally = _Tally(condition, shared.times, opened)
        judge = Judge(
            condition,
            shared.times,
            states=one.state.series.get(condition.name, NO_STATES),
            active_since_ns=one.active_since_ns,
            auto_close=one.spec.auto_close,
            found=tally.add if watch is None else _both(tally.add, partial(watch, condition)),
        )
        judge.attend(shared.gathering, shared.silences)
        found.append((judge, tally))
    return found


def _both(
    count: Callable[[Verdicts], None], watch: Callable[[Verdict], None]
) -> Callable[[Verdicts], None]:
    def found(verdicts: Verdicts) -> None:
        count(verdicts)
        for verdict in verdicts.each():
            watch(verdict)

    return found


def _conclude(
    one: Replay,
    tallies: Sequence[_Tally],
    times: Ints,
    *,
    snoozes: Sequence[Snooze],
    project: str,
) -> tuple[PolicyState, tuple[Event, ...]]:
    """Open and close incidents, evaluation by evaluation.

    A series that fires while the policy has too many open incidents waits, and opens when one of
    them closes; so every single evaluation and a month of them tell the same.
    """
    spec, first = one.spec, int(times[0])
    if not spec.enabled:
        return PolicyState.empty(), tuple(
            _closing(incident, first, CloseReason.DISABLED) for incident in one.state.open
        )
    open_now: dict[tuple[str, SeriesKey], Incident] = {}
    events: list[Event] = []
    names = {tally.condition.name for tally in tallies}
    for incident in one.state.open:
        if incident.condition_name in names:
            open_now[incident.identity] = incident
        else:
            events.append(_closing(incident, first, CloseReason.CONDITION_REMOVED))
    gates = _Gates(spec, tallies, times, snoozes=snoozes, project=project)
    edges = _edges(tallies, gates, open_now.keys())
    waiting: set[int] = set()
    for index, together in groupby(edges, key=itemgetter(0)):
        at = int(times[index])
        for _, opens, rank in together:
            violation = edges.violations[rank]
            if opens:
                waiting.add(rank)
            elif violation.identity in open_now:
                reason = gates.reason(violation, index)
                events.append(_closing(open_now.pop(violation.identity), at, reason))
            else:
                waiting.remove(rank)
        if not waiting or len(open_now) == MAX_OPEN_INCIDENTS:
            continue
        for rank in sorted(waiting)[: MAX_OPEN_INCIDENTS - len(open_now)]:
            violation = edges.violations[rank]
            incident = _opening(spec, violation, index, at)
            open_now[violation.identity] = incident
            waiting.remove(rank)
            events.append(IncidentOpened(at_ns=at, incident=incident))
    after = PolicyState(
        series={tally.condition.name: tally.states for tally in tallies},
        open=tuple(open_now.values()),
    )
    return after, tuple(events)


def step(
    spec: AlertPolicySpec,
    state: PolicyState,
    series: Iterable[Series],
    at_ns: int,
    *,
    active_since_ns: int = 0,
    snoozes: Sequence[Snooze] = (),
    project: str = "",
) -> tuple[PolicyState, tuple[Event, ...]]:
    """One evaluation: replay of a single time."""
    return replay(
        spec,
        state,
        series,
        [at_ns],
        active_since_ns=active_since_ns,
        snoozes=snoozes,
        project=project,
    )
