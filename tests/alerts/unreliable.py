"""What can go wrong between the real clients and the real emulator, done on the wire."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc

WRITES = ("Create", "Update", "Delete")
Fault = grpc.StatusCode | tuple[grpc.StatusCode, str]


class Proxy:
    """A gRPC proxy that counts the writes and fails the ones it is told to.

    `fail` maps the number of a write (from 1) to a status code, or to a code and its text;
    `lose` does so after the server has carried the write out, and `fail_reads` goes by method.
    `before` runs before each write, and `after` between the server's answer and its way back,
    with the write's number and method; `on_read` runs before each read. A test may do anything
    to the world in them.
    """

    def __init__(self, address: str) -> None:
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.fail: dict[int, Fault] = {}
        self.lose: dict[int, Fault] = {}
        self.fail_reads: dict[str, Fault] = {}
        self.before: Callable[[int, str], None] = lambda number, method: None
        self.after: Callable[[int, str], None] = lambda number, method: None
        self.on_read: Callable[[str], None] = lambda method: None
        self.address = ""
        self._onward = grpc.insecure_channel(address)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Any unary method, as bytes."""
        method = details.method.rpartition("/")[2]
        onward = self._onward.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            number = 0
            if method.startswith(WRITES):
                self.writes.append(method)
                number = len(self.writes)
                self.before(number, method)
                fault = self.fail.get(number)
            else:
                self.reads.append(method)
                self.on_read(method)
                fault = self.fail_reads.get(method)
            _abort(context, fault)
            try:
                body: bytes = onward(request, metadata=context.invocation_metadata(), timeout=10)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            if number:
                self.after(number, method)
                _abort(context, self.lose.get(number))
            return body

        return grpc.unary_unary_rpc_method_handler(answer)

    def close(self) -> None:
        """Let go of the emulator."""
        self._onward.close()


def _abort(context: grpc.ServicerContext, fault: Fault | None) -> None:
    if fault is not None:
        code, text = fault if isinstance(fault, tuple) else (fault, "told to fail")
        context.abort(code, text)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._proxy.service(handler_call_details)


@contextmanager
def unreliable(address: str) -> Iterator[Proxy]:
    """A proxy before the emulator at `address`, on a free port."""
    proxy = Proxy(address)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((_Handler(proxy),))
    proxy.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield proxy
    finally:
        server.stop(grace=None).wait()
        proxy.close()


class Wire:
    """A cable: passes bytes on to an address until it is cut, and again once it is mended."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._onward = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._whole = True
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                _reset(near)
                continue
            far = socket.create_connection(self._onward)
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=(one, other), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Reset every connection, and each new one."""
        self._whole = False
        while self._ends:
            _reset(self._ends.pop())

    def mend(self) -> None:
        """Let new connections through."""
        self._whole = True

    def close(self) -> None:
        """Let go of everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)


def _reset(end: socket.socket) -> None:
    """Close a connection as a broken network does: the other side gets a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    end.close()


@contextmanager
def wired(address: str) -> Iterator[Wire]:
    """A cable to `address`."""
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.close()
