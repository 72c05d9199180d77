"""SQLite files become PostgreSQL databases, every row the same or told by name."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import make_url, select

from services.migrate import target
from services.migrate.cli import main
from services.migrate.plan import Choices, Plan
from services.migrate.report import as_json
from services.migrate.rows import Say
from services.migrate.run import Order, Report, Status, migrate
from speakfit.database import (
    OutboxMessage,
    Table,
    alembic_config,
    current_revision,
    head_revision,
    make_engine,
    transaction,
    upgrade,
)
from speakfit.errors import MigrationError, RefusedError, TargetError
from tests.migrate import old_databases
from tests.new_postgres import new_postgres


@pytest.fixture
def empty(database_url: str) -> Iterator[str]:
    """The address of a PostgreSQL without any table."""
    with new_postgres(database_url) as url:
        yield url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a test puts its SQLite file."""
    return tmp_path / "old app.db"


class Quiet:
    """Says nothing; `during` is called whenever rows of a stage are done."""

    def __init__(self, during: Callable[[str], None] = lambda stage: None) -> None:
        self._during = during

    def planned(self, plan: Plan, address: str, *, resumed: bool) -> None:
        pass

    @contextmanager
    def stage(self, words: str, rows: int) -> Iterator[Say]:
        yield lambda table, done: self._during(words)


def move(
    source: Path, url: str, during: Callable[[str], None] = lambda stage: None, **order: Any
) -> Report:
    wanted = Order(source=f"sqlite:///{source}", target=url, choices=Choices())
    return migrate(replace(wanted, **order), Quiet(during))


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """What the command ends with, and all that it prints."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out + said.err


def files(folder: Path) -> dict[str, str]:
    """Every file there and what is in it."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query).fetchall()


