"""What scenarios are played on: the policies of a catalog as the engine reads them, and series.

`Stage.of` compiles a catalog once; `Stage.set_up` turns a scenario into engine series and refuses
what is misspelt, and what could never be checked: a test that cannot fail is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Protocol

import numpy as np

from alerts.document import Path as Place
from alerts.document import path_text
from alerts.encode import (
    CHANNEL_PREFIX,
    Json,
    engine_descriptors,
    known_metrics,
    policy_json,
)
from alerts.metric import MetricRecord
from alerts.nearest import did_you_mean
from alerts.notation import NotationError, parse_series, print_span, unroll
from alerts.policy import Catalog
from alerts.scenario import Page, Scenario, Script, Snoozed, Window, combinations
from alerts.track import Noisy, Track, misfit
from speakfit.engine.conditions import AbsenceCondition, MissingData, ThresholdCondition
from speakfit.engine.filters import Filter, parse_filter
from speakfit.engine.incidents import CloseReason, Snooze
from speakfit.engine.points import Descriptor, Ints, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import AlertPolicySpec, Severity, parse_policy
from speakfit.engine.reduce import Aggregation, Reducer
from speakfit.engine.wire import to_ns
from speakfit.errors import CatalogError, InvalidArgument, NotFound, ScenarioError

MINUTE = timedelta(minutes=1)
"""Cloud Monitoring evaluates conditions every minute, and so does a scenario."""
PROJECT = "scenarios"
RUNBOOKS = "https://runbooks.test"
"""Documentation is compiled with these runbooks: no setting may change what a test finds."""
MOST_MINUTES = 14 * 24 * 60


class Complaints(Protocol):
    """Where problems of a scenario are told; alerts.form knows the line of each place."""

    def problem(self, path: Place, what: str, todo: str = "", *, token: int | None = None) -> None:
        """Something is wrong at a place of the scenario."""


@dataclass(frozen=True, kw_only=True)
class StagedPolicy:
    """A policy as Cloud Monitoring would get it, and as the engine reads that."""

    id: str
    body: Json
    spec: AlertPolicySpec

    @property
    def channels(self) -> tuple[str, ...]:
        """Ids of the channels it notifies."""
        return tuple(
            channel.removeprefix(CHANNEL_PREFIX) for channel in self.spec.notification_channels
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Play:
    """A scenario that is ready to run: series, evaluation times, snoozes."""

    scenario: Scenario
    series: tuple[Series, ...]
    pages: tuple[Page, ...]
    """Those of the scenario, their labels as Cloud Monitoring stores them."""
    times: Ints
    snoozes: tuple[Snooze, ...]
    quiet: frozenset[str]
    """Ids of the policies that must not page, patterns resolved."""
    may_page: frozenset[str]

    @property
    def start_ns(self) -> int:
        """When it begins; policies stand as they are since then."""
        return to_ns_of(self.scenario)

    @property
    def named(self) -> frozenset[str]:
        """The policies that it says something about: more than that nothing at all may page."""
        said = {page.policy for page in self.pages}
        return frozenset(said) | (self.quiet if "*" not in self.scenario.quiet else frozenset())

    @property
    def end(self) -> timedelta:
        """The time of the last evaluation, from the start."""
        return self.time(int(self.times[-1]))

    def time(self, at_ns: int) -> timedelta:
        """A time from the start."""
        return timedelta(microseconds=(at_ns - self.start_ns) // 1_000)


def to_ns_of(scenario: Scenario) -> int:
    """The start of a scenario in nanoseconds since 1970."""
    return int(scenario.start.timestamp()) * 10**9


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A catalog, compiled for scenarios."""

    catalog: str
    policies: Mapping[str, StagedPolicy]
    unread: Mapping[str, str]
    """Policies that the engine cannot read, and why: a metric's kind is not known."""
    metrics: Mapping[str, MetricRecord]
    descriptors: Mapping[str, Descriptor]

    @classmethod
    def of(cls, catalog: Catalog) -> Stage:
        """Compile every policy; a CatalogError if Cloud Monitoring would refuse one."""
        descriptors = engine_descriptors(catalog)
        staged: dict[str, StagedPolicy] = {}
        unread: dict[str, str] = {}
        for policy in catalog.policies:
            body = policy_json(policy, catalog, runbook_base_url=RUNBOOKS)
            asked = _Asked(descriptors)
            try:
                staged[policy.id] = staged_policy(policy.id, body, asked)
            except NotFound as error:
                unread[policy.id] = (
                    f"the kind of {', '.join(asked.missing)} is not known"
                    if asked.missing
                    else error.what
                )
            except InvalidArgument as error:
                raise CatalogError(
                    error.what, where=f"policy {policy.id}", todo="Correct the field it names."
                ) from error
        return cls(
            catalog=catalog.name,
            policies=staged,
            unread=unread,
            metrics=known_metrics(catalog),
            descriptors=descriptors,
        )

    def named(self, patterns: Iterable[str]) -> frozenset[str]:
        """The ids of the policies that any of the patterns names."""
        return frozenset(
            policy
            for policy in (*self.policies, *self.unread)
            if any(fnmatchcase(policy, pattern) for pattern in patterns)
        )

    def ready(self, scenario: Scenario) -> Play:
        """A scenario ready to run; a ScenarioError tells everything that is wrong with it."""
        complaints = _Raising(scenario)
        play = self.set_up(scenario, complaints)
        complaints.finish()
        assert play is not None
        return play

    def set_up(self, scenario: Scenario, complaints: Complaints, path: Place = ()) -> Play | None:
        """A scenario ready to run; None when it has problems, which are told."""
        found = _SetUp(self, scenario, complaints, path)
        play = found.play()
        return None if found.failed else play


