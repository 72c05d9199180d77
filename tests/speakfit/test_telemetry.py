"""What leaves a process: the real exporter and client against a server that records."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version

import pytest
from google.api.metric_pb2 import MetricDescriptor
from google.api_core.exceptions import NotFound

from speakfit.clock import ManualClock, RealClock, ScaledClock
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.errors import TargetError
from speakfit.metrics import (
    CHUNKS,
    METRICS,
    QUEUE_BROKER,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    WORKERS_ALIVE,
    Instrument,
    Metric,
)
from speakfit.settings import Settings
from speakfit.target import metric_client, resolve_target
from speakfit.telemetry import JsonLines, Telemetry, make_telemetry, real_interval
from speakfit.totals import Reading
from tests.conftest import free_port
from tests.recording_monitoring import RecordingMonitoring, until

DONE = {"outcome": "done"}
REQUEST = {
    "http.request.method": "GET",
    "http.route": "/v1/x",
    "http.response.status_code": "200",
    "route_class": "interactive",
}


def settings_of(monitoring: RecordingMonitoring) -> Settings:
    return Settings(monitoring_emulator_host=monitoring.address, google_cloud_project="p")


@pytest.fixture
def own_monitoring() -> Iterator[RecordingMonitoring]:
    with RecordingMonitoring(scale=100).serving() as server:
        yield server


@pytest.fixture
def telemetry(own_monitoring: RecordingMonitoring) -> Iterator[Telemetry]:
    made = make_telemetry(settings_of(own_monitoring), service="api")
    yield made
    made.shutdown()


def test_every_process_is_a_generic_task_of_its_own(own_monitoring: RecordingMonitoring) -> None:
    both = [make_telemetry(settings_of(own_monitoring), service="worker") for _ in range(2)]
    for one in both:
        one.count(CHUNKS, DONE, 0)
        one.start()
    until(lambda: len(own_monitoring.series(CHUNKS.type)) >= 2, what="both exports")
    for one in both:
        one.shutdown()
    resources = [one.resource for one in own_monitoring.series(CHUNKS.type)]
    assert {resource.type for resource in resources} == {"generic_task"}
    labels = dict(resources[0].labels)
    assert labels.pop("task_id")
    assert labels == {"location": "us-central1", "namespace": "speakfit", "job": "worker"}
    assert len({resource.labels["task_id"] for resource in resources}) == 2


def test_a_counter_is_born_at_zero_and_counts_from_one_start(
    telemetry: Telemetry, own_monitoring: RecordingMonitoring
) -> None:
    telemetry.count(CHUNKS, DONE, 0)
    telemetry.start()
    until(lambda: own_monitoring.latest(CHUNKS.type) == 0, what="the zero")
    telemetry.count(CHUNKS, DONE)
    until(lambda: own_monitoring.latest(CHUNKS.type) == 1, what="the one")
    starts = {
        one.points[0].interval.start_time.timestamp() for one in own_monitoring.series(CHUNKS.type)
    }
    assert len(starts) == 1


def test_two_and_five_seconds_are_exact_bounds_of_the_latency(
    telemetry: Telemetry, own_monitoring: RecordingMonitoring
) -> None:
    telemetry.record(REQUEST_DURATION, REQUEST, 1.05)
    telemetry.start()
    until(lambda: own_monitoring.series(REQUEST_DURATION.type), what="the histogram")
    one = own_monitoring.series(REQUEST_DURATION.type)[0]
    bounds = list(one.points[0].value.distribution_value.bucket_options.explicit_buckets.bounds)
    assert bounds == list(REQUEST_DURATION.buckets)
    assert dict(one.metric.labels) == {
        "http_request_method": "GET",
        "http_route": "/v1/x",
        "http_response_status_code": "200",
        "route_class": "interactive",
        "service_version": version("speakfit-platform"),
    }
    assert own_monitoring.descriptors[REQUEST_DURATION.type].unit == "s"


def test_the_end_exports_once_more_and_only_once(own_monitoring: RecordingMonitoring) -> None:
    telemetry = Telemetry(
        service="worker",
        location="us-central1",
        exporter=_exporter(own_monitoring),
        clock=RealClock,
        interval=timedelta(hours=1),
    )
    telemetry.count(CHUNKS, DONE, 0)
    telemetry.start()
    until(lambda: len(own_monitoring.series(CHUNKS.type)) == 1, what="the first export")
    telemetry.count(CHUNKS, DONE)
    telemetry.shutdown()
    telemetry.shutdown()
    values = [one.points[0].value.int64_value for one in own_monitoring.series(CHUNKS.type)]
    assert values == [0, 1]


def _exporter(monitoring: RecordingMonitoring) -> object:
    from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter

    target = resolve_target(settings_of(monitoring))
    return CloudMonitoringMetricsExporter(project_id="p", client=metric_client(target))


def test_gauges_that_hang_or_fail_export_nothing_and_stop_nothing(
    telemetry: Telemetry, own_monitoring: RecordingMonitoring
) -> None:
    released = threading.Event()

    def hang() -> dict[Metric, list[Reading]]:
        released.wait()
        return {}

    def fail() -> dict[Metric, list[Reading]]:
        raise ConnectionError

    telemetry.observe([QUEUE_BROKER], hang)
    telemetry.observe([QUEUE_DEPTH], fail)
    telemetry.observe([WORKERS_ALIVE], lambda: {WORKERS_ALIVE: [Reading(value=0, labels={})]})
    telemetry.start()
    until(lambda: len(own_monitoring.series(WORKERS_ALIVE.type)) >= 2, what="two exports")
    released.set()
    assert own_monitoring.latest(WORKERS_ALIVE.type) == 0
    assert own_monitoring.series(QUEUE_DEPTH.type) == []
    assert own_monitoring.series(QUEUE_BROKER.type) == []


def test_a_target_that_comes_late_gets_everything_counted_before() -> None:
    asked = threading.Event()
    here = threading.Event()

    def clock() -> RealClock:
        asked.set()
        if not here.is_set():
            raise TargetError("not yet")
        return RealClock()

    with RecordingMonitoring(scale=1).serving() as server:
        late = Telemetry(
            service="api",
            location="us-central1",
            exporter=_exporter(server),
            clock=clock,
            interval=timedelta(seconds=30),
        )
        late.start()
        asked.wait(10)
        late.count(CHUNKS, DONE)
        here.set()
        until(lambda: server.latest(CHUNKS.type) == 1, what="the count")
        late.shutdown()


def test_a_target_that_is_gone_neither_raises_nor_holds_the_exit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = Settings(monitoring_emulator_host=f"127.0.0.1:{free_port()}")
    telemetry = make_telemetry(gone, service="api")
    telemetry.start()
    telemetry.count(CHUNKS, DONE)
    until(lambda: "waits for its target" in caplog.text, what="the log line")
    telemetry.shutdown()


def test_without_a_target_telemetry_is_off_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MONITORING_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    off = make_telemetry(Settings(), service="api")
    off.start()
    off.count(CHUNKS, DONE)
    off.shutdown()
    assert "telemetry is off" in caplog.text


def test_the_embedded_cloud_monitoring_takes_every_metric_as_it_is_declared() -> None:
    with Emulator(EmulatorOptions(port=0, http_port=0)) as emulator:
        settings = Settings(
            monitoring_emulator_host=emulator.grpc_address, google_cloud_project="p"
        )
        telemetry = make_telemetry(settings, service="api")
        gauges = [metric for metric in METRICS if metric.instrument is Instrument.GAUGE]
        for metric in METRICS:
            labels = dict.fromkeys(metric.labels, "x")
            if metric.instrument is Instrument.COUNTER:
                telemetry.count(metric, labels)
            elif metric.instrument is Instrument.HISTOGRAM:
                telemetry.record(metric, labels, 0.2)
        telemetry.observe(
            gauges,
            lambda: {
                metric: [Reading(value=1, labels=dict.fromkeys(metric.labels, "x"))]
                for metric in gauges
            },
        )
        telemetry.start()
        client = metric_client(resolve_target(settings))

        def kinds() -> dict[str, tuple[str, str]]:
            now = int(time.time())
            request = {
                "name": "projects/p",
                "interval": {"start_time": {"seconds": now - 60}, "end_time": {"seconds": now + 9}},
            }
            found = {}
            for metric in METRICS:
                of_type = {**request, "filter": f'metric.type = "{metric.type}"'}
                try:
                    for series in client.list_time_series(of_type):
                        found[metric.type] = (
                            MetricDescriptor.MetricKind.Name(series.metric_kind),
                            MetricDescriptor.ValueType.Name(series.value_type),
                        )
                except NotFound:
                    continue
            return found

        until(lambda: len(kinds()) == len(METRICS), what="every metric")
        assert kinds() == {metric.type: (metric.kind, metric.value_type) for metric in METRICS}
        telemetry.shutdown()


def test_only_declared_metrics_with_their_own_labels_are_accepted(telemetry: Telemetry) -> None:
    stray = Metric(name="stray", instrument=Instrument.COUNTER, unit="1", description="None.")
    with pytest.raises(ValueError, match=r"not declared in speakfit\.metrics"):
        telemetry.count(stray, {})
    with pytest.raises(ValueError, match="has the labels"):
        telemetry.count(CHUNKS, {"outcome": "done", "recording": "7"})
    with pytest.raises(ValueError, match="is a counter, not a histogram"):
        telemetry.record(CHUNKS, DONE, 1.0)


def test_the_interval_is_policy_time_and_never_under_250_ms() -> None:
    half_minute = timedelta(seconds=30)
    fast = ScaledClock(scale=60, anchor_real_ns=0, anchor_policy_ns=0)
    faster = ScaledClock(scale=600, anchor_real_ns=0, anchor_policy_ns=0)
    assert real_interval(half_minute, RealClock()) == half_minute
    assert real_interval(half_minute, fast) == timedelta(seconds=0.5)
    assert real_interval(half_minute, faster) == timedelta(seconds=0.25)
    assert ManualClock.scale == 1


def test_a_log_line_is_json_and_keeps_what_an_exception_said_to_itself() -> None:
    try:
        raise ValueError("what a user said")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "it %s", ("failed",), (ValueError, error, None)
        )
    record.context = {"recording": "7"}
    line = json.loads(JsonLines("api").format(record))
    assert line["message"] == "it failed"
    assert (line["severity"], line["recording"], line["exception"]) == ("ERROR", "7", "ValueError")
    assert "what a user said" not in json.dumps(line)
