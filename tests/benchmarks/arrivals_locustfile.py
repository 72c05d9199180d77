"""The platform's locustfile with one bare request a visit, for tests.benchmarks.arrivals."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

from loadtest import locustfile, scenarios, visits
from loadtest.arrivals import constant
from loadtest.locustfile import Course, OpenArrivals, Person
from loadtest.scenarios import Scenario

__all__ = ["Course", "OpenArrivals", "Person"]

os.sched_setaffinity(0, {int(os.environ["ARRIVALS_CORE"])})


def ask(client: Any, known: visits.Knowledge, source: random.Random) -> None:
    """One request, and no more work than it needs."""
    client.get("/")


visits.VISITS["ask"] = ask
scenarios.SCENARIOS["steady"] = Scenario(
    name="steady",
    what="Bare requests.",
    mix={"ask": 1.0},
    stages=constant(
        float(os.environ["ARRIVALS_RATE"]),
        timedelta(seconds=float(os.environ["ARRIVALS_SECONDS"])),
    ),
)
locustfile.Knowledge.prepare = lambda self, client: None  # type: ignore[method-assign]
