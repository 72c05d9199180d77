"""`python -m loadtest.faults`: the proxies on a stack's links, and the address that rules them."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Annotated

import typer

from speakfit.errors import FaultError, SpeakFitError

_LINK = re.compile(r"([a-z-]+)=(\d+):([\w.-]+):(\d+)")


def main(
    link: Annotated[
        list[str], typer.Option(metavar="NAME=PORT:HOST:PORT", help="A link; may be repeated.")
    ],
    port: Annotated[int, typer.Option(help="Port of the HTTP API on loopback.")],
    seed: Annotated[int, typer.Option(help="Of what is left to chance.")] = 0,
) -> None:
    """Serve until told to stop; only ever on loopback."""
    try:
        asyncio.run(_serve(link, port, seed))
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


async def _serve(texts: list[str], port: int, seed: int) -> None:
    import uvicorn

    from loadtest.faults.control import application
    from loadtest.faults.proxy import Link

    links = {}
    for text in texts:
        found = _LINK.fullmatch(text)
        if found is None:
            raise FaultError(
                "A link cannot be read.", where=text, todo="Write NAME=PORT:HOST:PORT."
            )
        name, listen, host, far = found.groups()
        links[name] = Link(name=name, listen=int(listen), upstream=(host, int(far)), seed=seed)
        await links[name].start()
    config = uvicorn.Config(
        application(links),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        http="h11",
        loop="asyncio",
    )
    await uvicorn.Server(config).serve()
    for one in links.values():
        await one.stop()


if __name__ == "__main__":
    typer.run(main)