class _Asked:
    """Descriptors by metric type, remembering which were asked for in vain."""

    def __init__(self, known: Mapping[str, Descriptor]) -> None:
        self._known = known
        self.missing: list[str] = []

    def __call__(self, metric_type: str) -> Descriptor | None:
        found = self._known.get(metric_type)
        if found is None:
            self.missing.append(metric_type)
        return found


def staged_policy(
    policy_id: str, body: Json, descriptors: Callable[[str], Descriptor | None]
) -> StagedPolicy:
    """A compiled policy, read by the engine; its name there is its id."""
    named = {**body, "name": policy_id}
    return StagedPolicy(id=policy_id, body=named, spec=parse_policy(named, descriptors=descriptors))


class _Raising:
    """Gathers the problems of a scenario that was made in Python."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._found: list[str] = []

    def problem(self, path: Place, what: str, todo: str = "", *, token: int | None = None) -> None:
        """Remember it."""
        self._found.append(f"{path_text(path)}: {what} {todo}".rstrip())

    def finish(self) -> None:
        """A ScenarioError if there was a problem."""
        if self._found:
            raise ScenarioError(
                "\n  ".join(self._found),
                where=f"scenario {self._scenario.name!r}",
                todo="Correct it: it could not be checked.",
            )


class _SetUp:
    """Turns one scenario into engine series."""

    def __init__(
        self, stage: Stage, scenario: Scenario, complaints: Complaints, path: Place
    ) -> None:
        self.failed = False
        self._stage = stage
        self._scenario = scenario
        self._complaints = complaints
        self._path = path
        self._start_ns = to_ns_of(scenario)
        self._longest = timedelta(0)

    def _wrong(self, path: Place, what: str, todo: str = "", *, token: int | None = None) -> None:
        self.failed = True
        self._complaints.problem((*self._path, *path), what, todo, token=token)

    def play(self) -> Play | None:
        scenario = self._scenario
        series: dict[SeriesKey, Series] = {}
        for number, script in enumerate(scenario.series):
            for one in self._series(script, ("series", number)):
                if one.key in series:
                    self._wrong(
                        ("series", number),
                        "This series is here twice: same metric, labels and resource.",
                        "Let a label differ, such as the resource's task_id.",
                    )
                series[one.key] = one
        minutes = (scenario.lasts or self._longest) // MINUTE
        if self.failed:
            return None
        if not 1 <= minutes <= MOST_MINUTES:
            self._wrong(
                ("lasts",) if scenario.lasts else ("series",),
                f"The scenario lasts {print_span(scenario.lasts or self._longest)}.",
                "Let it last from a minute to 14 days.",
            )
            return None
        times = np.arange(1, minutes + 1, dtype=np.int64) * to_ns(MINUTE) + self._start_ns
        paging = {page.policy for page in scenario.pages}
        may_page = self._policies(scenario.may_page, ("may_page",))
        quiet = self._quiet(paging)
        if not scenario.pages and not scenario.quiet:
            self._wrong(
                ("name",),
                "The scenario expects nothing.",
                "Say what must page, or that all is quiet: quiet: ['*'].",
            )
        for policy in sorted(quiet & may_page):
            self._wrong(("may_page",), f"{policy} must be quiet and may page.", "Choose one.")
        measured = {one.key.metric_type for one in series.values()}
        end = minutes * MINUTE
        pages = tuple(
            self._page(page, ("pages", number), measured=measured, end=end)
            for number, page in enumerate(scenario.pages)
        )
        snoozes = tuple(
            self._snooze(snooze, ("snoozes", number))
            for number, snooze in enumerate(scenario.snoozes)
        )
        return Play(
            scenario=scenario,
            series=tuple(series.values()),
            pages=pages,
            times=times,
            snoozes=snoozes,
            quiet=quiet,
            may_page=may_page,
        )

    # Policies

    def _policies(self, patterns: Sequence[str], path: Place) -> frozenset[str]:
        for number, pattern in enumerate(patterns):
            if not self._stage.named([pattern]):
                self._unknown_policy(pattern, (*path, number))
        return self._stage.named(patterns)

    def _quiet(self, paging: set[str]) -> frozenset[str]:
        for number, pattern in enumerate(self._scenario.quiet):
            if pattern in paging:
                self._wrong(("quiet", number), f"{pattern} must page and be quiet.", "Choose one.")
        return self._policies(self._scenario.quiet, ("quiet",)) - paging

    def _unknown_policy(self, name: str, path: Place) -> None:
        known = self._stage.policies
        self._wrong(
            path,
            f"No policy is called {name!r}.",
            did_you_mean(name, known, otherwise="`python -m alerts list` has them."),
        )

    def _snooze(self, snooze: Snoozed, path: Place) -> Snooze:
        policies = self._policies(snooze.policies, (*path, "policies"))
        if snooze.ends <= snooze.begins:
            self._wrong((*path, "until"), "The snooze ends before it begins.", "Let it end later.")
        parsed: Filter | None = None
        if snooze.filter:
            try:
                parsed = parse_filter(snooze.filter)
            except InvalidArgument as error:
                self._wrong((*path, "filter"), error.what, "Correct the filter.")
        return Snooze(
            start_ns=self._start_ns + to_ns(snooze.begins),
            end_ns=self._start_ns + to_ns(snooze.ends),
            policies=policies,
            filter=parsed,
        )

    # Pages

    def _page(self, page: Page, path: Place, *, measured: set[str], end: timedelta) -> Page:
        staged = self._stage.policies.get(page.policy)
        if page.policy in self._stage.unread:
            self._wrong(
                (*path, "policy"),
                f"{page.policy} is not evaluated here: {self._stage.unread[page.policy]}.",
                "Declare the metric with its kind and value type in the catalog.",
            )
            return page
        if staged is None:
            self._unknown_policy(page.policy, (*path, "policy"))
            return page
        spec = staged.spec
        if spec.evaluated and not spec.metric_types & measured:
            read = ", ".join(sorted(short_type(name) for name in spec.metric_types))
            self._wrong(
                (*path, "policy"),
                f"{page.policy} cannot page: no series is of a metric it reads.",
                f"It reads {read}.",
            )
        if not spec.enabled:
            self._wrong((*path, "policy"), f"{page.policy} is disabled.", "It never pages.")
        self._window(page.when, path, end=end)
        if page.severity and Severity(page.severity.upper()) is not spec.severity:
            self._wrong(
                (*path, "severity"),
                f"The severity of {page.policy} is {spec.severity.value.lower()}, never "
                f"{page.severity}.",
            )
        names = [condition.display_name for condition in spec.conditions]
        if page.condition and page.condition not in names:
            self._wrong(
                (*path, "condition"),
                f"{page.policy} has no condition {page.condition!r}.",
                did_you_mean(page.condition, names, otherwise=f"It has: {'; '.join(names)}."),
            )
        for channel in page.notifies:
            if channel not in staged.channels:
                self._wrong(
                    (*path, "notifies"),
                    f"{page.policy} does not notify {channel!r}.",
                    did_you_mean(
                        channel,
                        staged.channels,
                        otherwise=f"It notifies {', '.join(staged.channels) or 'nobody'}.",
                    ),
                )
        self._labels_of_page(page, spec, (*path, "series"))
        if page.resolves is not None and not page.resolves.never:
            self._resolution(page, spec, (*path, "resolves"), end=end)
        stored = {self._stored(label, spec): value for label, value in page.series.items()}
        return replace(page, series=stored)

    def _window(self, window: Window, path: Place, *, end: timedelta) -> None:
        written = "between" if window.earliest != window.latest else "at"
        place = (*path, "by" if not window.earliest else written)
        if window.latest is None:
            return
        if window.latest < window.earliest:
            self._wrong(place, "The window ends before it begins.", "Swap the times.")
        elif window.latest > end:
            self._wrong(
                place,
                f"{print_span(window.latest)} is never reached: the scenario ends after "
                f"{print_span(end)}.",
                "Let the series, or `lasts`, go on for longer.",
            )
        elif -(-window.earliest // MINUTE) * MINUTE > window.latest or window.latest < MINUTE:
            self._wrong(
                place,
                f"No evaluation is {window}: they are every minute, the first at 1m.",
                "Name a whole minute.",
            )

    def _resolution(
        self, page: Page, spec: AlertPolicySpec, path: Place, *, end: timedelta
    ) -> None:
        resolves = page.resolves
        assert resolves is not None
        self._window(resolves.when, path, end=end)
        if resolves.when.latest is not None and resolves.when.latest <= page.when.earliest:
            self._wrong(path, "It would have to resolve before it pages.", "Let it resolve later.")
        reasons = closing_reasons(spec, snoozed=bool(self._scenario.snoozes))
        if resolves.because is not None and spec.evaluated and resolves.because not in reasons:
            self._wrong(
                (*path, "because"),
                f"{page.policy} never closes because of {resolves.because.value!r} here.",
                f"It closes because of {' or '.join(sorted(reasons))}.",
            )

    def _labels_of_page(self, page: Page, spec: AlertPolicySpec, path: Place) -> None:
        """A label that aggregation drops is on no incident."""
        if not page.series or not spec.evaluated:
            return
        kept: set[str] | None = set()
        for condition in spec.conditions:
            if page.condition in ("", condition.display_name) and isinstance(
                condition, (ThresholdCondition, AbsenceCondition)
            ):
                found = kept_labels(condition.aggregations)
                kept = None if kept is None or found is None else kept | found
        if kept is None:
            return
        for label in page.series:
            if self._stored(label, spec) not in kept:
                self._wrong(
                    (*path, label),
                    f"No incident of {page.policy} has a label {label!r}: its series are reduced.",
                    f"What is left is {', '.join(sorted(kept)) or 'no label'}.",
                )

    def _stored(self, label: str, spec: AlertPolicySpec) -> str:
        """A label as Cloud Monitoring stores it, whichever way it was written."""
        for name in spec.metric_types:
            key = label_key(self._stage.metrics.get(name), label)
            if key is not None:
                return key
        return label

    # Series

    def _series(self, script: Script, path: Place) -> Iterable[Series]:
        metric = self._metric(script, path)
        if metric is None:
            return
        descriptor = self._stage.descriptors.get(metric.type)
        if descriptor is None:
            self._wrong(
                (*path, "metric"),
                f"Kind and value type of {metric.type} are not known.",
                "Declare them in the catalog's metrics.",
            )
            return
        resource_type = self._resource_type(script, metric.type, path)
        labels = self._labels(script, metric, path)
        self._check_resource(script, resource_type, path)
        track = self._track(script, metric, descriptor, path)
        if track is None or labels is None:
            return
        for chosen in combinations(labels):
            for resource in combinations(script.resource):
                yield track(
                    SeriesKey.of(
                        metric_type=metric.type,
                        metric_labels=chosen,
                        resource_type=resource_type,
                        resource_labels={"project_id": PROJECT, **resource},
                    )
                )

    def _metric(self, script: Script, path: Place) -> MetricRecord | None:
        known = self._stage.metrics
        if script.metric in known:
            return known[script.metric]
        found = [name for name in known if short_type(name) == script.metric]
        if len(found) == 1:
            return known[found[0]]
        if found:
            self._wrong(
                (*path, "metric"),
                f"{script.metric!r} is {' or '.join(sorted(found))}.",
                "Write the full type.",
            )
            return None
        names = [*known, *map(short_type, known)]
        self._wrong(
            (*path, "metric"),
            f"No metric is called {script.metric!r}.",
            did_you_mean(
                script.metric,
                names,
                otherwise="The catalog's metrics, and those its policies read, are known.",
            ),
        )
        return None

    def _labels(
        self, script: Script, metric: MetricRecord, path: Place
    ) -> dict[str, str | tuple[str, ...]] | None:
        found: dict[str, str | tuple[str, ...]] = {}
        for label, value in script.labels.items():
            key = label_key(metric, label)
            if key is None:
                known = [*(metric.labels or ()), *metric.exported_keys]
                own = ", ".join(metric.labels or ()) or "no labels of its own"
                self._wrong(
                    (*path, "labels", label),
                    f"{short_type(metric.type)} has no label {label!r}.",
                    did_you_mean(label, known, otherwise=f"It has {own}."),
                )
                return None
            found[key] = value
        return found

    def _resource_type(self, script: Script, metric_type: str, path: Place) -> str:
        from speakfit.emulator.resources import POLICY_RESOURCES

        if script.resource_type:
            if script.resource_type not in POLICY_RESOURCES:
                self._wrong(
                    (*path, "resource_type"),
                    f"No monitored resource type is called {script.resource_type!r}.",
                    did_you_mean(
                        script.resource_type,
                        POLICY_RESOURCES,
                        otherwise="cloud.google.com/monitoring/api/resources lists them.",
                    ),
                )
            return script.resource_type
        read = {
            name
            for staged in self._stage.policies.values()
            for parsed in filters_of(staged.spec)
            if metric_type in (parsed.metric_types or ())
            for name in parsed.resource_types or ()
        }
        if len(read) == 1:
            return read.pop()
        if not read:
            return "global"
        self._wrong(
            path,
            f"Policies read {short_type(metric_type)} of {' and '.join(sorted(read))}.",
            "Say which with resource_type.",
        )
        return ""

    def _check_resource(self, script: Script, resource_type: str, path: Place) -> None:
        from speakfit.emulator.resources import RESOURCE_TYPES

        known = RESOURCE_TYPES.get(resource_type)
        if known is None:
            return
        for label in script.resource:
            if label not in (*known.labels, "project_id"):
                self._wrong(
                    (*path, "resource", label),
                    f"{resource_type} has no label {label!r}.",
                    did_you_mean(
                        label,
                        known.labels,
                        otherwise=f"It has {', '.join((*known.labels, 'project_id'))}.",
                    ),
                )

    def _track(
        self, script: Script, metric: MetricRecord, descriptor: Descriptor, path: Place
    ) -> Callable[[SeriesKey], Series] | None:
        """The points of a script, made into a series for every key."""
        text = self._notation(script, descriptor, path)
        if text is None:
            return None
        key, words = text
        step = script.step or self._scenario.step
        place = (*path, key)
        if step < timedelta(seconds=1) or step % timedelta(seconds=1):
            self._wrong((*path, "step"), f"The step is {step}.", "Use whole seconds.")
            return None
        try:
            stretches = parse_series(words)
            points = list(unroll(stretches, step))
        except NotationError as error:
            self._wrong(place, error.what, error.todo, token=error.token)
            return None
        bounds = script.buckets or metric.buckets
        track = Track(self._start_ns, to_ns(step), descriptor, running=key == "values")
        noisy = Noisy(script)
        for stretch in stretches:
            refusal = misfit(stretch.point, descriptor, script, rise=stretch.rise)
            if refusal is not None:
                self._wrong(place, *refusal, token=stretch.token)
                return None
        if descriptor.value_type is ValueType.DISTRIBUTION and not bounds:
            self._wrong(
                place,
                f"The buckets of {short_type(metric.type)} are not known.",
                "Give them: buckets: [0.1, 1, 10].",
            )
            return None
        if any(low >= high for low, high in pairwise(bounds)):
            self._wrong((*path, "buckets"), "The bounds do not rise.", "Sort them; name each once.")
            return None
        for point in points:
            track.add(noisy(point, descriptor))
        self._longest = max(self._longest, step * track.steps)
        return lambda series_key: track.series(series_key, bounds)

    def _notation(
        self, script: Script, descriptor: Descriptor, path: Place
    ) -> tuple[str, str] | None:
        """Which of values and gains is given, and its text."""
        if bool(script.values) == bool(script.gains):
            self._wrong(
                path,
                "A series has values or gains, one of them.",
                "Values are what is written; gains are what a counter adds between two exports.",
            )
            return None
        counts = descriptor.kind is MetricKind.CUMULATIVE
        if script.gains and descriptor.kind is MetricKind.GAUGE:
            self._wrong((*path, "gains"), "A gauge has no gain.", "Write values.")
            return None
        if script.values and counts and descriptor.value_type is ValueType.DISTRIBUTION:
            self._wrong(
                (*path, "values"),
                "A running distribution is not written as values.",
                "Write gains: what is recorded between two exports.",
            )
            return None
        return ("values", script.values) if script.values else ("gains", script.gains)


def short_type(metric_type: str) -> str:
    """A metric's type without the service that keeps it: its OpenTelemetry name."""
    return metric_type.partition("/")[2] or metric_type


