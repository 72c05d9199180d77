"""One link: a TCP proxy between a client and a server, and the toxics that are on it now.

Bytes are read, then pass the toxics of their direction in order. What is read is queued with the
time it is due, so that latency delays a stream without slowing it. A toxic that is added or removed
takes effect on connections that are open.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from loadtest.faults.toxic import Stream, Toxic, ToxicKind
from speakfit.errors import FaultError

_PIECE = 64 * 1024
_QUEUED = 64
"""Pieces that wait for their time before reading pauses."""
_CONNECT_LIMIT = 10.0

logger = logging.getLogger(__name__)


def slices(length: int, toxic: Toxic, chance: random.Random) -> list[int]:
    """How a slicer cuts so many bytes: pieces near its average size."""
    sizes = []
    while length > 0:
        variation = toxic["size_variation"]
        size = int(toxic["average_size"] + chance.uniform(-variation, variation))
        sizes.append(min(max(1, size), length))
        length -= sizes[-1]
    return sizes


@dataclass(kw_only=True)
class Link:
    """A named way from a client to a server; `listen` 0 takes a free port."""

    name: str
    upstream: tuple[str, int]
    host: str = "127.0.0.1"
    listen: int = 0
    seed: int = 0
    toxics: list[Toxic] = field(default_factory=list)
    enabled: bool = True
    _server: asyncio.Server | None = None
    _open: set[_Connection] = field(default_factory=set)
    _count: int = 0

    async def start(self) -> None:
        """Listen; a FaultError when the port is taken."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self.host, self.listen, limit=_PIECE
            )
        except OSError as error:
            raise FaultError(
                f"The link {self.name} cannot have port {self.listen}: {error.strerror}.",
                where=f"{self.host}:{self.listen}",
                todo="Stop what uses the port.",
            ) from error
        self.listen = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection: the server is down."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._open):
            connection.reset()

    async def enable(self, wanted: bool) -> None:
        """Switch the link on or off; off, connecting is refused, as by a server that is down."""
        if wanted and self._server is None:
            await self.start()
        if not wanted:
            await self.stop()
        self.enabled = wanted

    def add(self, toxic: Toxic) -> None:
        """Put a toxic on the link; a FaultError when one of its name is there."""
        if any(one.name == toxic.name for one in self.toxics):
            raise FaultError(
                f"The link {self.name} has a toxic {toxic.name} already.",
                where=self.name,
                todo="Remove it first, or give this one another name.",
            )
        self.toxics.append(toxic)
        for connection in list(self._open):
            connection.meet(toxic)

    def remove(self, name: str) -> None:
        """Take a toxic off the link; a FaultError when there is none of the name."""
        kept = [one for one in self.toxics if one.name != name]
        if len(kept) == len(self.toxics):
            raise FaultError(
                f"The link {self.name} has no toxic {name}.",
                where=self.name,
                todo="Look at what it has.",
            )
        self.toxics = kept
        for connection in list(self._open):
            connection.lose(name)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        try:
            async with asyncio.timeout(_CONNECT_LIMIT):
                far_reader, far_writer = await asyncio.open_connection(*self.upstream, limit=_PIECE)
        except (OSError, TimeoutError):
            _cut(writer)
            return
        connection = _Connection(
            link=self,
            chance=random.Random(f"{self.seed} {self.name} {self._count}"),
            pipes={
                Stream.UPSTREAM: _Pipe(reader=reader, writer=far_writer),
                Stream.DOWNSTREAM: _Pipe(reader=far_reader, writer=writer),
            },
        )
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)


