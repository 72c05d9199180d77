"""Checkov has nothing to say beyond what terraform/.checkov.yaml gives a reason for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speakfit_ops.infra.estate import ROOT
from tests.terraform.conftest import Applied

VERSION = "3.3.30"


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In an environment of its own: it is 290 MB and pins a hundred packages of its own."""
    folder = tmp_path_factory.mktemp("checkov")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [pip] = (ROOT.parent / "scripts").glob("pip-*.whl")
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"checkov=={VERSION}"],
        env={**os.environ, "PYTHONPATH": str(pip), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
    )
    return folder / "bin" / "checkov"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checkov_finds_nothing_that_was_not_weighed(
    checkov: Path, applied: Applied, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(applied.plan), encoding="utf-8")
    done = subprocess.run(
        [checkov, "--file", plan, "--config-file", ROOT / ".checkov.yaml", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    # With nothing left to fail it answers with a summary alone.
    failed = report.get("results", {}).get("failed_checks", ())
    assert [(found["check_id"], found["resource"]) for found in failed] == []
    summary = report.get("summary", report)
    assert (summary["failed"], summary["parsing_errors"]) == (0, 0)
    assert summary["passed"] > 50
