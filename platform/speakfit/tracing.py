"""Spans: what one request caused, from the API through the outbox and the broker to the workers.

One trace context goes with a recording: the API's span writes it to the outbox, the relay hands it
to the broker, the worker's span has it as parent, and what that posts carries it on. Names and
attributes follow OpenTelemetry's semantic conventions and hold no parameter of a query and nothing
that a user wrote. A process that never called `begin_tracing`, such as a worker's main process,
makes no spans and passes on what it was given.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from random import getrandbits
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from sqlalchemy import Engine, event

from speakfit.errors import SpeakFitError
from speakfit.repetition import OncePerWhile
from speakfit.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

_LOW_64 = (1 << 64) - 1
_FLUSH_LIMIT = timedelta(seconds=2)
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_QUERY = re.compile(
    r"\s*(?:(UPDATE)\s+\"?(\w+)|(\w+)\b(?:.*?\b(?:FROM|INTO)\s+\"?(\w+))?)", re.DOTALL
)

logger = logging.getLogger(__name__)


class _Tracing:
    """What this process traces with."""

    tracer: Tracer = NoOpTracer()
    provider: Any = None
    bound: int = 0
    """Traces whose id, in its lower half, is below it are sampled; -1 when none may be."""


def begin_tracing(
    settings: Settings, resource: Mapping[str, str], exporter: SpanExporter | None = None
) -> None:
    """Make spans from here on, a share of them for export; without a place for them, none.

    They go to OTEL_EXPORTER_OTLP_ENDPOINT where it is set, else to Google Cloud Trace where a
    project is named and no emulator. Otherwise requests still get trace ids, for the log lines.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    end_tracing()
    exporter = exporter or _exporter(settings)
    # What is not sampled never reaches it.
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource(dict(resource)), shutdown_on_exit=False
    )
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    _Tracing.bound = _bound(settings.otel_traces_sampler_arg) if exporter is not None else -1
    _Tracing.provider = provider
    _Tracing.tracer = provider.get_tracer("speakfit")


def _bound(share: float) -> int:
    return round(share * (_LOW_64 + 1))


def end_tracing() -> None:
    """Export what is left and stop; returns within seconds even when nobody takes it."""
    provider, _Tracing.provider = _Tracing.provider, None
    _Tracing.tracer = NoOpTracer()
    if provider is None:
        return
    flush = threading.Thread(target=provider.shutdown, name="tracing-flush", daemon=True)
    flush.start()
    flush.join(_FLUSH_LIMIT.total_seconds())


def _exporter(settings: Settings) -> SpanExporter | None:
    if settings.otel_exporter_otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        _say_once("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        # Not where: an address may hold a password.
        logger.info("spans go to an OTLP collector")
        return OTLPSpanExporter(
            endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
        )
    if settings.google_cloud_project and not settings.monitoring_emulator_host:
        return _cloud_trace(settings.google_cloud_project)
    return None


def _cloud_trace(project: str) -> SpanExporter | None:
    from google.auth.exceptions import GoogleAuthError
    from opentelemetry.exporter.cloud_trace import CloudTraceSpanExporter

    _say_once("opentelemetry.exporter.cloud_trace")
    make: Callable[..., SpanExporter] = CloudTraceSpanExporter
    try:
        with warnings.catch_warnings():
            # Like the exporter of metrics: its successor is OTLP to Google, not tried yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            exporter = make(project_id=project)
    except (GoogleAuthError, SpeakFitError) as error:
        logger.error("spans go nowhere: %s", type(error).__name__)
        return None
    logger.info("spans go to Cloud Trace, project %s", project)
    return exporter


def _say_once(name: str) -> None:
    exporting = logging.getLogger(name)
    if not exporting.filters:
        exporting.addFilter(OncePerWhile("spans are not accepted"))


def traceparent() -> str | None:
    """The context of the current span as a W3C header; None outside of any."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent(given: str | None) -> Context:
    """The context that a W3C header tells of; an empty one, hence a new trace, where it is bad."""
    found = _TRACEPARENT.fullmatch(given) if given else None
    if found is None or found[1] == "ff":
        return _NO_PARENT
    context = SpanContext(
        trace_id=int(found[2], 16),
        span_id=int(found[3], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(found[4], 16) & TraceFlags.SAMPLED),
    )
    if not context.is_valid:
        return _NO_PARENT
    return set_span_in_context(NonRecordingSpan(context), _NO_PARENT)


_NO_PARENT = set_span_in_context(INVALID_SPAN, context_api.Context())


class span:  # noqa: N801 - reads as what it does: with span("cut"):
    """A span around a block, current in it; an error marks it by its class and nothing else.

    `of` is its parent where that is not the current span.
    """

    __slots__ = ("_made", "_token")

    def __init__(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        of: Context | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        self._made = _start(name, of, kind, attributes)

    def __enter__(self) -> Span:
        self._token = context_api.attach(set_span_in_context(self._made))
        return self._made

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: object
    ) -> None:
        context_api.detach(self._token)
        if kind is not None:
            # The text of an exception may hold what a user said.
            fail(self._made, kind.__name__)
        self._made.end()


def _start(
    name: str, of: Context | None, kind: SpanKind, attributes: Mapping[str, str | int] | None
) -> Span:
    """What the SDK makes, or only the ids that log lines need: most requests are not sampled.

    The decision is that of TraceIdRatioBased within ParentBased, made before the SDK prepares a
    span that it then would not keep.
    """
    if _Tracing.provider is None:
        return _Tracing.tracer.start_span(name, of)
    known = None if of is _NO_PARENT else get_current_span(of).get_span_context()
    if known is None or not known.is_valid:
        trace_id = getrandbits(128)
        if trace_id & _LOW_64 >= _Tracing.bound:
            return NonRecordingSpan(SpanContext(trace_id, getrandbits(64), False))
    elif not known.trace_flags & TraceFlags.SAMPLED or _Tracing.bound < 0:
        return NonRecordingSpan(SpanContext(known.trace_id, getrandbits(64), False))
    return _Tracing.tracer.start_span(name, of, kind, attributes)


def fail(failed: Span, error_type: str) -> None:
    """Mark a span as failed, with a word of bounded variety for why."""
    failed.set_attribute("error.type", error_type)
    failed.set_status(StatusCode.ERROR)


@lru_cache(maxsize=512)
def query_summary(statement: str) -> str:
    """What a statement does and to which table, as the semantic conventions want it."""
    found = _QUERY.match(statement)
    return " ".join(part for part in found.groups() if part) if found else "query"


_SPAN = "_speakfit_span"


def trace_queries(engine: Engine) -> None:
    """A client span for every statement within a recorded span; a name, no text, no parameters."""
    system = engine.dialect.name

    def begin(
        _connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        if context is None or not get_current_span().is_recording():
            return
        summary = query_summary(statement)
        made = _Tracing.tracer.start_span(
            summary,
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": system,
                "db.operation.name": summary.partition(" ")[0],
                "db.query.summary": summary,
            },
        )
        setattr(context, _SPAN, made)

    def end(
        _connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        made: Span | None = getattr(context, _SPAN, None)
        if made is not None:
            made.end()

    def failed(trouble: Any) -> None:
        made: Span | None = getattr(trouble.execution_context, _SPAN, None)
        if made is not None:
            fail(made, type(trouble.original_exception).__name__)
            made.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", failed)
