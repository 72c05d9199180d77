"""Google's own sample policies: none of them makes lint fail, and it counts what they lack."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from alerts.candidate import Candidate
from alerts.candidates import file_candidates
from alerts.checks import all_rules, find_rule
from alerts.lint import lint
from alerts.rawfile import files_of
from alerts.rule import Surroundings
from tests.alerts.conftest import ROOT

CORPUS = Path(os.environ.get("SPEAKFIT_CORPUS", ROOT.parent / "shared" / "corpus"))
FOLDER = CORPUS / "alert-policies"
RATIO = find_rule("ratio-filtered-alike", where="test")
# `numerator / denominator > 0.05`, each on lines of its own, as Google writes error rates.
ERROR_RATE = re.compile(r"\(?\n?(?P<above>.+?)\n\s*/\s*\n(?P<below>.+?)\n\)?\s*> 0\.05\s*", re.S)

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no corpus of Google's policies; SPEAKFIT_CORPUS names its folder"
)


@pytest.fixture(scope="module")
def candidates() -> tuple[Candidate, ...]:
    read = file_candidates(files_of([FOLDER]))
    assert read.findings == ()
    return read.candidates


def test_every_sample_is_read_and_what_it_lacks_is_counted(
    candidates: tuple[Candidate, ...],
) -> None:
    bodies = [json.loads(file.read_text("utf-8")) for file in FOLDER.glob("*.json")]
    thresholds: list[dict[str, Any]] = [
        condition["conditionThreshold"]
        for body in bodies
        for condition in body["conditions"]
        if "conditionThreshold" in condition
    ]
    around = Surroundings(candidates=candidates)
    report = lint(candidates, all_rules(), around, today=date(2026, 1, 1))
    found = Counter(finding.rule for finding in report.findings)
    at_once = [
        finding
        for finding in report.findings
        if finding.rule == "zero-duration" and "conditionThreshold" in finding.path
    ]
    assert report.candidates == len(bodies) > 100
    assert len(at_once) == sum(one.get("duration", "0s") == "0s" for one in thresholds)
    assert found["missing-data-undecided"] == sum(
        "evaluationMissingData" not in one for one in thresholds
    )
    assert all(finding.position is not None for finding in report.findings)


def test_the_ratio_that_google_had_to_correct_is_found_in_each_of_its_error_rates(
    candidates: tuple[Candidate, ...],
) -> None:
    tried = 0
    for candidate in candidates:
        query = json.dumps(candidate.body)
        assert RATIO.check is not None
        assert list(RATIO.check(candidate, Surroundings())) == [], query
        for condition in candidate.conditions:
            rate = ERROR_RATE.fullmatch(str(condition.body.get("query", "")))
            if rate is None:
                continue
            # As before GoogleCloudPlatform/monitoring-dashboard-samples pull request 1243:
            # both sides count the errors.
            body = json.loads(query)
            kind = body["conditions"][condition.index]["conditionPrometheusQueryLanguage"]
            kind["query"] = f"({rate['above']}\n/\n{rate['above']}) > 0.05"
            broken = replace(candidate, body=body)
            assert len(list(RATIO.check(broken, Surroundings()))) == 1, candidate.id
            tried += 1
    assert tried >= 5
