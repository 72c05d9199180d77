"""Every policy of the catalog, unmodified, through the engine: fires, stays quiet, resolves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from alerts.policies import CATALOG
from speakfit.engine.points import Series
from speakfit.metrics import (
    CHUNKS,
    DATABASE_CONNECTIONS,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    REQUESTS,
    WORKERS_ALIVE,
    Metric,
    RouteClass,
)
from tests.alerts.timeline import counter, gauge, latency, story

CALM = 5
"""Minutes before the trouble."""
AFTER = 20
"""Minutes after it."""


def level(metric: Metric, calm: float) -> Callable[[float, int], Sequence[Series]]:
    """A gauge that two replicas report alike."""

    def lines(value: float, minutes: int) -> Sequence[Series]:
        stretches = ((CALM, calm), (minutes, value), (AFTER, calm))
        return [gauge(metric, *stretches, task=task) for task in ("api-1", "api-2")]

    return lines


def answer_time(value: float, minutes: int) -> Sequence[Series]:
    """Six requests in a hundred take `value` seconds, the others a tenth of a second."""
    calm = ((100, 0.1),)
    return [
        latency(
            REQUEST_DURATION,
            (CALM, calm),
            (minutes, ((94, 0.1), (6, value))),
            (AFTER, calm),
            route_class=RouteClass.INTERACTIVE,
        )
    ]


def errors(value: float, minutes: int) -> Sequence[Series]:
    """`value` of a thousand answers per export are 5xx."""
    return route_errors("/v1/recordings", ok=1000 - value, bad=value, minutes=minutes)


def route_errors(route: str, *, ok: float, bad: float, minutes: int) -> list[Series]:
    total = CALM + minutes + AFTER
    return [
        counter(REQUESTS, (total, ok), http_route=route, status_class="2xx"),
        counter(
            REQUESTS, (CALM, 0), (minutes, bad), (AFTER, 0), http_route=route, status_class="5xx"
        ),
    ]


def stalled(value: float, minutes: int) -> Sequence[Series]:
    """`value` chunks finished per export while one waits and a worker lives."""
    return [
        counter(CHUNKS, (CALM, 1), (minutes, value), (AFTER, 1), task="worker-1", outcome="done"),
        gauge(QUEUE_DEPTH, (CALM + minutes + AFTER, 1)),
        gauge(WORKERS_ALIVE, (CALM + minutes + AFTER, 1)),
    ]


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to break one policy, and how nearly not to."""

    policy: str
    lines: Callable[[float, int], Sequence[Series]]
    breaks: float
    nearly: float
    duration: int


CASES = [
    Case(policy="api-latency-warning", lines=answer_time, breaks=2.4, nearly=1.9, duration=5),
    Case(policy="api-latency-critical", lines=answer_time, breaks=5.9, nearly=4.9, duration=2),
    Case(
        policy="queue-depth-warning",
        lines=level(QUEUE_DEPTH, 0),
        breaks=101,
        nearly=100,
        duration=5,
    ),
    Case(
        policy="queue-depth-critical",
        lines=level(QUEUE_DEPTH, 0),
        breaks=501,
        nearly=500,
        duration=2,
    ),
    Case(policy="api-errors-warning", lines=errors, breaks=11, nearly=10, duration=5),
    Case(policy="api-errors-critical", lines=errors, breaks=51, nearly=50, duration=2),
    Case(
        policy="worker-down-critical",
        lines=level(WORKERS_ALIVE, 2),
        breaks=0,
        nearly=1,
        duration=5,
    ),
    Case(
        policy="database-connections-warning",
        lines=level(DATABASE_CONNECTIONS, 0.2),
        breaks=0.81,
        nearly=0.80,
        duration=5,
    ),
    Case(
        policy="database-connections-critical",
        lines=level(DATABASE_CONNECTIONS, 0.2),
        breaks=0.96,
        nearly=0.95,
        duration=2,
    ),
    Case(policy="transcription-stalled-critical", lines=stalled, breaks=0, nearly=0.5, duration=10),
]

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.policy)


