"""Where the policies to check come from: a catalog, or JSON and YAML that people keep by hand.

In files names may be written as in JSON or as in the proto (`displayName`, `display_name`); both
are what the API itself reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from alerts.candidate import Candidate, Origin
from alerts.checks.not_a_policy import RULE as NOT_A_POLICY
from alerts.checks.unreadable_file import RULE as UNREADABLE
from alerts.declaration import Declarations, shown
from alerts.document import Document, Path, Position, path_text
from alerts.encode import CHANNEL_PREFIX, known_metrics, policy_json
from alerts.google_metrics import GOOGLE_METRICS
from alerts.metric_facts import MetricFacts, facts_of
from alerts.policy import Catalog
from alerts.rawfile import bodies_of, read_file
from alerts.rule import Finding, Rule
from speakfit.errors import CatalogError, DocumentError

_FREE = {"userLabels", "user_labels", "labels", "labelExtractors", "label_extractors"}
"""Below these the names are the writer's own."""
_UNDERSCORE = re.compile(r"_([a-z])")


def catalog_candidates(
    catalog: Catalog, module_name: str, *, runbook_base_url: str
) -> tuple[Candidate, ...]:
    """The policies of a catalog as they would be applied, and where each is declared."""
    metrics: dict[str, MetricFacts] = {**GOOGLE_METRICS}
    for name, record in known_metrics(catalog).items():
        metrics[name] = facts_of(record, GOOGLE_METRICS.get(name))
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


@dataclass(frozen=True, kw_only=True)
class FromFiles:
    """What some files hold: policies, and what is wrong with the files themselves."""

    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]


def file_candidates(files: Sequence[FilePath]) -> FromFiles:
    """The policies of some files; what cannot be read becomes a finding."""
    candidates: list[Candidate] = []
    findings: list[Finding] = []
    for file in files:
        name = shown(str(file))
        try:
            documents = read_file(file, shown=name)
        except CatalogError as error:
            at = (
                Position(line=error.line, column=error.column)
                if isinstance(error, DocumentError)
                else None
            )
            findings.append(_of_file(UNREADABLE, name, at, error.what))
            continue
        if not documents:
            findings.append(_of_file(NOT_A_POLICY, name, None, "There is nothing in it."))
        for document in documents:
            for path, body in bodies_of(document):
                if isinstance(body, dict) and isinstance(body.get("conditions"), list):
                    candidates.append(_candidate(document, path, body, name))
                    continue
                what = f"{path_text(path)}: it" if path else "It"
                text = f"{what} has no list of conditions, so it is not checked."
                findings.append(_of_file(NOT_A_POLICY, name, document.positions.get(path), text))
    return FromFiles(candidates=tuple(candidates), findings=tuple(findings))


def _of_file(rule: Rule, file: str, at: Position | None, text: str) -> Finding:
    return Finding(
        rule=rule.id,
        level=rule.level,
        subject=file,
        file=file,
        position=at,
        text=text,
        remedy=rule.remedy,
    )


def _candidate(document: Document, path: Path, raw: dict[str, Any], file: str) -> Candidate:
    body = _camel(raw)
    positions = {
        _camel_path(at[len(path) :]): position
        for at, position in document.positions.items()
        if at[: len(path)] == path
    }
    name = body.get("displayName")
    return Candidate(
        id=" ".join(name.split()) if isinstance(name, str) and name.strip() else file,
        body=body,
        origin=Origin(file=file, positions=positions),
        metrics=GOOGLE_METRICS,
    )


def _camel(value: Any) -> Any:
    """The value with every field named as in JSON."""
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _camel_name(str(name)): one if name in _FREE else _camel(one) for name, one in value.items()
    }


def _camel_path(path: Path) -> Path:
    found: list[str | int] = []
    for index, part in enumerate(path):
        found.append(_camel_name(part) if isinstance(part, str) else part)
        if part in _FREE:
            return (*found, *path[index + 1 :])
    return tuple(found)


def _camel_name(name: str) -> str:
    return _UNDERSCORE.sub(lambda found: found[1].upper(), name)
