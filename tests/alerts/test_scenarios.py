"""Scenarios in Python and YAML: what is written, how expectations meet incidents, who counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from alerts.coverage import Transition, measure
from alerts.form import Form
from alerts.policies import CATALOG
from alerts.scenario import (
    Noise,
    Page,
    Resolution,
    Scenario,
    Script,
    Snoozed,
    at,
    between,
    by,
    parse_scenarios,
)
from alerts.stage import PROJECT, Stage
from alerts.trial import Trial, run_scenario
from speakfit.engine.incidents import CloseReason
from speakfit.engine.points import Series
from speakfit.errors import ScenarioError
from tests.alerts.conftest import ROOT, Run

STAGE = Stage.of(CATALOG)
SECOND = 10**9


def depth(values: str, *tasks: str) -> Script:
    return Script(
        metric="speakfit.queue.depth", values=values, resource={"task_id": tasks or ("api-1",)}
    )


def requests(gains: str, *routes: str, status: str = "2xx") -> Script:
    return Script(
        metric="speakfit.api.requests",
        gains=gains,
        labels={"http.route": routes or ("/a",), "status_class": status},
    )


LONG = depth("0 for 5m 501 for 8m 0 for 10m")
WARNING = Page(policy="queue-depth-warning", when=at("11m"))
CRITICAL = Page(policy="queue-depth-critical", when=at("8m"))
STORY = Scenario(name="a long queue", series=(LONG,), pages=(WARNING, CRITICAL))


def trial(**changes: object) -> Trial:
    return run_scenario(replace(STORY, **changes), STAGE)  # type: ignore[arg-type]


def failures(**changes: object) -> list[str]:
    return [failure.what.partition("\n")[0] for failure in trial(**changes).failures]


def written(script: Script, *, step: timedelta = timedelta(seconds=30)) -> Series:
    """The one series that a script writes."""
    play = STAGE.ready(Scenario(name="x", series=(script,), quiet=("*",), step=step))
    (series,) = play.series
    return replace(
        series, start_ns=series.start_ns - play.start_ns, end_ns=series.end_ns - play.start_ns
    )


# What is written


def test_a_gauge_is_read_at_the_end_of_every_step() -> None:
    series = written(depth("7 _ 8 stale 9 1"))
    assert (series.end_ns // SECOND).tolist() == [30, 90, 150, 180]
    assert series.start_ns.tolist() == series.end_ns.tolist()
    assert series.numbers.tolist() == [7, 8, 9, 1]
    assert series.key.metric_type == "workload.googleapis.com/speakfit.queue.depth"
    assert series.key.resource_type == "generic_task"
    assert series.key.resource == {"project_id": PROJECT, "task_id": "api-1"}


@pytest.mark.parametrize(
    ("script", "starts", "totals"),
    [
        (requests("5 5 _ 5"), [0, 0, 0], [5, 10, 15]),
        (requests("5 5 reset 5"), [0, 0, 60], [5, 10, 5]),
        (requests("5 stale 5 5"), [0, 60, 60], [5, 5, 10]),
        (replace(requests("1"), gains="", values="5 10 3 4"), [0, 0, 60, 60], [5, 10, 3, 4]),
    ],
)
def test_a_counter_has_a_new_start_time_where_it_begins_anew(
    script: Script, starts: list[int], totals: list[float]
) -> None:
    series = written(script)
    assert (series.start_ns // SECOND).tolist() == starts
    assert series.numbers.tolist() == totals
    assert series.key.metric == {"http_route": "/a", "status_class": "2xx"}


def test_a_running_distribution_adds_up_what_is_recorded() -> None:
    script = Script(
        metric="http.server.request.duration",
        gains="{1: 1, 3: 1} {mean: 2, n: 2} reset {mean: 2, sd: 0.5, n: 4}",
    )
    column = written(script).histograms
    assert column.count.tolist() == [2, 4, 4]
    assert column.mean.tolist() == [2, 2, 2]
    assert column.ssd.tolist() == [2, 2, 1]
    assert column.counts.sum(axis=1).tolist() == [2, 4, 4]


def test_noise_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    quiet = depth("100 for 30m")
    one, again, other = (
        written(replace(quiet, noise=Noise(deviation=5, seed=seed))).numbers.tolist()
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other
    assert one[:4] == [94, 105, 104, 97], "no Python and no library may change a scenario"
    assert all(value == int(value) for value in one), "the metric holds whole numbers"
    rising = written(replace(requests("1 for 30m"), noise=Noise(deviation=5, seed=1))).numbers
    assert (rising[1:] >= rising[:-1]).all(), "a counter does not fall"


# What is expected


def test_what_was_expected_came_and_nothing_else() -> None:
    trial().check()


def test_a_page_may_be_expected_by_a_time_or_between_two() -> None:
    for when in (by("11m"), by("12m"), between("9m", "11m")):
        assert failures(pages=(replace(WARNING, when=when), CRITICAL)) == []


def test_a_page_at_another_time_fails_once() -> None:
    for when in (at("10m"), by("10m"), between("12m", "15m")):
        assert failures(pages=(replace(WARNING, when=when), CRITICAL)) == [
            f"queue-depth-warning must page {when}; it paged at 11m."
        ]


def test_an_unexpected_page_fails_unless_it_may_come() -> None:
    assert failures(pages=(CRITICAL,)) == ["queue-depth-warning unexpectedly paged at 11m:"]
    assert failures(pages=(CRITICAL,), quiet=("*",)) == [
        "queue-depth-warning must be quiet; it paged at 11m:"
    ]
    assert failures(pages=(CRITICAL,), may_page=("queue-*",)) == []


def test_a_second_page_of_a_policy_needs_an_expectation_of_its_own() -> None:
    twice = depth("501 for 5m 0 for 5m 501 for 5m 0 for 5m")
    first = Page(policy="queue-depth-critical", when=by("20m"), resolves=Resolution())
    assert failures(series=(twice,), pages=(first,)) == [
        "queue-depth-critical unexpectedly paged once more at 13m:"
    ]
    assert failures(series=(twice,), pages=(first, first)) == []


def test_every_series_that_pages_needs_an_expectation_or_a_count() -> None:
    story = Scenario(
        name="two routes",
        series=(
            requests("900 for 5m", "/a", "/b"),
            requests("100 for 5m", "/a", "/b", status="5xx"),
        ),
    )
    page = Page(policy="api-errors-critical", when=at("3m"))
    one = replace(page, series={"http.route": "/a"})
    assert run_scenario(replace(story, pages=(replace(page, incidents=2),)), STAGE).passed
    assert run_scenario(replace(story, pages=(page, one)), STAGE).passed, "the specific one first"
    assert not run_scenario(replace(story, pages=(one,)), STAGE).passed
    assert not run_scenario(replace(story, pages=(replace(page, incidents=3),)), STAGE).passed
    wrong = replace(page, series={"http_route": "/c"})
    (failure,) = run_scenario(replace(story, pages=(wrong, page, page)), STAGE).failures
    assert failure.what == "api-errors-critical must page at 3m for http_route=/c; it never paged."


def test_a_resolution_is_held_to_its_time_and_reason() -> None:
    def wrong(resolution: Resolution) -> list[str]:
        page = replace(WARNING, resolves=resolution)
        return failures(pages=(page, CRITICAL))

    assert wrong(Resolution(when=at("14m"), because=CloseReason.RECOVERED)) == []
    assert "closed at 14m (recovered)" in wrong(Resolution(when=at("13m")))[0]
    assert "closed at 14m (recovered)" in wrong(Resolution(never=True))[0]
    assert "because of 'recovered'" in wrong(Resolution(because=CloseReason.AUTO_CLOSED))[0]
    short = replace(STORY, series=(depth("0 for 5m 501 for 8m"),))
    page = replace(WARNING, resolves=Resolution())
    (failure,) = run_scenario(replace(short, pages=(page, CRITICAL)), STAGE).failures
    assert "stayed open to the end" in failure.what


def test_a_page_is_held_to_what_it_says_and_whom_it_tells() -> None:
    says = replace(WARNING, says=("queue is long", "value of 501", "/queue-depth.md"))
    assert failures(pages=(replace(says, notifies=("warning",)), CRITICAL)) == []
    assert failures(pages=(replace(WARNING, says=("all is well",)), CRITICAL)) == [
        "queue-depth-warning must say 'all is well'; it says:"
    ]


def test_a_snooze_holds_its_policies_back() -> None:
    minutes = timedelta(minutes=1)
    snooze = Snoozed(policies=("queue-*",), begins=5 * minutes, ends=20 * minutes)
    assert failures(snoozes=(snooze,), pages=(), quiet=("*",)) == []
    late = replace(snooze, begins=12 * minutes)
    page = replace(WARNING, resolves=Resolution(when=at("12m"), because=CloseReason.SNOOZED))
    assert failures(snoozes=(late,), pages=(page, CRITICAL)) == []


def test_a_scenario_that_could_not_be_checked_is_refused_with_all_its_problems() -> None:
    wrong = Page(policy="queue-depth-warning", when=at("90m"), severity="critical")
    with pytest.raises(ScenarioError) as raised:
        trial(pages=(wrong,), quiet=("api-latncy-*",))
    text = str(raised.value)
    assert "pages[0].at: 1h30m is never reached: the scenario ends after 23m." in text
    assert "pages[0].severity: The severity of queue-depth-warning is warning" in text
    assert "quiet[0]: No policy is called 'api-latncy-*'." in text


# What it covers


def transitions(*values: str, **changes: object) -> set[str]:
    """What one policy goes through when the queue takes these values."""
    given = {"quiet": ("*",), **changes}
    story = replace(STORY, pages=(), **given)  # type: ignore[arg-type]
    trials = [run_scenario(replace(story, series=(depth(text),)), STAGE) for text in values]
    covered = measure(STAGE, trials, ["queue-depth-warning"]).covered
    return {target.transition for target in covered if target.transition}


def test_a_transition_counts_when_it_was_gone_through_and_something_came_of_it() -> None:
    short, near = str(Transition.SHORT), str(Transition.NEAR)
    assert transitions("0 for 5m 101 for 3m 0 for 5m") == {short}
    assert transitions("0 for 5m 101 for 3m") == set(), "nobody knows how it went on"
    assert transitions("0 for 5m 91 for 5m 0 for 5m") == {near}
    assert transitions("0 for 5m 91 for 3m 89 for 5m") == set(), "too short, too far away"
    assert transitions("0 for 5m 101 for 3m 0 for 5m", may_page=("*warning",), quiet=("*l",)) == (
        set()
    )
    assert transitions("101 for 3m 0 for 2m 101 for 8m 0 for 5m") == set(), "it failed"


# Files


def test_places_are_told_whatever_style_a_series_is_written_in() -> None:
    styles = {
        "values: 0 for 5m 10z2": (5, 24),
        "values: '0 for 5m 10z2'": (5, 25),
        'values: "0 for 5m\n      10z2"': (6, 7),
        "values: >-\n          0 for 5m\n          10z2": (7, 11),
    }
    for style, place in styles.items():
        text = (
            "scenarios:\n  - name: x\n    series:\n    - metric: speakfit.queue.depth\n"
            f"      {style}\n    quiet: ['*']\n"
        )
        found = parse_scenarios("x.yaml", text)
        for number, scenario in enumerate(found.scenarios):
            STAGE.set_up(scenario, found.form, ("scenarios", number))
        (problem,) = found.form.problems
        assert (problem.line, problem.column) == place, style


def test_yaml_means_what_was_written() -> None:
    text = "a: 0x10\nb: on\nc: 1:30\nd: 5\ne: 1e3\nf: '5'\ng: 2.50\nh: &x {i: 1}\nj: {<<: *x}\n"
    form = Form("x.yaml", text)
    assert form.value == {
        "a": "0x10", "b": "on", "c": "1:30", "d": 5, "e": 1000.0, "f": "5", "g": 2.5,
        "h": {"i": 1}, "j": {"i": 1},
    }  # fmt: skip
    assert form.raw(("g",)) == "2.50"


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "[" * 40 + "]" * 40])
def test_a_file_that_holds_itself_is_refused(text: str) -> None:
    (problem,) = Form("x.yaml", text).problems
    assert "too deep" in problem.what


# The catalog's own


def test_every_subject_has_a_scenario_file() -> None:
    subjects = {policy.subject for policy in CATALOG.policies}
    assert {path.stem for path in (ROOT / "tests" / "scenarios").glob("*.yaml")} == subjects


def test_scenarios_cover_the_whole_catalog_and_a_report_says_so(
    alerts: Run, tmp_path: Path
) -> None:
    report = tmp_path / "reports" / "junit.xml"
    done = alerts(
        "test", "--scenarios", str(ROOT / "tests" / "scenarios"), "--fail-under", "100",
        "--junit", str(report),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    suites = ElementTree.parse(report).getroot()
    names = [case.get("name") for case in suites.iter("testcase")]
    assert len(names) == done.stdout.count("\n  pass  ")
    assert "A fleet that never started pages" in names


# Other projects

_ELSEWHERE = """
scenarios:
  - name: A long queue warns
    series:
      - {metric: speakfit.queue.depth, values: 101 for 10m}
    pages: [{policy: queue-depth-warning, at: MOMENT}]
"""


def test_another_project_collects_its_scenarios_with_pytest(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing-alerts.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(settings)
    folder = tmp_path / "tests" / "scenarios"
    folder.mkdir(parents=True)
    (folder / "right.yaml").write_text(_ELSEWHERE.replace("MOMENT", "6m"))
    (folder / "wrong.yaml").write_text(_ELSEWHERE.replace("MOMENT", "7m"))
    (folder / "typo.yaml").write_text(_ELSEWHERE.replace("policy:", "polcy:"))
    (tmp_path / "ignored.yaml").write_text("scenarios: nonsense")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    shown = done.stdout + done.stderr
    assert "1 failed, 1 passed, 1 error" in shown
    assert "queue-depth-warning must page at 7m; it paged at 6m." in shown
    assert "typo.yaml:6:14: A page has no 'polcy'." in shown
    assert "Did you mean policy?" in shown
    assert "alerts/trial.py" not in shown, "no traceback through our code"
