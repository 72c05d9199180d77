"""The points of every time series: in columns for the engine, on disk for the next start."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from google.api import distribution_pb2
from google.protobuf import json_format
from numpy.typing import NDArray

from speakfit.emulator.store import Store
from speakfit.engine.points import (
    Buckets,
    Distribution,
    Distributions,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
    union,
)

_NUMBER_TYPES: dict[ValueType, Any] = {
    ValueType.BOOL: np.int8,
    ValueType.INT64: np.int64,
    ValueType.DOUBLE: np.float64,
}


def read_distribution(message: Any) -> Distribution:
    """A google.api.Distribution as the engine's value; InvalidArgument for impossible buckets."""
    return Distribution(
        count=float(message.count),
        mean=message.mean,
        ssd=message.sum_of_squared_deviation,
        buckets=Buckets.from_rest(json_format.MessageToDict(message.bucket_options)),
        bucket_counts=tuple(float(count) for count in message.bucket_counts),
    )


def write_distribution(value: Distribution) -> Any:
    """The engine's value as a google.api.Distribution; fractions of a count are rounded."""
    return distribution_pb2.Distribution(
        count=round(value.count),
        mean=value.mean,
        sum_of_squared_deviation=value.ssd,
        bucket_options=json_format.ParseDict(
            value.buckets.to_rest(), distribution_pb2.Distribution.BucketOptions()
        ),
        bucket_counts=[round(count) for count in value.bucket_counts],
    )


_TAIL = 32
_COUNTS = struct.Struct("<3I")


class Batch:
    """The points of one call on their way to the store: integers, doubles, distributions."""

    def __init__(self) -> None:
        self.integers: list[tuple[StoredSeries, int, int, int]] = []
        self.doubles: list[tuple[StoredSeries, int, int, float]] = []
        self.distributions: list[tuple[StoredSeries, int, int, bytes, Distribution]] = []
        """(series, start_ns, end_ns, value), and for a distribution what it was parsed to."""

    def __len__(self) -> int:
        return len(self.integers) + len(self.doubles) + len(self.distributions)

    def series(self) -> Iterator[StoredSeries]:
        """The series that get a point."""
        for integer in self.integers:
            yield integer[0]
        for double in self.doubles:
            yield double[0]
        for distribution in self.distributions:
            yield distribution[0]

    def to_bytes(self) -> tuple[int, bytes]:
        """The newest end time, and all points in columns."""
        rows: list[tuple[Any, ...]] = [*self.integers, *self.doubles, *self.distributions]
        ends = array("q", [row[2] for row in rows])
        blobs = [row[3] for row in self.distributions]
        return max(ends), b"".join(
            (
                _COUNTS.pack(len(self.integers), len(self.doubles), len(blobs)),
                array("q", [row[0].number for row in rows]).tobytes(),
                array("q", [row[1] for row in rows]).tobytes(),
                ends.tobytes(),
                array("q", [row[3] for row in self.integers]).tobytes(),
                array("d", [row[3] for row in self.doubles]).tobytes(),
                array("I", [len(blob) for blob in blobs]).tobytes(),
                *blobs,
            )
        )

    @staticmethod
    def rows(body: bytes) -> Iterator[tuple[int, int, int, Any]]:
        """(series number, start_ns, end_ns, value) of all points in what to_bytes wrote."""
        integers, doubles, blobs = _COUNTS.unpack_from(body)
        count = integers + doubles + blobs
        offset = _COUNTS.size

        def column(code: str, length: int) -> Any:
            nonlocal offset
            values = array(code)
            end = offset + length * values.itemsize
            values.frombytes(body[offset:end])
            offset = end
            return values

        numbers, starts, ends = (column("q", count) for _ in range(3))
        values: list[Any] = [*column("q", integers), *column("d", doubles)]
        for length in column("I", blobs):
            values.append(body[offset : offset + length])
            offset += length
        yield from zip(numbers, starts, ends, values, strict=True)


class _Column:
    """An array that grows at its end; slices taken earlier stay true."""

    def __init__(self, dtype: Any, width: int | None = None) -> None:
        self._width = width
        self._array: NDArray[Any] = np.empty(self._shape(16), dtype=dtype)
        self.size = 0

    def _shape(self, rows: int) -> tuple[int, ...]:
        return (rows,) if self._width is None else (rows, self._width)

    def append(self, value: Any) -> None:
        if self.size == len(self._array):
            grown = np.empty(self._shape(2 * self.size), dtype=self._array.dtype)
            grown[: self.size] = self._array
            self._array = grown
        self._array[self.size] = value
        self.size += 1

    def extend(self, values: Sequence[Any]) -> None:
        size = self.size + len(values)
        if size > len(self._array):
            grown = np.empty(self._shape(max(size, 2 * self.size)), dtype=self._array.dtype)
            grown[: self.size] = self._array[: self.size]
            self._array = grown
        self._array[self.size : size] = values
        self.size = size

    def keep_from(self, first: int) -> None:
        self._array = self._array[first : max(self.size, first + 16)].copy()
        self.size -= first
        if not len(self._array):
            self._array = np.empty(self._shape(16), dtype=self._array.dtype)

    def view(self, first: int = 0, last: int | None = None) -> NDArray[Any]:
        return self._array[first : self.size if last is None else last]


