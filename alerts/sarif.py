"""A lint report as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from alerts.lint import Report, Suppressed
from alerts.rule import Finding, Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_FINGERPRINT = "alertsLint/v1"


def sarif(report: Report) -> dict[str, Any]:
    """One run; what is suppressed is in it, marked as such, so that a viewer can show it."""
    indexes = {rule.id: index for index, rule in enumerate(report.rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "python -m alerts lint",
                        "rules": [_rule(rule) for rule in report.rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [
                    *(_result(finding, indexes) for finding in report.findings),
                    *(_suppressed(one, indexes) for one in report.suppressed),
                ],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": f"{rule.finds[:1].upper()}{rule.finds[1:]}."},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": rule.level.value},
    }


def _result(finding: Finding, indexes: dict[str, int]) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file)}}
    if finding.position is not None:
        place["region"] = {
            "startLine": finding.position.line,
            "startColumn": finding.position.column,
        }
    return {
        "ruleId": finding.rule,
        "ruleIndex": indexes[finding.rule],
        "level": finding.level.value,
        "message": {"text": f"{finding.subject}: {finding.text}"},
        "locations": [
            {
                "physicalLocation": place,
                "logicalLocations": [
                    {"fullyQualifiedName": _name(finding), "kind": "property"},
                ],
            }
        ],
        # Lines move; the rule, the policy and the field do not.
        "partialFingerprints": {
            _FINGERPRINT: hashlib.sha256(
                f"{finding.rule}\0{finding.subject}\0{finding.field_text}".encode()
            ).hexdigest()[:32]
        },
    }


def _suppressed(one: Suppressed, indexes: dict[str, int]) -> dict[str, Any]:
    by = one.by
    return {
        **_result(one.finding, indexes),
        "suppressions": [
            {
                "kind": "external",
                "status": "accepted",
                "justification": f"{by.reason} ({by.owner}, until {by.expires})",
            }
        ],
    }


def _name(finding: Finding) -> str:
    return f"{finding.subject}/{finding.field_text}" if finding.path else finding.subject


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
