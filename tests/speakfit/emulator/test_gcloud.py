"""The gcloud command line, unmodified, where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from speakfit.emulator.server import Emulator
from tests.speakfit.emulator.bench import METRIC, OPTIONS, PROJECT, Bench

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="gcloud is not installed; nothing of it was tried"
)


def _gcloud(bench: Bench, home: Path, *words: str, answer: str = "") -> Any:
    """What a command prints; `answer` is for a question whose answer is no when nobody is asked."""
    quiet = () if answer else ("--quiet",)
    done = subprocess.run(
        ["gcloud", *words, "--format=json", *quiet],
        input=answer,
        env={
            **os.environ,
            "CLOUDSDK_CONFIG": str(home),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING": f"{bench.emulator.http_url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": PROJECT.removeprefix("projects/"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "null")


def _policy(file: Path) -> Path:
    body = {
        "displayName": "Deep",
        "combiner": "OR",
        "conditions": [
            {
                "displayName": "deep",
                "conditionThreshold": {
                    "filter": f'metric.type="{METRIC}" resource.type="generic_task"',
                    "comparison": "COMPARISON_GT",
                    "thresholdValue": 100,
                    "duration": "0s",
                },
            }
        ],
    }
    file.write_text(json.dumps(body), encoding="utf-8")
    return file


_POLICIES = ("alpha", "monitoring", "policies")
_CONDITIONS = (*_POLICIES, "conditions")
_CHANNELS = ("beta", "monitoring", "channels")
_DASHBOARDS = ("monitoring", "dashboards")
_SNOOZES = ("monitoring", "snoozes")


def test_a_policy_is_created_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    bench.write(bench.series(1))
    file = _policy(tmp_path / "policy.json")
    made = _gcloud(bench, tmp_path, *_POLICIES, "create", f"--policy-from-file={file}")
    assert bench.policies.get_alert_policy(name=made["name"]).display_name == "Deep"


@pytest.mark.slow
def test_policies_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    bench.write(bench.series(1))
    file = _policy(tmp_path / "policy.json")
    made = _gcloud(bench, tmp_path, *_POLICIES, "create", f"--policy-from-file={file}")
    assert [one["name"] for one in _gcloud(bench, tmp_path, *_POLICIES, "list")] == [made["name"]]
    assert _gcloud(bench, tmp_path, *_POLICIES, "describe", made["name"]) == made
    changed = _gcloud(bench, tmp_path, *_POLICIES, "update", made["name"], "--no-enabled")
    assert changed["enabled"] is False
    documented = _gcloud(
        bench, tmp_path, *_POLICIES, "update", made["name"], "--documentation=Look at it.",
        "--update-user-labels=team=speech",
    )  # fmt: skip
    assert documented["documentation"]["content"] == "Look at it."
    assert documented["userLabels"] == {"team": "speech"}
    _gcloud(bench, tmp_path, *_POLICIES, "update", made["name"], f"--policy-from-file={file}")
    _gcloud(bench, tmp_path, *_POLICIES, "delete", made["name"])
    assert _gcloud(bench, tmp_path, *_POLICIES, "list") == []


@pytest.mark.slow
def test_conditions_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    bench.write(bench.series(1))
    name = bench.create().name
    condition = json.dumps(
        {
            "displayName": "silent",
            "conditionAbsent": {
                "filter": f'metric.type="{METRIC}" resource.type="generic_task"',
                "duration": "600s",
            },
        }
    )
    more = _gcloud(bench, tmp_path, *_CONDITIONS, "create", name, f"--condition={condition}")
    assert [one["displayName"] for one in more["conditions"]] == ["deep", "silent"]
    first, last = (one["name"] for one in more["conditions"])
    changed = _gcloud(
        bench, tmp_path, *_CONDITIONS, "update", first, f"--policy={name}",
        "--display-name=deeper", "--if=> 200", "--trigger-count=2",
    )  # fmt: skip
    (threshold,) = [one for one in changed["conditions"] if one["name"] == first]
    assert threshold["displayName"] == "deeper"
    assert threshold["conditionThreshold"]["thresholdValue"] == 200
    assert threshold["conditionThreshold"]["trigger"] == {"count": 2}
    left = _gcloud(bench, tmp_path, *_CONDITIONS, "delete", last, f"--policy={name}")
    assert [one["name"] for one in left["conditions"]] == [first]
    with pytest.raises(AssertionError, match="from 1 to 6 conditions"):
        _gcloud(bench, tmp_path, *_CONDITIONS, "delete", first, f"--policy={name}")


_RULES = """
groups:
- name: speech
  interval: 60s
  rules:
  - alert: QueueIsDeep
    expr: queue_depth > 100
    for: 5m
    labels: {severity: page}
    annotations: {summary: Too many chunks wait.}
