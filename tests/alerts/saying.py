"""One command line run in this process: starting Python for each would take longer than it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alerts.cli import main

Say = Callable[[str], str]


def saying(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """Runs command lines in a folder; gives what a person sees of each, errors marked with `!`."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["python -m alerts", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        seen = capsys.readouterr()
        assert "Traceback" not in seen.err
        errors = "".join(f"! {text}\n" for text in seen.err.splitlines())
        return f"$ python -m alerts {line}\n{seen.out}{errors}[exit {ended.value.code}]\n\n"

    return run
