"""Lint: every rule looks at every policy, and what they find becomes one report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alerts.candidate import Candidate
from alerts.declaration import Declarations
from alerts.encode import CHANNEL_PREFIX, known_metrics, policy_json
from alerts.metric_facts import facts_by_type
from alerts.policy import Catalog
from alerts.rule import Finding, Level, Rule, Surroundings


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a lint found."""

    findings: tuple[Finding, ...]
    candidates: int
    """Policies that were checked."""
    rules: int
    """Rules that were asked."""

    def count(self, level: Level) -> int:
        """Findings of one level."""
        return sum(1 for finding in self.findings if finding.level is level)

    def fails(self, least: Level) -> bool:
        """Whether anything is at least this bad."""
        return any(finding.level.rank <= least.rank for finding in self.findings)


def lint(candidates: Sequence[Candidate], rules: Sequence[Rule], around: Surroundings) -> Report:
    """Ask every rule about every policy; findings in the order of the policies and their lines."""
    found = [
        finding
        for candidate in candidates
        for finding in sorted(_findings(candidate, rules, around), key=_order)
    ]
    return Report(findings=tuple(found), candidates=len(candidates), rules=len(rules))


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


def catalog_candidates(
    catalog: Catalog, module_name: str, *, runbook_base_url: str
) -> tuple[Candidate, ...]:
    """The policies of a catalog as they would be applied, and where each is declared."""
    metrics = facts_by_type(known_metrics(catalog).values())
    channels = frozenset(CHANNEL_PREFIX + channel.id for channel in catalog.channels)
    declarations = Declarations(catalog, module_name)
    found = []
    for policy in catalog.policies:
        body = policy_json(policy, catalog, runbook_base_url=runbook_base_url)
        found.append(
            Candidate(
                id=policy.id,
                body=body,
                origin=declarations.origin(policy, body),
                metrics=metrics,
                policy=policy,
                channels=channels,
            )
        )
    return tuple(found)
