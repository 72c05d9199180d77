"""What a run measured: latencies by request name, failures apart, what was never answered.

Three latencies are kept. Intended: from when a request was meant to begin, which is what a
person would have waited. Service: from when it was sent. Corrected: service, with the requests
a closed loop would have left out put back (HdrHistogram's correction for coordinated omission).
Histograms keep three digits (Locust's own two turned 2,049 ms into 2,000) up to an hour. All
figures are milliseconds. Ledgers of several processes add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hdrh.histogram import HdrHistogram

LONGEST = timedelta(hours=1)
DIGITS = 3
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
WINDOW_SECONDS = 1
"""The time-line counts in slots of this length."""

_US_PER_MS = 1_000
_LONGEST_US = int(LONGEST.total_seconds() * 1_000_000)


def histogram() -> HdrHistogram:
    """Empty, in microseconds."""
    return HdrHistogram(1, _LONGEST_US, DIGITS)


def _microseconds(milliseconds: float) -> int:
    return max(1, min(_LONGEST_US, round(milliseconds * _US_PER_MS)))


def _three_digits(microseconds: int) -> int:
    step = 10 ** max(0, len(str(microseconds)) - DIGITS)
    return int(round(microseconds / step) * step)


def percentile(counted: Mapping[int, int], share: float) -> float | None:
    """Milliseconds that a share (0 to 100) of the counted microseconds do not exceed."""
    wanted = sum(counted.values()) * share / 100
    reached = 0
    for value in sorted(counted):
        reached += counted[value]
        if reached >= wanted:
            return value / _US_PER_MS
    return None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The figures of one histogram, in milliseconds; None of all where nothing was measured."""

    count: int
    mean: float | None
    highest: float | None
    percentiles: Mapping[float, float]

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean_ms": self.mean,
            "max_ms": self.highest,
            **{f"p{p:g}_ms": value for p, value in self.percentiles.items()},
        }


def latency(found: HdrHistogram) -> Latency:
    """The figures of a histogram."""
    if found.get_total_count() == 0:
        return Latency(count=0, mean=None, highest=None, percentiles={})
    return Latency(
        count=found.get_total_count(),
        mean=round(found.get_mean_value() / _US_PER_MS, 3),
        highest=found.get_max_value() / _US_PER_MS,
        percentiles={p: found.get_value_at_percentile(p) / _US_PER_MS for p in PERCENTILES},
    )


@dataclass(kw_only=True)
class Entry:
    """All that is known about the requests of one name."""

    intended: HdrHistogram = field(default_factory=histogram)
    service: HdrHistogram = field(default_factory=histogram)
    corrected: HdrHistogram = field(default_factory=histogram)
    failed: HdrHistogram = field(default_factory=histogram)
    """How long failures took; never mixed with answers (Locust #1363)."""
    failures: Counter[str] = field(default_factory=Counter)
    """By status or kind of error, a closed vocabulary: never a message of the server."""
    unanswered: int = 0
    """In flight when the run ended: each counts as failed, waiting at least this long."""


@dataclass(kw_only=True)
class Slot:
    """One second of the time-line."""

    started: int = 0
    ok: int = 0
    failed: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    """Intended microseconds to three digits, and how often: windows of them add up quickly."""


