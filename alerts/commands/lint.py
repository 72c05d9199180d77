"""`lint`: what is wrong with policies before anybody relies on them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_FINE,
    EXIT_GATE,
    CatalogOption,
    console,
    count,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.lint import Report
    from alerts.rule import Rule

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def lint(
    catalog: CatalogOption = DEFAULT_CATALOG,
    only: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Ask only this rule; may be repeated."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="RULE", help="Say what a rule is about.")
    ] = None,
    list_rules: Annotated[
        bool, typer.Option("--list-rules", help="List the rules, each in a line.")
    ] = False,
) -> None:
    """Check policies for habits that hurt.

    Exit code 3 when there is an error.
    """
    from alerts.catalog import load_catalog
    from alerts.checks import all_rules, find_rule
    from alerts.lint import catalog_candidates
    from alerts.lint import lint as run
    from alerts.rule import Level, Surroundings
    from speakfit.settings import read_settings

    if explain is not None:
        _tell_rule(console(), find_rule(explain, where="--explain"))
        return
    if list_rules:
        _tell_rules(console(), all_rules())
        return
    rules = [find_rule(rule, where="--rule") for rule in only] if only else all_rules()
    loaded = load_catalog(catalog)
    base = read_settings().runbook_base_url
    candidates = catalog_candidates(loaded, catalog, runbook_base_url=base)
    around = Surroundings(candidates=candidates, runbook_base_url=base)
    report = run(candidates, rules, around)
    out = console()
    tell(out, f"Lint of catalog {loaded.name} ({catalog})")
    _tell_report(out, report)
    raise typer.Exit(EXIT_GATE if report.fails(Level.ERROR) else EXIT_FINE)


def _tell_rule(out: Console, rule: Rule) -> None:
    tell(out, f"{rule.id} ({rule.level})", (rule.id, "bold"), (rule.level, _COLOURS[rule.level]))
    for name, text in (("finds", rule.finds), ("why", rule.why), ("to do", rule.remedy)):
        tell(out, f"  {name:<5}  {text}", (name, "dim"))


def _tell_rules(out: Console, rules: tuple[Rule, ...]) -> None:
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        tell(
            out,
            f"{rule.level:<7}  {rule.id:<{width}}  {rule.finds}",
            (rule.level, _COLOURS[rule.level]),
            (rule.id, "bold"),
        )


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

    asked = f"{count(report.candidates, 'policy')}, {count(report.rules, 'rule')}"
    if not report.findings:
        return f"No findings: {asked}."
    levels = [count(report.count(level), level.value) for level in Level if report.count(level)]
    return f"{count(len(report.findings), 'finding')} ({', '.join(levels)}): {asked}."
