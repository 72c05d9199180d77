"""Groups: which series become one when they are reduced, and rows merged group by group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speakfit.engine.points import Ints, Keys, SeriesKey


def group_key(key: SeriesKey, group_by: Sequence[tuple[str, ...]]) -> SeriesKey:
    """What is left of a key after reduction: metric, resource type and the grouped labels."""
    kept: dict[tuple[str, ...], dict[str, str]] = {}
    for path in group_by:
        if len(path) != 3:
            # resource.type and metric.type are always kept; project is the same for all.
            continue
        source = {
            ("metric", "labels"): key.metric,
            ("resource", "labels"): key.resource,
            ("metadata", "system_labels"): key.system,
            ("metadata", "user_labels"): key.user,
        }[path[:2]]
        if path[2] == "*":
            kept.setdefault(path[:2], {}).update(source)
        elif path[2] in source:
            kept.setdefault(path[:2], {})[path[2]] = source[path[2]]
    return SeriesKey.of(
        metric_type=key.metric_type,
        metric_labels=kept.get(("metric", "labels")),
        resource_type=key.resource_type,
        resource_labels=kept.get(("resource", "labels")),
        system_labels=kept.get(("metadata", "system_labels")),
        user_labels=kept.get(("metadata", "user_labels")),
    )


@lru_cache(maxsize=1_024)
def _grouped(keys: Keys, group_by: tuple[tuple[str, ...], ...]) -> tuple[SeriesKey, ...]:
    """The group of each of these series."""
    groups: dict[SeriesKey, SeriesKey] = {}
    found = (group_key(key, group_by) for key in keys.each)
    return tuple(groups.setdefault(group, group) for group in found)


class Groups:
    """Numbers the groups that series fall into, as series come."""

    def __init__(self, group_by: tuple[tuple[str, ...], ...]) -> None:
        """`group_by` as in Aggregation."""
        self._group_by = group_by
        self._number: dict[SeriesKey, int] = {}

    def __len__(self) -> int:
        return len(self._number)

    @property
    def keys(self) -> Keys:
        """The keys of the groups, by number."""
        return Keys.of(tuple(self._number))

    def of(self, keys: Keys) -> Ints:
        """The group of each of these series."""
        number = self._number
        return np.array(
            [number.setdefault(group, len(number)) for group in _grouped(keys, self._group_by)]
        )


class Merging:
    """Rows merged by group with one operation, in the order in which they come."""

    def __init__(self, operation: np.ufunc, neutral: float) -> None:
        """`neutral` is what changes nothing in the operation."""
        self._operation = operation
        self._neutral = neutral
        self._used = 0
        self.rows: NDArray[Any] | None = None

    def of(self, groups: slice) -> NDArray[Any]:
        """The rows of some groups, as far as they have any."""
        return np.zeros((0, 1)) if self.rows is None else self.rows[: self._used][groups]

    def add(self, groups: Ints, rows: NDArray[Any]) -> None:
        """One row for each of the groups."""
        needed = int(groups.max()) + 1
        if needed > self._used:
            self._grow(needed, rows)
        assert self.rows is not None
        if len(rows) <= rows[0].size:
            for group, row in zip(groups.tolist(), rows, strict=True):
                self._operation(self.rows[group], row, out=self.rows[group])
            return
        # Long and narrow: one call for all numbers, which come to each group in the same order.
        width = rows[0].size
        places = groups[:, None] * width + np.arange(width)
        self._operation.at(self.rows.reshape(-1), places.ravel(), rows.ravel())

    def _grow(self, needed: int, like: NDArray[Any]) -> None:
        """Make room; memory that is not used yet costs nothing."""
        if self.rows is None or needed > len(self.rows):
            grown = np.empty((8 * needed, *like.shape[1:]), like.dtype)
            if self.rows is not None:
                grown[: self._used] = self.rows[: self._used]
            self.rows = grown
        self.rows[self._used : needed] = self._neutral
        self._used = needed
