"""What hand-written scenarios exercise of a catalog: policies, conditions, state transitions.

A policy and a condition are covered when a page of theirs is expected and comes; a transition
when a scenario that passed went through it and said what was to come of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import numpy as np

from alerts.stage import Stage
from alerts.trial import Evaluated, Measured, Opening, Trial, unevaluated
from speakfit.engine.conditions import (
    AbsenceCondition,
    MissingData,
    ThresholdCondition,
    UnevaluatedCondition,
)
from speakfit.engine.incidents import CloseReason
from speakfit.engine.points import Bools
from speakfit.engine.policies import AlertPolicySpec, Combiner
from speakfit.engine.runs import Runs

NEAR = 0.1
"""A value is beside a threshold when it is this share of it away, or less."""
_MINUTE = timedelta(minutes=1)


class Transition(StrEnum):
    """What a condition can do besides opening an incident."""

    SHORT = "breaks for less than its duration and stays quiet"
    NEAR = "stays quiet beside its threshold"
    HELD = "is met and held back by the other conditions"
    RECOVERS = "recovers and closes"
    SILENCE_KEEPS = "stays open through silence"
    SILENCE_CLOSES = "does not hold any more when data is missing"
    SILENCE_OPENS = "opens when data is missing"
    AUTO_CLOSES = "is closed by auto-close"


@dataclass(frozen=True, kw_only=True, order=True)
class Target:
    """One thing to be covered: a policy, one of its conditions, or a transition of that."""

    policy: str
    condition: str = ""
    transition: str = ""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What there is to cover, and what was covered."""

    targets: tuple[Target, ...]
    covered: frozenset[Target]
    unevaluated: Mapping[str, str]
    """Policies that are not evaluated here, or not in full, and why; that is no target."""

    @property
    def missing(self) -> tuple[Target, ...]:
        """What no scenario covers."""
        return tuple(target for target in self.targets if target not in self.covered)

    @property
    def percent(self) -> float:
        """Covered targets of all kinds, in percent."""
        return 100.0 * len(self.covered) / len(self.targets) if self.targets else 100.0

    def of(self, kind: str) -> tuple[int, int]:
        """How many of the `policies`, `conditions` or `transitions` are covered, of how many."""
        those = [target for target in self.targets if _kind(target) == kind]
        return sum(target in self.covered for target in those), len(those)


def _kind(target: Target) -> str:
    if target.transition:
        return "transitions"
    return "conditions" if target.condition else "policies"


def missing_lines(coverage: Coverage) -> list[str]:
    """What is not covered, one line for a policy that nothing covers, else one a condition."""
    missing = coverage.missing
    bare = {target.policy for target in missing if not target.condition}
    lines = [
        f"{policy}: no scenario that passes expects its page"
        for policy in dict.fromkeys(target.policy for target in missing if target.policy in bare)
    ]
    grouped: dict[tuple[str, str], list[str]] = {}
    for target in missing:
        if target.policy not in bare:
            words = target.transition or "no scenario that passes expects its page"
            grouped.setdefault((target.policy, target.condition), []).append(words)
    lines += [
        f"{policy}, {condition}: {'; '.join(words)}"
        for (policy, condition), words in grouped.items()
    ]
    return lines


def measure(stage: Stage, trials: Iterable[Trial], policies: Iterable[str]) -> Coverage:
    """What the trials that passed cover of some policies."""
    names = list(policies)
    wanted = [stage.policies[policy] for policy in names if policy in stage.policies]
    targets = [target for staged in wanted for target in _targets(staged.id, staged.spec)]
    found: set[Target] = set()
    for trial in trials:
        if trial.passed:
            for staged in wanted:
                found |= set(_covered(staged.id, trial))
    return Coverage(
        targets=tuple(targets),
        covered=frozenset(found & set(targets)),
        unevaluated={
            **{staged.id: reason for staged in wanted if (reason := unevaluated(staged.spec))},
            **{policy: stage.unread[policy] for policy in names if policy in stage.unread},
        },
    )


