"""The connections that one process keeps to the database, and how many wait for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from speakfit.metrics import POOL_CONNECTIONS, POOL_MAX, POOL_PENDING, Metric, Pool

if TYPE_CHECKING:
    from speakfit.telemetry import Readings

POOL_GAUGES: tuple[Metric, ...] = (POOL_CONNECTIONS, POOL_MAX, POOL_PENDING)


class WatchedPool(QueuePool):
    """SQLAlchemy's pool, which knows all but how many threads wait for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lock = threading.Lock()
        self._pending = 0

    def _do_get(self) -> Any:
        # Opening a connection is waiting, too: the caller has asked and has none.
        self._add(1)
        try:
            return super()._do_get()
        finally:
            self._add(-1)

    def _add(self, change: int) -> None:
        with self._lock:
            self._pending += change

    @property
    def pending(self) -> int:
        """Threads that have asked for a connection and have none yet."""
        return self._pending

    @property
    def limit(self) -> int:
        """Connections it may open."""
        return self.size() + self._max_overflow


def pool_gauges(engine: Engine, name: Pool) -> Callable[[], Readings]:
    """Reads the pool of an engine; nothing for SQLite, whose connections nobody counts."""
    from speakfit.totals import Reading

    whose = {"db.client.connection.pool.name": str(name)}

    def read() -> Readings:
        pool = engine.pool
        if not isinstance(pool, WatchedPool):
            return {}
        states = {"used": pool.checkedout(), "idle": pool.checkedin()}
        return {
            POOL_CONNECTIONS: [
                Reading(value=number, labels={**whose, "db.client.connection.state": state})
                for state, number in states.items()
            ],
            POOL_MAX: [Reading(value=pool.limit, labels=whose)],
            POOL_PENDING: [Reading(value=pool.pending, labels=whose)],
        }

    return read
