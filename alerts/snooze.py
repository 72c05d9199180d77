"""Keeps policies quiet for a while: what a snooze is, and how it stands. Pure.

A snooze opens nothing and closes what is open (googleapis `snooze.proto`). It has no labels, so
it is known by the policies that it names; times are those of the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from alerts.encode import ALERT_ID, Json
from alerts.plan import is_ours
from alerts.wording import duration_words
from speakfit.errors import CatalogError

MAX_POLICIES = 16
"""Policies of one snooze."""
_MAX_NAME = 512


class Standing(StrEnum):
    """Whether a snooze is still to come, keeps quiet now, or is over."""

    ACTIVE = "active"
    UPCOMING = "upcoming"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Snooze:
    """One snooze as people see it."""

    name: str
    title: str
    policies: tuple[str, ...]
    """Ids of the catalog's policies, display names of others."""
    filter: str
    start: datetime
    end: datetime
    standing: Standing

    @property
    def number(self) -> str:
        """What `--cancel` takes."""
        return self.name.rpartition("/")[2]


def live_names(policy_id: str, policies: Iterable[Json], catalog: str) -> list[str]:
    """The server's names of a policy of the catalog; two when it is there twice."""
    return [
        policy["name"]
        for policy in policies
        if is_ours(policy, catalog) and policy["userLabels"].get(ALERT_ID) == policy_id
    ]


def snooze_body(
    names: Sequence[str], *, title: str, now: datetime, length: timedelta, filter_text: str
) -> Json:
    """The Snooze in REST form that begins now; a CatalogError when no server would take it."""
    if len(names) > MAX_POLICIES:
        raise CatalogError(
            f"There are {len(names)} policies.",
            where="snooze",
            todo=f"One snooze takes {MAX_POLICIES}; make several.",
        )
    criteria: Json = {"policies": list(names)}
    if filter_text:
        if len(names) != 1:
            raise CatalogError(
                f"A filter reads the series of one policy, not of {len(names)}.",
                where="snooze --filter",
                todo="Name one policy, or leave the filter out.",
            )
        criteria["filter"] = filter_text
    return {
        "displayName": title[:_MAX_NAME],
        "criteria": criteria,
        "interval": {"startTime": _stamp(now), "endTime": _stamp(now + length)},
    }


def cancelled(snooze: Mapping[str, Any], now: datetime) -> tuple[Json, tuple[str, ...]]:
    """A snooze that ends now, and the fields of it that change.

    One that has not begun begins and ends now.
    """
    interval = {**snooze["interval"], "endTime": _stamp(now)}
    mask: tuple[str, ...] = ("interval.end_time",)
    if _time(snooze["interval"]["startTime"]) > now:
        interval["startTime"] = _stamp(now)
        mask = ("interval.start_time", *mask)
    return {**snooze, "interval": interval}, mask


def read_snooze(
    snooze: Mapping[str, Any], *, policies: Iterable[Json], catalog: str, now: datetime
) -> Snooze:
    """A live snooze with its policies called as the catalog calls them."""
    by_name = {policy["name"]: policy for policy in policies}

    def called(name: str) -> str:
        policy = by_name.get(name, {})
        if is_ours(policy, catalog):
            return str(policy["userLabels"].get(ALERT_ID, name))
        return str(policy.get("displayName") or name)

    start, end = (_time(snooze["interval"][edge]) for edge in ("startTime", "endTime"))
    standing = (
        Standing.ENDED if end <= now else Standing.UPCOMING if start > now else Standing.ACTIVE
    )
    return Snooze(
        name=snooze["name"],
        title=snooze.get("displayName", ""),
        policies=tuple(dict.fromkeys(map(called, snooze["criteria"].get("policies", ())))),
        filter=snooze["criteria"].get("filter", ""),
        start=start,
        end=end,
        standing=standing,
    )


def when(snooze: Snooze, now: datetime) -> str:
    """`until 2026-01-02 05:04:05 UTC, for 2 h more`."""
    if snooze.standing is Standing.ENDED:
        return f"ended {clock_words(snooze.end)}"
    left = duration_words(snooze.end - max(now, snooze.start))
    if snooze.standing is Standing.UPCOMING:
        return f"from {clock_words(snooze.start)} for {left}"
    return f"until {clock_words(snooze.end)}, for {left} more"


def clock_words(at: datetime) -> str:
    """`2026-01-02 05:04:05 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp).astimezone(UTC)
