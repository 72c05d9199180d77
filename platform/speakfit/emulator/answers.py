"""How a failure is told to a caller: Google's code, text and details, and never a traceback."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from speakfit.errors import InvalidArgument, WireError

_LOG = logging.getLogger("speakfit.emulator")

NUMBERS = {
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}
"""google.rpc.Code by name, as far as the emulator answers them."""


class DetailedInvalidArgument(InvalidArgument):
    """An INVALID_ARGUMENT that carries protobuf messages as its status details."""

    def __init__(self, what: str, *, details: tuple[Any, ...]) -> None:
        super().__init__(what)
        self.details = details


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One error answer, ready for either wire."""

    code: str
    http_status: int
    text: str
    details: tuple[Any, ...] = ()

    @property
    def number(self) -> int:
        """The numeric google.rpc.Code."""
        return NUMBERS[self.code]


def failure_of(error: Exception, *, where: str) -> Failure:
    """The answer for an exception; one that was not raised on purpose is logged, not shown."""
    if isinstance(error, WireError):
        return Failure(
            code=error.code,
            http_status=error.http_status,
            text=error.what,
            details=getattr(error, "details", ()),
        )
    if isinstance(error, json_format.SerializeToJsonError):
        # What JSON cannot say came over gRPC; whatever is stored was checked when it was written.
        text = "A duration or a timestamp is out of range."
        return Failure(code="INVALID_ARGUMENT", http_status=400, text=text)
    _LOG.error("%s failed unexpectedly", where, exc_info=error)
    return Failure(code="INTERNAL", http_status=500, text="Internal error encountered.")
