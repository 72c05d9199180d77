"""What Locust runs: `locust -f loadtest/locustfile.py --scenario steady`.

Works with the web page (on loopback unless `--web-host` says otherwise), headless, and with a
master and workers, which share the arrivals. Without `--host` it loads the running local stack. It
ends with exit code 6 when nothing was measured, where Locust alone would end with 0. gRPC must
stay out of here: under gevent a silent peer would stall every greenlet.
"""

from __future__ import annotations

import json
import random
import time
from argparse import ArgumentParser
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.lock import RLock
from locust import FastHttpUser, LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtest.arrivals import Arrival, Arrivals, trace_file
from loadtest.ledger import Ledger, percentile, unpack
from loadtest.openloop import IN_FLIGHT_LIMIT, Airspace, OpenLoop, keep_ledger, unrecorded
from loadtest.scenarios import Scenario, find_scenario
from loadtest.visits import VISITS, Knowledge, local_address
from speakfit.errors import LoadError

INVALID = 6
"""Exit code of a run that measured nothing."""

LOOPBACK = "127.0.0.1"
_BEGIN_IN = 1.0
_SLACK = 30.0
_LOOK = 3
"""Seconds that are looked at to find that the limit is reached."""
_FOREVER = 1e9


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    # Locust binds its page to every interface, with nobody asked who they are.
    parser.set_defaults(web_host=LOOPBACK)
    group = parser.add_argument_group("SpeakFit")
    group.add_argument("--scenario", default="steady", help="what load to make")
    group.add_argument("--rate-factor", type=float, default=1.0, help="multiplies every rate")
    group.add_argument("--time-factor", type=float, default=1.0, help="multiplies every duration")
    group.add_argument("--seed", type=int, default=1, help="decides arrivals and visits")
    group.add_argument("--trace", default="", help="file of arrival times to replay instead")
    group.add_argument("--grace", type=float, help="seconds to wait for answers at the end")
    group.add_argument(
        "--prepare-limit", type=float, default=30.0, help="seconds to wait for something to read"
    )
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
        self.index = 0
        self.lock = RLock()
        self.air: Airspace | None = None
        self.calls = 0
        self.people = 0
        self.epoch = time.time()
        """When the first arrival was meant to come."""
        keep_ledger(environment, self.own, lambda: time.perf_counter() - self.began)

    @property
    def runner(self) -> Runner:
        """Locust makes it right after its `init` event."""
        found = self.environment.runner
        assert found is not None
        return found

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
        runner = self.runner
        ids = (
            [
                client.id
                for client in runner.clients.ready
                + runner.clients.spawning
                + runner.clients.running
            ]
            if isinstance(runner, MasterRunner)
            else [None]
        )
        self.shares = len(ids)
        self.epoch = time.time() + _BEGIN_IN
        for index, client in enumerate(ids):
            share = {"index": index, "of": len(ids), "start": self.epoch}
            runner.send_message("speakfit.share", share, client)

    def take_share(self, share: dict[str, Any]) -> None:
        self.share.set(share)

    def prepare(self, host: str) -> None:
        """Let there be something to read; whoever comes meanwhile waits. Nothing is recorded."""
        with self.lock, gevent.Timeout(self.options.prepare_limit, False):
            self.known.prepare(unrecorded(host, self.count))

    def air_at(self, host: str) -> Airspace:
        """Where all visits of this process are under way."""
        if self.air is None:
            self.air = Airspace(self.environment, host, IN_FLIGHT_LIMIT)
        return self.air

    def call(self, host: str) -> None:
        """One visit of a person, which begins now."""
        self.calls += 1
        arrival = Arrival(index=self.calls, at=time.perf_counter() - self.began, stage="people")
        self.own.intended += 1
        self.own.begin(arrival.at, 0.0)
        self.air_at(host).fly(arrival, time.perf_counter(), self.visit)

    def come(self, host: str) -> None:
        """A person arrives; the run begins with the first."""
        self.prepare(host)
        if not self.people:
            self.began, self.epoch = time.perf_counter(), time.time()
        self.people += 1

    def count(self) -> None:
        """A request of the preparation was answered."""
        self.own.prepared += 1

    def work(self, host: str) -> None:
        """Make this process's share of the load; returns when it is done."""
        self.prepare(host)
        share = self.share.get()
        ahead = max(0.0, share["start"] - time.time())
        self.began = time.perf_counter() + ahead
        arrivals = self.arrivals()
        try:
            OpenLoop(
                air=self.air_at(host),
                arrivals=arrivals.shard(share["index"], share["of"]),
                visit=self.visit,
                ledger=self.own,
                grace=timedelta(seconds=self.grace),
                enough=self.enough,
            ).run(self.began)
        finally:
            self.index = share["index"]
            self.tell(self.index)

    def enough(self, at: float) -> bool:
        """Whether a load that seeks a limit has found it: answers are slow, or wrong."""
        sought = self.scenario.until_slower_than
        if sought is None:
            return False
        window = [self.own.slots[s] for s in range(int(at) - _LOOK, int(at)) if s in self.own.slots]
        ok, failed = sum(slot.ok for slot in window), sum(slot.failed for slot in window)
        counted: Counter[int] = sum((slot.latency for slot in window), Counter())
        slow = percentile(counted, 95)
        return failed > 0.01 * (ok + failed) or (slow or 0.0) > sought.total_seconds() * 1000

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
        self.own.accepted = self.known.recordings
        packed = self.own.pack()
        self.runner.send_message("speakfit.ledger", {"index": index, "ledger": packed})

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
                "began": self.epoch,
                "expected": sum(1 for _ in self.arrivals().all()) if self.open else None,
                "shares": self.shares,
                "ended": len(self.ended),
                "ledger": self.total.pack(),
            }
            Path(self.options.ledger).write_text(json.dumps(told), encoding="utf-8")


