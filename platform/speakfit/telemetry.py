"""Metrics out, through Google's real exporter and client, to Google or to the emulator; JSON logs.

One `Telemetry` belongs to one process and is made in that process: one inherited by a child would
export its parent's totals again. Its resource carries service.instance.id and never
cloud.platform, so the exporter maps it to generic_task everywhere (docs/decisions.md).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import get_current_span

from speakfit.clock import Clock
from speakfit.correlation import request_id
from speakfit.errors import SpeakFitError, TargetError
from speakfit.metrics import VERSION_LABEL, Instrument, Metric
from speakfit.repetition import OncePerWhile
from speakfit.settings import Settings, release
from speakfit.target import metric_client, policy_clock, resolve_target
from speakfit.totals import Counter, Distribution, Reading, Totals, values_of

NAMESPACE = "speakfit"

_SHORTEST_INTERVAL = timedelta(milliseconds=250)
_GAUGE_LIMIT = timedelta(seconds=1)
_FLUSH_LIMIT = timedelta(seconds=5)
_CLOCK_RETRY = timedelta(seconds=1)

logger = logging.getLogger(__name__)

_LABELS_FIELD = "logging.googleapis.com/labels"
_RELEASE = {VERSION_LABEL: release()}


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
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.resource = _resource(service, location)
        self._exporter = exporter
        self._totals = Totals(_RELEASE)

    @property
    def clock(self) -> Clock | None:
        """The policy clock; None until the target has told it, or when telemetry is off."""
        return self._clock

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float = 1) -> None:
        """Add to a counter; 0 makes the series known, so that its first event can be seen."""
        self.counter(metric, labels).add(amount)

    def record(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Record one measurement in a histogram."""
        self.distribution(metric, labels).record(value)

    def counter(self, metric: Metric, labels: Mapping[str, str]) -> Counter:
        """The series of a counter, known from now on; for what is counted often."""
        return self._totals.counter(metric, labels)

    def distribution(self, metric: Metric, labels: Mapping[str, str]) -> Distribution:
        """The series of a histogram, for what is measured often.

        A notable measurement is logged with its trace: exemplars would be the place for that, but
        Google's exporter drops them.
        """

        def tell(value: float) -> None:
            context = {"metric": metric.name, "value": round(value, 3), "labels": dict(labels)}
            logger.info("exemplar", extra={"context": context})

        return self._totals.distribution(metric, labels, tell)

    def observe(self, metrics: Iterable[Metric], read: Callable[[], Readings]) -> None:
        """Export gauges that `read` answers in its own thread before each export.

        Where it fails or takes over a second nothing is exported for them: an old value would
        hide exactly the trouble it should show.
        """
        for metric in metrics:
            values_of(metric, Instrument.GAUGE, dict.fromkeys(metric.labels, ""))
        self._probes.append(_Probe(read))

    def start(self) -> None:
        """Begin to export; call after the instruments are made."""
        if self._exporter is not None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def shutdown(self) -> None:
        """Export once more and stop; returns within seconds even when the target is gone."""
        if self._exporter is None or self._stop.is_set():
            return
        self._stop.set()
        flush = threading.Thread(target=self._flush, name="telemetry-flush", daemon=True)
        flush.start()
        flush.join(_FLUSH_LIMIT.total_seconds())

    def _flush(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._clock is not None:
            self._export()
        if self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        clock = self._learn_clock()
        if clock is None:
            return
        self._clock = clock
        period = real_interval(self._interval, clock).total_seconds()
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._read_gauges()
            self._export()
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

    def _export(self) -> None:
        assert self._exporter is not None
        gauges = [reading for probe in self._probes for reading in probe.take()]
        try:
            self._exporter.export(self._totals.told(Resource(dict(self.resource)), gauges))
        except Exception:
            logger.exception("metrics could not be exported")


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

    def take(self) -> list[tuple[Metric, Sequence[Reading]]]:
        """What was read, once: nothing is exported twice."""
        with self._lock:
            latest, self._latest = self._latest, {}
        return list(latest.items())


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
    logging.getLogger("opentelemetry.exporter.cloud_monitoring").addFilter(
        OncePerWhile("metrics are not accepted")
    )
    logger.info("telemetry goes to %s", target)
    return make(exporter, lambda: policy_clock(target))


class JsonLines(logging.Formatter):
    """One JSON object a line, in the field names that Cloud Logging reads.

    https://cloud.google.com/logging/docs/structured-logging#special-payload-fields
    """

    def __init__(self, service: str, *, project: str | None = None) -> None:
        super().__init__()
        self._service = service
        self._traces = f"projects/{project}/traces/" if project else ""
        self._labels = _members({"service": service, **_RELEASE})
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        """A line is put together from text, because one is written for every request."""
        line = (
            f'{{"time": "{self._time(record.created)}", "severity": "{record.levelname}", '
            f'"service": "{self._service}", "logger": "{record.name}", '
            f'"message": {_TEXT(record.getMessage())}, {self._correlation(record)}'
        )
        context = getattr(record, "context", None)
        if isinstance(context, str):
            line += ", " + context
        elif context:
            line += ", " + _members(context)
        if record.exc_info and record.exc_info[0] is not None:
            # The frames say where; the text of an exception may hold what a user said.
            line += ", " + _members(
                {
                    "exception": record.exc_info[0].__name__,
                    "stack": traceback.format_tb(record.exc_info[2]),
                }
            )
        return line + "}"

    def _time(self, created: float) -> str:
        whole = int(created)
        second, text = self._second
        if whole != second:
            text = datetime.fromtimestamp(whole, UTC).isoformat()[:19]
            self._second = whole, text
        return f"{text}.{int((created - whole) * 1e6):06d}+00:00"

    def _correlation(self, record: logging.LogRecord) -> str:
        """Of the request and span it is about: those of now, unless it brings its own."""
        labels = self._labels
        request, span = getattr(record, "correlation", None) or (
            request_id.get(),
            get_current_span().get_span_context(),
        )
        if request is not None:
            labels += f', "request_id": "{request}"'
        labels = f'"{_LABELS_FIELD}": {{{labels}}}'
        if not span.is_valid:
            return labels
        return (
            f'{labels}, "logging.googleapis.com/trace": "{self._traces}{span.trace_id:032x}", '
            f'"logging.googleapis.com/spanId": "{span.span_id:016x}", '
            '"logging.googleapis.com/trace_sampled": '
            + ("true" if span.trace_flags.sampled else "false")
        )


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)
_TEXT = json.encoder.encode_basestring


