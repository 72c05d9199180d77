"""MetricService through the real client and the real OpenTelemetry exporter."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from google.api import metric_pb2
from google.api_core.exceptions import NotFound
from google.cloud import monitoring_v3
from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from speakfit.emulator.server import Emulator
from speakfit.target import Target, TargetKind, metric_client
from tests.speakfit.emulator.bench import METRIC, OPTIONS, PROJECT, Bench

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
