"""Toxics: what may go wrong on a link, in the words of Toxiproxy.

Names, attributes and units are those of its README (github.com/Shopify/toxiproxy); `http_status`
is ours: what a PagerDuty that is itself in trouble answers cannot be said in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from speakfit.errors import FaultError


class Stream(StrEnum):
    """Which way the bytes go that a toxic touches."""

    UPSTREAM = "upstream"
    """From the client to the server."""
    DOWNSTREAM = "downstream"


class ToxicKind(StrEnum):
    """What a toxic does."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"
    SLOW_CLOSE = "slow_close"
    TIMEOUT = "timeout"
    RESET_PEER = "reset_peer"
    SLICER = "slicer"
    LIMIT_DATA = "limit_data"
    HTTP_STATUS = "http_status"


ATTRIBUTES: Mapping[ToxicKind, Mapping[str, float]] = {
    ToxicKind.LATENCY: {"latency": 0, "jitter": 0},
    ToxicKind.BANDWIDTH: {"rate": 0},
    ToxicKind.SLOW_CLOSE: {"delay": 0},
    ToxicKind.TIMEOUT: {"timeout": 0},
    ToxicKind.RESET_PEER: {"timeout": 0},
    ToxicKind.SLICER: {"average_size": 1024, "size_variation": 0, "delay": 0},
    ToxicKind.LIMIT_DATA: {"bytes": 0},
    ToxicKind.HTTP_STATUS: {"status": 503, "retry_after": 0},
}
"""Attributes of each kind and what they are when left out. Times are milliseconds, a slicer's
delay microseconds, `rate` KB a second, sizes bytes, `retry_after` seconds. A timeout of 0 lasts
until the toxic is removed: a black hole."""


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """One thing that goes wrong in one direction of a link.

    `toxicity` is the share of connections it meets; which ones is drawn once a connection.
    """

    kind: ToxicKind
    stream: Stream = Stream.DOWNSTREAM
    toxicity: float = 1.0
    attributes: Mapping[str, float] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        known = ATTRIBUTES[self.kind]
        unknown = sorted(set(self.attributes) - set(known))
        if unknown:
            raise FaultError(
                f"A {self.kind} toxic has no attribute {unknown[0]}.",
                where="attributes",
                todo=f"It has {', '.join(known)}.",
            )
        if not 0 <= self.toxicity <= 1:
            raise FaultError(
                f"A toxicity of {self.toxicity:g} is no share.",
                where="toxicity",
                todo="Name a number from 0 to 1.",
            )
        for name, value in self.attributes.items():
            if not math.isfinite(value) or value < 0:
                raise FaultError(
                    f"{name} of a {self.kind} toxic cannot be {value:g}.",
                    where="attributes",
                    todo="Name a number that is not negative.",
                )
        # Names are unique on a link; Toxiproxy makes them up the same way.
        object.__setattr__(self, "attributes", {**known, **self.attributes})
        object.__setattr__(self, "name", self.name or f"{self.kind}_{self.stream}")

    def __getitem__(self, attribute: str) -> float:
        return self.attributes[attribute]

    def to_json(self) -> dict[str, Any]:
        """As Toxiproxy's HTTP API writes it."""
        body = asdict(self)
        return {"name": body.pop("name"), "type": body.pop("kind"), **body}

    @classmethod
    def parse(cls, body: object) -> Toxic:
        """The opposite of `to_json`; a FaultError names what cannot be read."""
        if not isinstance(body, dict):
            raise _unreadable("a toxic", "an object")
        attributes = body.get("attributes") or {}
        if not isinstance(attributes, dict) or not all(
            isinstance(value, int | float) and not isinstance(value, bool)
            for value in attributes.values()
        ):
            raise _unreadable("attributes", "an object of numbers")
        toxicity = body.get("toxicity", 1.0)
        if not isinstance(toxicity, int | float):
            raise _unreadable("toxicity", "a number from 0 to 1")
        try:
            return cls(
                kind=ToxicKind(str(body.get("type"))),
                stream=Stream(str(body.get("stream") or Stream.DOWNSTREAM)),
                toxicity=float(toxicity),
                attributes=attributes,
                name=str(body.get("name") or ""),
            )
        except ValueError as error:
            raise FaultError(
                f"{str(error)[:1].upper()}{str(error)[1:]}.",
                where="toxic",
                todo=f"Types are {', '.join(ToxicKind)}; streams are {', '.join(Stream)}.",
            ) from error


def _unreadable(what: str, wanted: str) -> FaultError:
    return FaultError(f"{what} must be {wanted}.", where="toxic", todo="See loadtest.faults.toxic.")
