"""What a target can take, and what that costs: requests, chunks, people, dollars; pure.

The capacity in requests is read from the scenario whose rate rises, in chunks from the time in
which the queue was never empty, in people from what those of the closed scenario asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.contract import Figure
from loadtest.verdict import Run, figure, windows
from speakfit.errors import LoadError

P95_LIMIT = 2.0
"""Seconds above which people call it slow: the warning of api-latency."""
FAILURE_LIMIT = 0.01
WINDOW_SECONDS = 3.0
WORKERS = {"development": 1, "production": 2, "scale": 5}
"""Workers that the price of each size pays for; a test holds them to terraform/sizes.tf."""
HOURS_A_MONTH = {"development": 198, "production": 730, "scale": 730}
"""How long they work; development's have a schedule."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a month of each size costs, in dollars, cheapest first."""

    monthly: tuple[tuple[str, float], ...] = ()


def read_sizes(file: Path) -> Sizes:
    """What `python -m speakfit_ops.infra cost --json` printed; a LoadError for anything else."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = [(str(one["size"]), float(one["total"])) for one in told]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"The costs cannot be read: {type(error).__name__}.",
            where=str(file),
            todo="Write it with `python -m speakfit_ops.infra cost --json`.",
        ) from error
    for name, _ in found:
        if name not in WORKERS:
            raise LoadError(
                f"{name!r} is no size.",
                where=str(file),
                todo="The sizes: " + ", ".join(WORKERS) + ".",
            )
    return Sizes(monthly=tuple(sorted(found, key=lambda one: one[1])))


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """One size at the capacity that was measured for one transcribing process."""

    size: str
    monthly: float
    chunks_per_minute: float
    per_thousand: float
    """Dollars for 1,000 chunks when it works all the time."""
    passes: bool
    """Whether it can do what was offered here."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What was found; None where no scenario of the run tells."""

    requests_per_second: float | None = None
    ceiling_reached: bool = False
    """False: the target had still some left at the highest rate that was tried."""
    chunks_per_minute: float | None = None
    per_process: float | None = None
    offered_chunks: float | None = None
    """Chunks per minute of the upload-heavy scenario, which every size must do."""
    users: int | None = None
    headroom: float | None = None
    """Capacity in requests over the steady rate, less one."""
    sizes: tuple[SizeCost, ...] = ()

    @property
    def cheapest(self) -> str | None:
        """The cheapest size that can do what was offered."""
        return next((one.size for one in self.sizes if one.passes), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests_per_second": self.requests_per_second,
            "ceiling_reached": self.ceiling_reached,
            "chunks_per_minute": self.chunks_per_minute,
            "chunks_per_minute_per_process": self.per_process,
            "users": self.users,
            "headroom": self.headroom,
            "cheapest_size": self.cheapest,
            "sizes": [
                {
                    "size": one.size,
                    "monthly_dollars": one.monthly,
                    "chunks_per_minute": one.chunks_per_minute,
                    "dollars_per_1000_chunks": one.per_thousand,
                    "passes": one.passes,
                }
                for one in self.sizes
            ],
        }


def capacity(runs: Sequence[Run], sizes: Sizes) -> Capacity:
    """What the runs of one gate tell together."""
    by_name = {run.scenario.name: run for run in runs}
    rate, reached = None, False
    for run in runs:
        if run.contract.finds_capacity:
            rate, reached = most_requests(run)
    chunks = max((one for run in runs if (one := most_chunks(run)) is not None), default=None)
    workers = max((run.server.workers for run in runs if run.server is not None), default=1)
    each = None if chunks is None else chunks / workers
    offered = None
    if (uploads := by_name.get("uploads")) is not None and uploads.seconds:
        offered = len(uploads.ledger.accepted) / uploads.seconds * 60
    steady = by_name.get("steady")
    headroom = None
    if rate is not None and steady is not None and steady.scenario.stages:
        headroom = rate / steady.scenario.stages[0].rate - 1
    return Capacity(
        requests_per_second=rate,
        ceiling_reached=reached,
        chunks_per_minute=chunks,
        per_process=each,
        offered_chunks=offered,
        users=_users(by_name.get("people"), rate, chunks),
        headroom=headroom,
        sizes=tuple(_costs(sizes, each, offered)),
    )


def most_requests(run: Run) -> tuple[float | None, bool]:
    """The highest rate offered before answers became slow or wrong, and whether they did."""
    best = None
    for middle, window in windows(run.ledger, 0, run.seconds, WINDOW_SECONDS):
        p95, failed = figure(window, Figure.P95), figure(window, Figure.FAILURES)
        if (p95 is not None and p95 > P95_LIMIT) or (failed is not None and failed > FAILURE_LIMIT):
            return best, True
        started = sum(
            run.ledger.slots[second].started
            for second in range(int(middle - WINDOW_SECONDS / 2), int(middle + WINDOW_SECONDS / 2))
            if second in run.ledger.slots
        )
        best = max(best or 0.0, started / WINDOW_SECONDS)
    return best, False


def most_chunks(run: Run) -> float | None:
    """Chunks per minute while the queue was never empty; None without such a time."""
    if run.server is None:
        return None
    busy = [at for at, depth in run.server.queue if depth >= 2 * run.server.workers]
    if len(busy) < 3:
        return None
    inside = [(at, total) for at, total in run.server.chunks if busy[0] <= at <= busy[-1]]
    if len(inside) < 3 or inside[-1][0] <= inside[0][0]:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]) * 60


def _users(people: Run | None, rate: float | None, chunks: float | None) -> int | None:
    """How many people as those of the closed scenario fit into both capacities."""
    if people is None or not people.scenario.users or not people.seconds:
        return None
    number = people.scenario.users
    asked = people.ledger.answered / people.seconds / number
    sent = len(people.ledger.accepted) / people.seconds * 60 / number
    limits = []
    if rate is not None and asked:
        limits.append(rate / asked)
    if chunks is not None and sent:
        limits.append(chunks / sent)
    return int(min(limits)) if limits else None


def _costs(sizes: Sizes, each: float | None, offered: float | None) -> list[SizeCost]:
    if each is None:
        return []
    found = []
    for name, monthly in sizes.monthly:
        minute = each * WORKERS[name]
        found.append(
            SizeCost(
                size=name,
                monthly=monthly,
                chunks_per_minute=minute,
                per_thousand=monthly / (minute * 60 * HOURS_A_MONTH[name]) * 1000,
                passes=offered is None or minute >= offered,
            )
        )
    return found
