"""Who is on call: PagerDuty's schedules and escalation policies as pure functions of a time.

A schedule has layers, each a rotation of users. Where several cover a moment, the last one given
holds (assumed; PagerDuty documents that one does, not which). Restrictions and overrides are not
kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from speakfit.emulator.pagerduty_events import parse_time

Document = dict[str, Any]
MAX_TURN = 365 * 24 * 3_600


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One user on call at one level; without a schedule it has no start and no end."""

    user: str
    level: int
    schedule: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def layer_errors(layer: object) -> list[str]:
    """What is wrong with one layer of a schedule; empty when nothing is."""
    if not isinstance(layer, dict):
        return ["A schedule layer is not an object"]
    errors = []
    for name in ("start", "rotation_virtual_start"):
        when = parse_time(layer.get(name))
        if when is None or when.tzinfo is None:
            errors.append(f"{name} must be an ISO 8601 time with an offset")
    end = layer.get("end")
    if end is not None:
        when = parse_time(end)
        if when is None or when.tzinfo is None:
            errors.append("end must be an ISO 8601 time with an offset")
    turn = layer.get("rotation_turn_length_seconds")
    if not isinstance(turn, int) or isinstance(turn, bool) or not 1 <= turn <= MAX_TURN:
        errors.append("rotation_turn_length_seconds must be 1 to 365 days")
    if not isinstance(layer.get("users"), list) or not layer["users"]:
        errors.append("A schedule layer needs at least one user")
    if layer.get("restrictions"):
        errors.append("Restrictions are not kept here")
    return errors


def _turn(layer: Mapping[str, Any], at: datetime) -> tuple[str, datetime, datetime] | None:
    """Whose turn it is in a layer, from when and until when."""
    start, end = parse_time(layer["start"]), parse_time(layer["end"])
    first = parse_time(layer["rotation_virtual_start"])
    if start is None or first is None or at < start or (end is not None and at >= end):
        return None
    length = timedelta(seconds=layer["rotation_turn_length_seconds"])
    number = (at - first) // length
    begin = first + number * length
    until = begin + length if end is None else min(begin + length, end)
    return layer["users"][number % len(layer["users"])], max(begin, start), until


def shifts(
    policy: Mapping[str, Any], at: datetime, *, schedule: Callable[[str], Document | None]
) -> list[Shift]:
    """Everybody on call for an escalation policy, by level; empty when nobody is."""
    found = []
    for level, rule in enumerate(policy["rules"], start=1):
        for target in rule["targets"]:
            plan = schedule(target)
            if plan is None:
                found.append(Shift(user=target, level=level))
                continue
            turns = [turn for layer in plan["layers"] if (turn := _turn(layer, at))]
            if turns:
                user, start, end = turns[-1]
                found.append(Shift(user=user, level=level, schedule=target, start=start, end=end))
    return found


def first_on_call(found: list[Shift]) -> list[str]:
    """Whom a new incident is assigned to: the first level at which somebody is on call."""
    lowest = min((shift.level for shift in found), default=0)
    return [shift.user for shift in found if shift.level == lowest]


def is_ongoing(window: Mapping[str, Any], at: datetime) -> bool:
    """Whether a maintenance window covers a time."""
    start, end = parse_time(window["start_time"]), parse_time(window["end_time"])
    return start is not None and end is not None and start <= at < end
