"""Processes that hang are killed by their parent, whatever they hang in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from datetime import timedelta

import pytest

from services.worker.watch import Watch, Watched
from tests.recording_monitoring import until

SOON = timedelta(seconds=0.2)
LATE = timedelta(minutes=10)


def hang_in_native_code() -> None:
    """Never return, and keep the interpreter's lock, as a broken driver may."""
    import ctypes

    with Watched(0).within(SOON):
        ctypes.PyDLL(None).pause()


def be_stopped() -> None:
    with Watched(0).within(SOON):
        os.kill(os.getpid(), signal.SIGSTOP)


def be_quick() -> None:
    watched = Watched(0)
    with watched.within(SOON):
        pass
    with watched.within(LATE):
        while not watched.stopping:
            time.sleep(0.05)


@pytest.mark.parametrize("act", [hang_in_native_code, be_stopped])
def test_a_process_that_is_late_is_killed(act: object) -> None:
    watch = Watch(1)
    process = multiprocessing.get_context("spawn").Process(target=act)
    process.start()
    try:
        until(watch.busy, what="work")
        assert until(watch.kill_late, what="a late process") == [process.pid]
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
    finally:
        process.kill()
        watch.close()


def test_a_process_in_time_is_left_alone_and_told_to_stop() -> None:
    watch = Watch(1)
    process = multiprocessing.get_context("spawn").Process(target=be_quick)
    process.start()
    try:
        until(watch.busy, what="work")
        time.sleep(2 * SOON.total_seconds())
        assert watch.kill_late() == []
        watch.stop_beginning()
        process.join(10)
        assert process.exitcode == 0
        assert not watch.busy()
    finally:
        process.kill()
        watch.close()
