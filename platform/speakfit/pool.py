"""How many connections each process may hold, and how long one waits for an answer.

All of them together fit the database: Cloud SQL refuses connections beyond `max_connections`,
which comes with the memory of its tier. The budget is stated once, in settings; every pool is
derived from it, so that adding replicas makes pools smaller instead of making the database refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from speakfit.errors import SettingsError
from speakfit.metrics import POOL_CONNECTIONS, POOL_MAX, POOL_PENDING, Metric, Pool
from speakfit.settings import Settings

if TYPE_CHECKING:
    from speakfit.telemetry import Readings

CLOUD_SQL_CONNECTIONS: tuple[tuple[float, int], ...] = (
    (0, 25),
    (1.7, 50),
    (3.75, 100),
    (6, 200),
    (7.5, 400),
    (15, 500),
    (30, 600),
    (60, 800),
    (120, 1000),
)
"""`max_connections` of Cloud SQL for PostgreSQL from so many GiB of memory on, unless a flag says
otherwise (cloud.google.com/sql/docs/postgres/flags)."""

POOL_GAUGES: tuple[Metric, ...] = (POOL_CONNECTIONS, POOL_MAX, POOL_PENDING)

_THREADS = 40
"""The API answers on so many threads; a larger pool would have nobody to use it."""
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """How many connections a pool keeps open, and how many more it may open for a while."""

    kept: int
    more: int

    @property
    def most(self) -> int:
        """All that the pool can ever hold."""
        return self.kept + self.more


LONE_POOL = PoolSize(kept=5, more=5)
"""Whoever is no part of the budget: tests, and commands of people."""

WORKER_POOL = PoolSize(kept=2, more=1)
"""A worker's main process: heartbeat, sweep, and one to spare at start and stop."""

TASK_POOL = PoolSize(kept=1, more=2)
"""A transcribing process: its task, the thread that renews the lease, and one to spare."""

GAUGE_POOL = PoolSize(kept=1, more=1)
"""An API's gauges, which are no part of its pool: a busy pool must not blind us."""


def cloud_sql_connections(memory_gib: float) -> int:
    """What Cloud SQL allows an instance of this memory."""
    return max(most for least, most in CLOUD_SQL_CONNECTIONS if memory_gib >= least)


def api_pool(settings: Settings) -> PoolSize:
    """An equal share of what workers and the reserve leave; half of it is kept open.

    Raises SettingsError when the replicas that are stated do not fit the database that is stated.
    """
    worker = WORKER_POOL.most + settings.worker_processes * TASK_POOL.most
    left = (
        settings.database_max_connections
        - settings.database_reserved_connections
        - settings.worker_replicas * worker
    )
    share = min(left // settings.api_replicas - GAUGE_POOL.most, _THREADS)
    if share < _FEWEST:
        raise SettingsError(
            f"{settings.database_max_connections} database connections do not suffice for "
            f"{settings.api_replicas} API replicas and {settings.worker_replicas} workers of "
            f"{settings.worker_processes} processes, with "
            f"{settings.database_reserved_connections} reserved.",
            where="DATABASE_MAX_CONNECTIONS, DATABASE_RESERVED_CONNECTIONS, API_REPLICAS, "
            "WORKER_REPLICAS, WORKER_PROCESSES",
            todo="State what there really is; then take a larger tier or fewer replicas.",
        )
    kept = (share + 1) // 2
    return PoolSize(kept=kept, more=share - kept)


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself when the server is silent for longer than it may be.

    statement_timeout is a promise of the server. One whose process stands still cannot keep it, and
    its machine goes on acknowledging packets and keepalives, so the client must look at the clock.
    """

    silence_limit: timedelta | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg waits, but not for ever; an OperationalError after `silence_limit`."""
        if timeout is not None or self.silence_limit is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.silence_limit.total_seconds())
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server was silent for {self.silence_limit.total_seconds():g} s"
            ) from error


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
