"""What would be moved, as what, and why something would not: decided before a row is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from services.migrate import target
from services.migrate.source import Source, SourceColumn, SourceTable, quoted
from services.migrate.values import MisfitError, encoder
from speakfit.database import alembic_config, head_revision, known_revisions, make_engine

OUR_SCHEMA = "public"
_LONGEST_NAME = 63


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What whoever runs the command decided; the same on every run of one migration."""

    include_other: bool = False
    other_schema: str = OUR_SCHEMA
    leave_out: tuple[str, ...] = ()
    zone: str = "UTC"
    """What points in time without a zone are in, in tables that are not ours."""
    reject: bool = False
    """Whether rows that do not fit are written to a file instead of stopping everything."""
    allow_non_empty: bool = False

    def as_json(self) -> dict[str, Any]:
        """As the journal keeps them."""
        return {**vars(self), "leave_out": list(self.leave_out)}


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """One column on its way."""

    name: str
    target: str
    kind: str
    required: bool
    default: str | None = None
    """SQL of PostgreSQL; only where the table is made here."""


@dataclass(frozen=True, kw_only=True)
class KeyPlan:
    """A foreign key that every row must keep."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    actions: str = ""


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """One table on its way."""

    source: SourceTable
    schema: str
    ours: bool
    columns: tuple[ColumnPlan, ...]
    keys: tuple[KeyPlan, ...] = ()

    @property
    def name(self) -> str:
        """The same on both sides."""
        return self.source.name

    @property
    def kinds(self) -> dict[str, str]:
        """The target's columns and their types."""
        return {column.target: column.kind for column in self.columns}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that would be done; `refusals` say what must be decided first."""

    source_revision: str | None
    """Ours; None when the source is not a database of ours."""
    target_revision: str | None
    copy_revision: str
    """The revision at which rows are copied; afterwards the target goes on to the newest."""
    tables: tuple[TablePlan, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """All rows of all tables that are copied."""
        return sum(table.source.rows for table in self.tables)


@dataclass
class _Findings:
    """What comes up while planning."""

    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@lru_cache(maxsize=8)
def our_tables(revision: str) -> Mapping[str, frozenset[str]]:
    """Our tables at a revision and their columns, learnt by making them in memory."""
    from alembic import command
    from sqlalchemy import inspect

    engine = make_engine("sqlite://")
    with engine.connect() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        found = inspect(connection)
        tables = {
            name: frozenset(column["name"] for column in found.get_columns(name))
            for name in found.get_table_names()
            if name != "alembic_version"
        }
    engine.dispose()
    return tables


def our_revision(source: Source, notes: list[str]) -> str | None:
    """The revision of a source that is a database of ours; other applications use Alembic too."""
    revision = source.revision
    if revision is None or revision not in known_revisions():
        return None
    held = {table.name: {column.name for column in table.columns} for table in source.tables}
    for name, columns in our_tables(revision).items():
        missing = columns - held.get(name, set())
        if missing:
            notes.append(
                f"the source says revision {revision}, but {name} has no {min(missing)}: it is "
                "taken for another application's database"
            )
            return None
    return revision


def make_plan(source: Source, connection: Connection, choices: Choices, *, resume: bool) -> Plan:
    """Plan, on a connection whose transaction is brought up to the revision that is copied at.

    The caller rolls it back or commits it. `resume` says that the tables stand already.
    """
    findings = _Findings(notes=list(source.notes))
    source_revision = our_revision(source, findings.notes)
    before = target.revision_of(connection)
    wanted = source_revision or head_revision()
    known = known_revisions()
    present = set() if resume else target.tables_in(connection, choices.other_schema)
    if before is None or known.index(before) < known.index(wanted):
        target.upgrade_within(connection, wanted)
        at = wanted
    else:
        at = before
    driver = target.raw(connection)
    ours = our_tables(source_revision) if source_revision else {}
    tables: list[TablePlan] = []
    left_out: list[str] = []
    unwanted = {name.lower() for name in choices.leave_out}
    for name in source.virtual:
        if name.lower() not in unwanted:
            findings.refusals.append(
                f"{name} is a virtual table, which cannot be copied; leave it out with "
                f"--leave-out {name}"
            )
    for table in source.tables:
        if table.name == "alembic_version" and source_revision:
            continue
        if table.name.lower() in unwanted:
            left_out.append(table.name)
        elif table.name in ours:
            tables.append(_our_table(table, driver, at, findings))
        elif not choices.include_other:
            findings.refusals.append(
                f"{table.name} ({table.rows:,} rows) is not a table of ours; copy such tables as "
                f"they are with --include-other, or leave it out with --leave-out {table.name}"
            )
            left_out.append(table.name)
        else:
            tables.append(_other_table(source, table, choices, findings))
    left_out += [name for name in source.virtual if name.lower() in unwanted]
    _refuse_unknown(unwanted, source, findings)
    if not resume:
        _refuse_taken(tables, present, at, choices, findings)
    if not choices.allow_non_empty and not resume:
        for name in sorted(our_tables(at)):
            if not target.is_empty(driver, OUR_SCHEMA, name):
                findings.refusals.append(
                    f"the target's {name} holds rows already; name an empty database, or add to "
                    "what is there with --allow-non-empty"
                )
    planned = {table.name: table for table in tables}
    finished = tuple(_with_keys(table, planned, driver, findings) for table in tables)
    return Plan(
        source_revision=source_revision,
        target_revision=before,
        copy_revision=at,
        tables=_parents_first(finished),
        left_out=tuple(left_out),
        notes=tuple(findings.notes),
        refusals=tuple(findings.refusals),
    )


def _refuse_unknown(unwanted: set[str], source: Source, findings: _Findings) -> None:
    there = {name.lower() for name in [*(one.name for one in source.tables), *source.virtual]}
    findings.refusals += [
        f"--leave-out {name} names no table of the source" for name in sorted(unwanted - there)
    ]


def _refuse_taken(
    tables: Sequence[TablePlan],
    present: set[str],
    at: str,
    choices: Choices,
    findings: _Findings,
) -> None:
    taken = set(present)
    if choices.other_schema == OUR_SCHEMA:
        taken |= {*our_tables(at), *our_tables(head_revision()), "alembic_version"}
    for table in tables:
        if not table.ours and table.name in taken:
            findings.refusals.append(
                f"{table.name} would stand where the target has a table of this name; put such "
                "tables elsewhere with --other-schema NAME"
            )


def _our_table(table: SourceTable, driver: Any, revision: str, findings: _Findings) -> TablePlan:
    """By the target's own columns, so that what is sent is what PostgreSQL declares."""
    there = {one.name: one for one in target.columns_of(driver, OUR_SCHEMA, table.name)}
    columns = []
    for column in table.columns:
        goal = there.pop(column.name, None)
        if goal is None:
            findings.refusals.append(
                f"{table.name}.{column.name} has no counterpart at revision {revision}; the "
                "column would be lost"
            )
        elif encoder(goal.kind, required=False, zone=UTC) is None:
            findings.refusals.append(
                f"{table.name}.{column.name} is {goal.kind}, which cannot be copied yet"
            )
        else:
            columns.append(
                ColumnPlan(
                    name=column.name, target=goal.name, kind=goal.kind, required=goal.required
                )
            )
    for left in there.values():
        if left.required and not left.filled:
            findings.refusals.append(
                f"the target's {table.name}.{left.name} must be given, and the source at an "
                "older revision does not have it; name an empty database"
            )
        else:
            findings.notes.append(f"{table.name}.{left.name} is new and gets its default")
    findings.notes += table.notes
    return TablePlan(source=table, schema=OUR_SCHEMA, ours=True, columns=tuple(columns))


