"""Seconds that people wait: `--help`, a plan of SpeakFit's catalog, and a plan of 400 policies.

    python -m tests.benchmarks.plan

Every figure is the median of whole processes, from the shell and back, against one embedded Cloud
Monitoring. Where gcloud is installed it lists the same 400 policies from the same emulator in the
same run; it only lists, while a plan also compiles, reads metrics and channels, and compares.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from tests.alerts.unreliable import unreliable

ROOT = Path(__file__).resolve().parents[2]
POLICIES, ROUNDS, PROJECT = 400, 5, "speakfit-benchmark"

MANY = f"""
from dataclasses import replace
from alerts.condition import Ratio
from alerts.policies import CATALOG as OWN
from alerts.policies.api_errors import POLICIES

def at_route(condition, route):
    def of(signal):
        return replace(signal, labels={{**signal.labels, "http.route": route}})
    if isinstance(condition, Ratio):
        condition = replace(condition, denominator=of(condition.denominator))
    return replace(condition, signal=of(condition.signal))

CATALOG = replace(
    OWN,
    name="many",
    policies=tuple(
        replace(
            POLICIES[number % 2],
            subject=f"many-{{number}}",
            conditions=tuple(
                at_route(one, f"/{{number}}") for one in POLICIES[number % 2].conditions
            ),
        )
        for number in range({POLICIES})
    ),
)
"""
"""Every policy has two conditions and three filters of its own."""


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Median wall and CPU seconds; the first run is not counted. CPU is what a busy machine
    does not change.
    """
    wall, cpu = [], []
    for number in range(ROUNDS + 1):
        begin, used = time.perf_counter(), os.times()
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        after = os.times()
        if number:
            wall.append(time.perf_counter() - begin)
            cpu.append(
                after.children_user
                - used.children_user
                + after.children_system
                - used.children_system
            )
    return f"{median(wall):6.2f} s, of which CPU {median(cpu):5.2f} s"


def main() -> None:
    """Print one line a command."""
    folder = Path(tempfile.mkdtemp())
    (folder / "many.py").write_text(MANY, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}:{folder}",
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "PAGERDUTY_ROUTING_KEY_CRITICAL": "c" * 32,
        "PAGERDUTY_ROUTING_KEY_WARNING": "w" * 32,
    }
    with Emulator(EmulatorOptions(port=0, http_port=0)) as emulator:
        at = ("--emulator", emulator.grpc_address)
        tool = (sys.executable, "-m", "alerts")
        many = (*at, "--catalog", "many")
        for where in (at, many):
            _run((*tool, "apply", *where, "--auto-approve"), environment)
        print(f"--help                      {_timed((*tool, '--help'), environment)}")
        print(f"plan, SpeakFit's catalog    {_timed((*tool, 'plan', *at), environment)}")
        print(f"plan, {POLICIES} policies          {_timed((*tool, 'plan', *many), environment)}")
        with unreliable(emulator.grpc_address) as proxy:
            _run((*tool, "plan", "--emulator", proxy.address, "--catalog", "many"), environment)
            reads = ", ".join(f"{count} {name}" for name, count in Counter(proxy.reads).items())
            print(f"its reads                   {reads}")
        if shutil.which("gcloud") is None:
            print("gcloud is not installed; nothing of it was timed")
            return
        listing = ("gcloud", "alpha", "monitoring", "policies", "list", "--format=json", "--quiet")
        theirs = {
            **environment,
            "CLOUDSDK_CONFIG": str(folder),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING": f"{emulator.http_url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        }
        print(f"gcloud alpha policies list  {_timed(listing, theirs)}")


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)


if __name__ == "__main__":
    main()
