"""Reads that may be a little old go to a replica, as long as it is known how old they are.

The primary's position in its write-ahead log is noted with the time, again and again. A replica
that has replayed up to a noted position holds everything that was committed by then. This needs no
rights, does not compare clocks, and notices a replica that was cut off and believes to be up to
date: asked for its own lag, such a one answers zero.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from speakfit.database import make_engine
from speakfit.errors import SettingsError
from speakfit.pool import api_pool
from speakfit.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_CHECKS_PER_SECOND = 2
_QUERY_CANCELLED = "57014"
_POSITION = text("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
_REPLAYED = text(
    # A server that is no replica has replayed nothing, and is never read from.
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END"
)


class Reads:
    """Which engine a read goes to; safe to use from many threads, none of which ever waits.

    Without a replica everything goes to the primary. A read whose caller must see what they wrote
    passes the position that `position` gave after the write.
    """

    def __init__(self, primary: Engine, replica: Engine | None, *, max_lag: timedelta) -> None:
        self._primary = primary
        self._replica = replica
        self._max_lag = max_lag.total_seconds()
        self._check_every = min(1 / _MOST_CHECKS_PER_SECOND, self._max_lag / 4)
        self._marks: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._replayed = -1
        self._as_of = float("-inf")
        """When the replica held everything that there was, by this process's clock."""

    def engine(self, after: int | None = None) -> Engine:
        """The replica while it is fresh enough, else the primary.

        `after` is a position of the primary that the read must have seen.
        """
        if self._replica is None:
            return self._primary
        now = time.monotonic()
        if now - self._checked_at >= self._check_every and self._lock.acquire(blocking=False):
            self._checked_at = now
            threading.Thread(target=self._check_once, name="replica", daemon=True).start()
        fresh = now - self._as_of <= self._max_lag
        return self._replica if fresh and (after or 0) <= self._replayed else self._primary

    def run(self, query: Callable[[Session], T], *, after: int | None = None) -> T:
        """Run a query that only reads; when the replica fails under it, again on the primary.

        The session refuses to write, on the primary too, so that a mistake shows everywhere.
        """
        engine = self.engine(after)
        if engine is self._replica:
            try:
                return _read(engine, query)
            except (OperationalError, InterfaceError, PoolTimeoutError) as error:
                cause = error.orig if isinstance(error, DBAPIError) else None
                if getattr(cause, "sqlstate", None) == _QUERY_CANCELLED:
                    # It took too long; the primary would need as long.
                    raise
                self._as_of = float("-inf")
                logger.warning("the replica failed, the primary answers: %s", type(error).__name__)
        return _read(self._primary, query)

    def position(self) -> int:
        """How far the primary is: whoever has just committed sees that in reads after it."""
        if self._replica is None:
            return 0
        with self._primary.connect() as connection:
            return int(connection.execute(_POSITION).scalar_one())

    def dispose(self) -> None:
        """Close the replica's connections; the primary belongs to whoever made it."""
        if self._replica is not None:
            self._replica.dispose()

    def _check_once(self) -> None:
        try:
            self._check()
        except SQLAlchemyError as error:
            # Nothing is forgotten: what is known to be fresh stays so until it is too old.
            logger.debug("the replica could not be checked: %s", type(error).__name__)
        finally:
            self._lock.release()

    def _check(self) -> None:
        assert self._replica is not None
        began = time.monotonic()
        try:
            position = self.position()
            if self._marks and position < self._marks[-1][1]:
                # Another primary, restored from an older state.
                self._marks.clear()
            self._marks.append((began, position))
        finally:
            # Also without the primary: what was noted before tells how old the replica is.
            with self._replica.connect() as connection:
                replayed = connection.execute(_REPLAYED).scalar_one()
            if replayed is not None:
                self._judge(int(replayed))

    def _judge(self, replayed: int) -> None:
        self._replayed = replayed
        reached = [at for at, position in self._marks if position <= replayed]
        if not reached:
            return
        self._as_of = reached[-1]
        while self._marks and self._marks[0][0] < self._as_of:
            self._marks.popleft()


def _read(engine: Engine, query: Callable[[Session], T]) -> T:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        if engine.dialect.name == "postgresql":
            # Not SQLAlchemy's option: it leaves connections that ask a replica for READ WRITE.
            session.execute(text("SET TRANSACTION READ ONLY"))
        return query(session)


def reads_from(settings: Settings, primary: Engine) -> Reads:
    """The reads that DATABASE_REPLICA_URL and its greatest lag describe."""
    replica = None
    if settings.database_replica_url is not None:
        try:
            replica = make_engine(settings.require("database_replica_url"), pool=api_pool(settings))
        except SettingsError as error:
            raise SettingsError(
                "DATABASE_REPLICA_URL is not an address this platform can use.",
                where="DATABASE_REPLICA_URL",
                todo=error.todo,
            ) from error
        if replica.dialect.name != "postgresql":
            raise SettingsError(
                "Only PostgreSQL has replicas.",
                where="DATABASE_REPLICA_URL",
                todo="Unset it, or name a replica of the database at DATABASE_URL.",
            )
    return Reads(primary, replica, max_lag=settings.database_replica_max_lag)
