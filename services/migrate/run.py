"""One migration from beginning to end: plan, check, prepare, copy, finish, compare, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from services.migrate import target
from services.migrate.plan import Choices, Plan, TablePlan, make_plan
from services.migrate.rows import (
    BATCH_ROWS,
    Checked,
    Compared,
    Rejects,
    Say,
    check,
    compare,
    copy_table,
)
from services.migrate.source import Source, open_source, quoted, source_path
from speakfit.database import head_revision
from speakfit.errors import MigrationError, RefusedError, TargetError


class Status(StrEnum):
    """How a run of the command ended."""

    PLANNED = "planned"
    REFUSED = "refused"
    MOVED = "moved"
    DIFFERENT = "different"
    """Copied, and the comparison found a difference."""
    DONE_BEFORE = "done-before"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command was asked to do."""

    source: str
    target: str
    choices: Choices
    rejects: Path | None = None
    only_plan: bool = False
    start_over: bool = False
    batch_rows: int = BATCH_ROWS


class Listener(Protocol):
    """Who is told how it goes."""

    def planned(self, plan: Plan, address: str, *, resumed: bool) -> None:
        """The plan, before any row is read."""

    def stage(self, words: str, rows: int) -> AbstractContextManager[Say]:
        """A stage begins; its rows are counted until it ends."""


@dataclass(kw_only=True)
class Report:
    """All that is to be said at the end."""

    status: Status
    source: str
    fingerprint: str
    address: str
    plan: Plan | None = None
    checked: dict[str, Checked] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)
    revision: str | None = None
    resumed: bool = False
    copied: int = 0
    """Rows of this run; earlier runs of the same migration copied the rest."""
    rejects: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    before: dict[str, Any] | None = None
    """The report of the run that finished it, when this one had nothing to do."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.monotonic() - began, 3)


def migrate(order: Order, listener: Listener) -> Report:
    """Do what was asked; everything that goes wrong is an error of speakfit.errors."""
    path = source_path(order.source)
    engine = target.engine_of(order.target)
    address = target.shown(order.target)
    try:
        with open_source(path) as source, target.connected(engine, address) as driver:
            report = Report(
                status=Status.PLANNED,
                source=str(path),
                fingerprint=source.fingerprint,
                address=address,
                rejects=order.rejects,
            )
            with _answers(address):
                _run(order, listener, report, source, engine, driver)
            return report
    finally:
        engine.dispose()


@contextmanager
def _answers(address: str) -> Iterator[None]:
    """Trouble with PostgreSQL outside of copying, as one of our errors."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        raise TargetError(
            f"The target refused or went away: {_reason(error)}.",
            where=address,
            todo="Mend the cause and run the same command again; what is copied stays copied.",
        ) from error


def _reason(error: Exception) -> str:
    """What PostgreSQL said, without the values of rows."""
    cause = getattr(error, "orig", error)
    if not isinstance(cause, psycopg.Error):
        return type(cause).__name__
    said = cause.diag.message_primary or str(cause).strip().splitlines()[0]
    if isinstance(cause, psycopg.errors.UniqueViolation | psycopg.errors.ForeignKeyViolation):
        return f"{said} ({(cause.diag.message_detail or '').rstrip('.')})"
    return said


def _run(
    order: Order,
    listener: Listener,
    report: Report,
    source: Source,
    engine: Engine,
    driver: psycopg.Connection[Any],
) -> None:
    run = target.read_run(driver)
    driver.commit()
    if run is not None and run.stage != "done" and order.start_over and not order.only_plan:
        target.forget_run(driver)
        run = None
    same = run is not None and run.fingerprint == source.fingerprint
    if run is not None and run.stage == "done":
        if same and run.choices == order.choices.as_json():
            report.status, report.before = Status.DONE_BEFORE, run.report
            report.revision = (run.report or {}).get("revision")
            return
        run = None
    if run is not None:
        _refuse_another(run, order.choices, same=same, address=report.address)
    report.resumed = run is not None
    with report.timed("plan"), engine.connect() as connection:
        plan = make_plan(source, connection, order.choices, resume=report.resumed)
        connection.rollback()
    report.plan = plan
    listener.planned(plan, report.address, resumed=report.resumed)
    with report.timed("check"), listener.stage("checking", plan.rows) as say:
        _check(order, report, source, say)
    unfit = sum(len(checked.rejected) for checked in report.checked.values())
    if plan.refusals or (unfit and not order.choices.reject):
        report.status = Status.REFUSED
        return
    if order.only_plan:
        return
    if not report.resumed:
        with report.timed("prepare"), engine.connect() as connection:
            # Nothing was kept of the plan's transaction: its tables are made again, for good.
            made = make_plan(source, connection, order.choices, resume=False)
            _prepare(target.raw(connection), source, made, order.choices)
            connection.commit()
    if run is None or run.stage == "copying":
        with _resumable(report.address), report.timed("copy"):
            _copy(order, listener, report, source, driver)
    with report.timed("compare"), listener.stage("comparing", plan.rows) as say:
        for table in plan.tables:
            report.compared.append(compare(driver, table, report.checked[table.name]))
            say(table.name, table.source.rows)
        driver.commit()
        source.prove_unchanged()
    if not all(one.equal for one in report.compared):
        report.status = Status.DIFFERENT
        return
    _close(report, engine)


