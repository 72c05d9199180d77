"""How a worker stops: finish what is quick, hand over the rest, and never wait for what hangs."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
from billiard import active_children
from celery import Celery

from services.worker.watch import Watch

FINISH_WITHIN = timedelta(seconds=5)
KILL_AFTER = timedelta(seconds=10)
END_AFTER = timedelta(seconds=20)
"""From the signal on. Spot machines give 30 s in all."""

_LOOK_EVERY = timedelta(milliseconds=50)

logger = logging.getLogger(__name__)


def stoppable(app: Celery, watch: Watch, hand_over: Callable[[], None]) -> Any:
    """Celery's worker class, whose stop is bounded and does not last longer than it must.

    Celery sleeps its whole soft-shutdown window when anything runs, and then joins its processes
    without a limit: one that is stopped, or deep in native code, would keep it for ever.
    """

    class Worker(app.Worker):  # type: ignore[misc,name-defined]
        def wait_for_soft_shutdown(self) -> None:
            """Called first, in the signal's handler, by Celery."""
            watch.stop_beginning()
            threading.Thread(target=_insist, args=(hand_over,), name="stop", daemon=True).start()
            until = time.monotonic() + FINISH_WITHIN.total_seconds()
            while watch.busy() and time.monotonic() < until:
                time.sleep(_LOOK_EVERY.total_seconds())

    return Worker


def end_children() -> None:
    """Leave no process behind; Celery does not wait for those that it told to end.

    They get the time that their last export of telemetry may take.
    """
    children = [psutil.Process(one.pid) for one in active_children() if one.pid is not None]
    _, left = psutil.wait_procs(children, timeout=FINISH_WITHIN.total_seconds())
    for child in left:
        child.kill()
        logger.error("process %d did not end in time; it is killed", child.pid)
    psutil.wait_procs(left)


def _insist(hand_over: Callable[[], None]) -> None:
    time.sleep(KILL_AFTER.total_seconds())
    _kill_children()
    time.sleep((END_AFTER - KILL_AFTER).total_seconds())
    logger.error("the worker did not stop by itself")
    _kill_children()
    hand_over()
    os._exit(1)


def _kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        logger.error("process %d did not end in time; it is killed", child.pid)
