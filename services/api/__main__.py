"""`python -m services.api`: the API under uvicorn, on loopback unless told otherwise."""

from __future__ import annotations

import argparse
import sys

from speakfit.errors import SpeakFitError, TargetError


def main(arguments: list[str]) -> int:
    """Serve until told to stop; 0 after a stop, 1 for an error in settings or a used port."""
    parser = argparse.ArgumentParser(
        prog="python -m services.api",
        description="Serve the API. Needs DATABASE_URL and REDIS_URL.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: loopback)")
    parser.add_argument("--port", type=int, help="port to bind, 0 for any (default: PORT)")
    options = parser.parse_args(arguments)
    try:
        return _serve(options.host, options.port)
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _serve(host: str, port: int | None) -> int:
    import signal
    import socket

    import uvicorn

    from services.api.main import create_app
    from speakfit.settings import read_settings

    settings = read_settings()
    app = create_app(settings)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    wanted = settings.port if port is None else port
    try:
        listener.bind((host, wanted))
    except OSError as error:
        raise TargetError(
            f"The API cannot have port {wanted}: {error.strerror}.",
            where=f"{host}:{wanted}",
            todo="Stop what uses the port, or choose another with --port or PORT.",
        ) from error
    # uvicorn raises the signal once more when it is done; a stop on purpose ends with 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    print(f"listening on http://{host}:{listener.getsockname()[1]}", flush=True)
    # Cloud Run gives ten seconds in all; a stalled upload would use up any time it were given.
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, server_header=False, timeout_graceful_shutdown=3)
    )
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
