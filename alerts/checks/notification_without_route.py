"""A policy whose incidents nobody is told about."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.encode import CHANNEL_PREFIX
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """In a file an empty list may be filled in later, so there it is only a warning."""
    if not candidate.enabled:
        return
    listed = candidate.body.get("notificationChannels")
    channels = [str(one) for one in listed] if isinstance(listed, list) else []
    if not channels:
        yield Hit(
            path=("notificationChannels",),
            text="No notification channel is named: an incident opens and nobody is told.",
            level=Level.WARNING if candidate.channels is None else None,
        )
    for index, channel in enumerate(channels):
        # Besides its own a catalog may name channels by the server's names.
        ours = candidate.channels is not None and channel.startswith(CHANNEL_PREFIX)
        if ours and channel not in (candidate.channels or ()):
            yield Hit(
                path=("notificationChannels", index),
                text=f"{channel} is no channel of this catalog.",
            )
    yield from _reminders(candidate, channels)


def _reminders(candidate: Candidate, channels: list[str]) -> Iterator[Hit]:
    strategy = candidate.body.get("alertStrategy")
    listed = strategy.get("notificationChannelStrategy") if isinstance(strategy, dict) else None
    for index, one in enumerate(listed if isinstance(listed, list) else ()):
        names = one.get("notificationChannelNames") if isinstance(one, dict) else None
        for name in names if isinstance(names, list) else ():
            if channels and str(name) not in channels:
                yield Hit(
                    path=("alertStrategy", "notificationChannelStrategy", index),
                    text=f"Reminders are meant for {name}, which is no channel of the policy.",
                )


RULE = Rule(
    id="notification-without-route",
    level=Level.ERROR,
    finds="a policy, or a reminder, that reaches no channel",
    why="The incident is there for whoever happens to look at the console.",
    remedy="Name a channel: a Route for the severity in a catalog, notificationChannels in a file.",
    check=check,
)
