"""A bucket on loopback that fails on demand: the real protocol behind a line that breaks."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gcp_storage_emulator.server import create_server

from tests.conftest import free_port

_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "server", "date"}


class Fault(StrEnum):
    """How requests fail."""

    UNAVAILABLE = "unavailable"
    """Answered with 503."""
    RESET = "reset"
    """The connection is reset before the body of the request is read."""
    CUT = "cut"
    """The connection is reset in the middle of the answer's body."""


class FaultyBucket:
    """Every request fails while `failing` says so, as often as `times` says."""

    def __init__(self, bucket: str) -> None:
        self._port = free_port()
        self._server = create_server("127.0.0.1", self._port, in_memory=True, default_bucket=bucket)
        self._line = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._times = 0
        self.failed = 0

    @property
    def address(self) -> str:
        """What STORAGE_EMULATOR_HOST is set to."""
        return f"http://127.0.0.1:{self._line.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[FaultyBucket]:
        self._server.start()
        thread = threading.Thread(target=self._line.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._line.shutdown()
            thread.join()
            self._line.server_close()
            self._server.stop()

    def fail(self, fault: Fault, times: int = 1_000_000) -> None:
        with self._lock:
            self._fault, self._times, self.failed = fault, times, 0

    def heal(self) -> None:
        with self._lock:
            self._fault = None

    def _due(self) -> Fault | None:
        with self._lock:
            if self._fault is None or self.failed >= self._times:
                return None
            self.failed += 1
            return self._fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                fault = bucket._due()
                if fault is Fault.RESET:
                    self._reset()
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if fault is Fault.UNAVAILABLE:
                    told = {"error": {"code": 503, "message": "Backend Error"}}
                    self._send(503, {"content-type": "application/json"}, json.dumps(told).encode())
                    return
                upstream = HTTPConnection("127.0.0.1", bucket._port, timeout=30)
                given = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                upstream.request(self.command, self.path, body, given)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
                if fault is Fault.CUT:
                    self._send(answer.status, kept, content, sent=len(content) // 2)
                    self._reset()
                    return
                self._send(answer.status, kept, content)

            def _send(
                self, status: int, headers: dict[str, str], content: bytes, sent: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:sent])
                self.wfile.flush()

            def _reset(self) -> None:
                now = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
                self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        return Handler
