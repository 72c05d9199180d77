"""Runs scenarios: every policy of the catalog through the real engine, judged by what was expected.

Values, pending and open states are the engine's own verdicts; nothing is computed a second time.
An incident answers one expectation, the most specific first; what answers none is an unexpected
page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from alerts.notation import print_span
from alerts.scenario import Page, Scenario, Window
from alerts.stage import PROJECT, Play, Stage, StagedPolicy
from speakfit.engine.conditions import (
    AbsenceCondition,
    ThresholdCondition,
    UnevaluatedCondition,
)
from speakfit.engine.incidents import (
    CloseReason,
    Event,
    Incident,
    IncidentOpened,
    PolicyState,
    Replay,
    replay_many,
)
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.text import expand, expand_subject, variables
from speakfit.engine.verdicts import Verdict

Evaluated = ThresholdCondition | AbsenceCondition


@dataclass(frozen=True, kw_only=True)
class Opening:
    """One incident of a scenario: when it opened, and when and why it closed, if it did."""

    incident: Incident
    opened: timedelta
    closed: timedelta | None
    reason: CloseReason | None

    def open_at(self, time: timedelta) -> bool:
        """Whether it is open in the evaluation at a time."""
        return self.opened <= time and (self.closed is None or time < self.closed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What one condition made of one series, at every evaluation."""

    condition: Evaluated
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One expectation that did not come true."""

    policy: str
    what: str
    moments: tuple[timedelta, ...]
    """Times that tell why: the expected one, and that of what happened instead."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page that was expected and came, with the incidents that it is."""

    page: Page
    openings: tuple[Opening, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one policy did of what was expected of it, and what it did not."""

    failures: tuple[Failure, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One scenario that was run."""

    play: Play
    failures: tuple[Failure, ...]
    answers: tuple[Answer, ...]
    openings: Mapping[str, tuple[Opening, ...]]
    """By policy, those that had any."""
    measured: Mapping[str, tuple[Measured, ...]]
    """By policy; what no series passed the filter of is not here."""

    @property
    def passed(self) -> bool:
        """Whether everything expected came true and nothing else paged."""
        return not self.failures

    @property
    def scenario(self) -> Scenario:
        """What was run."""
        return self.play.scenario

    def check(self) -> None:
        """An AssertionError that explains every failure, if there is any."""
        if self.failures:
            from alerts.drawing import explanation

            raise AssertionError(explanation(self))


def run_scenario(scenario: Scenario, stage: Stage) -> Trial:
    """Run a scenario that was made in Python; a ScenarioError if it could not be checked."""
    return run(stage.ready(scenario), stage)


def run(play: Play, stage: Stage) -> Trial:
    """Evaluate every policy on a scenario, every minute, and judge."""
    measured: dict[str, list[Measured]] = {}
    policies = list(stage.policies.values())

    def watch(number: int, condition: Evaluated, verdict: Verdict) -> None:
        found = measured.setdefault(policies[number].id, [])
        found.append(Measured(condition=condition, verdict=verdict))

    results = replay_many(
        [replay_of(staged, play) for staged in policies],
        play.series,
        play.times,
        snoozes=play.snoozes,
        project=PROJECT,
        watch=watch,
    )
    openings: dict[str, tuple[Opening, ...]] = {}
    judgements: list[Judgement] = []
    for staged, (_, events) in zip(policies, results, strict=True):
        found = openings_of(events, play)
        if found:
            openings[staged.id] = found
        judgements.append(judge(staged.id, staged.spec, play, found))
    return Trial(
        play=play,
        failures=tuple(one for found in judgements for one in found.failures),
        answers=tuple(one for found in judgements for one in found.answers),
        openings=openings,
        measured={policy: tuple(those) for policy, those in measured.items()},
    )


def replay_of(staged: StagedPolicy, play: Play) -> Replay:
    """A policy as it is when the scenario begins."""
    return Replay(spec=staged.spec, state=PolicyState.empty(), active_since_ns=play.start_ns)


def openings_of(events: Sequence[Event], play: Play) -> tuple[Opening, ...]:
    """The incidents of one policy with their ends, in the order in which they opened."""
    ends = {
        (event.incident.identity, event.incident.started_ns): event
        for event in events
        if not isinstance(event, IncidentOpened)
    }
    found = []
    for event in events:
        if isinstance(event, IncidentOpened):
            end = ends.get((event.incident.identity, event.incident.started_ns))
            found.append(
                Opening(
                    incident=event.incident,
                    opened=play.time(event.at_ns),
                    closed=None if end is None else play.time(end.at_ns),
                    reason=None if end is None else end.incident.close_reason,
                )
            )
    return tuple(found)


def judge(policy: str, spec: AlertPolicySpec, play: Play, openings: Sequence[Opening]) -> Judgement:
    """What a scenario expected of one policy and did not get, and what it got unexpectedly."""
    pages = [page for page in play.pages if page.policy == policy]
    if not openings and not pages:
        return Judgement()
    left = list(openings)
    failures: list[Failure] = []
    answers: list[Answer] = []
    missed: list[Page] = []
    for page in sorted(pages, key=lambda page: -len(page.series) - bool(page.condition)):
        taken = _take(page, left)
        if not taken:
            missed.append(page)
            continue
        for one in taken:
            left.remove(one)
        failures += _wrong(page, spec, taken)
        answers.append(Answer(page=page, openings=tuple(taken)))
    failures += [_missed(page, spec, play, left) for page in missed]
    if policy not in play.may_page:
        failures += _unexpected(policy, play, left)
    return Judgement(failures=tuple(failures), answers=tuple(answers))


def matches(page: Page, incident: Incident) -> bool:
    """Whether an incident is of the condition and series that a page asks for."""
    if page.condition and incident.condition_display_name != page.condition:
        return False
    # A metric label goes before a resource label of the same name.
    labels = {**incident.series.resource, **incident.series.metric}
    return all(labels.get(key) == value for key, value in page.series.items())


def _take(page: Page, left: Iterable[Opening]) -> list[Opening]:
    """The incidents that answer a page: of each condition as many as it says, opened together."""
    taken: list[Opening] = []
    counts: dict[str, int] = {}
    for one in left:
        if taken and one.opened != taken[0].opened:
            break
        name = one.incident.condition_name
        if (
            page.when.holds(one.opened)
            and counts.get(name, 0) < page.incidents
            and matches(page, one.incident)
        ):
            counts[name] = counts.get(name, 0) + 1
            taken.append(one)
    return taken


def _wrong(page: Page, spec: AlertPolicySpec, taken: Sequence[Opening]) -> list[Failure]:
    """What is not right about a page that came."""
    opened = taken[0].opened
    found: list[tuple[str, tuple[timedelta, ...]]] = []
    counts: dict[str, int] = {}
    for one in taken:
        name = one.incident.condition_display_name
        counts[name] = counts.get(name, 0) + 1
    for name, number in counts.items():
        if number < page.incidents:
            found.append(
                (
                    f"must page for {page.incidents} series at once; at {print_span(opened)} "
                    f"{number} opened of {name!r}",
                    (opened,),
                )
            )
    if page.says:
        text = notification(taken[0].incident, spec)
        found += [
            (f"must say {part!r}; it says:\n{_indented(text)}", ())
            for part in page.says
            if part not in text
        ]
    if page.resolves is not None:
        found += _unresolved(page, taken)
    return [
        Failure(policy=page.policy, what=f"{page.policy} {what}.", moments=moments)
        for what, moments in found
    ]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def _unresolved(page: Page, taken: Sequence[Opening]) -> list[tuple[str, tuple[timedelta, ...]]]:
    resolves = page.resolves
    assert resolves is not None
    opened = print_span(taken[0].opened)
    closed = [one for one in taken if one.closed is not None]
    if resolves.never:
        return [
            (
                f"must not resolve; what opened at {opened} closed at "
                f"{print_span(one.closed)} ({one.reason})",
                (one.closed,),
            )
            for one in closed[:1]
            if one.closed is not None
        ]
    wanted = f"must resolve {resolves.when}; what opened at {opened}"
    moments = _moments(resolves.when)
    if len(closed) < len(taken):
        return [(f"{wanted} stayed open to the end", moments)]
    late = [one for one in closed if one.closed and not resolves.when.holds(one.closed)]
    if late:
        at = late[-1].closed or timedelta(0)
        return [(f"{wanted} closed at {print_span(at)} ({late[-1].reason})", (*moments, at))]
    told = {one.reason for one in closed if one.reason}
    if resolves.because is not None and resolves.because not in told:
        at = closed[-1].closed or timedelta(0)
        return [
            (
                f"must resolve because of {resolves.because.value!r}; at {print_span(at)} it "
                f"closed because of {' and '.join(sorted(told))!r}",
                (at,),
            )
        ]
    return []


def _missed(page: Page, spec: AlertPolicySpec, play: Play, left: list[Opening]) -> Failure:
    what = f"{page.policy} must page {page.when}"
    if page.series or page.condition:
        named = [f"{key}={value}" for key, value in page.series.items()]
        named += [repr(page.condition)] if page.condition else []
        what += f" for {', '.join(named)}"
    # What came at another time or for another series is told once, as the miss that it is.
    others = [one for one in left if matches(page, one.incident)]
    others = others or [one for one in left if one.opened == left[0].opened]
    left[:] = [one for one in left if one not in others]
    moments = _moments(page.when) or (play.end,)
    if others:
        times = dict.fromkeys(one.opened for one in others)
        series = "" if matches(page, others[0].incident) else f" for {_labels(others[0].incident)}"
        what += f"; it paged at {', '.join(print_span(time) for time in times)}{series}"
        moments = (*moments, *list(times)[:2])
    elif unevaluated(spec):
        what += f"; it is not evaluated here: {unevaluated(spec)}"
        moments = ()
    else:
        what += "; it never paged"
    return Failure(policy=page.policy, what=f"{what}.", moments=moments)


def unevaluated(spec: AlertPolicySpec) -> str:
    """Why a policy is not evaluated here, or not in full; empty when it is."""
    kinds = [one.kind.name for one in spec.conditions if isinstance(one, UnevaluatedCondition)]
    return f"it has a condition of kind {', '.join(dict.fromkeys(kinds))}" if kinds else ""


def _unexpected(policy: str, play: Play, left: Sequence[Opening]) -> list[Failure]:
    missed = {page.policy for page in play.pages} if left else set()
    found = []
    for time in dict.fromkeys(one.opened for one in left):
        those = [one for one in left if one.opened == time]
        rule = "must be quiet; it" if policy in play.quiet else "unexpectedly"
        again = " once more" if rule == "unexpectedly" and policy in missed else ""
        summaries = "".join(f"\n    {one.incident.summary}" for one in those[:3])
        more = f"\n    and {len(those) - 3} more" if len(those) > 3 else ""
        found.append(
            Failure(
                policy=policy,
                what=f"{policy} {rule} paged{again} at {print_span(time)}:{summaries}{more}",
                moments=(time,),
            )
        )
    return found


def _moments(when: Window) -> tuple[timedelta, ...]:
    return () if when.latest is None else (when.latest,)


def _labels(incident: Incident) -> str:
    labels = {**incident.series.resource, **incident.series.metric}
    text = ", ".join(f"{key}={value}" for key, value in labels.items() if key != "project_id")
    return text or f"a series without labels, of {incident.condition_display_name!r}"


def notification(incident: Incident, spec: AlertPolicySpec) -> str:
    """What a channel is told of an incident: subject, summary, documentation, links."""
    values = variables(
        key=incident.series,
        policy_name=spec.name,
        policy_display_name=spec.display_name,
        policy_user_labels=spec.user_labels,
        condition_name=incident.condition_name,
        condition_display_name=incident.condition_display_name,
        project=PROJECT,
    )
    documentation = spec.documentation
    parts = (
        expand_subject(documentation.subject, values),
        incident.summary,
        expand(documentation.content, values),
        *(f"{link.display_name}: {expand(link.url, values)}" for link in documentation.links),
    )
    return "\n".join(part for part in parts if part)
