"""docs/testing-alerts.md works as it stands: its scenarios pass, each of its commands runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.alerts.conftest import ROOT
from tests.alerts.saying import saying

PAGE = (ROOT / "docs" / "testing-alerts.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say = saying(tmp_path, monkeypatch, capsys)
    folder = tmp_path / "tests" / "scenarios"
    folder.mkdir(parents=True)
    (scenarios,), (python,), (commands,) = map(blocks, ("yaml", "python", "sh"))
    (folder / "subject.yaml").write_text(scenarios)
    lines = commands.splitlines()
    assert lines
    for line in lines:
        tool, _, arguments = line.partition(" >")[0].partition(" alerts ")
        assert tool == "python -m"
        assert say(arguments).endswith("[exit 0]\n\n"), line
    # The settings are those of a project in test_scenarios.py.
    names: dict[str, object] = {}
    exec(python, names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    assert callable(test)
    test()
