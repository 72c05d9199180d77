"""`lint`: what is wrong with policies before anybody relies on them."""

from __future__ import annotations

import itertools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_FINE,
    EXIT_GATE,
    CatalogOption,
    JsonOption,
    console,
    count,
    print_json,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.lint import Report
    from alerts.rule import Rule
    from alerts.suppression import Suppression

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


class FailOn(StrEnum):
    """alerts.rule.Level by name: the rules themselves must not be imported for `--help`."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Form(StrEnum):
    """What a report is printed as."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def lint(
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Further files after --files.", show_default=False
        ),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--files",
            metavar="DIR|FILE",
            help="Read policies from JSON and YAML files instead of a catalog; may be repeated.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Ask only this rule; may be repeated."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="RULE", help="Say what a rule is about.")
    ] = None,
    suppressions: Annotated[
        Path | None,
        typer.Option(
            "--suppressions",
            metavar="FILE",
            help="Findings that may stay for now.",
            show_default="alerts-suppressions.yaml if there is one",
        ),
    ] = None,
    runbooks: Annotated[
        Path | None,
        typer.Option(
            "--runbooks",
            metavar="DIR",
            help="Folder of the pages that links must lead to.",
            show_default="runbooks if there is one",
        ),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="How bad a finding must be for exit code 3.")
    ] = FailOn.ERROR,
    list_rules: Annotated[
        bool, typer.Option("--list-rules", help="List the rules, each in a line.")
    ] = False,
    form: Annotated[
        Form, typer.Option("--format", help="How to print; github means annotations.")
    ] = Form.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Check policies for habits that hurt.

    Exit code 3 when there is a finding as bad as --fail-on or worse.
    """
    from alerts.candidates import catalog_candidates, file_candidates
    from alerts.catalog import load_catalog
    from alerts.checks import all_rules, find_rule
    from alerts.lint import lint as run
    from alerts.rawfile import files_of
    from alerts.rule import Level, Surroundings
    from alerts.suppression import DEFAULT_FILE
    from speakfit.clock import RealClock, from_ns
    from speakfit.settings import read_settings

    if more and not files:
        raise typer.BadParameter(f"{more[0]} stands alone: write --files before it.")
    if as_json and form not in (Form.TEXT, Form.JSON):
        raise typer.BadParameter(f"--json and --format {form} exclude each other.")
    if explain is not None or list_rules:
        wanted = all_rules() if explain is None else (find_rule(explain, where="--explain"),)
        _print_rules(wanted, explained=explain is not None, as_json=as_json or form is Form.JSON)
        return
    rules = [find_rule(rule, where="--rule") for rule in only] if only else all_rules()
    if suppressions is None and Path(DEFAULT_FILE).exists():
        suppressions = Path(DEFAULT_FILE)
    allowed = _read_suppressions(suppressions) if suppressions else ()
    base = read_settings().runbook_base_url
    if files:
        names = files_of([*files, *(more or ())])
        if suppressions in names:
            names.remove(suppressions)
        read = file_candidates(names)
        candidates, found = read.candidates, read.findings
        title = f"Lint of {count(len(names), 'file')}"
    else:
        loaded = load_catalog(catalog)
        candidates, found = catalog_candidates(loaded, catalog, runbook_base_url=base), ()
        title = f"Lint of catalog {loaded.name} ({catalog})"
    report = run(
        candidates,
        rules,
        Surroundings(
            candidates=candidates, runbook_base_url=base, runbooks=_runbook_names(runbooks)
        ),
        findings=found,
        suppressions=allowed,
        today=from_ns(RealClock().now_ns()).date(),
        complete=not files,
    )
    _print_report(report, title, Form.JSON if as_json else form)
    raise typer.Exit(EXIT_GATE if report.fails(Level(fail_on)) else EXIT_FINE)


def _runbook_names(folder: Path | None) -> frozenset[str] | None:
    """Paths of all pages below the folder; None when there is none to look at."""
    from speakfit.errors import CatalogError

    path = folder or Path("runbooks")
    if path.is_dir():
        return frozenset(page.relative_to(path).as_posix() for page in path.rglob("*.md"))
    if folder is None:
        return None
    raise CatalogError(
        "There is no such folder.",
        where=f"--runbooks {folder}",
        todo="Name the folder that holds the runbooks, or leave the option out.",
    )


def _read_suppressions(file: Path) -> tuple[Suppression, ...]:
    from alerts.suppression import read_suppressions
    from speakfit.errors import CatalogError

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CatalogError(
            f"The suppressions cannot be read: {reason}.",
            where=str(file),
            todo="Name a YAML file; docs/lint.md shows one.",
        ) from error
    return read_suppressions(text, file=str(file))


def _print_rules(rules: tuple[Rule, ...], *, explained: bool, as_json: bool) -> None:
    if as_json:
        names = ("id", "level", "finds", "why", "remedy")
        print_json({"rules": [{name: getattr(rule, name) for name in names} for rule in rules]})
        return
    out = console()
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        if not explained:
            line = f"{rule.level:<7}  {rule.id:<{width}}  {rule.finds}"
            tell(out, line, (rule.level, _COLOURS[rule.level]), (rule.id, "bold"))
            continue
        line = f"{rule.id} ({rule.level})"
        tell(out, line, (rule.id, "bold"), (rule.level, _COLOURS[rule.level]))
        for name, text in (("finds", rule.finds), ("why", rule.why), ("to do", rule.remedy)):
            tell(out, f"  {name:<5}  {text}", (name, "dim"))


def _print_report(report: Report, title: str, form: Form) -> None:
    if form is Form.JSON:
        from alerts.lint import report_json

        print_json(report_json(report))
    elif form is Form.SARIF:
        from alerts.sarif import sarif

        print_json(sarif(report))
    elif form is Form.GITHUB:
        from alerts.annotation import workflow_commands

        for line in workflow_commands(report):
            print(line)
        print(_outcome(report))
    else:
        out = console()
        tell(out, title)
        _tell_report(out, report)


def _tell_report(out: Console, report: Report) -> None:
    told: set[str] = set()
    for subject, findings in itertools.groupby(report.findings, key=lambda one: one.subject):
        tell(out, "")
        tell(out, subject, (subject, "bold"))
        for one in findings:
            line = f"  {one.level:<7}  {one.rule}  {one.where}"
            tell(out, line, (one.level, _COLOURS[one.level]), (one.where, "dim"))
            tell(out, f"           {one.text}")
            # Said once: whoever has forty of them needs it no more at the second.
            if one.rule not in told:
                tell(out, f"           to do: {one.remedy}", ("to do:", "dim"))
                told.add(one.rule)
    if report.findings:
        tell(out, "")
    tell(out, _outcome(report))


def _outcome(report: Report) -> str:
    from alerts.rule import Level

    asked = f"{count(report.candidates, 'policy')}, {count(len(report.rules), 'rule')}"
    if report.suppressed:
        asked += f"; {len(report.suppressed)} suppressed"
    if not report.findings:
        return f"No findings: {asked}."
    levels = [count(report.count(level), level.value) for level in Level if report.count(level)]
    return f"{count(len(report.findings), 'finding')} ({', '.join(levels)}): {asked}."
