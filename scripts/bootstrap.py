"""Make `.venv` ready to run everything, and do nothing when it already is.

Standard library only, because it runs before anything is installed. uv is used when it is on the
path. Otherwise pip runs out of the wheel beside this file, whose hash is checked first: Debian's
python3 comes without ensurepip, so `python3 -m venv` alone would fail there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
READY = VENV / "speakfit-ready"
PIP_WHEEL = ROOT / "scripts" / "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
OLDEST, NEWEST = (3, 11), (3, 14)


def fail(what: str, todo: str) -> None:
    """Stop with one message that says what is wrong and what to do."""
    sys.exit(f"error: {what}\n  to do: {todo}")


def suitable_python() -> str:
    """This Python when it is supported, else the newest supported one on the path.

    Inside an activated `.venv`, python3 is the very one that may be made anew: its base counts.
    """
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return str(getattr(sys, "_base_executable", sys.executable))
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    fail(
        f"python3 is {sys.version.split()[0]}; SpeakFit needs 3.{OLDEST[1]} to 3.{NEWEST[1]}.",
        "Install one of them, or name it: make PYTHON=/path/to/python3.12 ...",
    )
    raise AssertionError  # fail() does not return


def fingerprint(python: str) -> str:
    """What the environment depends on: lock, project file, place and interpreter.

    The interpreter counts by what it is, not by the name it was called by, which differs inside
    an activated `.venv`.
    """
    digest = hashlib.sha256()
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    digest.update(f"{os.path.realpath(python)} {ROOT}".encode())
    return digest.hexdigest()


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run quietly; show everything it said when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        fail(
            f"`{' '.join(command[:4])} ...` ended with {done.returncode}.",
            "Read its output above; check that PyPI is reachable, then run the same make again.",
        )


def main() -> None:
    """Install the locked dependencies and the project itself into `.venv`."""
    python = suitable_python()
    wanted = fingerprint(python)
    interpreter = VENV / "bin" / "python"
    if interpreter.exists() and READY.is_file() and READY.read_text(encoding="utf-8") == wanted:
        return
    began = time.monotonic()
    uv = shutil.which("uv")
    print(f"Setting up .venv with {'uv' if uv else 'pip'} (once; needs PyPI) ...", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if uv:
        run([uv, "venv", "--quiet", "--python", python, str(VENV)])
        install = [uv, "pip", "install", "--quiet", "--python", str(interpreter)]
        environment = None
    else:
        if hashlib.sha256(PIP_WHEEL.read_bytes()).hexdigest() != PIP_SHA256:
            fail(f"{PIP_WHEEL.name} is damaged.", f"Restore it: git checkout -- {PIP_WHEEL}")
        run([python, "-m", "venv", "--without-pip", str(VENV)])
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-warn-script-location"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(PIP_WHEEL),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
    run([*install, "--require-hashes", "-r", str(LOCK)], environment)
    run([*install, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], environment)
    READY.write_text(wanted, encoding="utf-8")
    print(f"Ready after {time.monotonic() - began:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
