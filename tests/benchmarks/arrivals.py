"""How late the arrival engine begins requests at 1,000 a second on one core.

    python -m tests.benchmarks.arrivals [--rate 1000] [--seconds 20]

A bare server on one core, Locust with our engine pinned to another; what counts is the schedule
lag, from the intended to the actual start. The promise is a p99 below 25 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.ledger import latency, unpack

PROMISE_MS = 25.0
_LOCUSTFILE = "tests/benchmarks/arrivals_locustfile.py"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


def _serve(port: multiprocessing.SimpleQueue[int], core: int) -> None:
    import asyncio

    os.sched_setaffinity(0, {core})

    class Quick(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(_ANSWER * data.count(b"\r\n\r\n"))

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Quick, "127.0.0.1", 0, backlog=4096)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    port: multiprocessing.SimpleQueue[int] = multiprocessing.SimpleQueue()
    server = multiprocessing.Process(target=_serve, args=(port, cores[0]), daemon=True)
    server.start()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.json"
        began = time.monotonic()
        subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", _LOCUSTFILE, "--headless"),
                *("--host", f"http://127.0.0.1:{port.get()}", "--only-summary"),
                *("--ledger", str(file)),
            ],
            env={
                **os.environ,
                "ARRIVALS_RATE": str(options.rate),
                "ARRIVALS_SECONDS": str(options.seconds),
                "ARRIVALS_CORE": str(cores[-1]),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        told = json.loads(file.read_text(encoding="utf-8"))
    ledger = unpack(told["ledger"])
    lag = latency(ledger.lag)
    seconds = options.seconds
    print(f"planned {told['expected']:,}, sent {ledger.started:,} in {seconds:g} s of arrivals")
    print(f"answered {ledger.answered:,}, failed {ledger.failures:,}, dropped {ledger.dropped:,}")
    print("schedule lag, ms: " + ", ".join(f"p{p:g} {v:.1f}" for p, v in lag.percentiles.items()))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = spent.ru_utime + spent.ru_stime
    # A busy machine makes any generator late; what a request costs it does not change.
    print(f"processor {processor:.1f} s, {processor / ledger.started * 1000:.2f} ms a request")
    print(
        f"whole run {time.monotonic() - began:.1f} s, load of the machine {os.getloadavg()[0]:.1f}"
    )
    server.terminate()
    kept = lag.percentiles[99.0] < PROMISE_MS and ledger.started == told["expected"]
    sys.exit(0 if kept else 3)


if __name__ == "__main__":
    main()
