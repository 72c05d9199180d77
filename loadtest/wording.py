"""How times are told to people."""

from __future__ import annotations

from datetime import timedelta


def minutes(span: timedelta) -> str:
    """A stretch of policy time, `5 min 32 s`."""
    seconds = round(span.total_seconds())
    return f"{seconds // 60} min {seconds % 60:02d} s"
