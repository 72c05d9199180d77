"""Options that deploy and credentials share, and how they ask before they act."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from speakfit_ops.deploy.estate import ENDPOINT_VARIABLE

RegionOption = Annotated[
    str | None, typer.Option("--region", metavar="REGION", help="Default: SPEAKFIT_LOCATION.")
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        metavar="NAME",
        envvar="SPEAKFIT_ENVIRONMENT",
        help="What Terraform named it: speakfit-NAME-api is its service.",
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        envvar=ENDPOINT_VARIABLE,
        help="On loopback, instead of Google, to rehearse.",
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Do not ask; needed where nobody can answer.")
]


def agreed(question: str, *, yes: bool, as_json: bool) -> bool:
    """Whether to go on: --yes, or somebody at a terminal says so."""
    if yes:
        return True
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(
            "Refused: nobody can be asked here; nothing was changed.\n"
            "  to do: Read the plan, then repeat with --yes.",
            file=sys.stderr,
        )
        return False
    if typer.confirm(question):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False
