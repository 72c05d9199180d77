"""Series side by side: what has to be done to each of them is done to all at once.

A live evaluation has thousands of series and one time, and numpy takes about as long for one
number as for a thousand. A month has so many times that a single series fills a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speakfit.engine.points import (
    Distributions,
    Floats,
    Ints,
    Keys,
    MetricKind,
    Series,
    ValueType,
)

CELLS = 2**16
"""So many numbers fit into a fast cache; larger blocks would only cost memory."""
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Series of one metric: the points of the first, then those of the next."""

    series: tuple[Series, ...]
    keys: Keys
    kind: MetricKind
    value_type: ValueType
    first: Ints
    """Where the points of each series begin, and at last where those of the last one end."""
    start_ns: Ints
    end_ns: Ints
    values: Floats | None
    distributions: Distributions | None

    @classmethod
    def of(cls, series: Sequence[Series]) -> Block:
        """A block of series that agree in kind, value type and buckets."""
        one = series[0]
        alone = len(series) == 1
        return cls(
            series=tuple(series),
            keys=Keys.of(tuple(each.key for each in series)),
            kind=one.kind,
            value_type=one.value_type,
            first=np.cumsum([0, *(len(each) for each in series)]),
            start_ns=one.start_ns if alone else np.concatenate([each.start_ns for each in series]),
            end_ns=one.end_ns if alone else np.concatenate([each.end_ns for each in series]),
            values=None
            if one.values is None
            else one.values
            if alone
            else np.concatenate([each.numbers for each in series]),
            distributions=None
            if one.distributions is None
            else Distributions.joined([each.histograms for each in series]),
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    def points(self, row: int) -> slice:
        """Where the points of one series are."""
        return slice(int(self.first[row]), int(self.first[row + 1]))


def block_length(at_ns: Ints, reach_ns: int) -> int:
    """How many series make a block, for evaluations that look back `reach_ns` at most."""
    minutes = (int(at_ns[-1]) - int(at_ns[0]) + reach_ns) // _MINUTE_NS + 1
    return max(1, CELLS // max(minutes, len(at_ns)))


def blocks(series: Iterable[Series], length: int) -> Iterator[Block]:
    """Blocks of at most `length` of the series that have points, which are read once."""
    waiting: dict[tuple[object, ...], list[Series]] = {}
    for one in series:
        if not len(one):
            continue
        buckets = None if one.distributions is None else one.distributions.buckets
        sort = (one.key.metric_type, one.kind, one.value_type, buckets)
        alike = waiting.setdefault(sort, [])
        alike.append(one)
        if len(alike) == length:
            yield Block.of(waiting.pop(sort))
    for alike in waiting.values():
        yield Block.of(alike)