def everything(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of ours as the platform itself reads it."""
    engine = make_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: sorted(connection.execute(select(table)).tuples(), key=repr)
            for table in Table.metadata.sorted_tables
        }
    engine.dispose()
    return found


def test_our_own_database_arrives_as_the_platform_wrote_it(
    source: Path, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old_databases.ours(source, recordings=20)
    before = files(source.parent)
    plain = empty.replace("+psycopg", "")
    options = ("--from", f"sqlite:///{source}", "--to", plain)
    code, planned = command(capsys, *options, "--plan")
    assert (code, rows(empty, "SELECT relname FROM pg_class WHERE relname = 'chunks'")) == (2, [])

    code, told = command(capsys, *options)
    assert code == 0
    assert "both sides are equal" in told
    assert everything(empty) == everything(f"sqlite:///{source}")
    assert files(source.parent) == before
    for said in (planned, told):
        assert str(make_url(empty).password) not in said

    engine = make_engine(empty)
    with transaction(engine) as session:
        fresh = OutboxMessage(
            task="speakfit.prepare",
            recording_id=uuid.UUID(rows(empty, "SELECT id::text FROM recordings")[0][0]),
            created_at=old_databases.BORN,
        )
        session.add(fresh)
        session.flush()
        assert fresh.id == 21, "the numbering did not go on"
    engine.dispose()
    code, again = command(capsys, *options, "--json")
    assert (code, json.loads(again)["status"]) == (0, "done-before")


@pytest.mark.parametrize("at_head", [False, True], ids=["empty", "newer"])
def test_every_earlier_revision_arrives_at_the_newest(
    source: Path, database_url: str, at_head: bool
) -> None:
    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    for script in [one for one in scripts if one.revision != head_revision()]:
        source.unlink(missing_ok=True)
        old_databases.of_release(source, script.revision, recordings=3)
        with new_postgres(database_url) as url:
            engine = make_engine(url)
            if at_head:
                upgrade(engine)
            report = move(source, url)
            assert report.status is Status.MOVED
            assert report.plan is not None
            assert report.plan.source_revision == script.revision
            assert current_revision(engine) == head_revision()
            engine.dispose()
            assert rows(url, "SELECT count(*) FROM recordings WHERE attempts = 0") == [(3,)]


def test_another_applications_tables_are_refused_or_copied_as_they_are(
    source: Path, empty: str
) -> None:
    old_databases.other(source)
    refused = move(source, empty)
    assert refused.status is Status.REFUSED
    assert refused.plan is not None
    assert sum("--include-other" in reason for reason in refused.plan.refusals) == 3
    assert rows(empty, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]

    report = move(source, empty, choices=Choices(include_other=True, zone="Europe/Berlin"))
    assert report.status is Status.MOVED
    assert rows(
        empty,
        "SELECT id, email, admin, joined AT TIME ZONE 'UTC' || '', born || '', settings::text,"
        ' balance::text, "order" FROM users ORDER BY id',
    ) == [
        (1, "a@x", True, "2026-07-01 10:00:00", "1990-02-28", '{"a": [1.0]}', "12.50", "x"),
        (2, "b@x", False, "2026-07-01 10:00:00", None, '"\\u00fc"', "-0.07", None),
        (3, "c@x" + "y" * 40, False, None, None, "5", "10000.00", ""),
    ]
    assert rows(empty, "SELECT * FROM sessions ORDER BY user_id, day") == [
        (1, "monday", 1.5, b"\x00\xff", 1_767_000_000, "1"),
        (1, "tuesday", float("inf"), None, 1_767_000_001, "two"),
        (2, "monday", 3.0, b"", None, "2.5"),
    ]
    assert rows(empty, 'SELECT * FROM "5% lose notes" ORDER BY number') == [
        ("child first", 9, 3),
        ("parent", None, 9),
    ]
    # What the application relied on holds on: defaults, numbering beyond the deleted row, keys.
    made = "INSERT INTO users (email) VALUES ('new') RETURNING id, admin, \"order\", balance::text"
    assert rows(empty, made) == [(5, False, "it's", "0.00")]
    with pytest.raises(psycopg.errors.UniqueViolation):
        rows(empty, "INSERT INTO users (email) VALUES ('a@x')")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        rows(empty, "INSERT INTO sessions VALUES (99, 'monday')")
    engine = make_engine(empty)
    assert current_revision(engine) == head_revision()
    engine.dispose()


MISFITS: dict[str, tuple[str, Any, str]] = {
    "a": ("INTEGER", "twelve", "is text, not a whole number"),
    "b": ("INTEGER", 1.5, "is a fraction, not a whole number"),
    "c": ("BOOLEAN", 2, "is a whole number other than 0 and 1, not true or false"),
    "d": ("DATETIME", "0000-00-00 00:00:00", "is text that is no date and time of the calendar"),
    "e": ("DATETIME", "2026-01-02 03:04:05.1234567", "is finer than the microsecond"),
    "f": ("DATE", "2026-02-30", "is text that is no date of the calendar"),
    "g": ("TEXT", "a\x00b", "holds a NUL character"),
    "h": ("TEXT", b"blob", "is a blob, not text"),
    "i": ("JSON", '{"a": NaN}', "is JSON with NaN, which JSON does not have"),
    "j": ("JSON", "{'a': 1}", "is text that is not JSON"),
    "k": ("UUID", "no-uuid", "is text that is no UUID"),
    "l": ("DECIMAL(5,2)", 1.234, "has more than 2 digits after the point"),
    "m": ("DECIMAL(5,2)", 12345.5, "has more than 3 digits before the point"),
    "n": ("BLOB", "text", "is text, not a blob"),
    "o": ("TEXT", None, "is text that is not UTF-8, not text"),
    "p": ("REAL", "fast", "is text, not a number"),
    "q": ("TEXT NOT NULL", None, ""),
}
FITS = {
    "INTEGER": 1,
    "BOOLEAN": 1,
    "DATETIME": "2026-01-02 03:04:05",
    "DATE": "2026-01-02",
    "TEXT": "x",
    "JSON": "{}",
    # All digits would not do: SQLite takes the type for NUMERIC and rounds them.
    "UUID": "ab" * 16,
    "DECIMAL(5,2)": 1.5,
    "BLOB": b"x",
    "REAL": 1.5,
    "TEXT NOT NULL": "x",
}


def misfits(path: Path) -> None:
    """One row for each value that does not fit, one that does, and children of all of them."""
    with sqlite3.connect(path) as old:
        columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in MISFITS.items())
        old.execute(f"CREATE TABLE things (id INTEGER PRIMARY KEY, {columns})")
        names = ", ".join(MISFITS)
        for number, (column, (_, value, _)) in enumerate(MISFITS.items(), 1):
            row = {name: FITS[kind] for name, (kind, _, _) in MISFITS.items()}
            if column != "q":
                row[column] = value
            old.execute(
                f"INSERT INTO things (id, {names}) VALUES (?{', ?' * len(row)})",
                (number, *row.values()),
            )
        # Only as a cast can text that is no UTF-8 be made.
        old.execute("UPDATE things SET o = CAST(x'ff41' AS TEXT) WHERE o IS NULL")
        old.execute("CREATE TABLE parts (thing INTEGER REFERENCES things, of INTEGER)")
        old.executemany("INSERT INTO parts VALUES (?, ?)", [(1, 1), (17, 2), (99, 3), (None, 4)])
        old.executescript(
            "CREATE TABLE chain (id INTEGER PRIMARY KEY, up INTEGER REFERENCES chain);"
            "INSERT INTO chain VALUES (1, 99), (2, 1), (3, 2), (4, NULL), (5, 4);"
            "CREATE TABLE codes (code TEXT PRIMARY KEY COLLATE NOCASE);"
            "INSERT INTO codes VALUES ('ABC');"
            "CREATE TABLE uses (code TEXT REFERENCES codes);"
            "INSERT INTO uses VALUES ('ABC'), ('abc');"
        )
    old.close()


def test_a_value_that_does_not_fit_stops_everything_and_is_named(
    source: Path, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    misfits(source)
    options = ("--from", f"sqlite:///{source}", "--to", empty, "--include-other")
    code, told = command(capsys, *options)
    assert code == 5
    for number, (column, (_, _, reason)) in enumerate(MISFITS.items(), 1):
        if reason:
            assert f"things (id={number}): {column} {reason}" in told
    assert "parts (rowid=3): thing refers to a row of things that is missing" in told
    assert rows(empty, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_rows_that_do_not_fit_go_to_a_file_with_all_that_refer_to_them(
    source: Path, empty: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    misfits(source)
    kept = tmp_path / "kept.jsonl"
    options = ("--from", f"sqlite:///{source}", "--to", empty, "--include-other")
    code, told = command(capsys, *options, "--rejects", str(kept), "--json")
    assert code == 0
    report = {one["table"]: one for one in json.loads(told)["compared"]}
    assert (report["things"]["rejected"], report["things"]["target_rows"]) == (16, 1)
    assert (report["parts"]["rejected"], report["parts"]["target_rows"]) == (2, 2)
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [line["row"]["of"] for line in lines if line["table"] == "parts"] == [1, 3]
    things = {line["row"]["id"]: line["row"] for line in lines if line["table"] == "things"}
    assert sorted(things) == list(range(1, 17))
    assert things[1]["a"] == "twelve"
    assert things[7]["g"] == "a\x00b"
    assert things[8]["h"] == {"blob_hex": b"blob".hex()}
    assert things[15]["o"] == {"text_hex": "ff41"}
    assert kept.stat().st_mode & 0o077 == 0
    assert rows(empty, "SELECT id FROM things") == [(17,)]
    assert rows(empty, "SELECT of FROM parts ORDER BY of") == [(2,), (4,)]
    assert rows(empty, "SELECT id FROM chain ORDER BY id") == [(4,), (5,)]
    # To SQLite both refer to the same row; to PostgreSQL only one does.
    assert rows(empty, "SELECT code FROM uses") == [("ABC",)]


def test_our_tables_refuse_what_sqlite_let_in(source: Path, empty: str) -> None:
    old_databases.ours(source, recordings=2)
    with sqlite3.connect(source) as old:
        old.execute("PRAGMA foreign_keys=OFF")
        old.execute("UPDATE recordings SET status = 'far too long a status'")
        old.execute("UPDATE chunks SET result = 'not JSON' WHERE chunk_index = 0")
        old.execute("UPDATE chunks SET recording_id = ? WHERE rowid = 2", ("8" * 32,))
    old.close()
    report = move(source, empty)
    assert report.status is Status.REFUSED
    assert dict(report.checked["recordings"].counts) == {
        ("status", "is 21 characters long, 16 fit"): 2
    }
    assert report.checked["chunks"].counts["result", "is text that is not JSON"] == 2
    assert len(report.checked["chunks"].rejected) == 6
    assert len(report.checked["outbox"].rejected) == 2


def test_what_only_the_write_ahead_log_holds_is_moved_and_nothing_is_touched(
    source: Path, empty: str
) -> None:
    old_databases.other(source)
    writer = sqlite3.connect(source)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("INSERT INTO users (email) VALUES ('only in the log')")
    writer.commit()
    before = files(source.parent)
    assert "old app.db-wal" in before
    report = move(source, empty, choices=Choices(include_other=True))
    assert report.status is Status.MOVED
    assert rows(empty, "SELECT id FROM users WHERE email = 'only in the log'") == [(5,)]
    assert files(source.parent) == before
    writer.close()


def test_a_transaction_that_a_crash_left_half_done_is_not_moved(
    source: Path, empty: str, tmp_path: Path
) -> None:
    live = tmp_path / "live.db"
    old_databases.ours(live, recordings=200)
    writer = sqlite3.connect(live)
    writer.execute("PRAGMA journal_mode=DELETE")
    writer.execute("PRAGMA cache_size=1")
    writer.execute("UPDATE recordings SET content_type = 'half done'")
    # What a machine that is lost now leaves behind: half of the change, and the way back.
    shutil.copy(live, source)
    shutil.copy(f"{live}-journal", f"{source}-journal")
    writer.close()
    assert b"half done" in source.read_bytes()
    before = files(source.parent)
    assert move(source, empty).status is Status.MOVED
    assert rows(empty, "SELECT DISTINCT content_type FROM recordings") == [("audio/wav",)]
    assert files(source.parent) == before


def test_a_source_that_changes_meanwhile_fails_the_migration(source: Path, empty: str) -> None:
    old_databases.ours(source, recordings=3)

    def write(stage: str) -> None:
        if stage == "copying":
            with sqlite3.connect(source) as old:
                old.execute("UPDATE recordings SET attempts = attempts + 1")
            old.close()

    with pytest.raises(RefusedError, match="The source changed while it was read"):
        move(source, empty, write)
    with pytest.raises(RefusedError, match="not the one it began with"):
        move(source, empty)
    assert move(source, empty, start_over=True).status is Status.MOVED
    assert everything(empty) == everything(f"sqlite:///{source}")


def test_a_target_with_rows_is_refused_unless_they_are_to_be_added(
    source: Path, empty: str, tmp_path: Path
) -> None:
    first = tmp_path / "first.db"
    old_databases.ours(first, recordings=4)
    move(first, empty)
    old_databases.ours(source, recordings=3)
    with sqlite3.connect(source) as old:
        old.execute("UPDATE callers SET subject = 'key:trainer'")
        old.execute("DELETE FROM outbox")
    old.close()
    refused = move(source, empty)
    assert refused.status is Status.REFUSED
    assert refused.plan is not None
    assert any("--allow-non-empty" in reason for reason in refused.plan.refusals)

    choices = Choices(allow_non_empty=True)
    report = move(source, empty, choices=choices)
    assert report.status is Status.MOVED
    assert {one.table: one.target_rows for one in report.compared if one.target_rows} == {
        "callers": 1,
        "recordings": 3,
        "chunks": 9,
    }
    assert rows(empty, "SELECT count(*) FROM recordings") == [(7,)]

    with sqlite3.connect(source) as old:
        old.execute("UPDATE callers SET id = ?", (uuid.uuid4().hex,))
    old.close()
    with pytest.raises(MigrationError, match=r"duplicate key value .*key:trainer"):
        move(source, empty, choices=Choices(allow_non_empty=True, reject=True))
    assert rows(empty, "SELECT count(*) FROM callers") == [(2,)]
    with pytest.raises(RefusedError, match="cannot be told apart"):
        move(source, empty, start_over=True)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE chunks SET end_seconds = end_seconds + 1e-12 WHERE chunk_index = 1", "chunks"),
        ("DELETE FROM outbox WHERE id = 2", "outbox"),
        ("SELECT setval('outbox_id_seq', 1)", "outbox"),
        ("ALTER TABLE chunks DROP CONSTRAINT chunks_recording_id_fkey", "chunks"),
        ("ALTER TABLE recordings ALTER checksum TYPE varchar(99)", "recordings"),
    ],
)
def test_the_comparison_finds_what_happened_to_the_target(
    source: Path, empty: str, damage: str, found: str
) -> None:
    old_databases.ours(source, recordings=3)
    harm = [damage]

    def spoil(stage: str) -> None:
        if stage == "comparing" and harm:
            # The first table that is compared is empty or harmless; the rest comes after this.
            with psycopg.connect(empty.replace("+psycopg", "")) as connection:
                connection.execute(harm.pop())

    report = move(source, empty, spoil)
    assert report.status is Status.DIFFERENT
    assert [one.table for one in report.compared if not one.equal] == [found]


def test_a_migration_that_broke_off_goes_on_after_its_last_batch(source: Path, empty: str) -> None:
    old_databases.ours(source, recordings=30)
    batches = 0

    def break_off(stage: str) -> None:
        nonlocal batches
        batches += stage == "copying"
        if batches == 9:
            raise OSError("the machine is lost")

    with pytest.raises(OSError, match="lost"):
        move(source, empty, break_off, batch_rows=7)
    assert rows(empty, "SELECT count(*) FROM recordings") == [(14,)]
    with pytest.raises(RefusedError, match="--include-other was False"):
        move(source, empty, choices=Choices(include_other=True))
    report = move(source, empty, batch_rows=7)
    assert (report.status, report.resumed) == (Status.MOVED, True)
    assert report.copied == 16 + 90 + 30
    assert everything(empty) == everything(f"sqlite:///{source}")


def test_two_migrations_into_one_database_do_not_mix(
    source: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_databases.ours(source, recordings=1)
    monkeypatch.setattr(target, "_LOCK_LIMIT", target.timedelta(seconds=0))
    seen: list[str] = []

    def begin_another(stage: str) -> None:
        if not seen:
            with pytest.raises(RefusedError) as refused:
                move(source, empty)
            seen.append(refused.value.what)

    assert move(source, empty, begin_another).status is Status.MOVED
    assert seen == ["Another migration into this database is running."]


def test_names_of_ours_in_another_applications_database_do_not_collide(
    source: Path, empty: str
) -> None:
    with sqlite3.connect(source) as old:
        old.executescript(
            "CREATE TABLE recordings (id INTEGER PRIMARY KEY, title TEXT);"
            "INSERT INTO recordings VALUES (1, 'mine');"
            "CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('0001');"
        )
    old.close()
    choices = Choices(include_other=True)
    refused = move(source, empty, choices=choices)
    assert refused.status is Status.REFUSED
    assert refused.plan is not None
    assert any("recordings would stand where" in one for one in refused.plan.refusals)
    report = move(source, empty, choices=replace(choices, other_schema="old app"))
    assert report.status is Status.MOVED
    assert rows(empty, 'SELECT * FROM "old app".recordings') == [(1, "mine")]
    assert rows(empty, "SELECT count(*) FROM public.recordings") == [(0,)]


def test_a_damaged_source_is_told_in_one_message(source: Path, empty: str) -> None:
    old_databases.ours(source, recordings=40)
    content = bytearray(source.read_bytes())
    for page in range(10, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    source.write_bytes(bytes(content))
    with pytest.raises(TargetError, match="SQLite cannot read the source"):
        move(source, empty)


def test_a_report_is_json_throughout(source: Path, empty: str) -> None:
    old_databases.other(source)
    report = move(source, empty, only_plan=True, choices=Choices(include_other=True))
    document = json.loads(json.dumps(as_json(report)))
    assert document["status"] == "planned"
    assert {one["table"]: one["rows"] for one in document["tables"]} == {
        "users": 3,
        "sessions": 3,
        "5% lose notes": 2,
    }


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--to", "postgresql://u:secret@127.0.0.1:1/x"), 64, "Missing option '--from'"),
        (("--from", "sqlite:///none.db", "--to", "mysql://u:secret@h/x"), 1, "--to"),
        (("--from", "sqlite:///none.db", "--to", "postgresql://u:secret@h/x"), 1, "none.db"),
        (("--from", "postgresql://u:secret@h/x", "--to", "postgresql://h/x"), 1, "--from"),
        (("--from", "sqlite:///OLD", "--to", "postgresql://u:secret@127.0.0.1:1/x"), 1, "answer"),
        (("--from", "sqlite:///OLD", "--to", "", "--time-zone", "Mars"), 64, "Europe/Berlin"),
    ],
)
def test_what_cannot_be_done_is_told_without_a_password(
    source: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    sqlite3.connect(source).execute("CREATE TABLE things (id INTEGER)").connection.close()
    given = [option.replace("OLD", str(source)) for option in options]
    ended, said = command(capsys, *given)
    assert ended == code
    assert says in said
    assert "secret" not in said
    assert "Traceback" not in said
