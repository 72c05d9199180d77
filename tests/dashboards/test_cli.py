"""`python -m dashboards` as a person types it: what it says, and with which exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from dashboards import cli
from speakfit.target import Target, dashboard_client
from tests.dashboards.test_apply import gateway

__all__ = ["gateway"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, in an empty folder and without settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("MONITORING_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def typed(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with (
            mock.patch.object(sys, "argv", ["dashboards", *arguments]),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
        shown = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, shown.out, shown.err

    return typed


@pytest.mark.usefixtures("gateway")
def test_the_way_from_a_plan_to_drift(run: Run, target: Target, tmp_path: Path) -> None:
    at = ("--emulator", str(target.host), "--project", target.project)
    code, out, _ = run("plan", *at)
    assert code == 2
    assert "  + create dashboard cost: 'SpeakFit: cost', 5 charts, 3 numbers, 1 text\n" in out
    code, _, errors = run("apply", *at)
    assert (code, "nobody can be asked here" in errors) == (5, True)
    code, out, _ = run("apply", *at, "--auto-approve")
    assert (code, out.splitlines()[-1]) == (0, "Applied 6 changes.")
    code, out, _ = run("plan", *at)
    assert (code, out.splitlines()[-1]) == (0, "No changes: 6 resources as the catalog wants.")
    assert run("drift", *at)[0] == 0

    client = dashboard_client(target)
    name = f"{target.project_name}/dashboards/speakfit-"
    edited = client.get_dashboard(request={"name": f"{name}overview"})
    tile = next(t for t in edited.mosaic_layout.tiles if t.widget.title == "Queue depth")
    tile.widget.xy_chart.thresholds[0].value = 7
    client.update_dashboard(request={"dashboard": edited})
    client.delete_dashboard(request={"name": f"{name}cost"})
    code, out, _ = run("drift", *at)
    assert code == 2
    assert out.splitlines()[1:] == [
        "  ~ edited dashboard overview",
        '      ~ tile "Queue depth"',
        "          ~ xyChart.thresholds[0].value: 100.0 -> 7.0",
        "  - deleted dashboard cost  (or never applied)",
        "Drift: 1 edited, 1 deleted; 4 as the catalog wants.",
        "  `python -m dashboards apply` puts back what the catalog says.",
    ]
    code, out, _ = run("drift", *at, "--json")
    assert (code, json.loads(out)["deleted"]) == (2, ["cost"])

    assert run("export", *at, "--out", "files")[0] == 0
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert len(files) == 6
    text = (tmp_path / "files" / "api.json").read_text(encoding="utf-8")
    assert "policy:" not in text
    assert f'"{target.project_name}/alertPolicies/' in text


def test_what_is_wrong_is_said_with_the_documented_exit_code(run: Run, target: Target) -> None:
    at = ("--emulator", str(target.host), "--project", target.project)
    code, _, errors = run("plan", *at)
    assert (code, "Apply the policies first" in errors) == (1, True)
    code, _, errors = run("export", "coast", *at)
    assert (code, "Did you mean cost?" in errors) == (1, True)
    code, _, errors = run("plan", "--emulator", "127.0.0.1:1")
    assert (code, "does not answer" in errors) == (1, True)
    assert run("plan")[0] == 1
    assert run("draw")[0] == 64
    code, out, _ = run("list")
    assert code == 0
    assert out.startswith("overview    SpeakFit: overview: 4 numbers, 4 charts, 1 incident list\n")
