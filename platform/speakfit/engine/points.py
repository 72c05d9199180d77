"""Points of time series in columns: numbers or distributions, with the key they belong to.

Numbers are float64 columns, so an INT64 beyond 2**53 loses its last digits; the store keeps the
written points, the engine only calculates with them. BOOL is 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speakfit.errors import InvalidArgument

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Labels = tuple[tuple[str, str], ...]
NEVER = int(np.iinfo(np.int64).min // 2)
"""A time before all others; no difference to it overflows."""


class MetricKind(StrEnum):
    """How the points of a metric relate to time (google.api.MetricDescriptor.MetricKind)."""

    GAUGE = "GAUGE"
    DELTA = "DELTA"
    CUMULATIVE = "CUMULATIVE"


class ValueType(StrEnum):
    """What one point holds (google.api.MetricDescriptor.ValueType)."""

    BOOL = "BOOL"
    INT64 = "INT64"
    DOUBLE = "DOUBLE"
    STRING = "STRING"
    DISTRIBUTION = "DISTRIBUTION"


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Kind and value type of a metric: all that validation has to know about it."""

    kind: MetricKind
    value_type: ValueType


class Layout(StrEnum):
    """How bucket bounds were declared on the wire."""

    EXPLICIT = "explicit"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Finite boundaries of a histogram: bucket 0 lies below the first, bucket n above the last.

    Buckets include their lower bound and exclude their upper one (facts §2). Two layouts that
    give the same bounds are equal however they were declared.
    """

    bounds: tuple[float, ...]
    layout: Layout = field(default=Layout.EXPLICIT, compare=False)
    step: float = field(default=0.0, compare=False)
    origin: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        if any(not a < b for a, b in zip(self.bounds, self.bounds[1:], strict=False)):
            raise InvalidArgument("Bucket bounds must be strictly increasing.")

    @classmethod
    def explicit(cls, bounds: Iterable[float]) -> Buckets:
        """Bounds as listed."""
        return cls(bounds=tuple(float(bound) for bound in bounds))

    @classmethod
    def linear(cls, *, num_finite_buckets: int, width: float, offset: float) -> Buckets:
        """Bounds `offset + i * width` for i in 0..num_finite_buckets (google.api.Distribution)."""
        if num_finite_buckets < 1 or width <= 0:
            raise InvalidArgument("Linear buckets need a positive number of buckets and width.")
        return cls(
            bounds=tuple(offset + i * width for i in range(num_finite_buckets + 1)),
            layout=Layout.LINEAR,
            step=float(width),
            origin=float(offset),
        )

    @classmethod
    def exponential(cls, *, num_finite_buckets: int, growth_factor: float, scale: float) -> Buckets:
        """Bounds `scale * growth_factor**i` for i in 0..num_finite_buckets."""
        if num_finite_buckets < 1 or growth_factor <= 1 or scale <= 0:
            raise InvalidArgument(
                "Exponential buckets need a positive number of buckets and scale, and a growth "
                "factor greater than 1."
            )
        return cls(
            bounds=tuple(scale * growth_factor**i for i in range(num_finite_buckets + 1)),
            layout=Layout.EXPONENTIAL,
            step=float(growth_factor),
            origin=float(scale),
        )

    @classmethod
    def from_rest(cls, options: Mapping[str, Any]) -> Buckets:
        """Read `bucketOptions` in REST JSON form; an empty mapping means no buckets."""
        if "linearBuckets" in options:
            linear = options["linearBuckets"]
            return cls.linear(
                num_finite_buckets=int(linear.get("numFiniteBuckets", 0)),
                width=float(linear.get("width", 0)),
                offset=float(linear.get("offset", 0)),
            )
        if "exponentialBuckets" in options:
            exponential = options["exponentialBuckets"]
            return cls.exponential(
                num_finite_buckets=int(exponential.get("numFiniteBuckets", 0)),
                growth_factor=float(exponential.get("growthFactor", 0)),
                scale=float(exponential.get("scale", 0)),
            )
        return cls.explicit(options.get("explicitBuckets", {}).get("bounds", ()))

    def to_rest(self) -> dict[str, Any]:
        """`bucketOptions` in REST JSON form, declared the way it was read."""
        if self.layout is Layout.LINEAR:
            return {
                "linearBuckets": {
                    "numFiniteBuckets": len(self.bounds) - 1,
                    "width": self.step,
                    "offset": self.origin,
                }
            }
        if self.layout is Layout.EXPONENTIAL:
            return {
                "exponentialBuckets": {
                    "numFiniteBuckets": len(self.bounds) - 1,
                    "growthFactor": self.step,
                    "scale": self.origin,
                }
            }
        return {"explicitBuckets": {"bounds": list(self.bounds)}}

    def __len__(self) -> int:
        return len(self.bounds) + 1


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One distribution value; `ssd` is the sum of squared deviation from the mean."""

    count: float
    mean: float
    ssd: float
    buckets: Buckets
    bucket_counts: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.bucket_counts) > len(self.buckets):
            raise InvalidArgument("A distribution has more bucket counts than buckets.")


