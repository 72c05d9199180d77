"""Every revision, up and down with rows in it, on both databases; and the discipline they keep.

Nothing here names a revision: what is added later is tested by being there. docs/migrations.md
tells the discipline.
"""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic.script import Script, ScriptDirectory
from sqlalchemy import (
    CHAR,
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    event,
    insert,
    select,
)

from speakfit import database
from speakfit.database import (
    alembic_config,
    current_revision,
    downgrade,
    head_revision,
    is_behind,
    make_engine,
    upgrade,
)
from tests.new_postgres import new_postgres

REVISIONS: list[Script] = list(
    reversed(list(ScriptDirectory.from_config(alembic_config()).walk_revisions()))
)
BORN = datetime(2026, 1, 2, 3, 4, 5, 678901)


@contextmanager
def on_postgres(database_url: str) -> Iterator[Engine]:
    """An engine on an empty database."""
    with new_postgres(database_url) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without any table, once of each kind."""
    if request.param == "postgresql":
        with on_postgres(request.getfixturevalue("database_url")) as engine:
            yield engine
        return
    engine = make_engine(f"sqlite:///{tmp_path}/migrations.db")
    yield engine
    engine.dispose()


def tables(connection: Connection) -> list[Table]:
    """What is really there, parents first."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def some_value(column: Column[Any]) -> Any:
    kind = column.type.python_type
    if isinstance(column.type, CHAR):
        return uuid.uuid4().hex
    made: dict[type, Any] = {
        uuid.UUID: uuid.uuid4(),
        str: uuid.uuid4().hex[: getattr(column.type, "length", None) or 32],
        int: uuid.uuid4().int % 1_000_000,
        float: 1.5,
        bool: True,
        bytes: b"\x00\xff",
        dict: {"said": ["zwölf", 12, None]},
        date: BORN.date(),
        datetime: BORN.replace(tzinfo=UTC) if getattr(column.type, "timezone", False) else BORN,
    }
    return made[kind]


def fill(engine: Engine) -> None:
    """Two rows more in every table: one with every column set, one with as little as is allowed."""
    with engine.begin() as connection:
        for table in tables(connection):
            for sparse in (False, True):
                row: dict[str, Any] = {}
                for column in table.columns:
                    if sparse and (column.nullable or column.server_default is not None):
                        continue
                    if column.primary_key and column.autoincrement is True:
                        continue
                    if column.foreign_keys:
                        (key,) = column.foreign_keys
                        newest = select(key.column).limit(1).offset(int(sparse))
                        row[column.name] = connection.execute(newest).scalar_one()
                    else:
                        row[column.name] = some_value(column)
                connection.execute(insert(table).values(row))


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables(connection)
        }


def common(
    left: dict[str, list[dict[str, Any]]], right: dict[str, list[dict[str, Any]]]
) -> tuple[Any, Any]:
    """Both, as far as both know the tables and columns, in one order."""

    def of(mine: dict[str, list[dict[str, Any]]], other: dict[str, list[dict[str, Any]]]) -> Any:
        return {
            name: sorted(
                str({c: row[c] for c in sorted(row) if c in other[name][0]}) for row in rows
            )
            for name, rows in mine.items()
            if other.get(name)
        }

    return of(left, right), of(right, left)


@pytest.mark.parametrize("script", REVISIONS, ids=lambda script: script.revision)
def test_a_revision_keeps_every_row_on_its_way_up_and_down(empty: Engine, script: Script) -> None:
    below = script.down_revision or "base"
    assert isinstance(below, str)
    if below != "base":
        upgrade(empty, below)
        fill(empty)
    before = content(empty)
    upgrade(empty, script.revision)
    assert current_revision(empty) == script.revision
    ours, theirs = common(before, content(empty))
    assert ours == theirs
    assert set(ours) == set(before), "a table is gone or empty"

    fill(empty)
    full = content(empty)
    downgrade(empty, below)
    left = content(empty)
    ours, theirs = common(full, left)
    assert ours == theirs
    assert set(left) == set(before), "the way down does not end where the way up began"

    upgrade(empty, script.revision)
    ours, theirs = common(left, content(empty))
    assert ours == theirs


def test_an_upgrade_that_fails_at_its_end_leaves_everything_as_it_was(empty: Engine) -> None:
    before = REVISIONS[-2].revision
    upgrade(empty, before)
    fill(empty)
    rows = content(empty)

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE alembic_version"):
            raise RuntimeError("the machine is lost")

    event.listen(empty, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="lost"):
        upgrade(empty)
    event.remove(empty, "before_cursor_execute", fail)
    assert current_revision(empty) == before
    assert content(empty) == rows
    upgrade(empty)
    assert set(common(rows, content(empty))[0]) == set(rows)


BREAKING = {
    "drops a table": r"DROP TABLE",
    "drops a column": r"ALTER TABLE .* DROP COLUMN",
    "renames": r"ALTER TABLE .* RENAME",
    "changes a type": r"ALTER TABLE .* ALTER COLUMN .* TYPE",
    "forbids NULL in a column that had it": r"ALTER TABLE .* ALTER COLUMN .* SET NOT NULL",
    "takes a default away": r"ALTER TABLE .* ALTER COLUMN .* DROP DEFAULT",
    "adds a column that must be given": r"ALTER TABLE .* ADD COLUMN (?!.*DEFAULT).*NOT NULL",
    "adds a rule for rows": r"ALTER TABLE .* ADD CONSTRAINT .*(CHECK|UNIQUE|EXCLUDE|PRIMARY KEY)",
    "adds a key that must be unique": r"CREATE UNIQUE INDEX",
}
"""What the previous release may stumble over while it still runs; as PostgreSQL is told it."""


