"""A gRPC server that records what the real exporter writes; it judges nothing.

The embedded Cloud Monitoring has tests of its own; here only what leaves our processes counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud import monitoring_v3
from google.protobuf import empty_pb2, struct_pb2

_SERVICE = "/google.monitoring.v3.MetricService/"


class RecordingMonitoring(grpc.GenericRpcHandler):
    """Keeps every series and descriptor; tells a clock of the given scale."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._lock = threading.Lock()
        self._series: list[monitoring_v3.TimeSeries] = []
        self.descriptors: dict[str, Any] = {}
        self.address = ""

    def service(self, details: Any) -> Any:
        if details.method == "/speakfit.emulator.v1.Clock/GetClock":
            return grpc.unary_unary_rpc_method_handler(
                self._clock,
                request_deserializer=empty_pb2.Empty.FromString,
                response_serializer=struct_pb2.Struct.SerializeToString,
            )
        if details.method == _SERVICE + "CreateTimeSeries":
            return grpc.unary_unary_rpc_method_handler(
                self._write,
                request_deserializer=monitoring_v3.CreateTimeSeriesRequest.deserialize,
                response_serializer=empty_pb2.Empty.SerializeToString,
            )
        if details.method == _SERVICE + "CreateMetricDescriptor":
            return grpc.unary_unary_rpc_method_handler(
                self._describe,
                request_deserializer=monitoring_v3.CreateMetricDescriptorRequest.deserialize,
                response_serializer=lambda message: message.SerializeToString(),
            )
        return None

    def _clock(self, _request: object, _context: object) -> struct_pb2.Struct:
        answer = struct_pb2.Struct()
        answer.update({"scale": self._scale, "anchorRealNs": "0", "anchorPolicyNs": "0"})
        return answer

    def _write(self, request: Any, _context: object) -> empty_pb2.Empty:
        with self._lock:
            self._series.extend(request.time_series)
        return empty_pb2.Empty()

    def _describe(self, request: Any, _context: object) -> Any:
        with self._lock:
            self.descriptors[request.metric_descriptor.type] = request.metric_descriptor
        return request.metric_descriptor

    def series(self, metric_type: str, **labels: str) -> list[Any]:
        """All series written of a metric with these labels, oldest first."""
        with self._lock:
            return [
                one
                for one in self._series
                if one.metric.type == metric_type
                and all(one.metric.labels.get(key) == value for key, value in labels.items())
            ]

    def latest(self, metric_type: str, **labels: str) -> int | None:
        """The integer last written; None before the first."""
        found = self.series(metric_type, **labels)
        return int(found[-1].points[0].value.int64_value) if found else None

    def total(self, metric_type: str, **labels: str) -> int:
        """The sum over processes of the last value of an integer counter."""
        last = {
            one.resource.labels["task_id"]: one.points[0].value.int64_value
            for one in self.series(metric_type, **labels)
        }
        return sum(last.values())

    @contextmanager
    def serving(self) -> Iterator[RecordingMonitoring]:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((self,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            server.stop(None).wait()


def until(true: Callable[[], Any], seconds: float = 30.0, what: str = "it") -> Any:
    """Poll until the answer is truthy, and give it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = true()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.02)