def spread(counts: Floats, source: Buckets, target: Buckets) -> Floats:
    """Counts per bucket of `source` as counts per bucket of `target`.

    `target` holds every bound of `source`. A finite bucket that is split spreads its counts
    evenly, which is what the linear percentile assumes; outer buckets go whole to the target
    bucket beside their bound (assumed; rules.py "merging of bucket layouts").
    """
    if source == target:
        return counts
    low, high = np.array(source.bounds), np.array(target.bounds)
    result = np.zeros((*counts.shape[:-1], len(target)))
    if not len(low):
        # Without bounds nothing is known about where the values lie.
        return result
    first = int(np.searchsorted(high, low[0]))
    last = int(np.searchsorted(high, low[-1]))
    result[..., first] += counts[..., 0]
    result[..., last + 1] += counts[..., -1]
    for index in range(1, len(low)):
        begin = int(np.searchsorted(high, low[index - 1]))
        end = int(np.searchsorted(high, low[index]))
        width = low[index] - low[index - 1]
        for piece in range(begin, end):
            share = (high[piece + 1] - high[piece]) / width
            result[..., piece + 1] += counts[..., index] * share
    return result


def union(layouts: Iterable[Buckets]) -> Buckets:
    """The layout that holds every bound of all of them."""
    distinct = list(dict.fromkeys(layouts))
    if len(distinct) == 1:
        return distinct[0]
    return Buckets.explicit(sorted({bound for layout in distinct for bound in layout.bounds}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Distributions:
    """A column of distributions that share one bucket layout; a NaN count means no point."""

    buckets: Buckets
    count: Floats
    mean: Floats
    ssd: Floats
    counts: Floats
    """Shape (points, buckets)."""

    @classmethod
    def of(cls, values: Sequence[Distribution]) -> Distributions:
        """Gather single values; differing layouts are spread over their union."""
        layout = union(value.buckets for value in values) if values else Buckets(bounds=())
        counts = np.zeros((len(values), len(layout)))
        for row, value in enumerate(values):
            padded = np.zeros(len(value.buckets))
            padded[: len(value.bucket_counts)] = value.bucket_counts
            counts[row] = spread(padded, value.buckets, layout)
        return cls(
            buckets=layout,
            count=np.array([value.count for value in values], dtype=np.float64),
            mean=np.array([value.mean for value in values], dtype=np.float64),
            ssd=np.array([value.ssd for value in values], dtype=np.float64),
            counts=counts,
        )

    @classmethod
    def joined(cls, columns: Sequence[Distributions]) -> Distributions:
        """One column after the other; all have the same buckets."""
        if len(columns) == 1:
            return columns[0]
        return cls(
            buckets=columns[0].buckets,
            count=np.concatenate([column.count for column in columns]),
            mean=np.concatenate([column.mean for column in columns]),
            ssd=np.concatenate([column.ssd for column in columns]),
            counts=np.concatenate([column.counts for column in columns]),
        )

    def over(self, layout: Buckets) -> Distributions:
        """The same column over a layout that holds all its bounds."""
        if layout == self.buckets:
            return self
        return Distributions(
            buckets=layout,
            count=self.count,
            mean=self.mean,
            ssd=self.ssd,
            counts=spread(self.counts, self.buckets, layout),
        )

    def take(self, rows: NDArray[Any]) -> Distributions:
        """Some of the points, by index or mask."""
        return Distributions(
            buckets=self.buckets,
            count=self.count[rows],
            mean=self.mean[rows],
            ssd=self.ssd[rows],
            counts=self.counts[rows],
        )

    def at(self, row: int) -> Distribution:
        """One point as a value."""
        return Distribution(
            count=float(self.count[row]),
            mean=float(self.mean[row]),
            ssd=float(self.ssd[row]),
            buckets=self.buckets,
            bucket_counts=tuple(float(count) for count in self.counts[row]),
        )

    def __len__(self) -> int:
        return len(self.count)


def _labels(mapping: Mapping[str, str]) -> Labels:
    return tuple(sorted((str(key), str(value)) for key, value in mapping.items()))


@dataclass(frozen=True, kw_only=True, order=True)
class SeriesKey:
    """What identifies one time series: metric, resource and metadata, labels sorted."""

    metric_type: str
    metric_labels: Labels = ()
    resource_type: str = ""
    resource_labels: Labels = ()
    system_labels: Labels = ()
    user_labels: Labels = ()

    @classmethod
    def of(
        cls,
        *,
        metric_type: str,
        metric_labels: Mapping[str, str] | None = None,
        resource_type: str = "",
        resource_labels: Mapping[str, str] | None = None,
        system_labels: Mapping[str, str] | None = None,
        user_labels: Mapping[str, str] | None = None,
    ) -> SeriesKey:
        """A key from label mappings in any order."""
        return cls(
            metric_type=metric_type,
            metric_labels=_labels(metric_labels or {}),
            resource_type=resource_type,
            resource_labels=_labels(resource_labels or {}),
            system_labels=_labels(system_labels or {}),
            user_labels=_labels(user_labels or {}),
        )

    @cached_property
    def _hash(self) -> int:
        return hash(
            (
                self.metric_type,
                self.metric_labels,
                self.resource_type,
                self.resource_labels,
                self.system_labels,
                self.user_labels,
            )
        )

    def __hash__(self) -> int:
        # Keys are looked up at every edge of every series of a replay.
        return self._hash

    @cached_property
    def metric(self) -> dict[str, str]:
        """Metric labels as a mapping."""
        return dict(self.metric_labels)

    @cached_property
    def resource(self) -> dict[str, str]:
        """Resource labels as a mapping."""
        return dict(self.resource_labels)

    @cached_property
    def system(self) -> dict[str, str]:
        """System metadata labels as a mapping."""
        return dict(self.system_labels)

    @cached_property
    def user(self) -> dict[str, str]:
        """User metadata labels as a mapping."""
        return dict(self.user_labels)

    def to_json(self) -> dict[str, Any]:
        """Metric and resource as the API writes them; metadata only when there is any."""
        result: dict[str, Any] = {
            "metric": {"type": self.metric_type, "labels": dict(self.metric_labels)},
            "resource": {"type": self.resource_type, "labels": dict(self.resource_labels)},
        }
        if self.system_labels or self.user_labels:
            result["metadata"] = {
                "systemLabels": dict(self.system_labels),
                "userLabels": dict(self.user_labels),
            }
        return result

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SeriesKey:
        """Read what to_json wrote."""
        metadata = value.get("metadata", {})
        return cls.of(
            metric_type=value["metric"]["type"],
            metric_labels=value["metric"].get("labels", {}),
            resource_type=value["resource"]["type"],
            resource_labels=value["resource"].get("labels", {}),
            system_labels=metadata.get("systemLabels", {}),
            user_labels=metadata.get("userLabels", {}),
        )


class Keys:
    """The keys of series side by side; made by `of`, they keep what was looked up by them."""

    def __init__(self, each: tuple[SeriesKey, ...]) -> None:
        """Keys in this order."""
        self.each = each

    def __len__(self) -> int:
        return len(self.each)

    @staticmethod
    @lru_cache(maxsize=1_024)
    def of(each: tuple[SeriesKey, ...]) -> Keys:
        """The same object for the same keys in the same order."""
        return Keys(each)

    @cached_property
    def place(self) -> dict[SeriesKey, int]:
        """Where each key is."""
        return {key: place for place, key in enumerate(self.each)}

    def take(self, rows: Ints) -> Keys:
        """Some of the keys."""
        return Keys(tuple(self.each[row] for row in rows.tolist()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One time series in columns, end times strictly ascending.

    A GAUGE point has start = end; a DELTA or CUMULATIVE point covers (start, end].
    Exactly one of `values` and `distributions` is set.
    """

    key: SeriesKey
    kind: MetricKind
    value_type: ValueType
    start_ns: Ints
    end_ns: Ints
    values: Floats | None = None
    distributions: Distributions | None = None

    def __post_init__(self) -> None:
        if (self.values is None) == (self.distributions is None):
            raise ValueError("a series holds numbers or distributions, one of them")
        column = self.values if self.values is not None else self.distributions
        if column is None or not len(column) == len(self.end_ns) == len(self.start_ns):
            raise ValueError("the columns of a series have the same length")
        if len(self.end_ns) > 1 and not bool(np.all(np.diff(self.end_ns) > 0)):
            raise ValueError("end times of a series ascend strictly")

    def __len__(self) -> int:
        return len(self.end_ns)

    @property
    def numbers(self) -> Floats:
        """The values of a series of numbers; a TypeError for distributions."""
        if self.values is None:
            raise TypeError(f"{self.key.metric_type} holds distributions")
        return self.values

    @property
    def histograms(self) -> Distributions:
        """The values of a series of distributions; a TypeError for numbers."""
        if self.distributions is None:
            raise TypeError(f"{self.key.metric_type} holds numbers")
        return self.distributions

    @classmethod
    def of_numbers(
        cls,
        *,
        key: SeriesKey,
        kind: MetricKind,
        value_type: ValueType,
        end_ns: ArrayLike,
        values: ArrayLike,
        start_ns: ArrayLike | None = None,
    ) -> Series:
        """A series of numbers or bools; a gauge needs no start times."""
        ends = np.asarray(end_ns, dtype=np.int64)
        return cls(
            key=key,
            kind=kind,
            value_type=value_type,
            start_ns=ends if start_ns is None else np.asarray(start_ns, dtype=np.int64),
            end_ns=ends,
            values=np.asarray(values, dtype=np.float64),
        )

    @classmethod
    def of_distributions(
        cls,
        *,
        key: SeriesKey,
        kind: MetricKind,
        end_ns: ArrayLike,
        values: Sequence[Distribution] | Distributions,
        start_ns: ArrayLike | None = None,
    ) -> Series:
        """A series of distributions; a gauge needs no start times."""
        ends = np.asarray(end_ns, dtype=np.int64)
        return cls(
            key=key,
            kind=kind,
            value_type=ValueType.DISTRIBUTION,
            start_ns=ends if start_ns is None else np.asarray(start_ns, dtype=np.int64),
            end_ns=ends,
            distributions=values if isinstance(values, Distributions) else Distributions.of(values),
        )
