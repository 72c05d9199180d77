"""How long emptying an emulator takes, beside starting and stopping one.

python -m tests.benchmarks.reset
"""

from __future__ import annotations

import statistics
import time

from tests.speakfit.emulator.bench import Bench


def main() -> None:
    """Print medians in milliseconds."""
    started = time.perf_counter()
    with Bench() as bench:
        ready = time.perf_counter()
        spans = []
        for _ in range(200):
            bench.write(bench.series(1))
            bench.create(notification_channels=[bench.pagerduty_channel().name])
            before = time.perf_counter()
            bench.reset()
            spans.append(time.perf_counter() - before)
        stopping = time.perf_counter()
    stopped = time.perf_counter()
    print(f"start {1e3 * (ready - started):.1f} ms, stop {1e3 * (stopped - stopping):.1f} ms")
    print(f"reset {1e3 * statistics.median(spans):.2f} ms, at most {1e3 * max(spans):.2f} ms")


if __name__ == "__main__":
    main()
