"""Open arrivals inside Locust: one greenlet an arrival, timed from when it was meant to begin.

Locust's users are a closed loop, and a LoadTestShape sets numbers of users about once a second.
Here every process that makes load takes its shard of the arrivals and begins each at its time,
whether or not earlier ones were answered. What Locust reports is the intended latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import gevent
from gevent.local import local
from gevent.pool import Pool
from geventhttpclient.client import HTTPClientPool
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook

from loadtest.arrivals import Arrival
from loadtest.ledger import Ledger

Visit = Callable[[FastHttpSession, Arrival], None]
"""What one arrival does: one request or several after one another."""

INTENDED = "intended_ms"
"""Key of Locust's request context: milliseconds from the intended start to the answer."""

SERVICE = "service_ms"
"""Key of Locust's request context: milliseconds from sending to the answer."""

IN_FLIGHT_LIMIT = 10_000
_CONNECT_LIMIT = timedelta(seconds=10)
_ANSWER_LIMIT = timedelta(minutes=10)


class UnansweredError(Exception):
    """The run ended before the answer came."""


@dataclass(kw_only=True)
class _Flight:
    """A visit under way; its first request counts from when it was meant to begin."""

    arrival: Arrival
    due: float
    name: str = "- not sent"
    sent: float | None = None
    waits: bool = True
    """For an answer; not while the visit thinks between two requests."""


class TimedSession(FastHttpSession):
    """Locust's fast client, shared by all visits, which tells both latencies of a request."""

    def __init__(self, environment: Environment, host: str, limit: int) -> None:
        self._flights = local()
        self._requests = environment.events.request
        told = EventHook()
        told.add_listener(self._tell)
        super().__init__(
            base_url=host,
            request_event=told,
            user=None,
            # The default of 10 connections would queue arrivals here and hide the backlog.
            client_pool=HTTPClientPool(
                concurrency=limit,
                connection_timeout=_CONNECT_LIMIT.total_seconds(),
                network_timeout=_ANSWER_LIMIT.total_seconds(),
            ),
        )

    def take_off(self, flight: _Flight) -> None:
        """What this greenlet requests from now on belongs to the flight."""
        self._flights.now = flight

    def request(  # type: ignore[override]
        self, method: str, url: str, name: str | None = None, **options: Any
    ) -> Any:
        """Send a request as FastHttpSession does, and note when."""
        flight: _Flight = self._flights.now
        flight.name = f"{method} {name or url}"
        now = time.perf_counter()
        if flight.sent is not None:
            # A later request of the visit is meant to begin when the one before is answered.
            flight.due = now
        flight.sent = now
        flight.waits = True
        return super().request(method, url, name=name, **options)

    def _tell(self, **meta: Any) -> None:
        flight: _Flight = self._flights.now
        flight.waits = False
        sent = flight.sent if flight.sent is not None else flight.due
        intended = meta["response_time"] + (sent - flight.due) * 1000
        meta["context"] = {**meta["context"], INTENDED: intended, SERVICE: meta["response_time"]}
        meta["response_time"] = intended
        self._requests.fire(**meta)


def unrecorded(host: str, counted: Callable[[], None]) -> FastHttpSession:
    """A client whose requests are preparation: Locust and the ledger hear only how many."""
    told = EventHook()
    told.add_listener(lambda **_: counted())
    return FastHttpSession(base_url=host, request_event=told, user=None)


