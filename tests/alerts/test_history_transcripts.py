"""What people see of record, backtest and plan --behaviour, kept as transcripts.

The commands run in this process: each as a process of its own would take a second.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from alerts.apply import apply_plan
from alerts.cli import main
from alerts.gateway import Gateway
from alerts.history import write_history
from alerts.plan import desired_state, make_plan
from alerts.policies import CATALOG
from speakfit.clock import ManualClock, from_ns
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.metrics import QUEUE_DEPTH, WORKERS_ALIVE
from speakfit.target import Target, TargetKind, alert_policy_client
from tests.alerts.conftest import KEYS, PROJECT, ROOT
from tests.alerts.playback import play
from tests.alerts.test_backtest import BASE, body_of, script
from tests.alerts.test_history import history_of
from tests.alerts.timeline import MINUTE, START, gauge
from tests.alerts.transcript import UPDATE
from tests.alerts.transcript import compare as compare_transcript

Tell = Callable[..., str]

OUTAGES = """
outages:
  - {start: 2026-01-01T00:30:00Z, end: 2026-01-01T00:50:00Z, subject: queue-depth}
  - {start: 2026-01-01T01:00:00Z, end: 2026-01-01T01:15:00Z, note: GPU driver crashed}
  - {start: 2026-01-01T01:20:00Z, end: 2026-01-01T01:30:00Z, subject: api-latency,
     severity: critical}
  - {start: 2026-01-01T02:20:00Z, end: 2026-01-01T02:35:00Z, subject: telemetry-silence}
