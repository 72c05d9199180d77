"""An HTTP proxy before the embedded PagerDuty that counts calls and fails those it is told to."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

RATE_LIMIT = {"error": {"message": "Rate Limit Exceeded", "code": 2020}}
READ_ONLY = {"error": {"message": "Access Denied", "code": 2010}}
BAD_TOKEN = {"error": {"message": "Authentication failed", "code": 2006}}


@dataclass(kw_only=True)
class Fault:
    """What is answered instead; `times` of None is always. A status of 0 hangs up.

    `late` lets PagerDuty do it and loses only the answer.
    """

    status: int
    body: object = field(default_factory=dict)
    times: int | None = None
    late: bool = False


HTTPAnswer = tuple[int, bytes]
"""Status and body."""


class Proxy:
    """Passes calls on; `faults` maps the beginning of `METHOD /path` to what happens to it."""

    def __init__(self, url: str) -> None:
        self.url = ""
        self.calls: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.before: Callable[[str], None] = lambda call: None
        self._onward = url

    @property
    def writes(self) -> list[str]:
        """Every call that was to change something, events left out."""
        return [one for one in self.calls if not one.startswith(("GET", "POST /v2"))]

    def fault(self, call: str) -> Fault | None:
        """The fault of a call, used up once."""
        for start, fault in self.faults.items():
            if call.startswith(start) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> HTTPAnswer:
        """PagerDuty's own answer."""
        request = urllib.request.Request(
            self._onward + path, data=body or None, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()


def _server(proxy: Proxy) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = f"{self.command} {self.path}"
            proxy.calls.append(call)
            proxy.before(call)
            fault = proxy.fault(call)
            kept = {
                name: value
                for name, value in self.headers.items()
                if name in ("Authorization", "Content-Type", "From", "Accept")
            }
            status, answer = 0, b""
            if fault is None or fault.late:
                status, answer = proxy.pass_on(self.command, self.path, kept, body)
            if fault is not None:
                status, answer = fault.status, json.dumps(fault.body).encode()
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            if status == 429:
                self.send_header("ratelimit-reset", "0")
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(answer)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_args: object) -> None:
            """Quiet: the test says what it needs to."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def unreliable_pagerduty(url: str) -> Iterator[Proxy]:
    """A proxy before the PagerDuty at `url`, on a free port."""
    proxy = Proxy(url)
    server = _server(proxy)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
