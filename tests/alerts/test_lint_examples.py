"""The hooks and the workflow that others copy name commands and options that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from alerts.cli import app
from tests.alerts.conftest import ROOT

HOOKS = ROOT / ".pre-commit-hooks.yaml"
CONFIG = ROOT / "docs" / "examples" / "pre-commit-config.yaml"
WORKFLOW = ROOT / "docs" / "examples" / "alerts-ci.yaml"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def lines_of_the_workflow() -> Iterator[str]:
    for job in read(WORKFLOW)["jobs"].values():
        for step in job["steps"]:
            for found in re.finditer(r"python -m alerts .*", step.get("run", "")):
                yield re.split(r" (?:>|\|\|) ", found[0])[0]


def lines_of_the_hooks() -> Iterator[str]:
    hooks = {hook["id"]: hook for hook in read(HOOKS)}
    for hook in hooks.values():
        yield shlex.join([*shlex.split(hook["entry"]), *hook.get("args", []), *names(hook)])
    for repository in read(CONFIG)["repos"]:
        for used in repository["hooks"]:
            hook = {**hooks[used["id"]], **used}
            yield shlex.join([*shlex.split(hook["entry"]), *hook["args"], *names(hook)])


def names(hook: dict[str, Any]) -> list[str]:
    """What pre-commit puts behind the arguments."""
    return ["a.json", "b.yaml"] if hook.get("pass_filenames", True) else []


@pytest.mark.parametrize("line", [*lines_of_the_workflow(), *lines_of_the_hooks()])
def test_every_command_and_option_exists(line: str) -> None:
    name, *arguments = shlex.split(line)[3:]
    # Reading the arguments uses them up.
    context = COMMANDS[name].make_context(name, list(arguments))
    if "a.json" in arguments:
        assert [str(one) for one in context.params["files"] + context.params["more"]] == [
            "a.json",
            "b.yaml",
        ]


def test_the_workflow_runs_lint_test_and_plan() -> None:
    commands = {shlex.split(line)[3] for line in lines_of_the_workflow()}
    assert commands == {"lint", "test", "plan"}
