"""Metrics out, through Google's real exporter and client, to Google or to the emulator; JSON logs.

One `Telemetry` belongs to one process and is made in that process: a provider inherited by a
child exports its parent's totals again. Its resource carries service.instance.id and never
cloud.platform, so the exporter maps it to generic_task everywhere (docs/decisions.md).
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from speakfit import correlation
from speakfit.clock import Clock
from speakfit.errors import SpeakFitError, TargetError
from speakfit.metrics import METRICS, VERSION_LABEL, Instrument, Metric
from speakfit.settings import Settings, release
from speakfit.target import metric_client, policy_clock, resolve_target

NAMESPACE = "speakfit"

_SHORTEST_INTERVAL = timedelta(milliseconds=250)
_GAUGE_LIMIT = timedelta(seconds=1)
_FLUSH_LIMIT = timedelta(seconds=5)
_CLOCK_RETRY = timedelta(seconds=1)
_REPEAT_LOG_AFTER = timedelta(seconds=30)

logger = logging.getLogger(__name__)

_LABELS_FIELD = "logging.googleapis.com/labels"
_RELEASE = {VERSION_LABEL: release()}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One value of a gauge and its labels."""

    value: float
    labels: Mapping[str, str]


Readings = Mapping[Metric, Sequence[Reading]]


def real_interval(policy_interval: timedelta, clock: Clock) -> timedelta:
    """The real time between two exports or heartbeats; never under 250 ms."""
    return max(policy_interval / clock.scale, _SHORTEST_INTERVAL)


