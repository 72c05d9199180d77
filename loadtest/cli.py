"""The command line of the load gate: what it can load, and whether it may go live."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alerts.terminal import (
    AutoApproveOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    console,
    print_json,
)
from loadtest import drill_commands
from loadtest.scenarios import SCENARIOS
from speakfit.command_line import run_app

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


@app.command()
def gate(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Which; all but soak by default."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="URL", help="API to load; the local stack by default."),
    ] = None,
    report: Annotated[
        Path, typer.Option("--report", metavar="DIR", help="Folder of the report.")
    ] = Path(".speakfit/gate"),
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="The gate.json of an earlier run."),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="FILE",
            help="What `python -m speakfit_ops.infra cost --json` printed, for the cost per chunk.",
        ),
    ] = None,
    rate_factor: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Multiplies every rate.")
    ] = 1.0,
    time_factor: Annotated[
        float, typer.Option(min=0.01, max=100, help="Multiplies every duration.")
    ] = 1.0,
    max_rate: Annotated[
        float, typer.Option(min=1, metavar="N", help="Refuse more requests per second.")
    ] = 500.0,
    seed: Annotated[int, typer.Option(help="Decides arrivals and visits.")] = 1,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    auto_approve: AutoApproveOption = False,
    as_json: JsonOption = False,
) -> None:
    """Load the target and say GO, NO-GO or INVALID.

    Durations are policy time: on a stack with --time-scale 10 they take a tenth. Without --target
    and without a running local stack one is started for it and ended afterwards. Ctrl-C ends the
    load; what was measured is reported, and the verdict is INVALID.
    """
    from loadtest.session import Wish, run_gate

    for name in names or ():
        if name not in SCENARIOS:
            raise typer.BadParameter(
                f"There is no scenario {name!r}; there are " + ", ".join(SCENARIOS) + ".",
                param_hint="'SCENARIO'",
            )
    wish = Wish(
        scenarios=tuple(names or (one.name for one in SCENARIOS.values() if one.by_default)),
        url=target,
        folder=report,
        compare=compare,
        costs=costs,
        rate=rate_factor,
        time=time_factor,
        max_rate=max_rate,
        seed=seed,
        emulator=emulator,
        project=project,
        auto_approve=auto_approve,
        as_json=as_json,
    )
    raise typer.Exit(run_gate(wish).code)


app.command()(drill_commands.drill)
app.command()(drill_commands.heal)


def main() -> None:
    """Run the command line and exit with the documented code."""
    sys.exit(run_app(app, "loadtest"))