def _members(values: Mapping[str, Any]) -> str:
    """The inside of a JSON object."""
    return _ENCODER.encode(dict(values))[1:-1]


class _Output(logging.StreamHandler[TextIO]):
    """Standard output, by the line or by many lines at once."""

    def write(self, records: Iterable[logging.LogRecord]) -> None:
        text = "".join([self.format(record) + "\n" for record in records])
        with self.lock or nullcontext():
            self.stream.write(text)
            self.flush()


def write_lines(records: Iterable[logging.LogRecord]) -> None:
    """Log many records with one write; each may be the one before, changed."""
    handlers = logging.getLogger().handlers
    if len(handlers) == 1 and isinstance(handlers[0], _Output):
        handlers[0].write(records)
        return
    for record in records:
        for handler in handlers:
            handler.handle(copy(record))


def configure_logging(
    service: str, level: int = logging.INFO, *, project: str | None = None
) -> None:
    """Send every log record to standard output as JSON; called once, at the start.

    With the Google Cloud project that traces belong to, Cloud Logging links a line to its trace.
    """
    # Our lines name none of these, and each is looked up for every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    vars(logging)["logAsyncioTasks"] = False  # since Python 3.12
    output = _Output(sys.stdout)
    output.setFormatter(JsonLines(service, project=project))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