def transitions(condition: Evaluated, spec: AlertPolicySpec) -> list[Transition]:
    """What a condition of a policy can go through."""
    found = [Transition.RECOVERS]
    if condition.duration:
        found.append(Transition.SHORT)
    if spec.combiner not in (Combiner.OR, Combiner.UNSPECIFIED):
        found.append(Transition.HELD)
    if isinstance(condition, AbsenceCondition):
        return [*found, Transition.AUTO_CLOSES]
    found.append(Transition.NEAR)
    if condition.missing is MissingData.INACTIVE:
        return [*found, Transition.SILENCE_CLOSES]
    active = condition.missing is MissingData.ACTIVE
    silence = Transition.SILENCE_OPENS if active else Transition.SILENCE_KEEPS
    return [*found, silence, Transition.AUTO_CLOSES]


def _targets(policy: str, spec: AlertPolicySpec) -> Iterator[Target]:
    if all(isinstance(condition, UnevaluatedCondition) for condition in spec.conditions):
        return
    yield Target(policy=policy)
    for condition in spec.conditions:
        if isinstance(condition, UnevaluatedCondition):
            continue
        name = condition.display_name
        yield Target(policy=policy, condition=name)
        for transition in transitions(condition, spec):
            yield Target(policy=policy, condition=name, transition=transition)


def _covered(policy: str, trial: Trial) -> Iterator[Target]:
    for answer in trial.answers:
        if answer.page.policy != policy:
            continue
        yield Target(policy=policy)
        for opening in answer.openings:
            name = opening.incident.condition_display_name
            yield Target(policy=policy, condition=name)
            if answer.page.resolves is not None:
                for transition in _ending(opening, trial, policy):
                    yield Target(policy=policy, condition=name, transition=transition)
    if policy in trial.play.may_page:
        return
    openings = trial.openings.get(policy, ())
    for one in trial.measured.get(policy, ()):
        for transition in _staying(one, openings, len(trial.play.times)):
            yield Target(policy=policy, condition=one.condition.display_name, transition=transition)


_ENDS = {
    CloseReason.RECOVERED: Transition.RECOVERS,
    CloseReason.AUTO_CLOSED: Transition.AUTO_CLOSES,
}


def _ending(opening: Opening, trial: Trial, policy: str) -> Iterator[Transition]:
    """How an incident went on whose end was expected."""
    if opening.reason in _ENDS:
        yield _ENDS[opening.reason]
    incident = opening.incident
    if incident.comparison is not None and incident.observed_value is None:
        yield Transition.SILENCE_OPENS
    for one in trial.measured.get(policy, ()):
        values = one.verdict.values
        if values is None or (one.condition.name, one.verdict.key) != incident.identity:
            continue
        last = len(values) if opening.closed is None else opening.closed // _MINUTE - 1
        ends = one.verdict.met.end
        if np.isnan(values[ends[ends < len(values)]]).any():
            yield Transition.SILENCE_CLOSES
        if np.isnan(values[opening.opened // _MINUTE - 1 : last]).any():
            yield Transition.SILENCE_KEEPS


def _staying(one: Measured, openings: Iterable[Opening], length: int) -> Iterator[Transition]:
    """How a condition did not open anything."""
    verdict, condition = one.verdict, one.condition
    met = verdict.met.flags(length)
    for first, end in zip(*_ends(_breaking(one)), strict=True):
        if end < length and not met[first:end].any():
            yield Transition.SHORT
            break
    if isinstance(condition, ThresholdCondition) and verdict.values is not None:
        limit = condition.threshold
        beside = np.abs(verdict.values - limit) <= NEAR * abs(limit)
        beside &= ~verdict.violating.flags(length)
        needed = max(condition.duration // _MINUTE, 1)
        if any(end - first >= needed for first, end in zip(*_ends(Runs.of(beside)), strict=True)):
            yield Transition.NEAR
    mine = [
        opening
        for opening in openings
        if opening.incident.identity == (condition.name, verdict.key)
    ]
    for index in np.flatnonzero(met).tolist():
        if not any(opening.open_at((index + 1) * _MINUTE) for opening in mine):
            yield Transition.HELD
            break


def _breaking(one: Measured) -> Runs:
    """Where the comparison holds, or an absence's series is silent."""
    if one.verdict.silence is None:
        return one.verdict.violating
    silent: Bools = one.verdict.silence >= 60 * 10**9
    return Runs.of(silent)


def _ends(runs: Runs) -> tuple[list[int], list[int]]:
    return runs.first.tolist(), runs.end.tolist()
