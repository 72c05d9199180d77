"""What ties an answer, its log lines and its trace together; telemetry writes it into each line."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """The request that is being worked on; ids are lower-case hexadecimal, as W3C writes them."""

    request_id: str
    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The form of https://www.w3.org/TR/trace-context/#traceparent-header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


current: ContextVar[Correlation | None] = ContextVar("speakfit_correlation", default=None)
"""Of the request that this task or thread works on; None outside of requests."""


def correlate(*, request_id: str | None, traceparent: str | None) -> Correlation:
    """From what a caller sent: kept when well-formed, made anew when not.

    The trace goes on with the caller's id, in a span of its own.
    """
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return Correlation(
        request_id=request_id
        if request_id is not None and _REQUEST_ID.fullmatch(request_id)
        else secrets.token_hex(16),
        trace_id=found[1] if found else secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        sampled=bool(found and int(found[3], 16) & 1),
    )
