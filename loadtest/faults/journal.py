"""What is wrong with a stack on purpose, written down before it is made.

A run that is killed leaves its journal in the stack's folder; the next start, or
`python -m loadtest heal`, heals what stands in it. Only one process makes faults at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.faults.fault import Fault, LostAudio, parse_fault
from loadtest.local_stack import LocalStack, find_stack, require_stack
from speakfit.errors import FaultError

JOURNAL = "faults.json"
_LOCK = "faults.lock"


@dataclass(kw_only=True)
class Journal:
    """The faults of the stack in a folder; `held` gives one."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.folder / JOURNAL

    def make(self, fault: Fault) -> None:
        """Write a fault down, then make it."""
        self.faults.append(fault)
        self._write()
        fault.make(require_stack(self.folder))
        # Making it may have taught it something.
        self._write()

    def heal(self) -> list[Fault]:
        """Heal everything, the newest first, and give what was healed.

        What cannot be healed stays written down and is a FaultError once all others are.
        """
        healed: list[Fault] = []
        trouble: FaultError | None = None
        for fault in reversed(list(self.faults)):
            stack = find_stack(self.folder)
            try:
                if isinstance(fault, LostAudio):
                    fault.heal(stack)
                elif stack is not None:
                    # Without a stack, what was wrong with it ended with it.
                    fault.heal(stack)
            except FaultError as error:
                trouble = error
                continue
            self.faults.remove(fault)
            self._write()
            healed.append(fault)
        if trouble is not None:
            raise trouble
        return healed

    def heal_one(self, fault: Fault) -> None:
        """Heal one fault and leave the others."""
        fault.heal(require_stack(self.folder))
        self.faults.remove(fault)
        self._write()

    @contextmanager
    def wrong(self, *faults: Fault) -> Iterator[None]:
        """Faults for as long as the block lasts, whatever ends it."""
        try:
            for fault in faults:
                self.make(fault)
            yield
        finally:
            self.heal()

    def _write(self) -> None:
        if not self.faults:
            self.file.unlink(missing_ok=True)
            return
        fresh = self.file.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as output:
            json.dump([fault.to_json() for fault in self.faults], output, indent=1)
            output.flush()
            os.fsync(output.fileno())
        fresh.replace(self.file)


@contextmanager
def held(stack: LocalStack) -> Iterator[Journal]:
    """The journal of a stack, for this process alone; heals what an earlier one left behind.

    A FaultError when another process makes faults here now.
    """
    with _alone(stack.folder):
        journal = Journal(folder=stack.folder, faults=_left(stack.folder / JOURNAL))
        journal.heal()
        try:
            yield journal
        finally:
            journal.heal()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FaultError(
                "Another process makes faults in this stack.",
                where=str(folder),
                todo="Wait for it, or stop it: it heals what it made.",
            ) from error
        yield
    finally:
        os.close(lock)


def heal_left(folder: Path) -> list[Fault]:
    """Heal what a killed run left in a folder, and give what was healed.

    Without a stack the faults ended with it, but for files that were moved.
    """
    folder = folder.absolute()
    if not (folder / JOURNAL).exists():
        return []
    with _alone(folder):
        return Journal(folder=folder, faults=_left(folder / JOURNAL)).heal()


def _left(file: Path) -> list[Fault]:
    try:
        entries: Any = json.loads(file.read_text(encoding="utf-8"))
        return [parse_fault(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError) as error:
        raise FaultError(
            "The journal of faults is damaged.",
            where=str(file),
            todo="Restart the stack: all faults end with it. Then remove the file.",
        ) from error
