"""The proxies of a stack behind one HTTP address, with the calls of Toxiproxy's HTTP API.

    GET    /proxies                          every link and its toxics
    POST   /proxies/LINK {"enabled": false}  the server at its end is down
    POST   /proxies/LINK/toxics TOXIC        add
    DELETE /proxies/LINK/toxics/NAME         remove
    POST   /reset                            all links up, no toxics

`python -m loadtest.faults` serves it; `Control` asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from loadtest.faults.proxy import Link
from loadtest.faults.toxic import Toxic
from speakfit.errors import FaultError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_ANSWER_LIMIT = 5.0


@dataclass(frozen=True, kw_only=True)
class Control:
    """The links of a running stack, seen from outside."""

    url: str

    def links(self) -> Mapping[str, Any]:
        """Every link by name, with its toxics."""
        found: Mapping[str, Any] = self._call("GET", "/proxies")
        return found

    def add(self, link: str, toxic: Toxic) -> None:
        """Put a toxic on a link."""
        self._call("POST", f"/proxies/{link}/toxics", toxic.to_json())

    def remove(self, link: str, name: str) -> None:
        """Take a toxic off a link."""
        self._call("DELETE", f"/proxies/{link}/toxics/{name}")

    def enable(self, link: str, wanted: bool) -> None:
        """Switch a link on or off."""
        self._call("POST", f"/proxies/{link}", {"enabled": wanted})

    def reset(self) -> None:
        """All links up and without toxics."""
        self._call("POST", "/reset")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        with requests.Session() as session:
            # A proxy of the environment cannot reach our loopback.
            session.trust_env = False
            try:
                answer = session.request(method, self.url + path, json=body, timeout=_ANSWER_LIMIT)
            except requests.RequestException as error:
                raise FaultError(
                    "The stack's fault proxy does not answer.",
                    where=self.url,
                    todo="Start the stack with `python -m speakfit_ops.stack up --faults`.",
                ) from error
        told = answer.json()
        if answer.status_code >= 400:
            raise FaultError(told["error"], where=told["where"], todo=told["todo"])
        return told


def application(links: Mapping[str, Link]) -> Starlette:
    """The HTTP API over links of this process."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def told(link: Link) -> dict[str, Any]:
        return {
            "name": link.name,
            "listen": f"{link.host}:{link.listen}",
            "upstream": "{}:{}".format(*link.upstream),
            "enabled": link.enabled,
            "connections": link.connections,
            "toxics": [toxic.to_json() for toxic in link.toxics],
        }

    def named(request: Request) -> Link:
        name = request.path_params["link"]
        if name not in links:
            raise FaultError(
                f"There is no link {name}.", where=name, todo=f"Links are {', '.join(links)}."
            )
        return links[name]

    async def everything(_: Request) -> Response:
        return JSONResponse({name: told(link) for name, link in links.items()})

    async def switch(request: Request) -> Response:
        link = named(request)
        await link.enable(bool((await request.json()).get("enabled", True)))
        return JSONResponse(told(link))

    async def add(request: Request) -> Response:
        link = named(request)
        link.add(Toxic.parse(await request.json()))
        return JSONResponse(told(link))

    async def remove(request: Request) -> Response:
        link = named(request)
        link.remove(request.path_params["toxic"])
        return JSONResponse(told(link))

    async def reset(_: Request) -> Response:
        for link in links.values():
            for toxic in list(link.toxics):
                link.remove(toxic.name)
            await link.enable(True)
        return await everything(_)

    async def ready(_: Request) -> Response:
        return JSONResponse({})

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, FaultError)
        body = {"error": error.what, "where": error.where, "todo": error.todo}
        return JSONResponse(body, status_code=400)

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/proxies", everything),
            Route("/proxies/{link}", switch, methods=["POST"]),
            Route("/proxies/{link}/toxics", add, methods=["POST"]),
            Route("/proxies/{link}/toxics/{toxic}", remove, methods=["DELETE"]),
            Route("/reset", reset, methods=["POST"]),
        ],
        exception_handlers={FaultError: refused},
    )
