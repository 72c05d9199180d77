"""Lint: every rule looks at every policy, and what they find becomes one report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from alerts.candidate import Candidate
from alerts.checks.suppression_expired import RULE as EXPIRED
from alerts.checks.suppression_unused import RULE as UNUSED
from alerts.rule import Finding, Level, Rule, Surroundings
from alerts.suppression import Suppression


@dataclass(frozen=True, kw_only=True)
class Suppressed:
    """A finding that somebody answers for."""

    finding: Finding
    by: Suppression


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a lint found."""

    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...] = ()
    candidates: int
    """Policies that were checked."""
    rules: tuple[Rule, ...]
    """Rules that were asked."""

    def count(self, level: Level) -> int:
        """Findings of one level."""
        return sum(1 for finding in self.findings if finding.level is level)

    def fails(self, least: Level) -> bool:
        """Whether anything is at least this bad."""
        return any(finding.level.rank <= least.rank for finding in self.findings)


def lint(
    candidates: Sequence[Candidate],
    rules: Sequence[Rule],
    around: Surroundings,
    *,
    findings: Sequence[Finding] = (),
    suppressions: Sequence[Suppression] = (),
    today: date,
    complete: bool = True,
) -> Report:
    """Ask every rule about every policy; findings in the order of the policies.

    `findings` are those made before, about files, and come first where their rules are asked.
    A suppression counts until the end of its day, `today` included. Unless what is checked is
    `complete`, one whose policies are not among them is not called unused.
    """
    asked = {rule.id for rule in rules}
    found = [finding for finding in findings if finding.rule in asked]
    found += [
        finding
        for candidate in candidates
        for finding in sorted(_findings(candidate, rules, around), key=_order)
    ]
    valid = [one for one in suppressions if not one.expired(today)]
    kept: list[Finding] = []
    suppressed: list[Suppressed] = []
    for finding in found:
        by = next((one for one in valid if one.matches(finding)), None)
        if by is None:
            kept.append(finding)
        else:
            suppressed.append(Suppressed(finding=finding, by=by))
    used = {id(one.by) for one in suppressed}
    for one in suppressions:
        if one.expired(today):
            if EXPIRED.id in asked:
                kept.append(_expired(one))
        elif (
            UNUSED.id in asked
            and one.rule in asked
            and id(one) not in used
            and (complete or any(one.about(c.id, c.origin.file) for c in candidates))
        ):
            kept.append(_unused(one, candidates))
    return Report(
        findings=tuple(kept),
        suppressed=tuple(suppressed),
        candidates=len(candidates),
        rules=tuple(rules),
    )


def report_json(report: Report) -> dict[str, Any]:
    """The report for machines."""
    return {
        "findings": [_finding_json(finding) for finding in report.findings],
        "suppressed": [
            {
                **_finding_json(one.finding),
                "reason": one.by.reason,
                "owner": one.by.owner,
                "expires": one.by.expires.isoformat(),
            }
            for one in report.suppressed
        ],
        "counts": {level.value: report.count(level) for level in Level},
        "policies": report.candidates,
        "rules": [rule.id for rule in report.rules],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    at = finding.position
    return {
        "rule": finding.rule,
        "level": finding.level.value,
        "subject": finding.subject,
        "file": finding.file,
        "line": at.line if at else None,
        "column": at.column if at else None,
        "field": finding.field_text,
        "message": finding.text,
        "to_do": finding.remedy,
    }


def _expired(one: Suppression) -> Finding:
    return _of_suppression(
        one,
        EXPIRED,
        f"{one.rule} of {one.policy} was to be put right by {one.owner} until {one.expires} "
        f"(reason given: {one.reason.rstrip('.')}).",
    )


def _unused(one: Suppression, candidates: Sequence[Candidate]) -> Finding:
    known = any(one.about(candidate.id, candidate.origin.file) for candidate in candidates)
    why = f"{one.rule} finds nothing there" if known else "there is no such policy"
    return _of_suppression(one, UNUSED, f"{one.rule} of {one.policy} suppresses nothing: {why}.")


def _of_suppression(one: Suppression, rule: Rule, text: str) -> Finding:
    return Finding(
        rule=rule.id,
        level=rule.level,
        subject=one.file,
        file=one.file,
        position=one.position,
        text=text,
        remedy=rule.remedy,
    )


def _findings(
    candidate: Candidate, rules: Sequence[Rule], around: Surroundings
) -> Iterator[Finding]:
    for rule in rules:
        for hit in rule.check(candidate, around) if rule.check else ():
            yield Finding(
                rule=rule.id,
                level=hit.level or rule.level,
                subject=candidate.id,
                file=candidate.origin.file,
                position=candidate.origin.position(hit.path),
                text=hit.text,
                remedy=rule.remedy,
                path=hit.path,
            )


def _order(finding: Finding) -> tuple[int, int, int, str]:
    at = finding.position
    return (finding.level.rank, at.line if at else 0, at.column if at else 0, finding.rule)
