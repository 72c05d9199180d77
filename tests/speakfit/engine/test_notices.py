"""Which channel hears what, and when."""

from __future__ import annotations

from typing import Any

from speakfit.engine.notices import notices
from tests.speakfit.engine.build import MINUTE, policy, threshold

FIRST, SECOND = "projects/p/notificationChannels/1", "projects/p/notificationChannels/2"


def told(
    *, closed: int | None = None, after: int = -1, until: int = 200, **strategy: Any
) -> list[str]:
    """Minute, occasion and number of the channel, of an incident that opens in minute 10."""
    spec = policy(threshold(5), notificationChannels=[FIRST, SECOND], alertStrategy=strategy)
    found = notices(
        spec,
        opened_ns=10 * MINUTE,
        closed_ns=None if closed is None else closed * MINUTE,
        after_ns=after * MINUTE,
        until_ns=until * MINUTE,
    )
    return [f"{one.at_ns // MINUTE} {one.occasion} {one.channel[-1]}" for one in found]


def test_all_channels_hear_of_opening_and_closing_when_no_prompts_are_named() -> None:
    assert told(closed=30) == ["10 opened 1", "10 opened 2", "30 closed 1", "30 closed 2"]


def test_prompts_can_leave_the_closing_out() -> None:
    assert told(closed=30, notificationPrompts=["OPENED"]) == ["10 opened 1", "10 opened 2"]
    assert len(told(closed=30, notificationPrompts=["OPENED", "CLOSED"])) == 4


def reminding(*entries: tuple[list[str], str]) -> list[dict[str, object]]:
    return [
        {"notificationChannelNames": names, "renotifyInterval": interval}
        for names, interval in entries
    ]


def test_reminders_come_every_interval_while_the_incident_is_open() -> None:
    strategy = reminding(([SECOND], "1800s"))
    assert told(closed=100, notificationChannelStrategy=strategy) == [
        "10 opened 1", "10 opened 2", "40 reminded 2", "70 reminded 2",
        "100 closed 1", "100 closed 2",
    ]  # fmt: skip
    assert told(until=70, notificationChannelStrategy=strategy)[2:] == [
        "40 reminded 2", "70 reminded 2",
    ]  # fmt: skip


def test_asking_again_tells_only_what_is_new() -> None:
    strategy = reminding(([SECOND], "1800s"))
    asked = [(-1, 9), (9, 10), (10, 40), (40, 69), (69, 71), (71, 200)]
    pieces = [
        notice
        for after, until in asked
        for notice in told(
            closed=100, after=after, until=until, notificationChannelStrategy=strategy
        )
    ]
    assert pieces == told(closed=100, notificationChannelStrategy=strategy)


def test_the_shortest_interval_counts_and_strangers_are_not_told() -> None:
    strategy = reminding(
        ([FIRST, "projects/p/notificationChannels/9"], "3600s"), ([FIRST], "1800s")
    )
    assert told(until=75, notificationChannelStrategy=strategy)[2:] == [
        "40 reminded 1", "70 reminded 1",
    ]  # fmt: skip