"""


@pytest.fixture(scope="module")
def played() -> Iterator[Target]:
    """A real emulator with the catalog applied and the scripted three hours written into it.

    Somebody has edited the queue's warning in the console: 90 chunks for two minutes.
    """
    clock = ManualClock(from_ns(START))
    with Emulator(EmulatorOptions(port=0, http_port=0), clock=clock) as emulator:
        target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=emulator.grpc_address)
        with Gateway(target) as gateway:
            desired = desired_state(CATALOG, runbook_base_url=BASE, digests={})
            apply_plan(gateway, make_plan(desired, gateway.read(CATALOG)), keys=KEYS)
        client = alert_policy_client(target)
        for policy in client.list_alert_policies(name=target.project_name):
            if policy.user_labels["alert-id"] == "queue-depth-warning":
                policy.conditions[0].condition_threshold.threshold_value = 90
                policy.conditions[0].condition_threshold.duration = timedelta(minutes=2)
                client.update_alert_policy(alert_policy=policy)
        client.transport.close()
        play(script(), clock, target)
        clock.advance(timedelta(minutes=1))
        yield target


@pytest.fixture
def tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tell:
    """Run a command line in an empty folder and a clean environment; what it shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNBOOK_BASE_URL", BASE)
    for name in ("MONITORING_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def run(line: str, shown: str | None = None) -> str:
        monkeypatch.setattr("sys.argv", ["python -m alerts", *shlex.split(line)])
        with pytest.raises(SystemExit) as exit_code:
            main()
        done = capsys.readouterr()
        assert "Traceback" not in done.err
        errors = "".join(f"! {text}\n" for text in done.err.splitlines())
        command = f"$ python -m alerts {shown or line}\n"
        return f"{command}{done.out}{errors}[exit {exit_code.value.code}]\n\n"

    return run


def test_transcript_of_recording(played: Target, tell: Tell) -> None:
    at = f"--emulator {played.host} --project {PROJECT}"
    session = "".join(
        tell(f"{line} {at}", f"{line} --emulator EMULATOR")
        for line in (
            "record --since 3h",
            "record --since 30m --policy queue-depth-warning --out queue.jsonl.gz --json",
            "record --since tomorrow",
            "record --policy queue-dept-warning",
            "record --out no/such/folder.gz",
        )
    )
    session += tell(
        f"record --emulator {played.host} --project other", "record --emulator EMULATOR"
    )
    with socket.socket() as taken:
        # Bound but not listening: nobody else can serve here, and it refuses connections.
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        session += tell(f"record --emulator {nobody}").replace(nobody, "NOBODY")
    compare_transcript("record", _steady(session.replace(str(played.host), "EMULATOR")))


def test_transcript_of_backtests(played: Target, tell: Tell, tmp_path: Path) -> None:
    at = f"--emulator {played.host} --project {PROJECT}"
    (tmp_path / "outages.yaml").write_text(OUTAGES, encoding="utf-8")
    tell(f"record --since 3h {at}")
    session = tell("backtest --from history.jsonl.gz")
    session += "".join(
        tell(f"{line} {at}", f"{line} --emulator EMULATOR")
        for line in (
            "backtest --since 3h",
            "backtest --from history.jsonl.gz --policy queue-depth-warning --max-missed 1",
            "backtest --since 1h --policy worker-down-critical --json",
        )
    )
    session += tell(
        "backtest --from history.jsonl.gz --incidents outages.yaml --max-missed 1 "
        "--max-pages-per-week 500 --picture found.svg"
    )
    session += tell(
        "backtest --from history.jsonl.gz --offline --policy api-errors-critical "
        "--max-pages-per-week 100"
    )
    assert (tmp_path / "found.svg").read_text(encoding="utf-8").startswith("<svg")
    compare_transcript("backtest", _steady(session.replace(str(played.host), "EMULATOR")))


def test_transcript_of_the_behaviour_of_a_plan(played: Target, tell: Tell, tmp_path: Path) -> None:
    at = f"--emulator {played.host} --project {PROJECT}"
    write_history(
        history_of([gauge(QUEUE_DEPTH, (30, 3), (20, 120), (10, 3))]), tmp_path / "hour.jsonl.gz"
    )
    session = "".join(
        tell(f"{line} {at}", f"{line} --emulator EMULATOR")
        for line in (
            "plan --behaviour --since 3h",
            "plan --behaviour --from hour.jsonl.gz --json",
            "plan --since 3h",
        )
    )
    session += tell(
        f"plan --behaviour --since 3h --emulator {played.host} --project new",
        "plan --behaviour --since 3h --emulator EMULATOR --project new",
    )
    session = session.replace(str(played.host), "EMULATOR")
    compare_transcript("plan-behaviour", _steady(session))


def test_transcript_of_what_cannot_be_replayed(played: Target, tell: Tell, tmp_path: Path) -> None:
    line = gauge(QUEUE_DEPTH, (60, 3))
    whole = tmp_path / "whole.jsonl.gz"
    write_history(history_of([line, gauge(WORKERS_ALIVE, (60, 1))]), whole)
    packed = whole.read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    plain = gzip.decompress(packed)
    (tmp_path / "newer.jsonl").write_bytes(plain.replace(b'"version":1', b'"version":9', 1))
    (tmp_path / "edited.jsonl").write_bytes(plain.replace(b'"values":[3,', b'"values":["3",', 1))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    write_history(replace(history_of([line]), project="other"), tmp_path / "other.jsonl.gz")
    short = history_of([gauge(QUEUE_DEPTH, (5, 3))], end_ns=START + 5 * MINUTE)
    write_history(short, tmp_path / "short.jsonl.gz")
    head, *_ = plain.splitlines(keepends=True)
    (tmp_path / "empty.jsonl").write_bytes(head + b'{"series":0,"points":0}\n')
    (tmp_path / "wrong.json").write_text(
        '[{"displayName": "x", "combine": "AND"}]', encoding="utf-8"
    )
    promql = body_of("queue-depth-warning")
    promql["conditions"] = [{"conditionPrometheusQueryLanguage": {"query": "up == 0"}}]
    (tmp_path / "promql.json").write_text(json.dumps(promql), encoding="utf-8")
    (tmp_path / "outages.yaml").write_text("outages: [{start: noon}]", encoding="utf-8")
    session = "".join(
        tell(f"backtest {line}")
        for line in (
            "--from cut.jsonl.gz",
            "--from newer.jsonl",
            "--from edited.jsonl",
            "--from photo.png",
            "--from missing.jsonl.gz",
            "--from short.jsonl.gz --policy queue-depth-warning",
            "--from empty.jsonl --policy queue-depth-warning",
            "--from whole.jsonl.gz --policy queue-depth-warning --current promql.json "
            "--max-missed 0",
            "--from whole.jsonl.gz --current promql.json",
            "--from whole.jsonl.gz --current wrong.json",
            "--from whole.jsonl.gz --incidents outages.yaml",
            "--from whole.jsonl.gz --policy queue-depth",
            "--from whole.jsonl.gz --since yesterday",
            "--from whole.jsonl.gz --every 0s",
            "--from whole.jsonl.gz --max-missed 1",
            "--from whole.jsonl.gz --picture found.gif",
            "--from whole.jsonl.gz --offline --project other",
            "--offline",
            "--since 1h",
        )
    )
    session += tell(
        f"backtest --from other.jsonl.gz --emulator {played.host} --project {PROJECT}",
        f"backtest --from other.jsonl.gz --emulator EMULATOR --project {PROJECT}",
    ).replace(str(played.host), "EMULATOR")
    compare_transcript("backtest-refused", session)


def _steady(session: str) -> str:
    """Ports have four or five digits, so the size of a packed file differs by some bytes."""
    session = re.sub(r"\(\d+\.\d kB\)", "(SIZE)", session)
    session = re.sub(r'"bytes": \d+', '"bytes": SIZE', session)
    return re.sub(r"projects/[a-z-]+/(alertPolicies|notificationChannels)/\d+", "NAME", session)


def test_every_block_of_the_page_on_backtesting_runs(
    played: Target, tell: Tell, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "backtesting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    (outages,) = (text for kind, text in blocks if kind == "yaml")
    (tmp_path / "outages.yaml").write_text(outages, encoding="utf-8")
    said = ""
    for line in [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]:
        words = line.removeprefix("python -m alerts ").replace("--since 30d", "--since 3h")
        if "--offline" not in words and not words.startswith("export"):
            words += f" --emulator {played.host} --project {PROJECT}"
        if words.startswith("plan --behaviour --em"):
            words = words.replace("--behaviour", "--behaviour --since 3h")
        told = tell(words, line)
        # 2 is what plan answers when there is something to do.
        assert told.endswith("[exit 2]\n\n" if words.startswith("plan") else "[exit 0]\n\n"), told
        said += told
    for text in (text for kind, text in blocks if kind == "text"):
        assert text in said
    drawn = (tmp_path / "backtest.svg").read_text(encoding="utf-8")
    kept = ROOT / "docs" / "backtesting.svg"
    if UPDATE:
        kept.write_text(drawn, encoding="utf-8")
    assert drawn == kept.read_text(encoding="utf-8"), "docs/backtesting.svg: `make snapshots`"
