"""Makes load, reads what it did on both sides, and asks whether that may go live.

Locust runs in a process of its own; Cloud Monitoring and PagerDuty are read here. Ctrl-C ends the
load at once, keeps what was measured, and makes the verdict INVALID.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests

from loadtest.contract import CONTRACTS, Contract
from loadtest.ledger import Ledger, unpack
from loadtest.scenarios import Scenario
from loadtest.telemetry import Telemetry, wait_for_calm
from loadtest.verdict import Budget, Judgement, Run, ServerSide, judge
from speakfit.errors import LoadError, PagerDutyError, RefusedError, TargetError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ALLOWED = "LOADTEST_ALLOWED_HOSTS"
"""Environment variable with the hosts beside loopback that may be loaded, split by commas."""

MAX_RATE = 500.0
"""Requests per second that no gate goes beyond unless told."""

CALM_LIMIT = timedelta(minutes=90)
"""Policy time to wait before a scenario for the last one to be over."""

_LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_POLL = 0.2
_STOP_LIMIT = 20.0
_CHECKED = 2_000
"""Recordings asked for at the end at most; beyond it every n-th."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is loaded, and how much of it is allowed."""

    url: str
    max_rate: float = MAX_RATE
    rate: float = 1.0
    """Multiplies every rate and number of users."""
    time: float = 1.0
    """Multiplies every duration, beside the target's clock."""
    seed: int = 1

    @property
    def host(self) -> str:
        """The name or number of the machine; a LoadError for what is no address."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LoadError(
                f"{self.url} is no address.",
                where="--target",
                todo="Write http://HOST:PORT or https://HOST.",
            )
        return parts.hostname

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK

    def check(self, scenarios: Sequence[Scenario]) -> None:
        """A RefusedError for a host that is not allowed or a rate that is too high."""
        allowed = {one.strip() for one in os.environ.get(ALLOWED, "").split(",")}
        if not self.is_local and self.host not in allowed:
            raise RefusedError(
                f"{self.host} is not among the hosts that may be loaded.",
                where=ALLOWED,
                todo=f"Set {ALLOWED}={self.host} when it is yours and expects it.",
            )
        for scenario in scenarios:
            highest = self.rate * max((one.highest for one in scenario.stages), default=0.0)
            if highest > self.max_rate:
                raise RefusedError(
                    f"{scenario.name} goes up to {highest:g} requests/s; at most "
                    f"{self.max_rate:g} are allowed.",
                    where="--max-rate",
                    todo="Raise it when the target can be spared, or lower --rate-factor.",
                )

    def require_ready(self) -> None:
        """A TargetError when the target refuses or is not ready."""
        session = requests.Session()
        # A proxy of the environment cannot reach this machine.
        session.trust_env = not self.is_local
        try:
            answer = session.get(f"{self.url.rstrip('/')}/readyz", timeout=10)
        except requests.RequestException as error:
            raise TargetError(
                f"The target does not answer: {type(error).__name__}.",
                where=self.url,
                todo="Start it, or correct --target.",
            ) from error
        if answer.status_code != 200:
            raise TargetError(
                f"The target is not ready: it answers {answer.status_code}.",
                where=f"{self.url}/readyz",
                todo="Its answer names what is missing.",
            )


@dataclass(kw_only=True)
class Gate:
    """Runs scenarios one after another and judges each."""

    aim: Aim
    telemetry: Telemetry
    folder: Path
    say: Callable[[str], None]
    budget: Budget = field(default_factory=Budget)
    service_pids: Sequence[int] = ()
    """Processes of the services where they run here, whose memory is watched."""
    interrupted: bool = False

    def run(self, scenarios: Sequence[Scenario]) -> list[Judgement]:
        """Judge each; after Ctrl-C those that were begun."""
        found: list[Judgement] = []
        for scenario in scenarios:
            contract = CONTRACTS[scenario.name]
            contract.check(self.telemetry.catalog)
        for scenario in scenarios:
            try:
                run = self._one(scenario, CONTRACTS[scenario.name])
            except KeyboardInterrupt:
                self.interrupted = True
                return found
            except (LoadError, PagerDutyError, TargetError) as error:
                # What the others showed is still worth a report.
                run = self._unmeasured(scenario, error.what)
            judged = judge(run, self.budget)
            found.append(judged)
            self.say(f"{judged.verdict:<8} {scenario.name}")
            for check in judged.checks:
                if not check.passed:
                    self.say(f"         {check.name}: {check.told}")
            if self.interrupted:
                break
        return found

    def _one(self, scenario: Scenario, contract: Contract) -> Run:
        scale = self.telemetry.scale
        self.say(f"         {scenario.name}: {scenario.load}, {scale:g} times as fast")
        left = wait_for_calm(self.telemetry, CALM_LIMIT / scale)
        trouble = (f"The target did not become calm. {left}",) if left else ()
        # What was asked before is in the exported counts when the load begins.
        time.sleep(self.telemetry.export_seconds + 1)
        scaled = scenario.scaled(rate=self.aim.rate, duration=self.aim.time)
        attempt = _Attempt(
            aim=self.aim,
            scenario=scaled,
            scale=scale,
            file=self.folder / f"{scenario.name}.ledger.json",
            log=self.folder / f"{scenario.name}.locust.log",
            pids=self.service_pids,
        )
        attempt.make()
        self.interrupted = attempt.interrupted
        told = attempt.told()
        run = Run(
            scenario=scaled,
            contract=contract,
            seconds=told["seconds"],
            scale=scale,
            planned=told["expected"],
            ledger=unpack(told["ledger"]) if told["ledger"] else Ledger(),
            processes=max(1, told["shares"]),
            ended=told["ended"],
            processor=attempt.processor,
            interrupted=attempt.interrupted,
            memory=tuple(attempt.memory),
            trouble=trouble,
        )
        if attempt.interrupted:
            return run
        return self._observed(run, began=told["began"], launched=attempt.launched)

    def _unmeasured(self, scenario: Scenario, trouble: str) -> Run:
        return Run(
            scenario=scenario.scaled(rate=self.aim.rate, duration=self.aim.time),
            contract=CONTRACTS[scenario.name],
            seconds=scenario.duration.total_seconds() * self.aim.time / self.telemetry.scale,
            scale=self.telemetry.scale,
            planned=None,
            ledger=Ledger(),
            processes=1,
            ended=0,
            trouble=(trouble,),
        )

    def _observed(self, run: Run, *, began: float, launched: float) -> Run:
        """Add what the other side knows, once what was promised has come or is too late."""
        trouble = list(run.trouble)
        server: ServerSide | None = None
        pages = run.pages
        lost: tuple[str, ...] = ()
        try:
            ended = time.time()
            server = self.telemetry.server(launched, ended, routes_of(run.ledger))
            self._await_pages(run, began)
            pages = self.telemetry.pages(began)
            lost = self._lost(run)
            if server is not None:
                queue, chunks = self.telemetry.progress(began, time.time())
                server = replace(server, queue=tuple(queue), chunks=tuple(chunks))
        except (PagerDutyError, TargetError) as error:
            trouble.append(error.what)
        except KeyboardInterrupt:
            self.interrupted = True
            return replace(run, interrupted=True, server=server, pages=pages)
        return replace(run, server=server, pages=pages, lost=lost, trouble=tuple(trouble))

    def _await_pages(self, run: Run, began: float) -> None:
        """Return when every promised page has come and resolved, or when it is too late."""
        scale = run.scale
        promised = run.contract.pages
        limits = [run.seconds + 0.0]
        limits += [page.by.total_seconds() / scale for page in promised]
        limits += [run.seconds + page.resolves_by.total_seconds() / scale for page in promised]
        waiting = {page.policy.id for page in promised}
        while time.time() < began + max(limits):
            pages = self.telemetry.pages(began)
            done = {page.policy for page in pages if page.resolved is not None}
            if waiting <= done and all(page.resolved is not None for page in pages):
                break
            time.sleep(1.0)
        # A page that is on its way now is late, not absent: one more evaluation is waited for.
        time.sleep(self.telemetry.export_seconds)

    def _lost(self, run: Run) -> tuple[str, ...]:
        """Accepted recordings that never completed, once the queue is empty."""
        if not run.ledger.accepted:
            return ()
        wait_for_calm(self.telemetry, CALM_LIMIT / run.scale)
        step = -(-len(run.ledger.accepted) // _CHECKED)
        session = requests.Session()
        session.trust_env = not self.aim.is_local
        key = os.environ.get("SPEAKFIT_API_KEY", "")
        session.headers["Authorization"] = f"Bearer {key}"
        lost = []
        for recording in run.ledger.accepted[::step]:
            url = f"{self.aim.url.rstrip('/')}/v1/recordings/{recording}"
            with suppress(requests.RequestException):
                answer = session.get(url, timeout=10)
                if answer.status_code == 200 and answer.json()["status"] == "completed":
                    continue
            lost.append(recording)
        return tuple(lost)


@dataclass(kw_only=True)
class _Attempt:
    """One run of Locust in a process of its own."""

    aim: Aim
    scenario: Scenario
    scale: float
    file: Path
    log: Path
    pids: Sequence[int]
    launched: float = 0.0
    processor: float | None = None
    interrupted: bool = False
    memory: list[tuple[float, float]] = field(default_factory=list)

    def make(self) -> None:
        """Make the load and wait for its end; after Ctrl-C Locust still tells what it measured."""
        self.file.unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless"),
            *("--host", self.aim.url, "--scenario", self.scenario.name),
            *("--rate-factor", str(self.aim.rate)),
            *("--time-factor", str(self.aim.time / self.scale)),
            *("--seed", str(self.aim.seed), "--ledger", str(self.file)),
            *("--only-summary", "--exit-code-on-error", "0"),
        ]
        self.launched = time.time()
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal comes here alone, and from here to Locust once.
                start_new_session=True,
            )
            try:
                self._watch(process)
            except KeyboardInterrupt:
                self.interrupted = True
                process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # Also after a second Ctrl-C nothing goes on loading.
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Until it ends; how much of a core it used is counted from its first request on."""
        seen = psutil.Process(process.pid)
        limit = self.scenario.duration.total_seconds() / self.scale
        deadline = time.monotonic() + limit + self.scenario.grace.total_seconds() + 120
        used: list[tuple[float, float]] = []
        noted = 0.0
        while process.poll() is None:
            with suppress(psutil.Error):
                times = seen.cpu_times()
                used.append((time.monotonic(), times.user + times.system))
            if time.monotonic() - noted >= 1:
                noted = time.monotonic()
                self._weigh()
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGINT)
                return
            time.sleep(_POLL)
        # The first seconds load code and prepare, the last wait for answers.
        inner = used[len(used) // 5 : -max(1, len(used) // 10)]
        if len(inner) > 1:
            span = inner[-1][0] - inner[0][0]
            self.processor = (inner[-1][1] - inner[0][1]) / span if span else None

    def _weigh(self) -> None:
        total = 0.0
        for pid in self.pids:
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                for one in [root, *root.children(recursive=True)]:
                    total += one.memory_info().rss
        if total:
            self.memory.append((round(time.time() - self.launched, 1), total))

    def told(self) -> dict[str, Any]:
        """What Locust measured; an empty one when it could not tell."""
        try:
            found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
            return found
        except (FileNotFoundError, ValueError):
            if not self.interrupted:
                lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise LoadError(
                    "Locust ended without telling what it measured.\n" + "\n".join(lines[-12:]),
                    where=str(self.log),
                    todo="Read its log.",
                ) from None
            return {
                "seconds": self.scenario.duration.total_seconds() / self.scale,
                "expected": None,
                "shares": 1,
                "ended": 0,
                "began": self.launched,
                "ledger": None,
            }


def routes_of(ledger: Ledger) -> set[str]:
    """The route templates that a load visited; its preparation uploads and asks for one."""
    named = {name.partition(" ")[2].partition(" (")[0] for name in ledger.entries}
    return named | {"/v1/recordings", "/v1/recordings/{recording_id}"}


def now() -> datetime:
    """When a report is made."""
    return datetime.now(UTC)
