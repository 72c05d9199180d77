"""What is exported is held against everything that relies on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import monitoring_v3

from alerts.contract import MAX_VALUES, Grade, compare, exported, references
from alerts.encode import policy_json
from alerts.metric import Metric
from alerts.policies import CATALOG
from speakfit.emulator.server import Emulator
from speakfit.engine.points import MetricKind, SeriesKey, ValueType
from speakfit.metrics import (
    CHUNKS,
    DATABASE_CONNECTIONS,
    QUEUE_DEAD_LETTERS,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    RESOURCE_TYPE,
    VERSION_LABEL,
    WORKERS_ALIVE,
)
from speakfit.metrics import REQUESTS as REQUESTS_COUNTER
from speakfit.target import Target, metric_client
from tests.alerts.conftest import ROOT, Run, fresh_emulator

DASHBOARDS = ROOT.parent / "shared" / "corpus" / "dashboards"
REQUESTS = "workload.googleapis.com/requests"
DESCRIPTORS = {
    REQUESTS: {"type": REQUESTS, "metricKind": "CUMULATIVE", "valueType": "INT64", "unit": "1"},
    "workload.googleapis.com/spare": {
        "type": "workload.googleapis.com/spare",
        "metricKind": "GAUGE",
        "valueType": "DOUBLE",
    },
}


def key(metric: str = REQUESTS, resource: str = "generic_task", **labels: str) -> SeriesKey:
    return SeriesKey.of(
        metric_type=metric,
        metric_labels=labels,
        resource_type=resource,
        resource_labels={"job": "api", "task_id": "1"},
    )


WRITTEN = exported(
    DESCRIPTORS,
    [
        key(route="/a", code="200"),
        key(route="/b", code="500"),
        key(metric="workload.googleapis.com/spare"),
        key(metric="workload.googleapis.com/undescribed"),
    ],
)


def condition(
    text: str, *, aligner: str = "ALIGN_RATE", groups: tuple[str, ...] = ()
) -> dict[str, Any]:
    step = {
        "alignmentPeriod": "60s",
        "perSeriesAligner": aligner,
        "crossSeriesReducer": "REDUCE_SUM",
        "groupByFields": list(groups),
    }
    return {"conditions": [{"conditionThreshold": {"filter": text, "aggregations": [step]}}]}


GOOD = (
    f'metric.type = "{REQUESTS}" AND resource.type = "generic_task" AND metric.labels.code = "500"'
)

BROKEN = {
    "a metric that nobody exports": (
        condition(GOOD.replace("/requests", "/request")),
        "Nobody exports workload.googleapis.com/request.",
        "Did you mean workload.googleapis.com/requests?",
    ),
    "another resource": (
        condition(GOOD.replace("generic_task", "gce_instance")),
        "is not exported on gce_instance",
        "generic_task",
    ),
    "a label that is misspelt": (
        condition(GOOD.replace("labels.code", "labels.cod")),
        "has no label metric.labels.cod",
        "Did you mean code?",
    ),
    "a group that is not there": (
        condition(GOOD, groups=("metric.labels.route", "resource.labels.zone")),
        "has no label resource.labels.zone",
        "It has job, task_id.",
    ),
    "an aligner for another kind": (
        condition(GOOD, aligner="ALIGN_MEAN"),
        "is exported as CUMULATIVE INT64",
        "Aggregate it otherwise",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_can_never_page_is_broken(what: str) -> None:
    document, words, todo = BROKEN[what]
    result = compare(list(references(document, "policy p")), WRITTEN)
    (finding,) = [one for one in result.findings if one.grade is Grade.BROKEN]
    assert words in finding.what
    assert todo in finding.todo
    assert finding.source == "policy p, conditions[0].conditionThreshold.filter"
    assert not result.kept


def test_what_is_exported_as_it_is_meant_is_kept_and_the_rest_is_listed() -> None:
    found = list(references(condition(GOOD, groups=("metric.labels.route",)), "policy p"))
    result = compare(found, WRITTEN)
    assert result.findings == ()
    assert result.kept
    assert (result.metrics, result.unused) == ((REQUESTS,), ("workload.googleapis.com/spare",))


def test_a_value_that_was_never_written_is_only_doubtful() -> None:
    result = compare(list(references(condition(GOOD.replace("500", "503")), "p")), WRITTEN)
    (finding,) = result.findings
    assert (finding.grade, result.kept) == (Grade.DOUBTFUL, True)
    assert "Seen: 200, 500" in finding.todo


def test_a_label_with_many_values_is_not_held_to_them() -> None:
    many = exported(DESCRIPTORS, [key(code=str(n)) for n in range(MAX_VALUES + 5)])
    assert compare(list(references(condition(GOOD), "p")), many).findings == ()


def test_a_denominator_and_a_dashboard_are_read_too() -> None:
    ratio = condition(GOOD)
    ratio["conditions"][0]["conditionThreshold"]["denominatorFilter"] = 'metric.type = "a/b"'
    (finding,) = compare(list(references(ratio, "p")), WRITTEN).findings
    assert finding.source.endswith("denominatorFilter")
    board = {
        "gridLayout": {
            "widgets": [
                {
                    "title": "Requests",
                    "xyChart": {
                        "dataSets": [
                            {
                                "timeSeriesQuery": {
                                    "timeSeriesFilter": {
                                        "filter": f'metric.type="{REQUESTS}"',
                                        "aggregation": {
                                            "perSeriesAligner": "ALIGN_RATE",
                                            "alignmentPeriod": "60s",
                                            "crossSeriesReducer": "REDUCE_SUM",
                                            "groupByFields": ["metric.label.team"],
                                        },
                                    }
                                }
                            }
                        ]
                    },
                }
            ]
        }
    }
    (finding,) = compare(list(references(board, "board")), WRITTEN).findings
    assert "has no label metric.labels.team" in finding.what


def test_a_declaration_is_held_against_what_was_exported() -> None:
    declared = Metric(
        type=REQUESTS,
        kind=MetricKind.GAUGE,
        value_type=ValueType.DOUBLE,
        unit="{request}",
        labels=("code", "route", "team"),
    )
    silent = Metric(type="a/b")
    words = [one.what for one in compare([], WRITTEN, [declared, silent]).findings]
    assert words == [
        "Its kind is declared GAUGE and exported as CUMULATIVE.",
        "Its value type is declared DOUBLE and exported as INT64.",
        "Its unit is declared {request} and exported as 1.",
        "It is declared with the label team, which is not exported.",
        "It is declared, and nobody exported it.",
    ]


def test_every_condition_of_our_catalog_is_a_reference() -> None:
    for policy in CATALOG.policies:
        body = policy_json(policy, CATALOG, runbook_base_url="https://runbooks.test")
        found = {one.source.split(".", 1)[0] for one in references(body, policy.id)}
        assert len(found) == len(policy.conditions)


@pytest.mark.skipif(not DASHBOARDS.is_dir(), reason="the corpus is not here")
def test_published_dashboards_are_read_without_error() -> None:
    found = [
        reference
        for file in DASHBOARDS.glob("*.json")
        for reference in references(json.loads(file.read_text(encoding="utf-8")), file.name)
    ]
    assert len(found) > 500
    assert all(one.grade is Grade.BROKEN for one in compare(found, {}).findings)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Its clock moves, so it is nobody else's."""
    with fresh_emulator() as running:
        yield running


