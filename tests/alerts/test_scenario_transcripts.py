"""What people see of `test` and `schema`: passes, failures, and every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from alerts.form import Form
from alerts.schema import SCENARIOS
from tests.alerts.saying import Say, saying
from tests.alerts.transcript import compare

RIGHT = """\
scenarios:
  - name: Above 100 for five minutes warns
    series:
      - metric: speakfit.queue.depth
        values: 0 for 5m  101 for 8m  0 for 7m
    pages:
      - {policy: queue-depth-warning, at: 11m, resolves: {at: 14m}}
  - name: Exactly 100 is not too long
    series:
      - metric: speakfit.queue.depth
        values: 100 for 20m
    quiet: ["*"]
"""

WRONG = """\
scenarios:
  - name: It pages too late
    series:
      - metric: speakfit.queue.depth
        resource: {task_id: api-1}
        values: 0 for 5m  0+40x12  0 for 7m
    pages:
      - {policy: queue-depth-warning, by: 9m}
  - name: Nobody expects the critical page, nor the second warning
    series:
      - metric: speakfit.queue.depth
        values: 0 for 2m  501 for 8m  0 for 2m  101 for 8m
    pages:
      - policy: queue-depth-warning
        by: 10m
        resolves: {by: 10m}
  - name: A distribution, two routes, the wrong one
    series:
      - metric: http.server.request.duration
        labels: {route_class: interactive}
        gains: "{mean: 0.4, sd: 0.2, n: 50} for 3m  {mean: 3, sd: 1, n: 50} for 7m"
        noise: {sd: 0.2, seed: 7}
      - metric: speakfit.api.requests
        labels: {http.route: [/a, /b], status_class: 2xx}
        gains: 95 for 10m
      - metric: speakfit.api.requests
        labels: {http.route: /b, status_class: 5xx}
        gains: 0 for 3m  5 for 7m
    pages:
      - {policy: api-latency-critical, at: 6m}
      - {policy: api-errors-warning, at: 9m, series: {http.route: /a}}
    may_page: [api-latency-warning]
  - name: Silence is not what was expected of it
    series:
      - metric: speakfit.worker.alive
        values: 0 for 8m  _ for 12m
    pages:
      - policy: worker-down-critical
        at: 6m
        resolves: {by: 15m}
      - {policy: telemetry-silent-critical, at: 16m, says: [heartbeat]}
"""

TYPOS = """\
scenarios:
  - name: A key is misspelt
    series:
      - {metrc: speakfit.queue.depth, values: 0 for 5m}
      - metric: http.server.request.duration
        gains: {mean: 5, n: 3}
    quiet: ["*"]
  - name: Two at once
    name: Twice
    series: []
    step: half a minute
    pages:
      - {policy: queue-depth-warning, at: 5, incidents: 0, resolves: soon}
      - {policy: queue-depth-warning, severty: warning}
      - {policy: queue-depth-warning, severity: critcal, between: [5m]}
      - worker-down-critical
    quiet:
"""

UNKNOWN = """\
scenarios:
  - name: Nothing here has this name
    series:
      - metric: speakfit.que.depth
        values: 0 for 5m
      - metric: speakfit.api.requests
        labels: {http.rout: /a, colour: red}
        gains: 0 for 5m
      - metric: speakfit.worker.alive
        resource: {task: api-1}
        values: 0 for 5m
      - metric: speakfit.queue.depth
        resource_type: generic_tusk
        values: 0 for 5m
    quiet: ["*"]
  - name: No policy has this name
    series:
      - {metric: speakfit.queue.depth, values: 0 for 5m}
    pages:
      - {policy: queue-deph-warning, at: 4m}
      - policy: queue-depth-warning
        condition: chunks acepted and not finished
        notifies: [critcal]
    quiet: [worker-up-critical]
    snoozes:
      - {policies: [que-depth-*], from: 1m, until: 2m, filter: metric.type =~ "x"}
"""

SERIES = """\
scenarios:
  - name: None of these parse
    series:
      - {metric: speakfit.queue.depth, values: 0 for 5m 10z3}
      - metric: speakfit.queue.depth
        values: >-
          0 for 5m
          7 for 5 minutes
      - {metric: speakfit.queue.depth, values: 0 for 45s 1, resource: {task_id: b}}
      - {metric: speakfit.queue.depth, values: 1.5x3}
      - {metric: speakfit.queue.depth, gains: 1x3}
      - {metric: speakfit.queue.depth, values: 1x3, gains: 1x3}
      - {metric: speakfit.queue.depth}
      - {metric: speakfit.api.requests, gains: -5x3}
      - {metric: http.server.request.duration, values: "{0.1: 5}x9"}
      - {metric: http.server.request.duration, gains: 5x9}
      - {metric: http.server.request.duration, gains: "{mean: 5}"}
      - {metric: speakfit.worker.alive, values: "{0.1: 5}x9"}
      - {metric: speakfit.worker.alive, values: 1x9 reset 1x9}
    quiet: ["*"]
  - name: One of them is there twice
    series:
      - {metric: speakfit.queue.depth, values: 0 for 5m}
      - {metric: speakfit.queue.depth, values: 1 for 5m}
    quiet: ["*"]
