"""Status reads of 200 users while the worker is busy: as fast as they come, and at a steady rate.

    python -m tests.benchmarks.status_reads [--users 200] [--seconds 10] [--rounds 3]

The whole local stack, telemetry and rate limit included, on the cores that the users run on too.
The aim is what whisper-asr-webservice and speaches style servers publish for 200 users, 355
requests a second, with a 99th percentile under 200 ms. Without a pause between its questions a
user waits users / rate on average, so 200 ms at 200 users takes 1000 requests a second: that round
tells how many requests there can be. In the other the same users ask 355 times a second together,
and each answer is timed from when it was due. Processor seconds of the API stand beside the wall
clock: other work on the machine changes them less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from speakfit_ops.demo import Api, write_speech
from speakfit_ops.stack import Stack
from tests.benchmarks.throughput import api_of

AIM_RATE = 355
AIM_P99_MS = 200
_HEAD_END = b"\r\n\r\n"


async def _user(
    port: int, request: bytes, first: float, until: float, pause: float, took: list[float]
) -> None:
    """Ask every `pause` seconds from `first` on, without one as soon as it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = first
    try:
        while time.monotonic() < until and due < until:
            await asyncio.sleep(due - time.monotonic())
            began = due if pause else time.monotonic()
            due += pause
            writer.write(request)
            head = await reader.readuntil(_HEAD_END)
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(length)
            took.append(time.monotonic() - began)
    finally:
        writer.close()


async def _load(port: int, request: bytes, users: int, seconds: float, rate: float) -> list[float]:
    took: list[float] = []
    # By then all are connected.
    begin = time.monotonic() + 1.0
    pause = users / rate if rate else 0.0
    await asyncio.gather(
        *(
            _user(port, request, begin + pause * place / users, begin + seconds, pause, took)
            for place in range(users)
        )
    )
    return took


def _round(
    stack: Stack, recording: str, users: int, seconds: float, rate: float
) -> tuple[int, float, float, float]:
    """Requests, how many a second, the median and the 99th percentile in milliseconds."""
    request = (
        f"GET /v1/recordings/{recording} HTTP/1.1\r\nHost: api\r\n"
        f"Authorization: Bearer {stack.environment['SPEAKFIT_API_KEY']}\r\n\r\n"
    ).encode()
    began = time.monotonic()
    took = asyncio.run(_load(stack.ports.api, request, users, seconds, rate))
    reached = len(took) / (time.monotonic() - began - 1.0)
    cuts = statistics.quantiles(took, n=100)
    return len(took), reached, cuts[49] * 1000, cuts[98] * 1000


def _busy(api: Api, recording: str) -> bool:
    answer = api.session.get(f"{api.base}/v1/recordings/{recording}", timeout=30).json()
    return bool(answer["status"] in ("queued", "processing"))


def _processor_seconds(stack: Stack) -> float:
    spent = psutil.Process(stack.parts["api"].process.pid).cpu_times()
    return spent.user + spent.system


def main() -> None:
    """Print each round and whether the worker was busy to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        # Who asks too often is still counted; the limit is far away.
        far = {"RATE_LIMIT_REQUESTS": "100000000"}
        stack = Stack(folder=Path(folder) / "stack", overrides=far)
        stack.start()
        try:
            api = api_of(stack)
            speech = Path(folder) / "speech.wav"
            write_speech(speech, copies=16)
            recording = api.upload(speech)
            rounds = [("warm-up", 0.0)]
            for number in range(1, given.rounds + 1):
                rounds += [(f"round {number}", 0.0), (f"round {number}, paced", AIM_RATE)]
            for name, wanted in rounds:
                if not _busy(api, recording):
                    recording = api.upload(speech)
                used = _processor_seconds(stack)
                count, rate, median, p99 = _round(
                    stack, recording, given.users, given.seconds, wanted
                )
                each = (_processor_seconds(stack) - used) / count * 1000
                state = "busy" if _busy(api, recording) else "idle at the end"
                load = psutil.getloadavg()[0]
                print(
                    f"{name}: {rate:5.0f} requests/s "
                    f"(aim {AIM_RATE}), median {median:4.0f} ms, p99 {p99:4.0f} ms "
                    f"(aim {AIM_P99_MS}), {each:.2f} ms of processor each, "
                    f"worker {state}, load average {load:.1f}",
                    flush=True,
                )
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