# ---- tables that are not ours

_BY_WORD = (
    ("BOOL", "boolean"),
    ("UUID", "uuid"),
    ("JSON", "json"),
    ("DATETIME", "timestamp with time zone"),
    ("TIMESTAMP", "timestamp with time zone"),
)
_BY_NAME = {"DATE": "date", "TIME": "time without time zone"}
_BY_AFFINITY = (
    # SQLite's own rules, in its own order (datatype3.html, 3.1).
    ("INT", "bigint"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("BLOB", "bytea"),
    ("REAL", "double precision"),
    ("FLOA", "double precision"),
    ("DOUB", "double precision"),
)
_HOLDS = {
    "boolean": {"integer"},
    "uuid": {"text", "blob"},
    "json": {"text", "integer", "real"},
    "timestamp with time zone": {"text"},
    "date": {"text"},
    "time without time zone": {"text"},
    "bigint": {"integer"},
    "text": {"text", "integer", "real"},
    "bytea": {"blob"},
    "double precision": {"integer", "real"},
    "numeric": {"integer", "real", "text"},
}


def declared_kind(declared: str) -> str | None:
    """PostgreSQL's type for a declared one; None where the declaration says nothing."""
    words = declared.upper().strip()
    if words in _BY_NAME:
        return _BY_NAME[words]
    for word, kind in (*_BY_WORD, *_BY_AFFINITY):
        if word in words:
            return kind
    found = re.match(r"(?:NUMERIC|DECIMAL)\s*(\(\s*\d+\s*(?:,\s*\d+\s*)?\))?$", words)
    if found:
        limits = re.sub(r"\s", "", found[1] or "")
        return "numeric" + (limits if "," in limits or not limits else f"{limits[:-1]},0)")
    return None


def inferred_kind(declared: str, storages: set[str]) -> str:
    """The declared type, unless no value is of it; then what all values have in common."""
    kind = declared_kind(declared)
    if kind is not None and (not storages or storages & _HOLDS[re.sub(r"\(.*", "", kind)]):
        return kind
    if storages == {"integer"}:
        return "bigint"
    if storages and storages <= {"integer", "real"}:
        return "double precision"
    return "bytea" if storages == {"blob"} else "text"


def _other_table(
    source: Source, table: SourceTable, choices: Choices, findings: _Findings
) -> TablePlan:
    storages = _storages(source, table)
    columns = []
    for column in table.columns:
        kind = inferred_kind(column.declared, storages[column.name])
        declared = declared_kind(column.declared)
        if declared not in (None, kind):
            findings.notes.append(
                f"{table.name}.{column.name} is declared {column.declared} and holds no such "
                f"value: it becomes {kind}"
            )
        if kind == "timestamp with time zone":
            findings.notes.append(
                f"{table.name}.{column.name}: dates without a time zone are taken as {choices.zone}"
            )
        columns.append(
            ColumnPlan(
                name=column.name,
                target=column.name,
                kind=kind,
                required=column.required or column.name in table.primary_key,
                default=_default(table, column, kind, findings),
            )
        )
    findings.notes += table.notes
    for name in (table.name, *(column.name for column in table.columns)):
        if len(name.encode()) > _LONGEST_NAME:
            findings.refusals.append(
                f"{table.name}: the name {name} is longer than PostgreSQL's {_LONGEST_NAME} bytes; "
                f"leave the table out with --leave-out {table.name}"
            )
    if not table.cursor:
        findings.refusals.append(
            f"{table.name} has no key by which its rows can be told apart; leave it out with "
            f"--leave-out {table.name}"
        )
    return TablePlan(source=table, schema=choices.other_schema, ours=False, columns=tuple(columns))


def _storages(source: Source, table: SourceTable) -> dict[str, set[str]]:
    """Which of SQLite's four storage classes each column holds."""
    classes = ("integer", "real", "text", "blob")
    parts = [
        f"max(typeof({quoted(column.name)}) = '{one}')"
        for column in table.columns
        for one in classes
    ]
    found: list[int | None] = []
    # SQLite answers with at most 2,000 columns.
    for at in range(0, len(parts), 1_000):
        query = f"SELECT {', '.join(parts[at : at + 1_000])} FROM {quoted(table.name)}"
        found += source.connection.execute(query).fetchone()
    return {
        column.name: {one for one, there in zip(classes, found[4 * at :], strict=False) if there}
        for at, column in enumerate(table.columns)
    }


_NOW = {
    ("CURRENT_TIMESTAMP", "timestamp with time zone"): "now()",
    ("CURRENT_DATE", "date"): "current_date",
    ("CURRENT_TIME", "time without time zone"): "localtime",
}


def _default(
    table: SourceTable, column: SourceColumn, kind: str, findings: _Findings
) -> str | None:
    """A default that means the same in PostgreSQL; else it is left behind with a note."""
    if column.default is None or column.default.upper() == "NULL" or column.generated:
        return None
    words = column.default.strip()
    if (words.upper(), kind) in _NOW:
        return _NOW[words.upper(), kind]
    value: Any = None
    if re.fullmatch(r"[+-]?\d+", words):
        value = int(words)
    elif re.fullmatch(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?", words):
        value = float(words)
    elif re.fullmatch(r"'(?:[^']|'')*'", words):
        value = words[1:-1].replace("''", "'")
    elif words.upper() in ("TRUE", "FALSE"):
        value = int(words.upper() == "TRUE")
    encode = encoder(kind, required=True, zone=UTC)
    try:
        assert encode is not None
        encode(value)
    except MisfitError:
        findings.notes.append(
            f"{table.name}.{column.name}: the default {words} has no counterpart and is left out"
        )
        return None
    if kind == "boolean":
        return "true" if value else "false"
    return "'" + str(value).replace("'", "''") + "'"


# ---- keys and order


def _with_keys(
    table: TablePlan, planned: Mapping[str, TablePlan], driver: Any, findings: _Findings
) -> TablePlan:
    if table.ours:
        keys = [
            KeyPlan(columns=key.columns, parent=key.parent, parent_columns=key.parent_columns)
            for key in target.keys_of(driver, table.schema, table.name)
            # A column that the source does not have is empty in every row.
            if set(key.columns) <= {column.target for column in table.columns}
        ]
        for key in keys:
            if key.parent not in planned:
                findings.refusals.append(
                    f"{table.name} refers to {key.parent}, which is left out; take both or none"
                )
        return replace(table, keys=tuple(key for key in keys if key.parent in planned))
    keys = []
    for found in table.source.keys:
        reason = _unusable(table, found.columns, found.parent, found.parent_columns, planned)
        if reason:
            findings.notes.append(
                f"{table.name}: the foreign key ({', '.join(found.columns)}) is not made: {reason}"
            )
            continue
        parent = planned[found.parent]
        keys.append(
            KeyPlan(
                columns=_spelt(table, found.columns),
                parent=found.parent,
                parent_columns=_spelt(parent, found.parent_columns),
                actions=f"ON UPDATE {found.on_update} ON DELETE {found.on_delete}",
            )
        )
    return replace(table, keys=tuple(keys))


def _spelt(table: TablePlan, columns: Sequence[str]) -> tuple[str, ...]:
    """As the table spells them; SQLite does not look at case."""
    found = [table.source.column(name) for name in columns]
    return tuple(column.name for column in found if column is not None)


def _unusable(
    table: TablePlan,
    columns: Sequence[str],
    parent: str,
    parent_columns: Sequence[str],
    planned: Mapping[str, TablePlan],
) -> str | None:
    goal = planned.get(parent)
    if goal is None:
        return f"{parent} is not among what is copied"
    mine, theirs = _spelt(table, columns), _spelt(goal, parent_columns)
    if not theirs or len(mine) != len(theirs):
        return f"{parent} does not have what it refers to"
    unique = [goal.source.primary_key, *(i.columns for i in goal.source.indexes if i.unique)]
    if set(theirs) not in [set(one) for one in unique]:
        return f"nothing makes {parent} ({', '.join(theirs)}) unique"
    for one, other in zip(mine, theirs, strict=True):
        if table.kinds[one] != goal.kinds[other]:
            return f"{one} is {table.kinds[one]}, {parent}.{other} is {goal.kinds[other]}"
    return None


def _parents_first(tables: Sequence[TablePlan]) -> tuple[TablePlan, ...]:
    """Our keys are enforced while rows come in. Others are made afterwards, so circles are fine."""
    waiting = {table.name: table for table in tables}
    order: list[TablePlan] = []
    while waiting:
        free = [
            table
            for table in waiting.values()
            if not any(key.parent in waiting and key.parent != table.name for key in table.keys)
        ] or [next(iter(waiting.values()))]
        for table in free:
            order.append(waiting.pop(table.name))
    return tuple(order)
