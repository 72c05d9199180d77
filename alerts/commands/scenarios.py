"""`test` and `schema`: scenarios run against the policies, and the form of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    DEFAULT_SCENARIOS,
    EXIT_FINE,
    EXIT_GATE,
    CatalogOption,
    JsonOption,
    PoliciesOption,
    ScenariosOption,
    console,
    count,
    print_json,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.coverage import Coverage
    from alerts.mutation import PolicyScore
    from alerts.probe import Probes
    from alerts.stage import Play, Stage
    from alerts.suite import TimedTrial
    from alerts.trial import Trial

_MOST_MISSING = 12
"""Lines of what is not covered; --json has them all."""


def rehearse(
    scenarios: ScenariosOption = DEFAULT_SCENARIOS,
    mutate: Annotated[
        bool,
        typer.Option("--mutate", help="Change the policies; which changes does no scenario see?"),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Only scenarios with such a name or file."),
    ] = None,
    policy: PoliciesOption = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under",
            metavar="PERCENT",
            min=0,
            max=100,
            help="Exit code 3 when the coverage, or the score of --mutate, is lower.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report too.")
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Test the policies with scripted time series.

    Runs every scenario through the engine, evaluating each minute: what must page, must stay
    quiet and must resolve. With --mutate it changes comparators, thresholds, durations, aligners,
    reducers, groupings, filters and the like, one at a time, and tells which changes no scenario
    notices. Exit code 3 when a scenario fails or --fail-under is missed.
    """
    from alerts.catalog import find_policy, load_catalog
    from alerts.stage import Stage
    from alerts.suite import read_folder

    loaded = load_catalog(catalog)
    policies = [find_policy(loaded, one).id for one in policy or ()]
    stage = Stage.of(loaded)
    plays = read_folder(scenarios, stage, only=only or (), policies=policies)
    asked = _Asked(
        title=f"Scenarios in {scenarios}, catalog {loaded.name} ({catalog})",
        about=policies or _named_by(plays, stage, only=bool(only)),
        fail_under=fail_under,
        junit=junit,
        as_json=as_json,
    )
    passed = _mutate(plays, stage, asked) if mutate else _test(plays, stage, asked)
    raise typer.Exit(EXIT_FINE if passed else EXIT_GATE)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked of a run."""

    title: str
    about: list[str]
    fail_under: float | None
    junit: Path | None
    as_json: bool


def _test(plays: Sequence[Play], stage: Stage, asked: _Asked) -> bool:
    """Run the scenarios, tell how it went, and whether it went well."""
    from alerts.coverage import measure
    from alerts.probe import probe
    from alerts.suite import run_suite

    out = console()
    if not asked.as_json:
        tell(out, asked.title)
        tell(out, "")
    width = max(len(play.scenario.subject) for play in plays)

    def done(trial: Trial) -> None:
        if not asked.as_json:
            _tell_trial(out, trial, width)

    trials = run_suite(plays, stage, done)
    covered = measure(stage, (one.trial for one in trials), asked.about)
    probes = probe(stage, asked.about)
    failed = [one for one in trials if not one.trial.passed]
    missed = asked.fail_under is not None and covered.percent < asked.fail_under
    if asked.junit is not None:
        _write_junit(asked.junit, trials)
    if asked.as_json:
        print_json(_json(stage, trials, covered, asked.fail_under, probes))
    else:
        _tell_failures(out, [one.trial for one in failed])
        _tell_surprises(out, probes)
        _tell_missing(out, covered)
        _tell_outcome(out, len(trials), len(failed), covered, probes)
        if missed:
            line = f"Coverage is below {asked.fail_under:g} %."
            tell(out, line, (line, "red"))
    return not failed and not missed


def _mutate(plays: Sequence[Play], stage: Stage, asked: _Asked) -> bool:
    """Run mutants through scenarios that pass, tell who survived, and whether few enough did."""
    from alerts.mutation import hunt, score_percent
    from alerts.suite import run_suite

    out = console()
    trials = run_suite(plays, stage)
    failed = [one.trial for one in trials if not one.trial.passed]
    if failed:
        err = console(stderr=True)
        _tell_failures(err, failed)
        tell(err, "")
        line = f"{count(len(failed), 'scenario')} failed: mutants need scenarios that pass."
        tell(err, line, (line, "red"))
        return False
    if not asked.as_json:
        tell(out, asked.title)
        tell(out, "")
    scores: list[PolicyScore] = []
    width = max((len(policy) for policy in asked.about), default=0)
    for policy in asked.about:
        if policy in stage.policies:
            scores.append(hunt(stage.policies[policy], plays, stage))
            if not asked.as_json:
                _tell_score(out, scores[-1], width)
    percent = score_percent(scores)
    missed = asked.fail_under is not None and percent < asked.fail_under
    if asked.junit is not None:
        _write_mutants(asked.junit, scores)
    if asked.as_json:
        print_json(_scores_json(stage, scores, asked.fail_under))
    else:
        _tell_survivors(out, scores)
        if missed:
            line = f"The score is below {asked.fail_under:g} %."
            tell(out, line, (line, "red"))
    return not missed


def _named_by(plays: Sequence[Play], stage: Stage, *, only: bool) -> list[str]:
    """The policies whose coverage counts: all, or those that the chosen scenarios name."""
    everything = [*stage.policies, *stage.unread]
    named = frozenset[str]().union(*(play.named for play in plays))
    return [policy for policy in everything if policy in named or not only]


def schema(
    name: Annotated[
        str, typer.Argument(metavar="KIND", help="scenarios or suppressions.")
    ] = "scenarios",
    as_json: JsonOption = False,
) -> None:
    """Print the JSON Schema of a kind of file.

    For editors: it is the very schema that the files are checked against. JSON either way.
    """
    del as_json
    from alerts.nearest import did_you_mean
    from alerts.schema import SCHEMAS

    if name not in SCHEMAS:
        hint = did_you_mean(name, SCHEMAS, otherwise=f"There are: {', '.join(SCHEMAS)}.")
        raise typer.BadParameter(f"There is no schema {name!r}. {hint}")
    print_json(SCHEMAS[name]())


def _tell_trial(out: Console, trial: Trial, width: int) -> None:
    word, colour = ("pass", "green") if trial.passed else ("FAIL", "bold red")
    scenario = trial.scenario
    tell(out, f"  {word}  {scenario.subject:<{width}}  {scenario.name}", (word, colour))


_STATES = (("OPENS", "red"), ("breaks,", "yellow"), ("met, held back", "yellow"))


def _tell_failures(out: Console, trials: Sequence[Trial]) -> None:
    from alerts.drawing import explain

    for trial in trials:
        scenario = trial.scenario
        place = f"{scenario.file}:{scenario.line}"
        tell(out, "")
        tell(out, f"{place}  {scenario.name}", (place, "bold red"), (scenario.name, "bold"))
        for failure in trial.failures:
            tell(out, "")
            for line in explain(trial, failure):
                tell(out, f"  {line}".rstrip(), *_STATES)


def _tell_surprises(out: Console, probes: Probes) -> None:
    for title, those in (
        ("Surprises of generated cases, which count as no test", probes.surprises),
        ("No case could be generated", probes.skipped),
    ):
        if those:
            tell(out, "")
            tell(out, title, (title, "bold"))
        for one in those:
            case = f", {one.case}" if one.case else ""
            tell(out, f"  {one.policy}, {one.condition}{case}: {one.surprise}")


def _tell_missing(out: Console, covered: Coverage) -> None:
    from alerts.coverage import missing_lines

    lines = missing_lines(covered)
    if lines:
        tell(out, "")
        tell(out, "Not covered", ("Not covered", "bold"))
    for line in lines[:_MOST_MISSING]:
        tell(out, f"  {line}")
    if len(lines) > _MOST_MISSING:
        tell(out, f"  and {len(lines) - _MOST_MISSING} more; --json has them all")
    if covered.unevaluated:
        tell(out, "")
        tell(out, "Not evaluated here, or not in full", ("Not evaluated here", "bold"))
    for policy, reason in covered.unevaluated.items():
        tell(out, f"  {policy}: {reason}")


def _tell_outcome(out: Console, run: int, failed: int, covered: Coverage, probes: Probes) -> None:
    parts = ", ".join(
        f"{found} of {count(total, kind)}"
        for kind in ("policy", "condition", "transition")
        for found, total in [covered.of(count(2, kind).partition(" ")[2])]
    )
    words = "passed" if run == 1 else "all passed"
    if failed:
        words = f"{run - failed} passed, {failed} failed"
    tell(out, "")
    tell(
        out,
        f"{count(run, 'scenario')}: {words}. Coverage {_percent(covered.percent)}: {parts}.",
        (words, "red" if failed else "green"),
    )
    surprises = count(len(probes.surprises), "surprise") if probes.surprises else "no surprise"
    tell(out, f"{count(len(probes.findings), 'generated case')}: {surprises}.")


def _percent(share: float) -> str:
    """Never rounded up to what it is not."""
    return f"{int(share * 10) / 10:g} %"


def _json(
    stage: Stage,
    trials: Sequence[TimedTrial],
    covered: Coverage,
    fail_under: float | None,
    probes: Probes,
) -> dict[str, Any]:
    from alerts.drawing import explain
    from alerts.notation import print_span

    return {
        "catalog": stage.catalog,
        "policies": list(stage.policies),
        "scenarios": [
            {
                "file": trial.scenario.file,
                "line": trial.scenario.line,
                "subject": trial.scenario.subject,
                "name": trial.scenario.name,
                "passed": trial.passed,
                "failures": [
                    {
                        "policy": failure.policy,
                        "what": failure.what,
                        "moments": [print_span(moment) for moment in failure.moments],
                        "explanation": explain(trial, failure),
                    }
                    for failure in trial.failures
                ],
            }
            for trial in (one.trial for one in trials)
        ],
        "passed": sum(one.trial.passed for one in trials),
        "failed": sum(not one.trial.passed for one in trials),
        "coverage": {
            "percent": round(covered.percent, 1),
            "required": fail_under,
            **{
                kind: dict(zip(("covered", "total"), covered.of(kind), strict=True))
                for kind in ("policies", "conditions", "transitions")
            },
            "missing": [
                {
                    "policy": target.policy,
                    "condition": target.condition or None,
                    "transition": target.transition or None,
                }
                for target in covered.missing
            ],
            "not_evaluated": dict(covered.unevaluated),
        },
        "generated": {
            "cases": len(probes.findings),
            "surprises": [
                {
                    "policy": one.policy,
                    "condition": one.condition,
                    "case": one.case,
                    "surprise": one.surprise,
                }
                for one in probes.surprises
            ],
            "skipped": [
                {"policy": one.policy, "condition": one.condition, "reason": one.surprise}
                for one in probes.skipped
            ],
        },
    }


def _write_junit(path: Path, trials: Sequence[TimedTrial]) -> None:
    from alerts.drawing import explanation
    from alerts.junit import Case, write_junit

    write_junit(
        path,
        [
            Case(
                group=one.trial.scenario.subject,
                name=one.trial.scenario.name,
                file=one.trial.scenario.file,
                line=one.trial.scenario.line,
                seconds=one.seconds,
                failure=explanation(one.trial),
            )
            for one in trials
        ],
    )


def _tell_score(out: Console, score: PolicyScore, width: int) -> None:
    total = len(score.verdicts)
    colour = "green" if score.killed == total else "yellow"
    words = f"{score.killed} of {count(total, 'mutant')} killed"
    tell(out, f"  {score.policy:<{width}}  {words}", (words, colour))


def _tell_survivors(out: Console, scores: Sequence[PolicyScore]) -> None:
    from alerts.mutation import ADVICE, score_percent

    survivors = [mutant for score in scores for mutant in score.survivors]
    for part, advice in ADVICE.items():
        those = [mutant for mutant in survivors if mutant.part is part]
        if those:
            tell(out, "")
            title = f"Unnoticed changes of {part}"
            tell(out, f"{title}: {advice}", (title, "bold"))
        for mutant in those:
            where = f", {mutant.condition}" if mutant.condition else ""
            tell(out, f"  {mutant.policy}{where}: {mutant.before} -> {mutant.after}")
    total = sum(len(score.verdicts) for score in scores)
    words = f"{count(len(survivors), 'survivor')}" if survivors else "none survived"
    refused = sum(score.refused for score in scores)
    equivalent = sum(score.equivalent for score in scores)
    tell(out, "")
    tell(
        out,
        f"{count(total, 'mutant')}: {total - len(survivors)} killed, {words}. Score "
        f"{_percent(score_percent(scores))}. Left out: {refused} that Cloud Monitoring refuses, "
        f"{equivalent} that cannot differ.",
        (words, "yellow" if survivors else "green"),
    )


def _scores_json(
    stage: Stage, scores: Sequence[PolicyScore], fail_under: float | None
) -> dict[str, Any]:
    from alerts.mutation import score_percent

    return {
        "catalog": stage.catalog,
        "percent": round(score_percent(scores), 1),
        "required": fail_under,
        "policies": [
            {
                "policy": score.policy,
                "killed": score.killed,
                "survived": len(score.survivors),
                "refused": score.refused,
                "equivalent": score.equivalent,
                "mutants": [
                    {
                        "condition": one.mutant.condition or None,
                        "part": str(one.mutant.part),
                        "before": one.mutant.before,
                        "after": one.mutant.after,
                        "killed_by": one.killer or None,
                    }
                    for one in score.verdicts
                ],
            }
            for score in scores
        ],
    }


def _write_mutants(path: Path, scores: Sequence[PolicyScore]) -> None:
    from alerts.junit import Case, write_junit
    from alerts.mutation import ADVICE

    write_junit(
        path,
        [
            Case(
                group=score.policy,
                name=f"{one.mutant.condition or score.policy}: {one.mutant.change}",
                failure="" if one.killer else f"No scenario notices it; {ADVICE[one.mutant.part]}.",
            )
            for score in scores
            for one in score.verdicts
        ],
    )
