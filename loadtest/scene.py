"""Where a drill plays: a local stack of its own on a fast clock, its API, its PagerDuty."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import requests

from alerts.catalog import load_catalog
from alerts.gateway import Gateway
from alerts.policy import Catalog, Policy
from loadtest.faults.journal import Journal, heal_left, held
from loadtest.local_stack import LocalStack, find_stack, without_servers
from loadtest.reading import Reading, read_policy
from speakfit.clock import Clock
from speakfit.errors import FaultError, PagerDutyError
from speakfit.pagerduty import PagerDutyIncident, incidents
from speakfit.settings import Settings
from speakfit.target import STACK_FILE, policy_clock, resolve_target

TIME_SCALE = 20
"""Policy seconds per real second. The longest wait that does not scale, a part that is restarted,
takes about five seconds, 100 s of policy time: under half of the shortest duration it could trip,
five minutes without a worker."""

_START_LIMIT = timedelta(seconds=150)
_STOP_LIMIT = timedelta(seconds=60)
_PAUSE = 0.2


class StoppedError(Exception):
    """Whoever started the drill wants it to end."""


@dataclass(kw_only=True)
class Scene:
    """One stack for as long as drills play in it."""

    stack: LocalStack
    journal: Journal
    stopping: threading.Event
    catalog: Catalog = field(default_factory=lambda: load_catalog("alerts.policies"))
    undo: list[Callable[[], None]] = field(default_factory=list)
    """What a drill does besides faults, and takes back at its end: connections, traffic."""

    @cached_property
    def gateway(self) -> Gateway:
        """Cloud Monitoring."""
        return Gateway(
            resolve_target(
                Settings(),
                emulator=self.stack.environment["MONITORING_EMULATOR_HOST"],
                project=self.stack.environment["GOOGLE_CLOUD_PROJECT"],
            )
        )

    @cached_property
    def clock(self) -> Clock:
        """Policy time."""
        return policy_clock(self.gateway.target)

    @property
    def api_url(self) -> str:
        """Of the API itself, past all links."""
        return f"http://127.0.0.1:{self.stack.environment['PORT']}"

    @property
    def console_url(self) -> str:
        """Of the embedded Cloud Monitoring and PagerDuty."""
        return self.stack.environment["PAGERDUTY_API_URL"]

    def ask(self, method: str, path: str, *, key: str = "", **more: Any) -> requests.Response:
        """One call of the API with the stack's key, or another."""
        key = key or self.stack.environment["SPEAKFIT_API_KEY"]
        with loopback() as session:
            return session.request(
                method,
                self.api_url + path,
                headers={"Authorization": f"Bearer {key}"},
                timeout=35,
                **more,
            )

    def upload(self, name: str, audio: bytes) -> str:
        """Send a recording and give its id."""
        answer = self.ask("POST", "/v1/recordings", files={"file": (name, audio)})
        if answer.status_code != 202:
            raise FaultError(
                f"The API answers an upload with {answer.status_code}.",
                where=self.api_url,
                todo=f"Read {self.stack.folder / 'logs' / 'api.log'}.",
            )
        return str(answer.json()["id"])

    def policies(self, subject: str) -> tuple[Policy, ...]:
        """Those of a subject."""
        return tuple(policy for policy in self.catalog.policies if policy.subject == subject)

    def read(self, policy: Policy) -> tuple[Reading, ...]:
        """What its conditions read now."""
        return read_policy(self.gateway, self.clock, policy, self.catalog)

    def pages(self) -> list[PagerDutyIncident]:
        """All of PagerDuty's incidents; a FaultError when it does not answer."""
        try:
            return incidents(self.console_url, self.stack.environment["PAGERDUTY_API_TOKEN"])
        except PagerDutyError as error:
            raise FaultError(
                f"PagerDuty cannot be asked: {error.what}",
                where=self.console_url,
                todo="Look whether the part monitoring runs: `stack status`.",
            ) from error

    def incidents(self) -> list[dict[str, Any]]:
        """Cloud Monitoring's incidents, newest first."""
        with loopback() as session:
            answer = session.get(f"{self.console_url}/emulator/v1/incidents", timeout=10)
        found: list[dict[str, Any]] = answer.json()["incidents"]
        return found

    def real(self, policy_time: timedelta) -> float:
        """Seconds on the wall's clock."""
        return policy_time.total_seconds() / self.clock.scale

    def pause(self, seconds: float = _PAUSE) -> None:
        """Wait a little; a StoppedError as soon as the drill is to end."""
        if self.stopping.wait(seconds):
            raise StoppedError

    def background(self, act: Callable[[threading.Event], None]) -> None:
        """Run something beside the drill until it is cleared; the event it gets ends it."""
        self.undo.append(_begin(act))

    @contextmanager
    def visitor(self) -> Iterator[None]:
        """Somebody who lists recordings again and again: without requests nothing can fail."""

        def visit(ending: threading.Event) -> None:
            while not ending.wait(_PAUSE):
                with suppress(OSError):
                    self.ask("GET", "/v1/recordings?limit=1")

        end = _begin(visit)
        try:
            yield
        finally:
            end()

    def clear(self) -> None:
        """Take everything back that a drill has done, and heal its faults."""
        while self.undo:
            self.undo.pop()()
        self.journal.heal()


