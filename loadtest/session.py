"""One gate from wish to verdict: whom it loads, whether it may, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import typer

from alerts.catalog import DEFAULT_CATALOG, load_catalog
from alerts.session import open_session
from alerts.terminal import console
from loadtest.capacity import Sizes, read_sizes
from loadtest.gate import Aim, Gate
from loadtest.local_stack import without_servers
from loadtest.report import Report, write_report
from loadtest.scenarios import find_scenario
from loadtest.telemetry import Telemetry
from loadtest.verdict import Verdict, overall
from speakfit.errors import LoadError, RefusedError
from speakfit.target import STACK_FILE, stack_environment

STACK_SCALE = 10
"""Policy seconds in a second on the stack that a gate starts: five minutes are 30 s there, and a
worker's cold start of four seconds is far below the shortest duration that it could trip."""

STACK_SETTINGS: Mapping[str, str] = {
    # Takes as long as the model and no processor, which two cores do not have to spare.
    "SPEECH_ENGINE": "timed",
    "WORKER_PROCESSES": "3",
    # All requests come from one caller, who stands for many.
    "RATE_LIMIT_REQUESTS": "0",
}
_START_LIMIT = timedelta(seconds=120)
_STOP_LIMIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for on the command line."""

    scenarios: tuple[str, ...]
    url: str | None
    folder: Path
    compare: Path | None = None
    costs: Path | None = None
    rate: float = 1.0
    time: float = 1.0
    max_rate: float = 500.0
    seed: int = 1
    emulator: str | None = None
    project: str | None = None
    auto_approve: bool = False
    as_json: bool = False


def run_gate(wish: Wish) -> Verdict:
    """Do it all; the report is in the wished folder whatever the verdict."""
    scenarios = [find_scenario(name) for name in wish.scenarios]
    # What cannot be read is told before anything is loaded.
    earlier = Report.read(wish.compare) if wish.compare else None
    sizes = read_sizes(wish.costs) if wish.costs else Sizes()
    out = console(stderr=wish.as_json)
    if wish.url is not None:
        aim = _aim(wish, wish.url)
        aim.check(scenarios)
        if not aim.is_local:
            _confirm(aim, wish)
    with _stack(wish, say=out.print) as environment:
        url = wish.url or f"http://127.0.0.1:{environment['PORT']}"
        aim = _aim(wish, url)
        aim.check(scenarios)
        aim.require_ready()
        wish.folder.mkdir(parents=True, exist_ok=True)
        catalog = load_catalog(DEFAULT_CATALOG)
        began = time.time()
        with open_session(catalog, wish.emulator, wish.project, as_json=wish.as_json) as session:
            telemetry = Telemetry.of(session.gateway, catalog, session.settings)
            telemetry.require_policies()
            telemetry.open_pages()
            gate = Gate(
                aim=aim,
                telemetry=telemetry,
                folder=wish.folder,
                say=out.print,
                service_pids=_pids(environment),
            )
            judgements = gate.run(scenarios)
        verdict = overall(judgements, interrupted=gate.interrupted)
        report = Report.of(
            judgements,
            verdict=verdict,
            target=aim.url,
            began=began,
            seconds=time.time() - began,
            seed=wish.seed,
            sizes=sizes,
        )
    page = write_report(report, wish.folder, earlier=earlier)
    if wish.as_json:
        print(json.dumps(report.data, indent=2))
    out.print(f"\n{verdict}  {page}")
    return verdict


def _aim(wish: Wish, url: str) -> Aim:
    return Aim(url=url, max_rate=wish.max_rate, rate=wish.rate, time=wish.time, seed=wish.seed)


def _confirm(aim: Aim, wish: Wish) -> None:
    """Let somebody type the host's name, which nobody does by mistake; a RefusedError else."""
    if wish.auto_approve:
        return
    if sys.stdin.isatty() and not wish.as_json:
        typed = typer.prompt(f"Type {aim.host} to load it", default="", show_default=False)
        if typed == aim.host:
            return
    raise RefusedError(
        f"Nobody confirmed that {aim.host} may be loaded; nothing was sent.",
        where="--target",
        todo="Type its name when asked, or add --auto-approve.",
    )


@contextmanager
def _stack(wish: Wish, *, say: object) -> Iterator[Mapping[str, str]]:
    """The settings of the stack to load: of none, of the one that runs, of one for this gate."""
    tell = say if callable(say) else print
    running = stack_environment()
    if wish.url is not None or running:
        for name, value in running.items():
            os.environ.setdefault(name, value)
        yield running
        return
    folder = Path(tempfile.mkdtemp(prefix="speakfit-gate-"))
    log = folder / "stack.log"
    tell("No stack runs here: one is started for this gate.")
    ports = (f"--{name}-port=0" for name in ("api", "monitoring", "console", "runbooks"))
    data = folder / "data"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "speakfit_ops.stack", "up", "--data-dir", str(data)),
                *("--time-scale", str(STACK_SCALE), *ports),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**without_servers(os.environ), **STACK_SETTINGS},
            start_new_session=True,
        )
    try:
        _await_stack(process, log)
        environment = stack_environment(data / STACK_FILE.name)
        # Whatever servers the shell names are not those of this stack.
        os.environ.update(environment)
        _apply_alerts()
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _await_stack(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT.total_seconds()
    while "next " not in (said := log.read_text(encoding="utf-8", errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise LoadError(
                f"The local stack did not start.\n{said[-2000:]}",
                where="python -m speakfit_ops.stack up",
                todo="Read what it said above, or name a --target.",
            )
        time.sleep(0.2)


def _apply_alerts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alerts", "apply", "--auto-approve"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LoadError(
            f"The alerts could not be applied.\n{(done.stdout + done.stderr)[-2000:]}",
            where="python -m alerts apply",
            todo="Read what it said above.",
        )


def _pids(environment: Mapping[str, str]) -> list[int]:
    """API and worker of the stack that has these settings, where it runs here."""
    port = environment.get("PORT")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-2:] in (["-m", "services.api"], ["-m", "services.worker"]):
            try:
                if process.environ().get("PORT") == port:
                    found.append(process.pid)
            except psutil.Error:
                continue
    return found
