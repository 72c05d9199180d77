"""A gRPC proxy before the emulator that counts the writes and fails the ones it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc

WRITES = ("Create", "Update", "Delete")


class Proxy:
    """Passes every call on; `fail` maps the number of a write (from 1) to a status code.

    `before` runs before each write with its number and method, for everything a test may do to
    the world in the middle of an apply.
    """

    def __init__(self, address: str) -> None:
        self.writes: list[str] = []
        self.fail: dict[int, grpc.StatusCode] = {}
        self.before: Callable[[int, str], None] = lambda number, method: None
        self.address = ""
        self._onward = grpc.insecure_channel(address)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Any unary method, as bytes."""
        method = details.method.rpartition("/")[2]
        onward = self._onward.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if method.startswith(WRITES):
                self.writes.append(method)
                self.before(len(self.writes), method)
                code = self.fail.get(len(self.writes))
                if code is not None:
                    context.abort(code, f"told to fail write {len(self.writes)}")
            try:
                body: bytes = onward(request, metadata=context.invocation_metadata(), timeout=10)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            return body

        return grpc.unary_unary_rpc_method_handler(answer)

    def close(self) -> None:
        """Let go of the emulator."""
        self._onward.close()


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
