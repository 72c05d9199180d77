"""The load scenarios, as data: what arrives, how fast, for how long, and what each arrival does.

An open scenario has arrivals; a closed one has users who think between two visits, as a person
does. Rates suit the local stack on two cores. Durations are policy time, which is what alerts
need: a gate on a stack whose clock runs ten times as fast takes a tenth of them. `--rate-factor`
and `--time-factor` of Locust multiply both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from loadtest.arrivals import Arrivals, Spacing, Stage, constant, ramp, spike
from loadtest.visits import VISITS
from speakfit.errors import LoadError

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to load the services."""

    name: str
    what: str
    """One sentence for the list."""
    mix: Mapping[str, float]
    """Visits by name and how often each happens, relative to each other."""
    stages: tuple[Stage, ...] = ()
    spacing: Spacing = Spacing.POISSON
    users: int = 0
    """People at once, in a closed scenario."""
    think: timedelta = timedelta(0)
    """Mean time between two visits of one user."""
    lasting: timedelta = timedelta(0)
    """How long a closed scenario runs; an open one lasts as long as its stages."""
    grace: timedelta = field(default=timedelta(seconds=30))
    """How long answers are waited for at the end."""
    until_slower_than: timedelta | None = None
    """End early once the p95 of three seconds is above, or more than 1 % fail."""
    by_default: bool = True
    """Whether a gate runs it unless told which."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mix) - set(VISITS))
        if unknown or not self.mix:
            raise LoadError(
                f"Scenario {self.name} names no visit that exists: {', '.join(unknown) or 'none'}.",
                where=self.name,
                todo="Choose among " + ", ".join(VISITS) + ".",
            )
        if bool(self.stages) == bool(self.users):
            raise LoadError(
                f"Scenario {self.name} needs stages (open) or users (closed), one of the two.",
                where=self.name,
                todo="Give either.",
            )

    @property
    def load(self) -> str:
        """How much of it, in words."""
        seconds = self.duration.total_seconds()
        if self.users:
            return f"{self.users} users for {seconds:g} s"
        rates = [rate for stage in self.stages for rate in (stage.rate, stage.end_rate)]
        low, high = min(rates), max(rates)
        between = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return f"{between}/s for {seconds:g} s"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.name,
            "what": self.what,
            "seconds": self.duration.total_seconds(),
            "users": self.users or None,
            "stages": [
                {
                    "name": stage.name,
                    "seconds": stage.seconds,
                    "rate": stage.rate,
                    "to_rate": stage.end_rate,
                }
                for stage in self.stages
            ],
        }

    @property
    def duration(self) -> timedelta:
        """How long load is made."""
        if not self.stages:
            return self.lasting
        return sum((stage.duration for stage in self.stages), timedelta(0))

    def arrivals(self, seed: int) -> Arrivals:
        """The arrivals of an open scenario."""
        return Arrivals(stages=self.stages, spacing=self.spacing, seed=seed)

    def scaled(self, *, rate: float = 1.0, duration: float = 1.0) -> Scenario:
        """The same with rates (or users) and durations multiplied."""
        return replace(
            self,
            stages=tuple(
                replace(
                    stage,
                    rate=stage.rate * rate,
                    to_rate=None if stage.to_rate is None else stage.to_rate * rate,
                    duration=stage.duration * duration,
                )
                for stage in self.stages
            ),
            users=round(self.users * rate) or (1 if self.users else 0),
            lasting=self.lasting * duration,
        )


_READS = {"read_status": 6.0, "read_transcript": 2.0, "read_list": 2.0}

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="steady",
            what="Reads and a few uploads at one rate, well within capacity.",
            mix={**_READS, "send_clip": 0.1},
            stages=constant(30, 6 * MINUTE),
        ),
        Scenario(
            name="ramp",
            what="Reads at a rate that rises until something gives: the capacity.",
            mix=_READS,
            stages=ramp(10, 250, 5 * MINUTE),
            until_slower_than=timedelta(seconds=2),
        ),
        Scenario(
            name="spike",
            what="A calm rate, three times as much at once, and calm again.",
            mix={**_READS, "send_clip": 0.1},
            stages=spike(20, 60, before=2 * MINUTE, lasting=2 * MINUTE, after=3 * MINUTE),
        ),
        Scenario(
            name="uploads",
            what="Uploads and little else, at about what one worker can transcribe.",
            mix={"send_clip": 1.0},
            stages=constant(1, 6 * MINUTE),
        ),
        Scenario(
            name="flood",
            what="More uploads than the workers can do, so that the queue must grow and page.",
            mix={"send_clip": 1.0},
            stages=constant(8, 10 * MINUTE),
        ),
        Scenario(
            name="errors",
            what="A storm of wrong requests: all are refused, and none is an error of ours.",
            mix={"send_noise": 3.0, "read_unknown": 5.0, "come_without_key": 2.0},
            stages=constant(30, 6 * MINUTE),
        ),
        Scenario(
            name="slow",
            what="Clients that take seconds to send what they have, beside normal reads.",
            mix={"read_status": 4.0, "send_slowly": 1.0},
            stages=constant(10, 6 * MINUTE),
        ),
        Scenario(
            name="people",
            what="Users who upload, wait for their transcript, read it, and think.",
            mix={"coach": 1.0, "read_list": 3.0},
            users=8,
            think=timedelta(seconds=4),
            lasting=6 * MINUTE,
        ),
        Scenario(
            name="soak",
            what="Steady work for half an hour: does memory grow, does anything get lost?",
            mix={**_READS, "send_clip": 0.2},
            stages=constant(20, 30 * MINUTE),
            by_default=False,
        ),
    )
}
"""By name, in the order they are listed."""


def find_scenario(name: str) -> Scenario:
    """The scenario of a name; a LoadError lists those there are."""
    found = SCENARIOS.get(name)
    if found is None:
        raise LoadError(
            f"There is no scenario {name}.",
            where="--scenario",
            todo="Choose among " + ", ".join(SCENARIOS) + ".",
        )
    return found
