"""Each toxic does to real connections what Toxiproxy's documentation says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from loadtest.faults.proxy import Link, slices
from loadtest.faults.toxic import Stream, Toxic, ToxicKind
from speakfit.errors import FaultError

BLOCK = b"x" * 20_000


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one connection through the link gave: how much, in how long, or which error."""

    got: bytes = b""
    took: float = 0.0
    error: str = ""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass
    finally:
        writer.close()


async def call(link: Link, data: bytes = BLOCK, limit: float = 0.5) -> Call:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        reader, writer = await asyncio.open_connection(link.host, link.listen)
    except OSError as error:
        return Call(error=type(error).__name__)
    writer.write(data)
    writer.write_eof()
    got = b""
    try:
        async with asyncio.timeout(limit):
            while piece := await reader.read(65_536):
                got += piece
    except (OSError, TimeoutError) as error:
        return Call(got=got, error=type(error).__name__)
    finally:
        writer.close()
    return Call(got=got, took=loop.time() - began)


def on_a_link(story: Callable[[Link], Awaitable[None]]) -> None:
    """Run a story on a link to a server that says everything again."""

    async def run() -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        link = Link(name="here", upstream=server.sockets[0].getsockname()[:2])
        await link.start()
        try:
            await story(link)
        finally:
            await link.stop()
            server.close()

    asyncio.run(run())


def toxic(kind: ToxicKind, **attributes: float) -> Toxic:
    return Toxic(kind=kind, attributes=attributes)


@pytest.mark.parametrize(
    ("kind", "attributes", "least"),
    [
        (ToxicKind.LATENCY, {"latency": 150, "jitter": 20}, 0.13),
        (ToxicKind.BANDWIDTH, {"rate": 100}, 0.19),
        (ToxicKind.SLOW_CLOSE, {"delay": 150}, 0.15),
        (ToxicKind.SLICER, {"average_size": 500, "delay": 4000}, 0.15),
    ],
)
def test_a_slow_link_delays_and_loses_nothing(
    kind: ToxicKind, attributes: dict[str, float], least: float
) -> None:
    async def story(link: Link) -> None:
        link.add(toxic(kind, **attributes))
        slow = await call(link, limit=5)
        assert slow.got == BLOCK
        assert slow.took >= least

    on_a_link(story)


def test_a_broken_link_breaks_as_named_and_heals() -> None:
    async def story(link: Link) -> None:
        for kind, attributes, error, most in (
            (ToxicKind.TIMEOUT, {}, "TimeoutError", 0),
            (ToxicKind.TIMEOUT, {"timeout": 50}, "", 0),
            (ToxicKind.RESET_PEER, {}, "ConnectionResetError", len(BLOCK)),
            (ToxicKind.LIMIT_DATA, {"bytes": 700}, "", 700),
        ):
            one = Toxic(kind=kind, attributes=attributes)
            link.add(one)
            broken = await call(link)
            assert (broken.error, len(broken.got) <= most) == (error, True), kind
            link.remove(one.name)
            assert (await call(link)).got == BLOCK
        await link.enable(False)
        assert (await call(link)).error == "ConnectionRefusedError"
        await link.enable(True)
        assert (await call(link)).got == BLOCK

    on_a_link(story)


def test_a_black_hole_meets_open_connections_and_cuts_them_when_it_goes() -> None:
    async def story(link: Link) -> None:
        reader, writer = await asyncio.open_connection(link.host, link.listen)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        link.add(toxic(ToxicKind.TIMEOUT))
        writer.write(b"swallowed")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        link.remove("timeout_downstream")
        # A stream with a hole in it must not go on as if nothing were missing.
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()

    on_a_link(story)


def test_http_status_answers_in_the_servers_place() -> None:
    async def story(link: Link) -> None:
        link.add(toxic(ToxicKind.HTTP_STATUS, status=429, retry_after=3))
        request = b"POST /v2/enqueue HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
        answer = (await call(link, request)).got.decode()
        assert answer.startswith("HTTP/1.1 429 ")
        assert "Retry-After: 3\r\n" in answer

    on_a_link(story)


def test_toxicity_is_the_share_of_connections_that_are_met() -> None:
    async def story(link: Link) -> None:
        link.add(Toxic(kind=ToxicKind.RESET_PEER, toxicity=0.5))
        met = [bool((await call(link, b"x")).error) for _ in range(40)]
        assert 10 < sum(met) < 30

    on_a_link(story)


def test_slices_lose_nothing_and_vary() -> None:
    one = toxic(ToxicKind.SLICER, average_size=100, size_variation=50)
    sizes = slices(10_000, one, random.Random(1))
    assert sum(sizes) == 10_000
    assert 50 <= min(sizes[:-1]) < max(sizes) <= 150


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"type": "locusts"}, "'locusts' is not a valid ToxicKind"),
        ({"type": "latency", "stream": "sideways"}, "'sideways' is not a valid Stream"),
        ({"type": "latency", "attributes": {"rate": 1}}, "has no attribute rate"),
        ({"type": "latency", "attributes": {"latency": -1}}, "cannot be -1"),
        ({"type": "latency", "attributes": {"latency": "x"}}, "must be an object of numbers"),
        ({"type": "latency", "toxicity": 2}, "A toxicity of 2 is no share"),
        ([], "must be an object"),
    ],
)
def test_what_is_no_toxic_is_refused(body: object, says: str) -> None:
    with pytest.raises(FaultError, match=says):
        Toxic.parse(body)


def test_a_toxic_survives_its_json() -> None:
    one = Toxic(kind=ToxicKind.LATENCY, stream=Stream.UPSTREAM, attributes={"latency": 5})
    assert Toxic.parse(one.to_json()) == one
