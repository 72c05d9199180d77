"""All scenarios of a folder, read, set up and chosen from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter

from alerts.form import Problem
from alerts.scenario import Scenario, read_scenarios, scenario_paths
from alerts.stage import Play, Stage
from alerts.trial import Trial, run
from speakfit.errors import ScenarioError


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedTrial:
    """A trial and how long it took."""

    trial: Trial
    seconds: float


def read_suite(paths: Iterable[Path], stage: Stage) -> list[Play]:
    """Every scenario of some files, ready to run; one ScenarioError tells all problems of all."""
    plays: list[Play] = []
    problems: list[Problem] = []
    for path in paths:
        found = read_scenarios(path)
        for number, scenario in enumerate(found.scenarios):
            play = stage.set_up(scenario, found.form, ("scenarios", number))
            if play is not None:
                plays.append(play)
        problems += found.form.problems
    if problems:
        files = len({problem.file for problem in problems})
        raise ScenarioError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in {files} scenario "
            f"file{'s' * (files > 1)}; nothing was run.\n"
            + "\n".join(str(problem) for problem in sorted(problems))
        )
    return plays


def read_folder(
    folder: Path, stage: Stage, *, only: Collection[str] = (), policies: Collection[str] = ()
) -> list[Play]:
    """The scenarios of a folder; `only` and `policies` choose, a ScenarioError if none is left."""
    plays = [
        play
        for play in read_suite(scenario_paths(folder), stage)
        if chosen(play.scenario, only) and (not policies or _about(play, policies, stage))
    ]
    if not plays:
        raise ScenarioError(
            "No scenario is chosen.",
            where=f"{folder}, {', '.join([*only, *policies])}",
            todo="`python -m alerts test` lists them all. --only takes patterns such as '*warns*'; "
            "--policy takes those that write what the policy reads.",
        )
    return plays


def chosen(scenario: Scenario, patterns: Collection[str]) -> bool:
    """Whether any of the patterns is that of a scenario's name, its subject, or both."""
    texts = (scenario.name, scenario.subject, str(scenario))
    return not patterns or any(
        fnmatchcase(text.lower(), pattern.lower()) for text in texts for pattern in patterns
    )


def _about(play: Play, policies: Collection[str], stage: Stage) -> bool:
    """Whether a scenario names one of the policies, or writes what it reads."""
    read = {
        name
        for policy in policies
        if policy in stage.policies
        for name in stage.policies[policy].spec.metric_types
    }
    written = {one.key.metric_type for one in play.series}
    return bool(play.named & set(policies) or written & read)


def run_suite(
    plays: Iterable[Play], stage: Stage, done: Callable[[Trial], None] = lambda _: None
) -> list[TimedTrial]:
    """Run them one after the other; `done` hears of each."""
    found = []
    for play in plays:
        began = perf_counter()
        trial = run(play, stage)
        found.append(TimedTrial(trial=trial, seconds=perf_counter() - began))
        done(trial)
    return found
