"""The command line of the migration; one command with no subcommands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakfit.command_line import run_app

if TYPE_CHECKING:
    from services.migrate.plan import Plan
    from services.migrate.rows import Say

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def move(
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="The old database, sqlite:///FILE.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            envvar="DATABASE_URL",
            show_envvar=True,
            help="The new one, postgresql://USER@HOST:PORT/NAME; the password may come from "
            "PGPASSWORD.",
        ),
    ],
    plan: Annotated[
        bool, typer.Option("--plan", help="Only plan and check; change nothing.")
    ] = False,
    include_other: Annotated[
        bool, typer.Option("--include-other", help="Copy tables that are not ours as they are.")
    ] = False,
    other_schema: Annotated[
        str, typer.Option(metavar="NAME", help="Schema for tables that are not ours.")
    ] = "public",
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="TABLE", help="Do not copy it; may be repeated."),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write rows that do not fit to this file, as JSON lines, and move the rest; "
            "with --plan only write it.",
        ),
    ] = None,
    time_zone: Annotated[
        str,
        typer.Option(
            metavar="ZONE",
            help="Zone of dates without one in tables that are not ours.",
        ),
    ] = "UTC",
    allow_non_empty: Annotated[
        bool, typer.Option("--allow-non-empty", help="Add to tables that hold rows already.")
    ] = False,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="First take back an unfinished migration.")
    ] = False,
    batch_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows of one transaction.")
    ] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Move a SQLite database to PostgreSQL: plan, check, copy, compare, report.

    The source is never changed. Run the same command again after it was stopped, by whatever
    means; it goes on where it stopped. Exit codes: 0 moved, 1 error, 2 --plan found something to
    move, 3 the two sides differ, 4 copied in part, 5 refused.
    """
    from services.migrate.values import zone_named

    try:
        zone_named(time_zone)
    except (KeyError, OSError, ValueError) as error:
        raise typer.BadParameter(
            f"{time_zone!r} is no time zone; write for example Europe/Berlin.",
            param_hint="'--time-zone'",
        ) from error
    from rich.console import Console

    from services.migrate.plan import Choices
    from services.migrate.report import as_json as document
    from services.migrate.report import exit_code, show_end
    from services.migrate.run import Order, migrate

    out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, quiet=as_json)
    order = Order(
        source=source,
        target=to,
        choices=Choices(
            include_other=include_other,
            other_schema=other_schema,
            leave_out=tuple(leave_out or ()),
            zone=time_zone,
            reject=rejects is not None,
            allow_non_empty=allow_non_empty,
        ),
        rejects=rejects,
        only_plan=plan,
        start_over=start_over,
        batch_rows=batch_rows,
    )
    report = migrate(order, _Terminal(out, source))
    if as_json:
        print(json.dumps(document(report), indent=2))
    else:
        show_end(out, report)
    raise typer.Exit(exit_code(report))


class _Terminal:
    """Shows the plan on stdout, and bars on stderr where somebody watches."""

    def __init__(self, out: object, source: str) -> None:
        self._out = out
        self._source = source

    def planned(self, plan: Plan, address: str, *, resumed: bool) -> None:
        from rich.console import Console

        from services.migrate.report import show_plan

        assert isinstance(self._out, Console)
        show_plan(self._out, plan, self._source, address, resumed=resumed)

    @contextmanager
    def stage(self, words: str, rows: int) -> Iterator[Say]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        err = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<40}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
            task = bar.add_task(words, total=rows)

            def say(table: str, done: int) -> None:
                bar.update(task, advance=done, description=f"{words} {table}"[:40])

            yield say


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an expected error is one message and its exit code."""
    stopped = "Stopped. Run the same command again; it goes on where it stopped."
    sys.exit(run_app(app, "services.migrate", arguments=arguments, stopped=stopped))
