"""When an incident is to be told to which channel: opening, reminders while open, closing.

Pure like the rest: a notifier asks what fell due since it last asked, and a backtest counts the
pages that a month would have brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from speakfit.engine.policies import AlertPolicySpec, Prompt
from speakfit.engine.wire import to_ns


class Occasion(StrEnum):
    """Why a channel is told."""

    OPENED = "opened"
    REMINDED = "reminded"
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True, order=True)
class Notice:
    """One notification to one channel."""

    at_ns: int
    occasion: Occasion
    channel: str


def tells_closing(spec: AlertPolicySpec) -> bool:
    """Whether channels hear of the end of an incident: unless the prompts leave CLOSED out."""
    return not spec.prompts or Prompt.CLOSED in spec.prompts


def renotify_intervals(spec: AlertPolicySpec) -> dict[str, timedelta]:
    """How often each channel is reminded; the shortest interval where several name a channel.

    Only channels of the policy are told anything, whatever a strategy names (alert.proto).
    """
    found: dict[str, timedelta] = {}
    for strategy in spec.renotifications:
        for channel in strategy.channels:
            if channel in spec.notification_channels:
                found[channel] = min(strategy.interval, found.get(channel, strategy.interval))
    return found


def notices(
    spec: AlertPolicySpec,
    *,
    opened_ns: int,
    closed_ns: int | None,
    after_ns: int,
    until_ns: int,
) -> tuple[Notice, ...]:
    """What falls due in (after_ns, until_ns] for an incident; `closed_ns` is None while open.

    Reminders come every interval after the opening, as long as the incident is open.
    """
    found = [
        Notice(at_ns=opened_ns, occasion=Occasion.OPENED, channel=channel)
        for channel in spec.notification_channels
    ]
    end_ns = until_ns if closed_ns is None else min(until_ns, closed_ns - 1)
    for channel, interval in renotify_intervals(spec).items():
        length = to_ns(interval)
        first = max(1, (after_ns - opened_ns) // length + 1)
        found += [
            Notice(at_ns=at_ns, occasion=Occasion.REMINDED, channel=channel)
            for at_ns in range(opened_ns + first * length, end_ns + 1, length)
        ]
    if closed_ns is not None and tells_closing(spec):
        found += [
            Notice(at_ns=closed_ns, occasion=Occasion.CLOSED, channel=channel)
            for channel in spec.notification_channels
        ]
    return tuple(
        sorted(
            (notice for notice in found if after_ns < notice.at_ns <= until_ns),
            key=lambda notice: notice.at_ns,
        )
    )
