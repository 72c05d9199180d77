"""Points per second that CreateTimeSeries takes, against a server that only decodes the requests.

    python -m tests.benchmarks.write_rate [--calls 300] [--series 200] [--in-memory]

One client sends the same serialised requests to both servers, each a process of its own: 200
series a call, every series one point newer than the last call's. The emulator runs with all
validation and, unless told otherwise, with a data folder; the other server parses the request with
the same message class and answers. The sides take turns, so that a busy machine hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from google.cloud import monitoring_v3
from google.protobuf import empty_pb2

_METHOD = "/google.monitoring.v3.MetricService/CreateTimeSeries"
_ROUNDS = 5
_STEP = 5
_OLDEST = 24 * 3_600

_DECODE_ONLY = """
import grpc, sys
from concurrent.futures import ThreadPoolExecutor
from google.cloud import monitoring_v3
from google.protobuf import empty_pb2

parse = monitoring_v3.CreateTimeSeriesRequest.pb().FromString

class Decode(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: empty_pb2.Empty(),
            request_deserializer=parse,
            response_serializer=empty_pb2.Empty.SerializeToString,
        )

server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=(Decode(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print('{"grpc": "127.0.0.1:%d"}' % port, flush=True)
server.wait_for_termination()
"""


def _request(count: int) -> Any:
    """Gauges of one metric that differ by label, as an exporter of many tasks would send."""
    request = monitoring_v3.CreateTimeSeriesRequest.pb()(name="projects/benchmark")
    for index in range(count):
        series = request.time_series.add()
        series.metric.type = "workload.googleapis.com/benchmark.value"
        series.metric.labels["route"] = f"/v1/route/{index}"
        series.metric.labels["method"] = "POST"
        series.resource.type = "generic_task"
        series.resource.labels.update(
            {"location": "us-central1", "namespace": "bench", "job": "api", "task_id": "one"}
        )
        series.metric_kind = 1
        series.points.add().value.double_value = float(index)
    return request


class _Requests:
    """Serialised requests with ever newer points: five seconds apart, from a day ago."""

    def __init__(self, count: int) -> None:
        self._request = _request(count)
        self._at = int(time.time()) - _OLDEST

    def make(self, calls: int) -> list[bytes]:
        made = []
        for _ in range(calls):
            self._at += _STEP
            for series in self._request.time_series:
                series.points[0].interval.end_time.seconds = self._at
                series.points[0].value.double_value += 1
            made.append(self._request.SerializeToString())
        return made


def _started(command: list[str]) -> tuple[subprocess.Popen[str], Any]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["grpc"]
    channel = grpc.insecure_channel(address)
    call = channel.unary_unary(_METHOD, response_deserializer=empty_pb2.Empty.FromString)
    return process, call


def measure(*, rounds: int, calls: int, series: int, folder: Path | None) -> tuple[float, float]:
    """(emulator, decode-only) in points per second over all rounds."""
    emulator = [sys.executable, "-m", "speakfit.emulator", "--host-port", "127.0.0.1:0"]
    emulator += ["--http-port", "0", "--json"]
    if folder is not None:
        emulator += ["--data-dir", str(folder)]
    processes = []
    spent = {"emulator": 0.0, "decode": 0.0}
    try:
        sides = {}
        for name, command in (
            ("emulator", emulator),
            ("decode", [sys.executable, "-c", _DECODE_ONLY]),
        ):
            process, sides[name] = _started(command)
            processes.append(process)
        requests = _Requests(series)
        for call in sides.values():
            for raw in requests.make(3):
                call(raw)
        for _ in range(rounds):
            batch = requests.make(calls)
            for name, call in sides.items():
                began = time.perf_counter()
                for raw in batch:
                    call(raw)
                spent[name] += time.perf_counter() - began
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()
    points = rounds * calls * series
    return points / spent["emulator"], points / spent["decode"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=300, help="calls a round and side")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--series", type=int, default=200, help="series a call")
    parser.add_argument("--in-memory", action="store_true", help="without a data folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, decoding = measure(
            rounds=options.rounds,
            calls=options.calls,
            series=options.series,
            folder=None if options.in_memory else Path(folder),
        )
    storage = "in memory" if options.in_memory else "durable"
    print(f"{options.series} series a call, one client, {os.cpu_count()} cores, {storage}")
    print(f"decode only  {decoding:12,.0f} points/s")
    print(f"emulator     {ours:12,.0f} points/s")
    print(f"ratio        {ours / decoding:12.2f}")


if __name__ == "__main__":
    main()
