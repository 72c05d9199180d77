"""What people see: each session of commands, its exact output and exit codes, kept as text.

`make snapshots` rewrites tests/transcripts/alerts; the difference is read in review.
"""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
from google.protobuf import duration_pb2

from speakfit.emulator.server import Emulator
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import Run
from tests.alerts.transcript import command, compare

BROKEN_CATALOG = """
from alerts.policy import *
from datetime import timedelta
from speakfit.metrics import QUEUE_DEPTH
Threshold(
    key="chunks", signal=Signal(metric=QUEUE_DEPTH, resource_type="generic_task"),
    aggregation=Aggregation(aligner=Aligner.ALIGN_MAX), above=1, duration=timedelta(seconds=90),
    missing_data=MissingData.KEEPS,
)
"""

RAW = """
displayName: Backlog grows
combiner: OR
severity: WARNING
documentation: {content: Look at the consumers., mimeType: text/markdown}
conditions:
- displayName: oldest message
  conditionThreshold:
    filter: >-
      metric.type = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
      resource.type = "pubsub_subscription"
    aggregations: [{alignmentPeriod: 300s, perSeriesAligner: ALIGN_MAX}]
    comparison: COMPARISON_GT
    thresholdValue: 600
    duration: 300s
alertStrategy: {autoClose: 3600s}
"""

OFFLINE = {
    "list": ["list"],
    "list-json": ["list --json"],
    "show": ["show api-errors-critical"],
    "explain": ["explain api-errors-critical", "explain worker-down-critical --json"],
    "show-json": ["show worker-down-critical --json"],
    "help": ["--help", "plan --help", "apply --help"],
    "usage-errors": ["aply", "plan --colour", "show", "runbooks --write --check"],
    "import": [
        "import --files raw.yaml --catalog-name backlog",
        "import --files raw.yaml --out backlog.py",
        "list --catalog backlog",
        "import --files raw.yaml --out backlog.py",
        "import --files odd.yaml --json",
        "import --files nowhere",
        "import --files typo.yaml",
        "import Backlog --files raw.yaml",
    ],
    "unknown-id": ["show worker-donw-critical", "show zzz", "explain zzz"],
    "wrong-catalog": [
        "list --catalog no.such.module",
        "list --catalog speakfit.metrics",
        "list --catalog raising",
        "list --catalog broken",
    ],
}


@pytest.mark.parametrize("name", OFFLINE)
def test_transcript_without_a_server(name: str, quick_alerts: Run, tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text("x = 1\nraise RuntimeError('no luck')\n")
    (tmp_path / "broken.py").write_text(BROKEN_CATALOG)
    (tmp_path / "raw.yaml").write_text(RAW)
    (tmp_path / "odd.yaml").write_text(RAW.replace("duration: 300s", "duration: 90s"))
    (tmp_path / "typo.yaml").write_text(RAW.replace("severity", "severty"))
    session = "".join(command(quick_alerts, line) for line in OFFLINE[name])
    compare(name, session)


def test_transcript_of_a_first_apply_and_a_second(emulator: Emulator, quick_alerts: Run) -> None:
    at = f"--emulator {emulator.grpc_address}"
    session = "".join(
        command(quick_alerts, line)
        for line in (
            f"plan {at}",
            f"apply {at}",
            f"apply {at} --auto-approve",
            f"plan {at}",
            f"apply {at} --auto-approve",
            f"plan {at} --json",
        )
    )
    compare("first-apply", session, EMULATOR=emulator.grpc_address)


def test_transcript_of_an_edit_in_the_console(
    emulator: Emulator, target: Target, quick_alerts: Run
) -> None:
    at = f"--emulator {emulator.grpc_address}"
    assert quick_alerts(*shlex.split(f"apply {at} --auto-approve")).returncode == 0
    client = alert_policy_client(target)
    for policy in client.list_alert_policies(name=target.project_name):
        if policy.user_labels["alert-id"] == "queue-depth-warning":
            policy.conditions[0].condition_threshold.threshold_value = 5000
            policy.conditions[0].condition_threshold.duration = duration_pb2.Duration(seconds=3600)
            policy.documentation.content += "\n\nAsk Ben."
            client.update_alert_policy(alert_policy=policy)
    session = "".join(
        command(quick_alerts, line)
        for line in (
            f"plan {at}",
            f"plan {at} --json",
            f"apply {at} --auto-approve --json",
            f"plan {at}",
        )
    )
    compare("console-edit", session, EMULATOR=emulator.grpc_address)


def test_transcript_of_targets_that_are_not_there(quick_alerts: Run) -> None:
    with socket.socket() as taken:
        # Bound but not listening: nobody else can serve here, and it refuses connections.
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        session = command(quick_alerts, f"plan --emulator {nobody}")
        session += command(quick_alerts, f"apply --auto-approve --emulator {nobody}")
        session += command(quick_alerts, f"plan --json --emulator {nobody}")
    session += command(quick_alerts, "plan", GOOGLE_CLOUD_PROJECT="")
    session += command(quick_alerts, "plan", PAGERDUTY_ROUTING_KEY_CRITICAL="too-short")
    compare("no-target", session, NOBODY=nobody)


def test_transcript_of_an_apply_without_keys(emulator: Emulator, quick_alerts: Run) -> None:
    session = command(
        quick_alerts,
        f"apply --auto-approve --emulator {emulator.grpc_address}",
        PAGERDUTY_ROUTING_KEY_WARNING="",
    )
    compare("no-key", session, EMULATOR=emulator.grpc_address)
