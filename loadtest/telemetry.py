"""What Cloud Monitoring and PagerDuty know of a load, read in the gate's own process.

Never inside Locust: under gevent a silent gRPC peer stalls every greenlet. Points and pages are
told in seconds since the load began, in real time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from alerts.gateway import Gateway
from alerts.incident import OPEN, policy_id
from alerts.policy import Catalog
from loadtest.verdict import PageSeen, ServerSide
from speakfit.clock import Clock, to_ns
from speakfit.errors import LoadError
from speakfit.metrics import (
    CHUNKS,
    EXPORT_INTERVAL,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    WORKER_PROCESSES,
    Metric,
)
from speakfit.pagerduty import PagerDutyApi
from speakfit.settings import Settings
from speakfit.target import policy_clock

_SECOND = 1_000_000_000
_LATE = 4
"""Intervals of export after which a series that has not come is missing."""


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """Both ends of the alerts of one target."""

    gateway: Gateway
    catalog: Catalog
    settings: Settings
    clock: Clock

    @classmethod
    def of(cls, gateway: Gateway, catalog: Catalog, settings: Settings) -> Telemetry:
        """Ask the target for its clock; a TargetError when it does not answer."""
        clock = policy_clock(gateway.target)
        return cls(gateway=gateway, catalog=catalog, settings=settings, clock=clock)

    @property
    def scale(self) -> float:
        """Policy seconds in a second."""
        return float(self.clock.scale)

    @property
    def export_seconds(self) -> float:
        """How often a point is written, in real time."""
        return EXPORT_INTERVAL.total_seconds() / self.scale

    def require_policies(self) -> None:
        """A LoadError when the catalog is not applied: no page could come."""
        ours = {
            body.get("userLabels", {}).get("alert-id")
            for body in self.gateway.policies()
            if body.get("userLabels", {}).get("catalog") == self.catalog.name
        }
        missing = [policy.id for policy in self.catalog.policies if policy.id not in ours]
        if missing:
            raise LoadError(
                f"{len(missing)} policies are not there, {missing[0]} among them: no page could "
                "come.",
                where=str(self.gateway.target),
                todo="`python -m alerts apply` makes them.",
            )

    def pages(self, began: float) -> tuple[PageSeen, ...]:
        """What paged since `began`, a Unix time; a PagerDutyError when it does not answer."""
        token = self.settings.require("pagerduty_api_token")
        first = datetime.fromtimestamp(self._policy_seconds(began), UTC)
        with PagerDutyApi(self.settings.pagerduty_api_url, token) as api:
            found = api.incidents(since=first)
        seen = []
        for one in found:
            at = self._real(one.created_at) - began
            if at < 0 or one.details.get("test") is True:
                continue
            seen.append(
                PageSeen(
                    policy=policy_id(one, self.catalog),
                    severity=one.severity,
                    title=one.title,
                    at=at,
                    resolved=None if one.status in OPEN else self._real(one.changed_at) - began,
                    url=one.url,
                )
            )
        return tuple(sorted(seen, key=lambda page: page.at))

    def open_pages(self) -> list[str]:
        """Policies with an open incident."""
        token = self.settings.require("pagerduty_api_token")
        with PagerDutyApi(self.settings.pagerduty_api_url, token) as api:
            return [
                policy_id(one, self.catalog) or one.title for one in api.incidents(statuses=OPEN)
            ]

    def queue(self) -> float | None:
        """The newest depth of the queue; None when nobody exports it."""
        until = time.time()
        points = self._gauge(QUEUE_DEPTH, until - _LATE * self.export_seconds, until, 0.0)
        return points[-1][1] if points else None

    def server(self, began: float, ended: float, routes: Iterable[str]) -> ServerSide | None:
        """What the API exported between two Unix times of some routes; None when nothing came.

        Waits until the processes that export have done so after `ended`.
        """
        deadline = time.monotonic() + _LATE * self.export_seconds + 2
        while True:
            until = time.time()
            requests = self._counters(REQUEST_DURATION, began, until)
            if requests and all(one.newest >= ended for one in requests):
                break
            if time.monotonic() > deadline:
                if not requests or not any(one.newest >= ended for one in requests):
                    return None
                break
            time.sleep(0.3)
        wanted = set(routes)
        mine = [one for one in requests if one.labels.get("http_route") in wanted]
        # A refusal that was asked for is a good answer to the client, too.
        good = [one for one in mine if one.labels.get("http_response_status_code", "")[:1] != "5"]
        bad = [one for one in mine if one.labels.get("http_response_status_code", "")[:1] == "5"]
        workers = self._gauge(WORKER_PROCESSES, began, until, began)
        return ServerSide(
            requests=sum(one.gained for one in mine),
            errors=sum(one.gained for one in bad),
            p95=_percentile(good, 0.95),
            workers=round(max((value for _, value in workers), default=1)),
        )

    def progress(
        self, began: float, until: float
    ) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The depth of the queue and the chunks transcribed, over time."""
        return self._gauge(QUEUE_DEPTH, began, until, began), self._growth(CHUNKS, began, until)

    def _policy_seconds(self, unix: float) -> float:
        return self.clock.to_policy_ns(int(unix * _SECOND)) / _SECOND

    def _real(self, stamp: str) -> float:
        """A time of PagerDuty as a Unix time; an embedded one tells policy time."""
        return self.clock.to_real_ns(to_ns(datetime.fromisoformat(stamp))) / _SECOND

    def _read(self, metric: Metric, since: float, until: float) -> list[Any]:
        from google.protobuf import timestamp_pb2

        def stamp(unix: float) -> Any:
            ns = int(unix * _SECOND)
            return timestamp_pb2.Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND)

        return list(
            self.gateway.series(
                filter=f'metric.type = "{metric.type}"',
                interval={"start_time": stamp(since), "end_time": stamp(until)},
                page_size=100_000,
            )
        )

    def _gauge(
        self, metric: Metric, since: float, until: float, zero: float
    ) -> list[tuple[float, float]]:
        """The largest of all series at each time, as the policies take it."""
        found: dict[float, float] = defaultdict(float)
        for series in self._read(metric, since, until):
            for point in series.points:
                at = round(_seconds(point.interval.end_time) - zero, 1)
                found[at] = max(found[at], _number(point.value))
        return sorted(found.items())

    def _growth(self, metric: Metric, since: float, until: float) -> list[tuple[float, float]]:
        """How much all series of a counter have gained since `since`, over time."""
        steps: dict[float, float] = defaultdict(float)
        for series in self._read(metric, since - 2 * self.export_seconds, until):
            last: tuple[float, float] | None = None
            for point in sorted(series.points, key=lambda one: _seconds(one.interval.end_time)):
                at, value = _seconds(point.interval.end_time), _number(point.value)
                begun = _seconds(point.interval.start_time)
                if at >= since:
                    before = last[1] if last and last[0] == begun else 0.0
                    if last is not None or begun >= since:
                        steps[round(at - since, 1)] += value - before
                last = (begun, value)
        total, found = 0.0, []
        for at in sorted(steps):
            total += steps[at]
            found.append((at, total))
        return found

    def _counters(self, metric: Metric, began: float, until: float) -> list[_Gain]:
        """What each series of a cumulative distribution gained since `began`."""
        found: dict[tuple[Any, ...], _Gain] = {}
        for series in self._read(metric, began - 3 * self.export_seconds, until):
            labels = {**series.metric.labels, **series.resource.labels}
            key = tuple(sorted(labels.items()))
            gain = found.setdefault(key, _Gain(labels=labels))
            for point in series.points:
                gain.take(point, began)
        return list(found.values())


