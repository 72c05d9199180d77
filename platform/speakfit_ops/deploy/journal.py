"""What a release has done so far, kept on this machine, one JSON object a line.

A line is on disk before and after each step, so that a deploy that was killed anywhere goes on
where it stopped. The cloud stays the truth: every step looks there before it acts, and without
this file a release goes on all the same. Only its owner can read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from speakfit.errors import TargetError
from speakfit_ops.deploy.estate import Estate

FOLDER = Path(".speakfit/deploys")


class Step(StrEnum):
    """The steps of a release, in their order, and what takes one back."""

    MIGRATE = "migrate"
    CANDIDATE = "candidate"
    SMOKE = "smoke"
    WORKERS = "workers"
    TRAFFIC = "traffic"
    VERDICT = "verdict"
    FINISH = "finish"
    ROLLBACK = "rollback"


class State(StrEnum):
    """How far a step came."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line."""

    at: str
    step: Step
    state: State
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"at": self.at, "step": self.step, "state": self.state, **self.facts}


class Journal:
    """The lines about one release; reading and appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = list(_read(path))

    @classmethod
    def of(cls, estate: Estate, release: str, folder: Path = FOLDER) -> Journal:
        """That of one release in one environment of one project."""
        return cls(folder / estate.project / estate.environment / f"{release}.jsonl")

    def note(self, step: Step, state: State, **facts: Any) -> None:
        """Append a line; it is on disk when this returns."""
        entry = Entry(
            at=datetime.now(UTC).isoformat(timespec="seconds"), step=step, state=state, facts=facts
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(entry.to_json(), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TargetError(
                f"The journal cannot be written: {error.strerror}.",
                where=str(self.path),
                todo="Make room or correct the rights, then repeat: what is done is not repeated.",
            ) from error
        self.entries.append(entry)

    def last(self, step: Step) -> Entry | None:
        """The newest line about a step."""
        return next((one for one in reversed(self.entries) if one.step is step), None)

    def done(self, step: Step) -> bool:
        """Whether a step was finished and nothing was said about it since."""
        last = self.last(step)
        return last is not None and last.state is State.DONE


def _read(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(
            "The journal cannot be read.",
            where=str(path),
            todo="Correct its rights, or move it away: the release goes on by what is live.",
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            body = json.loads(line)
            found.append(
                Entry(
                    at=body.pop("at"),
                    step=Step(body.pop("step")),
                    state=State(body.pop("state")),
                    facts=body,
                )
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            if number == len(lines):
                # Killed while writing it: the step it tells of is looked up in the cloud.
                break
            raise TargetError(
                "The journal is damaged.",
                where=f"{path}:{number}",
                todo="Move it away: the release goes on by what is live.",
            ) from error
    return found