@dataclass(kw_only=True)
class Ledger:
    """The measurements of one process, or of all of them added up."""

    entries: dict[str, Entry] = field(default_factory=dict)
    lag: HdrHistogram = field(default_factory=histogram)
    """How late the generator itself was: from intended to actual start."""
    intended: int = 0
    started: int = 0
    dropped: int = 0
    """Not even sent, because too many were in flight."""
    given_up: int = 0
    """Planned, but not even begun: the load ended early, because it had found what it sought."""
    prepared: int = 0
    """Requests before the first arrival, which are in no other figure."""
    accepted: list[str] = field(default_factory=list)
    """Recordings that the API took: none of them may be lost."""
    slots: dict[int, Slot] = field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """The entry of a name, made when first asked for."""
        found = self.entries.get(name)
        if found is None:
            found = self.entries[name] = Entry()
        return found

    def slot(self, seconds: float) -> Slot:
        """The slot of a moment, in seconds since the start of the run."""
        return self.slots.setdefault(int(seconds // WINDOW_SECONDS), Slot())

    def begin(self, at: float, lag_ms: float) -> None:
        """A request was sent."""
        self.started += 1
        self.lag.record_value(_microseconds(lag_ms))
        self.slot(at).started += 1

    def answer(
        self,
        name: str,
        at: float,
        *,
        intended_ms: float,
        service_ms: float,
        every_ms: float | None = None,
    ) -> None:
        """A good answer came at `at` seconds; `every_ms` is the expected gap between requests."""
        entry = self.entry(name)
        intended = _microseconds(intended_ms)
        entry.intended.record_value(intended)
        entry.service.record_value(_microseconds(service_ms))
        if every_ms:
            entry.corrected.record_corrected_value(
                _microseconds(service_ms), _microseconds(every_ms)
            )
        else:
            entry.corrected.record_value(_microseconds(service_ms))
        slot = self.slot(at)
        slot.ok += 1
        slot.latency[_three_digits(intended)] += 1

    def fail(self, name: str, at: float, *, kind: str, intended_ms: float) -> None:
        """A request failed; `kind` is a status or the name of an error."""
        entry = self.entry(name)
        entry.failures[kind] += 1
        entry.failed.record_value(_microseconds(intended_ms))
        self.slot(at).failed += 1

    def abandon(self, name: str, at: float, *, waited_ms: float) -> None:
        """A request was still without an answer at the end; it waited at least so long."""
        entry = self.entry(name)
        entry.unanswered += 1
        entry.failed.record_value(_microseconds(waited_ms))
        self.slot(at).failed += 1

    def add(self, other: Ledger) -> None:
        """Take in what another process measured."""
        for name, theirs in other.entries.items():
            ours = self.entry(name)
            for kind in ("intended", "service", "corrected", "failed"):
                getattr(ours, kind).add(getattr(theirs, kind))
            ours.failures.update(theirs.failures)
            ours.unanswered += theirs.unanswered
        self.lag.add(other.lag)
        self.intended += other.intended
        self.started += other.started
        self.dropped += other.dropped
        self.given_up += other.given_up
        self.prepared += other.prepared
        self.accepted += other.accepted
        for second, theirs_slot in other.slots.items():
            mine = self.slots.setdefault(second, Slot())
            mine.started += theirs_slot.started
            mine.ok += theirs_slot.ok
            mine.failed += theirs_slot.failed
            mine.latency.update(theirs_slot.latency)

    @property
    def answered(self) -> int:
        return sum(entry.intended.get_total_count() for entry in self.entries.values())

    @property
    def failures(self) -> int:
        return sum(entry.failures.total() + entry.unanswered for entry in self.entries.values())

    def total(self, kind: str) -> HdrHistogram:
        """One histogram of all names: `intended`, `service`, `corrected` or `failed`."""
        found = histogram()
        for entry in self.entries.values():
            found.add(getattr(entry, kind))
        return found

    def pack(self) -> dict[str, Any]:
        """JSON for another process; `unpack` is its inverse."""
        return {
            "entries": {
                name: {
                    **{
                        kind: _encode(getattr(entry, kind))
                        for kind in ("intended", "service", "corrected", "failed")
                    },
                    "failures": dict(entry.failures),
                    "unanswered": entry.unanswered,
                }
                for name, entry in self.entries.items()
            },
            "lag": _encode(self.lag),
            "intended": self.intended,
            "started": self.started,
            "dropped": self.dropped,
            "given_up": self.given_up,
            "prepared": self.prepared,
            "accepted": self.accepted,
            "slots": {
                str(second): [
                    slot.started,
                    slot.ok,
                    slot.failed,
                    sorted(slot.latency.items()),
                ]
                for second, slot in self.slots.items()
            },
        }


def _encode(found: HdrHistogram) -> str:
    return str(found.encode().decode("ascii"))


def unpack(packed: Mapping[str, Any]) -> Ledger:
    """The ledger that another process packed."""
    ledger = Ledger(
        lag=HdrHistogram.decode(packed["lag"]),
        intended=packed["intended"],
        started=packed["started"],
        dropped=packed["dropped"],
        given_up=packed["given_up"],
        prepared=packed["prepared"],
        accepted=list(packed["accepted"]),
    )
    for name, entry in packed["entries"].items():
        ledger.entries[name] = Entry(
            **{
                kind: HdrHistogram.decode(entry[kind])
                for kind in ("intended", "service", "corrected", "failed")
            },
            failures=Counter(entry["failures"]),
            unanswered=entry["unanswered"],
        )
    for second, (started, ok, failed, counted) in packed["slots"].items():
        ledger.slots[int(second)] = Slot(
            started=started,
            ok=ok,
            failed=failed,
            latency=Counter(dict(counted)),
        )
    return ledger


def sum_of(ledgers: Iterable[Ledger]) -> Ledger:
    """All of them added up."""
    total = Ledger()
    for ledger in ledgers:
        total.add(ledger)
    return total
