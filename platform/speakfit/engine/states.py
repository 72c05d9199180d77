"""States: what one evaluation remembers of the series of a condition for the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from speakfit.engine.points import NEVER, Bools, Ints, Keys, SeriesKey


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """What one evaluation has to remember of the series of a condition for the next."""

    keys: Keys
    pending_since_ns: Ints
    """When the current run of violations began; NEVER while not violating."""
    last_seen_ns: Ints
    """Last time with data: of a threshold the evaluation, of an absence the point itself."""
    met: Bools

    @classmethod
    def none(cls, keys: Keys, *, last_seen_ns: Ints | None = None) -> States:
        """The states of series of which nothing is known but when they had data, if that."""
        never = np.full(len(keys), NEVER)
        return cls(
            keys=keys,
            pending_since_ns=never,
            last_seen_ns=never.copy() if last_seen_ns is None else last_seen_ns,
            met=np.zeros(len(keys), dtype=np.bool_),
        )

    @classmethod
    def joined(cls, several: Sequence[States]) -> States:
        """One after the other."""
        if len(several) < 2:
            return several[0] if several else NO_STATES
        return cls(
            keys=Keys.of(tuple(key for states in several for key in states.keys.each)),
            pending_since_ns=np.concatenate([states.pending_since_ns for states in several]),
            last_seen_ns=np.concatenate([states.last_seen_ns for states in several]),
            met=np.concatenate([states.met for states in several]),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, States):
            return NotImplemented
        return (
            self.keys.each == other.keys.each
            and np.array_equal(self.pending_since_ns, other.pending_since_ns)
            and np.array_equal(self.last_seen_ns, other.last_seen_ns)
            and np.array_equal(self.met, other.met)
        )

    @property
    def busy(self) -> Bools:
        """Whether a series meets the condition, or violates it and may come to."""
        return self.met | (self.pending_since_ns > NEVER)

    @property
    def only_met(self) -> States:
        """Those of the series that meet the condition."""
        return self.take(np.flatnonzero(self.met))

    def take(self, rows: Ints) -> States:
        """Those of some of the series."""
        if len(rows) == len(self):
            return self
        return States(
            keys=self.keys.take(rows),
            pending_since_ns=self.pending_since_ns[rows],
            last_seen_ns=self.last_seen_ns[rows],
            met=self.met[rows],
        )

    def of(self, keys: Keys) -> States:
        """The states of these series, whether they are known or not."""
        if keys is self.keys:
            return self
        found = States.none(keys)
        if len(self):
            here, there = _common(self.keys, keys)
            found.pending_since_ns[there] = self.pending_since_ns[here]
            found.last_seen_ns[there] = self.last_seen_ns[here]
            found.met[there] = self.met[here]
        return found

    def without(self, judged: Sequence[Keys]) -> States:
        """Those of the series that are in none of these."""
        if not len(self):
            return self
        done: set[SeriesKey] = set()
        for keys in judged:
            done.update(keys.place)
        return self.take(
            np.flatnonzero(np.array([key not in done for key in self.keys.each], dtype=np.bool_))
        )

    def to_json(
        self, *, write: Callable[[SeriesKey], object] = SeriesKey.to_json
    ) -> dict[str, Any]:
        """A JSON object; times as text because JSON numbers end at 2**53, "" for NEVER."""
        return {
            "keys": [write(key) for key in self.keys.each],
            "pendingSinceNs": [_text(time) for time in self.pending_since_ns.tolist()],
            "lastSeenNs": [_text(time) for time in self.last_seen_ns.tolist()],
            "met": self.met.tolist(),
        }

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], *, read: Callable[[Any], SeriesKey] = SeriesKey.from_json
    ) -> States:
        """Read what to_json wrote."""
        return cls(
            keys=Keys.of(tuple(read(key) for key in value["keys"])),
            pending_since_ns=_times(value["pendingSinceNs"]),
            last_seen_ns=_times(value["lastSeenNs"]),
            met=np.array(value["met"], dtype=np.bool_),
        )


def _text(time_ns: int) -> str:
    return "" if time_ns == NEVER else str(time_ns)


def _times(texts: Sequence[str]) -> Ints:
    return np.array([int(text) if text else NEVER for text in texts], dtype=np.int64)


NO_STATES = States.none(Keys.of(()))


@lru_cache(maxsize=256)
def _common(left: Keys, right: Keys) -> tuple[Ints, Ints]:
    """Where the keys that both have are in each."""
    both = [(place, right.place[key]) for place, key in enumerate(left.each) if key in right.place]
    here, there = np.array(both, dtype=np.int64).reshape(-1, 2).T
    return here, there
