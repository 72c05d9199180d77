"""`python -m services.api keys`: make, list and revoke the keys of those who call the API."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.api.keys import KeyState

app = typer.Typer(
    help="Make, list and revoke API keys, in the database that DATABASE_URL names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]


class ScopeName(StrEnum):
    """The scopes of services.api.keys, which the command line may not import early."""

    READ = "recordings:read"
    WRITE = "recordings:write"


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will hold it; may hold more.")],
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(help="What it may do; may be repeated. Everything when left out."),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="After how long it ends: P90D, PT12H. Never if not.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once, on stdout.

    Only its hash is kept: a key that is lost is revoked and made anew. What else there is to say
    goes to stderr, so that KEY=$(python -m services.api keys create NAME) holds the key alone.
    """
    from services.api.keys import ALL_SCOPES, Scope, create_key
    from speakfit.database import opened

    scopes = tuple(Scope(one) for one in scope) if scope else ALL_SCOPES
    with opened() as engine:
        made = create_key(engine, name=name, scopes=scopes, lifetime=_span(expires))
    if as_json:
        print(_json(asdict(made)))
        return
    until = f"until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else "without an end"
    print(f"Key {made.id} of {name}: {', '.join(scopes)}, {until}.", file=sys.stderr)
    print("It is not shown again. Send it as `Authorization: Bearer KEY`.", file=sys.stderr)
    print(made.key)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List every key, without its secret."""
    from services.api.keys import list_keys
    from speakfit.database import opened

    with opened() as engine:
        keys = list_keys(engine)
    if as_json:
        print(_json([asdict(key) for key in keys]))
        return
    if not keys:
        print("There is no key. `python -m services.api keys create NAME` makes one.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "id", "name", "scopes", "created", "expires", "last used", "state", box=None, pad_edge=False
    )
    for key in keys:
        table.add_row(
            key.id,
            key.name,
            " ".join(key.scopes),
            _day(key.created_at),
            _day(key.expires_at),
            _day(key.last_used_at),
            key.state,
        )
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="From `keys list`, not the key.")],
    as_json: JsonOption = False,
) -> None:
    """End a key; every API process refuses it within five seconds."""
    from services.api.keys import revoke_key
    from speakfit.database import opened

    with opened() as engine:
        key = revoke_key(engine, key_id)
    print(_json(asdict(key)) if as_json else _revoked(key))


def _revoked(key: KeyState) -> str:
    return f"Key {key.id} of {key.name} is revoked; it is refused everywhere within 5 s."


def _span(text: str) -> timedelta | None:
    from pydantic import TypeAdapter, ValidationError

    if not text:
        return None
    try:
        return TypeAdapter(timedelta).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(
            f"--expires {text} is no length of time; write P90D or PT12H."
        ) from None


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=lambda at: at.isoformat())