@each
def test_it_opens_after_its_duration_and_closes_with_the_cause(case: Case) -> None:
    # The first breaking reading is that of the first minute; `duration` later it has lasted.
    lasting = case.duration + 3
    events = story(case.policy, case.lines(case.breaks, lasting), minutes=CALM + lasting + AFTER)
    assert events[0] == ("opened", CALM + 1 + case.duration)
    assert events[-1] == ("closed", CALM + lasting + 1)
    assert {what for what, _ in events} == {"opened", "closed"}


@each
def test_it_stays_quiet_at_the_threshold(case: Case) -> None:
    assert story(case.policy, case.lines(case.nearly, 30), minutes=CALM + 30 + AFTER) == []


@each
def test_it_stays_quiet_when_the_trouble_is_shorter_than_its_duration(case: Case) -> None:
    events = story(
        case.policy, case.lines(case.breaks, case.duration), minutes=CALM + case.duration + AFTER
    )
    assert events == []


def test_every_policy_of_the_catalog_is_broken_by_a_test() -> None:
    tested = {case.policy for case in CASES} | {"telemetry-silent-critical"}
    assert tested == {policy.id for policy in CATALOG.policies}


def test_silent_telemetry_opens_after_ten_minutes_and_closes_with_the_first_point() -> None:
    line = gauge(WORKERS_ALIVE, (CALM, 1), (15, None), (AFTER, 1))
    assert story("telemetry-silent-critical", [line], minutes=40) == [
        ("opened", CALM + 10),
        ("closed", CALM + 16),
    ]


def test_telemetry_silent_for_nine_minutes_stays_quiet() -> None:
    line = gauge(WORKERS_ALIVE, (CALM, 1), (9, None), (AFTER, 1))
    assert story("telemetry-silent-critical", [line], minutes=34) == []


def test_a_replica_that_is_scaled_in_is_not_silent_telemetry() -> None:
    gone = gauge(WORKERS_ALIVE, (CALM, 1), (30, None), task="api-1")
    stays = gauge(WORKERS_ALIVE, (CALM + 30, 1), task="api-2")
    assert story("telemetry-silent-critical", [gone, stays], minutes=CALM + 30) == []


def test_a_fleet_that_never_started_pages() -> None:
    line = gauge(WORKERS_ALIVE, (20, 0))
    assert story("worker-down-critical", [line], minutes=20)[0] == ("opened", 6)


def test_one_replica_that_sees_a_worker_is_enough() -> None:
    blind = gauge(WORKERS_ALIVE, (30, 0), task="api-1")
    sees = gauge(WORKERS_ALIVE, (30, 1), task="api-2")
    assert story("worker-down-critical", [blind, sees], minutes=30) == []


@pytest.mark.parametrize(
    ("policy", "metric", "value"),
    [
        ("worker-down-critical", WORKERS_ALIVE, 0.0),
        ("queue-depth-warning", QUEUE_DEPTH, 101.0),
        ("database-connections-warning", DATABASE_CONNECTIONS, 0.9),
    ],
)
def test_silence_keeps_an_incident_open_until_auto_close(
    policy: str, metric: Metric, value: float
) -> None:
    line = gauge(metric, (10, value), (120, None))
    (opened, closed) = story(policy, [line], minutes=130)
    assert opened == ("opened", 6)
    assert closed[0] == "closed"
    assert closed[1] >= 10 + 30, "auto-close is half an hour after the data ended"


