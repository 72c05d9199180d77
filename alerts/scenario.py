"""Scenarios: scripted time series, and what the policies of a catalog must make of them.

Written in YAML, one file a subject, or made in Python from the same values; `alerts.stage` checks
them against a catalog and `alerts.trial` runs them. All times are from the scenario's start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alerts.document import Path as Place
from alerts.form import Form
from alerts.notation import parse_span, print_span
from alerts.schema import SCENARIOS
from speakfit.engine.incidents import CloseReason
from speakfit.errors import ScenarioError

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
"""How often our processes export."""

LabelChoices = Mapping[str, str | tuple[str, ...]]
"""Labels by name; several values make one series for each of them."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """When something must happen, both ends included; `latest` None means before the end."""

    earliest: timedelta = timedelta(0)
    latest: timedelta | None = None

    def holds(self, at: timedelta) -> bool:
        """Whether a time lies in it."""
        return self.earliest <= at and (self.latest is None or at <= self.latest)

    def __str__(self) -> str:
        if self.latest is None:
            return "before the end"
        if self.earliest == self.latest:
            return f"at {print_span(self.latest)}"
        if not self.earliest:
            return f"by {print_span(self.latest)}"
        return f"between {print_span(self.earliest)} and {print_span(self.latest)}"


def at(time: str) -> Window:
    """Exactly then: `at("11m")`."""
    return between(time, time)


def by(time: str) -> Window:
    """Then or earlier: `by("11m")`."""
    return Window(latest=parse_span(time))


def between(earliest: str, latest: str) -> Window:
    """From one time to another: `between("8m", "11m")`."""
    return Window(earliest=parse_span(earliest), latest=parse_span(latest))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Normal noise on a series, always the same for the same seed."""

    deviation: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Script:
    """One scripted series, or one for each choice of labels.

    Exactly one of `values` (what each export writes) and `gains` (what is added between two) is
    given, in the notation of alerts.notation.
    """

    metric: str
    values: str = ""
    gains: str = ""
    labels: LabelChoices = field(default_factory=dict)
    resource_type: str = ""
    resource: LabelChoices = field(default_factory=dict)
    noise: Noise | None = None
    step: timedelta | None = None
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """When and why an incident must close."""

    when: Window = Window()
    because: CloseReason | None = None
    never: bool = False
    """It must still be open at the end; nothing else is given then."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page that must come: an incident of a policy, matched by what is given and no more."""

    policy: str
    when: Window = Window()
    severity: str = ""
    condition: str = ""
    series: Mapping[str, str] = field(default_factory=dict)
    incidents: int = 1
    """How many series of each condition open in the same evaluation."""
    says: tuple[str, ...] = ()
    notifies: tuple[str, ...] = ()
    resolves: Resolution | None = None


@dataclass(frozen=True, kw_only=True)
class Snoozed:
    """A time in which policies are snoozed; the end is not part of it."""

    policies: tuple[str, ...]
    begins: timedelta
    ends: timedelta
    filter: str = ""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One story: what is written, and what must and must not page."""

    name: str
    series: tuple[Script, ...]
    pages: tuple[Page, ...] = ()
    quiet: tuple[str, ...] = ()
    may_page: tuple[str, ...] = ()
    snoozes: tuple[Snoozed, ...] = ()
    start: datetime = START
    step: timedelta = STEP
    lasts: timedelta | None = None
    file: str = ""
    line: int = 0

    @property
    def subject(self) -> str:
        """The name of its file without folder and ending."""
        return Path(self.file).stem

    def __str__(self) -> str:
        return f"{self.subject}: {self.name}" if self.file else self.name


@dataclass(frozen=True, kw_only=True, eq=False)
class ScenarioFile:
    """The scenarios of one file, with the form that knows where everything stands."""

    form: Form
    scenarios: tuple[Scenario, ...]


def scenario_paths(folder: Path) -> list[Path]:
    """The scenario files of a folder and those below it, sorted; a ScenarioError if none."""
    if not folder.is_dir():
        raise ScenarioError(
            "The folder of the scenarios is not there.",
            where=str(folder),
            todo="Make it, or name another with --scenarios.",
        )
    found = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    if not found:
        raise ScenarioError(
            "No scenario is there.",
            where=str(folder),
            todo="Write one to SUBJECT.yaml; docs/testing-alerts.md shows how.",
        )
    return found


def read_scenarios(path: Path) -> ScenarioFile:
    """The scenarios of a file; its form's problems say what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"The file cannot be read: {error}", where=str(path), todo="Save it as UTF-8 text."
        ) from error
    return parse_scenarios(str(path), text)