class _Histograms:
    """A growing column of distributions over one bucket layout."""

    def __init__(self) -> None:
        self._blobs: list[bytes] = []
        self._buckets: Buckets | None = None
        self._moments = _Column(np.float64, 3)
        self._counts = _Column(np.float64, 1)

    def append(self, blob: bytes, value: Distribution) -> None:
        if self._buckets is None:
            self._buckets = value.buckets
            self._counts = _Column(np.float64, len(value.buckets))
        elif value.buckets != self._buckets:
            self._widen(union((self._buckets, value.buckets)))
        single = Distributions.of([value]).over(self._buckets)
        self._counts.append(single.counts[0])
        self._moments.append((value.count, value.mean, value.ssd))
        self._blobs.append(blob)

    def _widen(self, layout: Buckets) -> None:
        assert self._buckets is not None
        wide = self.view(0, len(self._blobs)).over(layout)
        self._counts = _Column(np.float64, len(layout))
        for row in wide.counts:
            self._counts.append(row)
        self._buckets = layout

    def keep_from(self, first: int) -> None:
        self._blobs = self._blobs[first:]
        self._moments.keep_from(first)
        self._counts.keep_from(first)

    def view(self, first: int, last: int) -> Distributions:
        moments = self._moments.view(first, last)
        return Distributions(
            buckets=self._buckets or Buckets(bounds=()),
            count=moments[:, 0],
            mean=moments[:, 1],
            ssd=moments[:, 2],
            counts=self._counts.view(first, last),
        )

    def blob(self, index: int) -> bytes:
        return self._blobs[index]


class StoredSeries:
    """One time series and its points, oldest first; times are policy time."""

    def __init__(
        self,
        *,
        number: int,
        project: str,
        key: SeriesKey,
        kind: MetricKind,
        value_type: ValueType,
    ) -> None:
        self.number = number
        self.project = project
        self.key = key
        self.kind = kind
        self.value_type = value_type
        self._starts = _Column(np.int64)
        self._ends = _Column(np.int64)
        self._numbers: _Column | None = None
        self._histograms: _Histograms | None = None
        if value_type is ValueType.DISTRIBUTION:
            self._histograms = _Histograms()
        else:
            self._numbers = _Column(_NUMBER_TYPES[value_type])
        # Plain integers beside the arrays: the order check runs on every write.
        self.last_start_ns = 0
        self.last_end_ns = 0
        # The newest numbers, not yet in the columns: many are cheaper to add than one.
        self._tail: list[tuple[int, int, float]] = []

    def __len__(self) -> int:
        return self._ends.size + len(self._tail)

    def _fold(self) -> None:
        """Put the newest numbers into the columns; every reader does so first."""
        if self._tail:
            assert self._numbers is not None
            starts, ends, numbers = zip(*self._tail, strict=True)
            self._numbers.extend(numbers)
            self._starts.extend(starts)
            self._ends.extend(ends)
            self._tail.clear()

    def append(
        self, start_ns: int, end_ns: int, value: Any, parsed: Distribution | None = None
    ) -> None:
        """Add the newest point; a distribution comes serialised, and parsed when at hand."""
        if self._histograms is None:
            self.append_number(start_ns, end_ns, value)
            return
        if parsed is None:
            parsed = read_distribution(distribution_pb2.Distribution.FromString(value))
        self._histograms.append(value, parsed)
        self._starts.append(start_ns)
        self._ends.append(end_ns)
        self.last_start_ns, self.last_end_ns = start_ns, end_ns

    def append_number(self, start_ns: int, end_ns: int, value: float) -> None:
        """Add the newest point of a series of numbers."""
        tail = self._tail
        tail.append((start_ns, end_ns, value))
        self.last_start_ns = start_ns
        self.last_end_ns = end_ns
        if len(tail) >= _TAIL:
            self._fold()

    def forget_before(self, before_ns: int) -> None:
        """Drop points that ended before a time."""
        self._fold()
        first = int(np.searchsorted(self._ends.view(), before_ns))
        if first:
            for column in (self._starts, self._ends, self._numbers, self._histograms):
                if column is not None:
                    column.keep_from(first)

    def between(self, after_ns: int, until_ns: int) -> range:
        """Positions of the points whose end time lies in (after, until]."""
        self._fold()
        ends = self._ends.view()
        return range(
            int(np.searchsorted(ends, after_ns, side="right")),
            int(np.searchsorted(ends, until_ns, side="right")),
        )

    def point(self, position: int) -> tuple[int, int, Any]:
        """Start, end and value of one point; a distribution as its serialised message."""
        self._fold()
        if self._histograms is not None:
            value: Any = self._histograms.blob(position)
        else:
            assert self._numbers is not None
            value = self._numbers.view()[position].item()
        return int(self._starts.view()[position]), int(self._ends.view()[position]), value

    def columns(self, positions: range) -> Series:
        """Some points as the engine wants them, without copying."""
        self._fold()
        first, last = positions.start, max(positions.start, positions.stop)
        return Series(
            key=self.key,
            kind=self.kind,
            value_type=self.value_type,
            start_ns=self._starts.view(first, last),
            end_ns=self._ends.view(first, last),
            values=None
            if self._numbers is None
            else self._numbers.view(first, last).astype(np.float64),
            distributions=None if self._histograms is None else self._histograms.view(first, last),
        )