def test_silence_keeps_a_stalled_transcription_open_until_auto_close() -> None:
    lines = [
        counter(CHUNKS, (20, 0), (100, None), task="worker-1", outcome="done"),
        gauge(QUEUE_DEPTH, (20, 1), (100, None)),
        gauge(WORKERS_ALIVE, (20, 1), (100, None)),
    ]
    for silent in lines:
        others = [line for line in lines if line is not silent]
        talking = [
            gauge(QUEUE_DEPTH, (60, 1))
            if line is lines[1]
            else gauge(WORKERS_ALIVE, (60, 1))
            if line is lines[2]
            else counter(CHUNKS, (60, 0), task="worker-1", outcome="done")
            for line in others
        ]
        events = story("transcription-stalled-critical", [silent, *talking], minutes=45)
        assert events[0][0] == "opened"
        assert all(what == "opened" for what, _ in events), "one silent line must not close it"


def test_the_share_is_that_of_all_replicas_together() -> None:
    # One in a hundred answers is bad; of the replica that has them all it is one in forty.
    lines = [
        counter(REQUESTS, (30, 600), task="api-1", http_route="/a", status_class="2xx"),
        counter(REQUESTS, (30, 390), task="api-2", http_route="/a", status_class="2xx"),
        counter(REQUESTS, (30, 10), task="api-2", http_route="/a", status_class="5xx"),
    ]
    assert story("api-errors-warning", lines, minutes=30) == []


@pytest.mark.parametrize("policy", ["api-latency-warning", "api-errors-warning"])
def test_silence_closes_what_depends_on_traffic(policy: str) -> None:
    if policy.startswith("api-latency"):
        lines = [
            latency(
                REQUEST_DURATION, (10, ((20, 3.0),)), (30, None), route_class=RouteClass.INTERACTIVE
            )
        ]
    else:
        lines = [
            counter(REQUESTS, (10, 90), (30, None), http_route="/a", status_class="2xx"),
            counter(REQUESTS, (10, 10), (30, None), http_route="/a", status_class="5xx"),
        ]
    events = story(policy, lines, minutes=40)
    assert events[0][0] == "opened"
    assert events[-1][0] == "closed"
    assert events[-1][1] <= 10 + 5


@pytest.mark.parametrize("route_class", [c for c in RouteClass if c is not RouteClass.INTERACTIVE])
def test_routes_that_are_slow_by_design_do_not_page(route_class: RouteClass) -> None:
    line = latency(REQUEST_DURATION, (20, ((20, 30.0),)), route_class=route_class)
    for policy in ("api-latency-warning", "api-latency-critical"):
        assert story(policy, [line], minutes=20) == []


def test_one_error_at_night_pages_nobody() -> None:
    # One export of one minute carries a single error and nothing else: 100 % of the traffic.
    lines = [
        counter(REQUESTS, (30, 0), http_route="/a", status_class="2xx"),
        counter(REQUESTS, (10, 0), (1, 0.5), (19, 0), http_route="/a", status_class="5xx"),
    ]
    for policy in ("api-errors-warning", "api-errors-critical"):
        assert story(policy, lines, minutes=30) == []


def test_the_share_of_one_route_and_the_count_of_another_fire_together() -> None:
    # Cloud Monitoring does not match conditions by metric label. Neither route alone pages.
    quiet = route_errors("/quiet", ok=0, bad=0.5, minutes=6)
    busy = route_errors("/busy", ok=5000, bad=5, minutes=6)
    total = CALM + 6 + AFTER
    assert story("api-errors-critical", quiet, minutes=total) == []
    assert story("api-errors-critical", busy, minutes=total) == []
    assert story("api-errors-critical", [*quiet, *busy], minutes=total)[0][0] == "opened"


def test_nothing_is_stalled_while_no_chunk_waits_or_no_worker_lives() -> None:
    done = counter(CHUNKS, (40, 0), task="worker-1", outcome="done")
    idle = [done, gauge(QUEUE_DEPTH, (40, 0)), gauge(WORKERS_ALIVE, (40, 1))]
    dead = [done, gauge(QUEUE_DEPTH, (40, 3)), gauge(WORKERS_ALIVE, (40, 0))]
    for lines in (idle, dead):
        assert story("transcription-stalled-critical", lines, minutes=40) == []
