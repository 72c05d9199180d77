"""`python -m alerts`: alert policies as code for Google Cloud Monitoring.

Google, gRPC, pydantic and numpy are imported by the commands that need them: `--help` must not
wait for any.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from alerts.commands import (
    adopt,
    changes,
    contract,
    conversion,
    drift,
    history,
    lint,
    policies,
    routes,
    runbooks,
    scenarios,
    snoozes,
)
from speakfit.command_line import run_app

app = typer.Typer(
    name="alerts",
    help="Alert policies as code for Google Cloud Monitoring.",
    epilog="Exit codes: 0 fine, 1 error, 2 changes or drift found, 3 a check failed, "
    "4 partly applied, 5 refused, 64 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(policies.list_command)
app.command()(policies.show)
app.command()(policies.explain)
app.command()(lint.lint)
app.command("test")(scenarios.rehearse)
app.command()(scenarios.schema)
app.command()(changes.plan)
app.command()(changes.apply)
app.command()(drift.drift)
app.command()(adopt.adopt)
app.command()(changes.destroy)
app.command()(snoozes.snooze)
app.command("import")(conversion.import_command)
app.command()(conversion.export)
app.command()(history.record)
app.command()(history.backtest)
app.command()(contract.contract)
app.command()(runbooks.runbooks)
app.add_typer(routes.app, name="route")
app.command()(routes.doctor)
app.command()(routes.incidents)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # Whoever starts it otherwise (a test, a debugger) still reads the name that can be typed.
    called = Path(sys.argv[0]).name
    stopped = "Stopped; `python -m alerts plan` shows what is left."
    name = called if called == "speakfit-alerts" else None
    sys.exit(run_app(app, "alerts", name=name, stopped=stopped))
