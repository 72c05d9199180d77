"""The stack as a whole: up, watched, down, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from sqlalchemy import create_engine, text

from speakfit.errors import StackError
from speakfit_ops.stack import Ports, Stack, is_process, read_record

ROOT = Path(__file__).resolve().parents[2]
FREE_PORTS = (
    *("--api-port", "0", "--monitoring-port", "0"),
    *("--console-port", "0", "--runbooks-port", "0"),
)


def stack_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "speakfit_ops.stack", *arguments]


def wait_until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`make up` in a process of its own, on free ports, ready."""
    folder = tmp_path / "data"
    process = subprocess.Popen(
        stack_command("up", "--data-dir", str(folder), *FREE_PORTS),
        cwd=ROOT,
        # A proxy that nothing on loopback may be asked through.
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "SpeakFit is up" in line:
            break
    else:
        process.wait(60)
        process.stdout.close()
        pytest.fail(said)
    yield process, folder
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    process.stdout.close()


def processes_of(folder: Path) -> list[dict[str, object]]:
    record = read_record(folder / "stack.json")
    assert record is not None
    return list(record["parts"].values())


def family(folder: Path) -> list[psutil.Process]:
    """Every process of the stack, the workers' children included."""
    roots = [psutil.Process(int(str(part["pid"]))) for part in processes_of(folder)]
    return roots + [child for root in roots for child in root.children(recursive=True)]


def is_alive(member: psutil.Process) -> bool:
    return member.is_running() and member.status() != psutil.STATUS_ZOMBIE


def test_down_leaves_no_process_behind(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = running
    everyone = family(folder)
    assert len(everyone) >= 6
    record = folder / "stack.json"
    assert "PAGERDUTY_ROUTING_KEY_CRITICAL" in json.loads(record.read_text())["environment"]
    assert record.stat().st_mode & 0o077 == 0, "it holds secrets"
    done = subprocess.run(
        stack_command("down", "--data-dir", str(folder)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert process.wait(30) == 0
    assert [member.pid for member in everyone if is_alive(member)] == []
    assert not (folder / "stack.json").exists()


def test_a_part_that_dies_is_reported_with_the_end_of_its_log(
    running: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = running
    record = read_record(folder / "stack.json")
    assert record is not None
    everyone = family(folder)
    api = record["parts"]["api"]
    address = record["parts"]["runbooks"]["address"]
    assert requests.get(f"http://{address}/worker-down", timeout=5).status_code == 200
    with Path(api["log"]).open("a", encoding="utf-8") as log:
        log.write("the last thing it said\n")
    os.kill(api["pid"], signal.SIGKILL)
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(60) == 1
    assert "api ended with exit code -9" in said
    assert "the last thing it said" in said
    assert [member.pid for member in everyone if is_alive(member)] == []


def visits(environment: dict[str, str]) -> int:
    """Count this visit, in the stack's own database, and all before it."""
    engine = create_engine(environment["DATABASE_URL"])
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS visits (at timestamptz)"))
            connection.execute(text("INSERT INTO visits VALUES (now())"))
            return int(connection.execute(text("SELECT count(*) FROM visits")).scalar_one())
    finally:
        engine.dispose()


@pytest.mark.slow
def test_a_stack_starts_again_with_its_data_after_its_supervisor_was_killed(
    running: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = running
    record = read_record(folder / "stack.json")
    assert record is not None
    second = Stack(folder=folder, ports=Ports(api=int(record["environment"]["PORT"])))
    with pytest.raises(StackError, match="already runs"):
        second.start()
    second.stop()
    assert read_record(folder / "stack.json") == record, "who was refused must touch nothing"
    assert visits(record["environment"]) == 1
    process.kill()
    process.wait(10)
    assert all(is_process(part) for part in record["parts"].values()), "the parts outlive it"
    second.start()
    try:
        assert not any(is_process(part) for part in record["parts"].values())
        assert visits(second.environment) == 2
        assert (folder / "api-key").stat().st_mode & 0o077 == 0
        key = record["environment"]["SPEAKFIT_API_KEY"]
        assert second.environment["SPEAKFIT_API_KEY"] == key, "a shell that has it may go on"
        answer = requests.get(
            f"http://127.0.0.1:{second.ports.api}/v1/recordings/none",
            headers={"Authorization": f"Bearer {key}"},
            timeout=10,
        )
        assert answer.status_code == 404, "known to the API; without a key it would be 401"
    finally:
        second.stop()


def test_a_folder_of_something_else_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(StackError, match="something else"):
        Stack(folder=tmp_path).start(anew=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", [("speakfit_ops.stack", "down"), ("alerts", "plan")])
def test_a_damaged_record_is_named_without_a_traceback(
    tmp_path: Path, command: tuple[str, str]
) -> None:
    (tmp_path / ".speakfit").mkdir()
    (tmp_path / ".speakfit" / "stack.json").write_text('{"pi')
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def started_for(folder: Path) -> list[list[str]]:
    """Command lines of the living processes that got this stack's settings."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AUDIO_DIR") == str(folder / "audio"):
                found.append(process.cmdline())
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGHUP,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_whatever_ends_the_demo_leaves_no_process_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "demo"
    demo = subprocess.Popen(
        [sys.executable, "-m", "speakfit_ops.demo", "--data-dir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def has_parts() -> bool:
        try:
            record = read_record(folder / "stack.json")
        except StackError:
            return False
        return record is not None and len(record["parts"]) >= 4

    wait_until(has_parts)
    everyone = family(folder)
    demo.send_signal(number)
    wait_until(lambda: not all(is_alive(member) for member in everyone))
    demo.send_signal(number)
    assert demo.wait(60) == 130
    assert [member.pid for member in everyone if is_alive(member)] == []
    assert started_for(folder) == [], "a part that was just starting is left behind"


def test_a_port_in_use_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            stack_command("up", "--data-dir", str(tmp_path), *FREE_PORTS, "--api-port", str(port)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"api cannot have port {port}" in done.stderr
    assert "--api-port" in done.stderr
    assert not (tmp_path / "stack.json").exists()