def contractions(statements: list[str]) -> list[str]:
    """What in a revision's SQL the code of the release before it may not survive.

    Tables that the revision itself makes are nobody's yet.
    """
    made = re.findall(r'CREATE TABLE "?(\w+)', "\n".join(statements))
    found = []
    for statement in statements:
        line = " ".join(statement.split())
        named = re.search(r'(?:ALTER|DROP) TABLE (?:IF EXISTS )?"?(\w+)| ON "?(\w+)', line)
        if named and (named[1] or named[2]) in made:
            continue
        found += [
            f"{what}: {line}" for what, form in BREAKING.items() if re.search(form, line, re.I)
        ]
    return found


def statements_of(engine: Engine, script: Script) -> list[str]:
    """Upgrade by this one revision, and tell what the database was told, by whatever means."""
    told: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    event.listen(engine, "before_cursor_execute", hear)
    try:
        upgrade(engine, script.revision)
    finally:
        event.remove(engine, "before_cursor_execute", hear)
    return told


def is_contract(script: Script) -> bool:
    return getattr(script.module, "phase", "expand") == "contract"


def test_only_revisions_that_say_so_break_the_release_before_them(database_url: str) -> None:
    wrong = {}
    with on_postgres(database_url) as engine:
        for script in REVISIONS:
            found = contractions(statements_of(engine, script))
            if found and not is_contract(script):
                wrong[script.revision] = found
    assert wrong == {}, "expand now, contract one release later: docs/migrations.md"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE outbox",
        "ALTER TABLE recordings DROP COLUMN checksum",
        "ALTER TABLE recordings RENAME checksum TO sha256",
        "ALTER TABLE recordings RENAME TO uploads",
        "ALTER TABLE recordings ALTER COLUMN checksum TYPE VARCHAR(32)",
        "ALTER TABLE recordings ALTER COLUMN traceparent SET NOT NULL",
        "ALTER TABLE recordings ALTER COLUMN turn DROP DEFAULT",
        "ALTER TABLE recordings\n  ADD COLUMN language VARCHAR(8) NOT NULL",
        "ALTER TABLE recordings ADD CONSTRAINT sane CHECK (size_bytes > 0)",
        "CREATE UNIQUE INDEX once ON recordings (checksum)",
    ],
)
def test_what_breaks_a_running_release_is_recognised(statement: str) -> None:
    assert contractions([statement]) != []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE recordings ADD COLUMN language VARCHAR(8)",
        "ALTER TABLE recordings ADD COLUMN turn BIGINT DEFAULT 0 NOT NULL",
        "ALTER TABLE recordings ALTER COLUMN traceparent DROP NOT NULL",
        "CREATE INDEX quick ON recordings (checksum)",
        "CREATE TABLE languages (code VARCHAR(8) NOT NULL, UNIQUE (code))",
        "DROP INDEX ix_outbox_recording_id",
    ],
)
def test_what_a_running_release_does_not_notice_is_allowed(statement: str) -> None:
    assert contractions([statement]) == []


def test_a_table_may_be_changed_in_the_revision_that_makes_it() -> None:
    make = "CREATE TABLE languages (code VARCHAR(8))"
    assert contractions([make, "CREATE UNIQUE INDEX once ON languages (code)"]) == []


def release(revision: str) -> ModuleType:
    """What the release whose newest revision this is does to its tables, frozen."""
    return importlib.import_module(f"tests.speakfit.releases.r{revision}")


def test_the_previous_release_works_on_the_new_tables(empty: Engine) -> None:
    """The release before the head revision, as frozen in tests/speakfit/releases.

    While a deployment goes on, both releases run; its SQL must do on the new tables what it did
    on its own.
    """
    before = REVISIONS[-2].revision
    frozen = release(before)
    upgrade(empty, before)
    on_its_own = frozen.work(empty)
    downgrade(empty, "base")
    upgrade(empty)
    assert current_revision(empty) == head_revision()
    assert frozen.work(empty) == on_its_own
    assert on_its_own["recording"] == "completed"


def test_every_release_but_the_running_one_is_frozen() -> None:
    folder = Path(__file__).parent / "releases"
    frozen = {path.stem.removeprefix("r") for path in folder.glob("r[0-9]*.py")}
    missing = {script.revision for script in REVISIONS[:-1]} - frozen
    assert missing == set(), "freeze what the last release says: docs/migrations.md"


def test_the_previous_release_leaves_newer_tables_alone_and_serves(
    empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know the newest revision: during a rollout, and after a rollback to it."""
    upgrade(empty)
    newest = head_revision()
    assert not is_behind(newest)
    fill(empty)
    rows = content(empty)
    monkeypatch.setattr(database, "known_revisions", lambda: [s.revision for s in REVISIONS[:-1]])
    assert upgrade(empty) == newest
    assert not is_behind(newest)
    assert content(empty) == rows
    assert is_behind(None)
    assert is_behind(REVISIONS[-2].revision) is False
    if len(REVISIONS) > 2:
        assert is_behind(REVISIONS[-3].revision)
