"""What every command shares: its options, exit codes, and how it speaks to people and machines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speakfit.errors import RefusedError, SpeakFitError

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_CATALOG = "alerts.policies"
DEFAULT_SCENARIOS = Path("tests/scenarios")

EXIT_FINE = 0
EXIT_ERROR = 1
EXIT_CHANGES = 2
EXIT_GATE = 3
EXIT_PARTLY = 4
EXIT_REFUSED = 5


def known_policies(context: typer.Context, incomplete: str) -> list[str]:
    """Policy ids for shell completion; none when the catalog cannot be loaded."""
    from alerts.catalog import load_catalog

    try:
        catalog = load_catalog(context.params.get("catalog") or DEFAULT_CATALOG)
    except SpeakFitError:
        return []
    return [policy.id for policy in catalog.policies if policy.id.startswith(incomplete)]


PolicyArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="For example worker-down-critical.", autocompletion=known_policies
    ),
]
PoliciesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="ID",
        help="Only what is about this policy.",
        autocompletion=known_policies,
    ),
]
ScenariosOption = Annotated[
    Path, typer.Option("--scenarios", metavar="DIR", help="Folder of the scenario files.")
]
CatalogOption = Annotated[
    str, typer.Option("--catalog", help="Python module whose CATALOG holds the policies.")
]
EmulatorOption = Annotated[
    str | None,
    typer.Option("--emulator", metavar="HOST:PORT", help="Embedded Cloud Monitoring to talk to."),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", metavar="ID", help="Google Cloud project.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Also delete what is ours and not in the catalog any more.")
]

AutoApproveOption = Annotated[
    bool, typer.Option("--auto-approve", help="Do not ask; needed where nobody can answer.")
]
MaxDeletesOption = Annotated[
    int | None,
    typer.Option("--max-deletes", metavar="N", help="Refuse to delete more than N."),
]


def check_deletes(planned: int, most: int | None) -> None:
    """A RefusedError when more would be deleted than --max-deletes allows."""
    if most is not None and planned > most:
        raise RefusedError(
            f"{count(planned, 'delete')} planned, --max-deletes allows {most}; nothing "
            "was changed.",
            todo="Read the plan; raise --max-deletes when it is what you want.",
        )


def approved(as_json: bool) -> bool:
    """Whether somebody at a terminal agreed; elsewhere nobody can be asked, which is told."""
    if not _can_ask(as_json, "--auto-approve"):
        return False
    if typer.confirm("Make these changes?"):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False


def typed_out(name: str, as_json: bool) -> bool:
    """Whether somebody at a terminal typed a name out, which nobody does by mistake."""
    if not _can_ask(as_json, "--auto-approve and --max-deletes N"):
        return False
    if typer.prompt(f"Type {name} to delete all this", default="", show_default=False) == name:
        return True
    print("That is another name. Nothing was changed.", file=sys.stderr)
    return False


def _can_ask(as_json: bool, instead: str) -> bool:
    if not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        return True
    print(
        "Refused: nobody can be asked here; nothing was changed.\n"
        f"  to do: Read the plan, then repeat with {instead}.",
        file=sys.stderr,
    )
    return False


def console(*, stderr: bool = False) -> Console:
    """Colours on a terminal (unless NO_COLOR), plain text in a pipe."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def tell(out: Console, line: str, *styled: tuple[str, str]) -> None:
    """Print one line; `styled` colours the first occurrence of each text."""
    from rich.text import Text

    text = Text(line)
    for part, style in styled:
        at = line.find(part)
        if at >= 0:
            text.stylize(style, at, at + len(part))
    out.print(text)


def count(number: int, noun: str) -> str:
    """`1 policy`, `2 policies`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


_SPAN_PART = re.compile(r"(\d{1,9})([smhdw])")
_SPAN_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_span(text: str, option: str) -> timedelta:
    """`30d`, `12h`, `90s`, `1d12h`; a usage error names the option for anything else."""
    parts = _SPAN_PART.findall(text)
    span = timedelta(seconds=sum(int(number) * _SPAN_SECONDS[unit] for number, unit in parts))
    if "".join(number + unit for number, unit in parts) != text or not span:
        raise typer.BadParameter(
            f"{text!r} is no length of time; write for example 30d, 12h or 90m.",
            param_hint=f"'{option}'",
        )
    return span


@contextmanager
def progress(words: str) -> Iterator[Callable[[float], None]]:
    """A bar on the terminal while something lasts, told how much is done; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    err = Console(stderr=True)
    if not err.is_terminal:
        yield lambda share: None
        return
    columns = (TextColumn(words), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=err, transient=True)
    task = bar.add_task(words, total=1.0)

    def update(share: float) -> None:
        # Begun with the first news: until then other lines may be printed.
        bar.start()
        bar.update(task, completed=share)

    try:
        yield update
    finally:
        bar.stop()
