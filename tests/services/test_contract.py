"""What the services really export is what alerts and declarations say, on a recorded run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import Engine

from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.metrics import METRICS
from speakfit.target import Target, TargetKind, metric_client
from tests.conftest import ROOT, service, serving_api
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY
from tests.services.test_recordings import finished, upload

PROJECT = "contract"


def alerts(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "alerts", *arguments, "--json"],
        cwd=ROOT,
        env={**os.environ, "GOOGLE_CLOUD_PROJECT": PROJECT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_a_recorded_run_keeps_the_contract_and_leaves_out_nothing(
    environment: dict[str, str], engine: Engine, broker: redis.Redis, tmp_path: Path
) -> None:
    with Emulator(EmulatorOptions(port=0, http_port=0)) as emulator:
        own = {
            **environment,
            "MONITORING_EMULATOR_HOST": emulator.grpc_address,
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "EXPORT_INTERVAL": "PT1S",
        }
        with (
            serving_api(own, tmp_path / "api.log") as api,
            service("services.worker", own, tmp_path / "worker.log"),
        ):
            finished(api, upload(api, KENNEDY))
            assert api.get("/v1/nothing").status_code == httpx.codes.NOT_FOUND
            target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=emulator.grpc_address)
            client = metric_client(target)

            def missing() -> set[str]:
                found = client.list_metric_descriptors(name=f"projects/{PROJECT}")
                return {metric.type for metric in METRICS} - {one.type for one in found}

            until(lambda: not missing(), what="every metric")
        at = ("--emulator", emulator.grpc_address)
        live = alerts("contract", *at)
        file = tmp_path / "run.jsonl.gz"
        alerts("record", "--since", "1h", "--out", str(file), *at)
    assert live["findings"] == []
    assert set(live["metrics"]) | set(live["unused"]) == {metric.type for metric in METRICS}
    # A recording holds what policies read and nothing else.
    recorded = alerts("contract", "--from", str(file))
    assert recorded["kept"]
    assert recorded["metrics"] == live["metrics"]
    assert {one["what"] for one in recorded["findings"]} <= {
        "It is declared, and nobody exported it."
    }
