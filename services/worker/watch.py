"""What the main process and its transcribing processes tell each other in shared memory.

Each process says until when its work may take; the main process kills the one that is late. So a
native call that never returns, even one that holds the interpreter's lock, and a stopped process
cost one attempt and not a worker. The main process says when it is stopping: then nobody begins
anything more.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil

_PATH = "SPEAKFIT_WORKER_WATCH"
_STOPPING = struct.Struct("=q")
_SLOT = struct.Struct("=qd")
"""The process, and its deadline by CLOCK_MONOTONIC, which all processes of a machine share."""

logger = logging.getLogger(__name__)


class Watch:
    """The main process's end; make it before the processes start."""

    def __init__(self, processes: int) -> None:
        self._slots = processes
        descriptor, name = tempfile.mkstemp(prefix="speakfit-worker-")
        self._path = Path(name)
        try:
            size = _STOPPING.size + processes * _SLOT.size
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        os.environ[_PATH] = name

    def stop_beginning(self) -> None:
        """Let no process begin any more work."""
        _STOPPING.pack_into(self._memory, 0, 1)

    def kill_late(self) -> list[int]:
        """Kill, and name, the processes whose work took longer than it may."""
        now = time.monotonic()
        late = []
        for index in range(self._slots):
            offset = _offset(index)
            pid, deadline = _SLOT.unpack_from(self._memory, offset)
            if deadline and now > deadline:
                _SLOT.pack_into(self._memory, offset, 0, 0.0)
                if pid in {child.pid for child in psutil.Process().children()}:
                    logger.error("process %d hung; it is killed", pid)
                    os.kill(pid, signal.SIGKILL)
                    late.append(pid)
        return late

    def busy(self) -> bool:
        """Whether any process is at work."""
        slots = (_SLOT.unpack_from(self._memory, _offset(index)) for index in range(self._slots))
        return any(deadline for _, deadline in slots)

    def close(self) -> None:
        self._memory.close()
        self._path.unlink(missing_ok=True)


class Watched:
    """A transcribing process's end; `index` is its place in the pool, from 0."""

    def __init__(self, index: int) -> None:
        self._offset = _offset(index)
        self._parent = os.getppid()
        self._memory: mmap.mmap | None = None
        if _PATH in os.environ:
            with Path(os.environ[_PATH]).open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), 0)
            self._say(0.0)

    @property
    def stopping(self) -> bool:
        """Whether nothing more may be begun: the main process says so, or is gone."""
        if os.getppid() != self._parent:
            return True
        return self._memory is not None and bool(_STOPPING.unpack_from(self._memory, 0)[0])

    @contextmanager
    def within(self, limit: timedelta) -> Iterator[None]:
        """Be killed if the block takes longer."""
        self._say(time.monotonic() + limit.total_seconds())
        try:
            yield
        finally:
            self._say(0.0)

    def _say(self, deadline: float) -> None:
        if self._memory is not None:
            _SLOT.pack_into(self._memory, self._offset, os.getpid(), deadline)


def _offset(index: int) -> int:
    return _STOPPING.size + index * _SLOT.size