@dataclass(kw_only=True)
class _Pipe:
    """One direction of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    passed: int = 0
    due: float = 0.0
    seen: bytes = b""


@dataclass(kw_only=True, eq=False)
class _Connection:
    """Two pipes, the toxics that this connection meets, and whether it lost bytes to one."""

    link: Link
    chance: random.Random
    pipes: dict[Stream, _Pipe]
    met: dict[str, Toxic] = field(default_factory=dict)
    robbed: set[str] = field(default_factory=set)
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until both directions have ended, or a toxic ends it."""
        for toxic in self.link.toxics:
            self.meet(toxic)
        pumps = [asyncio.create_task(self._pump(stream)) for stream in Stream]
        ended = asyncio.create_task(self._done.wait())
        both = asyncio.create_task(asyncio.wait(pumps))
        await asyncio.wait({both, ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (both, ended, *pumps):
            task.cancel()
        await asyncio.gather(both, *pumps, return_exceptions=True)
        for timer in self.timers.values():
            timer.cancel()
        for pipe in self.pipes.values():
            pipe.writer.close()

    def meet(self, toxic: Toxic) -> None:
        """Draw whether this connection is one of those a toxic touches."""
        if self.chance.random() >= toxic.toxicity:
            return
        self.met[toxic.name] = toxic
        if toxic.kind is ToxicKind.RESET_PEER or (
            toxic.kind is ToxicKind.TIMEOUT and toxic["timeout"] > 0
        ):
            end = self.reset if toxic.kind is ToxicKind.RESET_PEER else self.close
            self.timers[toxic.name] = asyncio.get_running_loop().call_later(
                toxic["timeout"] / 1000, end
            )

    def lose(self, name: str) -> None:
        """A toxic is gone. Whoever lost bytes to it cannot go on in the middle of a message."""
        self.met.pop(name, None)
        if timer := self.timers.pop(name, None):
            timer.cancel()
        if name in self.robbed:
            self.reset()

    def reset(self) -> None:
        """Both ends get an RST."""
        for pipe in self.pipes.values():
            _cut(pipe.writer)
        self._done.set()

    def close(self) -> None:
        """Both ends get a FIN."""
        self._done.set()

    def _of(self, stream: Stream, *kinds: ToxicKind) -> Sequence[Toxic]:
        return [one for one in self.met.values() if one.stream is stream and one.kind in kinds]

    async def _pump(self, stream: Stream) -> None:
        queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(_QUEUED)
        writing = asyncio.create_task(self._write(stream, queue))
        pipe = self.pipes[stream]
        try:
            while data := await self._read(pipe):
                for hole in self._of(stream, ToxicKind.TIMEOUT):
                    self.robbed.add(hole.name)
                if self._of(stream, ToxicKind.TIMEOUT) or self._answered(stream, data):
                    continue
                await queue.put((self._due(stream), data))
            await queue.put(None)
            await writing
        finally:
            writing.cancel()

    @staticmethod
    async def _read(pipe: _Pipe) -> bytes:
        try:
            return await pipe.reader.read(_PIECE)
        except OSError:
            return b""

    def _due(self, stream: Stream) -> float:
        late = 0.0
        for toxic in self._of(stream, ToxicKind.LATENCY):
            jitter = toxic["jitter"]
            late += max(0.0, toxic["latency"] + self.chance.uniform(-jitter, jitter)) / 1000
        pipe = self.pipes[stream]
        # A stream has an order: what comes later is never due earlier.
        pipe.due = max(pipe.due, time.monotonic() + late)
        return pipe.due

    async def _write(
        self, stream: Stream, queue: asyncio.Queue[tuple[float, bytes] | None]
    ) -> None:
        pipe = self.pipes[stream]
        try:
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                for piece in self._cut_up(stream, data):
                    await self._send(stream, pipe, piece)
            for toxic in self._of(stream, ToxicKind.SLOW_CLOSE):
                await asyncio.sleep(toxic["delay"] / 1000)
            for toxic in self._of(stream, ToxicKind.TIMEOUT):
                # A black hole swallows the end as well.
                self.robbed.add(toxic.name)
                await self._until_gone(toxic)
            pipe.writer.write_eof()
        except OSError:
            # One end is gone: so the other has nobody to talk to.
            self.close()

    def _cut_up(self, stream: Stream, data: bytes) -> Iterable[bytes]:
        for toxic in self._of(stream, ToxicKind.SLICER):
            start = 0
            for size in slices(len(data), toxic, self.chance):
                yield data[start : start + size]
                start += size
            return
        yield data

    async def _send(self, stream: Stream, pipe: _Pipe, piece: bytes) -> None:
        for toxic in self._of(stream, ToxicKind.BANDWIDTH):
            rate = toxic["rate"] * 1024
            if rate == 0:
                await self._until_gone(toxic)
            else:
                await asyncio.sleep(len(piece) / rate)
        left = [
            max(0, int(toxic["bytes"]) - pipe.passed)
            for toxic in self._of(stream, ToxicKind.LIMIT_DATA)
        ]
        pipe.writer.write(piece[: min(left)] if left else piece)
        pipe.passed += len(piece)
        await pipe.writer.drain()
        if left and min(left) <= len(piece):
            self.close()
        for toxic in self._of(stream, ToxicKind.SLICER):
            await asyncio.sleep(toxic["delay"] / 1_000_000)

    async def _until_gone(self, toxic: Toxic) -> None:
        while toxic.name in self.met:
            await asyncio.sleep(0.05)

    def _answered(self, stream: Stream, data: bytes) -> bool:
        """Whether `http_status` has taken these bytes of a request, which the server never sees."""
        if stream is not Stream.UPSTREAM:
            return False
        found = self._of(Stream.UPSTREAM, ToxicKind.HTTP_STATUS) or self._of(
            Stream.DOWNSTREAM, ToxicKind.HTTP_STATUS
        )
        if not found:
            return False
        pipe = self.pipes[stream]
        pipe.seen += data
        if request_is_complete(pipe.seen):
            pipe.seen = b""
            with suppress(OSError):
                self.pipes[Stream.DOWNSTREAM].writer.write(status_answer(found[0]))
            self.close()
        return True


def request_is_complete(data: bytes) -> bool:
    """Whether an HTTP/1.1 request with a Content-Length has come to its end."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return len(body) >= int(value)
    return True


def status_answer(toxic: Toxic) -> bytes:
    """An answer with a status alone, as a server in trouble gives it."""
    wait = f"Retry-After: {toxic['retry_after']:.0f}\r\n" if toxic["retry_after"] else ""
    body = b"{}"
    head = (
        f"HTTP/1.1 {toxic['status']:.0f} Fault\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{wait}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close with an RST: lingering for no time makes the kernel drop what is unsent."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