"""

NEVER = """\
scenarios:
  - name: None of these could be checked
    series:
      - metric: speakfit.queue.depth
        values: 0 for 5m  101 for 15m
    pages:
      - {policy: queue-depth-warning, at: 25m}
      - {policy: queue-depth-warning, at: 11m30s}
      - {policy: queue-depth-warning, between: [12m, 11m]}
      - {policy: queue-depth-warning, by: 30s}
      - {policy: queue-depth-warning, at: 11m, resolves: {at: 11m}}
      - {policy: queue-depth-warning, resolves: {because: missing-data}}
      - {policy: queue-depth-warning, severity: critical}
      - {policy: queue-depth-warning, series: {task_id: api-1}}
      - {policy: worker-down-critical, at: 6m}
    quiet: [queue-depth-warning, api-*]
    may_page: [api-latency-*]
    snoozes:
      - {policies: ["*"], from: 9m, until: 3m}
  - name: This expects nothing
    series:
      - {metric: speakfit.queue.depth, values: 0 for 5m}
  - name: This is over before the first evaluation
    series:
      - {metric: speakfit.queue.depth, values: 1}
    quiet: ["*"]
  - name: This expects nothing
    start: 2026-02-30T00:00:00Z
    series:
      - {metric: speakfit.queue.depth, values: 0 for 5m}
    quiet: ["*"]
"""

BROKEN = {
    "indent.yaml": "scenarios:\n  - name: x\n   series: []\n",
    "quote.yaml": "scenarios:\n  - name: [It's * broken\n",
    "binary.yaml": "scenarios:\n  - name: \x00\n",
    "empty.yaml": "",
    "list.yaml": "- name: x\n",
}

PARTLY = """
from dataclasses import replace
from datetime import timedelta

from alerts.condition import Aligner, Aggregation, PromQL, Signal, Threshold
from alerts.metric import Metric
from alerts.policies import CATALOG as SPEAKFIT
from alerts.policy import Catalog

COUNTED = Aggregation(aligner=Aligner.ALIGN_COUNT)
(like,) = [one for one in SPEAKFIT.policies if one.id == "worker-down-critical"]
CATALOG = Catalog(
    name="partly",
    policies=(
        replace(like, auto_close=None),
        replace(
            like,
            subject="workers-negative",
            conditions=(replace(like.conditions[0], below=0, aggregation=COUNTED),),
        ),
        replace(
            like,
            subject="prometheus-down",
            conditions=(
                PromQL(
                    key="up", query="up == 0", duration=timedelta(minutes=5),
                    interval=timedelta(seconds=30),
                ),
            ),
        ),
        replace(
            like,
            subject="disk-full",
            conditions=(
                replace(
                    like.conditions[0],
                    signal=Signal(
                        metric=Metric(type="agent.googleapis.com/disk/percent_used"),
                        resource_type="gce_instance",
                    ),
                ),
            ),
        ),
    ),
    routes=SPEAKFIT.routes,
    metrics=SPEAKFIT.metrics,
)
"""

PARTLY_TESTED = """\
scenarios:
  - name: What is not evaluated here cannot page
    series:
      - {metric: speakfit.worker.alive, values: 0 for 10m}
    pages:
      - {policy: worker-down-critical, at: 6m}
      - {policy: prometheus-down-critical, at: 6m}
"""


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs one command line in an empty folder; what a person sees of it."""
    return saying(tmp_path, monkeypatch, capsys)


def written(folder: Path, **files: str) -> None:
    """Scenario files, where `test` looks for them."""
    place = folder / "tests" / "scenarios"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text, encoding="utf-8")


def test_transcript_of_scenarios_that_pass(say: Say, tmp_path: Path) -> None:
    written(tmp_path, queue__yaml=RIGHT)
    session = say("test") + say("test --policy queue-depth-warning --only '*warns' --json")
    session += say("test --policy queue-depth-warning --fail-under 100")
    compare("test-passes", session)


def test_transcript_of_scenarios_that_fail(say: Say, tmp_path: Path) -> None:
    written(tmp_path, queue__yaml=RIGHT, wrong__yaml=WRONG)
    session = say("test --policy queue-depth-warning") + say("test --only '*wrong one'")
    session += say("test --only 'wrong: silence*'") + say(
        "test --only '*too late' --policy queue-depth-warning --json"
    )
    compare("test-fails", session)


