"""Spans as they leave a process: to a collector or Cloud Trace, by the real exporters."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from concurrent import futures
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.cloud import trace_v2
from google.cloud.trace_v2.services.trace_service.transports import TraceServiceGrpcTransport
from google.protobuf import empty_pb2
from opentelemetry.exporter.cloud_trace import CloudTraceSpanExporter
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from speakfit.clock import RealClock
from speakfit.database import make_engine
from speakfit.metrics import REQUEST_DURATION
from speakfit.settings import Settings
from speakfit.telemetry import JsonLines, Telemetry
from speakfit.tracing import begin_tracing, end_tracing, parent, span, traceparent
from tests.span_collector import SpanCollector

RESOURCE = {"service.name": "api"}


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    end_tracing()


def header(sampled: bool) -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-0{int(sampled)}"


def begun(collector: SpanCollector, share: float) -> None:
    begin_tracing(
        Settings(otel_exporter_otlp_endpoint=collector.address, otel_traces_sampler_arg=share),
        RESOURCE,
    )


def ids(of: str | None) -> tuple[str, str, str]:
    """Trace, span and flags within a span with that parent."""
    with span("request", of=parent(of)):
        _, trace, own, flags = (traceparent() or "").split("-")
    return trace, own, flags


def test_the_callers_decision_holds_and_all_have_ids_of_their_own(
    collector: SpanCollector,
) -> None:
    begun(collector, 0)
    wanted, unwanted = header(sampled=True), header(sampled=False)
    found = {given: ids(given) for given in (wanted, unwanted, None)}
    end_tracing()
    for given, (trace, own, flags) in found.items():
        if given is not None:
            assert trace == given.split("-")[1]
            assert own != given.split("-")[2]
        assert flags == ("01" if given == wanted else "00")
        assert [one.span_id for one in collector.spans(trace)] == [own] * (given == wanted)


def test_a_share_of_what_nobody_decided_is_sampled(collector: SpanCollector) -> None:
    begun(collector, 0.25)
    sampled = sum(int(ids(None)[2], 16) & 1 for _ in range(2000))
    # Six standard deviations.
    assert 384 < sampled < 616
    begun(collector, 1)
    assert int(ids(None)[2], 16) & 1


def test_without_a_place_for_spans_there_are_ids_and_no_promises() -> None:
    begin_tracing(Settings(), RESOURCE)
    trace, _, flags = ids(header(sampled=True))
    assert int(trace, 16)
    assert flags == "00"


@pytest.mark.parametrize(
    "bad", ["", "00-x", f"ff-{'1' * 32}-{'1' * 16}-01", f"00-{'0' * 32}-{'1' * 16}-01"]
)
def test_a_bad_context_begins_a_new_trace(bad: str, collector: SpanCollector) -> None:
    begun(collector, 0)
    trace, _, flags = ids(bad)
    assert trace not in bad
    assert flags == "00"


def test_a_query_that_fails_is_a_failed_span_and_keeps_its_values_to_itself(
    collector: SpanCollector,
) -> None:
    begun(collector, 0)
    given = header(sampled=True)
    engine = make_engine("sqlite://")
    with span("request", of=parent(given)), engine.connect() as connection:
        connection.execute(text("SELECT :name"), {"name": "what a user said"})
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT * FROM nowhere WHERE a = :a"), {"a": "hunter2"})
    engine.dispose()
    end_tracing()
    spans = {one.name: one for one in collector.spans(given.split("-")[1])}
    assert spans.keys() == {"request", "SELECT", "SELECT nowhere"}
    assert spans["SELECT nowhere"].failed
    assert not spans["SELECT"].failed
    assert spans["SELECT"].parent_id == spans["request"].span_id
    assert spans["SELECT nowhere"].attributes == {
        "db.system.name": "sqlite",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT nowhere",
        "error.type": "OperationalError",
    }


class _CloudTrace(grpc.GenericRpcHandler):
    """Keeps what BatchWriteSpans brings."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def service(self, details: Any) -> Any:
        assert details.method == "/google.devtools.cloudtrace.v2.TraceService/BatchWriteSpans"

        def write(request: Any, _context: object) -> empty_pb2.Empty:
            self.requests.append(request)
            return empty_pb2.Empty()

        return grpc.unary_unary_rpc_method_handler(
            write,
            request_deserializer=trace_v2.BatchWriteSpansRequest.deserialize,
            response_serializer=empty_pb2.Empty.SerializeToString,
        )


# The exporter uses a dictionary of the SDK that the SDK would rather keep to itself.
@pytest.mark.filterwarnings("ignore:Deprecated since version 1.4.0:DeprecationWarning")
def test_cloud_trace_takes_our_spans_from_its_real_client() -> None:
    cloud = _CloudTrace()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((cloud,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    client = trace_v2.TraceServiceClient(transport=TraceServiceGrpcTransport(channel=channel))
    exporter = CloudTraceSpanExporter(project_id="p", client=client)
    begin_tracing(Settings(otel_traces_sampler_arg=1), RESOURCE, exporter)
    given = header(sampled=True)
    with span("outer", of=parent(given)), span("inner", attributes={"db.system.name": "x"}):
        pass
    end_tracing()
    channel.close()
    server.stop(None).wait()
    (request,) = cloud.requests
    spans = {one.display_name.value: one for one in request.spans}
    assert spans.keys() == {"outer", "inner"}
    assert request.name == "projects/p"
    trace, caller = given.split("-")[1:3]
    assert spans["outer"].name.startswith(f"projects/p/traces/{trace}/spans/")
    assert spans["outer"].parent_span_id == caller
    assert spans["inner"].parent_span_id == spans["outer"].span_id


def test_a_slow_request_is_logged_as_an_exemplar_of_its_histogram(
    collector: SpanCollector, caplog: pytest.LogCaptureFixture
) -> None:
    begun(collector, 1)
    caplog.set_level(logging.INFO)
    telemetry = Telemetry(
        service="api", location="x", exporter=None, clock=RealClock, interval=timedelta(hours=1)
    )
    labels = {
        "http.request.method": "GET",
        "http.route": "/v1/x",
        "http.response.status_code": "200",
        "route_class": "interactive",
    }
    with span("request") as slow:
        for seconds in (0.1, 2.0, 2.01):
            telemetry.record(REQUEST_DURATION, labels, seconds)
        (record,) = [one for one in caplog.records if one.message == "exemplar"]
        line = json.loads(JsonLines("api", project="p").format(record))
    assert (line["metric"], line["value"]) == ("http.server.request.duration", 2.01)
    assert line["labels"]["http.route"] == "/v1/x"
    trace = slow.get_span_context().trace_id
    assert line["logging.googleapis.com/trace"] == f"projects/p/traces/{trace:032x}"
    assert line["logging.googleapis.com/trace_sampled"] is True
