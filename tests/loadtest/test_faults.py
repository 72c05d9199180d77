"""Faults of processes are made and healed, also when whoever made them was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest

from loadtest.faults.fault import Fault, FullDisk, LostAudio, Paused
from loadtest.faults.journal import JOURNAL, heal_left, held
from loadtest.local_stack import LocalStack, require_stack
from speakfit.errors import FaultError

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys, time
while True:
    try:
        with open(sys.argv[1], "w") as out:
            out.write("x" * 100)
        said = "written"
    except OSError as error:
        said = error.strerror
    print(said, flush=True)
    time.sleep(0.02)
"""


class Part:
    """A process that the record calls `api`, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder / "file")],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seen = psutil.Process(self.process.pid)

    def says(self, word: str) -> bool:
        """Whether it says a word within a while."""
        assert self.process.stdout is not None
        return any(line.strip() == word for line in islice(self.process.stdout, 200))


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = Part(tmp_path)
    me = psutil.Process()
    record = {
        "pid": me.pid,
        "born": me.create_time(),
        "scale": 1,
        "environment": {"AUDIO_DIR": str(tmp_path / "audio")},
        "parts": {"api": {"pid": part.seen.pid, "born": part.seen.create_time()}},
    }
    (tmp_path / "stack.json").write_text(json.dumps(record), encoding="utf-8")
    yield part
    part.process.kill()
    part.process.wait()
    assert part.process.stdout is not None
    part.process.stdout.close()


def until_status(part: Part, status: str) -> None:
    deadline = time.monotonic() + 10
    while part.seen.status() != status:
        assert time.monotonic() < deadline, part.seen.status()
        time.sleep(0.01)


def is_stopped(part: Part) -> bool:
    return part.seen.status() == psutil.STATUS_STOPPED


def test_a_full_disk_is_met_by_the_part_alone_and_heals(part: Part, tmp_path: Path) -> None:
    stack = require_stack(tmp_path)
    with held(stack) as journal:
        with journal.wrong(FullDisk(part="api")):
            assert part.says("File too large")
            (tmp_path / "mine").write_text("others can write", encoding="utf-8")
        assert part.says("written")


def test_what_is_wrong_is_healed_whatever_ends_the_block(part: Part, tmp_path: Path) -> None:
    def interrupted() -> None:
        with held(require_stack(tmp_path)) as journal, journal.wrong(Paused(part="api")):
            until_status(part, psutil.STATUS_STOPPED)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_stopped(part)
    assert not (tmp_path / JOURNAL).exists()


KILLED = """
import sys, time
from pathlib import Path
from loadtest.faults.fault import Paused, LostAudio
from loadtest.faults.journal import held
from loadtest.local_stack import require_stack
folder = Path(sys.argv[1])
with held(require_stack(folder)) as journal:
    journal.make(Paused(part="api"))
    journal.make(LostAudio(store=str(folder / "audio")))
    print("made", flush=True)
    time.sleep(60)
"""


def kill_amid_faults(folder: Path) -> None:
    """Make faults in a process and kill it with SIGKILL."""
    (folder / "audio" / "ab").mkdir(parents=True)
    (folder / "audio" / "ab" / "speech").write_text("speech", encoding="utf-8")
    maker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    with pytest.raises(FaultError, match="Another process"), held(require_stack(folder)):
        pass
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()


def test_the_next_start_heals_what_a_killed_run_left_behind(part: Part, tmp_path: Path) -> None:
    kill_amid_faults(tmp_path)
    assert is_stopped(part)
    assert not (tmp_path / "audio" / "ab").exists()
    with held(require_stack(tmp_path)) as journal:
        assert journal.faults == []
        until_status(part, psutil.STATUS_SLEEPING)
    assert (tmp_path / "audio" / "ab" / "speech").read_text(encoding="utf-8") == "speech"


def test_heal_tells_what_it_healed_and_works_without_a_stack(part: Part, tmp_path: Path) -> None:
    kill_amid_faults(tmp_path)
    (tmp_path / "stack.json").unlink()
    part.seen.send_signal(signal.SIGCONT)
    assert [fault.text for fault in heal_left(tmp_path)] == [
        "the audio store empty",
        "SIGSTOP of api",
    ]
    assert (tmp_path / "audio" / "ab" / "speech").exists()
    assert heal_left(tmp_path) == []


def test_a_fault_that_cannot_be_healed_stays_written_down(part: Part, tmp_path: Path) -> None:
    class Stubborn(Paused):
        def heal(self, stack: LocalStack) -> None:
            raise FaultError("It does not heal.")

    faults: list[Fault] = [LostAudio(store=str(tmp_path / "audio")), Stubborn(part="api")]
    (tmp_path / "audio").mkdir()

    def make_all() -> None:
        with held(require_stack(tmp_path)) as journal:
            for fault in faults:
                journal.make(fault)

    with pytest.raises(FaultError, match="does not heal"):
        make_all()
    left = json.loads((tmp_path / JOURNAL).read_text(encoding="utf-8"))
    assert [one["kind"] for one in left] == ["paused"]
    assert len(heal_left(tmp_path)) == 1
    until_status(part, psutil.STATUS_SLEEPING)


def test_a_damaged_journal_says_what_to_do(part: Part, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('[{"kind": "locusts"}]', encoding="utf-8")
    with pytest.raises(FaultError, match="cannot be read"):
        heal_left(tmp_path)


def test_without_a_stack_one_is_told_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match="No stack is running here") as told:
        require_stack(tmp_path)
    assert "--faults" in told.value.todo
