"""What ties an answer and its log lines together; telemetry writes it into each line.

What ties both to a trace is the current span (speakfit.tracing).
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

request_id: ContextVar[str | None] = ContextVar("speakfit_request_id", default=None)
"""Of the request that this task or thread works on; None outside of requests."""


def known_request_id(given: str | None) -> str:
    """What a caller sent, kept when well-formed, made anew when not."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)