class Telemetry:
    """The instruments of one process and the thread that exports them.

    Without a target it accepts everything and exports nothing. Export errors are logged, never
    raised: a service does not stop because its telemetry does.
    """

    def __init__(
        self,
        *,
        service: str,
        location: str,
        exporter: MetricExporter | None,
        clock: Callable[[], Clock],
        interval: timedelta,
    ) -> None:
        """`clock` is asked until it answers; it may raise TargetError while the server is away."""
        self._ask_clock = clock
        self._interval = interval
        self._clock: Clock | None = None
        self._probes: list[_Probe] = []
        self._instruments: dict[str, Any] = {}
        self._stop = threading.Event()
        self._provider: MeterProvider | None = None
        self._thread: threading.Thread | None = None
        if exporter is None:
            return
        # An endless interval: the SDK's own thread cannot follow a clock learnt later.
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        self._provider = MeterProvider(
            metric_readers=[self._reader],
            resource=Resource(_resource(service, location)),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
            views=[
                View(
                    instrument_name=metric.name,
                    aggregation=ExplicitBucketHistogramAggregation(
                        boundaries=metric.buckets, record_min_max=False
                    ),
                )
                for metric in METRICS
                if metric.instrument is Instrument.HISTOGRAM
            ],
        )
        self._meter = self._provider.get_meter(NAMESPACE)

    @property
    def clock(self) -> Clock | None:
        """The policy clock; None until the target has told it, or when telemetry is off."""
        return self._clock

    def count(self, metric: Metric, labels: Mapping[str, str], amount: int = 1) -> None:
        """Add to a counter; 0 makes the series known, so that its first event can be seen."""
        self._check(metric, Instrument.COUNTER, labels)
        if self._provider is not None:
            self._instrument(metric).add(amount, {**labels, **_RELEASE})

    def record(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Record one measurement in a histogram."""
        self._check(metric, Instrument.HISTOGRAM, labels)
        if self._provider is not None:
            self._instrument(metric).record(value, {**labels, **_RELEASE})

    def observe(self, metrics: Iterable[Metric], read: Callable[[], Readings]) -> None:
        """Export gauges that `read` answers in its own thread before each export.

        Where it fails or takes over a second nothing is exported for them: an old value would
        hide exactly the trouble it should show.
        """
        probe = _Probe(read)
        for metric in metrics:
            self._check(metric, Instrument.GAUGE, dict.fromkeys(metric.labels, ""))
            if self._provider is not None:
                self._meter.create_observable_gauge(
                    metric.name,
                    callbacks=[probe.callback(metric)],
                    unit=metric.unit,
                    description=metric.description,
                )
        self._probes.append(probe)

    def start(self) -> None:
        """Begin to export; call after the instruments are made."""
        if self._provider is not None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def shutdown(self) -> None:
        """Export once more and stop; returns within seconds even when the target is gone."""
        if self._provider is None or self._stop.is_set():
            return
        self._stop.set()
        flush = threading.Thread(target=self._flush, name="telemetry-flush", daemon=True)
        flush.start()
        flush.join(_FLUSH_LIMIT.total_seconds())

    def _flush(self) -> None:
        if self._thread is not None:
            self._thread.join()
        # Exactly one collection: force_flush and then shutdown would write every point twice.
        if self._clock is not None:
            self._collect()
        if self._provider is not None:
            self._provider.shutdown()

    def _run(self) -> None:
        clock = self._learn_clock()
        if clock is None:
            return
        self._clock = clock
        period = real_interval(self._interval, clock).total_seconds()
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._read_gauges()
            self._collect()
            due = max(due + period, time.monotonic())

    def _learn_clock(self) -> Clock | None:
        while not self._stop.is_set():
            try:
                return self._ask_clock()
            except TargetError as error:
                logger.warning("telemetry waits for its target: %s", error.what)
                self._stop.wait(_CLOCK_RETRY.total_seconds())
        return None

    def _read_gauges(self) -> None:
        for probe in self._probes:
            probe.begin()
        deadline = time.monotonic() + _GAUGE_LIMIT.total_seconds()
        for probe in self._probes:
            probe.wait(max(0.0, deadline - time.monotonic()))

    def _collect(self) -> None:
        try:
            self._reader.collect()
        except Exception:
            logger.exception("metrics could not be exported")

    def _check(self, metric: Metric, instrument: Instrument, labels: Mapping[str, str]) -> None:
        if metric not in METRICS:
            raise ValueError(f"{metric.name} is not declared in speakfit.metrics")
        if metric.instrument is not instrument:
            raise ValueError(f"{metric.name} is a {metric.instrument}, not a {instrument}")
        if set(labels) != set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")

    def _instrument(self, metric: Metric) -> Any:
        found = self._instruments.get(metric.name)
        if found is None:
            make = (
                self._meter.create_counter
                if metric.instrument is Instrument.COUNTER
                else self._meter.create_histogram
            )
            found = make(metric.name, unit=metric.unit, description=metric.description)
            self._instruments[metric.name] = found
        return found


class _Probe:
    """Reads gauges in a thread that may hang without hanging the export."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._latest: dict[Metric, Sequence[Reading]] = {}

    def begin(self) -> None:
        """Forget what was read before and read anew, unless the last reading still hangs."""
        with self._lock:
            self._latest = {}
            if self._thread is not None and self._thread.is_alive():
                # It has had its second already; the other figures need not wait again.
                self._done.set()
                return
            self._done = done = threading.Event()
            self._thread = threading.Thread(
                target=self._work, args=(done,), name="telemetry-gauges", daemon=True
            )
            self._thread.start()

    def wait(self, seconds: float) -> None:
        self._done.wait(seconds)

    def _work(self, done: threading.Event) -> None:
        try:
            readings = dict(self._read())
        except Exception as error:
            logger.warning("gauges could not be read: %s", type(error).__name__)
            readings = {}
        with self._lock:
            self._latest = readings
        done.set()

    def callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """What the SDK calls at collection; each reading is exported once."""

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                readings = self._latest.pop(metric, ())
            for reading in readings:
                value = int(reading.value) if metric.whole else float(reading.value)
                yield Observation(value, {**reading.labels, **_RELEASE})

        return observe


def _resource(service: str, location: str) -> dict[str, str]:
    """What the exporter maps to generic_task{location, namespace, job, task_id}."""
    return {
        "service.name": service,
        "service.namespace": NAMESPACE,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        "cloud.region": location,
    }


def make_telemetry(settings: Settings, *, service: str) -> Telemetry:
    """Telemetry to the target that the settings name; off, with a log line, where they name none.

    A process that cannot reach Google's credentials also stays off and says so: transcribing
    goes on, and the policy telemetry-silent pages.
    """

    def make(exporter: MetricExporter | None, clock: Callable[[], Clock]) -> Telemetry:
        return Telemetry(
            service=service,
            location=settings.speakfit_location,
            exporter=exporter,
            clock=clock,
            interval=settings.export_interval,
        )

    def no_clock() -> Clock:
        raise TargetError("Telemetry is off.")

    if not (settings.monitoring_emulator_host or settings.google_cloud_project):
        logger.warning("telemetry is off: no MONITORING_EMULATOR_HOST and no GOOGLE_CLOUD_PROJECT")
        return make(None, no_clock)
    target = resolve_target(settings)
    try:
        client = metric_client(target)
    except SpeakFitError as error:
        logger.error("telemetry is off: %s", error.what)
        return make(None, no_clock)
    with warnings.catch_warnings():
        # Deprecated upstream since 1.13.0a0; its successor writes another resource type.
        warnings.simplefilter("ignore", DeprecationWarning)
        from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter

        exporter = CloudMonitoringMetricsExporter(project_id=target.project, client=client)
    logging.getLogger("opentelemetry.exporter.cloud_monitoring").addFilter(_OncePerWhile())
    logger.info("telemetry goes to %s", target)
    return make(exporter, lambda: policy_clock(target))


class _OncePerWhile(logging.Filter):
    """One line, not one stack an export, while the target is away."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last < _REPEAT_LOG_AFTER.total_seconds():
            return False
        self._last = now
        cause = record.exc_info[1] if record.exc_info else None
        record.msg = "metrics are not accepted: %s"
        record.args = (str(cause)[:500],)
        record.exc_info = None
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line, in the field names that Cloud Logging reads.

    https://cloud.google.com/logging/docs/structured-logging#special-payload-fields
    """

    def __init__(self, service: str, *, project: str | None = None) -> None:
        super().__init__()
        self._service = service
        self._traces = f"projects/{project}/traces/" if project else ""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "severity": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **self._correlation(),
        }
        context = getattr(record, "context", None)
        if isinstance(context, Mapping):
            line.update(context)
        if record.exc_info and record.exc_info[0] is not None:
            # The frames say where; the text of an exception may hold what a user said.
            line["exception"] = record.exc_info[0].__name__
            line["stack"] = traceback.format_tb(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)

    def _correlation(self) -> dict[str, Any]:
        labels = {"service": self._service, **_RELEASE}
        request = correlation.current.get()
        if request is None:
            return {_LABELS_FIELD: labels}
        return {
            _LABELS_FIELD: {**labels, "request_id": request.request_id},
            "logging.googleapis.com/trace": self._traces + request.trace_id,
            "logging.googleapis.com/spanId": request.span_id,
            "logging.googleapis.com/trace_sampled": request.sampled,
        }


def configure_logging(
    service: str, level: int = logging.INFO, *, project: str | None = None
) -> None:
    """Send every log record to standard output as JSON; called once, at the start.

    With the Google Cloud project that traces belong to, Cloud Logging links a line to its trace.
    """
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(JsonLines(service, project=project))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
