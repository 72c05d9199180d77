"""Incidents: conditions combined into what opens and what closes, with state that survives.

One evaluation and a month of them are the same code: `replay` takes evaluation times and the
state before them, and returns the events and the state after. One incident is opened for every
violating series of every condition while the combiner is satisfied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from speakfit.engine.conditions import (
    AbsenceCondition,
    Operator,
    SeriesState,
    ThresholdCondition,
    Trigger,
    Verdict,
    judge,
)
from speakfit.engine.points import Bools, Floats, Ints, Series, SeriesKey
from speakfit.engine.policies import AlertPolicySpec, Combiner, Severity
from speakfit.engine.text import absence_summary, closed_summary, threshold_summary

MAX_OPEN_INCIDENTS = 1_000
"""Open incidents per policy (facts §2); more are not opened."""

STATE_VERSION = 1


class CloseReason(StrEnum):
    """Why an incident closed."""

    RECOVERED = "recovered"
    MISSING_DATA = "missing-data"
    AUTO_CLOSED = "auto-closed"
    COMBINER = "combiner"
    DISABLED = "disabled"
    CONDITION_REMOVED = "condition-removed"


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

    series: Mapping[str, Mapping[SeriesKey, SeriesState]]
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
            "series": {
                name: [
                    {
                        "key": key.to_json(),
                        "pendingSinceNs": _text(one.pending_since_ns),
                        "lastSeenNs": _text(one.last_seen_ns),
                        "met": one.met,
                    }
                    for key, one in states.items()
                ]
                for name, states in self.series.items()
            },
            "open": [incident.to_json() for incident in self.open],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PolicyState:
        """Read what to_json wrote; a ValueError for another version."""
        if value.get("version") != STATE_VERSION:
            raise ValueError(f"policy state of version {value.get('version')} cannot be read")
        return cls(
            series={
                name: {
                    SeriesKey.from_json(one["key"]): SeriesState(
                        pending_since_ns=_integer(one["pendingSinceNs"]),
                        last_seen_ns=_integer(one["lastSeenNs"]),
                        met=one["met"],
                    )
                    for one in states
                }
                for name, states in value["series"].items()
            },
            open=tuple(Incident.from_json(incident) for incident in value["open"]),
        )


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _integer(value: str | None) -> int | None:
    return None if value is None else int(value)


_Evaluated = ThresholdCondition | AbsenceCondition


@dataclass(frozen=True, kw_only=True, eq=False)
class _Outcome:
    """One condition at all evaluation times."""

    condition: _Evaluated
    satisfied: Bools
    """Whether enough series meet it."""
    verdicts: tuple[Verdict, ...]
    """Of the series that meet it at some time."""
    states: dict[SeriesKey, SeriesState]


def _enough(trigger: Trigger, meeting: Ints, known: Ints) -> Bools:
    if trigger.percent is None:
        return meeting >= trigger.count
    return (meeting > 0) & (meeting * 100.0 >= trigger.percent * known)


def _outcome(
    spec: AlertPolicySpec,
    condition: _Evaluated,
    state: PolicyState,
    series: Sequence[Series],
    at_ns: Ints,
    *,
    since_ns: int,
    project: str,
) -> _Outcome:
    meeting = np.zeros(len(at_ns), dtype=np.int64)
    known = np.zeros(len(at_ns), dtype=np.int64)
    kept: list[Verdict] = []
    states: dict[SeriesKey, SeriesState] = {}
    opened = {one.series for one in state.open if one.condition_name == condition.name}
    for verdict in judge(
        condition,
        series,
        at_ns,
        states=dict(state.series.get(condition.name, {})),
        auto_close=spec.auto_close,
        since_ns=since_ns,
        project=project,
    ):
        known += verdict.known
        if verdict.met.any():
            meeting += verdict.met
            kept.append(verdict)
        elif verdict.key in opened:
            kept.append(verdict)
        if verdict.known[-1] or verdict.state.met:
            states[verdict.key] = verdict.state
    return _Outcome(
        condition=condition,
        satisfied=_enough(condition.trigger, meeting, known),
        verdicts=tuple(kept),
        states=states,
    )


def _resource(key: SeriesKey) -> tuple[object, ...]:
    return (key.resource_type, key.resource_labels)


def _gates(
    spec: AlertPolicySpec, outcomes: Sequence[_Outcome], length: int
) -> dict[tuple[object, ...] | None, Bools]:
    """Where the combiner lets incidents be open: for all series (None), or by resource."""
    if spec.combiner in (Combiner.OR, Combiner.UNSPECIFIED):
        return {None: np.ones(length, dtype=np.bool_)}
    if not spec.evaluated:
        # A condition that is not evaluated here is never known to be met.
        return {None: np.zeros(length, dtype=np.bool_)}
    everywhere = np.logical_and.reduce([outcome.satisfied for outcome in outcomes])
    if spec.combiner is Combiner.AND:
        return {None: everywhere}
    gates: dict[tuple[object, ...] | None, Bools] = {None: np.zeros(length, dtype=np.bool_)}
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            gates.setdefault(_resource(verdict.key), everywhere)
    for resource in list(gates):
        if resource is None:
            continue
        for outcome in outcomes:
            meets = np.zeros(length, dtype=np.bool_)
            for verdict in outcome.verdicts:
                if _resource(verdict.key) == resource:
                    meets = meets | verdict.met
            gates[resource] = gates[resource] & meets
    return gates


def _value(values: Floats, index: int) -> float | None:
    value = float(values[index])
    return None if np.isnan(value) else value


def _opening(
    spec: AlertPolicySpec, condition: _Evaluated, verdict: Verdict, index: int, at_ns: int
) -> Incident:
    observed = _value(verdict.values, index)
    if isinstance(condition, ThresholdCondition):
        threshold, operator = condition.threshold, condition.operator
        summary = threshold_summary(
            verdict.key,
            above=operator is Operator.GT,
            threshold=threshold,
            observed=observed,
        )
        return _incident(spec, condition, verdict, at_ns, observed, threshold, operator, summary)
    summary = absence_summary(verdict.key, duration=condition.duration)
    return _incident(spec, condition, verdict, at_ns, None, None, None, summary)


def _incident(
    spec: AlertPolicySpec,
    condition: _Evaluated,
    verdict: Verdict,
    at_ns: int,
    observed: float | None,
    threshold: float | None,
    operator: Operator | None,
    summary: str,
) -> Incident:
    return Incident(
        policy_name=spec.name,
        policy_display_name=spec.display_name,
        condition_name=condition.name,
        condition_display_name=condition.display_name,
        series=verdict.key,
        severity=spec.severity,
        started_ns=at_ns,
        observed_value=observed,
        threshold_value=threshold,
        comparison=operator,
        summary=summary,
    )


def _closing(incident: Incident, at_ns: int, reason: CloseReason) -> IncidentClosed:
    return IncidentClosed(
        at_ns=at_ns,
        incident=replace(
            incident,
            ended_ns=at_ns,
            close_reason=reason,
            summary=closed_summary(incident.series),
        ),
    )


def _reason(condition: _Evaluated, verdict: Verdict, index: int) -> CloseReason:
    if verdict.met[index]:
        return CloseReason.COMBINER
    if not verdict.known[index]:
        return CloseReason.AUTO_CLOSED
    if isinstance(condition, ThresholdCondition) and np.isnan(verdict.values[index]):
        return CloseReason.MISSING_DATA
    return CloseReason.RECOVERED


@dataclass(frozen=True, kw_only=True, eq=False)
class _Edge:
    """One series begins or ends to fire, in evaluation `index`."""

    index: int
    opens: bool
    condition: _Evaluated
    verdict: Verdict


def _edges(
    outcomes: Sequence[_Outcome],
    gates: Mapping[tuple[object, ...] | None, Bools],
    open_before: Mapping[tuple[str, SeriesKey], Incident],
) -> list[_Edge]:
    found = []
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            gate = gates.get(_resource(verdict.key), gates[None])
            firing = verdict.met & outcome.satisfied & gate
            was_open = (outcome.condition.name, verdict.key) in open_before
            changes = np.flatnonzero(np.diff(firing, prepend=was_open))
            found += [
                _Edge(
                    index=int(index),
                    opens=bool(firing[index]),
                    condition=outcome.condition,
                    verdict=verdict,
                )
                for index in changes
            ]
    # Within one evaluation what closes comes first, then the order of conditions and series.
    order = {outcome.condition.name: number for number, outcome in enumerate(outcomes)}
    return sorted(
        found,
        key=lambda edge: (edge.index, edge.opens, order[edge.condition.name], edge.verdict.key),
    )


def replay(
    spec: AlertPolicySpec,
    state: PolicyState,
    series: Iterable[Series],
    at_ns: Sequence[int] | Ints,
    *,
    active_since_ns: int = 0,
    project: str = "",
) -> tuple[PolicyState, tuple[Event, ...]]:
    """Evaluate a policy at ascending times, all later than those of the state.

    `series` may hold anything; filters choose. `active_since_ns` is when the policy was created
    or changed. A disabled policy closes what is open and opens nothing.
    """
    times = np.asarray(at_ns, dtype=np.int64)
    if not len(times):
        return state, ()
    if len(times) > 1 and not bool(np.all(np.diff(times) > 0)):
        raise ValueError("evaluation times ascend strictly")
    open_now = {incident.identity: incident for incident in state.open}
    if not spec.enabled:
        events = tuple(
            _closing(incident, int(times[0]), CloseReason.DISABLED) for incident in state.open
        )
        return PolicyState.empty(), events
    chosen = list(series)
    outcomes = [
        _outcome(spec, condition, state, chosen, times, since_ns=active_since_ns, project=project)
        for condition in spec.conditions
        if isinstance(condition, (ThresholdCondition, AbsenceCondition))
    ]
    events_found: list[Event] = []
    names = {outcome.condition.name for outcome in outcomes}
    for identity, incident in list(open_now.items()):
        if incident.condition_name not in names:
            del open_now[identity]
            events_found.append(_closing(incident, int(times[0]), CloseReason.CONDITION_REMOVED))
    gates = _gates(spec, outcomes, len(times))
    for edge in _edges(outcomes, gates, open_now):
        at = int(times[edge.index])
        identity = (edge.condition.name, edge.verdict.key)
        if edge.opens and len(open_now) < MAX_OPEN_INCIDENTS:
            incident = _opening(spec, edge.condition, edge.verdict, edge.index, at)
            open_now[identity] = incident
            events_found.append(IncidentOpened(at_ns=at, incident=incident))
        elif not edge.opens and identity in open_now:
            reason = _reason(edge.condition, edge.verdict, edge.index)
            events_found.append(_closing(open_now.pop(identity), at, reason))
    after = PolicyState(
        series={outcome.condition.name: outcome.states for outcome in outcomes},
        open=tuple(open_now.values()),
    )
    return after, tuple(events_found)


def step(
    spec: AlertPolicySpec,
    state: PolicyState,
    series: Iterable[Series],
    at_ns: int,
    *,
    active_since_ns: int = 0,
    project: str = "",
) -> tuple[PolicyState, tuple[Event, ...]]:
    """One evaluation: replay of a single time."""
    return replay(spec, state, series, [at_ns], active_since_ns=active_since_ns, project=project)
