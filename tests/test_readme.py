"""The README speaks of things that exist: targets, commands, files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)
LINES = [
    line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()
]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


ASKS = (ROOT / "docs" / "asks.md").read_text(encoding="utf-8")
ANSWERS = sorted(set(re.findall(r"`(python -m alerts [^`]+)`", ASKS)))


@pytest.mark.parametrize(
    "line", [*(line for line in LINES if line.startswith("python -m ")), *ANSWERS]
)
def test_every_command_of_the_documents_is_known(line: str) -> None:
    _, _, module, *arguments = words(line)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_of_the_other_documents_is_described() -> None:
    """docs/commands.md holds what each command prints about itself."""
    described = {
        heading: set(re.findall(r"--[a-z-]+", text))
        for heading, text in re.findall(
            r"(?ms)^##+ (python -m [a-z_. -]+?)$(.*?)(?=^##|\Z)",
            (ROOT / "docs" / "commands.md").read_text("utf-8"),
        )
    }
    wrong = []
    for document in sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("runbooks/*.md")]):
        blocks = re.findall(r"(?ms)^ *```(?:bash|text|sh)\n(.*?)```", document.read_text("utf-8"))
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            found = re.search(r"python -m (alerts|loadtest|services|speakfit_ops)\b", line)
            if document.name == "commands.md" or not found:
                continue
            said = words(line[found.start() :].partition(")")[0].partition("'")[0])
            heading = max(
                (name for name in described if said[: name.count(" ") + 1] == name.split()),
                key=len,
                default="",
            )
            rest = said[heading.count(" ") + 1 :]
            more = any(name.startswith(f"{heading} ") for name in described)
            options = {word for word in rest if word.startswith("--")}
            if (
                not heading
                or (more and rest[:1] and rest[0][0] not in "-&")
                or not options <= described[heading]
            ):
                wrong.append(f"{document.name}: {line.strip()}")
    assert wrong == []


def test_every_target_of_the_readme_is_listed_by_make() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"(?m)(?:^|`)make ([a-z][a-z-]*)", "\n".join(LINES) + README))
    assert {"demo", "test", "up", "down"} <= named
    known = set(re.findall(r"(?m)^ +make ([a-z-]+)", listed))
    assert named - known == set()


def test_every_link_and_file_of_the_documents_exists() -> None:
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("runbooks/*.md")]
    dead = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in documents
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
        if not (document.parent / link).exists()
    ]
    dead += [word for line in LINES for word in words(line) if _names_missing_file(word)]
    assert dead == []


def _names_missing_file(word: str) -> bool:
    name = word.removeprefix("file=@")
    return name.startswith("platform/") and not (ROOT / name).exists()