def test_the_command_reads_a_server_or_a_recording(
    emulator: Emulator, target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = ["--emulator", emulator.grpc_address]
    assert quick_alerts("apply", "--auto-approve", *at).returncode == 0
    client = metric_client(target)
    now = emulator.clock.now_ns()
    for metric in (QUEUE_DEPTH, WORKERS_ALIVE):
        point = {
            "interval": {"end_time": {"seconds": now // 10**9}},
            "value": {"int64_value": 3},
        }
        series = {
            "metric": {"type": metric.type, "labels": {VERSION_LABEL: "1"}},
            "resource": {
                "type": RESOURCE_TYPE,
                "labels": {"location": "x", "namespace": "n", "job": "api", "task_id": "1"},
            },
            "points": [point],
        }
        client.create_time_series(
            name=target.project_name, time_series=[monitoring_v3.TimeSeries(series)]
        )
    emulator.advance(timedelta(minutes=2))
    (tmp_path / "board.json").write_text('{"filter": "metric.type = \\"a/b\\""}', encoding="utf-8")
    live = quick_alerts("contract", "--json", "--also", "board.json", *at)
    assert live.returncode == 3
    answer = json.loads(live.stdout)
    assert answer["metrics"] == [QUEUE_DEPTH.type, WORKERS_ALIVE.type]
    broken = {one["what"] for one in answer["findings"] if one["grade"] == "broken"}
    assert broken == {
        "Nobody exports a/b.",
        f"Nobody exports {REQUESTS_COUNTER.type}.",
        f"Nobody exports {REQUEST_DURATION.type}.",
        f"Nobody exports {DATABASE_CONNECTIONS.type}.",
        f"Nobody exports {CHUNKS.type}.",
        f"Nobody exports {QUEUE_DEAD_LETTERS.type}.",
    }
    assert quick_alerts("record", "--since", "1h", "--out", "h.gz", *at).returncode == 0
    recorded = quick_alerts("contract", "--from", "h.gz", "--json", "--also", "board.json")
    assert json.loads(recorded.stdout)["findings"] == answer["findings"]
    for mistake in (["--also", "nowhere.json"], ["--since", "soon"], ["--from", "board.json"]):
        done = quick_alerts("contract", *mistake, *at)
        assert done.returncode in (1, 64), mistake
        assert "to do:" in done.stderr
