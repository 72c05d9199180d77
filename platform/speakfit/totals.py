"""The running totals of one process: what its counters and histograms hold, as the SDK tells it.

OpenTelemetry's own aggregation costs a request as much again as everything else that watches it
(docs/decisions.md): it takes a measurement's labels apart each time. Ours are declared, so a
series is found by their values, and only what is exported has the SDK's form.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from speakfit.metrics import METRICS, Instrument, Metric

_DECLARED = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One value of a gauge and its labels."""

    value: float
    labels: Mapping[str, str]


class Counter:
    """One series of a counter; the first look at it makes it known, at zero. Safe in threads."""

    __slots__ = ("_lock", "_whole", "total")

    def __init__(self, metric: Metric) -> None:
        self._lock = threading.Lock()
        self._whole = metric.whole
        # Cloud Monitoring keeps to the type of the first value.
        self.total: float = 0 if metric.whole else 0.0

    def add(self, amount: float = 1) -> None:
        """Count that much more."""
        with self._lock:
            self.total += int(amount) if self._whole else amount


class Distribution:
    """One series of a histogram; the first look at it makes it known, empty. Safe in threads."""

    __slots__ = ("_bounds", "_lock", "_notable", "_tell", "counts", "total")

    def __init__(self, metric: Metric, tell: Callable[[float], None]) -> None:
        """`tell` hears of every measurement that the metric calls notable."""
        self._lock = threading.Lock()
        self._bounds = metric.buckets
        self._notable = metric.notable
        self._tell = tell
        self.counts = [0] * (len(metric.buckets) + 1)
        self.total = 0.0

    def record(self, value: float) -> None:
        """Take one measurement in; one on a bound belongs to the bucket below it."""
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            self.counts[bucket] += 1
            self.total += value
        if value > self._notable:
            self._tell(value)


@dataclass(kw_only=True)
class _Series:
    """All series of one metric, by the values of its labels in the order of their declaration."""

    counters: dict[tuple[str, ...], Counter] = field(default_factory=dict)
    distributions: dict[tuple[str, ...], Distribution] = field(default_factory=dict)


def values_of(metric: Metric, instrument: Instrument, labels: Mapping[str, str]) -> tuple[str, ...]:
    """The values of a metric's labels; a ValueError for what is not declared so."""
    if _DECLARED.get(metric.name) is not metric:
        raise ValueError(f"{metric.name} is not declared in speakfit.metrics")
    if metric.instrument is not instrument:
        raise ValueError(f"{metric.name} is a {metric.instrument}, not a {instrument}")
    try:
        if len(labels) == len(metric.labels):
            return tuple([labels[name] for name in metric.labels])
    except KeyError:
        pass
    raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")


class Totals:
    """Adds up from one start; every series is cumulative since then. Safe in threads."""

    def __init__(self, common: Mapping[str, str]) -> None:
        """`common` are labels that every series carries besides its own."""
        self._common = common
        self._start_ns = time.time_ns()
        self._lock = threading.Lock()
        self._series: defaultdict[str, _Series] = defaultdict(_Series)

    def counter(self, metric: Metric, labels: Mapping[str, str]) -> Counter:
        """The series with these labels; keep it where it is counted often."""
        values = values_of(metric, Instrument.COUNTER, labels)
        with self._lock:
            counters = self._series[metric.name].counters
            return counters.get(values) or counters.setdefault(values, Counter(metric))

    def distribution(
        self, metric: Metric, labels: Mapping[str, str], tell: Callable[[float], None]
    ) -> Distribution:
        """The series with these labels; keep it where it is measured often."""
        values = values_of(metric, Instrument.HISTOGRAM, labels)
        with self._lock:
            distributions = self._series[metric.name].distributions
            return distributions.get(values) or distributions.setdefault(
                values, Distribution(metric, tell)
            )

    def told(
        self, resource: Resource, gauges: Iterable[tuple[Metric, Sequence[Reading]]]
    ) -> sdk.MetricsData:
        """Everything so far, and what the gauges read, in the form that exporters take."""
        now_ns = time.time_ns()
        with self._lock:
            told = [
                _metric(_DECLARED[name], self._data(_DECLARED[name], series, now_ns))
                for name, series in self._series.items()
            ]
        for metric, readings in gauges:
            points = [
                sdk.NumberDataPoint(
                    attributes={**reading.labels, **self._common},
                    start_time_unix_nano=now_ns,
                    time_unix_nano=now_ns,
                    value=int(reading.value) if metric.whole else float(reading.value),
                )
                for reading in readings
            ]
            told.append(_metric(metric, sdk.Gauge(data_points=points)))
        scope = sdk.ScopeMetrics(
            scope=InstrumentationScope("speakfit"), metrics=told, schema_url=""
        )
        return sdk.MetricsData(
            resource_metrics=[
                sdk.ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")
            ]
        )

    def _data(self, metric: Metric, series: _Series, now_ns: int) -> sdk.Sum | sdk.Histogram:
        temporality = sdk.AggregationTemporality.CUMULATIVE
        if metric.instrument is Instrument.COUNTER:
            return sdk.Sum(
                data_points=[
                    sdk.NumberDataPoint(
                        attributes=self._attributes(metric, values),
                        start_time_unix_nano=self._start_ns,
                        time_unix_nano=now_ns,
                        value=counter.total,
                    )
                    for values, counter in series.counters.items()
                ],
                aggregation_temporality=temporality,
                is_monotonic=True,
            )
        return sdk.Histogram(
            data_points=[
                sdk.HistogramDataPoint(
                    attributes=self._attributes(metric, values),
                    start_time_unix_nano=self._start_ns,
                    time_unix_nano=now_ns,
                    count=sum(found.counts),
                    sum=found.total,
                    bucket_counts=tuple(found.counts),
                    explicit_bounds=metric.buckets,
                    # The exporter does not send them.
                    min=0.0,
                    max=0.0,
                )
                for values, found in series.distributions.items()
            ],
            aggregation_temporality=temporality,
        )

    def _attributes(self, metric: Metric, values: tuple[str, ...]) -> dict[str, str]:
        return {**dict(zip(metric.labels, values, strict=True)), **self._common}


def _metric(metric: Metric, data: sdk.Sum | sdk.Histogram | sdk.Gauge) -> sdk.Metric:
    return sdk.Metric(name=metric.name, description=metric.description, unit=metric.unit, data=data)
