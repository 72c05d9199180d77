"""What people see: each session of commands, its exact output and exit codes, kept as text.

`make snapshots` rewrites tests/transcripts/alerts; the difference is read in review.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from google.protobuf import duration_pb2

from speakfit.emulator.server import Emulator
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import KEYS, ROOT, Run

FOLDER = ROOT / "tests" / "transcripts" / "alerts"
UPDATE = os.environ.get("UPDATE_SNAPSHOTS") == "1"

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
def test_transcript_without_a_server(name: str, alerts: Run, tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text("x = 1\nraise RuntimeError('no luck')\n")
    (tmp_path / "broken.py").write_text(BROKEN_CATALOG)
    (tmp_path / "raw.yaml").write_text(RAW)
    (tmp_path / "odd.yaml").write_text(RAW.replace("duration: 300s", "duration: 90s"))
    (tmp_path / "typo.yaml").write_text(RAW.replace("severity", "severty"))
    session = "".join(_command(alerts, line) for line in OFFLINE[name])
    _compare(name, session)


def test_transcript_of_a_first_apply_and_a_second(emulator: Emulator, alerts: Run) -> None:
    at = f"--emulator {emulator.grpc_address}"
    session = "".join(
        _command(alerts, line)
        for line in (
            f"plan {at}",
            f"apply {at}",
            f"apply {at} --auto-approve",
            f"plan {at}",
            f"apply {at} --auto-approve",
            f"plan {at} --json",
        )
    )
    _compare("first-apply", session.replace(emulator.grpc_address, "EMULATOR"))


def test_transcript_of_an_edit_in_the_console(
    emulator: Emulator, target: Target, alerts: Run
) -> None:
    at = f"--emulator {emulator.grpc_address}"
    assert alerts(*shlex.split(f"apply {at} --auto-approve")).returncode == 0
    client = alert_policy_client(target)
    for policy in client.list_alert_policies(name=target.project_name):
        if policy.user_labels["alert-id"] == "queue-depth-warning":
            policy.conditions[0].condition_threshold.threshold_value = 5000
            policy.conditions[0].condition_threshold.duration = duration_pb2.Duration(seconds=3600)
            policy.documentation.content += "\n\nAsk Ben."
            client.update_alert_policy(alert_policy=policy)
    session = "".join(
        _command(alerts, line)
        for line in (
            f"plan {at}",
            f"plan {at} --json",
            f"apply {at} --auto-approve --json",
            f"plan {at}",
        )
    )
    _compare("console-edit", session.replace(emulator.grpc_address, "EMULATOR"))


def test_transcript_of_targets_that_are_not_there(alerts: Run) -> None:
    with socket.socket() as taken:
        # Bound but not listening: nobody else can serve here, and it refuses connections.
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        session = _command(alerts, f"plan --emulator {nobody}")
        session += _command(alerts, f"apply --auto-approve --emulator {nobody}")
        session += _command(alerts, f"plan --json --emulator {nobody}")
    session += _command(alerts, "plan", GOOGLE_CLOUD_PROJECT="")
    session += _command(alerts, "plan", PAGERDUTY_ROUTING_KEY_CRITICAL="too-short")
    _compare("no-target", session.replace(nobody, "NOBODY"))


def test_transcript_of_an_apply_without_keys(emulator: Emulator, alerts: Run) -> None:
    session = _command(
        alerts,
        f"apply --auto-approve --emulator {emulator.grpc_address}",
        PAGERDUTY_ROUTING_KEY_WARNING="",
    )
    _compare("no-key", session.replace(emulator.grpc_address, "EMULATOR"))


def _command(alerts: Run, line: str, **environment: str) -> str:
    done: subprocess.CompletedProcess[str] = alerts(*shlex.split(line), **environment)
    assert "Traceback" not in done.stderr
    for key in KEYS.values():
        assert key not in done.stdout + done.stderr
    errors = "".join(f"! {text}\n" for text in done.stderr.splitlines())
    settings = "".join(f"{name}={value} " for name, value in environment.items())
    return f"$ {settings}python -m alerts {line}\n{done.stdout}{errors}[exit {done.returncode}]\n\n"


_NUMBERED = re.compile(r"(alertPolicies|conditions|notificationChannels|snoozes)/(\d+)")


def _without_numbers(text: str) -> str:
    """The server's numbers differ from run to run: they become 1, 2, 3 as they appear."""
    seen: dict[str, int] = {}

    def steady(found: re.Match[str]) -> str:
        return f"{found[1]}/{seen.setdefault(found[0], len(seen) + 1)}"

    return _NUMBERED.sub(steady, text)


def _compare(name: str, session: str) -> None:
    session = _without_numbers(session)
    file = FOLDER / f"{name}.txt"
    if UPDATE:
        file.write_text(session, encoding="utf-8")
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    assert session == expected, f"tests/transcripts/alerts/{name}.txt differs; `make snapshots`"