def parse_scenarios(file: str, text: str) -> ScenarioFile:
    """The scenarios of a text that is called `file` in messages."""
    form = Form(file, text)
    if form.parsed:
        form.check(SCENARIOS)
    if form.problems:
        return ScenarioFile(form=form, scenarios=())
    reader = _Reader(form)
    scenarios = tuple(
        reader.scenario(body, ("scenarios", number))
        for number, body in enumerate(form.value["scenarios"])
    )
    seen: dict[str, int] = {}
    for number, scenario in enumerate(scenarios):
        if scenario.name in seen:
            form.problem(
                ("scenarios", number, "name"),
                f"Two scenarios are called {scenario.name!r}; the first is in line "
                f"{seen[scenario.name]}.",
                "Say what makes this one different.",
            )
        seen.setdefault(scenario.name, scenario.line)
    return ScenarioFile(form=form, scenarios=scenarios)


class _Reader:
    """Makes scenarios of a form that passed its schema."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._defaults: Mapping[str, Any] = form.value.get("defaults", {})

    def scenario(self, body: Mapping[str, Any], path: Place) -> Scenario:
        shared = {**self._defaults, **body}
        begin = shared.get("start")
        return Scenario(
            name=" ".join(body["name"].split()),
            series=tuple(
                self._script(one, (*path, "series", n)) for n, one in enumerate(body["series"])
            ),
            pages=tuple(
                self._page(one, (*path, "pages", n)) for n, one in enumerate(body.get("pages", ()))
            ),
            quiet=tuple(body.get("quiet", ())),
            may_page=tuple(body.get("may_page", ())),
            snoozes=tuple(
                Snoozed(
                    policies=tuple(one["policies"]),
                    begins=parse_span(one["from"]),
                    ends=parse_span(one["until"]),
                    filter=one.get("filter", ""),
                )
                for one in body.get("snoozes", ())
            ),
            start=START if begin is None else self._start(begin, path),
            step=_span(shared, "step") or STEP,
            lasts=_span(body, "lasts"),
            file=self._form.file,
            line=self._form.line(path),
        )

    def _start(self, text: str, path: Place) -> datetime:
        try:
            return datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            self._form.problem((*path, "start"), f"There is no such time: {text}.")
            return START

    def _script(self, body: Mapping[str, Any], path: Place) -> Script:
        given = self._defaults.get("resource", {})
        noise = body.get("noise")
        return Script(
            metric=body["metric"],
            values=self._text(body, path, "values"),
            gains=self._text(body, path, "gains"),
            labels=self._labels(body, path, "labels"),
            resource_type=body.get("resource_type", self._defaults.get("resource_type", "")),
            resource={
                **{key: self._form.raw(("defaults", "resource", key)) for key in given},
                **self._labels(body, path, "resource"),
            },
            noise=None if noise is None else Noise(deviation=noise["sd"], seed=noise["seed"]),
            step=_span(body, "step"),
            buckets=tuple(float(bound) for bound in body.get("buckets", ())),
        )

    def _page(self, body: Mapping[str, Any], path: Place) -> Page:
        resolves = body.get("resolves")
        resolution = None
        if resolves == "never":
            resolution = Resolution(never=True)
        elif resolves is not None:
            because = resolves.get("because")
            resolution = Resolution(
                when=self._window(resolves, (*path, "resolves")),
                because=None if because is None else CloseReason(because),
            )
        series = self._labels(body, path, "series")
        return Page(
            policy=body["policy"],
            when=self._window(body, path),
            severity=body.get("severity", ""),
            condition=body.get("condition", ""),
            series={key: value for key, value in series.items() if isinstance(value, str)},
            incidents=body.get("incidents", 1),
            says=tuple(body.get("says", ())),
            notifies=tuple(body.get("notifies", ())),
            resolves=resolution,
        )

    def _window(self, body: Mapping[str, Any], path: Place) -> Window:
        given = [key for key in ("at", "by", "between") if key in body]
        if len(given) > 1:
            self._form.problem(
                (*path, given[1]),
                f"'{given[0]}' and '{given[1]}' exclude each other.",
                "Keep one of them.",
            )
        if "at" in body:
            return at(body["at"])
        if "by" in body:
            return by(body["by"])
        if "between" not in body:
            return Window()
        return between(*body["between"])

    def _text(self, body: Mapping[str, Any], path: Place, key: str) -> str:
        # As it was written: 1.0 and 0x10 mean more to us than to YAML.
        return self._form.raw((*path, key)) if key in body else ""

    def _labels(
        self, body: Mapping[str, Any], path: Place, key: str
    ) -> dict[str, str | tuple[str, ...]]:
        raw = self._form.raw
        return {
            name: tuple(raw((*path, key, name, n)) for n in range(len(value)))
            if isinstance(value, list)
            else raw((*path, key, name))
            for name, value in body.get(key, {}).items()
        }


def _span(body: Mapping[str, Any], key: str) -> timedelta | None:
    return parse_span(body[key]) if key in body else None


def combinations(labels: LabelChoices) -> Iterator[dict[str, str]]:
    """Every choice of one value for each label."""
    choices: list[dict[str, str]] = [{}]
    for key, values in labels.items():
        options = (values,) if isinstance(values, str) else values
        choices = [{**chosen, key: option} for chosen in choices for option in options]
    yield from choices
