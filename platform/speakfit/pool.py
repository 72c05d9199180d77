"""How many connections each process may hold, so that all of them together fit the database.

Cloud SQL refuses connections beyond `max_connections`, which comes with the memory of its tier. The
budget is stated once, in settings; every pool is derived from it, so that adding replicas makes
pools smaller instead of making the database refuse.
"""

from __future__ import annotations

from dataclasses import dataclass

from speakfit.errors import SettingsError
from speakfit.settings import Settings

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
