"""Runs: stretches of evaluations in which something holds, of one series or of many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speakfit.engine.points import Bools, Ints

NO_TIMES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Stretches of evaluations of one series, each from `first` up to but without `end`."""

    first: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, flags: Bools) -> Runs:
        """The stretches in which a flag is set."""
        first, end = stretches(flags, NO_TIMES)
        return cls(first=first, end=end)

    def flags(self, length: int) -> Bools:
        """The stretches as one flag an evaluation."""
        steps = np.zeros(length + 1, dtype=np.int8)
        steps[self.first] += 1
        steps[self.end] -= 1
        return np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)


@dataclass(frozen=True, kw_only=True, eq=False)
class ManyRuns:
    """The runs of series side by side, in the order of series, then of time."""

    row: Ints
    first: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, flags: Bools) -> ManyRuns:
        """The stretches in which flags are set, by series and evaluation."""
        rows, length = flags.shape
        padded = np.zeros((rows, length + 1), dtype=np.bool_)
        padded[:, :length] = flags
        begins, ends = stretches(padded.ravel(), NO_TIMES)
        row = begins // (length + 1)
        return cls(row=row, first=begins - row * (length + 1), end=ends - row * (length + 1))

    def under(self, rows: Ints) -> ManyRuns:
        """The same runs where the series are these rows of more."""
        return ManyRuns(row=rows[self.row], first=self.first, end=self.end)

    def by_row(self, rows: Sequence[int]) -> Iterator[Runs]:
        """The runs of each of some series."""
        begins = np.searchsorted(self.row, rows, side="left").tolist()
        ends = np.searchsorted(self.row, rows, side="right").tolist()
        for begin, end in zip(begins, ends, strict=True):
            yield Runs(first=self.first[begin:end], end=self.end[begin:end])


NO_RUNS = Runs(first=NO_TIMES, end=NO_TIMES)
NO_MANY_RUNS = ManyRuns(row=NO_TIMES, first=NO_TIMES, end=NO_TIMES)


def stretches(flags: Bools, cuts: Ints) -> tuple[Ints, Ints]:
    """Where flags begin and end to be set, a stretch ending at each of the cuts at the latest."""
    edges = np.flatnonzero(flags[1:] != flags[:-1]) + 1
    begins, ends = edges[flags[edges]], edges[~flags[edges]]
    if len(cuts):
        cuts = np.unique(cuts[(cuts > 0) & (cuts < len(flags))])
        cuts = cuts[flags[cuts] & flags[cuts - 1]]
        begins, ends = np.sort(np.append(begins, cuts)), np.sort(np.append(ends, cuts))
    if len(flags) and flags[0]:
        begins = np.append(0, begins)
    if len(flags) and flags[-1]:
        ends = np.append(ends, len(flags))
    return begins, ends
