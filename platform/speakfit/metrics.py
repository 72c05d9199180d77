"""Every metric SpeakFit exports, declared once, as data, and what its labels may hold.

Instruments (speakfit.telemetry), alert filters (alerts), dashboards, documentation and load-test
assertions read these records; nobody writes a metric string twice. Names follow OpenTelemetry's
semantic conventions where one exists; the Cloud Monitoring type is the exporter's prefix plus the
name, dots kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


class Outcome(StrEnum):
    """How an attempt at a piece of work ended."""

    DONE = "done"
    FAILED = "failed"


class Rejection(StrEnum):
    """Why a request was turned away to protect the service, although nothing was wrong with it."""

    RATE_LIMITED = "rate-limited"
    """Its caller asked more often than allowed (429)."""
    QUEUE_FULL = "queue-full"
    """More work waits than can be done in reasonable time (503)."""


class Pool(StrEnum):
    """Whose pool of database connections it is."""

    API = "api"
    WORKER = "worker"


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
    notable: float = math.inf
    """A measurement above it is logged with its trace, as an exemplar."""
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
    notable=2.0,
)
REQUESTS = Metric(
    name="speakfit.api.requests",
    instrument=Instrument.COUNTER,
    unit="{request}",
    description="Requests answered, by route and status class (2xx, 3xx, 4xx, 5xx).",
    labels=("http.route", "status_class", "route_class"),
    whole=True,
)
REJECTIONS = Metric(
    name="speakfit.api.rejections",
    instrument=Instrument.COUNTER,
    unit="{request}",
    description="Requests turned away to protect the service, by reason.",
    labels=("reason",),
    whole=True,
)
QUEUE_DEPTH = Metric(
    name="speakfit.queue.depth",
    instrument=Instrument.GAUGE,
    unit="{chunk}",
    description="Chunks accepted and not finished, counted in Postgres by every API replica.",
    whole=True,
)
QUEUE_IN_FLIGHT = Metric(
    name="speakfit.queue.in_flight",
    instrument=Instrument.GAUGE,
    unit="{chunk}",
    description="Chunks of the queue's depth that a worker holds.",
    whole=True,
)
QUEUE_OLDEST_AGE = Metric(
    name="speakfit.queue.oldest_age",
    instrument=Instrument.GAUGE,
    unit="s",
    description="Time since the recording of the longest waiting chunk was accepted; 0 if none is.",
)
QUEUE_DRAIN_TIME = Metric(
    name="speakfit.queue.drain_time",
    instrument=Instrument.GAUGE,
    unit="s",
    description="Time to finish the queue's depth at the pace of the last five minutes; a day at "
    "most, which also says that none was finished while one waited that long.",
    highest=86_400.0,
)
QUEUE_DEAD_LETTERS = Metric(
    name="speakfit.queue.dead_letters",
    instrument=Instrument.GAUGE,
    unit="{message}",
    description="Work given up after its last attempt that nobody has settled yet.",
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
PROCESS_DURATION = Metric(
    name="messaging.process.duration",
    instrument=Instrument.HISTOGRAM,
    unit="s",
    description="Time of an attempt at the work that a message asked for, by task and outcome.",
    labels=("messaging.system", "messaging.operation.name", "task", "outcome"),
    buckets=(
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
        300.0, 600.0, 900.0,
    ),
    notable=60.0,
)  # fmt: skip
CHUNKS = Metric(
    name="speakfit.transcribe.chunks",
    instrument=Instrument.COUNTER,
    unit="{chunk}",
    description="Chunks transcribed and stored, by outcome; its rate is the throughput.",
    labels=("outcome",),
    whole=True,
)
AUDIO = Metric(
    name="speakfit.transcribe.audio",
    instrument=Instrument.COUNTER,
    unit="s",
    description="Audio transcribed and stored.",
)
REAL_TIME_FACTOR = Metric(
    name="speakfit.transcribe.real_time_factor",
    instrument=Instrument.HISTOGRAM,
    unit="1",
    description="Time to transcribe a chunk as a share of its length; below 1 is faster than "
    "speech.",
    buckets=(
        0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0,
        5.0, 10.0,
    ),
    notable=1.0,
)  # fmt: skip
MODEL_LOAD_DURATION = Metric(
    name="speakfit.model.load.duration",
    instrument=Instrument.HISTOGRAM,
    unit="s",
    description="Time to load the model, once a process or again after it was idle.",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0),
)
WORKERS_ALIVE = Metric(
    name="speakfit.worker.alive",
    instrument=Instrument.GAUGE,
    unit="{worker}",
    description="Workers whose heartbeat in Postgres is fresh; zero too, by every API replica.",
    whole=True,
)
WORKER_PROCESSES = Metric(
    name="speakfit.worker.processes",
    instrument=Instrument.GAUGE,
    unit="{process}",
    description="Transcribing processes of the live workers.",
    whole=True,
)
WORKER_BUSY = Metric(
    name="speakfit.worker.busy",
    instrument=Instrument.GAUGE,
    unit="{process}",
    description="Transcribing processes at work, by the leases they hold.",
    whole=True,
)
DATABASE_CONNECTIONS = Metric(
    name="speakfit.database.connections",
    instrument=Instrument.GAUGE,
    unit="1",
    description="Connections in use as a share of those allowed, 0 to 1, all clients together.",
    highest=1.0,
)
POOL_CONNECTIONS = Metric(
    name="db.client.connection.count",
    instrument=Instrument.GAUGE,
    unit="{connection}",
    description="Database connections in a process's pool, used and idle.",
    labels=("db.client.connection.pool.name", "db.client.connection.state"),
    whole=True,
)
POOL_MAX = Metric(
    name="db.client.connection.max",
    instrument=Instrument.GAUGE,
    unit="{connection}",
    description="Database connections that a process's pool may open.",
    labels=("db.client.connection.pool.name",),
    whole=True,
)
POOL_PENDING = Metric(
    name="db.client.connection.pending_requests",
    instrument=Instrument.GAUGE,
    unit="{request}",
    description="Threads that wait for a connection of their process's pool.",
    labels=("db.client.connection.pool.name",),
    whole=True,
)

METRICS: tuple[Metric, ...] = (
    REQUEST_DURATION, REQUESTS, REJECTIONS,
    QUEUE_DEPTH, QUEUE_IN_FLIGHT, QUEUE_OLDEST_AGE, QUEUE_DRAIN_TIME, QUEUE_DEAD_LETTERS,
    QUEUE_BROKER, PROCESS_DURATION,
    CHUNKS, AUDIO, REAL_TIME_FACTOR, MODEL_LOAD_DURATION,
    WORKERS_ALIVE, WORKER_PROCESSES, WORKER_BUSY,
    DATABASE_CONNECTIONS, POOL_CONNECTIONS, POOL_MAX, POOL_PENDING,
)  # fmt: skip
"""All of them; telemetry makes an instrument for each and refuses any other."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER_METHOD = "_OTHER"
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")

LABEL_VALUES: Mapping[str, tuple[str, ...]] = {
    "http.request.method": (*METHODS, OTHER_METHOD),
    "route_class": tuple(RouteClass),
    "status_class": STATUS_CLASSES,
    "reason": tuple(Rejection),
    "state": ("waiting", "unacked"),
    "messaging.system": ("celery",),
    "messaging.operation.name": ("process",),
    "task": ("prepare", "transcribe_chunk"),
    "outcome": tuple(Outcome),
    "db.client.connection.pool.name": tuple(Pool),
    "db.client.connection.state": ("used", "idle"),
}
"""Every value that a label may have. None of them comes from a user."""

LABEL_LIMITS: Mapping[str, int] = {
    "http.route": 60,
    "http.response.status_code": 40,
    VERSION_LABEL: 1,
}
"""How many values of a label one process writes at most, where the code has them elsewhere: its
routes' templates, the status codes it answers, its release."""
