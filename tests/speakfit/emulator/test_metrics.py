"""MetricService through the real client and the real OpenTelemetry exporter."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.api import metric_pb2
from google.api_core.exceptions import GoogleAPICallError, InvalidArgument, NotFound
from google.cloud import monitoring_v3
from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from speakfit.emulator.server import Emulator
from speakfit.target import Target, TargetKind, metric_client
from tests.speakfit.emulator.bench import LABELS, METRIC, OPTIONS, PROJECT, Bench

Kind = metric_pb2.MetricDescriptor.MetricKind
Type = metric_pb2.MetricDescriptor.ValueType
TOTAL = "workload.googleapis.com/speakfit.api.requests"


@pytest.fixture
def live() -> Iterator[Target]:
    """An emulator on real time, as an exporter needs it."""
    with Emulator(replace(OPTIONS, time_scale=1)) as emulator:
        yield Target(kind=TargetKind.EMULATOR, project="live", host=emulator.grpc_address)


def test_what_the_opentelemetry_exporter_writes_is_read_back(live: Target) -> None:
    client = metric_client(live)
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader],
        resource=Resource({"service.name": "api", "service.instance.id": "one"}),
    )
    meter = provider.get_meter("test")
    counter = meter.create_counter("requests", unit="1")
    counter.add(3, {"http.route": "/v1/recordings"})
    meter.create_gauge("depth").set(7)
    histogram = meter.create_histogram(
        "latency", unit="s", explicit_bucket_boundaries_advisory=[1.0, 2.0, 5.0]
    )
    for value in (0.5, 1.5, 1.5, 9.0):
        histogram.record(value)
    exporter = CloudMonitoringMetricsExporter(project_id="live", client=client)
    metrics = reader.get_metrics_data()
    assert metrics is not None
    exporter.export(metrics)
    provider.shutdown()

    descriptors = {
        one.type.rpartition("/")[2]: (
            Kind.Name(one.metric_kind),
            Type.Name(one.value_type),
            one.unit,
        )
        for one in client.list_metric_descriptors(name="projects/live")
    }
    assert descriptors == {
        "requests": ("CUMULATIVE", "INT64", "1"),
        "depth": ("GAUGE", "INT64", ""),
        "latency": ("CUMULATIVE", "DISTRIBUTION", "s"),
    }

    def read(name: str) -> monitoring_v3.TimeSeries:
        now = int(time.time())
        (series,) = client.list_time_series(
            request={
                "name": "projects/live",
                "filter": f'metric.type="workload.googleapis.com/{name}"',
                "interval": {
                    "start_time": {"seconds": now - 60},
                    "end_time": {"seconds": now + 60},
                },
            }
        )
        return series

    requests = read("requests")
    assert dict(requests.metric.labels) == {"http_route": "/v1/recordings"}
    assert requests.resource.type == "generic_task"
    assert requests.resource.labels["task_id"] == "one"
    assert requests.points[0].value.int64_value == 3
    assert requests.points[0].interval.start_time < requests.points[0].interval.end_time
    assert read("depth").points[0].value.int64_value == 7
    latency = read("latency").points[0].value.distribution_value
    assert (latency.count, latency.mean) == (4, 3.125)
    assert list(latency.bucket_counts) == [1, 2, 0, 1]
    assert list(latency.bucket_options.explicit_buckets.bounds) == [1.0, 2.0, 5.0]


def test_a_metric_nobody_has_written_is_a_404_in_googles_words(bench: Bench) -> None:
    with pytest.raises(NotFound, match="Cannot find metric\\(s\\) that match type = "):
        bench.read('metric.type="workload.googleapis.com/nothing"')
    with pytest.raises(NotFound, match=r"Could not find descriptor for metric 'x\.com/y'"):
        bench.metrics.get_metric_descriptor(name=f"{PROJECT}/metricDescriptors/x.com/y")


def test_valid_series_are_written_although_others_of_the_call_fail(bench: Bench) -> None:
    good = bench.series(1, queue="good")
    bad = bench.series(2, queue="bad")
    bad["resource"] = {"type": "generic_task", "labels": {"location": "us-central1", "job": "api"}}
    with pytest.raises(InvalidArgument) as caught:
        bench.write(bad, good)
    assert "One or more TimeSeries could not be written: timeSeries[0]" in caught.value.message
    assert (
        "The set of resource labels is incomplete. Missing labels: (namespace task_id)."
        in caught.value.message
    )
    summary = monitoring_v3.CreateTimeSeriesSummary.pb()()
    assert caught.value.details[0].Unpack(summary)
    assert (summary.total_point_count, summary.success_point_count) == (2, 1)
    assert [dict(series.metric.labels) for series in bench.read()] == [{"queue": "good"}]


def _refusal(bench: Bench, **changes: object) -> str:
    with pytest.raises(GoogleAPICallError) as caught:
        bench.write({**bench.series(1), **changes})
    return str(caught.value.message)


def test_each_limit_of_the_write_path_has_its_text(bench: Bench) -> None:
    def point(later: timedelta, **interval: object) -> list[dict[str, object]]:
        times = {"end_time": bench.stamp(later), **interval}
        return [{"interval": times, "value": {"double_value": 1.0}}]

    assert "more than 25h in the past" in _refusal(bench, points=point(timedelta(hours=-26)))
    assert "more than 5m in the future" in _refusal(bench, points=point(timedelta(minutes=6)))
    assert "Exactly one point" in _refusal(bench, points=[])
    assert "Unrecognized resource type: gce_route." in _refusal(
        bench, resource={"type": "gce_route"}
    )
    assert "Unrecognized region or location." in _refusal(
        bench,
        resource={"type": "generic_task", "labels": {**LABELS, "location": "Mars!"}},
    )
    assert "must start with one of" in _refusal(
        bench, metric={"type": "compute.googleapis.com/instance/cpu"}
    )
    assert "must be before the end time" in _refusal(
        bench, metric={"type": TOTAL}, metric_kind="CUMULATIVE"
    )
    with pytest.raises(InvalidArgument, match="Duplicate TimeSeries encountered"):
        bench.write(bench.series(1), bench.series(2))
    with pytest.raises(InvalidArgument, match="1 to 200 time series"):
        bench.write(*(bench.series(1, n=str(n)) for n in range(201)))
    assert list(bench.metrics.list_metric_descriptors(name=PROJECT)) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"double_value": float("nan")}, "not a number"),
        ({"string_value": "red"}, "cannot hold strings"),
        ({"distribution_value": {"count": 3, "bucket_counts": [1]}}, "more bucket counts"),
        (
            {
                "distribution_value": {
                    "count": 1,
                    "bucket_counts": [0, 1],
                    "bucket_options": {"explicit_buckets": {"bounds": [2.0, 1.0]}},
                }
            },
            "strictly increasing",
        ),
        (
            {
                "distribution_value": {
                    "count": 1,
                    "bucket_counts": [0, 1],
                    "bucket_options": {
                        "exponential_buckets": {
                            "num_finite_buckets": 190,
                            "growth_factor": 1e300,
                            "scale": 1.0,
                        }
                    },
                }
            },
            "cannot be computed",
        ),
        (
            {
                "distribution_value": {
                    "count": 1,
                    "mean": float("inf"),
                    "bucket_counts": [0, 1],
                    "bucket_options": {"explicit_buckets": {"bounds": [2.0]}},
                }
            },
            "must be finite",
        ),
    ],
)
def test_a_value_that_cannot_be_counted_with_is_refused(
    bench: Bench, value: object, text: str
) -> None:
    points = [{"interval": {"end_time": bench.stamp()}, "value": value}]
    assert text in _refusal(bench, points=points)


def test_points_come_in_order_and_at_most_every_five_seconds(bench: Bench) -> None:
    bench.write(bench.series(1))
    bench.clock.advance(timedelta(seconds=1))
    text = _refusal(bench)
    assert "written more frequently than the maximum sampling period" in text
    assert "Youngest Existing: '2026/01/05-12:00:00.000', New: '2026/01/05-12:00:01.000'" in text
    assert "older end time than the most recent point" in _refusal(
        bench,
        points=[
            {
                "interval": {"end_time": bench.stamp(timedelta(minutes=-1))},
                "value": {"double_value": 1.0},
            }
        ],
    )
    bench.clock.advance(timedelta(seconds=4))
    bench.write(bench.series(2))
    assert [point.value.double_value for point in bench.read()[0].points] == [2.0, 1.0]


def test_kind_and_type_of_a_metric_are_fixed_by_its_first_point(bench: Bench) -> None:
    bench.write(bench.series(1))
    bench.clock.advance(timedelta(minutes=1))
    points = [{"interval": {"end_time": bench.stamp()}, "value": {"int64_value": 1}}]
    assert "must be DOUBLE, but is INT64" in _refusal(bench, points=points)
    assert "must be GAUGE" in _refusal(bench, metric_kind="CUMULATIVE")


def test_reading_filters_aggregates_and_pages(bench: Bench) -> None:
    for minute in range(4):
        bench.write(bench.series(minute, queue="a"), bench.series(10 * minute, queue="b"))
        bench.clock.advance(timedelta(minutes=1))
    only_b = bench.read(f'metric.type="{METRIC}" AND metric.labels.queue="b"')
    assert [point.value.double_value for point in only_b[0].points] == [30.0, 20.0, 10.0, 0.0]
    (total,) = bench.read(
        aggregation={
            "alignment_period": {"seconds": 120},
            "per_series_aligner": "ALIGN_MAX",
            "cross_series_reducer": "REDUCE_SUM",
        }
    )
    assert [point.value.double_value for point in total.points][:2] == [33.0, 22.0]
    pages = bench.metrics.list_time_series(
        request={
            "name": PROJECT,
            "filter": f'metric.type="{METRIC}"',
            "interval": {"start_time": bench.stamp(timedelta(hours=-1)), "end_time": bench.stamp()},
            "page_size": 3,
        }
    ).pages
    sizes = [[len(series.points) for series in page.time_series] for page in pages]
    assert sizes == [[3], [1, 2], [2]]
    headers = bench.read(view="HEADERS")
    assert [len(series.points) for series in headers] == [0, 0]
    with pytest.raises(InvalidArgument, match="token was not made by this listing"):
        bench.read(page_token="somebody-elses")
    with pytest.raises(InvalidArgument, match="single metric type"):
        bench.read('resource.type="generic_task"')


def test_times_out_of_any_range_are_refused_and_not_a_server_error(bench: Bench) -> None:
    far = {"seconds": 250_000_000_000}
    points = [{"interval": {"end_time": far}, "value": {"double_value": 1.0}}]
    assert "more than 5m in the future" in _refusal(bench, points=points)
    bench.write(bench.series(1))
    with pytest.raises(InvalidArgument, match="out of range"):
        bench.read(interval={"start_time": bench.stamp(), "end_time": far})


def test_a_deleted_descriptor_takes_its_series_along(bench: Bench) -> None:
    bench.write(bench.series(1))
    name = f"{PROJECT}/metricDescriptors/{METRIC}"
    found = bench.metrics.get_metric_descriptor(name=name)
    assert "generic_task" in found.monitored_resource_types
    bench.metrics.delete_metric_descriptor(name=name)
    with pytest.raises(NotFound):
        bench.read()
    bench.write(bench.series(2))
    assert [point.value.double_value for point in bench.read()[0].points] == [2.0]


def test_an_upsert_of_a_descriptor_adds_labels_and_removes_none(bench: Bench) -> None:
    def upsert(*labels: str) -> list[str]:
        made = bench.metrics.create_metric_descriptor(
            name=PROJECT,
            metric_descriptor={
                "type": METRIC,
                "metric_kind": "GAUGE",
                "value_type": "INT64",
                "labels": [{"key": key} for key in labels],
            },
        )
        return [label.key for label in made.labels]

    assert upsert("b") == ["b"]
    assert upsert("a") == ["a", "b"]


def test_malformed_bytes_are_an_invalid_argument_and_no_traceback(bench: Bench) -> None:
    call = bench.channel.unary_unary("/google.monitoring.v3.MetricService/CreateTimeSeries")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    unknown = bench.channel.unary_unary("/google.monitoring.v3.MetricService/Invented")
    with pytest.raises(grpc.RpcError) as caught:
        unknown(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_monitored_resource_types_are_listed_and_found(bench: Bench) -> None:
    types = {one.type for one in bench.metrics.list_monitored_resource_descriptors(name=PROJECT)}
    assert {"generic_task", "generic_node", "gce_instance", "k8s_container", "global"} <= types
    one = bench.metrics.get_monitored_resource_descriptor(
        name=f"{PROJECT}/monitoredResourceDescriptors/generic_task"
    )
    assert {label.key for label in one.labels} >= {"location", "namespace", "job", "task_id"}


def test_descriptors_appear_and_go_late_when_asked_to() -> None:
    name = f"{PROJECT}/metricDescriptors/{METRIC}"
    with Bench(descriptor_delay=timedelta(seconds=30)) as bench:
        bench.write(bench.series(1))
        with pytest.raises(NotFound, match="Could not find descriptor"):
            bench.metrics.get_metric_descriptor(name=name)
        with pytest.raises(NotFound, match="Cannot find metric"):
            bench.create()
        bench.clock.advance(timedelta(seconds=30))
        assert bench.metrics.get_metric_descriptor(name=name).type == METRIC
        assert bench.create().name
        bench.metrics.delete_metric_descriptor(name=name)
        assert bench.metrics.get_metric_descriptor(name=name).type == METRIC
        bench.clock.advance(timedelta(seconds=30))
        with pytest.raises(NotFound):
            bench.metrics.get_metric_descriptor(name=name)
        assert list(bench.metrics.list_metric_descriptors(name=PROJECT)) == []
