"""Every metric SpeakFit exports, declared once, as data.

Instruments (speakfit.telemetry), alert filters (alerts), dashboards, documentation and load-test
assertions read these records; nobody writes a metric string twice. Names follow OpenTelemetry's
semantic conventions where one exists; the Cloud Monitoring type is the exporter's prefix plus the
name, dots kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

PREFIX = "workload.googleapis.com/"
"""What opentelemetry-exporter-gcp-monitoring puts before every name by default."""

RESOURCE_TYPE = "generic_task"
"""The monitored resource every process reports as (docs/decisions.md, "One resource")."""


VERSION_LABEL = "service_version"
"""On every series besides its own labels: which release wrote it, so that a bad one shows."""


EXPORT_INTERVAL = timedelta(seconds=30)
"""How often every process exports, unless its settings say otherwise."""


class Instrument(StrEnum):
    """The OpenTelemetry instrument that records a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class RouteClass(StrEnum):
    """How quick a route is meant to be; only interactive routes page for latency."""

    INTERACTIVE = "interactive"
    STREAMING = "streaming"
    TRANSFER = "transfer"
    COMPUTE = "compute"
    UNMATCHED = "unmatched"
    """No route answered; a scanner's quick 404s must not thin out the percentile that pages."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: its OpenTelemetry name, instrument, UCUM unit, bounded labels and meaning."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=())
    whole: bool = False
    """Values are integers: the series is INT64 in Cloud Monitoring, otherwise DOUBLE."""
    lowest: float = 0.0
    highest: float = math.inf
    """No measured value lies outside these two; a threshold beyond them can never be reached."""

    @property
    def interval(self) -> timedelta:
        """How often a point is written."""
        return EXPORT_INTERVAL

    @property
    def type(self) -> str:
        """The Cloud Monitoring metric type."""
        return PREFIX + self.name

    @property
    def kind(self) -> str:
        """Cloud Monitoring's MetricKind as the exporter writes it."""
        return "GAUGE" if self.instrument is Instrument.GAUGE else "CUMULATIVE"

    @property
    def value_type(self) -> str:
        """Cloud Monitoring's ValueType as the exporter writes it."""
        if self.instrument is Instrument.HISTOGRAM:
            return "DISTRIBUTION"
        return "INT64" if self.whole else "DOUBLE"

    @property
    def exported_keys(self) -> tuple[str, ...]:
        """The keys of all labels as Cloud Monitoring stores them, the release's included."""
        return tuple(sorted([*(self.label_key(label) for label in self.labels), VERSION_LABEL]))

    def label_key(self, label: str) -> str:
        """The key under which Cloud Monitoring stores a label: non-alphanumerics become `_`."""
        if label not in self.labels:
            raise KeyError(f"{self.name} has no label {label}")
        return "".join(c if c.isalnum() else "_" for c in label)


LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5, 10.0, 15.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds. 2 and 5 are exact bounds because they are thresholds: a percentile is interpolated
inside its bucket, so OpenTelemetry's default 1, 2.5, 5 would report 2.4 s for a steady 1.05 s."""

REQUEST_DURATION = Metric(
    name="http.server.request.duration",
    instrument=Instrument.HISTOGRAM,
    unit="s",
    description="Time from a request's first byte to the end of its answer.",
    labels=("http.request.method", "http.route", "http.response.status_code", "route_class"),
    buckets=LATENCY_BUCKETS,
)
REQUESTS = Metric(
    name="speakfit.api.requests",
    instrument=Instrument.COUNTER,
    unit="{request}",
    description="Requests answered, by route and status class (2xx, 3xx, 4xx, 5xx).",
    labels=("http.route", "status_class", "route_class"),
    whole=True,
)
QUEUE_DEPTH = Metric(
    name="speakfit.queue.depth",
    instrument=Instrument.GAUGE,
    unit="{chunk}",
    description="Chunks accepted and not finished, counted in Postgres by every API replica.",
    whole=True,
)
QUEUE_BROKER = Metric(
    name="speakfit.queue.broker",
    instrument=Instrument.GAUGE,
    unit="{message}",
    description="Celery messages waiting or unacknowledged in Redis; a diagnostic beside depth.",
    labels=("state",),
    whole=True,
)
CHUNKS = Metric(
    name="speakfit.transcribe.chunks",
    instrument=Instrument.COUNTER,
    unit="{chunk}",
    description="Chunks transcribed and stored, by outcome; its rate is the throughput.",
    labels=("outcome",),
    whole=True,
)
WORKERS_ALIVE = Metric(
    name="speakfit.worker.alive",
    instrument=Instrument.GAUGE,
    unit="{worker}",
    description="Workers whose heartbeat in Postgres is fresh; zero too, by every API replica.",
    whole=True,
)
DATABASE_CONNECTIONS = Metric(
    name="speakfit.database.connections",
    instrument=Instrument.GAUGE,
    unit="1",
    description="Connections in use as a share of those allowed, 0 to 1, all clients together.",
    highest=1.0,
)

METRICS: tuple[Metric, ...] = (
    REQUEST_DURATION, REQUESTS, QUEUE_DEPTH, QUEUE_BROKER, CHUNKS, WORKERS_ALIVE,
    DATABASE_CONNECTIONS,
)  # fmt: skip
"""All of them; telemetry makes an instrument for each and refuses any other."""
