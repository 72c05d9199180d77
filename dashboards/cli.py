"""`python -m dashboards`: dashboards as code for Google Cloud Monitoring."""

from __future__ import annotations

import sys

import typer

from dashboards import commands
from speakfit.command_line import run_app

app = typer.Typer(
    name="dashboards",
    help="Dashboards as code for Google Cloud Monitoring, drawn from metrics and alert policies.",
    epilog="Exit codes: 0 fine, 1 error, 2 changes or drift found, 4 partly applied, 5 refused, "
    "64 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(commands.list_command)
app.command()(commands.plan)
app.command()(commands.apply)
app.command()(commands.drift)
app.command()(commands.export)


def main() -> None:
    """Run the command line and exit with the documented code."""
    stopped = "Stopped; `python -m dashboards plan` shows what is left."
    sys.exit(run_app(app, "dashboards", stopped=stopped))
