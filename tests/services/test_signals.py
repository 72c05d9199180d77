"""What one recording leaves behind for those who watch: a trace, every metric, log lines."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from speakfit.metrics import LABEL_LIMITS, LABEL_VALUES, METRICS, VERSION_LABEL
from speakfit.tracing import query_summary
from tests.conftest import service
from tests.recording_monitoring import RecordingMonitoring, until
from tests.services.speech import KENNEDY
from tests.services.test_recordings import finished
from tests.span_collector import Received, SpanCollector

SERVER = "POST /v1/recordings"
LAST = "process speakfit.transcribe_chunk"


def log_lines(*files: Path) -> list[dict[str, Any]]:
    """The JSON lines of some logs."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_recording_leaves_one_trace_from_its_upload_to_its_last_word(
    api: httpx.Client,
    environment: dict[str, str],
    collector: SpanCollector,
    monitoring: RecordingMonitoring,
    server_dir: Path,
    tmp_path: Path,
) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    # Its spans come when it ends or not at all.
    patient = {**environment, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    log = tmp_path / "worker.log"
    with service("services.worker", patient, log) as worker:
        answer = api.post(
            "/v1/recordings",
            files={"file": KENNEDY.read_bytes()},
            headers={"traceparent": f"00-{trace_id}-{caller}-01"},
        )
        finished(api, answer.json()["id"])
        until_all_metrics(monitoring)
        assert worker.stop() == 0
    until(lambda: named(collector.spans(trace_id), LAST), what="the worker's spans")
    until(lambda: named(collector.spans(trace_id), SERVER), what="the API's spans")

    spans = collector.spans(trace_id)
    by_id = {one.span_id: one for one in spans}
    (server,) = named(spans, SERVER)
    assert (server.service, server.kind, server.parent_id) == ("api", "SERVER", caller)
    assert server.attributes["http.response.status_code"] == 202
    for name in ("process speakfit.prepare", LAST):
        (work,) = named(spans, name)
        assert (work.service, work.kind, work.failed) == ("worker", "CONSUMER", False)
        assert work.parent_id == server.span_id
    (inner,) = named(spans, "transcribe")
    assert by_id[inner.parent_id].name == LAST
    sent = [one for one in spans if one.kind == "PRODUCER"]
    assert sent
    assert {one.parent_id for one in sent} <= by_id.keys()
    assert by_id[named(spans, "INSERT recordings")[0].parent_id] is server
    assert {by_id[one.parent_id].service for one in named(spans, "UPDATE chunks")} == {"worker"}
    assert not [one for one in spans if one.parent_id not in {*by_id, caller}], "no gap"

    told = [
        line for line in log_lines(server_dir / "api.log", log)
        if line.get("logging.googleapis.com/trace", "").endswith(trace_id)
    ]  # fmt: skip
    assert {line["message"] for line in told} >= {"request", "recording completed"}
    assert all(line["logging.googleapis.com/trace_sampled"] for line in told)
    assert {line["logging.googleapis.com/spanId"] for line in told} <= by_id.keys()

    labels_are_bounded(monitoring)


def named(spans: list[Received], name: str) -> list[Received]:
    return [one for one in spans if one.name == name]


def until_all_metrics(monitoring: RecordingMonitoring) -> None:
    """Everything that is declared is exported by the time a recording is finished."""

    def missing() -> list[str]:
        return [metric.name for metric in METRICS if not monitoring.series(metric.type)]

    try:
        until(lambda: not missing(), what="every metric")
    except AssertionError:
        pytest.fail(f"nobody exports {missing()}")


def labels_are_bounded(monitoring: RecordingMonitoring) -> None:
    """Every label of every series has one of its declared values, or few of its own."""
    for metric in METRICS:
        open_values: dict[tuple[str, str], set[str]] = defaultdict(set)
        for one in monitoring.series(metric.type):
            labels = dict(one.metric.labels)
            assert tuple(sorted(labels)) == metric.exported_keys, metric.name
            for name in (*metric.labels, VERSION_LABEL):
                value = labels[metric.label_key(name) if name in metric.labels else name]
                if name in LABEL_VALUES:
                    assert value in LABEL_VALUES[name], (metric.name, name)
                else:
                    open_values[name, one.resource.labels["task_id"]].add(value)
        for (name, _), values in open_values.items():
            assert len(values) <= LABEL_LIMITS[name], (metric.name, name)
            if name == "http.route":
                assert all(value == "unmatched" or value[0] == "/" for value in values)


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT a.id, a.b FROM recordings AS a WHERE a.id = %(id)s", "SELECT recordings"),
        ("INSERT INTO outbox (task) VALUES (%(task)s)", "INSERT outbox"),
        ("UPDATE chunks SET s=(SELECT x FROM other) WHERE i = %(i)s", "UPDATE chunks"),
        ('DELETE FROM "worker_heartbeats" WHERE at < now()', "DELETE worker_heartbeats"),
        ("SELECT 1", "SELECT"),
        ("SELECT count(*) FROM (SELECT id FROM chunks) AS x", "SELECT chunks"),
    ],
)
def test_a_query_is_told_by_what_it_does_and_where(statement: str, summary: str) -> None:
    assert query_summary(statement) == summary
