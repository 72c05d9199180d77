"""Every check and verify of every page on a real local stack, and `run` from end to end."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from speakfit.pagerduty import PagerDutyApi
from speakfit.runbook import Kind, Place, Runbook, block_environment, run_block
from speakfit_ops.runbook.shelf import FOLDER, ROOT, find_runbook, subjects
from speakfit_ops.stack import read_record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("runbooks")]

SPEECH = ROOT / "platform" / "speakfit_ops" / "samples"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack of its own process, as `make up` has it, that restarts parts when asked."""
    folder: Path = tmp_path_factory.mktemp("runbooks") / "stack"
    ports = [word for one in ("api", "monitoring", "console", "runbooks")
             for word in (f"--{one}-port", "0")]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "speakfit_ops.stack", "up", "--data-dir", str(folder), *ports],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "data and logs" in line:
            break
    else:
        pytest.fail(f"no stack: {process.wait()}")
    done = subprocess.run(
        [sys.executable, "-m", "alerts", "apply", "--auto-approve"],
        env=settings(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    process.wait(60)


def settings(folder: Path) -> dict[str, str]:
    record = read_record(folder / "stack.json")
    assert record is not None
    return block_environment(record["environment"])


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`run` as a person begins it: the shell knows nothing of a stack."""
    return subprocess.run(
        [sys.executable, "-m", "speakfit_ops.runbook", "run", *arguments,
         "--data-dir", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def read_only(page: Runbook) -> list[str]:
    return [block.name for block in page.at(Place.LOCAL, Kind.CHECK, Kind.VERIFY)]


@pytest.mark.parametrize("subject", [one for one in subjects(FOLDER) if one != "shell"])
def test_every_check_and_verify_of_a_page_passes_on_a_healthy_stack(
    stack: Path, subject: str
) -> None:
    page, environment = find_runbook(subject), settings(stack)
    failed = []
    for block in page.at(Place.LOCAL, Kind.CHECK, Kind.VERIFY):
        outcome = run_block(block, environment)
        if not outcome.passed:
            failed.append(f"{block.name} ended with {outcome.exit_code}:\n{outcome.output}")
    assert read_only(page)
    assert not failed, "\n".join(failed)


def test_every_fix_that_asks_for_nothing_leaves_a_stack_that_verifies(stack: Path) -> None:
    pages = [find_runbook(subject) for subject in subjects()]
    fixes = {
        block.text: block
        for page in pages
        for block in page.at(Place.LOCAL, Kind.FIX)
        if not block.asks
    }
    assert len(fixes) > 8
    for block in fixes.values():
        outcome = run_block(block, settings(stack))
        assert outcome.passed, f"{block.name} ended with {outcome.exit_code}:\n{outcome.output}"
    done = run(stack, "worker-down", "--yes", "--no-note", "--wait", "2m")
    assert done.returncode == 0, done.stdout + done.stderr


def open_incident(folder: Path, policy: str) -> tuple[PagerDutyApi, str]:
    """An incident of one of our policies, as the notifier would have opened it."""
    environment = settings(folder)
    session = requests.Session()
    session.trust_env = False
    answer = session.post(
        f"{environment['PAGERDUTY_EVENTS_URL']}/v2/enqueue",
        json={
            "routing_key": environment["PAGERDUTY_ROUTING_KEY_CRITICAL"],
            "event_action": "trigger",
            "dedup_key": policy,
            "payload": {
                "summary": "a test",
                "source": "tests",
                "severity": "critical",
                "component": policy,
            },
        },
        timeout=10,
    )
    assert answer.status_code == 202, answer.text
    api = PagerDutyApi(environment["PAGERDUTY_API_URL"], "local")
    return api, next(one.id for one in api.incidents() if one.dedup_key == policy)


def notes(folder: Path, incident: str) -> list[str]:
    session = requests.Session()
    session.trust_env = False
    answer = session.get(
        f"{settings(folder)['PAGERDUTY_API_URL']}/incidents/{incident}/notes",
        headers={"Authorization": "Token token=local"},
        timeout=10,
    )
    return [note["content"] for note in answer.json()["notes"]]


def test_what_was_done_is_noted_on_the_open_incident(stack: Path) -> None:
    api, incident = open_incident(stack, "worker-down-critical")
    with api:
        done = run(stack, "worker-down", "--yes", "--fix", "restart-worker")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Noted on PagerDuty's {incident}." in done.stdout
        [note] = notes(stack, incident)
        assert note.startswith("Runbook worker-down (local), ")
        assert "- check last-seen: done\n" in note
        assert "- fix restart-worker: done\n" in note
        assert "- verify workers-live: done" in note
        refused = run(stack, "worker-down", "--yes", "--from", "nobody@example.com")
        assert refused.returncode == 0
        assert "Requester User Not Found" in refused.stderr
        assert "The note is kept in" in refused.stdout


def test_nothing_is_run_where_it_cannot_be(stack: Path, tmp_path: Path) -> None:
    none = run(tmp_path, "worker-down", "--yes")
    assert none.returncode == 1
    assert "No stack is running here" in none.stderr or "No Cloud Monitoring" in none.stderr
    unknown = run(stack, "worker-done", "--yes")
    assert unknown.returncode == 1
    assert "Did you mean worker-down" in unknown.stderr
    assert run(stack, "shell", "--yes").returncode == 1
    asking = run(stack, "dead-letters", "--yes", "--fix", "retry")
    assert (asking.returncode, "Not filled in: ID" in asking.stderr) == (5, True)
    alone = run(stack, "worker-down", "--fix", "restart-worker")
    assert (alone.returncode, "Nobody can be asked here" in alone.stderr) == (5, True)
    shown = run(stack, "worker-down", "--dry-run")
    assert (shown.returncode, "Nothing was run." in shown.stdout) == (0, True)
    assert "fix restart-worker (changes something" in shown.stdout
    wrong = run(stack, "worker-down", "--set", "nothing")
    assert wrong.returncode == 64


def test_production_is_asked_step_by_step_and_ctrl_c_tells_what_was_not_done(
    tmp_path: Path,
) -> None:
    """At a terminal; the shell's API is nowhere, so nothing can be reached, and nothing is."""
    leader, follower = pty.openpty()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MONITORING_EMULATOR_HOST", "PAGERDUTY_API_TOKEN")
    } | {"API_URL": "http://127.0.0.1:9", "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "speakfit_ops.runbook", "run", "api-errors", "--project", "x",
         "--data-dir", str(tmp_path)],
        stdin=follower, stdout=follower, stderr=follower, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    heard = ""

    def hear(words: str) -> None:
        nonlocal heard
        deadline = time.monotonic() + 60
        while words not in heard:
            assert time.monotonic() < deadline, heard
            if select.select([leader], [], [], 1)[0]:
                heard += os.read(leader, 4096).decode()

    try:
        hear("[q]uit")
        assert "Target: production, project x" in heard
        assert "check api-answers (only reads" in heard
        os.write(leader, b"r\n")
        hear("| no answer")
        heard = heard.split("| no answer")[-1]
        hear("[q]uit")
        # One that comes just before the answer is read is seen with the next.
        for _ in range(30):
            process.send_signal(signal.SIGINT)
            if select.select([leader], [], [], 2)[0]:
                break
        hear("not reached: ")
        hear("Nothing was changed.")
        assert "Interrupted." in heard
        hear("No note was written")
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
        os.close(leader)