class Airspace:
    """All visits under way in one process, so that none can be forgotten."""

    def __init__(self, environment: Environment, host: str, limit: int) -> None:
        self._requests = environment.events.request
        self._session = TimedSession(environment, host, limit)
        self._flying: dict[int, _Flight] = {}

    def fly(self, arrival: Arrival, due: float, visit: Visit) -> None:
        """Make one visit that was meant to begin at `due`, by `time.perf_counter`."""
        flight = _Flight(arrival=arrival, due=due)
        self._flying[id(flight)] = flight
        self._session.take_off(flight)
        try:
            visit(self._session, arrival)
        except Exception as error:
            # A visit that cannot read an answer has failed; it must not vanish with its greenlet.
            self._fire(flight, (time.perf_counter() - flight.due) * 1000, error)
        finally:
            self._flying.pop(id(flight), None)

    def abandon(self) -> None:
        """Count what is still in the air: Locust alone would forget it (Locust #3010)."""
        now = time.perf_counter()
        for flight in [one for one in self._flying.values() if one.waits]:
            waited = (now - flight.due) * 1000
            self._fire(flight, waited, UnansweredError("no answer before the end of the run"))
        self._flying.clear()

    def _fire(self, flight: _Flight, waited_ms: float, error: Exception) -> None:
        method, _, name = flight.name.partition(" ")
        self._requests.fire(
            request_type=method,
            name=name,
            response_time=waited_ms,
            response_length=0,
            response=None,
            context={INTENDED: waited_ms},
            exception=error,
            start_time=time.time() - waited_ms / 1000,
            url=None,
        )


@dataclass(kw_only=True)
class OpenLoop:
    """Runs one process's shard of the arrivals."""

    air: Airspace
    arrivals: Iterable[Arrival]
    visit: Visit
    ledger: Ledger
    grace: timedelta
    """How long answers are waited for after the last arrival."""
    limit: int = IN_FLIGHT_LIMIT
    enough: Callable[[float], bool] = lambda _: False
    """Whether to end early, asked once a second with the seconds since the start."""

    def run(self, start: float) -> None:
        """Begin every arrival at `start` plus its offset, by `time.perf_counter`."""
        pool = Pool(self.limit)
        asked, over = 0, False
        try:
            for arrival in self.arrivals:
                if not over and int(arrival.at) > asked:
                    asked = int(arrival.at)
                    over = self.enough(arrival.at)
                if over:
                    self.ledger.given_up += 1
                    continue
                due = start + arrival.at
                ahead = due - time.perf_counter()
                # Sleeping for 0 lets the answers of those already sent be read.
                gevent.sleep(max(0.0, ahead))
                self.ledger.intended += 1
                if pool.full():
                    self.ledger.dropped += 1
                    continue
                pool.spawn(self._fly, arrival, due)
            pool.join(self.grace.total_seconds())
        finally:
            self.air.abandon()
            pool.kill()

    def _fly(self, arrival: Arrival, due: float) -> None:
        self.ledger.begin(arrival.at, (time.perf_counter() - due) * 1000)
        self.air.fly(arrival, due, self.visit)


def keep_ledger(environment: Environment, ledger: Ledger, since: Callable[[], float]) -> None:
    """Write every request of this process into the ledger, open or closed.

    `since` answers the seconds since the run began.
    """

    def note(
        request_type: str,
        name: str,
        response_time: float,
        exception: BaseException | None,
        context: dict[str, Any],
        response: Any = None,
        **_: Any,
    ) -> None:
        at = max(0.0, since())
        label = f"{request_type} {name}".strip()
        intended = context.get(INTENDED, response_time)
        if isinstance(exception, UnansweredError):
            ledger.abandon(label, at, waited_ms=intended)
        elif exception is not None:
            ledger.fail(label, at, kind=kind_of(response, exception), intended_ms=intended)
        else:
            ledger.answer(
                label,
                at,
                intended_ms=intended,
                service_ms=context.get(SERVICE, response_time),
                every_ms=context.get("every_ms"),
            )

    environment.events.request.add_listener(note)


def kind_of(response: Any, exception: BaseException) -> str:
    """A failure's kind from a closed vocabulary: its status, or the class of the error."""
    status = getattr(response, "status_code", 0) or 0
    if status >= 400:
        return str(status)
    cause = getattr(response, "error", None) or exception
    return type(cause).__name__
