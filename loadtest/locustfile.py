"""What Locust runs: `locust -f loadtest/locustfile.py --scenario steady --host http://...`.

Works with the web page (bind it to loopback: `--web-host 127.0.0.1`), headless, and with a master
and workers, which share the arrivals. It ends with exit code 6 when nothing was measured, where
Locust alone would end with 0. gRPC must stay out of here: under gevent a silent peer would stall
every greenlet.
"""

from __future__ import annotations

import json
import random
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtest.arrivals import Arrival, Arrivals, trace_file
from loadtest.ledger import Ledger, unpack
from loadtest.openloop import OpenLoop, keep_ledger
from loadtest.scenarios import Scenario, find_scenario
from loadtest.visits import VISITS, Knowledge
from speakfit.errors import LoadError

INVALID = 6
"""Exit code of a run that measured nothing."""

_BEGIN_IN = 1.0
_PREPARE_LIMIT = 120.0


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("SpeakFit")
    group.add_argument("--scenario", default="steady", help="what load to make")
    group.add_argument("--rate-factor", type=float, default=1.0, help="multiplies every rate")
    group.add_argument("--time-factor", type=float, default=1.0, help="multiplies every duration")
    group.add_argument("--seed", type=int, default=1, help="decides arrivals and visits")
    group.add_argument("--trace", default="", help="file of arrival times to replay instead")
    group.add_argument("--grace", type=float, help="seconds to wait for answers at the end")
    group.add_argument("--ledger", default="", help="file that gets all measurements as JSON")


class Run:
    """One run of a scenario in one process; the master adds up what workers tell it."""

    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        chosen = find_scenario(options.scenario).scaled(
            rate=options.rate_factor, duration=options.time_factor
        )
        self.environment = environment
        self.options = options
        self.scenario: Scenario = chosen
        self.total = Ledger()
        self.own = Ledger()
        self.share: AsyncResult[dict[str, Any]] = AsyncResult()
        self.began = time.perf_counter()
        self.ended: set[int] = set()
        self.shares = 0
        self.sent = False
        self.known = Knowledge()
        keep_ledger(environment, self.own, lambda: time.perf_counter() - self.began)

    @property
    def open(self) -> bool:
        return bool(self.scenario.stages) or bool(self.options.trace)

    @property
    def grace(self) -> float:
        given: float | None = self.options.grace
        return self.scenario.grace.total_seconds() if given is None else given

    def arrivals(self) -> Arrivals:
        if self.options.trace:
            return Arrivals(trace=trace_file(Path(self.options.trace)))
        return self.scenario.arrivals(self.options.seed)

    @property
    def seconds(self) -> float:
        """How long load is made."""
        return self.arrivals().seconds if self.open else self.scenario.duration.total_seconds()

    def give_shares(self) -> None:
        """Tell each process which share of the arrivals is its own, and when they begin."""
        runner = self.environment.runner
        ids = [client.id for client in runner.clients.ready + runner.clients.spawning
               + runner.clients.running] if isinstance(runner, MasterRunner) else [None]
        self.shares = len(ids)
        for index, client in enumerate(ids):
            share = {"index": index, "of": len(ids), "start": time.time() + _BEGIN_IN}
            runner.send_message("speakfit.share", share, client)

    def take_share(self, share: dict[str, Any]) -> None:
        self.share.set(share)

    def work(self, client: Any, host: str) -> None:
        """Make this process's share of the load; returns when it is done."""
        self.known.prepare(client)
        share = self.share.get()
        ahead = max(0.0, share["start"] - time.time())
        self.began = time.perf_counter() + ahead
        arrivals = self.arrivals()
        try:
            OpenLoop(
                environment=self.environment,
                host=host,
                arrivals=arrivals.shard(share["index"], share["of"]),
                visit=self.visit,
                ledger=self.own,
                grace=self.scenario.grace if self.options.grace is None else _seconds(self.grace),
            ).run(self.began)
        finally:
            self.tell(share["index"])

    def visit(self, session: Any, arrival: Arrival) -> None:
        """One arrival; what it does depends on the seed and its number alone."""
        source = random.Random(f"{self.options.seed}:{arrival.index}")
        name = source.choices(list(self.scenario.mix), list(self.scenario.mix.values()))[0]
        VISITS[name](session, self.known, source)

    def tell(self, index: int) -> None:
        """Give the measurements of this process to whoever adds them up, once."""
        if self.sent:
            return
        self.sent = True
        packed = self.own.pack()
        self.environment.runner.send_message("speakfit.ledger", {"index": index, "ledger": packed})

    def add(self, told: dict[str, Any]) -> None:
        self.total.add(unpack(told["ledger"]))
        self.ended.add(told["index"])

    def write(self) -> None:
        """Write the sum of all measurements, and fail a run that measured nothing."""
        if self.total.answered + self.total.failures == 0:
            print("Nothing was measured: no request was answered, and none failed.")
            self.environment.process_exit_code = INVALID
        if self.options.ledger:
            told = {
                "scenario": self.scenario.name,
                "seed": self.options.seed,
                "seconds": self.seconds,
                "expected": self.arrivals().expected if self.open else None,
                "shares": self.shares,
                "ended": len(self.ended),
                "ledger": self.total.pack(),
            }
            Path(self.options.ledger).write_text(json.dumps(told), encoding="utf-8")


def _seconds(value: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=value)
