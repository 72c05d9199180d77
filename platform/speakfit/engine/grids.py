"""Times of points against times of evaluations: what depends on them alone is found once.

Series that one process writes end at the same times, so blocks of them share their grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Literal

import numpy as np

from speakfit.engine.blocks import Block
from speakfit.engine.points import Bools, Floats, Ints, MetricKind

_MINUTE_NS = 60 * 10**9
_SHORTEST_SLOT_NS = 10**9
_KEPT_GRIDS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The points `low` to `high` (exclusive) that end in (t - period, t]; by series and time."""

    low: Ints
    high: Ints

    @cached_property
    def count(self) -> Ints:
        """Points in each window."""
        return self.high - self.low

    @cached_property
    def some(self) -> Bools:
        """Whether a window holds any point."""
        return self.count > 0

    @cached_property
    def _empty(self) -> tuple[Ints, ...]:
        return np.nonzero(~self.some)

    @cached_property
    def divisor(self) -> Floats:
        """Points in each window, 1 for an empty one."""
        return np.maximum(self.count, 1).astype(np.float64)

    def known(self, values: Floats) -> Floats:
        """Values where windows hold points, NaN elsewhere."""
        if not len(self._empty[0]):
            return values
        known = values.copy()
        known[self._empty] = np.nan
        return known

    @cached_property
    def longest(self) -> int:
        """Points of the fullest window."""
        return int(self.count.max(initial=0))

    @cached_property
    def newest(self) -> Ints:
        """Where the last point of each window is; any place for an empty one."""
        return np.maximum(self.high - 1, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """Time cut into equal slots, counted back from evaluations, and the points in each.

    Windows consist of whole slots. Points are folded to slots and slots to windows, always in the
    same order, so that rounding is the same however many windows are folded at once.
    """

    rows: int
    width: int
    chosen: slice | Ints
    """The evaluations at which slots end; others have slots of their own."""
    ends: slice | Ints
    """The last slot of the windows of each of these evaluations."""
    points: slice | Ints
    cells: slice | Ints
    """The row and slot, as one number, of those points."""
    starts: Ints | None
    """Where the points of each cell begin, unless each has a cell of its own."""

    def fill(self, values: Floats, operation: np.ufunc, neutral: float) -> Floats:
        """The points of each slot folded, the neutral value in empty ones; (rows, width, ...)."""
        table = np.full((self.rows * self.width, *values.shape[1:]), neutral)
        chosen = values[self.points]
        table[self.cells] = (
            chosen if self.starts is None else operation.reduceat(chosen, self.starts, axis=0)
        )
        return table.reshape(self.rows, self.width, *values.shape[1:])

    def before(self, slots: int) -> slice | Ints:
        """The slots that lie so many before the last ones of the windows."""
        if isinstance(self.ends, slice):
            return slice(self.ends.start - slots, self.ends.stop - slots, self.ends.step)
        return self.ends - slots


class Fold:
    """Values folded over windows; stretches of 1, 2, 4, ... slots serve windows of any length.

    Unlike with running totals nothing is subtracted, so an infinite or huge value spoils its
    windows only.
    """

    def __init__(self, slots: Slots, values: Floats, operation: np.ufunc, neutral: float) -> None:
        """`neutral` is what changes nothing in the operation."""
        self._slots = slots
        self._operation = operation
        self._stretches = [slots.fill(values, operation, neutral)]
        self._found: dict[int, Floats] = {}

    def over(self, count: int) -> Floats:
        """The fold of `count` slots up to each evaluation; not to be written into."""
        if count not in self._found:
            self._found[count] = self._over(count)
        return self._found[count]

    def _over(self, count: int) -> Floats:
        result: Floats | None = None
        left = count - 1
        for power in range(count.bit_length()):
            if power == len(self._stretches):
                shorter, size = self._stretches[-1], 1 << (power - 1)
                self._stretches.append(self._operation(shorter[:, :-size], shorter[:, size:]))
            if count >> power & 1:
                piece = self._stretches[power][:, self._slots.before(left)]
                result = piece if result is None else self._operation(result, piece)
                left -= 1 << power
        assert result is not None
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Edge:
    """Where times lie in the intervals of series: at the end of one, or inside it.

    The times at `row` and `column` are inside: so much of the interval is `missing`.
    """

    index: Ints
    """The first point not before each time, or the last; by series and time."""
    row: Ints
    column: Ints
    missing: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans:
    """The intervals in which DELTA or CUMULATIVE series grew, without overlap."""

    start: Ints
    begin: Ints
    moved: Ints
    """Where the start time is not that of the point before; such a counter began anew."""
    edges: dict[tuple[int, int], Edge]
    presence: dict[int, Bools]

    def edge(self, grid: Grid, times: Ints) -> Edge:
        """Where times lie; worked out once for series that share their times."""
        name = (int(times[0]), len(times))
        if name not in self.edges:
            index = np.minimum(grid.find(times, side="left"), grid.last)
            # A time on a point takes that point exactly; the others are interpolated.
            row, column = np.nonzero(grid.end.take(index) != times)
            inner = index[row, column]
            begin, end = self.begin[inner], grid.end[inner]
            share = np.clip((times[column] - begin) / (end - begin), 0.0, 1.0)
            self.edges[name] = Edge(index=index, row=row, column=column, missing=1.0 - share)
        return self.edges[name]

    def reached(self, grid: Grid, period_ns: int) -> Bools:
        """Whether any interval in which the series grew reaches into each window."""
        if period_ns not in self.presence:
            low = grid.windows(period_ns).low
            begin = self.begin.take(np.minimum(low, grid.last))
            self.presence[period_ns] = (begin < grid.at) & (low <= grid.last)
        return self.presence[period_ns]


def _find_spans(block: Block) -> Spans:
    """The growth of a first point, and of one after a restart, belongs to the time since it."""
    start, end, heads = block.start_ns, block.end_ns, block.first[:-1]
    previous = np.empty_like(end)
    previous[1:] = end[:-1]
    previous[heads] = start[heads]
    if block.kind is MetricKind.DELTA:
        moved = np.arange(0)
        begin = np.maximum(start, previous)
    else:
        moved = np.flatnonzero(inside(start[1:] != start[:-1], block.first)) + 1
        begin = previous
        begin[moved] = np.maximum(start[moved], previous[moved])
    # An interval of no length would make the growth a step that belongs to two windows.
    return Spans(start=start, begin=np.minimum(begin, end - 1), moved=moved, edges={}, presence={})


def inside(steps: Bools, first: Ints) -> Bools:
    """Flags of the steps from point to point, cleared from one series to the next."""
    steps[first[1:-1] - 1] = False
    return steps


class Grid:
    """Points that end at certain times, seen at the evaluation times.

    Windows and intervals are found when they are first asked for.
    """

    def __init__(self, end_ns: Ints, first: Ints, at_ns: Ints, reach_ns: int) -> None:
        """`first` as in Block; no period is longer than `reach_ns`."""
        self.end = end_ns
        self.first = first
        self.at = at_ns
        self._reach_ns = reach_ns
        self._windows: dict[int, Windows] = {}
        self._slots: dict[tuple[int, int], tuple[Slots, ...]] = {}
        self._spans: dict[MetricKind, Spans] = {}

    @cached_property
    def last(self) -> Ints:
        """The last point of each series, one row each."""
        return self.first[1:, None] - 1

    @cached_property
    def _row(self) -> Ints:
        """The series of each point."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def find(self, times: Ints, *, side: Literal["left", "right"]) -> Ints:
        """The first point of each series after (`right`) or not before (`left`) each time.

        One past the last if there is none; by series and time.
        """
        if len(self.first) == 2:
            found: Ints = np.searchsorted(self.end, times, side=side)[None]
            return found
        # All series in one search: each gets numbers of its own, above those of the one before.
        low, high = int(times[0]) - 1, int(times[-1]) + 1
        above = self._row * (high - low + 1) - low
        sought = np.arange(len(self.first) - 1)[:, None] * (high - low + 1) - low + times
        return np.searchsorted(np.clip(self.end, low, high) + above, sought, side=side)

    @cached_property
    def after(self) -> Ints:
        """The first point after each evaluation time."""
        return self.find(self.at, side="right")

    @cached_property
    def lines(self) -> tuple[Ints, Ints, Floats]:
        """The points around each evaluation, and how far on the way from one to the other it is.

        Before the first and after the last point both are the same.
        """
        older = np.maximum(self.after - 1, self.first[:-1, None])
        newer = np.minimum(self.after, self.last)
        begin = self.end[older]
        length = self.end[newer] - begin
        share = np.divide(self.at - begin, length, out=np.zeros(older.shape), where=length > 0)
        return older, newer, share

    @cached_property
    def _step_ns(self) -> int:
        """Time between evaluations; 0 when they do not come evenly."""
        steps = np.diff(self.at)
        return int(steps[0]) if len(steps) and bool((steps == steps[0]).all()) else 0

    def back(self, period_ns: int) -> int:
        """How many evaluations a period is; all of them when it ends between evaluations.

        What was found for evaluations is known for the times a period before all but so many.
        """
        back, rest = divmod(period_ns, self._step_ns) if self._step_ns else (0, 1)
        return len(self.at) if rest else min(back, len(self.at))

    def fits(self, block: Block) -> bool:
        """Whether the points of another block end at the same times."""
        return self.end is block.end_ns or (
            len(self.end) == len(block.end_ns)
            and bool(np.array_equal(self.first, block.first))
            and bool(np.array_equal(self.end, block.end_ns))
        )

    def windows(self, period_ns: int) -> Windows:
        """The windows of one alignment period."""
        if period_ns not in self._windows:
            back = self.back(period_ns)
            before = self.find(self.at[:back] - period_ns, side="right")
            known = self.after[:, : len(self.at) - back]
            self._windows[period_ns] = Windows(
                low=np.concatenate((before, known), axis=1), high=self.after
            )
        return self._windows[period_ns]

    def slots(self, period_ns: int) -> tuple[tuple[Slots, ...], int]:
        """Slots that the windows of one alignment period consist of, and how many make one."""
        length, reach_ns = gcd(period_ns, _MINUTE_NS), self._reach_ns
        if length < _MINUTE_NS:
            # Rare, and many short slots would be needed for the longest period of all.
            reach_ns = period_ns
        if length < _SHORTEST_SLOT_NS:
            length = period_ns
        name = (length, reach_ns)
        if name not in self._slots:
            phases = self.at % length
            self._slots[name] = (
                (self._cut(slice(None), length, reach_ns),)
                if bool((phases == phases[0]).all())
                else tuple(
                    self._cut(np.flatnonzero(phases == phase), length, reach_ns)
                    for phase in np.unique(phases)
                )
            )
        return self._slots[name], period_ns // length

    def _cut(self, chosen: slice | Ints, length: int, reach_ns: int) -> Slots:
        """Slots of one length, counted back from the chosen evaluations."""
        times = self.at[chosen]
        head = -(-reach_ns // length)
        origin = int(times[0]) - head * length
        width = head + (int(times[-1]) - int(times[0])) // length
        points: slice | Ints
        if len(self.first) == 2:
            points = slice(*np.searchsorted(self.end, [origin, times[-1]], side="right").tolist())
            cells = (self.end[points] - (origin + 1)) // length
        else:
            points = np.flatnonzero((self.end > origin) & (self.end <= times[-1]))
            cells = (self.end[points] - (origin + 1)) // length + self._row[points] * width
        anew = np.append(True, cells[1:] != cells[:-1])[: len(cells)]
        starts = None if anew.all() else np.flatnonzero(anew)
        return Slots(
            rows=len(self.first) - 1,
            width=width,
            chosen=chosen,
            ends=_slice((times - origin) // length - 1),
            points=points,
            cells=_slice(cells if starts is None else cells[starts]),
            starts=starts,
        )

    def spans(self, block: Block) -> Spans:
        """The intervals of a block of this grid."""
        found = self._spans.get(block.kind)
        if found is None or not (
            found.start is block.start_ns or np.array_equal(found.start, block.start_ns)
        ):
            found = _find_spans(block)
            self._spans[block.kind] = found
        return found


def _slice(places: Ints) -> slice | Ints:
    """Places that follow evenly as a slice, which is much quicker to take."""
    if not len(places):
        return places
    first, last = int(places[0]), int(places[-1])
    step = (last - first) // (len(places) - 1) if len(places) > 1 else 1
    if step > 0 and bool((np.diff(places) == step).all()):
        return slice(first, last + 1, step)
    return places


class Grids:
    """The latest few grids, because series of one writer come together or take turns."""

    def __init__(self, at_ns: Ints, reach_ns: int) -> None:
        """Grids for evaluations at these times, with periods of `reach_ns` at most."""
        self._at = at_ns
        self._reach_ns = reach_ns
        self._latest: list[Grid] = []

    def of(self, block: Block) -> Grid:
        """The grid of a block."""
        for grid in self._latest:
            if grid.fits(block):
                return grid
        grid = Grid(block.end_ns, block.first, self._at, self._reach_ns)
        self._latest = [grid, *self._latest[: _KEPT_GRIDS - 1]]
        return grid
