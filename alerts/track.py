"""Lays the points of a script along time: start times, running totals, restarts, noise."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from alerts.notation import Literal, Normal, Point, Silence, bucket_counts, moments
from alerts.scenario import Script
from speakfit.engine.points import (
    Buckets,
    Descriptor,
    Distributions,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)


def misfit(
    point: Point, descriptor: Descriptor, script: Script, *, rise: float
) -> tuple[str, str] | None:
    """Why a point cannot be one of the metric, and what to do."""
    wanted = descriptor.value_type
    if isinstance(point, Silence):
        if point is Silence.RESET and descriptor.kind is not MetricKind.CUMULATIVE:
            return "Only a counter can be reset.", "Leave it out."
        return None
    if isinstance(point, (Normal, Literal)):
        if wanted is not ValueType.DISTRIBUTION:
            return f"The metric holds {wanted.value}, no distributions.", "Write numbers."
        if isinstance(point, Literal) and script.noise:
            return "Noise moves a mean; these counts have none.", "Write {mean: ..., n: ...}."
        return None
    if wanted is ValueType.DISTRIBUTION:
        return (
            "The metric holds distributions, no numbers.",
            "Write {mean: 0.2, sd: 0.1, n: 100} or {0.1: 94, 2.4: 6}.",
        )
    if isinstance(point, bool) is not (wanted is ValueType.BOOL):
        return f"The metric holds {wanted.value}.", "Write true and false for BOOL only."
    if wanted is ValueType.INT64 and (point != int(point) or rise != int(rise)):
        return "The metric holds whole numbers.", "Write a whole number."
    falls = point < 0 or rise < 0
    if falls and script.gains:
        return "A counter cannot lose.", "Use reset where it begins anew."
    return None


class Noisy:
    """Adds a script's noise to its points.

    random() and inv_cdf() give the same numbers in every Python; gauss() promises it nowhere.
    """

    def __init__(self, script: Script) -> None:
        self._noise = script.noise
        self._floor = 0.0 if script.gains else None
        self._random = random.Random(script.noise.seed if script.noise else 0)

    def __call__(self, point: Point, descriptor: Descriptor) -> Point:
        if self._noise is None or isinstance(point, (Silence, Literal, bool)):
            return point
        share = min(max(self._random.random(), 1e-12), 1 - 1e-12)
        shift = NormalDist(0.0, self._noise.deviation).inv_cdf(share)
        if isinstance(point, Normal):
            return Normal(mean=point.mean + shift, deviation=point.deviation, count=point.count)
        moved = point + shift if self._floor is None else max(self._floor, point + shift)
        return float(round(moved)) if descriptor.value_type is ValueType.INT64 else moved


class Track:
    """Lays points along time: start times, running totals, restarts."""

    def __init__(
        self, start_ns: int, step_ns: int, descriptor: Descriptor, *, running: bool
    ) -> None:
        """`running` values are totals already."""
        self.steps = 0
        self._start_ns = start_ns
        self._step_ns = step_ns
        self._descriptor = descriptor
        self._running = running
        self._origin = start_ns
        self._total = 0.0
        self._gone = False
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._points: list[float | Normal | Literal] = []
        self._restarts: list[int] = []
        """Indices of the points that begin anew."""

    def add(self, point: Point) -> None:
        """The next export, or its absence."""
        now = self._start_ns + self.steps * self._step_ns
        if point is Silence.RESET:
            self._restart(now)
            return
        self.steps += 1
        if isinstance(point, Silence):
            self._gone = self._gone or point is Silence.GONE
            return
        if self._gone:
            self._restart(now)
        if isinstance(point, (Normal, Literal)):
            value: float | Normal | Literal = point
        elif self._descriptor.kind is not MetricKind.CUMULATIVE:
            value = float(point)
        elif self._running:
            if point < self._total:
                # Writers give a new start time when a counter begins anew.
                self._restart(now)
            self._total = value = float(point)
        else:
            self._total = value = self._total + point
        end = now + self._step_ns
        self._ends.append(end)
        if self._descriptor.kind is MetricKind.GAUGE:
            self._starts.append(end)
        elif self._descriptor.kind is MetricKind.DELTA:
            self._starts.append(now)
        else:
            self._starts.append(self._origin)
        self._points.append(value)

    def _restart(self, now: int) -> None:
        self._origin, self._total, self._gone = now, 0.0, False
        self._restarts.append(len(self._points))

    def series(self, key: SeriesKey, bounds: tuple[float, ...]) -> Series:
        """All of it as a series."""
        kind, value_type = self._descriptor.kind, self._descriptor.value_type
        if value_type is not ValueType.DISTRIBUTION:
            return Series.of_numbers(
                key=key,
                kind=kind,
                value_type=value_type,
                start_ns=self._starts,
                end_ns=self._ends,
                values=np.array(list(self._points), dtype=np.float64),
            )
        return Series.of_distributions(
            key=key,
            kind=kind,
            start_ns=self._starts,
            end_ns=self._ends,
            values=self._histograms(bounds, added=kind is MetricKind.CUMULATIVE),
        )

    def _histograms(self, bounds: tuple[float, ...], *, added: bool) -> Distributions:
        shapes = [one for one in self._points if isinstance(one, (Normal, Literal))]
        table = np.zeros((len(shapes), 3 + len(bounds) + 1))
        for row, shape in enumerate(shapes):
            number, middle, ssd = moments(shape)
            table[row, :3] = number, number * middle, ssd + number * middle * middle
            table[row, 3:] = bucket_counts(shape, bounds)
        if added:
            edges = sorted({0, *(n for n in self._restarts if n < len(shapes)), len(shapes)})
            for first, last in pairwise(edges):
                table[first:last] = np.cumsum(table[first:last], axis=0)
        count, total, squares = table[:, 0], table[:, 1], table[:, 2]
        mean = np.divide(total, count, out=np.zeros(len(table)), where=count > 0)
        return Distributions(
            buckets=Buckets.explicit(bounds),
            count=count,
            mean=mean,
            ssd=np.maximum(squares - total * mean, 0.0),
            counts=table[:, 3:],
        )
