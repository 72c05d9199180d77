"""Mutants: a policy with one thing changed, which a scenario that is any good has to notice.

Made from the REST JSON that Cloud Monitoring would get. A mutant is killed when a scenario that
the policy passes fails with it. What the API would refuse is no mutant. Left out, and counted,
is what cannot differ by construction:

- an absence hears points and nothing else, so its aligner, period and reducer say nothing;
- auto-close says nothing where every condition closes when data is missing;
- matching resources is AND where every condition reduces all labels of one resource type away;
- whatever the engine reads as the very same policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from alerts.encode import Json
from alerts.stage import PROJECT, Play, Stage, StagedPolicy, staged_policy
from alerts.trial import judge, openings_of
from speakfit.engine.align import Aligner
from speakfit.engine.conditions import (
    AbsenceCondition,
    Condition,
    ConditionKind,
    MissingData,
    Operator,
    ThresholdCondition,
)
from speakfit.engine.filters import All, AnyOf, Comparison, Expression, Negation, parse_filter
from speakfit.engine.incidents import PolicyState, Replay, replay_many
from speakfit.engine.points import ValueType
from speakfit.engine.policies import AlertPolicySpec, Combiner
from speakfit.engine.reduce import Reducer, aggregated_type
from speakfit.engine.wire import parse_duration, print_duration
from speakfit.errors import InvalidArgument, NotFound

_MINUTE = timedelta(minutes=1)
_SHARE = 0.1
"""How far a threshold is moved."""
_THRESHOLD, _ABSENT = ConditionKind.THRESHOLD.value, ConditionKind.ABSENT.value
_SIDES = ("aggregations", "denominatorAggregations")
_FILTERS = ("filter", "denominatorFilter")


class Part(StrEnum):
    """What of a policy is changed."""

    COMPARATOR = "comparator"
    THRESHOLD = "threshold"
    DURATION = "duration"
    ALIGNER = "aligner"
    REDUCER = "reducer"
    GROUPING = "grouping"
    FILTER = "filter"
    MISSING_DATA = "missing data"
    TRIGGER = "trigger"
    CONDITION = "condition"
    COMBINER = "combiner"
    AUTO_CLOSE = "auto-close"


ADVICE: Mapping[Part, str] = {
    Part.COMPARATOR: "let a value lie on the other side of the threshold for long enough",
    Part.THRESHOLD: "let a value lie between the two thresholds for long enough",
    Part.DURATION: "expect the page `at` its minute, and quiet when trouble is a minute too short",
    Part.ALIGNER: "let the values within one window differ, and let trouble end inside one",
    Part.REDUCER: "write two series that differ, or that only break the threshold together",
    Part.GROUPING: "write two series that differ in the label; break the threshold with one",
    Part.FILTER: "write a series that the filter keeps out, and one that it lets in",
    Part.MISSING_DATA: "let the series fall silent, while the incident is open and before",
    Part.TRIGGER: "let one series break the threshold alone",
    Part.CONDITION: "let the other conditions hold without this one",
    Part.COMBINER: "let one condition hold without the others",
    Part.AUTO_CLOSE: "let the series fall silent for long and expect the end `at` its minute",
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A policy with one thing changed."""

    policy: str
    condition: str
    """Display name; empty where the policy itself is changed."""
    part: Part
    before: str
    after: str
    spec: AlertPolicySpec

    @property
    def change(self) -> str:
        """`threshold: 100 -> 110`."""
        return f"{self.part}: {self.before} -> {self.after}"


