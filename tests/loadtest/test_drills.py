"""Drills: what is proven and what is not any more, and what the command says to bad input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from alerts.catalog import load_catalog
from loadtest.cli import main
from loadtest.drill_record import (
    RUNBOOKS,
    DrillRecord,
    policy_hash,
    read_records,
    runbook_hash,
    unproven,
    write_records,
)
from loadtest.drills import DRILLS, silence
from loadtest.faults.journal import JOURNAL, Journal
from loadtest.local_stack import LocalStack, find_stack
from loadtest.scene import Scene
from speakfit.audio import probe
from speakfit.errors import FaultError
from speakfit.runbook import BEGIN, Kind, Place, read_runbook

CATALOG = load_catalog("alerts.policies")


def records() -> list[DrillRecord]:
    """A passing drill of every policy, as it is now."""
    return [
        DrillRecord(
            policy=policy.id,
            fault="a fault",
            detect_seconds=300,
            resolve_seconds=60,
            blocks=("look", "mend"),
            commit="0123456789ab",
            date="2026-11-25",
            time_scale=20,
            policy_hash=policy_hash(policy, CATALOG),
            runbook_hash=runbook_hash(policy),
        )
        for policy in CATALOG.policies
    ]


def test_every_policy_has_a_drill_and_every_drill_a_policy() -> None:
    assert set(DRILLS) == {policy.subject for policy in CATALOG.policies}


def test_every_fix_that_a_drill_runs_stands_in_its_runbook() -> None:
    for drill in DRILLS.values():
        page = read_runbook(RUNBOOKS / f"{drill.subject}.md")
        known = {block.name for block in page.at(Place.LOCAL, Kind.FIX)}
        assert set(drill.fixes) <= known, drill.subject
        assert page.at(Place.LOCAL, Kind.CHECK), drill.subject
        assert page.at(Place.LOCAL, Kind.VERIFY), drill.subject


def test_every_policy_is_proven_by_a_drill() -> None:
    todo = "`python -m loadtest drill --all`, then `make docs`"
    assert unproven(CATALOG, read_records()) == [], todo


def test_a_record_holds_for_the_policy_and_the_page_as_they_were(tmp_path: Path) -> None:
    pages = shutil.copytree(RUNBOOKS, tmp_path / "runbooks")
    proven = records()
    assert unproven(CATALOG, proven, pages) == []

    latency = pages / "api-latency.md"
    text = latency.read_text(encoding="utf-8")
    latency.write_text(text.replace(BEGIN, BEGIN + "\n\nDrilled in 4 min."), encoding="utf-8")
    assert unproven(CATALOG, proven, pages) == [], "the generated header shows the drill itself"

    latency.write_text(text + "\nOne more step.\n", encoding="utf-8")
    told = "runbooks/api-latency.md has changed since its drill of 2026-11-25."
    assert unproven(CATALOG, proven, pages) == [
        f"api-latency-warning: {told}",
        f"api-latency-critical: {told}",
    ]


def test_a_changed_policy_and_one_without_a_drill_are_told() -> None:
    policies = CATALOG.policies
    changed = replace(policies[0], auto_close=timedelta(hours=2))
    catalog = replace(CATALOG, policies=(changed, *policies[1:]))
    proven = [record for record in records() if record.policy != policies[1].id]
    assert unproven(catalog, proven) == [
        f"{changed.id}: the policy has changed since its drill of 2026-11-25.",
        f"{policies[1].id}: no drill was ever passed.",
    ]
    assert unproven(replace(CATALOG, policies=policies[1:]), records()) == [
        f"{policies[0].id}: recorded, but no policy of the catalog."
    ]


def test_records_are_kept_and_replaced_by_policy(tmp_path: Path) -> None:
    file = tmp_path / "drills.json"
    first, second = records()[:2]
    assert read_records(file) == ()
    write_records([first, second], file)
    again = replace(first, commit="ba9876543210")
    write_records([again], file)
    assert set(read_records(file)) == {again, second}
    file.write_text('[{"policy": "x"}]', encoding="utf-8")
    with pytest.raises(FaultError, match="damaged"):
        read_records(file)


def test_the_flood_is_two_recordings_beyond_the_critical_limit(tmp_path: Path) -> None:
    file = tmp_path / "silence.flac"
    file.write_bytes(silence(timedelta(minutes=3)))
    assert probe(file).duration == timedelta(minutes=3)


def loadtest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("drill", "worker-dwn"), "Did you mean worker-down"),
        (("drill",), "Which policies are to be drilled?"),
        (("drill", "worker-down", "--stack", "."), "No stack is running here."),
    ],
)
def test_bad_input_is_one_message_and_exit_code_1(
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["loadtest", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert (ended.value.code, says in told) == (1, True), told


def test_a_pagerduty_that_does_not_answer_is_told_with_its_address(tmp_path: Path) -> None:
    stack = LocalStack(
        folder=tmp_path,
        scale=20,
        environment={"PAGERDUTY_API_URL": "http://127.0.0.1:9", "PAGERDUTY_API_TOKEN": "local"},
        parts={},
    )
    scene = Scene(stack=stack, journal=Journal(folder=tmp_path), stopping=threading.Event())
    with pytest.raises(FaultError, match="PagerDuty cannot be asked") as told:
        scene.pages()
    assert told.value.where == "http://127.0.0.1:9"


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_a_drill_its_fault_is_healed(tmp_path: Path, ending: signal.Signals) -> None:
    lane = tmp_path / ".speakfit" / "drills" / "lane-1"
    drill = subprocess.Popen(
        [sys.executable, "-m", "loadtest", "drill", "queue-depth", "--no-record"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert drill.stdout is not None
    said = []
    for line in drill.stdout:
        said.append(line)
        if "fault:" in line:
            break
    made = (lane / JOURNAL).exists()
    drill.send_signal(ending)
    drill.wait(60)
    drill.stdout.close()
    assert made, "".join(said)
    stack = find_stack(lane)
    if ending is signal.SIGINT:
        assert stack is None, "the stack is stopped, too"
        assert not (lane / JOURNAL).exists()
        return
    assert stack is not None
    family = stack.part("worker").family()
    assert any(one.status() == psutil.STATUS_STOPPED for one in family)
    try:
        healed = loadtest("heal", cwd=tmp_path)
        assert "SIGSTOP of the children of worker" in healed.stdout, healed.stderr
        deadline = time.monotonic() + 10
        while any(one.status() == psutil.STATUS_STOPPED for one in family):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "Nothing was left" in loadtest("heal", cwd=tmp_path).stdout
    finally:
        down = [sys.executable, "-m", "speakfit_ops.stack", "down", "--data-dir", str(lane)]
        subprocess.run(down, check=True, capture_output=True)
