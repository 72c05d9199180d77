"""`python -m loadtest.faults.skewed SECONDS MODULE ARGUMENT...`: a module whose clock is wrong.

What the process and its forked children ask of `time` is off by so much: the times that it writes
into points and logs. The monotonic clock and the databases' own clocks stay right, as they do on
a machine whose NTP has failed.
"""

from __future__ import annotations

import runpy
import sys
import time


def skew(seconds: float) -> None:
    """Put the wall clock of this process off by so many seconds."""
    real, real_ns = time.time, time.time_ns
    offset_ns = round(seconds * 1e9)
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + offset_ns


def main(arguments: list[str]) -> None:
    """Run the module as `python -m` would."""
    seconds, module, *rest = arguments
    skew(float(seconds))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
