"""The main job end to end, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("drill", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.timeout(240)
def test_the_demo_tells_the_whole_loop_and_ends_well(tmp_path: Path, drill: bool) -> None:
    command = [sys.executable, "-m", "speakfit_ops.demo", "--data-dir", str(tmp_path / "demo")]
    done = subprocess.run(
        command if drill else [*command, "--no-drill"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    chapter = ("a drill: ", "put right by the runbook's own blocks", "one page beside the drill's")
    steps = (
        "SpeakFit is up",
        "metrics arrive",
        "alerts planned: Plan: 14 to create",
        "alerts applied: Applied 14 changes",
        "planned again: No changes",
        "contract kept: all ",
        "transcript after",
        "worker killed with SIGKILL",
        "PagerDuty is paged",
        "a new worker is up",
        "the interrupted recording is complete",
        "PagerDuty incident resolved",
        *(chapter if drill else ()),
        ", the right one; nobody else was woken",
    )
    places = [told.find(step) for step in steps]
    assert -1 not in places, f"missing: {steps[places.index(-1)]}\n{told}"
    assert places == sorted(places)
    # Five minutes of policy time without a worker are the least that may page.
    waited = re.search(r"SIGKILL to page, policy time +(\d+) min", told)
    assert waited is not None
    assert 5 <= int(waited[1]) <= 11
    assert not (tmp_path / "demo").exists(), "a good run leaves no data behind"


def test_a_recording_that_does_not_exist_is_named_before_anything_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "speakfit_ops.demo", "--audio", str(tmp_path / "none.wav")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "The recording does not exist" in done.stderr
    assert "none.wav" in done.stderr
    assert list(tmp_path.iterdir()) == []
