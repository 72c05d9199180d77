"""The requests that were answered, written down soon after: metrics and a log line for each.

A request only notes what happened. Doing the rest for many at once, in a thread, takes less than
half the time, because the processor does the same thing again and again (measured; see
docs/decisions.md). What a SIGKILL can lose is the last tenth of a second.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from opentelemetry import context as context_api
from opentelemetry.trace import Span, set_span_in_context

from speakfit.metrics import REQUEST_DURATION, REQUESTS, RouteClass
from speakfit.telemetry import Telemetry, write_lines
from speakfit.totals import Counter, Distribution

UNMATCHED = "unmatched"
"""The route of what no route answered."""

_ROUTE_CLASSES = {
    ("POST", "/v1/recordings"): RouteClass.TRANSFER,
    ("PUT", "/v1/uploads/{upload_id}/content"): RouteClass.TRANSFER,
    ("POST", "/v1/audio/transcriptions"): RouteClass.COMPUTE,
    # It reads hundreds of megabytes before it answers.
    ("POST", "/v1/uploads/{upload_id}/complete"): RouteClass.COMPUTE,
}
_MOST = 100_000
_WRITE_EVERY = timedelta(milliseconds=100)

logger = logging.getLogger(__name__)


def route_class(method: str, route: str) -> RouteClass:
    """How quick the route is meant to be; an upload lasts as long as the caller's line."""
    if route == UNMATCHED:
        return RouteClass.UNMATCHED
    return _ROUTE_CLASSES.get((method, route), RouteClass.INTERACTIVE)


class Entry(NamedTuple):
    """One request that was answered; a tuple, because one is made for each."""

    began: float
    ended: float
    """By time.perf_counter."""
    method: str
    route: str
    status: int
    span: Span
    request_id: str | None


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What all requests of one method and route share that were answered with one status."""

    duration: Distribution
    requests: Counter
    line: str
    """The members of the log line, as JSON with two places for the seconds."""


class Ledger:
    """`note` from any thread; what is noted is written every tenth of a second and at the stop."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        # Bounded, should nobody read our standard output any more.
        self._entries: deque[Entry] = deque(maxlen=_MOST)
        self.note = self._entries.append
        self._kinds: dict[tuple[str, str, int], _Kind] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write down what is left; call before telemetry exports for the last time."""
        self._stop.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._stop.wait(_WRITE_EVERY.total_seconds()):
            try:
                self._write()
            except Exception:
                logger.exception("requests could not be written down")

    def _write(self) -> None:
        if self._entries:
            write_lines(self._lines())

    def _lines(self) -> Iterator[logging.LogRecord]:
        line = logging.LogRecord(logger.name, logging.INFO, "", 0, "request", None, None)
        # What to add to time.perf_counter to know what o'clock it was.
        offset = time.time() - time.perf_counter()
        for _ in range(len(self._entries)):
            entry = self._entries.popleft()
            kind = self._kinds.get(entry[2:5]) or self._kind(entry)
            kind.requests.add()
            seconds = entry.ended - entry.began
            if seconds > REQUEST_DURATION.notable:
                # It is told with its trace.
                token = context_api.attach(set_span_in_context(entry.span))
                kind.duration.record(seconds)
                context_api.detach(token)
            else:
                kind.duration.record(seconds)
            line.created = offset + entry.ended
            line.context = kind.line % (seconds, seconds)
            line.correlation = entry.request_id, entry.span.get_span_context()
            yield line

    def _kind(self, entry: Entry) -> _Kind:
        kind = route_class(entry.method, entry.route)
        line = json.dumps(
            {
                "method": entry.method,
                "route": entry.route,
                "status": entry.status,
                "httpRequest": {
                    "requestMethod": entry.method,
                    "requestUrl": entry.route,
                    "status": entry.status,
                    "latency": "LATENCY",
                },
                "seconds": "SECONDS",
            }
        ).replace("%", "%%")
        made = self._kinds[entry[2:5]] = _Kind(
            duration=self._telemetry.distribution(
                REQUEST_DURATION,
                {
                    "http.request.method": entry.method,
                    "http.route": entry.route,
                    "http.response.status_code": str(entry.status),
                    "route_class": kind,
                },
            ),
            requests=self._telemetry.counter(
                REQUESTS,
                {
                    "http.route": entry.route,
                    "status_class": f"{entry.status // 100}xx",
                    "route_class": kind,
                },
            ),
            line=line[1:-1].replace("LATENCY", "%.4fs").replace('"SECONDS"', "%.4f"),
        )
        return made