@dataclass(frozen=True, kw_only=True)
class Brood:
    """All mutants of one policy, and how many were left out."""

    mutants: tuple[Mutant, ...]
    refused: int
    """The API would not take them."""
    equivalent: tuple[Mutant, ...]
    """They cannot differ, by construction."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    killer: str
    """The scenario that noticed; empty when none did."""


@dataclass(frozen=True, kw_only=True)
class PolicyScore:
    """What became of the mutants of one policy."""

    policy: str
    verdicts: tuple[Verdict, ...]
    refused: int
    equivalent: int

    @property
    def killed(self) -> int:
        """How many were noticed."""
        return sum(bool(one.killer) for one in self.verdicts)

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """Those that no scenario noticed."""
        return tuple(one.mutant for one in self.verdicts if not one.killer)


def score_percent(scores: Sequence[PolicyScore]) -> float:
    """Killed mutants of all, in percent."""
    total = sum(len(one.verdicts) for one in scores)
    return 100.0 * sum(one.killed for one in scores) / total if total else 100.0


def hunt(policy: StagedPolicy, plays: Iterable[Play], stage: Stage) -> PolicyScore:
    """Run the mutants of a policy through scenarios that it passes, until each is killed."""
    found = brood(policy, stage)
    alive = list(range(len(found.mutants)))
    killers = [""] * len(found.mutants)
    for play in _ordered(policy, plays):
        if not alive:
            break
        replays = [
            Replay(
                spec=found.mutants[number].spec,
                state=PolicyState.empty(),
                active_since_ns=play.start_ns,
            )
            for number in alive
        ]
        results = replay_many(
            replays, play.series, play.times, snoozes=play.snoozes, project=PROJECT
        )
        for number, (_, events) in zip(list(alive), results, strict=True):
            openings = openings_of(events, play)
            if judge(policy.id, found.mutants[number].spec, play, openings).failures:
                killers[number] = str(play.scenario)
                alive.remove(number)
    return PolicyScore(
        policy=policy.id,
        verdicts=tuple(
            Verdict(mutant=mutant, killer=killer)
            for mutant, killer in zip(found.mutants, killers, strict=True)
        ),
        refused=found.refused,
        equivalent=len(found.equivalent),
    )


def _ordered(policy: StagedPolicy, plays: Iterable[Play]) -> list[Play]:
    """The scenarios that write what the policy reads; first those that are about it."""
    read = policy.spec.metric_types
    those = [play for play in plays if any(one.key.metric_type in read for one in play.series)]
    return sorted(those, key=lambda play: (policy.id not in play.named, len(play.times)))


def brood(policy: StagedPolicy, stage: Stage) -> Brood:
    """Every mutant of a policy."""
    mutants: list[Mutant] = []
    equivalent: list[Mutant] = []
    refused = 0
    for change in _changes(policy, stage):
        body = deepcopy(policy.body)
        change.make(body)
        try:
            spec = staged_policy(policy.id, body, stage.descriptors.get).spec
        except (InvalidArgument, NotFound):
            refused += 1
            continue
        mutant = Mutant(
            policy=policy.id,
            condition=change.condition,
            part=change.part,
            before=change.before,
            after=change.after,
            spec=spec,
        )
        (equivalent if change.idle or spec == policy.spec else mutants).append(mutant)
    return Brood(mutants=tuple(mutants), refused=refused, equivalent=tuple(equivalent))


@dataclass(frozen=True, kw_only=True)
class _Change:
    part: Part
    before: str
    after: str
    make: Callable[[Json], None]
    condition: str = ""
    idle: bool = False
    """It cannot make a difference."""


def _changes(policy: StagedPolicy, stage: Stage) -> Iterator[_Change]:
    body, spec = policy.body, policy.spec
    for number, (raw, condition) in enumerate(
        zip(body["conditions"], spec.conditions, strict=True)
    ):
        if isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            yield from _Conditions(number, raw, condition, stage).changes()
        if len(spec.conditions) > 1:
            yield _Change(
                part=Part.CONDITION,
                condition=condition.display_name,
                before="there",
                after="gone",
                make=_without(number),
            )
    if len(spec.conditions) > 1:
        yield from _combiners(spec)
    yield _auto_close(spec)


def _without(number: int) -> Callable[[Json], None]:
    def make(body: Json) -> None:
        del body["conditions"][number]

    return make


def _combiners(spec: AlertPolicySpec) -> Iterator[_Change]:
    reduced = {_one_resource(condition) for condition in spec.conditions}
    alike = len(reduced) == 1 and None not in reduced
    for other in Combiner:
        if other in (spec.combiner, Combiner.UNSPECIFIED):
            continue
        matching = {spec.combiner, other} == {Combiner.AND, Combiner.AND_WITH_MATCHING_RESOURCE}

        def make(body: Json, other: Combiner = other) -> None:
            body["combiner"] = other.value

        yield _Change(
            part=Part.COMBINER,
            before=spec.combiner.value,
            after=other.value,
            make=make,
            idle=matching and alike,
        )


def _one_resource(condition: Condition) -> str | None:
    """The resource type of a condition whose lines carry no label of a resource; else None."""
    if not isinstance(condition, (ThresholdCondition, AbsenceCondition)):
        return None
    types = condition.filter.resource_types or frozenset()
    grouped = [
        path
        for step in condition.aggregations
        if step.reducer is not Reducer.REDUCE_NONE
        for path in step.group_by
    ]
    reduced = any(step.reducer is not Reducer.REDUCE_NONE for step in condition.aggregations)
    if not reduced or len(types) != 1 or any(path[0] == "resource" for path in grouped):
        return None
    return next(iter(types))


def _auto_close(spec: AlertPolicySpec) -> _Change:
    longer = spec.auto_close + timedelta(minutes=30)
    after = longer if longer <= timedelta(days=7) else timedelta(minutes=30)

    def make(body: Json) -> None:
        strategy = {**body.get("alertStrategy", {}), "autoClose": print_duration(after)}
        body["alertStrategy"] = strategy

    closes = all(
        isinstance(condition, ThresholdCondition) and condition.missing is MissingData.INACTIVE
        for condition in spec.conditions
    )
    return _Change(
        part=Part.AUTO_CLOSE,
        before=print_duration(spec.auto_close),
        after=print_duration(after),
        make=make,
        idle=closes,
    )


class _Conditions:
    """The changes of one condition."""

    def __init__(
        self,
        number: int,
        raw: Json,
        condition: ThresholdCondition | AbsenceCondition,
        stage: Stage,
    ) -> None:
        self._number = number
        self._condition = condition
        self._absent = isinstance(condition, AbsenceCondition)
        self._kind = _ABSENT if self._absent else _THRESHOLD
        self._body: Json = raw[self._kind]
        self._stage = stage

    def changes(self) -> Iterator[_Change]:
        """All of them."""
        condition = self._condition
        if isinstance(condition, ThresholdCondition):
            other = Operator.LT if condition.operator is Operator.GT else Operator.GT
            yield self._set(Part.COMPARATOR, "comparison", condition.operator, other.value)
            for value in self._thresholds(condition):
                yield self._set(Part.THRESHOLD, "thresholdValue", f"{condition.threshold:g}", value)
            yield from self._missing(condition)
        for change in (-_MINUTE, _MINUTE):
            text = print_duration(condition.duration + change)
            yield self._set(Part.DURATION, "duration", self._body.get("duration", "0s"), text)
        trigger = condition.trigger
        if trigger.percent is None:
            more: Json = {"count": trigger.count + 1}
            yield self._set(Part.TRIGGER, "trigger", f"{trigger.count} series", more)
        else:
            any_one: Json = {"count": 1}
            yield self._set(Part.TRIGGER, "trigger", f"{trigger.percent:g} %", any_one)
        yield from self._periods()
        for side in _SIDES:
            for place, step in enumerate(self._body.get(side, ())):
                yield from self._aligners(side, place, step)
                yield from self._reducers(side, place, step)
        yield from self._groupings()
        for key in _FILTERS:
            if self._body.get(key):
                yield from self._filters(key)

    def _change(
        self, part: Part, before: object, after: object, make: Callable[[Json], None], idle: bool
    ) -> _Change:
        number, kind = self._number, self._kind

        def inside(body: Json) -> None:
            make(body["conditions"][number][kind])

        return _Change(
            part=part,
            condition=self._condition.display_name,
            before=str(before),
            after=str(after),
            make=inside,
            idle=idle,
        )

    def _set(self, part: Part, key: str, before: object, value: object) -> _Change:
        def make(body: Json) -> None:
            body[key] = value

        after = str(value).removeprefix("EVALUATION_MISSING_DATA_")
        if isinstance(value, float):
            after = f"{value:g}"
        elif isinstance(value, dict):
            after = f"{value['count']} series"
        return self._change(part, before, after, make, idle=False)

    def _thresholds(self, condition: ThresholdCondition) -> list[float]:
        limit = condition.threshold
        moved = abs(limit) * _SHARE
        if not self._whole(condition) or limit != int(limit):
            moved = moved or _SHARE
            return [limit + moved, limit - moved]
        # More than 4 and more than 4.4 are the same of whole numbers.
        steps = sorted({1.0, float(round(moved))} - {0.0})
        return [limit + sign * step for step in steps for sign in (1, -1)]

    def _whole(self, condition: ThresholdCondition) -> bool:
        """Whether whole numbers are compared."""
        if condition.denominator_filter is not None:
            return False
        for name in condition.filter.metric_types or ():
            descriptor = self._stage.descriptors.get(name)
            if descriptor is None:
                return False
            kind, value_type = descriptor.kind, descriptor.value_type
            _, value_type = aggregated_type(condition.aggregations, kind, value_type)
            if value_type is not ValueType.INT64:
                return False
        return bool(condition.filter.metric_types)

    def _missing(self, condition: ThresholdCondition) -> Iterator[_Change]:
        said = condition.missing
        said = MissingData.NO_OP if said is MissingData.UNSPECIFIED else said
        for other in (MissingData.INACTIVE, MissingData.ACTIVE, MissingData.NO_OP):
            if other is not said:
                yield self._set(
                    Part.MISSING_DATA,
                    "evaluationMissingData",
                    said.removeprefix("EVALUATION_MISSING_DATA_"),
                    other.value,
                )

    def _periods(self) -> Iterator[_Change]:
        """Longer and shorter windows, on both sides of a ratio as the API wants it."""
        for place, step in enumerate(self._body.get("aggregations", ())):
            if "alignmentPeriod" not in step:
                continue
            period = parse_duration(step["alignmentPeriod"], field="")
            for other in (period * 2, period / 2):
                text = print_duration(other)

                def make(body: Json, place: int = place, text: str = text) -> None:
                    for side in _SIDES:
                        if place < len(body.get(side, ())):
                            body[side][place]["alignmentPeriod"] = text

                yield self._change(
                    Part.ALIGNER,
                    f"period {step['alignmentPeriod']}",
                    text,
                    make,
                    idle=self._absent,
                )

    def _aligners(self, side: str, place: int, step: Json) -> Iterator[_Change]:
        said = step.get("perSeriesAligner", Aligner.ALIGN_NONE.value)
        for other in Aligner:
            if other.value != said:
                yield self._step(Part.ALIGNER, side, place, "perSeriesAligner", said, other)

    def _reducers(self, side: str, place: int, step: Json) -> Iterator[_Change]:
        said = step.get("crossSeriesReducer", Reducer.REDUCE_NONE.value)
        for other in Reducer:
            if other.value != said:
                yield self._step(Part.REDUCER, side, place, "crossSeriesReducer", said, other)

    def _step(
        self, part: Part, side: str, place: int, key: str, said: str, other: StrEnum
    ) -> _Change:
        def make(body: Json) -> None:
            body[side][place][key] = other.value

        where = " of the denominator" if side != _SIDES[0] else ""
        # Without a reducer an absence is one of each series.
        idle = self._absent and Reducer.REDUCE_NONE not in (said, other)
        return self._change(part, said, f"{other.value}{where}", make, idle)

    def _groupings(self) -> Iterator[_Change]:
        """Each label less and each label more, on both sides of a ratio as the API wants it."""
        for place, step in enumerate(self._body.get("aggregations", ())):
            said = list(step.get("groupByFields", ()))
            if step.get("crossSeriesReducer", Reducer.REDUCE_NONE) == Reducer.REDUCE_NONE:
                continue
            others = [[one for one in said if one != field] for field in said]
            others += [[*said, field] for field in self._more_labels(said)]
            for fields in others:

                def make(body: Json, place: int = place, fields: list[str] = fields) -> None:
                    for side in _SIDES:
                        if place < len(body.get(side, ())):
                            body[side][place]["groupByFields"] = fields

                yield self._change(Part.GROUPING, _fields(said), _fields(fields), make, idle=False)

    def _more_labels(self, said: Sequence[str]) -> list[str]:
        """Labels of the metric that neither group nor are pinned to one value by the filter."""
        if {"metric.label.*", "metric.labels.*"} & set(said):
            return []
        parsed = self._condition.filter
        pinned = {
            one.path[2]
            for one in _operands(parsed.expression)
            if isinstance(one, Comparison) and one.operator == "=" and len(one.path) == 3
        }
        found = []
        for name in sorted(parsed.metric_types or ()):
            metric = self._stage.metrics.get(name)
            for label in () if metric is None else metric.labels or ():
                key = metric.label_key(label) if metric is not None else label
                field = f"metric.labels.{key}"
                alike = {field, f"metric.label.{key}"}
                if key not in pinned and not alike & set(said) and field not in found:
                    found.append(field)
        return found

    def _filters(self, key: str) -> Iterator[_Change]:
        """Each term left out and turned round, but for those that say which metric it is."""
        parts = _operands(parse_filter(self._body[key]).expression)
        where = " of the denominator" if key != _FILTERS[0] else ""
        for place, part in enumerate(parts):
            if isinstance(part, Comparison) and part.path in (
                ("metric", "type"),
                ("resource", "type"),
            ):
                continue
            rest = [*parts[:place], *parts[place + 1 :]]
            turned = [*parts[:place], Negation(operand=part), *parts[place + 1 :]]
            for after, terms in (("left out", rest), (f"NOT {part}", turned)):
                text = " AND ".join(_printed(term) for term in terms)

                def make(body: Json, key: str = key, text: str = text) -> None:
                    body[key] = text

                yield self._change(Part.FILTER, part, f"{after}{where}", make, idle=False)


def _operands(expression: Expression | None) -> tuple[Expression, ...]:
    if expression is None:
        return ()
    return expression.operands if isinstance(expression, All) else (expression,)


def _printed(expression: Expression) -> str:
    return f"({expression})" if isinstance(expression, AnyOf) else str(expression)


def _fields(fields: Sequence[str]) -> str:
    return ", ".join(fields) or "none"
