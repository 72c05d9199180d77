"""Databases of their own for tests that make, change or drop tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url, text

from speakfit.database import make_engine


@contextmanager
def new_postgres(database_url: str) -> Iterator[str]:
    """The address of an empty database on the server that all tests share."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server = make_engine(database_url).execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
