"""What people see of `lint`: each session's exact output and exit codes, kept as text."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from alerts.cli import main
from tests.alerts.conftest import ROOT, Run
from tests.alerts.transcript import command, compare

SHOP = """
from datetime import timedelta

from alerts.policy import *
from speakfit.metrics import DATABASE_CONNECTIONS, REQUEST_DURATION

POLICIES = tiered(
    subject="shop-full",
    title="Shop has no connections left",
    owner="shop",
    guidance=Guidance(meaning="It is full.", users_feel="Errors.", first_steps=("Look.",)),
    tiers={Severity.CRITICAL: Tier(limit=95, duration=timedelta(minutes=2))},
    conditions=lambda tier: (
        Threshold(
            key="connections in use",
            signal=Signal(metric=DATABASE_CONNECTIONS, resource_type="generic_task"),
            aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
            above=tier.limit,
            duration=tier.duration,
            missing_data=MissingData.KEEPS,
        ),
    ),
)
CATALOG = Catalog(
    name="shop",
    policies=POLICIES,
    routes=(
        Route(
            severity=Severity.CRITICAL,
            channel=Channel(
                id="critical",
                display_name="Shop",
                type=ChannelType.PAGERDUTY,
                secret="SHOP_KEY",
            ),
        ),
    ),
)
"""

SUPPRESSED = """
suppressions:
  - rule: unreachable-threshold
    policy: shop-*
    reason: The metric is changed to percent with release 7.
    owner: shop
    expires: 2999-12-31
"""
EXPIRED = SUPPRESSED.replace("2999", "2025")
UNUSED = (
    SUPPRESSED
    + """
  - {rule: zero-duration, policy: "*", reason: Later., owner: shop, expires: 2999-12-31}
  - {rule: zero-duration, policy: gone, reason: Later., owner: shop, expires: 2999-12-31}
"""
)
BAD_SUPPRESSIONS = {
    "unknown-rule": SUPPRESSED.replace("unreachable-threshold", "unreachable-treshold"),
    "unknown-field": SUPPRESSED.replace("expires", "expire"),
    "no-owner": SUPPRESSED.replace("    owner: shop\n", ""),
    "no-reason": SUPPRESSED.replace("The metric is changed to percent with release 7.", '""'),
    "no-day": SUPPRESSED.replace("2999-12-31", "2999-02-30"),
    "no-list": "rule: zero-duration",
    "no-mapping": "suppressions: [zero-duration]",
    "no-yaml": "suppressions: [",
    "bare-star": SUPPRESSED.replace("shop-*", "*"),
}

FILES = {
    "policies/one.json": """{
\t"displayName": "Nginx is slow",
\t"combiner": "OR",
\t"conditions": [{
\t\t"displayName": "p95 above 500 ms",
\t\t"conditionThreshold": {
\t\t\t"filter": "metric.type=\\"custom.googleapis.com\\/nginx\\" AND resource.type=\\"global\\"",
\t\t\t"comparison": "COMPARISON_GT",
\t\t\t"thresholdValue": 500
\t\t}
\t}]
}
""",
    "policies/two.yaml": """\
display_name: Errors
user_labels: {team_name: shop}
conditions:
- display_name: share of errors
  condition_threshold:
    filter: metric.type = "a" AND resource.type = "global" AND metric.labels.class = "5xx"
    denominator_filter: >-
      resource.type = "global" AND metric.type = "a" AND metric.label.class = "5xx"
    comparison: COMPARISON_GT
    threshold_value: 5e-2
    duration: ${LASTING}
    evaluation_missing_data: EVALUATION_MISSING_DATA_ACTIVE
---
displayName: Silent
conditions:
- displayName: nothing arrives
  conditionAbsent: {filter: metric.type = "a" AND resource.type = "global", duration: 300s}
notificationChannels: [projects/p/notificationChannels/1]
documentation: {links: [{displayName: Runbook, url: 'https://runbooks.test/silent.md'}]}
""",
    "listed/list.yml": """\
