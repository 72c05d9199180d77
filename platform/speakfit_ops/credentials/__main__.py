"""`python -m speakfit_ops.credentials`: secrets listed, set, checked and replaced.

A value is read from a hidden prompt or from standard input, never from an argument, which every
process of the machine could read; and no value is ever printed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    EXIT_FINE,
    EXIT_GATE,
    EXIT_REFUSED,
    JsonOption,
    ProjectOption,
    console,
    print_json,
    tell,
)
from speakfit.command_line import run_app
from speakfit_ops.credentials.inventory import SECRETS, accept, find_secret
from speakfit_ops.deploy.estate import Estate, resolve_estate
from speakfit_ops.deploy.options import EndpointOption, EnvironmentOption, RegionOption, YesOption
from speakfit_ops.deploy.options import agreed as agreed_to

if TYPE_CHECKING:
    from rich.console import Console

    from speakfit_ops.credentials.vault import State, Vault


LocalOption = Annotated[
    bool, typer.Option("--local", help="Files on this machine instead of Secret Manager.")
]

app = typer.Typer(
    name="credentials",
    help="The secrets that services need: listed, set, checked, replaced; never shown.",
    epilog="Exit codes: 0 fine, 1 error, 3 a secret is missing or not readable (check), 4 partly "
    "done, 5 refused, 64 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
rotate_app = typer.Typer(
    help="Replace a secret that two sides must agree on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(rotate_app, name="rotate")


def _estate(
    project: str | None, region: str | None, environment: str | None, endpoint: str | None
) -> Estate:
    from speakfit.settings import read_settings

    return resolve_estate(
        read_settings(), project=project, region=region, environment=environment, endpoint=endpoint
    )


def _open(
    *,
    local: bool,
    project: str | None,
    region: str | None,
    environment: str | None,
    endpoint: str | None,
    as_json: bool,
) -> tuple[Vault, Console]:
    from speakfit_ops.credentials.vault import FileVault, SecretManager

    out = console(stderr=as_json)
    vault: Vault
    if local:
        vault = FileVault()
        words = f"files under {vault.folder} on this machine"
    else:
        estate = _estate(project, region, environment, endpoint)
        vault, words = SecretManager(estate), str(estate)
    tell(out, f"Target: {words}", ("Target:", "bold"))
    return vault, out


def _row(name: str, state: State) -> dict[str, Any]:
    newest = state.versions[0] if state.versions else None
    return {
        "name": name,
        "exists": state.exists,
        "version": newest.number if newest else None,
        "created": newest.created.isoformat(timespec="seconds") if newest else None,
        "enabled": len(state.versions),
        "problems": list(state.problems),
    }


@app.command("list")
def list_command(
    local: LocalOption = False,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the secrets, their newest version and its age; no value is read."""
    from speakfit_ops.credentials.vault import needed, states

    vault, out = _open(
        local=local,
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
    )
    found = needed(states(vault, SECRETS))
    if as_json:
        print_json([_row(secret.name, state) for secret, state in found])
        return EXIT_FINE
    width = max(len(secret.name) for secret, _ in found)
    for secret, state in found:
        newest = state.versions[0] if state.versions else None
        if newest is None:
            words = "empty" if state.exists else "does not exist"
        else:
            words = f"version {newest.number} of {newest.created:%Y-%m-%d %H:%M} UTC"
        readers = " and ".join(secret.readers)
        tell(out, f"{secret.name:<{width}}  {words:<34}  read by {readers}")
    return EXIT_FINE


@app.command("set")
def set_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For example elevenlabs-api-key.")],
    local: LocalOption = False,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> int:
    """Keep a new value, from a hidden prompt or from standard input.

    It becomes the newest version; who runs already reads it at the next start.
    """
    from speakfit_ops.credentials.vault import require, states

    secret = find_secret(name)
    vault, out = _open(
        local=local,
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
    )
    if not local:
        require(states(vault, [secret]))
    if sys.stdin.isatty():
        text = typer.prompt(
            f"Value of {secret.name}", hide_input=True, confirmation_prompt=True, err=as_json
        )
    else:
        text = sys.stdin.read()
    number = vault.add(secret, accept(secret, text))
    if as_json:
        print_json({"name": secret.name, "version": number})
    tell(out, f"Kept as version {number} of {secret.name}.")
    return EXIT_FINE


@app.command()
def check(
    local: LocalOption = False,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check that every secret has a value and that the right services, only, may read it."""
    from speakfit_ops.credentials.vault import needed, states

    vault, out = _open(
        local=local,
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
    )
    # On a laptop the stack makes what Terraform makes in the cloud.
    found = needed(states(vault, [one for one in SECRETS if one.by_people or not local]))
    if as_json:
        print_json([_row(secret.name, state) for secret, state in found])
    wrong = 0
    for secret, state in found:
        for problem in state.problems:
            wrong += 1
            tell(out, f"  {secret.name}: {problem}", (secret.name, "bold"))
    tell(out, f"{len(found)} secrets checked, {wrong} problem(s).")
    return EXIT_GATE if wrong else EXIT_FINE


@rotate_app.command("database-password")
def rotate_database_password(
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Give the database a new password and make API and workers anew with it.

    Repeating goes on where it was stopped. The old version is disabled at the end.
    """
    from speakfit_ops.credentials.rotation import CloudSql, Rotation
    from speakfit_ops.credentials.vault import SecretManager
    from speakfit_ops.deploy.cloud import Cloud, sleep

    estate = _estate(project, region, environment, endpoint)
    out = console(stderr=as_json)
    tell(out, f"Target: {estate}", ("Target:", "bold"))
    if not agreed_to("Replace the database's password?", yes=yes, as_json=as_json):
        return EXIT_REFUSED
    cloud = Cloud(estate)
    cloud.warm()
    number = Rotation(
        SecretManager(estate),
        CloudSql(estate=estate, pause=sleep),
        cloud,
        tell=lambda line: tell(out, line),
    ).rotate()
    if as_json:
        print_json({"name": "database-url", "version": number})
    tell(out, f"Version {number} is in use.")
    return EXIT_FINE


def main() -> int:
    """Run the command line; the documented exit code."""
    # Google's libraries log whole requests when it is set, and a request here holds a value.
    os.environ.pop("GOOGLE_SDK_PYTHON_LOGGING_SCOPE", None)
    return run_app(app, "speakfit_ops.credentials", stopped="Stopped; repeating goes on.")


if __name__ == "__main__":
    sys.exit(main())