def label_key(metric: MetricRecord | None, label: str) -> str | None:
    """The key a label is stored under, given that or its own name; None when there is none."""
    if metric is None or metric.labels is None:
        return label
    if label in metric.labels:
        return metric.label_key(label)
    return label if label in metric.exported_keys else None


def filters_of(spec: AlertPolicySpec) -> Iterable[Filter]:
    """Every filter of the conditions that are evaluated."""
    for condition in spec.conditions:
        if isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            yield condition.filter
        if isinstance(condition, ThresholdCondition) and condition.denominator_filter:
            yield condition.denominator_filter


def kept_labels(aggregations: Sequence[Aggregation]) -> set[str] | None:
    """Labels that are left after all steps; None when nothing is reduced, so all are."""
    kept: set[str] | None = None
    for step in aggregations:
        if step.reducer is not Reducer.REDUCE_NONE:
            grouped = {path[2] for path in step.group_by if len(path) == 3}
            if "*" in grouped:
                return None
            kept = grouped if kept is None else kept & grouped
    return kept


def closing_reasons(spec: AlertPolicySpec, *, snoozed: bool = False) -> set[CloseReason]:
    """Why incidents of a policy can close while nobody edits it."""
    found = {CloseReason.RECOVERED}
    if snoozed:
        found.add(CloseReason.SNOOZED)
    if len(spec.conditions) > 1:
        found.add(CloseReason.COMBINER)
    for condition in spec.conditions:
        if isinstance(condition, ThresholdCondition) and condition.missing is MissingData.INACTIVE:
            found.add(CloseReason.MISSING_DATA)
        else:
            found.add(CloseReason.AUTO_CLOSED)
    return found
