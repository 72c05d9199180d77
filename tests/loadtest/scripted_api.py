"""An HTTP server with the API's routes that fails on cue, as no healthy server would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG = float("inf")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one request is answered: its status (0 is the right one), after how many seconds."""

    status: int = 0
    after: float = 0.0


Script = Callable[[int, float], Answer]
"""Decides by the request's number and the seconds since the first one."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    script: Script
    count = 0
    first = 0.0
    released: threading.Event
    lock: threading.Lock


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(200, {"status": "completed", "text": "so", "recordings": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(202, {"id": "00000000-0000-4000-8000-000000000000"})

    def _answer(self, status: int, body: object) -> None:
        server = self.server
        with server.lock:
            server.first = server.first or time.monotonic()
            server.count += 1
            answer = server.script(server.count, time.monotonic() - server.first)
        server.released.wait(60 if answer.after == HANG else answer.after)
        content = json.dumps(body).encode()
        with suppress(OSError):
            self.send_response(answer.status or status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted_api(script: Script) -> Iterator[str]:
    """Its address while it serves."""
    server = _Server(("127.0.0.1", 0), _Requests)
    server.script = script
    server.released, server.lock = threading.Event(), threading.Lock()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
