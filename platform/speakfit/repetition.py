"""Log lines that would repeat for as long as a server is away."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta

_AGAIN_AFTER = timedelta(seconds=30)


class OncePerWhile(logging.Filter):
    """Lets one line through every half minute, without a stack, saying `what` and its cause."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._last = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last < _AGAIN_AFTER.total_seconds():
            return False
        self._last = now
        cause = record.exc_info[1] if record.exc_info else record.getMessage()
        record.msg = self._what + ": %s"
        record.args = (str(cause)[:500],)
        record.exc_info = None
        return True
