"""The migrations make the tables that the code declares, on both databases."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError

from speakfit import database
from speakfit.database import (
    Table,
    current_revision,
    database_now,
    head_revision,
    main,
    make_engine,
    transaction,
    upgrade,
)
from speakfit.errors import SettingsError


def test_the_migrations_make_exactly_the_declared_tables(either_engine: Engine) -> None:
    with either_engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Table.metadata) == []


def test_migrating_twice_changes_nothing(either_engine: Engine) -> None:
    assert upgrade(either_engine) == head_revision()
    assert current_revision(either_engine) == head_revision()


def test_the_databases_clock_is_now_and_can_look_ahead(either_engine: Engine) -> None:
    with transaction(either_engine) as session:
        now, ahead = session.execute(
            select(database_now(), database_now(timedelta(seconds=90)))
        ).one()
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    assert timedelta(seconds=89) < ahead - now < timedelta(seconds=91)


def test_a_statement_that_hangs_is_ended(engine: Engine) -> None:
    impatient = make_engine(
        engine.url.render_as_string(hide_password=False),
        statement_limit=timedelta(milliseconds=50),
    )
    with pytest.raises(Exception, match="statement timeout"), impatient.connect() as connection:
        connection.execute(text("SELECT pg_sleep(30)"))
    impatient.dispose()


def test_a_server_that_stands_still_is_given_up_and_the_pool_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SILENCE", timedelta(milliseconds=200))
    patient = make_engine(
        engine.url.render_as_string(hide_password=False),
        statement_limit=timedelta(milliseconds=100),
    )
    with patient.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
    # Its machine goes on acknowledging what is sent to it.
    os.kill(int(backend), signal.SIGSTOP)
    try:
        with patient.connect() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) != backend
        assert patient.pool.checkedout() == 0
    finally:
        os.kill(int(backend), signal.SIGCONT)
    with patient.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
        os.kill(int(backend), signal.SIGSTOP)
        try:
            with pytest.raises(OperationalError, match=r"the server was silent for 0\.3 s"):
                connection.execute(text("SELECT 1"))
        finally:
            os.kill(int(backend), signal.SIGCONT)
    patient.dispose()


def test_an_address_of_another_database_is_refused_without_showing_it() -> None:
    with pytest.raises(SettingsError) as refused:
        make_engine("mysql://root:secret@localhost/x")
    assert "secret" not in str(refused.value)


def test_current_tells_by_its_exit_code_that_the_tables_are_behind(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    assert main(["current"]) == 2
    assert main(["upgrade"]) == 0
    assert main(["current"]) == 0
    assert f"at revision {head_revision()}" in capsys.readouterr().out


def test_a_database_that_is_away_is_told_in_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:secret@127.0.0.1:1/x")
    assert main(["upgrade"]) == 1
    told = capsys.readouterr().err
    assert "DATABASE_URL" in told
    assert "secret" not in told