def _begin(act: Callable[[threading.Event], None]) -> Callable[[], None]:
    """Run something in a thread; what is given back ends it."""
    ending = threading.Event()
    thread = threading.Thread(target=act, args=(ending,), daemon=True)
    thread.start()

    def end() -> None:
        ending.set()
        thread.join(15)

    return end


def loopback() -> requests.Session:
    """A session for this machine: a proxy of the environment cannot reach it."""
    session = requests.Session()
    session.trust_env = False
    return session


@contextmanager
def own_stack(folder: Path, *, time_scale: int = TIME_SCALE) -> Iterator[LocalStack]:
    """A stack with links for faults and the timed engine, begun anew, in a process of its own.

    What a killed drill left there is healed and stopped first. The stack ends with the block.
    """
    folder = folder.absolute()
    heal_left(folder)
    command = [sys.executable, "-m", "speakfit_ops.stack"]
    if find_stack(folder) is not None:
        subprocess.run([*command, "down", "--data-dir", str(folder)], check=False, timeout=120)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(folder.name + ".log")
    ports = [word for name in ("api", "monitoring", "console", "runbooks")
             for word in (f"--{name}-port", "0")]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(*command, "up", "--faults", "--anew", "--data-dir", str(folder)),
                *("--time-scale", str(time_scale), *ports),
            ],
            env={**without_servers(os.environ), **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C ends the drill, which heals before it ends the stack.
            start_new_session=True,
        )
    try:
        yield _until_up(process, folder, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


SETTINGS = {"SPEECH_ENGINE": "timed", "FILLER_PASS": "false"}
"""Drills are about the platform: the engine takes its time and makes words up."""


def _until_up(process: subprocess.Popen[bytes], folder: Path, log: Path) -> LocalStack:
    deadline = time.monotonic() + _START_LIMIT.total_seconds()
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if "SpeakFit is up" in log.read_text(encoding="utf-8", errors="replace"):
                found = find_stack(folder)
                if found is not None:
                    return found
        time.sleep(_PAUSE)
    tail = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
    raise FaultError(
        f"The stack for the drills did not start.\n{tail}",
        where=str(log),
        todo="Read its output above; `make setup` installs what is missing.",
    )


@contextmanager
def scene_in(stack: LocalStack, stopping: threading.Event) -> Iterator[Scene]:
    """A scene whose faults are healed at the end, whatever ends it."""
    with held(stack) as journal:
        scene = Scene(stack=stack, journal=journal, stopping=stopping)
        try:
            yield scene
        finally:
            scene.clear()
            scene.gateway.__exit__(None, None, None)


DRILLS_FOLDER = STACK_FILE.parent / "drills"
"""Where drills keep their stacks, one folder a lane."""
