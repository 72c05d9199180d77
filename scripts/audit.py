"""Ask PyPI's advisories about everything in requirements.lock, where the network allows it."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
ADVISORIES = "https://pypi.org/pypi/{name}/{version}/json"
PINNED = re.compile(r"(?m)^([a-z0-9-]+)==([^ ]+)")
ASK_LIMIT_SECONDS = 5
AUDIT_LIMIT_SECONDS = 300


def reachable() -> bool:
    """Whether the advisories on a release can be had; a mirror of packages has none to give."""
    first = PINNED.search(LOCK.read_text(encoding="utf-8"))
    if first is None:
        return False
    address = ADVISORIES.format(name=first[1], version=first[2])
    try:
        with urllib.request.urlopen(address, timeout=ASK_LIMIT_SECONDS) as answer:
            return b'"vulnerabilities"' in answer.read()
    except OSError:
        return False


def main() -> int:
    """0 when nothing is known or nothing can be asked, else what pip-audit answers."""
    if not reachable():
        print("pip-audit is skipped: PyPI's advisories cannot be reached from here.")
        return 0
    command = ["-r", str(LOCK), "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *command], check=False, timeout=AUDIT_LIMIT_SECONDS
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
