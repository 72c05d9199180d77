"""docs/adopting.md works as it stands: its catalogs load, and each of its commands runs."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

from google.cloud import monitoring_v3

from speakfit.emulator.server import Emulator
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import ROOT, Run

PAGE = (ROOT / "docs" / "adopting.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.split("\n")
]
REMOTE = {"plan", "apply", "import"}


def test_the_page_for_other_teams_runs(
    emulator: Emulator, target: Target, alerts: Run, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(CODE[0], encoding="utf-8")
    (tmp_path / "objectives.py").write_text(CODE[1], encoding="utf-8")
    condition = {
        "display_name": "uptime",
        "condition_absent": {
            "filter": 'metric.type = "run.googleapis.com/request_count" '
            'AND resource.type = "cloud_run_revision"',
            "duration": timedelta(minutes=5),
        },
    }
    made = monitoring_v3.AlertPolicy(
        {"display_name": "By hand", "combiner": "OR", "conditions": [condition]}
    )
    alert_policy_client(target).create_alert_policy(name=target.project_name, alert_policy=made)
    said = {}
    for line in filter(None, LINES):
        python, dash_m, tool, *words = shlex.split(line)
        assert [python, dash_m, tool] == ["python", "-m", "alerts"]
        at = ["--emulator", emulator.grpc_address] if words[0] in REMOTE else []
        done = alerts(*words, *at, SHOP_PAGERDUTY_KEY="s" * 32)
        # 2 is what plan answers when there is something to do.
        assert done.returncode == (2 if words[0] == "plan" else 0), f"{line}\n{done.stderr}"
        said[line] = done.stdout
    assert "Opens when the growth of run.googleapis.com/request_latencies" in "".join(said.values())
    names = {
        policy.display_name
        for policy in alert_policy_client(target).list_alert_policies(name=target.project_name)
    }
    assert names == {"By hand", "Checkout is slow (critical)"}
    assert "checkout-availability-burn-6h-critical" in said[LINES[-2]]