def _refuse_another(run: target.Run, choices: Choices, *, same: bool, address: str) -> None:
    if not same:
        raise RefusedError(
            "The target holds an unfinished migration, and the source is not the one it began "
            "with: another file, or changed since.",
            where=address,
            todo="Restore the source, or take back what was copied with --start-over.",
        )
    if run.choices != choices.as_json():
        differ = [
            f"--{name.replace('_', '-')} was {run.choices.get(name)!r}"
            for name, value in choices.as_json().items()
            if run.choices.get(name) != value
        ]
        raise RefusedError(
            f"The unfinished migration was begun with other options: {'; '.join(differ)}.",
            where=address,
            todo="Use the same options, or take back what was copied with --start-over.",
        )


def _check(order: Order, report: Report, source: Source, say: Say) -> None:
    assert report.plan is not None
    rejects = Rejects(order.rejects)
    whole = False
    try:
        report.checked = check(source, report.plan, order.choices.zone, rejects, say)
        whole = True
    finally:
        rejects.close(keep=whole)


def _prepare(driver: psycopg.Connection[Any], source: Source, plan: Plan, choices: Choices) -> None:
    """Make the tables and open the journal, in the one transaction that the plan began."""
    if plan.refusals:
        raise RefusedError(
            "The target changed while the source was checked: " + "; ".join(plan.refusals),
            todo="Let nobody else write to the target, then run the command again.",
        )
    target.begin_run(driver, source.fingerprint, choices.as_json())
    if any(not table.ours for table in plan.tables):
        driver.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(choices.other_schema)}")
    for table in plan.tables:
        place = target.where(table.schema, table.name)
        if not table.ours:
            driver.execute(_create(table))
        before = (0, 0)
        if not target.is_empty(driver, table.schema, table.name):
            before = target.count_and_sum(driver, table.schema, table.name, table.kinds)
        target.begin_table(driver, table.name, place, before, made_here=not table.ours)


def _create(table: TablePlan) -> str:
    lines = []
    for column in table.columns:
        line = f"{quoted(column.target)} {column.kind}"
        if column.required:
            line += " NOT NULL"
        if column.name == table.source.row_number:
            line += " GENERATED BY DEFAULT AS IDENTITY"
        elif column.default is not None:
            line += f" DEFAULT {column.default}"
        lines.append(line)
    return f"CREATE TABLE {target.where(table.schema, table.name)} ({', '.join(lines)})"


@contextmanager
def _resumable(address: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(
            f"Copying stopped: {_reason(error)}.",
            where=address,
            todo="Mend the cause and run the same command again; it goes on where it stopped. Or "
            "take back what was copied with --start-over.",
        ) from error


def _copy(
    order: Order,
    listener: Listener,
    report: Report,
    source: Source,
    driver: psycopg.Connection[Any],
) -> None:
    plan = report.plan
    assert plan is not None
    done = sum(target.read_progress(driver, table.name).copied for table in plan.tables)
    driver.commit()
    with listener.stage("copying", plan.rows) as say:
        say("", done)
        for table in plan.tables:
            rejected = report.checked[table.name].rejected
            report.copied += copy_table(
                source, driver, table, order.choices.zone, rejected, order.batch_rows, say
            )
    with driver.transaction():
        for table in plan.tables:
            _finish(driver, table)
        for table in plan.tables:
            for key in table.keys if not table.ours else ():
                driver.execute(_foreign_key(table, key, plan))
        target.set_stage(driver, "copied")
    for table in plan.tables:
        driver.execute(f"ANALYZE {target.where(table.schema, table.name)}")
        driver.commit()


def _finish(driver: psycopg.Connection[Any], table: TablePlan) -> None:
    """Keys and indexes are quicker made once than kept up row by row; then the sequences."""
    place = target.where(table.schema, table.name)
    if not table.ours:
        if table.source.primary_key:
            names = ", ".join(quoted(name) for name in table.source.primary_key)
            driver.execute(f"ALTER TABLE {place} ADD PRIMARY KEY ({names})")
        for index in table.source.indexes:
            names = ", ".join(quoted(name) for name in index.columns)
            unique = "UNIQUE " if index.unique else ""
            driver.execute(f"CREATE {unique}INDEX ON {place} ({names})")
    for column, sequence in target.sequences_of(driver, table.schema, table.name):
        highest = table.source.highest if column == table.source.row_number else None
        target.push_sequence(driver, sequence, table.schema, table.name, column, highest)


def _foreign_key(table: TablePlan, key: Any, plan: Plan) -> str:
    parent = next(one for one in plan.tables if one.name == key.parent)
    mine = ", ".join(quoted(name) for name in key.columns)
    theirs = ", ".join(quoted(name) for name in key.parent_columns)
    return (
        f"ALTER TABLE {target.where(table.schema, table.name)} ADD FOREIGN KEY ({mine})"
        f" REFERENCES {target.where(parent.schema, parent.name)} ({theirs}) {key.actions}"
    )


def _close(report: Report, engine: Engine) -> None:
    """Bring the tables to the newest revision and keep the report, in one transaction."""
    from services.migrate.report import as_json

    with report.timed("upgrade"), engine.connect() as connection:
        target.upgrade_within(connection, "head")
        if not target.at_head(connection):
            raise MigrationError(
                f"The target's tables are not those of revision {head_revision()}.",
                where=report.address,
                todo="Take back what was changed in them by hand, and run the same command again.",
            )
        report.revision = head_revision()
        report.status = Status.MOVED
        target.set_stage(target.raw(connection), "done", as_json(report))
        connection.commit()