class PointStore:
    """All series; every method runs under the store's lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._series: dict[tuple[str, SeriesKey], StoredSeries] = {}
        self._by_type: dict[tuple[str, str], list[StoredSeries]] = {}
        self._next = 1
        self._load()

    def _load(self) -> None:
        by_number: dict[int, StoredSeries] = {}
        for number, identity in self._store.series():
            body = json.loads(identity)
            series = StoredSeries(
                number=number,
                project=body["project"],
                key=SeriesKey.from_json(body["key"]),
                kind=MetricKind(body["kind"]),
                value_type=ValueType(body["value_type"]),
            )
            by_number[number] = series
            self._index(series)
        self._next = max(self._next, self._store.last_series() + 1)
        for body in self._store.batches():
            for number, start_ns, end_ns, value in Batch.rows(body):
                owner = by_number.get(number)
                # Points of a deleted metric stay in their batch until it is too old.
                if owner is not None:
                    owner.append(start_ns, end_ns, value)

    def _index(self, series: StoredSeries) -> None:
        self._series[series.project, series.key] = series
        self._by_type.setdefault((series.project, series.key.metric_type), []).append(series)
        self._next = max(self._next, series.number + 1)

    def find(self, project: str, key: SeriesKey) -> StoredSeries | None:
        """The series of a key, or None."""
        return self._series.get((project, key))

    def of_type(self, project: str, metric_type: str) -> list[StoredSeries]:
        """All series of a metric type."""
        with self._store.lock:
            return list(self._by_type.get((project, metric_type), ()))

    def types(self, project: str) -> list[str]:
        """The metric types of a project that have series."""
        with self._store.lock:
            return [metric_type for owner, metric_type in self._by_type if owner == project]

    def count(self) -> tuple[int, int]:
        """How many series and points there are."""
        with self._store.lock:
            return len(self._series), sum(len(series) for series in self._series.values())

    def declare(
        self, project: str, key: SeriesKey, kind: MetricKind, value_type: ValueType
    ) -> StoredSeries:
        """The series of a key; a new one is stored, and known once `settle` says so."""
        found = self.find(project, key)
        if found is not None:
            return found
        series = StoredSeries(
            number=self._next, project=project, key=key, kind=kind, value_type=value_type
        )
        identity = {
            "project": project,
            "key": key.to_json(),
            "kind": kind,
            "value_type": value_type,
        }
        self._store.add_series(series.number, json.dumps(identity))
        self._next += 1
        return series

    def store(self, batch: Batch) -> None:
        """Put points on disk, each newer than its series' last; part of a transaction."""
        self._store.add_batch(*batch.to_bytes())

    def settle(self, batch: Batch) -> None:
        """Put stored points into memory, which follows the disk: a refused write leaves no trace.

        The caller holds the store's lock since before `declare`.
        """
        for stored in batch.series():
            if not stored.last_end_ns and (stored.project, stored.key) not in self._series:
                self._index(stored)
        for series, start_ns, end_ns, number in batch.integers:
            series.append_number(start_ns, end_ns, number)
        for series, start_ns, end_ns, value in batch.doubles:
            series.append_number(start_ns, end_ns, value)
        for series, start_ns, end_ns, blob, parsed in batch.distributions:
            series.append(start_ns, end_ns, blob, parsed)

    def drop_type(self, project: str, metric_type: str) -> None:
        """Forget all series of a metric type."""
        with self._store.lock:
            gone = self._by_type.get((project, metric_type), [])
            self._store.drop_series(series.number for series in gone)
            self._by_type.pop((project, metric_type), None)
            for series in gone:
                self._series.pop((project, series.key), None)

    def forget_before(self, before_ns: int) -> None:
        """Drop points older than the retention; series stay known."""
        with self._store.lock:
            self._store.drop_batches(before_ns)
            for series in self._series.values():
                series.forget_before(before_ns)

    def snapshot(
        self,
        project: str,
        *,
        after_ns: int,
        until_ns: int,
        metric_type: str,
        keep: Callable[[SeriesKey], bool] = lambda _key: True,
    ) -> list[Series]:
        """Series of a metric with points in (after, until], as the engine wants them.

        A cumulative series comes with one older point, which its first difference needs.
        """
        with self._store.lock:
            found = []
            for series in self.of_type(project, metric_type):
                if keep(series.key):
                    positions = series.between(after_ns, until_ns)
                    if not len(positions):
                        continue
                    if series.kind is MetricKind.CUMULATIVE:
                        positions = range(max(0, positions.start - 1), positions.stop)
                    found.append(series.columns(positions))
            return found
