"""Plays drills in lanes: each lane has a stack of its own and takes the next drill that waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from loadtest.drill import Drill, Passed, Play
from loadtest.faults.journal import heal_left
from loadtest.local_stack import LocalStack, require_stack
from loadtest.scene import TIME_SCALE, Scene, StoppedError, own_stack, scene_in
from speakfit.errors import DrillError, SpeakFitError

_LOOK = 0.1
_SETTLE = timedelta(minutes=2)
"""Policy time: two evaluations, and four exports."""
_LONGEST_FIRST = ("telemetry-silent", "transcription-stalled", "api-latency", "queue-depth")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step of one drill, for people."""

    at: timedelta
    """Since the run began, on the wall's clock."""
    subject: str
    text: str
    since: timedelta | None
    """Policy time since the fault."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one drill ended: passed, failed, or not even measured."""

    drill: Drill
    took: timedelta
    passed: tuple[Passed, ...] = ()
    error: SpeakFitError | None = None

    @property
    def failed(self) -> bool:
        """Whether a step did not go as it must."""
        return isinstance(self.error, DrillError)


@dataclass(kw_only=True)
class Run:
    """Drills, where their stacks are kept, and what became of them.

    `stack` names the folder of a running stack to play in, in place of stacks of one's own.
    """

    drills: Sequence[Drill]
    folder: Path
    say: Callable[[Line], None]
    lanes: int = 1
    time_scale: int = TIME_SCALE
    stack: Path | None = None
    ended: list[Ended] = field(default_factory=list)
    trouble: SpeakFitError | None = None
    """Why a lane had no stack to play in."""
    began: float = field(default_factory=time.monotonic)
    _waiting: queue.SimpleQueue[Drill] = field(default_factory=queue.SimpleQueue)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def play(self) -> list[Ended]:
        """All of them; interrupted, the faults are healed and the stacks stopped first."""
        if self.stack is not None:
            require_stack(self.stack)
        first = {subject: place for place, subject in enumerate(_LONGEST_FIRST)}
        for drill in sorted(self.drills, key=lambda one: first.get(one.subject, len(first))):
            self._waiting.put(drill)
        lanes = 1 if self.stack is not None else max(1, min(self.lanes, len(self.drills)))
        threads = [
            threading.Thread(target=self._lane, args=(number,), name=f"lane {number}")
            for number in range(1, lanes + 1)
        ]
        for thread in threads:
            thread.start()
        # Before Python 3.13 a join that is interrupted takes its thread for ended.
        try:
            while any(thread.is_alive() for thread in threads):
                time.sleep(_LOOK)
        finally:
            self._stopping.set()
            while any(thread.is_alive() for thread in threads):
                # Who is impatient would leave the faults behind.
                with suppress(KeyboardInterrupt):
                    time.sleep(_LOOK)
        for drill in self._left():
            error = self.trouble or SpeakFitError("It was not played.")
            self.ended.append(Ended(drill=drill, took=timedelta(0), error=error))
        return self.ended

    def _left(self) -> list[Drill]:
        played = {one.drill.subject for one in self.ended}
        return [drill for drill in self.drills if drill.subject not in played]

    def _lane(self, number: int) -> None:
        try:
            with ExitStack() as opened:
                stack = self._stack(opened, number)
                scene = opened.enter_context(scene_in(stack, self._stopping))
                stack.run("alerts", "apply", "--auto-approve")
                self._tell("", "a stack is up and its alerts are applied")
                # Absence counts only from a point that came after its policy was written.
                scene.pause(scene.real(_SETTLE))
                while not self._stopping.is_set():
                    self._play(self._waiting.get_nowait(), scene)
        except (queue.Empty, StoppedError):
            return
        except SpeakFitError as error:
            # What no other lane takes can be told apart from what was played.
            self.trouble = error

    def _stack(self, opened: ExitStack, number: int) -> LocalStack:
        if self.stack is not None:
            heal_left(self.stack)
            return require_stack(self.stack)
        folder = self.folder / f"lane-{number}"
        return opened.enter_context(own_stack(folder, time_scale=self.time_scale))

    def _play(self, drill: Drill, scene: Scene) -> None:
        began = time.monotonic()

        def tell(text: str, *, since: timedelta | None = None) -> None:
            self._tell(drill.subject, text, since)

        passed: tuple[Passed, ...] = ()
        error: SpeakFitError | None = None
        try:
            passed = Play(drill=drill, scene=scene, tell=tell).run()
        except SpeakFitError as caught:
            error = caught
            self._tell(drill.subject, "failed: " + caught.what.splitlines()[0])
        took = timedelta(seconds=time.monotonic() - began)
        self.ended.append(Ended(drill=drill, took=took, passed=passed, error=error))

    def _tell(self, subject: str, text: str, since: timedelta | None = None) -> None:
        at = timedelta(seconds=time.monotonic() - self.began)
        self.say(Line(at=at, subject=subject, text=text, since=since))
