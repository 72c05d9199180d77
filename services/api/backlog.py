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

from services.api.gauges import PACE_OVER, finished_chunks, queue_depth
from services.api.problems import Problem
from speakfit.database import transaction

_FRESH = timedelta(seconds=1)
_UNKNOWN_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=1)


def room_after(*, depth: int, bound: int, finished: int) -> timedelta:
    """When there is room again, at the pace of so many chunks finished within five minutes."""
    if finished == 0:
        return _UNKNOWN_WAIT
    wait = (depth - bound + 1) * PACE_OVER / finished
    return min(max(wait, timedelta(seconds=1)), _LONGEST_WAIT)


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
        self._known = 0, 0

    def require_room(self) -> None:
        """A Problem when the bound is reached; blocks for a query at most once a second."""
        depth, finished = self._count()
        if depth < self._bound:
            return
        wait = room_after(depth=depth, bound=self._bound, finished=finished)
        self._refused()
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "queue-full",
            title="More work waits than can be done soon.",
            detail="Nothing was accepted; recordings accepted before are safe.",
            todo="Try again after the time that Retry-After says.",
            headers={"Retry-After": str(math.ceil(wait.total_seconds()))},
        )

    def _count(self) -> tuple[int, int]:
        with self._lock:
            if self._now() - self._counted_at >= _FRESH.total_seconds():
                with transaction(self._engine) as session:
                    self._known = queue_depth(session), finished_chunks(session)
                self._counted_at = self._now()
            return self._known


def _require_room(request: Request) -> None:
    backlog: Backlog = request.app.state.backlog
    backlog.require_room()


HasRoom = Annotated[None, Depends(_require_room)]
