"""What telemetry costs a trivial route: requests a second with all of it, over those without.

    python -m tests.benchmarks.telemetry_overhead [ROUNDS]

The same application under uvicorn in two processes: bare, and with the measuring layer, spans at
the default share and a JSON log line a request, metrics and spans exported to servers on loopback.
Rounds alternate and the median counts; processor seconds of the server stand beside the wall
clock, because other work on the machine changes them less. The aim is at least 0.85.
"""

from __future__ import annotations

import gc
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.recording_monitoring import RecordingMonitoring, until
from tests.span_collector import SpanCollector

CONNECTIONS = 8
ROUND_SECONDS = 1.5
AIM = 0.85
REQUEST = b"GET /v1/ping HTTP/1.1\r\nHost: api\r\n\r\n"


def serve(kind: str, port: int) -> None:
    """One of the two servers."""
    import uvicorn
    from fastapi import FastAPI

    from services.api.ledger import Ledger
    from services.api.measure import Measure
    from speakfit.settings import read_settings
    from speakfit.telemetry import configure_logging, make_telemetry
    from speakfit.tracing import begin_tracing

    app = FastAPI()

    @app.get("/v1/ping")
    async def ping() -> dict[str, str]:
        return {"status": "ok"}

    if kind == "full":
        configure_logging("api")
        settings = read_settings()
        telemetry = make_telemetry(settings, service="api")
        begin_tracing(settings, telemetry.resource)
        ledger = Ledger(telemetry)
        app.add_middleware(Measure, ledger=ledger)
        telemetry.start()
        ledger.start()

    # As python -m services.api does; here both.
    gc.collect()
    gc.freeze()
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


def load(port: int, seconds: float) -> int:
    """Requests answered while every connection asks again as soon as it has its answer."""
    until_then = time.monotonic() + seconds
    counts: list[int] = []

    def ask() -> None:
        done = 0
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while time.monotonic() < until_then:
                connection.sendall(REQUEST)
                answer = b""
                while not answer.endswith(b'{"status":"ok"}'):
                    answer += connection.recv(4096)
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == CONNECTIONS
    return sum(counts)


def main(rounds: int) -> None:
    with (
        RecordingMonitoring(scale=1).serving() as monitoring,
        SpanCollector().serving() as collector,
        tempfile.TemporaryDirectory() as folder,
    ):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "MONITORING_EMULATOR_HOST": monitoring.address,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "EXPORT_INTERVAL": "PT5S",
        }
        ports = {"bare": free_port(), "full": free_port()}
        servers = {}
        try:
            for kind, port in ports.items():
                with (Path(folder) / f"{kind}.log").open("wb") as log:
                    servers[kind] = subprocess.Popen(
                        [sys.executable, "-m", __spec__.name, "serve", kind, str(port)],
                        cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                    )  # fmt: skip
            for port in ports.values():
                until(lambda port=port: listens(port), what="the server")
            wall: dict[str, list[float]] = {kind: [] for kind in ports}
            processor: dict[str, list[float]] = {kind: [] for kind in ports}
            for number in range(rounds + 1):
                for kind in ports if number % 2 else reversed(ports):
                    busy = psutil.Process(servers[kind].pid)
                    before, began = busy.cpu_times(), time.monotonic()
                    answered = load(ports[kind], ROUND_SECONDS)
                    taken, after = time.monotonic() - began, busy.cpu_times()
                    used = after.user + after.system - before.user - before.system
                    if number:
                        wall[kind].append(answered / taken)
                        processor[kind].append(answered / used)
        finally:
            for server in servers.values():
                server.terminate()
                server.wait()
        lines = (Path(folder) / "full.log").read_text().count('"request"')
    for what, figures in (("requests/s", wall), ("requests/processor s", processor)):
        bare, full = (statistics.median(figures[kind]) for kind in ("bare", "full"))
        ratio = statistics.median(
            one / other for one, other in zip(figures["full"], figures["bare"], strict=True)
        )
        print(f"{what:<22} bare {bare:7.0f}  full {full:7.0f}  ratio {ratio:.3f} (aim {AIM})")
    print(f"{lines} log lines")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 15)
