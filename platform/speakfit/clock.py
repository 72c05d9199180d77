"""The clock is passed in, never reached for: real, manual or scaled.

Policy time is the time alert policies live in. On a real clock it is UTC; on a scaled clock it
runs `scale` times faster than real time from a stored anchor, so that an unmodified five-minute
policy is seen to fire in seconds (docs/decisions.md, "Scaled clock").
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_ns(at: datetime) -> int:
    """Nanoseconds since the Unix epoch; exact for a datetime's microseconds."""
    return ((at - _EPOCH) // _MICROSECOND) * 1_000


def from_ns(ns: int) -> datetime:
    """The UTC datetime of nanoseconds since the epoch, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)


class Clock(Protocol):
    """Tells policy time, and how it relates to real time."""

    @property
    def scale(self) -> float:
        """Policy seconds per real second; 1 on a real clock."""

    def now_ns(self) -> int:
        """Policy time in nanoseconds since the Unix epoch."""

    def to_policy_ns(self, real_ns: int) -> int:
        """The policy time of a real instant."""

    def to_real_ns(self, policy_ns: int) -> int:
        """The real instant of a policy time."""


class RealClock:
    """Policy time is UTC."""

    scale: float = 1.0

    def now_ns(self) -> int:
        return time.time_ns()

    def to_policy_ns(self, real_ns: int) -> int:
        return real_ns

    def to_real_ns(self, policy_ns: int) -> int:
        return policy_ns


class ManualClock:
    """Stands still until told; for tests and replays."""

    scale: float = 1.0

    def __init__(self, start: datetime) -> None:
        self._now = to_ns(start)
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            return self._now

    def advance(self, by: timedelta) -> None:
        """Move forward; a negative step is a ValueError because policy time never runs back."""
        if by < timedelta(0):
            raise ValueError("a clock does not run backwards")
        with self._lock:
            self._now += (by // _MICROSECOND) * 1_000

    def to_policy_ns(self, real_ns: int) -> int:
        return real_ns

    def to_real_ns(self, policy_ns: int) -> int:
        return policy_ns


@dataclass(frozen=True, kw_only=True)
class ScaledClock:
    """Runs `scale` times faster than real time since the anchor.

    The map is linear and monotonic, so a cumulative series keeps one start time however often
    it is written. `scale` is a whole number: integer arithmetic keeps every instant exact.
    """

    scale: float
    anchor_real_ns: int
    anchor_policy_ns: int

    def __post_init__(self) -> None:
        if self.scale < 1 or self.scale != int(self.scale):
            raise ValueError(f"scale must be a whole number of at least 1, not {self.scale}")

    def now_ns(self) -> int:
        return self.to_policy_ns(time.time_ns())

    def to_policy_ns(self, real_ns: int) -> int:
        return self.anchor_policy_ns + (real_ns - self.anchor_real_ns) * int(self.scale)

    def to_real_ns(self, policy_ns: int) -> int:
        return self.anchor_real_ns + (policy_ns - self.anchor_policy_ns) // int(self.scale)
