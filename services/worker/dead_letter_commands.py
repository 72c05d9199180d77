"""`python -m services.worker dead-letters`: look at work that was given up, and decide about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.worker.dead_letters import Letter

app = typer.Typer(
    help="Look at work that was begun as often as allowed and given up, in the database that "
    "DATABASE_URL names, and try it again or let it go.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
IdsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="ID...", help="From `dead-letters list`.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All that wait for a decision.")]


@app.command("list")
def list_command(
    settled: Annotated[
        bool, typer.Option("--settled", help="Also those that were decided about.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what waits for a decision, the oldest first."""
    from services.worker.dead_letters import list_letters
    from speakfit.database import opened

    with opened() as engine:
        letters = list_letters(engine, settled=settled)
    if as_json:
        print(_json([asdict(letter) for letter in letters]))
        return
    if not letters:
        print("There is no dead letter.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "died", "recording", "part", "error", "state", box=None, pad_edge=False)
    for one in letters:
        table.add_row(
            str(one.id), _at(one.died_at), str(one.recording_id), _part(one), one.error, _state(one)
        )
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="From `dead-letters list`.")],
    as_json: JsonOption = False,
) -> None:
    """Tell all that is known about one."""
    from services.worker.dead_letters import show_letter
    from speakfit.database import opened

    with opened() as engine:
        letter = show_letter(engine, letter_id)
    if as_json:
        print(_json(asdict(letter)))
        return
    failed = f" ({letter.recording_error})" if letter.recording_error else ""
    for name, value in (
        ("recording", f"{letter.recording_id}, now {letter.recording_status}{failed}"),
        ("part", _part(letter)),
        ("begun", f"{letter.attempts} times"),
        ("error", letter.error),
        ("died", _at(letter.died_at)),
        ("state", _state(letter)),
    ):
        print(f"{name:<10} {value}")


@app.command()
def retry(
    ids: IdsArgument = None, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """Try again; what is transcribed already stays, and a worker begins within a second."""
    from services.worker.dead_letters import retry_letters
    from speakfit.database import opened

    chosen = _chosen(ids, everything)
    with opened() as engine:
        _tell(retry_letters(engine, chosen), "is tried again", as_json)


@app.command()
def drop(
    ids: IdsArgument = None, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """Let go: the recordings stay failed, and nothing waits for a decision any more."""
    from services.worker.dead_letters import drop_letters
    from speakfit.database import opened

    chosen = _chosen(ids, everything)
    with opened() as engine:
        _tell(drop_letters(engine, chosen), "is let go", as_json)


def _chosen(ids: list[int] | None, everything: bool) -> Sequence[int] | None:
    if everything == bool(ids):
        raise typer.BadParameter("Name the ids, or --all for all that wait.")
    return None if everything else ids


def _tell(letters: Sequence[Letter], what: str, as_json: bool) -> None:
    if as_json:
        print(_json([asdict(letter) for letter in letters]))
        return
    for letter in letters:
        print(f"{letter.id}: {_part(letter)} of recording {letter.recording_id} {what}.")
    if not letters:
        print("There is no dead letter.")


def _part(letter: Letter) -> str:
    if letter.chunk_index is None:
        return "the whole"
    if letter.start_seconds is None or letter.end_seconds is None:
        return f"chunk {letter.chunk_index}"
    return f"chunk {letter.chunk_index} ({letter.start_seconds:.1f} to {letter.end_seconds:.1f} s)"


def _state(letter: Letter) -> str:
    return f"settled {_at(letter.settled_at)}" if letter.settled_at else "waits"


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