RUNS: dict[int, Run] = {}
"""By environment: one of each in a process that Locust started."""


def run_of(environment: Environment) -> Run:
    """The run of this process."""
    return RUNS[id(environment)]


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    try:
        run = RUNS[id(environment)] = Run(environment)
    except LoadError as error:
        print(error)
        raise SystemExit(64) from None
    runner = run.runner
    if not isinstance(runner, MasterRunner):
        runner.register_message("speakfit.share", lambda msg, **_: run.take_share(msg.data))
    if not isinstance(runner, WorkerRunner):
        runner.register_message("speakfit.ledger", lambda msg, **_: run.add(msg.data))


@events.test_stopping.add_listener
def _land(environment: Environment, **_: Any) -> None:
    """Before people are sent away: what they still wait for counts."""
    run = run_of(environment)
    if run.air is not None:
        run.air.abandon()


@events.test_stop.add_listener
def _tell(environment: Environment, **_: Any) -> None:
    """Workers tell before the master lets them go; also after Ctrl-C."""
    if not isinstance(environment.runner, MasterRunner):
        run = run_of(environment)
        run.tell(run.index)


@events.quitting.add_listener
def _write(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        run_of(environment).write()


class OpenArrivals(FastHttpUser):
    """One in each process: it begins that process's share of the arrivals."""

    host = local_address()

    @task
    def begin(self) -> None:
        run = run_of(self.environment)
        run.work(str(self.host))
        gevent.sleep(_FOREVER)


class Person(FastHttpUser):
    """One of many, who thinks between two visits; a closed loop, as people are."""

    host = local_address()

    def wait_time(self) -> float:
        mean = run_of(self.environment).scenario.think.total_seconds()
        return random.expovariate(1 / mean) if mean else 0.0

    def on_start(self) -> None:
        run_of(self.environment).come(str(self.host))

    @task
    def visit(self) -> None:
        run_of(self.environment).call(str(self.host))


class Course(LoadTestShape):
    """How many users there are: as many as processes for arrivals, or the scenario's people."""

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        runner = self.runner
        assert runner is not None
        run = run_of(runner.environment)
        if not run.open:
            if self.get_run_time() > run.seconds:
                return None
            return run.scenario.users, float(run.scenario.users), [Person]
        processes = runner.worker_count if isinstance(runner, MasterRunner) else 1
        if not run.shares and runner.user_count >= processes:
            run.give_shares()
        if run.shares and len(run.ended) == run.shares:
            return None
        if self.get_run_time() > run.seconds + run.grace + run.options.prepare_limit + _SLACK:
            return None
        return processes, float(processes), [OpenArrivals]
