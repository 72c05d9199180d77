"""How every command line of ours ends: one message, and the exit code that its help promises."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from speakfit.errors import RefusedError, SpeakFitError

EXIT_ERROR = 1
EXIT_USAGE = 64

# Typer's own name for "the command line is wrong"; the base class has no public one.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def run_app(
    app: typer.Typer,
    module: str,
    *,
    name: str | None = None,
    stopped: str = "Stopped.",
    arguments: Sequence[str] | None = None,
) -> int:
    """Run `python -m MODULE`; the exit code: 0, an error's own, 1 when stopped, 64 for wrong usage.

    `name` is what the command was called, when not that; `stopped` tells who pressed Ctrl-C what
    was left behind.
    """
    command = f"python -m {module}"
    try:
        return app(arguments, prog_name=name or command, standalone_mode=False) or 0
    except SpeakFitError as error:
        tell_error(error)
        return error.exit_code
    except _USAGE_ERROR as error:
        # Calling without arguments is a usage error too: its message is the help.
        print(getattr(error, "format_message", error.__str__)(), file=sys.stderr)
        print(f"  to do: `{command} --help` lists what there is.", file=sys.stderr)
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        print(f"\n{stopped}", file=sys.stderr)
        return EXIT_ERROR


def tell_error(error: SpeakFitError) -> None:
    """What went wrong, where and what to do, on stderr."""
    from rich.console import Console
    from rich.text import Text

    label = "Refused" if isinstance(error, RefusedError) else "Error"
    err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    err.print(Text.assemble((f"{label}: ", "bold red"), str(error)))
