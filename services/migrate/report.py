"""A migration in words for people, and as JSON for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.migrate.plan import Plan
from services.migrate.rows import Compared
from services.migrate.run import Report, Status

if TYPE_CHECKING:
    from rich.console import Console

_MASK = 2**64 - 1

EXIT = {
    Status.PLANNED: 2,
    Status.REFUSED: 5,
    Status.MOVED: 0,
    Status.DIFFERENT: 3,
    Status.DONE_BEFORE: 0,
}


def exit_code(report: Report) -> int:
    """0 moved, 2 something to move, 3 a difference, 5 refused."""
    return EXIT[report.status]


def as_json(report: Report) -> dict[str, Any]:
    """The whole report; checksums as 16 hexadecimal digits."""
    document: dict[str, Any] = {
        "status": report.status.value,
        "source": report.source,
        "source_sha256": report.fingerprint,
        "target": report.address,
        "resumed": report.resumed,
        "revision": report.revision,
        "seconds": report.seconds,
    }
    if report.before is not None:
        return {**document, "before": report.before}
    if report.plan is not None:
        document |= _plan_json(report.plan)
    document["problems"] = [
        vars(problem) for checked in report.checked.values() for problem in checked.problems
    ]
    document["problem_counts"] = [
        {"table": name, "column": column, "reason": reason, "rows": rows}
        for name, checked in report.checked.items()
        for (column, reason), rows in sorted(checked.counts.items())
    ]
    document["rejects"] = None if report.rejects is None else str(report.rejects)
    document["copied"] = report.copied
    document["compared"] = [
        {
            "table": one.table,
            "equal": one.equal,
            "source_rows": one.source_rows,
            "rejected": one.rejected,
            "target_rows": one.target_rows,
            "source_checksum": _hex(one.source_sum),
            "target_checksum": _hex(one.target_sum),
            "types": one.types,
            "sequences": one.sequences,
            "foreign_keys": one.keys,
        }
        for one in report.compared
    ]
    return document


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "source_revision": plan.source_revision,
        "target_revision": plan.target_revision,
        "copy_revision": plan.copy_revision,
        "tables": [
            {
                "table": table.name,
                "schema": table.schema,
                "ours": table.ours,
                "rows": table.source.rows,
                "columns": {column.target: column.kind for column in table.columns},
            }
            for table in plan.tables
        ],
        "left_out": list(plan.left_out),
        "notes": list(plan.notes),
        "refusals": list(plan.refusals),
    }


def _hex(checksum: int) -> str:
    return f"{checksum & _MASK:016x}"


def show_plan(out: Console, plan: Plan, source: str, address: str, *, resumed: bool) -> None:
    """What will be done, before it is."""
    from rich.table import Table

    begun = "goes on where it stopped" if resumed else "begins"
    out.print(f"source  {source}\ntarget  {address}")
    kind = (
        f"a database of ours at revision {plan.source_revision}"
        if plan.source_revision
        else "another application's database"
    )
    out.print(f"The source is {kind}. The migration {begun}.\n")
    if plan.tables:
        shown = Table(box=None, pad_edge=False)
        shown.add_column("table", overflow="fold")
        shown.add_column("rows", justify="right")
        shown.add_column("goes to", overflow="fold")
        for table in plan.tables:
            where = f"{table.schema}.{table.name}"
            words = where if table.ours else f"{where}, made anew"
            shown.add_row(table.name, f"{table.source.rows:,}", words)
        out.print(shown)
    else:
        out.print("No table would be copied.")
    for name in plan.left_out:
        out.print(f"not copied: {name}")
    for note in plan.notes:
        out.print(f"note: {note}")
    out.print()


def show_end(out: Console, report: Report) -> None:
    """What was found, what was done, and whether both sides agree."""
    if report.before is not None:
        done = report.before
        out.print(
            f"This source was moved here before, and was found equal then: "
            f"{sum(one['target_rows'] for one in done['compared']):,} rows, revision "
            f"{done['revision']}. Nothing was done."
        )
        return
    assert report.plan is not None
    _show_problems(out, report)
    for refusal in report.plan.refusals:
        out.print(f"refused: {refusal}")
    if report.status is Status.REFUSED:
        out.print("\nRefused; nothing was changed.")
        return
    if report.status is Status.PLANNED:
        rows = sum(checked.rows for checked in report.checked.values())
        out.print(f"Every one of {rows:,} rows fits. Nothing was changed; run it without --plan.")
        return
    _show_comparison(out, report)


def _show_problems(out: Console, report: Report) -> None:
    for checked in report.checked.values():
        for problem in checked.problems:
            out.print(f"{problem.table} ({problem.key}): {problem.column} {problem.reason}")
    counts = [
        (name, column, reason, rows)
        for name, checked in report.checked.items()
        for (column, reason), rows in sorted(checked.counts.items())
    ]
    if not counts:
        return
    unfit = sum(len(checked.rejected) for checked in report.checked.values())
    out.print("\n1 row does not fit:" if unfit == 1 else f"\n{unfit:,} rows do not fit:")
    for name, column, reason, rows in counts:
        out.print(f"  {rows:>9,}  {name}.{column} {reason}")
    if report.rejects is not None:
        out.print(f"They are in {report.rejects}.\n")
    else:
        out.print(
            "Correct them in a copy of the source, or write them to a file and move the rest "
            "with --rejects FILE.\n"
        )


def _differences(one: Compared) -> list[str]:
    sides = {
        "rows": one.target_rows == one.source_rows - one.rejected,
        "checksum": one.target_sum == one.source_sum,
        "types": one.types,
        "sequences": one.sequences,
        "foreign keys": one.keys,
    }
    return [name for name, same in sides.items() if not same]


def _show_comparison(out: Console, report: Report) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    shown.add_column("table", overflow="fold")
    for number in ("source", "rejected", "target"):
        shown.add_column(number, justify="right")
    shown.add_column("checksum", no_wrap=True)
    shown.add_column("found", overflow="fold")
    for one in report.compared:
        shown.add_row(
            one.table,
            f"{one.source_rows:,}",
            f"{one.rejected:,}",
            f"{one.target_rows:,}",
            _hex(one.target_sum),
            "equal" if one.equal else f"different {', '.join(_differences(one))}",
        )
    out.print(shown)
    rows = sum(one.target_rows for one in report.compared)
    seconds = sum(report.seconds.values())
    took = ", ".join(f"{stage} {took:.1f}" for stage, took in report.seconds.items())
    if report.status is Status.MOVED:
        out.print(
            f"\nMoved {rows:,} rows in {seconds:.1f} s ({took}); both sides are equal, the source "
            f"is unchanged, the target is at revision {report.revision}."
        )
    else:
        out.print(
            "\nThe two sides differ. Let nobody write to the target, and take back what was "
            "copied with --start-over."
        )
