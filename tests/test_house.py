"""The house rules that tools can check: lint, format, types, layers, generated documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

DOCUMENTS = [
    str(path)
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "runbooks").glob("*.md")),
    ]
]

FOLDERS = ["alerts", "dashboards", "loadtest", "platform", "services"]

BANDIT = (str(BIN / "bandit"), "-q", "-r", "-ll", "-ii")
MIGRATION = "services/migrate"
CHECKS = {
    "lint": [str(BIN / "ruff"), "check", "."],
    "format": [str(BIN / "ruff"), "format", "--check", "."],
    "types": [str(BIN / "mypy")],
    "layers": [str(BIN / "lint-imports")],
    # What bandit is sure of, and what is not merely a matter of taste.
    "security": [*BANDIT, "-x", MIGRATION, *FOLDERS],
    # It names tables of databases it does not know, which no parameter can: all are quoted.
    "security of the migration": [*BANDIT, "-s", "B608", MIGRATION],
    "documents": [sys.executable, "-m", "cogapp", "--check", "-n", "utf-8", "--diff", *DOCUMENTS],
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_house_is_in_order(name: str) -> None:
    done = subprocess.run(
        CHECKS[name], cwd=ROOT, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"
