"""Seconds of `python -m alerts test` and of `promtool test rules` on the same work, in one run.

    python -m tests.benchmarks.scenarios

One policy, exported as a Prometheus rule, and a number of scenarios of six hours at one point a
minute: each must page once, at a known minute. Whole commands, start-up and reading included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.alerts.conftest import ROOT
from tests.speakfit.engine.promtool import PROMTOOL

SCENARIOS, HOURS, ROUNDS = 100, 6, 5

CATALOG = """
from datetime import timedelta
from alerts.policy import *

LOAD = Metric(type="custom.googleapis.com/load", kind=MetricKind.GAUGE,
              value_type=ValueType.DOUBLE, labels=("zone",))
CATALOG = Catalog(name="load", routes=(), policies=(Policy(
    subject="load", severity=None, title="Load", channels=(),
    conditions=(Threshold(
        key="load", signal=Signal(metric=LOAD, resource_type="global"), above=100,
        aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
        duration=timedelta(minutes=5), missing_data=MissingData.CLOSES),)),))
"""


def _begin(number: int) -> int:
    """The minute at which the trouble of a scenario begins."""
    return 60 + number


def _ours() -> str:
    lines = ["scenarios:"]
    for number in range(SCENARIOS):
        calm = _begin(number)
        rest = HOURS * 60 - calm - 20
        lines += [
            f"  - name: Trouble at minute {calm}",
            "    step: 1m",
            "    series:",
            "      - metric: custom.googleapis.com/load",
            f"        values: 50 for {calm}m  150 for 20m  50 for {rest}m",
            "    pages:",
            f"      - {{policy: load, between: [{calm + 5}m, {calm + 7}m]}}",
        ]
    return "\n".join(lines) + "\n"


def _theirs(rule: str) -> str:
    name = json.dumps(rule)
    lines = ["rule_files: [rules.yaml]", "evaluation_interval: 1m", "tests:"]
    for number in range(SCENARIOS):
        calm = _begin(number)
        rest = HOURS * 60 - calm - 20
        lines += [
            "- interval: 1m",
            "  input_series:",
            "  - series: 'custom_googleapis_com:load{monitored_resource=\"global\"}'",
            f"    values: '50x{calm - 1} 150x19 50x{rest - 1}'",
            "  alert_rule_test:",
            f"  - {{eval_time: {calm + 4}m, alertname: {name}, exp_alerts: []}}",
            f"  - eval_time: {HOURS * 60 - 1}m",
            f"    alertname: {name}",
            "    exp_alerts: []",
        ]
    return "\n".join(lines) + "\n"


def _timed(command: list[str], folder: Path) -> float:
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}{os.pathsep}{folder}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found.append(time.perf_counter() - begun)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    return median(found)


def main() -> None:
    """Measure both and print them."""
    if PROMTOOL is None:
        raise SystemExit("promtool is missing: apt-get install prometheus")
    alerts = [sys.executable, "-m", "alerts"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "load.py").write_text(CATALOG, encoding="utf-8")
        (folder / "scenarios").mkdir()
        (folder / "scenarios" / "load.yaml").write_text(_ours(), encoding="utf-8")
        export = [*alerts, "export", "--catalog", "load", "--format", "prometheus"]
        _timed([*export, "--out", "rules.yaml"], folder)
        (folder / "tests.yaml").write_text(_theirs("Load"), encoding="utf-8")
        ours = _timed([*alerts, "test", "--catalog", "load", "--scenarios", "scenarios"], folder)
        theirs = _timed([PROMTOOL, "test", "rules", "tests.yaml"], folder)
    print(f"{SCENARIOS} scenarios of {HOURS} h at one point a minute, median of {ROUNDS}")
    print(f"python -m alerts test   {ours:.2f} s")
    print(f"promtool test rules     {theirs:.2f} s, {theirs / ours:.1f} times ours")


if __name__ == "__main__":
    main()
