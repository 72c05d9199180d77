"""All pools together fit the database, whatever is stated; and none opens more than its share."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from speakfit.database import make_engine
from speakfit.errors import SettingsError
from speakfit.pool import (
    GAUGE_POOL,
    TASK_POOL,
    WORKER_POOL,
    PoolSize,
    api_pool,
    cloud_sql_connections,
)
from speakfit.settings import Settings

few = st.integers(min_value=0, max_value=40)


@hypothesis_settings(deadline=None)
@given(
    connections=st.integers(min_value=1, max_value=1_000),
    reserved=few,
    apis=st.integers(min_value=1, max_value=30),
    workers=few,
    processes=st.integers(min_value=1, max_value=16),
)
def test_all_processes_together_never_need_more_than_the_database_has(
    connections: int, reserved: int, apis: int, workers: int, processes: int
) -> None:
    settings = Settings(
        database_max_connections=connections,
        database_reserved_connections=reserved,
        api_replicas=apis,
        worker_replicas=workers,
        worker_processes=processes,
    )
    work = workers * (WORKER_POOL.most + processes * TASK_POOL.most)
    try:
        pool = api_pool(settings)
    except SettingsError:
        # Only where two connections for each API would not fit.
        assert reserved + work + apis * (GAUGE_POOL.most + 2) > connections
        return
    assert reserved + work + apis * (GAUGE_POOL.most + pool.most) <= connections
    assert 1 <= pool.kept <= pool.most <= 40


def test_the_local_stack_gets_what_its_database_allows(engine: Engine) -> None:
    with engine.connect() as connection:
        allowed = connection.execute(text("SHOW max_connections")).scalar_one()
    assert int(allowed) == Settings().database_max_connections
    assert api_pool(Settings()) == PoolSize(kept=10, more=10)


@pytest.mark.parametrize(
    ("memory_gib", "connections"), [(0.6, 25), (1.7, 50), (3.75, 100), (8, 400), (16, 500)]
)
def test_cloud_sql_allows_what_its_memory_gives(memory_gib: float, connections: int) -> None:
    assert cloud_sql_connections(memory_gib) == connections


def test_a_pool_opens_its_share_and_no_connection_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speakfit.database.CONNECT_LIMIT", timedelta(0))
    engine = make_engine(database_url, pool=PoolSize(kept=1, more=2))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(engine.connect())
        with pytest.raises(PoolTimeoutError):
            engine.connect()
    engine.dispose()
