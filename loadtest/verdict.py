"""Whether a run says GO, NO-GO or nothing at all; pure.

INVALID comes before everything: figures of a run that measured too little, sent too late, or whose
two sides disagree prove neither. All times are seconds since the load began, in real time, unless
they are named policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loadtest.contract import Contract, Figure, Limit, MustPage
from loadtest.ledger import Ledger, Slot, latency, percentile
from loadtest.scenarios import Scenario


class Verdict(StrEnum):
    """The three answers of a gate; `code` is its exit code."""

    GO = "GO"
    NO_GO = "NO-GO"
    INVALID = "INVALID"

    @property
    def code(self) -> int:
        return {Verdict.GO: 0, Verdict.NO_GO: 3, Verdict.INVALID: 6}[self]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a measurement may be off by and still count."""

    offered: float = 0.97
    """Least share of the planned requests that were sent."""
    lag_ms: float = 250.0
    """Highest p99 of how late the generator itself was."""
    processor: float = 0.95
    """Highest share of one core that the generator may use on average."""
    counts: float = 0.02
    """Largest gap between requests counted by client and by server."""
    fewest: int = 5
    """Requests that the counts may always differ by."""


@dataclass(frozen=True, kw_only=True)
class PageSeen:
    """One page that came; `resolved` None while it was open at the end."""

    policy: str
    severity: str
    title: str
    at: float
    resolved: float | None
    url: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "severity": self.severity,
            "title": self.title,
            "at_seconds": round(self.at, 1),
            "resolved_seconds": None if self.resolved is None else round(self.resolved, 1),
            "url": self.url,
        }


