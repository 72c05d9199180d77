"""Sessions of commands kept as text: each command, its exact output and its exit code."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

from tests.alerts.conftest import KEYS, PROJECT, ROOT, Run

FOLDER = ROOT / "tests" / "transcripts" / "alerts"
UPDATE = os.environ.get("UPDATE_SNAPSHOTS") == "1"

_NUMBER = re.compile(r"\b\d{19,20}\b")


def command(alerts: Run, line: str, **environment: str) -> str:
    """Run one command line; what a person sees of it, errors marked with `!`."""
    done = alerts(*shlex.split(line), **environment)
    assert "Traceback" not in done.stderr, done.stderr
    for key in KEYS.values():
        assert key not in done.stdout + done.stderr
    errors = "".join(f"! {text}\n" for text in done.stderr.splitlines())
    settings = "".join(f"{name}={value} " for name, value in environment.items())
    return f"$ {settings}python -m alerts {line}\n{done.stdout}{errors}[exit {done.returncode}]\n\n"


def commands(alerts: Run, lines: Iterable[str]) -> str:
    """Run several, one after another."""
    return "".join(command(alerts, line) for line in lines)


def _without_numbers(text: str) -> str:
    """The server's numbers differ from run to run: they become 1, 2, 3 as they appear."""
    seen: dict[str, int] = {}
    return _NUMBER.sub(lambda found: str(seen.setdefault(found[0], len(seen) + 1)), text)


def compare(name: str, session: str, **addresses: str) -> None:
    """Compare a session with the kept one; `addresses` are written by their names."""
    for what, address in addresses.items():
        session = session.replace(address, what)
    session = re.sub(rf"{PROJECT}-\d+", PROJECT, _without_numbers(session))
    file = FOLDER / f"{name}.txt"
    if UPDATE:
        file.write_text(session, encoding="utf-8")
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    assert session == expected, f"tests/transcripts/alerts/{name}.txt differs; `make snapshots`"
