"""SpeakFit's own catalog has nothing that a rule would find, or says for how long and why."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.alerts.conftest import ROOT


def test_our_own_catalog_is_clean() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alerts", "lint", "--fail-on", "note"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "platform:."},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
