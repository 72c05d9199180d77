"""Suppressions count until the end of their day, and the schema for editors says what is read."""

from __future__ import annotations

from datetime import date, timedelta

import jsonschema
import pytest
import yaml

from alerts.candidate import Candidate, Origin
from alerts.checks import all_rules
from alerts.lint import Report, lint
from alerts.rule import Surroundings
from alerts.suppression import read_suppressions, suppression_schema
from speakfit.errors import DocumentError
from tests.alerts.test_lint_transcripts import BAD_SUPPRESSIONS, SUPPRESSED, UNUSED

LAST_DAY = date(2999, 12, 31)
UNLINKED = Candidate(
    id="shop-full",
    body={"documentation": {"content": "Owner: shop. 1. Look."}},
    origin=Origin(file="policies/shop.json"),
)


def report(policy: str, today: date, *, complete: bool = True) -> Report:
    text = SUPPRESSED.replace("unreachable-threshold", "missing-runbook").replace(
        "shop-*", f"'{policy}'"
    )
    return lint(
        [UNLINKED],
        [r for r in all_rules() if r.id.startswith("suppression") or r.id == "missing-runbook"],
        Surroundings(candidates=(UNLINKED,)),
        suppressions=read_suppressions(text, file="s.yaml"),
        today=today,
        complete=complete,
    )


@pytest.mark.parametrize("policy", ["shop-*", "*", "policies/*.json"])
def test_a_suppression_counts_on_its_last_day_and_no_longer(policy: str) -> None:
    last = report(policy, LAST_DAY)
    assert last.findings == ()
    assert [one.finding.rule for one in last.suppressed] == ["missing-runbook"]
    after = report(policy, LAST_DAY + timedelta(days=1))
    assert [one.rule for one in after.findings] == ["missing-runbook", "suppression-expired"]
    assert after.suppressed == ()


def test_only_where_everything_is_checked_a_suppression_of_something_else_is_unused() -> None:
    assert [one.rule for one in report("other", LAST_DAY).findings] == [
        "missing-runbook",
        "suppression-unused",
    ]
    part = report("other", LAST_DAY, complete=False)
    assert [one.rule for one in part.findings] == ["missing-runbook"]


@pytest.mark.parametrize(
    "name", [name for name in BAD_SUPPRESSIONS if name not in ("no-yaml", "bare-star")]
)
def test_what_the_reader_refuses_the_schema_for_editors_refuses_too(name: str) -> None:
    text = BAD_SUPPRESSIONS[name]
    with pytest.raises(DocumentError):
        read_suppressions(text, file="s.yaml")
    checker = jsonschema.Draft202012Validator(
        suppression_schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    assert not checker.is_valid(yaml.load(text, Loader=yaml.BaseLoader))


@pytest.mark.parametrize("text", [SUPPRESSED, UNUSED])
def test_what_the_reader_takes_the_schema_takes(text: str) -> None:
    assert read_suppressions(text, file="s.yaml")
    jsonschema.Draft202012Validator.check_schema(suppression_schema())
    jsonschema.validate(yaml.load(text, Loader=yaml.BaseLoader), suppression_schema())