@dataclass(frozen=True, kw_only=True)
class ServerSide:
    """What Cloud Monitoring has of the same time."""

    requests: int
    """Answers counted by the API since the load began, those of the preparation included."""
    errors: int
    """Of them 5xx."""
    p95: tuple[float, float] | None
    """The bucket that holds the p95 of their durations, in seconds."""
    queue: tuple[tuple[float, float], ...] = ()
    """Depth of the queue over time."""
    chunks: tuple[tuple[float, float], ...] = ()
    """Chunks transcribed since the load began, over time."""
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that one scenario left behind."""

    scenario: Scenario
    contract: Contract
    seconds: float
    """How long load was made."""
    scale: float
    """Policy seconds in a second."""
    planned: int | None
    ledger: Ledger
    processes: int = 1
    ended: int = 1
    """Processes that told what they measured."""
    processor: float | None = None
    """Share of a core that the generator used."""
    server: ServerSide | None = None
    pages: tuple[PageSeen, ...] = ()
    lost: tuple[str, ...] = ()
    """Recordings that were accepted and neither completed nor said why."""
    interrupted: bool = False
    trouble: tuple[str, ...] = ()
    """What could not be read, in words."""
    memory: tuple[tuple[float, float], ...] = ()
    """Resident bytes of the services over time, where they run here."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question that a run was asked; `invalid` says that a no means nothing was proven."""

    name: str
    passed: bool
    told: str
    invalid: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "told": self.told,
            "invalidates": self.invalid,
        }


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on one run and what it rests on."""

    run: Run
    checks: tuple[Check, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        failed = [check for check in self.checks if not check.passed]
        if any(check.invalid for check in failed):
            return Verdict.INVALID
        return Verdict.NO_GO if failed else Verdict.GO


def overall(judgements: Sequence[Judgement], *, interrupted: bool = False) -> Verdict:
    """The worst of all; nothing measured is INVALID."""
    verdicts = {judgement.verdict for judgement in judgements}
    if interrupted or not verdicts or Verdict.INVALID in verdicts:
        return Verdict.INVALID
    return Verdict.NO_GO if Verdict.NO_GO in verdicts else Verdict.GO


def judge(run: Run, budget: Budget = Budget()) -> Judgement:
    """Ask a run all questions."""
    return Judgement(
        run=run,
        checks=(*_measured(run, budget), *_reconciled(run, budget), *_kept(run), *_paged(run)),
    )


def _measured(run: Run, budget: Budget) -> Iterator[Check]:
    ledger = run.ledger
    if run.interrupted:
        yield Check(name="finished", passed=False, told="It was interrupted.", invalid=True)
    for trouble in run.trouble:
        yield Check(name="telemetry", passed=False, told=trouble, invalid=True)
    yield Check(
        name="samples",
        passed=ledger.answered > 0,
        told=f"{ledger.answered:,} requests were answered, {ledger.failures:,} failed.",
        invalid=True,
    )
    yield Check(
        name="processes",
        passed=run.ended >= run.processes,
        told=f"{run.ended} of {run.processes} generating processes told what they measured.",
        invalid=True,
    )
    if run.planned is not None:
        planned = run.planned - ledger.given_up
        share = ledger.started / planned if planned else 0.0
        yield Check(
            name="offered rate",
            passed=share >= budget.offered,
            told=f"{ledger.started:,} of {planned:,} planned requests were sent, "
            f"{ledger.dropped:,} were dropped.",
            invalid=True,
        )
        lag = latency(ledger.lag).percentiles.get(99.0, 0.0)
        yield Check(
            name="schedule lag",
            passed=lag <= budget.lag_ms,
            told=f"p99 {lag:,.1f} ms late, allowed are {budget.lag_ms:g} ms.",
            invalid=True,
        )
    if run.processor is not None:
        yield Check(
            name="generator",
            passed=run.processor <= budget.processor,
            told=f"It used {run.processor:.0%} of a core, allowed are {budget.processor:.0%}.",
            invalid=True,
        )


def _reconciled(run: Run, budget: Budget) -> Iterator[Check]:
    server = run.server
    if server is None:
        yield Check(
            name="telemetry",
            passed=False,
            told="Cloud Monitoring has no request of this time.",
            invalid=True,
        )
        return
    client = with_status(run.ledger) + run.ledger.prepared
    gap = abs(client - server.requests)
    # What was never answered here may have been answered there.
    allowed = max(budget.fewest, budget.counts * client) + without_status(run.ledger)
    yield Check(
        name="counts agree",
        passed=gap <= allowed,
        told=f"The client counts {client:,} answers, the server {server.requests:,}.",
        invalid=True,
    )
    seen = sum(
        number
        for entry in run.ledger.entries.values()
        for kind, number in entry.failures.items()
        if kind.startswith("5")
    )
    yield Check(
        name="errors agree",
        passed=abs(seen - server.errors) <= allowed,
        told=f"The client counts {seen:,} answers of 5xx, the server {server.errors:,}.",
        invalid=True,
    )
    mine = latency(run.ledger.total("service")).percentiles.get(95.0)
    if server.p95 is not None and mine is not None:
        low, high = server.p95
        yield Check(
            name="latencies agree",
            # The client waits for all that the server measures, and some more.
            passed=low * 1000 <= mine * 1.1 + 5,
            told=f"p95 of answers: {mine:,.0f} ms at the client, {low * 1000:g} to "
            f"{high * 1000:g} ms at the server.",
            invalid=True,
        )


def with_status(ledger: Ledger) -> int:
    """Requests that were answered with any status."""
    return sum(
        entry.intended.get_total_count()
        + sum(number for kind, number in entry.failures.items() if kind.isdigit())
        for entry in ledger.entries.values()
    )


def without_status(ledger: Ledger) -> int:
    """Requests that got no answer at all."""
    return sum(
        entry.unanswered
        + sum(number for kind, number in entry.failures.items() if not kind.isdigit())
        for entry in ledger.entries.values()
    )


def _kept(run: Run) -> Iterator[Check]:
    for limit in run.contract.limits:
        yield _limit(run, limit)
    if run.ledger.accepted:
        yield Check(
            name="nothing lost",
            passed=not run.lost,
            told=f"{len(run.lost)} of {len(run.ledger.accepted):,} accepted recordings were lost."
            + (f" The first is {run.lost[0]}." if run.lost else ""),
        )


def _limit(run: Run, limit: Limit) -> Check:
    where = f" in {limit.stage}" if limit.stage else ""
    name = f"{limit.figure} at most {_figure(limit.figure, limit.at_most)}{where}"
    begin, end = span(run, limit.stage)
    worst, at = None, 0.0
    for moment, found in windows(run.ledger, begin, end, limit.window.total_seconds() / run.scale):
        value = figure(found, limit.figure)
        if value is not None and (worst is None or value > worst):
            worst, at = value, moment
    if worst is None:
        return Check(name=name, passed=False, told="Nothing was measured.", invalid=True)
    return Check(
        name=name,
        passed=worst <= limit.at_most,
        told=f"At worst {_figure(limit.figure, worst)}, around {at:.0f} s.",
    )


def _figure(kind: Figure, value: float) -> str:
    if kind is Figure.FAILURES:
        return f"{value:.1%}"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def span(run: Run, stage: str) -> tuple[float, float]:
    """When a stage begins and ends; the whole load without one."""
    at = 0.0
    for one in run.scenario.stages:
        seconds = one.seconds / run.scale
        if one.name == stage:
            return at, at + seconds
        at += seconds
    return 0.0, run.seconds


@dataclass(kw_only=True)
class Window:
    """Some seconds of a run taken together."""

    ok: int = 0
    failed: int = 0
    latency: Counter[int] = field(default_factory=Counter)

    def take(self, slot: Slot) -> None:
        """Add a second."""
        self.ok += slot.ok
        self.failed += slot.failed
        self.latency.update(slot.latency)


def windows(
    ledger: Ledger, begin: float, end: float, seconds: float
) -> Iterator[tuple[float, Window]]:
    """Every window of a length, a second apart, with the time of its middle.

    Answers count when they came: those after the last arrival belong to the last window.
    """
    last = max(ledger.slots, default=0) + 1
    length = max(1, round(seconds))
    first, stop = int(begin), max(int(end), int(begin) + length)
    if end >= last - 1 or stop >= last:
        stop = max(stop, last)
    for at in range(first, max(first + 1, stop - length + 1)):
        found = Window()
        for second in range(at, at + length):
            slot = ledger.slots.get(second)
            if slot is not None:
                found.take(slot)
        yield at + length / 2, found


def figure(window: Window, kind: Figure) -> float | None:
    """A figure of a window; None where there is too little to tell."""
    total = window.ok + window.failed
    if kind is Figure.FAILURES:
        return window.failed / total if total else None
    share = {Figure.P50: 50.0, Figure.P95: 95.0, Figure.P99: 99.0}[kind]
    found = percentile(window.latency, share)
    return None if found is None else found / 1000


def _paged(run: Run) -> Iterator[Check]:
    promised = {page.policy.id for page in run.contract.pages}
    for page in run.contract.pages:
        yield from _promised(run, page)
    allowed = promised | {policy.id for policy in run.contract.may_page}
    false = [page for page in run.pages if page.policy not in allowed]
    told = ", ".join(f"{page.policy or page.title} at {page.at:.0f} s" for page in false)
    yield Check(
        name="no false page",
        passed=not false,
        told=f"These came and were not promised: {told}." if false else "None came.",
    )


def _promised(run: Run, page: MustPage) -> Iterator[Check]:
    name = f"{page.policy.id} pages within {_minutes(page.by.total_seconds())}"
    found = min(
        (one for one in run.pages if one.policy == page.policy.id),
        key=lambda one: one.at,
        default=None,
    )
    if found is None:
        yield Check(name=name, passed=False, told="It did not come.")
        return
    at = found.at * run.scale
    yield Check(
        name=name,
        passed=at <= page.by.total_seconds(),
        told=f"It came {_minutes(at)} after the load began.",
    )
    after = page.resolves_by.total_seconds()
    resolved = None if found.resolved is None else (found.resolved - run.seconds) * run.scale
    yield Check(
        name=f"{page.policy.id} resolves within {_minutes(after)} of the end",
        passed=resolved is not None and resolved <= after,
        told="It is still open."
        if resolved is None
        else f"It resolved {_minutes(max(0.0, resolved))} after the load ended.",
    )


def leads(run: Run) -> Mapping[str, float | None]:
    """Policy seconds from each warning to the critical page of its subject; None: none came."""
    found: dict[str, float | None] = {}
    for page in run.pages:
        if page.severity == "warning" and page.policy.endswith("-warning"):
            subject = page.policy.removesuffix("-warning")
            worse = [one.at for one in run.pages if one.policy == f"{subject}-critical"]
            found[subject] = (min(worse) - page.at) * run.scale if worse else None
    return found


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min".replace(".0 min", " min")