"""


@pytest.mark.slow
def test_prometheus_rules_are_migrated_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(_RULES, encoding="utf-8")
    option = f"--policies-from-prometheus-alert-rules-yaml={rules}"
    _gcloud(bench, tmp_path, *_POLICIES, "migrate", option, answer="y\n")
    (policy,) = bench.policies.list_alert_policies(name=PROJECT)
    promql = policy.conditions[0].condition_prometheus_query_language
    assert (promql.query, promql.alert_rule) == ("queue_depth > 100", "QueueIsDeep")
    assert promql.duration.total_seconds() == 300
    assert promql.evaluation_interval.total_seconds() == 60
    assert dict(promql.labels) == {"severity": "page"}


@pytest.mark.slow
def test_channels_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    labels = "--channel-labels=service_key=" + "c" * 32
    made = _gcloud(
        bench, tmp_path, *_CHANNELS, "create", "--type=pagerduty", "--display-name=Pager", labels
    )
    name = made["name"]
    assert _gcloud(bench, tmp_path, *_CHANNELS, "list", "--type=pagerduty") == [made]
    assert _gcloud(bench, tmp_path, *_CHANNELS, "list", "--type=email") == []
    changed = _gcloud(
        bench, tmp_path, *_CHANNELS, "update", name, "--display-name=Night", "--no-enabled",
        "--update-user-labels=team=speech",
    )  # fmt: skip
    assert (changed["displayName"], changed["enabled"]) == ("Night", False)
    assert changed["userLabels"] == {"team": "speech"}
    # gcloud reads, edits and writes the whole channel back: the key survives its stars.
    assert bench.emulator.backend.channels.route(name) is None
    content = {"type": "pagerduty", "labels": {"service_key": "d" * 32}, "displayName": "Day"}
    replaced = _gcloud(
        bench, tmp_path, *_CHANNELS, "update", name, f"--channel-content={json.dumps(content)}"
    )
    assert (replaced["displayName"], replaced.get("userLabels")) == ("Day", None)
    route = bench.emulator.backend.channels.route(name)
    assert route == {"kind": "pagerduty", "routing_key": "d" * 32}
    assert _gcloud(bench, tmp_path, *_CHANNELS, "describe", name) == replaced
    bench.write(bench.series(1))
    bench.create(notification_channels=[name])
    with pytest.raises(AssertionError, match="is used by the alert policies"):
        _gcloud(bench, tmp_path, *_CHANNELS, "delete", name)
    _gcloud(bench, tmp_path, *_CHANNELS, "delete", name, "--force")
    assert list(bench.channels.list_notification_channels(name=PROJECT)) == []


@pytest.mark.slow
def test_channel_types_are_described_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    descriptors = ("beta", "monitoring", "channel-descriptors")
    listed = _gcloud(bench, tmp_path, *descriptors, "list")
    assert {"pagerduty", "email", "webhook_basicauth"} <= {one["type"] for one in listed}
    one = _gcloud(bench, tmp_path, *descriptors, "describe", "pagerduty")
    assert one["labels"] == [{"key": "service_key"}]


@pytest.mark.slow
def test_dashboards_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    config = '--config={"displayName": "Board", "gridLayout": {}}'
    _gcloud(bench, tmp_path, *_DASHBOARDS, "create", config, "--validate-only")
    assert _gcloud(bench, tmp_path, *_DASHBOARDS, "list") == []
    board = _gcloud(bench, tmp_path, *_DASHBOARDS, "create", config)
    assert _gcloud(bench, tmp_path, *_DASHBOARDS, "describe", board["name"]) == board
    other = json.dumps({**board, "displayName": "Other"})
    changed = _gcloud(bench, tmp_path, *_DASHBOARDS, "update", board["name"], f"--config={other}")
    assert changed["displayName"] == "Other"
    # The etag of before is not the current one any more.
    with pytest.raises(AssertionError, match="etag is not the current one"):
        _gcloud(bench, tmp_path, *_DASHBOARDS, "update", board["name"], f"--config={other}")
    assert [one["displayName"] for one in _gcloud(bench, tmp_path, *_DASHBOARDS, "list")] == [
        "Other"
    ]
    _gcloud(bench, tmp_path, *_DASHBOARDS, "delete", board["name"])
    assert _gcloud(bench, tmp_path, *_DASHBOARDS, "list") == []


@pytest.mark.slow
def test_snoozes_live_through_gcloud(tmp_path: Path) -> None:
    # gcloud reads the machine's clock.
    with Emulator(OPTIONS) as emulator:
        bench = Bench()
        bench.emulator = emulator
        made = _gcloud(
            bench,
            tmp_path,
            *_SNOOZES,
            "create",
            "--display-name=Maintenance",
            f"--criteria-policies={PROJECT}/alertPolicies/1",
            "--start-time=+PT5M",
            "--end-time=+PT60M",
        )
        name = made["name"]
        changed = _gcloud(
            bench, tmp_path, *_SNOOZES, "update", name, "--display-name=Longer",
            "--end-time=+PT90M",
        )  # fmt: skip
        assert changed["displayName"] == "Longer"
        assert changed["interval"]["endTime"] > made["interval"]["endTime"]
        assert _gcloud(bench, tmp_path, *_SNOOZES, "describe", name) == changed
        assert len(_gcloud(bench, tmp_path, *_SNOOZES, "list")) == 1
        cancelled = _gcloud(bench, tmp_path, *_SNOOZES, "cancel", name)
        assert cancelled["interval"]["endTime"] < made["interval"]["endTime"]