@dataclass(kw_only=True)
class _Gain:
    """One series' distribution before the load and now."""

    labels: Mapping[str, str]
    newest: float = 0.0
    start: float = 0.0
    counts: list[int] = field(default_factory=list)
    before_at: float = 0.0
    before: list[int] = field(default_factory=list)
    bounds: tuple[float, ...] = ()

    def take(self, point: Any, began: float) -> None:
        at = _seconds(point.interval.end_time)
        shape = point.value.distribution_value
        counts = list(shape.bucket_counts)
        bounds = shape.bucket_options.explicit_buckets.bounds
        if at > self.newest:
            self.newest, self.counts, self.bounds = at, counts, tuple(bounds)
            self.start = _seconds(point.interval.start_time)
        if self.before_at < at <= began:
            self.before_at, self.before = at, counts

    @property
    def buckets(self) -> list[int]:
        """What each bucket gained; a series that was begun anew has forgotten what was before."""
        before = self.before if self.before_at >= self.start else []
        return [
            count - (before[place] if place < len(before) else 0)
            for place, count in enumerate(self.counts)
        ]

    @property
    def gained(self) -> int:
        return sum(self.buckets)


def _percentile(gains: Sequence[_Gain], share: float) -> tuple[float, float] | None:
    """The bounds of the bucket that holds a percentile of all series together."""
    total: list[int] = []
    bounds: tuple[float, ...] = ()
    for gain in gains:
        buckets = gain.buckets
        total += [0] * (len(buckets) - len(total))
        for place, count in enumerate(buckets):
            total[place] += count
        bounds = gain.bounds or bounds
    wanted = share * sum(total)
    if wanted <= 0:
        return None
    reached = 0
    for place, count in enumerate(total):
        reached += count
        if reached >= wanted:
            low = bounds[place - 1] if place else 0.0
            return low, bounds[place] if place < len(bounds) else float("inf")
    return None


def _seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / _SECOND)


def _number(value: Any) -> float:
    return float(value.int64_value or value.double_value)


def wait_for_calm(telemetry: Telemetry, limit: timedelta) -> str:
    """Wait until nothing is open and the queue is empty; what is still in the way, or nothing."""
    deadline = time.monotonic() + limit.total_seconds()
    while True:
        depth = telemetry.queue()
        pages = telemetry.open_pages()
        if depth == 0 and not pages:
            return ""
        if time.monotonic() > deadline:
            if depth is None:
                return "Nobody exports the depth of the queue."
            return f"{depth:.0f} chunks wait; open: {', '.join(pages) or 'nothing'}."
        time.sleep(0.5)
