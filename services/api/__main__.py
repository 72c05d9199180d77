"""`python -m services.api`: the API under uvicorn, and the keys of those who may call it.

Everything heavy is imported by what needs it: `--help` must not wait for any.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from services.api import key_commands
from speakfit.command_line import run_app
from speakfit.errors import TargetError

if TYPE_CHECKING:
    import socket


app = typer.Typer(
    name="services.api",
    epilog="Exit codes: 0 fine, 1 error, 64 wrong usage.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(key_commands.app, name="keys")


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port to bind, 0 for any; PORT when left out.")
    ] = None,
) -> None:
    """Serve the API until told to stop.

    Needs DATABASE_URL and REDIS_URL.
    """
    if context.invoked_subcommand is None:
        _serve(host, port)


def _serve(host: str, port: int | None) -> None:
    import gc
    import signal
    from functools import partial

    import uvicorn

    from services.api.deadlines import Protocol
    from services.api.main import create_app
    from speakfit.settings import read_settings

    settings = read_settings()
    application = create_app(settings)
    listener = _listener(host, settings.port if port is None else port)
    # uvicorn raises the signal once more when it is done; a stop on purpose ends with 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    print(f"listening on http://{host}:{listener.getsockname()[1]}", flush=True)
    # Cloud Run gives ten seconds in all; a stalled upload would use up any time it were given.
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=partial(Protocol, head_limit=settings.client_timeout),  # type: ignore[arg-type]
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )
    # What is there by now stays. Looking through it again under load held every request for 0.3 s
    # (measured), some ten seconds apart.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket; a TargetError when something else has the port."""
    import socket

    # With the protocol named, asyncio sets TCP_NODELAY; without it, it would not, and every second
    # answer on a kept connection would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise TargetError(
            f"The API cannot have port {port}: {error.strerror}.",
            where=f"{host}:{port}",
            todo="Stop what uses the port, or choose another with --port or PORT.",
        ) from error
    return listener


def main() -> int:
    """0 after a stop, 1 for an error in settings or a used port, 64 for wrong usage."""
    return run_app(app, "services.api")


if __name__ == "__main__":
    sys.exit(main())
