"""What a gate refuses before it sends anything, and what its report says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from alerts.gateway import Gateway
from alerts.policies import CATALOG
from loadtest.capacity import HOURS_A_MONTH, WORKERS, Sizes, read_sizes
from loadtest.cli import main
from loadtest.gate import Aim, Gate
from loadtest.report import JSON_FILE, JUNIT_FILE, Report, write_report
from loadtest.scenarios import find_scenario
from loadtest.telemetry import Telemetry
from loadtest.verdict import Verdict, judge
from speakfit.clock import RealClock
from speakfit.errors import LoadError
from speakfit.settings import Settings
from speakfit.target import Target, TargetKind
from tests.conftest import ROOT, free_port
from tests.loadtest.test_verdict import a_run, page
from tests.recording_monitoring import until


def gate(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["loadtest", "gate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_what_must_not_be_loaded_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("LOADTEST_ALLOWED_HOSTS", raising=False)
    away = ("--target", "https://speakfit.example")
    assert gate(monkeypatch, "nonesuch") == 64
    assert "nonesuch" in capsys.readouterr().err
    assert gate(monkeypatch, "steady", *away, "--auto-approve") == 5
    assert "LOADTEST_ALLOWED_HOSTS" in capsys.readouterr().err
    monkeypatch.setenv("LOADTEST_ALLOWED_HOSTS", "speakfit.example")
    # Allowed, but nobody is there to confirm it.
    assert gate(monkeypatch, "steady", *away) == 5
    assert "Nobody confirmed" in capsys.readouterr().err
    local = ("--target", f"http://127.0.0.1:{free_port()}", "--report", str(tmp_path))
    assert gate(monkeypatch, "steady", *local, "--rate-factor", "50") == 5
    assert "--max-rate" in capsys.readouterr().err
    assert gate(monkeypatch, "steady", *local) == 1
    assert "does not answer" in capsys.readouterr().err
    assert gate(monkeypatch, "steady", *local, "--compare", str(tmp_path / "none.json")) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_interrupted_it_reports_what_was_measured_calls_it_invalid_and_leaves_nothing(
    tmp_path: Path, server_dir: Path
) -> None:
    log, report = tmp_path / "gate.log", tmp_path / "report"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "gate", "steady", "ramp", "--report", str(report)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
                # Where its stack lives.
                "TMPDIR": str(server_dir),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ledger = report / "steady.locust.log"
        until(ledger.exists, 120, "the load")
        family = psutil.Process(process.pid).children(recursive=True)
        (api_log,) = server_dir.glob("speakfit-gate-*/data/logs/api.log")

        def answered() -> int:
            return api_log.read_text(encoding="utf-8").count('"message": "request"')

        # A few of the 1,080 that it would send, beyond those that prepare.
        before = answered()
        until(lambda: answered() > before + 200, 40, "some load")
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 6, log.read_text()
    finally:
        process.kill()
        process.wait()
    data = json.loads((report / JSON_FILE).read_text(encoding="utf-8"))
    assert data["verdict"] == "INVALID"
    (run,) = data["runs"]
    assert (run["scenario"], run["verdict"]) == ("steady", "INVALID")
    assert run["answered"] > 50
    assert not [one for one in family if runs(one)]


def runs(process: psutil.Process) -> bool:
    """Whether it still does something; whose parent is gone may wait to be collected."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_report_is_whole_by_itself_and_can_be_compared(tmp_path: Path) -> None:
    run = a_run()
    bad = judge(type(run)(**{**run.__dict__, "pages": (page("worker-down-critical", 9.0, None),)}))
    assert bad.verdict is Verdict.NO_GO
    report = Report.of(
        [bad],
        verdict=Verdict.NO_GO,
        target="http://127.0.0.1:1/<script>",
        began=0.0,
        seconds=60.0,
        seed=1,
        sizes=Sizes(),
    )
    write_report(report, tmp_path, earlier=None)
    again = Report.read(tmp_path / JSON_FILE)
    assert json.dumps(again.data) == json.dumps(report.data)
    text = write_report(report, tmp_path, earlier=again).read_text(encoding="utf-8")
    assert "NO-GO" in text
    assert "Compared with" in text
    assert "worker-down-critical" in text
    # Nothing is fetched from anywhere, and nothing that was measured becomes markup.
    assert re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"|url\(|@import|<script", text) == []
    suite = ElementTree.parse(tmp_path / JUNIT_FILE).getroot()
    failed = [
        case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == ["no false page", "verdict"]


def test_a_scenario_that_could_not_be_measured_is_invalid_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    """Before: the first error ended the gate without a report."""
    away = Target(kind=TargetKind.EMULATOR, project="p", host=f"127.0.0.1:{free_port()}")
    with Gateway(away, sleep=lambda _: None) as gateway:
        gate = Gate(
            aim=Aim(url="http://127.0.0.1:1"),
            telemetry=Telemetry(
                gateway=gateway, catalog=CATALOG, settings=Settings(), clock=RealClock()
            ),
            folder=tmp_path,
            say=lambda _: None,
        )
        found = gate.run([find_scenario("steady"), find_scenario("spike")])
    assert [one.verdict for one in found] == [Verdict.INVALID] * 2
    for one in found:
        assert any("does not answer" in check.told for check in one.checks if check.invalid)


def test_costs_rest_on_the_workers_that_their_sizes_pay_for(tmp_path: Path) -> None:
    text = (ROOT / "terraform" / "sizes.tf").read_text(encoding="utf-8")
    always = [int(one) for one in re.findall(r"min_replicas\s*=\s*(\d+)", text)]
    scheduled = re.findall(r"(\d+) hours a month instead of 730", text)
    # Where none always works, the schedule brings one.
    assert list(WORKERS.values()) == [one or 1 for one in always]
    assert [one for one in HOURS_A_MONTH.values() if one != 730] == [int(scheduled[0])]
    costs = tmp_path / "costs.json"
    costs.write_text('[{"size": "gigantic", "total": 1}]', encoding="utf-8")
    with pytest.raises(LoadError, match="gigantic"):
        read_sizes(costs)
