"""What policies remember between evaluations, on disk for the next start.

Keys of series are stored once and referred to by number: what is remembered of thousands of
series may change every minute, while the series themselves hardly do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from speakfit.emulator.store import Store
from speakfit.engine.points import SeriesKey
from speakfit.engine.states import States

_STATES = "states"
_KEYS = "stateKeys"

Memory = Mapping[str, States]
"""What a policy remembers, by condition name."""


class StoredStates:
    """The memory of every policy, and the numbers of the keys in it."""

    def __init__(self, store: Store) -> None:
        """Read what is stored."""
        self._store = store
        keys = {
            int(number): SeriesKey.from_json(json.loads(body))
            for number, body in store.documents(_KEYS)
        }
        self._numbers = {key: number for number, key in keys.items()}
        self._last = max(keys, default=0)
        self._memories: dict[str, Memory] = {
            name: {
                condition: States.from_json(states, read=keys.__getitem__)
                for condition, states in json.loads(body).items()
            }
            for name, body in store.documents(_STATES)
        }

    @property
    def memories(self) -> Mapping[str, Memory]:
        """What is stored, by policy name."""
        return self._memories

    def store(self, memories: Mapping[str, Memory]) -> dict[SeriesKey, int]:
        """Put what changed on disk, and what is not there any more off it; part of a transaction.

        Gives the numbers of new keys, for `settle`.
        """
        fresh: dict[SeriesKey, int] = {}

        def number(key: SeriesKey) -> int:
            known = self._numbers.get(key) or fresh.get(key)
            if known is None:
                known = fresh[key] = self._last + len(fresh) + 1
                self._store.put(_KEYS, str(known), json.dumps(key.to_json()).encode())
            return known

        for name, memory in memories.items():
            if memory != self._memories.get(name):
                body = {name: states.to_json(write=number) for name, states in memory.items()}
                self._store.put(_STATES, name, json.dumps(body).encode())
        for name in self._memories.keys() - memories.keys():
            self._store.remove(_STATES, name)
        return fresh

    def settle(self, memories: Mapping[str, Memory], fresh: Mapping[SeriesKey, int]) -> None:
        """Put what was stored into memory, which follows the disk."""
        self._numbers.update(fresh)
        self._last += len(fresh)
        self._memories = dict(memories)

    def forget_keys(self) -> None:
        """Drop the keys that nothing refers to any more."""
        used = {
            key
            for memory in self._memories.values()
            for states in memory.values()
            for key in states.keys.each
        }
        with self._store.transaction():
            for key in self._numbers.keys() - used:
                self._store.remove(_KEYS, str(self._numbers[key]))
        self._numbers = {key: self._numbers[key] for key in used}