alertPolicies:
- {displayName: Later, conditions: [], enabled: false}
- {displayName: Not yet}
- 7
""",
    "broken/comma.json": '{"displayName": "x",\n  "conditions": [],\n}\n',
    "broken/tab.yaml": "displayName: x\n\tconditions: []\n",
    "broken/empty.json": "",
    "broken/dashboard.json": '{"displayName": "x", "mosaicLayout": {"columns": 48}}',
    "broken/text.yaml": "just words",
    "broken/tag.yaml": "conditions: !Ref x\n",
    "broken/loop.yaml": "conditions: &a [*a]\n",
    "broken/bytes.json": "\udcff",
    "broken/.hidden/x.json": "{",
    "broken/wrong-types.yaml": """\
displayName: [1]
documentation: text
userLabels: [a]
severity: 7
notificationChannels: none
alertStrategy: {notificationChannelStrategy: [7, {notificationChannelNames: x}]}
conditions:
- 7
- {conditionThreshold: 7}
- {conditionThreshold: {}, conditionAbsent: {}}
- conditionThreshold: {filter: 7, aggregations: [x, {groupByFields: [7, '']}], thresholdValue: {}}
- {conditionPrometheusQueryLanguage: {query: 7, duration: soon}}
- {displayName: {}, conditionMatchedLog: {filter: ''}}
""",
    "nothing/readme.txt": "Nothing.",
    "pages/shop-fulll.md": "# Shop",
}

SESSIONS = {
    "lint": ["lint", "lint --catalog shop", "lint --catalog shop --rule zero-duration"],
    "lint-rules": ["lint --list-rules", "lint --explain unit-mismatch"],
    "lint-usage-errors": [
        "lint --rule unit-mismach",
        "lint --explain zzz",
        "lint --catalog no.such.module",
        "lint --fail-on fatal",
        "lint --format xml",
        "lint --json --format sarif",
    ],
    "lint-json": [
        "lint --catalog shop --json --rule unreachable-threshold",
        "lint --catalog shop --format json --suppressions suppressed.yaml"
        " --rule unreachable-threshold",
        "lint --explain zero-duration --json",
    ],
    "lint-sarif": [
        "lint --catalog shop --format sarif --rule unreachable-threshold",
        "lint --catalog shop --format sarif --suppressions suppressed.yaml"
        " --rule unreachable-threshold",
    ],
    "lint-github": [
        "lint --catalog shop --format github --suppressions expired.yaml",
        "lint --catalog shop --format github --suppressions suppressed.yaml",
    ],
    "lint-files": [
        "lint --files policies",
        "lint --files policies/one.json policies/two.yaml --rule ratio-filtered-alike",
        "lint --files policies --files listed --format github --fail-on warning",
        "lint --files listed --json",
    ],
    "lint-broken-files": [
        "lint --files broken",
        "lint --files missing.json",
        "lint --files policies missing.json",
        "lint --files nothing",
        "lint policies",
    ],
    "lint-runbooks": [
        "lint --catalog shop --runbooks pages --rule dead-runbook-link",
        "lint --catalog shop --runbooks nowhere",
    ],
    "lint-suppressions": [
        "lint --catalog shop --suppressions suppressed.yaml",
        "lint --catalog shop --suppressions expired.yaml",
        "lint --catalog shop --suppressions unused.yaml",
        "lint --catalog shop --suppressions unused.yaml --rule unreachable-threshold",
        "lint --catalog shop --suppressions unused.yaml --fail-on warning",
    ],
    "lint-wrong-suppressions": [
        *(f"lint --suppressions {name}.yaml" for name in BAD_SUPPRESSIONS),
        "lint --suppressions missing.yaml",
        "lint --suppressions .",
    ],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`python -m alerts` in this process: so many sessions would wait long for theirs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RUNBOOK_BASE_URL", "https://runbooks.test")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["alerts", *arguments])
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(
            arguments, ended.value.code, out.getvalue(), err.getvalue()
        )

    yield run
    sys.modules.pop("shop", None)


@pytest.mark.parametrize("name", SESSIONS)
def test_transcript(name: str, here: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    texts = {"suppressed": SUPPRESSED, "expired": EXPIRED, "unused": UNUSED, **BAD_SUPPRESSIONS}
    for file, text in texts.items():
        (tmp_path / f"{file}.yaml").write_text(text)
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, errors="surrogateescape")
    session = "".join(command(here, line) for line in SESSIONS[name])
    compare(name, session.replace(str(ROOT), "REPOSITORY"))
