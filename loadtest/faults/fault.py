"""Faults: each is a value that can be made, healed, and written down so that another heals it.

Healing twice, or what has ended by itself, is no error: whoever finds a journal heals all of it.
"""

from __future__ import annotations

import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import psutil

from loadtest.faults.toxic import Toxic
from loadtest.local_stack import LocalStack, Process
from speakfit.errors import FaultError


@dataclass(frozen=True, kw_only=True)
class Fault(ABC):
    """Something that is wrong with the stack for a while."""

    kind: ClassVar[str]

    @abstractmethod
    def make(self, stack: LocalStack) -> None:
        """Make it; a FaultError when that cannot be."""

    @abstractmethod
    def heal(self, stack: LocalStack) -> None:
        """Undo it, also when it was only half made or has ended already."""

    @property
    @abstractmethod
    def text(self) -> str:
        """In a few words, for people."""

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ToxicLink(Fault):
    """A toxic on a link."""

    kind: ClassVar[str] = "toxic-link"
    link: str
    toxic: Mapping[str, Any]

    @classmethod
    def of(cls, link: str, toxic: Toxic) -> ToxicLink:
        """From a toxic that was checked."""
        return cls(link=link, toxic=toxic.to_json())

    @property
    def text(self) -> str:
        told = " ".join(f"{name}={value:g}" for name, value in self.toxic["attributes"].items())
        return f"{self.toxic['type']} ({told}) on the link {self.link}"

    def make(self, stack: LocalStack) -> None:
        stack.control.add(self.link, Toxic.parse(dict(self.toxic)))

    def heal(self, stack: LocalStack) -> None:
        there = stack.control.links().get(self.link, {}).get("toxics", ())
        if any(one["name"] == self.toxic["name"] for one in there):
            stack.control.remove(self.link, str(self.toxic["name"]))


@dataclass(frozen=True, kw_only=True)
class LinkDown(Fault):
    """A link on which connecting is refused, as by a server that is down."""

    kind: ClassVar[str] = "link-down"
    link: str

    @property
    def text(self) -> str:
        return f"the link {self.link} down"

    def make(self, stack: LocalStack) -> None:
        stack.control.enable(self.link, False)

    def heal(self, stack: LocalStack) -> None:
        stack.control.enable(self.link, True)


@dataclass(frozen=True, kw_only=True)
class Paused(Fault):
    """SIGSTOP for a part: it holds what it has and does nothing.

    `children` leaves the main process alone, so that what it alone does, such as heartbeats,
    goes on.
    """

    kind: ClassVar[str] = "paused"
    part: str
    children: bool = False
    stopped: list[dict[str, float]] = field(default_factory=list)
    """Filled in when made: who has to be continued, also by a later run."""

    @property
    def text(self) -> str:
        return f"SIGSTOP of {'the children of ' if self.children else ''}{self.part}"

    def make(self, stack: LocalStack) -> None:
        family = stack.part(self.part).family()
        chosen = family[1:] if self.children else family
        if not chosen:
            raise FaultError(
                f"{self.part} has no process to stop.",
                where=str(stack.folder),
                todo=f"Restart it: `python -m speakfit_ops.stack restart {self.part}`.",
            )
        for one in chosen:
            one.send_signal(signal.SIGSTOP)
            self.stopped.append({"pid": one.pid, "born": one.create_time()})

    def heal(self, stack: LocalStack) -> None:
        # Whatever of the part stands still: a run that was killed in between wrote down nobody.
        known = [Process(pid=int(one["pid"]), born=one["born"]) for one in self.stopped]
        present = stack.parts.get(self.part)
        for process in [*known, *([present] if present else [])]:
            for member in process.family():
                try:
                    if member.status() == psutil.STATUS_STOPPED:
                        member.send_signal(signal.SIGCONT)
                except psutil.NoSuchProcess:
                    continue


@dataclass(frozen=True, kw_only=True)
class Killed(Fault):
    """SIGKILL for a part and all its children at once, as a lost machine would end."""

    kind: ClassVar[str] = "killed"
    part: str

    @property
    def text(self) -> str:
        return f"SIGKILL of {self.part}"

    def make(self, stack: LocalStack) -> None:
        for one in stack.part(self.part).family():
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue

    def heal(self, stack: LocalStack) -> None:
        present = stack.parts.get(self.part)
        if present is None or not present.alive():
            stack.restart(self.part)


@dataclass(frozen=True, kw_only=True)
class FullDisk(Fault):
    """A part that cannot make any file longer than `most` bytes.

    RLIMIT_FSIZE, which needs no rights and touches nobody else; the kernel answers EFBIG where a
    full disk answers ENOSPC, and both mean the same to whoever writes.
    """

    kind: ClassVar[str] = "full-disk"
    part: str
    most: int = 0

    @property
    def text(self) -> str:
        return f"a disk full for {self.part}"

    def make(self, stack: LocalStack) -> None:
        self._limit(stack.part(self.part), self.most)

    def heal(self, stack: LocalStack) -> None:
        present = stack.parts.get(self.part)
        if present is not None:
            self._limit(present, None)

    @staticmethod
    def _limit(process: Process, soft: int | None) -> None:
        for one in process.family():
            try:
                _, hard = one.rlimit(psutil.RLIMIT_FSIZE)
                one.rlimit(psutil.RLIMIT_FSIZE, (hard if soft is None else soft, hard))
            except psutil.NoSuchProcess:
                continue


@dataclass(frozen=True, kw_only=True)
class SkewedClock(Fault):
    """A part whose clock is wrong by some seconds; it is started anew with it."""

    kind: ClassVar[str] = "skewed-clock"
    part: str
    seconds: float

    @property
    def text(self) -> str:
        return f"the clock of {self.part} {self.seconds:+g} s"

    def make(self, stack: LocalStack) -> None:
        stack.restart(self.part, clock_skew=timedelta(seconds=self.seconds))

    def heal(self, stack: LocalStack) -> None:
        stack.restart(self.part)


@dataclass(frozen=True, kw_only=True)
class LostAudio(Fault):
    """The audio store has lost everything it held: it lies beside it until healed."""

    kind: ClassVar[str] = "lost-audio"
    store: str

    @property
    def text(self) -> str:
        return "the audio store empty"

    def make(self, stack: LocalStack) -> None:
        store, away = self._places
        if away.exists():
            raise FaultError(
                "The audio was moved away already.", where=str(away), todo="Heal that first."
            )
        store.rename(away)
        store.mkdir(mode=0o700)

    def heal(self, stack: LocalStack | None) -> None:
        store, away = self._places
        for path in sorted(away.rglob("*")):
            if path.is_file():
                back = store / path.relative_to(away)
                back.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, back)
        shutil.rmtree(away, ignore_errors=True)

    @property
    def _places(self) -> tuple[Path, Path]:
        store = Path(self.store)
        return store, store.with_name(store.name + ".lost")


KINDS: Mapping[str, type[Fault]] = {
    one.kind: one for one in (ToxicLink, LinkDown, Paused, Killed, FullDisk, SkewedClock, LostAudio)
}


def parse_fault(body: Mapping[str, Any]) -> Fault:
    """The opposite of `to_json`; a FaultError for what no fault of ours says."""
    rest = dict(body)
    kind = KINDS.get(str(rest.pop("kind", "")))
    if kind is None or not rest.keys() <= {one.name for one in fields(kind)}:
        raise FaultError(
            "A fault in the journal cannot be read.",
            where=str(body.get("kind")),
            todo="Restart the stack: all faults end with it. Then remove the journal.",
        )
    return kind(**rest)
