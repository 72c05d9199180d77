"""Cases that are generated for every policy: at its boundary, without data, and recovering.

They ask whether a policy does what its own fields say, and find surprises: an alignment window
that delays the page, silence that keeps an incident open for days, a threshold no value reaches.
They know nothing of what a policy is for, so they count as no test of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from math import isfinite, isnan

from alerts.notation import print_span
from alerts.scenario import Scenario, Script
from alerts.stage import MINUTE, PROJECT, Play, Stage, StagedPolicy
from alerts.trial import Evaluated, Opening, openings_of, replay_of
from speakfit.engine.conditions import (
    AbsenceCondition,
    MissingData,
    Operator,
    ThresholdCondition,
)
from speakfit.engine.filters import All, AnyOf, Call, Comparison, Expression, Filter
from speakfit.engine.incidents import replay_many
from speakfit.engine.points import Descriptor, MetricKind, SeriesKey, ValueType
from speakfit.engine.policies import Combiner
from speakfit.engine.verdicts import Verdict
from speakfit.errors import ScenarioError

_STEP = timedelta(seconds=30)
_SILENCE = timedelta(hours=2)
"""How long silence is watched."""
_PATIENCE = timedelta(hours=1)
"""Silence that keeps an incident open for longer surprises whoever waits for it to close."""
_TRAFFIC = 1_000
"""What the denominator of a ratio gains in every export."""
_MEASUREMENTS = 20
_BISECTIONS = 24
_MOST_ALTERNATIVES = 64
_SEPARATE = (Combiner.OR, Combiner.UNSPECIFIED)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one generated case found: nothing, or a surprise."""

    policy: str
    condition: str
    case: str
    surprise: str = ""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """All cases that were generated for some policies."""

    findings: tuple[Finding, ...]
    skipped: tuple[Finding, ...]
    """Conditions for which no case could be made; `surprise` says why."""

    @property
    def surprises(self) -> tuple[Finding, ...]:
        """The cases that did not go as the policy's fields say."""
        return tuple(one for one in self.findings if one.surprise)


class _NoCaseError(Exception):
    """No case can be made; says why."""


def probe(stage: Stage, policies: Iterable[str]) -> Probes:
    """Generate and run the cases of some policies."""
    findings: list[Finding] = []
    skipped: list[Finding] = []
    for name in policies:
        staged = stage.policies.get(name)
        if staged is None or not staged.spec.evaluated or not staged.spec.enabled:
            continue
        levers: dict[str, _Lever] = {}
        for condition in staged.spec.conditions:
            assert isinstance(condition, (ThresholdCondition, AbsenceCondition))
            finding = Finding(policy=name, condition=condition.display_name, case="")
            try:
                levers[condition.name] = _lever(condition, staged, stage)
            except _NoCaseError as error:
                skipped.append(replace(finding, surprise=str(error)))
        together = staged.spec.combiner not in _SEPARATE
        if together and len(levers) < len(staged.spec.conditions):
            continue
        for lever in levers.values():
            try:
                findings += _Cases(stage, staged, lever, levers.values()).run()
            except _NoCaseError as error:
                title = lever.condition.display_name
                skipped.append(Finding(policy=name, condition=title, case="", surprise=str(error)))
    return Probes(findings=tuple(findings), skipped=tuple(skipped))


@dataclass(frozen=True, kw_only=True)
class _Lever:
    """Series that move one condition, and the levels next to its threshold on either side."""

    condition: Evaluated
    moved: Script
    beside: tuple[Script, ...]
    """The denominator of a ratio, which stays as it is."""
    form: str
    """How a level is written: `{}`, or a distribution round it."""
    calm: float = 0.0
    healthy: float = 0.0
    breaking: float | None = None
    """None for an absence, which only silence breaks."""

    def scripts(self, *phases: tuple[timedelta, float | None]) -> list[Script]:
        """The series at a level for a time, then at another; None is silence for both."""
        moved, beside = [], []
        for lasting, level in phases:
            span = print_span(lasting)
            moved.append(f"_ for {span}" if level is None else f"{self._at(level)} for {span}")
            beside.append(f"_ for {span}" if level is None else f"{_TRAFFIC} for {span}")
        return [
            _with(self.moved, "  ".join(moved)),
            *(_with(one, "  ".join(beside)) for one in self.beside),
        ]

    def _at(self, level: float) -> str:
        return self.form.format(f"{level:.12g}")


def _with(script: Script, text: str) -> Script:
    return replace(script, gains=text) if script.gains else replace(script, values=text)