def test_transcript_of_mutants(say: Say, tmp_path: Path) -> None:
    written(tmp_path, queue__yaml=RIGHT)
    session = say("test --mutate --policy queue-depth-warning --fail-under 90 --junit junit.xml")
    session += say("test --mutate --only 'exactly*' --policy queue-depth-warning --json")
    written(tmp_path, wrong__yaml=WRONG)
    session += say("test --mutate --only '*too late'")
    compare("test-mutants", session)
    assert "No scenario notices it" in (tmp_path / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("typos", TYPOS),
        ("unknown-names", UNKNOWN),
        ("wrong-series", SERIES),
        ("never-checked", NEVER),
    ],
)
def test_transcript_of_scenarios_with_mistakes(
    name: str, text: str, say: Say, tmp_path: Path
) -> None:
    written(tmp_path, wrong__yaml=text, right__yaml=RIGHT)
    compare(f"test-{name}", say("test"))


def test_transcript_of_files_that_are_no_scenarios(say: Say, tmp_path: Path) -> None:
    session = say("test")
    (tmp_path / "tests" / "scenarios").mkdir(parents=True)
    session += say("test")
    for name, text in BROKEN.items():
        (tmp_path / "tests" / "scenarios" / name).write_text(text, encoding="utf-8")
    session += say("test")
    compare("test-broken-files", session)


def test_transcript_of_choices_that_leave_nothing(say: Say, tmp_path: Path) -> None:
    written(tmp_path, queue__yaml=RIGHT)
    session = "".join(
        say(f"test {options}")
        for options in (
            "--only nothing*",
            "--policy queue-deph-warning",
            "--policy worker-down-critical",
            "--fail-under 200",
            "--junit /proc/nobody/report.xml",
        )
    )
    compare("test-choices", session)


def test_transcript_of_policies_that_are_not_evaluated_here(say: Say, tmp_path: Path) -> None:
    written(tmp_path, worker__yaml=PARTLY_TESTED)
    (tmp_path / "partly_evaluated.py").write_text(PARTLY)
    session = say("test --catalog partly_evaluated")
    written(tmp_path, worker__yaml=PARTLY_TESTED.replace("prometheus-down", "disk-full"))
    session += say("test --catalog partly_evaluated")
    compare("test-not-evaluated", session)


SLIPS = [
    ("", ""),
    ("at: 11m", "at: 5"),
    ("at: 11m", "at: soon"),
    ("at: 11m", "between: [5m]"),
    ("at: 11m", "between: [5m, 6m, 7m]"),
    ("at: 11m", "between: [5m, 11m]"),
    ("at: 11m", "incidents: 0"),
    ("at: 11m", "incidents: 2.5"),
    ("at: 11m", "incidents: 2"),
    ("at: 11m", "severity: critcal"),
    ("at: 11m", "says: []"),
    ("at: 11m", "series: {a: [b]}"),
    ("at: 11m", "series: {a: 1}"),
    ("at: 11m", "att: 11m"),
    ("{at: 14m}", "soon"),
    ("{at: 14m}", "never"),
    ("{at: 14m}", "{because: tired}"),
    ("policy: queue-depth-warning, ", ""),
    ('quiet: ["*"]', "quiet:"),
    ('quiet: ["*"]', "quiet: []"),
    ("values: 100 for 20m", "values: [100]"),
    ("values: 100 for 20m", "values: 5"),
    ("values: 100 for 20m", "step: 30"),
    ("values: 100 for 20m", "noise: {sd: 0, seed: 1}"),
    ("values: 100 for 20m", "noise: {sd: 1}"),
    ("values: 100 for 20m", "buckets: [a]"),
    ("values: 100 for 20m", "labels: {a: []}"),
    ("values: 100 for 20m", "labels: {a: [b, 1, true]}"),
    ("values: 100 for 20m", "labels: {a: {b: c}}"),
    ("name: Exactly 100 is not too long", "name: ' '"),
    ("name: Exactly 100 is not too long", "start: 2026-01-01"),
    ("scenarios:", "defaults: {step: 5m, resource: {a: b}}\nscenarios:"),
    ("scenarios:", "defaults: {lasts: 5m}\nscenarios:"),
]


@pytest.mark.parametrize(("written", "slip"), SLIPS)
def test_editors_mark_what_the_loader_refuses(written: str, slip: str) -> None:
    form = Form("x.yaml", RIGHT.replace(written, slip, 1))
    form.check(SCENARIOS)
    valid = Draft202012Validator(SCENARIOS).is_valid(form.value)
    assert valid is not bool(form.problems), form.problems


def test_the_schema_is_printed_whole(say: Say) -> None:
    session = say("schema")
    assert json.loads(session.partition("\n")[2].rpartition("[exit 0]")[0]) == SCENARIOS
    assert "expires" in say("schema suppressions")
    assert "Did you mean scenarios?" in say("schema scenaros")
