"""The command line of the load gate: what it can load, and whether it may go live."""

from __future__ import annotations

import sys

import typer

from alerts.terminal import (
    EXIT_ERROR,
    EXIT_FINE,
    EXIT_USAGE,
    JsonOption,
    console,
    print_json,
    tell_error,
)
from loadtest.scenarios import SCENARIOS
from speakfit.errors import SpeakFitError

# Typer's own name for "the command line is wrong"; the base class has no public one.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="loadtest",
    help="Load SpeakFit and decide whether it may go live.",
    epilog="Exit codes: 0 GO, 1 error, 3 NO-GO, 5 refused, 6 INVALID, 64 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    # A Typer with one command alone would take no name of it.
    pass


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the scenarios."""
    if as_json:
        print_json({"scenarios": [scenario.as_json() for scenario in SCENARIOS.values()]})
        return
    out = console()
    width = max(map(len, SCENARIOS))
    for scenario in SCENARIOS.values():
        out.print(f"{scenario.name:<{width}}  {scenario.load:<34}  {scenario.what}")


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        code = app(prog_name="python -m loadtest", standalone_mode=False)
    except SpeakFitError as error:
        tell_error(error)
        code = error.exit_code
    except _USAGE_ERROR as error:
        print(getattr(error, "format_message", error.__str__)(), file=sys.stderr)
        print("  to do: `python -m loadtest --help` lists what there is.", file=sys.stderr)
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        print("\nStopped.", file=sys.stderr)
        code = EXIT_ERROR
    sys.exit(code or EXIT_FINE)