def _lever(condition: Evaluated, staged: StagedPolicy, stage: Stage) -> _Lever:
    moved, form = _script(condition.filter, condition, stage)
    if isinstance(condition, AbsenceCondition):
        return _Lever(condition=condition, moved=moved, beside=(), form=form, calm=1, healthy=1)
    beside: tuple[Script, ...] = ()
    if condition.denominator_filter is not None:
        below, below_form = _script(condition.denominator_filter, condition, stage)
        if _key(below) == _key(moved):
            raise _NoCaseError("numerator and denominator read the same series")
        if below_form != "{}":
            raise _NoCaseError("its denominator is a distribution")
        beside = (below,)
    lever = _Lever(condition=condition, moved=moved, beside=beside, form=form)
    return _calibrated(lever, _Scale(stage, staged, lever))


class _Scale:
    """What a condition measures when its series stay at a level."""

    def __init__(self, stage: Stage, staged: StagedPolicy, lever: _Lever) -> None:
        self._stage = stage
        self._staged = staged
        self._lever = lever
        descriptor = stage.descriptors[lever.moved.metric]
        self.whole = descriptor.value_type in (ValueType.INT64, ValueType.BOOL)
        self.signed = descriptor.kind is MetricKind.GAUGE and (
            descriptor.value_type is not ValueType.DISTRIBUTION
        )
        self._known: dict[float, float] = {}

    def __call__(self, level: float) -> float:
        if level not in self._known:
            lasting = -(-self._staged.spec.lookback // MINUTE) * MINUTE
            play = _play(self._stage, self._lever.scripts((lasting, level)))
            found: list[Verdict] = []
            condition = self._lever.condition

            def watch(_number: int, judged: Evaluated, verdict: Verdict) -> None:
                if judged.name == condition.name:
                    found.append(verdict)

            one = replay_of(self._staged, play)
            replay_many([one], play.series, play.times[-1:], project=PROJECT, watch=watch)
            values = [float(v.values[-1]) for v in found if v.values is not None]
            self._known[level] = values[0] if values else float("nan")
        return self._known[level]

    def breaks(self, level: float) -> bool:
        """Whether a level breaks the threshold."""
        condition = self._lever.condition
        assert isinstance(condition, ThresholdCondition)
        value = self(level)
        above = condition.operator is Operator.GT
        return value > condition.threshold if above else value < condition.threshold


def _calibrated(lever: _Lever, scale: _Scale) -> _Lever:
    """The lever with the levels nearest to the threshold on either side."""
    condition = lever.condition
    assert isinstance(condition, ThresholdCondition)
    if isnan(scale(1.0)):
        raise _NoCaseError("its filter passes the generated series, but nothing is measured of it")
    above = condition.operator is Operator.GT
    low, high = _bracket(scale, above=above)
    low, high = _guess(scale, condition.threshold, low, high, above=above)
    for _ in range(_BISECTIONS):
        if (high - low <= 1) if scale.whole else (high - low <= abs(high) * 1e-3):
            break
        middle = (low + high) / 2
        middle = float(round(middle)) if scale.whole else middle
        if scale.breaks(middle) is above:
            high = middle
        else:
            low = middle
    healthy, breaking = (low, high) if above else (high, low)
    calm = healthy if above else max(2 * healthy, healthy + 1)
    if above and not scale.breaks(0.0):
        calm = 0.0
    return replace(lever, calm=calm, healthy=healthy, breaking=breaking)


def _bracket(scale: _Scale, *, above: bool) -> tuple[float, float]:
    """Two levels with the threshold between what is measured of them."""
    start = scale.breaks(0.0)
    if start is above and not scale.signed:
        raise _NoCaseError("every value breaks it" if above else "no value breaks it")
    previous, level = 0.0, -1.0 if start is above else 1.0
    for _ in range(48):
        if scale.breaks(level) is not start:
            return (previous, level) if previous < level else (level, previous)
        previous, level = level, level * 4
    raise _NoCaseError("what it measures does not follow the values of its series")


def _guess(
    scale: _Scale, threshold: float, low: float, high: float, *, above: bool
) -> tuple[float, float]:
    """A narrower bracket where what is measured is proportional to the level, as it mostly is."""
    slope = scale(high) / high if high else float("nan")
    level = threshold / slope if slope and isfinite(slope) else float("nan")
    if not isfinite(level) or not low < level < high:
        return low, high
    margin = 0.0 if scale.whole else abs(level) * 4e-4
    first, last = level - margin, level + margin
    if scale.whole:
        first, last = float(int(level // 1)), float(int(level // 1) + 1)
        if first == level and scale.breaks(first) is above:
            first, last = first - 1, first
    if low <= first < last <= high and scale.breaks(first) is not scale.breaks(last):
        return first, last
    return low, high


class _Cases:
    """The cases of one condition."""

    def __init__(
        self, stage: Stage, staged: StagedPolicy, lever: _Lever, levers: Iterable[_Lever]
    ) -> None:
        self._stage = stage
        self._staged = staged
        self._lever = lever
        self._together = staged.spec.combiner not in _SEPARATE
        self._others = [one for one in levers if one is not lever]
        spec = staged.spec
        # Far on the healthy side of one condition may be beyond the threshold of another.
        self._well = lever.healthy if self._shared() else lever.calm
        self._window = max(-(-spec.lookback // MINUTE) - 5, 1) * MINUTE
        """The longest alignment window: lookback without its margin."""
        self._calm = self._window + 5 * MINUTE
        longest = max(one.condition.duration for one in (lever, *self._others))
        self._break = longest + self._window + 3 * MINUTE

    def run(self) -> Iterator[Finding]:
        """All that can be made."""
        cases = {"just beyond its threshold": self._beyond}
        if not self._shared():
            cases["just short of its threshold"] = self._short
        if self._lever.breaking is not None:
            cases["silent while open"] = self._silent
        for case, find in cases.items():
            finding = Finding(
                policy=self._staged.id, condition=self._lever.condition.display_name, case=case
            )
            yield replace(finding, surprise=find())

    def _beyond(self) -> str:
        """It must page when its duration is over, and resolve when the value recovers."""
        after = self._calm + self._window
        openings = self._play(
            (self._calm, self._well), (self._break, self._bad()), (after, self._well)
        )
        openings = tuple(one for one in openings if one.opened > self._calm)
        if not openings:
            return "it does not page at the nearest value beyond its threshold"
        waited = openings[0].opened - self._calm
        expected = self._duration() + MINUTE
        if waited > expected:
            return (
                f"it pages {print_span(waited)} after the value broke its threshold, not "
                f"{print_span(self._duration())} to {print_span(expected)}: its window of "
                f"{print_span(self._window)} has to fill"
            )
        end = self._calm + self._break
        closed = openings[-1].closed
        if closed is None:
            return f"it is still open {print_span(after)} after the value recovered"
        if closed - end > 2 * MINUTE:
            return (
                f"it resolves {print_span(closed - end)} after the value recovered: its window of "
                f"{print_span(self._window)} has to empty"
            )
        return ""

    def _short(self) -> str:
        """It must stay quiet: at the nearest healthy value, or silent for a minute too short."""
        lever = self._lever
        if lever.breaking is None:
            lasting = lever.condition.duration - MINUTE
            openings = self._play(
                (self._calm, lever.calm), (lasting, None), (self._calm, lever.calm)
            )
        else:
            openings = self._play(
                (self._calm, lever.calm), (self._break, lever.healthy), (self._calm, lever.calm)
            )
        if openings and openings[0].opened <= self._window:
            return (
                "it pages when its series is new, before its window of "
                f"{print_span(self._window)} has filled"
            )
        return "it pages although its threshold is not broken" if openings else ""

    def _silent(self) -> str:
        """What silence does must be over within an hour, and must be what the policy says."""
        openings = self._play(
            (self._calm, self._well),
            (self._break, self._bad()),
            (_SILENCE, None),
            all_silent=True,
        )
        begin = self._calm + self._break
        for one in openings:
            if one.opened > begin and not self._active():
                return "it pages because data is missing, which its fields do not say"
        lasting = [one for one in openings if one.open_at(begin + _PATIENCE)]
        if lasting and not self._active():
            auto_close = print_span(self._staged.spec.auto_close)
            return f"silence keeps it open for more than an hour: auto-close is {auto_close}"
        return ""

    def _active(self) -> bool:
        return any(
            isinstance(condition, AbsenceCondition)
            or (
                isinstance(condition, ThresholdCondition)
                and condition.missing is MissingData.ACTIVE
            )
            for condition in self._staged.spec.conditions
        )

    def _duration(self) -> timedelta:
        durations = [self._lever.condition.duration]
        if self._together:
            durations += [one.condition.duration for one in self._others]
        return max(durations)

    def _shared(self) -> bool:
        """Whether another condition reads the same series, so that it cannot be held apart."""
        return any(_key(one.moved) == _key(self._lever.moved) for one in self._others)

    def _bad(self) -> float | None:
        """The level that breaks; of conditions that read one series, the one that breaks all."""
        levels = [self._lever.breaking]
        if self._together:
            levels += [
                one.breaking for one in self._others if _key(one.moved) == _key(self._lever.moved)
            ]
        known = [level for level in levels if level is not None]
        return max(known) if known else None

    def _play(
        self, *phases: tuple[timedelta, float | None], all_silent: bool = False
    ) -> tuple[Opening, ...]:
        """Run the condition through phases; the others break with it, or stay calm."""
        scripts = self._lever.scripts(*phases)
        taken = {_key(script) for script in scripts}
        for other in self._others:
            first, second, *rest = phases
            level = other.breaking if self._together else other.calm
            shared = [(first[0], other.calm), (second[0], level)]
            shared += [(span, None if all_silent else other.calm) for span, _ in rest]
            for script in other.scripts(*shared):
                if _key(script) not in taken:
                    taken.add(_key(script))
                    scripts.append(script)
        play = _play(self._stage, scripts)
        ((_, events),) = replay_many(
            [replay_of(self._staged, play)], play.series, play.times, project=PROJECT
        )
        return openings_of(events, play)


def _play(stage: Stage, scripts: Sequence[Script]) -> Play:
    scenario = Scenario(name="generated", series=tuple(scripts), quiet=("*",), step=_STEP)
    try:
        return stage.ready(scenario)
    except ScenarioError as error:
        raise _NoCaseError(error.what) from error


def _key(script: Script) -> tuple[object, ...]:
    return (
        script.metric,
        script.resource_type,
        tuple(sorted(script.labels.items())),
        tuple(sorted(script.resource.items())),
    )


def _script(parsed: Filter, condition: Evaluated, stage: Stage) -> tuple[Script, str]:
    """A series that passes a filter, without points; and how a level of it is written."""
    for metric in sorted(parsed.metric_types or ()):
        descriptor = stage.descriptors.get(metric)
        if descriptor is None:
            continue
        for labels in _assignments(parsed.expression):
            key = _series_key(metric, labels, condition)
            if key is not None and parsed.matches(key, project=PROJECT):
                return _empty(key, descriptor), _form(descriptor)
    raise _NoCaseError(f"no series could be found that passes {str(parsed)!r}")


def _empty(key: SeriesKey, descriptor: Descriptor) -> Script:
    """`gains` or `values` is filled in later; which of them is known already."""
    counts = descriptor.kind is MetricKind.CUMULATIVE
    return Script(
        metric=key.metric_type,
        labels=dict(key.metric_labels),
        resource_type=key.resource_type,
        resource={name: value for name, value in key.resource_labels if name != "project_id"},
        gains="0" if counts else "",
        values="" if counts else "0",
    )


def _form(descriptor: Descriptor) -> str:
    if descriptor.value_type is ValueType.DISTRIBUTION:
        return "{{mean: {}, n: " + str(_MEASUREMENTS) + "}}"
    if descriptor.value_type is ValueType.BOOL:
        raise _NoCaseError("its values are true and false, which have no boundary")
    return "{}"


Assignment = Mapping[tuple[str, ...], str]


def _series_key(metric: str, labels: Assignment, condition: Evaluated) -> SeriesKey | None:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    resource_type = labels.get(("resource", "type"), "global")
    for path, value in labels.items():
        if len(path) == 3 and path[0] != "metadata":
            found.setdefault(path[:2], {})[path[2]] = value
        elif path not in (("metric", "type"), ("resource", "type"), ("project",)):
            return None
    for step in condition.aggregations:
        for path in step.group_by:
            if len(path) == 3 and path[0] != "metadata" and path[2] != "*":
                found.setdefault(path[:2], {}).setdefault(path[2], "generated")
    resource = {**found.get(("resource", "labels"), {}), "project_id": PROJECT}
    return SeriesKey.of(
        metric_type=metric,
        metric_labels=found.get(("metric", "labels")),
        resource_type=resource_type,
        resource_labels=resource,
    )


def _assignments(expression: Expression | None) -> list[Assignment]:
    """Label values that may satisfy an expression; whether they do is for the filter to say."""
    if isinstance(expression, Comparison):
        if expression.operator in ("!=", "<=", "<"):
            # An absent label is not equal to anything, and is no number.
            return [{}] if expression.operator == "!=" else [{expression.path: "0"}]
        return [{expression.path: text} for text in _texts(expression.value)]
    if isinstance(expression, AnyOf):
        return [one for part in expression.operands for one in _assignments(part)]
    if isinstance(expression, All):
        parts = [_assignments(part) for part in expression.operands]
        found: list[Assignment] = []
        for choice in product(*parts):
            merged: dict[tuple[str, ...], str] = {}
            for one in choice:
                merged.update(one)
            found.append(merged)
            if len(found) == _MOST_ALTERNATIVES:
                break
        return found
    return [{}]


def _texts(value: str | float | Call) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Call):
        if value.name == "one_of":
            return value.arguments
        text = value.arguments[0]
        if value.name != "monitoring.regex.full_match":
            return [text]
        simple = text.strip("^$").replace(".*", "x").replace(".+", "x").replace("\\", "")
        return [one.strip("()") for one in simple.split("|")]
    return [f"{value:g}", f"{value + 1:g}"]
