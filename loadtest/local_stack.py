"""The local stack as its record tells of it: addresses, settings and processes.

Whoever makes faults knows the stack only from outside, as a person does: by this file, and by
`python -m speakfit_ops.stack`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from loadtest.faults.control import Control
from speakfit.errors import FaultError
from speakfit.target import STACK_FILE

_COMMAND_LIMIT = timedelta(seconds=90)


@dataclass(frozen=True, kw_only=True)
class Process:
    """One part's process; the time of its birth guards against a number that is used again."""

    pid: int
    born: float

    def alive(self) -> bool:
        """Whether it still runs, or is only stopped."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.born) < 1
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def family(self) -> list[psutil.Process]:
        """The process and all that it has begun; empty when it is gone."""
        if not self.alive():
            return []
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@dataclass(frozen=True, kw_only=True)
class LocalStack:
    """What the record of a running stack says."""

    folder: Path
    scale: int
    environment: Mapping[str, str] = field(repr=False)
    parts: Mapping[str, Process]

    @property
    def control(self) -> Control:
        """Its links; a FaultError when it was started without any."""
        url = self.environment.get("FAULTS_URL")
        if not url:
            raise FaultError(
                "The stack has no fault proxy on its links.",
                where=str(self.folder),
                todo="Start it with `python -m speakfit_ops.stack up --faults`.",
            )
        return Control(url=url)

    def part(self, name: str) -> Process:
        """The process of a part; a FaultError when the stack has none of the name."""
        try:
            return self.parts[name]
        except KeyError:
            raise FaultError(
                f"The stack has no part {name}.",
                where=str(self.folder / STACK_FILE.name),
                todo=f"Parts are {', '.join(self.parts)}.",
            ) from None

    def again(self) -> LocalStack:
        """The same, read anew: a part that was restarted is another process."""
        found = find_stack(self.folder)
        if found is None:
            raise FaultError(
                "The stack has ended.",
                where=str(self.folder),
                todo=f"Read the logs in {self.folder / 'logs'}.",
            )
        return found

    def run(self, *arguments: str, limit: timedelta = _COMMAND_LIMIT) -> str:
        """Run one of our commands with the stack's settings; a FaultError when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=self.shell_environment(),
            capture_output=True,
            text=True,
            timeout=limit.total_seconds(),
            check=False,
        )
        if done.returncode != 0:
            raise FaultError(
                f"The command ended with exit code {done.returncode}.\n"
                + (done.stdout + done.stderr).strip()[-1500:],
                where="python -m " + " ".join(arguments),
                todo="Read its output above.",
            )
        return done.stdout

    def shell_environment(self) -> dict[str, str]:
        """What a person's shell holds after `eval "$(python -m speakfit_ops.stack env)"`."""
        return {
            **os.environ,
            **self.environment,
            "SPEAKFIT_STACK_DIR": str(self.folder),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def restart(self, part: str, *, clock_skew: timedelta = timedelta(0)) -> None:
        """A new process for a part, whatever has become of the old one; waits until it serves."""
        skew = ["--clock-skew", f"{clock_skew.total_seconds():g}"] if clock_skew else []
        self.run("speakfit_ops.stack", "restart", part, "--data-dir", str(self.folder), *skew)


def find_stack(folder: Path = STACK_FILE.parent) -> LocalStack | None:
    """The stack that runs in a folder; None when none does. A FaultError for a damaged record."""
    file = folder / STACK_FILE.name
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not Process(pid=record["pid"], born=record["born"]).alive():
            return None
        return LocalStack(
            folder=folder,
            scale=record["scale"],
            environment=record["environment"],
            parts={
                name: Process(pid=part["pid"], born=part["born"])
                for name, part in record["parts"].items()
            },
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaultError(
            "The record of the stack is damaged.", where=str(file), todo="Remove the file."
        ) from error


def require_stack(folder: Path = STACK_FILE.parent) -> LocalStack:
    """The stack that runs in a folder; a FaultError says how to start one."""
    found = find_stack(folder)
    if found is None:
        raise FaultError(
            "No stack is running here.",
            where=str(folder),
            todo="Start one with `python -m speakfit_ops.stack up --faults`.",
        )
    return found


def without_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings for a stack of one's own: without those that would lead it to another's servers."""
    other = ("SPEAKFIT_STACK_DIR", "MONITORING_EMULATOR_HOST", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in environment.items() if name not in other}
