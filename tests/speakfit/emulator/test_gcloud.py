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


def _gcloud(bench: Bench, home: Path, *words: str) -> Any:
    done = subprocess.run(
        ["gcloud", *words, "--format=json", "--quiet"],
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


def test_policies_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    bench.write(bench.series(1))
    policies = ("alpha", "monitoring", "policies")
    file = _policy(tmp_path / "policy.json")
    made = _gcloud(bench, tmp_path, *policies, "create", f"--policy-from-file={file}")
    assert [one["name"] for one in _gcloud(bench, tmp_path, *policies, "list")] == [made["name"]]
    assert _gcloud(bench, tmp_path, *policies, "describe", made["name"]) == made
    changed = _gcloud(bench, tmp_path, *policies, "update", made["name"], "--no-enabled")
    assert changed["enabled"] is False
    _gcloud(bench, tmp_path, *policies, "update", made["name"], f"--policy-from-file={file}")
    condition = json.dumps(
        {
            "displayName": "silent",
            "conditionAbsent": {
                "filter": f'metric.type="{METRIC}" resource.type="generic_task"',
                "duration": "600s",
            },
        }
    )
    conditions = (*policies, "conditions")
    more = _gcloud(bench, tmp_path, *conditions, "create", made["name"], f"--condition={condition}")
    assert [one["displayName"] for one in more["conditions"]] == ["deep", "silent"]
    last = more["conditions"][1]["name"]
    _gcloud(bench, tmp_path, *conditions, "delete", last, f"--policy={made['name']}")
    _gcloud(bench, tmp_path, *policies, "delete", made["name"])
    assert _gcloud(bench, tmp_path, *policies, "list") == []


def test_channels_dashboards_and_snoozes_live_through_gcloud(bench: Bench, tmp_path: Path) -> None:
    channels = ("beta", "monitoring", "channels")
    labels = "--channel-labels=service_key=" + "c" * 32
    made = _gcloud(
        bench, tmp_path, *channels, "create", "--type=pagerduty", "--display-name=Pager", labels
    )
    assert len(_gcloud(bench, tmp_path, *channels, "list")) == 1
    _gcloud(bench, tmp_path, *channels, "delete", made["name"], "--force")
    assert _gcloud(bench, tmp_path, "beta", "monitoring", "channel-descriptors", "list")
    dashboards = ("monitoring", "dashboards")
    config = '--config={"displayName": "Board", "gridLayout": {}}'
    _gcloud(bench, tmp_path, *dashboards, "create", config, "--validate-only")
    assert _gcloud(bench, tmp_path, *dashboards, "list") == []
    board = _gcloud(bench, tmp_path, *dashboards, "create", config)
    _gcloud(bench, tmp_path, *dashboards, "delete", board["name"])
    assert _gcloud(bench, tmp_path, "monitoring", "snoozes", "list") == []


def test_snoozes_live_through_gcloud(tmp_path: Path) -> None:
    # gcloud reads the machine's clock.
    with Emulator(OPTIONS) as emulator:
        bench = Bench()
        bench.emulator = emulator
        snoozes = ("monitoring", "snoozes")
        made = _gcloud(
            bench,
            tmp_path,
            *snoozes,
            "create",
            "--display-name=Maintenance",
            f"--criteria-policies={PROJECT}/alertPolicies/1",
            "--start-time=+PT5M",
            "--end-time=+PT60M",
        )
        changed = _gcloud(
            bench, tmp_path, *snoozes, "update", made["name"], "--display-name=Longer"
        )
        assert changed["displayName"] == "Longer"
        assert len(_gcloud(bench, tmp_path, *snoozes, "list")) == 1
        cancelled = _gcloud(bench, tmp_path, *snoozes, "cancel", made["name"])
        assert cancelled["interval"]["endTime"] < made["interval"]["endTime"]
