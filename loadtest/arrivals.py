"""When requests are meant to begin: an open arrival process, decided before the first is sent.

A closed loop waits for each answer before it asks again, so a server that stalls is asked less
and looks well: with 10 users a stall of 5 s in 30 left a p95 of 17 ms, open arrivals told 3.6 s
(measured; Locust #646). Times here depend on the profile and the seed alone. Rates are arrivals
per second, offsets are seconds from the start of the run.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from speakfit.errors import LoadError


class Spacing(StrEnum):
    """How arrivals lie around their rate."""

    EVEN = "even"
    POISSON = "poisson"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of time in which the rate goes in a straight line from one value to another."""

    name: str
    duration: timedelta
    rate: float
    """Arrivals per second at its beginning."""
    to_rate: float | None = None
    """Arrivals per second at its end; None keeps the rate."""

    def __post_init__(self) -> None:
        if self.duration <= timedelta(0):
            raise LoadError(
                f"Stage {self.name} lasts no time.", where=self.name, todo="Give it a duration."
            )
        if not (self.rate >= 0 and self.end_rate >= 0 and math.isfinite(self.rate + self.end_rate)):
            raise LoadError(
                f"Stage {self.name} has a rate that is negative or no number.",
                where=self.name,
                todo="Give rates in arrivals per second, 0 or more.",
            )

    @property
    def seconds(self) -> float:
        return self.duration.total_seconds()

    @property
    def end_rate(self) -> float:
        return self.rate if self.to_rate is None else self.to_rate

    @property
    def highest(self) -> float:
        """Arrivals per second at the most."""
        return max(self.rate, self.end_rate)

    @property
    def expected(self) -> float:
        """How many arrivals it has on average."""
        return (self.rate + self.end_rate) / 2 * self.seconds

    def when(self, count: float) -> float:
        """Seconds into the stage at which `count` arrivals are expected to have come.

        Solves rate*t + slope*t*t/2 = count in the form that stays exact for a slope near zero.
        """
        slope = (self.end_rate - self.rate) / self.seconds
        root = math.sqrt(max(0.0, self.rate * self.rate + 2 * slope * count))
        return min(self.seconds, 2 * count / (self.rate + root)) if count > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request that is to begin at `at` seconds, whatever became of those before it."""

    index: int
    at: float
    stage: str


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """The arrivals of a run: stages one after another, or the times of a trace."""

    stages: tuple[Stage, ...] = ()
    spacing: Spacing = Spacing.EVEN
    seed: int = 1
    trace: tuple[float, ...] = field(default=())
    """Offsets to replay instead of stages, rising."""

    def __post_init__(self) -> None:
        if bool(self.stages) == bool(self.trace):
            raise LoadError(
                "Arrivals come from stages or from a trace, one of the two.",
                where="arrivals",
                todo="Give either.",
            )

    @property
    def seconds(self) -> float:
        """How long arrivals come."""
        return self.trace[-1] if self.trace else sum(stage.seconds for stage in self.stages)

    @property
    def expected(self) -> float:
        """How many arrivals there are on average."""
        return len(self.trace) if self.trace else sum(stage.expected for stage in self.stages)

    def all(self) -> Iterator[Arrival]:
        """Every arrival, in order of time; the same for the same profile and seed."""
        if self.trace:
            for index, at in enumerate(self.trace):
                yield Arrival(index=index, at=at, stage="trace")
            return
        counts = self._counts()
        count = next(counts)
        begin = passed = 0.0
        index = 0
        for stage in self.stages:
            while count < passed + stage.expected:
                at = begin + stage.when(count - passed)
                yield Arrival(index=index, at=at, stage=stage.name)
                index += 1
                count = next(counts)
            begin += stage.seconds
            passed += stage.expected

    def _counts(self) -> Iterator[float]:
        """The expected number of arrivals at which each arrival comes.

        Even ones come in the middle of their share. A Poisson process of any rate is one of
        rate 1 in this measure (time-rescaling theorem), so gaps are exponential with mean 1.
        """
        if self.spacing is Spacing.EVEN:
            yield from (k + 0.5 for k in itertools.count())
        source = random.Random(self.seed)
        total = 0.0
        while True:
            total += source.expovariate(1.0)
            yield total

    def shard(self, index: int, of: int) -> Iterator[Arrival]:
        """Every `of`-th arrival from `index` on: all shards together are all arrivals."""
        if not 0 <= index < of:
            raise LoadError(
                f"There is no shard {index} of {of}.", where="arrivals", todo="Count from 0."
            )
        return itertools.islice(self.all(), index, None, of)


def constant(rate: float, duration: timedelta) -> tuple[Stage, ...]:
    """One rate for the whole time."""
    return (Stage(name="constant", duration=duration, rate=rate),)


def ramp(start: float, end: float, duration: timedelta) -> tuple[Stage, ...]:
    """From one rate to another in a straight line."""
    return (Stage(name="ramp", duration=duration, rate=start, to_rate=end),)


def spike(
    rate: float, peak: float, *, before: timedelta, lasting: timedelta, after: timedelta
) -> tuple[Stage, ...]:
    """A steady rate, a sudden higher one, and the steady one again."""
    return (
        Stage(name="before", duration=before, rate=rate),
        Stage(name="spike", duration=lasting, rate=peak),
        Stage(name="after", duration=after, rate=rate),
    )


def read_trace(lines: Iterable[str], where: str) -> tuple[float, ...]:
    """Offsets in seconds, one a line, `#` begins a comment; they are put in order.

    A LoadError names the line that is no time, or a trace without any.
    """
    found: list[float] = []
    for number, line in enumerate(lines, 1):
        bare = line.split("#", 1)[0].strip()
        if not bare:
            continue
        try:
            offset = float(bare)
        except ValueError:
            offset = math.nan
        if not (offset >= 0 and math.isfinite(offset)):
            raise LoadError(
                f"`{bare[:40]}` is no time.",
                where=f"{where}:{number}",
                todo="Write seconds from the start of the run, one a line.",
            )
        found.append(offset)
    if not found:
        raise LoadError("The trace holds no arrival.", where=where, todo="Write one time a line.")
    return tuple(sorted(found))


def trace_file(path: Path) -> tuple[float, ...]:
    """The trace in a file; see `read_trace`."""
    try:
        return read_trace(path.read_text(encoding="utf-8").splitlines(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(
            f"The trace cannot be read: {type(error).__name__}.",
            where=str(path),
            todo="Name a text file.",
        ) from error


def rates(offsets: Sequence[float], width: float = 1.0) -> list[int]:
    """How many arrivals fall into each `width` seconds, from the start on."""
    counts: list[int] = []
    for at in offsets:
        slot = int(at // width)
        counts.extend([0] * (slot + 1 - len(counts)))
        counts[slot] += 1
    return counts
