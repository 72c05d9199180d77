"""What people see of `lint`: each session's exact output and exit codes, kept as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.alerts.conftest import ROOT, Run
from tests.alerts.test_transcripts import _command, _compare

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
            aggregation=Aggregation(aligner=Aligner.MAX, reducer=Reducer.MAX),
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
                id="critical", display_name="Shop", secret="pagerduty_routing_key_critical"
            ),
        ),
    ),
)
"""

SESSIONS = {
    "lint": ["lint", "lint --catalog shop", "lint --catalog shop --rule zero-duration"],
    "lint-rules": ["lint --list-rules", "lint --explain unit-mismatch"],
    "lint-usage-errors": [
        "lint --rule unit-mismach",
        "lint --explain zzz",
        "lint --catalog no.such.module",
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
def test_transcript(name: str, alerts: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    session = "".join(_command(alerts, line) for line in SESSIONS[name])
    _compare(name, session.replace(str(ROOT), "REPOSITORY"))
