"""Back-pressure: work that could not be done in reasonable time is refused, not accepted.

Every route that makes work takes `_: HasRoom`, which is asked before a body is read.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from services.api.gauges import queue_depth
from services.api.problems import Problem
from speakfit.database import transaction

_FRESH = timedelta(seconds=1)
_RETRY_AFTER = timedelta(seconds=60)


class Backlog:
    """How much work waits, counted in Postgres at most once a second.

    What is accepted within that second may go beyond the bound by as much.
    """

    def __init__(
        self,
        engine: Engine,
        bound: int,
        refused: Callable[[], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._bound = bound
        self._refused = refused
        self._now = now
        self._lock = threading.Lock()
        self._counted_at = -math.inf
        self._depth = 0

    def require_room(self) -> None:
        """A Problem when the bound is reached; blocks for a query at most once a second."""
        if self._count() < self._bound:
            return
        self._refused()
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "queue-full",
            title="More work waits than can be done soon.",
            detail="Nothing was accepted; recordings accepted before are safe.",
            todo="Try again after the time that Retry-After says.",
            headers={"Retry-After": str(math.ceil(_RETRY_AFTER.total_seconds()))},
        )

    def _count(self) -> int:
        with self._lock:
            if self._now() - self._counted_at >= _FRESH.total_seconds():
                with transaction(self._engine) as session:
                    self._depth = queue_depth(session)
                self._counted_at = self._now()
            return self._depth


def _require_room(request: Request) -> None:
    backlog: Backlog = request.app.state.backlog
    backlog.require_room()


HasRoom = Annotated[None, Depends(_require_room)]
