"""A scripted history, written into a real emulator, recorded and replayed: numbers are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts.apply import apply_plan
from alerts.backtest import Backtest, Episode, Outcome, Standing, backtest, shares
from alerts.comparison import compare, match
from alerts.encode import engine_descriptors
from alerts.entrant import either, entrants, proposed_bodies
from alerts.gateway import Gateway
from alerts.history import History, read_history, write_history
from alerts.outage import judge, read_outages
from alerts.plan import desired_state, make_plan
from alerts.policies import CATALOG
from alerts.retrieval import retrieve
from speakfit.clock import ManualClock, from_ns
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.engine.conditions import ThresholdCondition
from speakfit.engine.points import Series, SeriesKey
from speakfit.engine.runs import NO_RUNS
from speakfit.engine.verdicts import Verdict
from speakfit.errors import HistoryError
from speakfit.metrics import (
    CHUNKS,
    DATABASE_CONNECTIONS,
    QUEUE_DEAD_LETTERS,
    QUEUE_DEPTH,
    REQUEST_DURATION,
    REQUESTS,
    WORKERS_ALIVE,
    RouteClass,
)
from speakfit.target import Target, TargetKind
from tests.alerts.conftest import KEYS, PROJECT
from tests.alerts.playback import play
from tests.alerts.test_history import history_of
from tests.alerts.timeline import MINUTE, START, counter, gauge, latency

ONE = timedelta(minutes=1)
INFINITE = float("inf")
WHEN = "start: 2026-01-01T00:00:00Z, end: 2026-01-02T00:00:00Z"
AGGREGATION = {"perSeriesAligner": "ALIGN_MAX", "crossSeriesReducer": "REDUCE_MAX"}
BASE = "https://runbooks.test"
LENGTH = 180
"""Minutes."""


def script() -> list[Series]:
    """Three hours with known outages.

    Queue: 150 from 30 to 50, 120 from 100 to 104 (too short), 95 from 120 to 130 (too low).
    Workers: none from 60 to 75. Telemetry of all API replicas: silent from 140 to 155.
    Latency: 3 s from 80 to 90. Errors: one answer in ten from 110 to 116.
    """
    silence = (15, None)
    replicas = [
        gauge(
            QUEUE_DEPTH,
            (30, 3), (20, 150), (50, 3), (4, 120), (16, 3), (10, 95), (10, 3), silence, (25, 3),
            task=task,
        )
        for task in ("api-1", "api-2")
    ]  # fmt: skip
    return [
        *replicas,
        gauge(WORKERS_ALIVE, (60, 2), (15, 0), (65, 2), silence, (25, 2)),
        gauge(DATABASE_CONNECTIONS, (140, 0.2), silence, (25, 0.2)),
        gauge(QUEUE_DEAD_LETTERS, (140, 0), silence, (25, 0)),
        counter(CHUNKS, (60, 5), (15, 0), (105, 5), task="worker-1", outcome="done"),
        counter(
            REQUESTS, (110, 100), (6, 90), (24, 100), silence, (25, 100),
            http_route="/a", status_class="2xx",
        ),
        counter(
            REQUESTS, (110, 0), (6, 10), (24, 0), silence, (25, 0),
            http_route="/a", status_class="5xx",
        ),
        latency(
            REQUEST_DURATION,
            (80, ((100, 0.1),)), (10, ((90, 0.1), (10, 2.9))), (50, ((100, 0.1),)), silence,
            (25, ((100, 0.1),)),
            route_class=RouteClass.INTERACTIVE,
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class World:
    """What a real emulator made of the script, and the history recorded from it."""

    incidents: list[dict[str, object]]
    history: History


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return live(script(), tmp_path_factory.mktemp("world") / "history.jsonl.gz")


def live(series: Sequence[Series], file: Path) -> World:
    """Apply the catalog, let the series come in, evaluate each minute as it passes, record."""
    clock = ManualClock(from_ns(START))
    with Emulator(EmulatorOptions(port=0, http_port=0), clock=clock) as emulator:
        target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=emulator.grpc_address)
        with Gateway(target) as gateway:
            desired = desired_state(CATALOG, runbook_base_url=BASE, digests={})
            apply_plan(gateway, make_plan(desired, gateway.read(CATALOG)), keys=KEYS)
        play(series, clock, target, each=emulator.evaluator.evaluate_due)
        clock.advance(timedelta(minutes=1))
        emulator.evaluator.evaluate_due()
        with Gateway(target) as gateway:
            bodies = proposed_bodies(CATALOG, runbook_base_url=BASE)
            history = retrieve(
                gateway,
                bodies,
                declared=engine_descriptors(CATALOG).get,
                since=timedelta(microseconds=(clock.now_ns() - START) // 1_000),
            )
            write_history(history, file)
        return World(incidents=emulator.incidents(), history=read_history(file))


def replayed(history: History, **options: Any) -> Backtest:
    lookup = either(history.descriptor, engine_descriptors(CATALOG).get)
    bodies = proposed_bodies(CATALOG, runbook_base_url=BASE)
    return backtest(entrants(bodies, descriptors=lookup), history, **options)


def told(incident: dict[str, Any]) -> tuple[Any, ...]:
    """What can be known of an incident without the server's names."""
    return (
        incident["policyDisplayName"],
        incident["conditionDisplayName"],
        str(incident["series"]),
        incident["startedNs"],
        incident["endedNs"],
        incident["observedValue"],
        incident["closeReason"],
        incident["summary"] if incident["endedNs"] is None else "",
    )


def test_a_backtest_tells_exactly_what_happened_live(world: World) -> None:
    result = replayed(world.history)
    found = [
        told(one.incident.to_json()) for outcome in result.outcomes for one in outcome.incidents
    ]
    assert sorted(found) == sorted(told(incident) for incident in world.incidents)
    assert len(found) > 5


def spans(outcome: Outcome) -> list[tuple[int, int]]:
    """Minutes in which a policy had something open."""
    return [
        ((one.opened_ns - START) // MINUTE, (one.closed_ns - START) // MINUTE)
        for one in outcome.episodes
    ]


def test_the_numbers_are_those_of_the_script(world: World) -> None:
    result = replayed(world.history)
    outcomes = {one.entrant.id: one for one in result.outcomes}
    assert all(one.standing is Standing.REPLAYED for one in outcomes.values())
    assert {name: spans(one) for name, one in outcomes.items() if one.episodes} == {
        "api-latency-warning": [(86, 91)],
        "queue-depth-warning": [(36, 51)],
        "api-errors-warning": [(116, 117)],
        "api-errors-critical": [(113, 117)],
        "worker-down-critical": [(66, 76)],
        "telemetry-silent-critical": [(150, 156)],
    }
    # Share and count of the errors are two conditions: each opens an incident of its own.
    assert outcomes["api-errors-warning"].pages == {"channel:warning": 2}
    assert outcomes["queue-depth-warning"].pages == {"channel:warning": 1}
    assert outcomes["worker-down-critical"].in_alert == timedelta(minutes=10)
    assert result.length == timedelta(minutes=LENGTH + 1)
    assert result.weekly(1) == pytest.approx(7 * 24 * 60 / (LENGTH + 1))
    near = outcomes["queue-depth-warning"].near
    assert near is not None
    assert (near.runs, near.longest, near.needed) == (1, 3 * ONE, 5 * ONE)
    assert near.longest_at_ns == START + 101 * MINUTE
    assert near.share == pytest.approx(1.2)
    near = outcomes["queue-depth-critical"].near
    assert near is not None
    assert (near.runs, near.share) == (0, 0.3)


BODIES = {
    body["userLabels"]["alert-id"]: body for body in proposed_bodies(CATALOG, runbook_base_url=BASE)
}


def body_of(policy_id: str, **changes: Any) -> dict[str, Any]:
    """A policy of the catalog in REST form, its only condition changed."""
    body = deepcopy(BODIES[policy_id])
    (condition,) = body["conditions"]
    (kind,) = (name for name in condition if name.startswith("condition"))
    return {**body, "conditions": [{**condition, kind: {**condition[kind], **changes}}]}


def outcome_of(history: History, *bodies: dict[str, Any], **options: Any) -> tuple[Outcome, ...]:
    lookup = either(history.descriptor, engine_descriptors(CATALOG).get)
    return backtest(entrants(bodies, descriptors=lookup), history, **options).outcomes


def test_a_change_is_told_by_what_it_does(world: World) -> None:
    before, after = outcome_of(
        world.history,
        body_of("queue-depth-warning"),
        body_of("queue-depth-warning", thresholdValue=90, duration="120s"),
    )
    # Three minutes sooner at 30; what was too short at 100 and too low at 120 is told now.
    assert spans(after) == [(33, 51), (103, 105), (123, 131)]
    (compared,) = compare([before], [after])
    assert compared.words() == (
        "+2 pages (1 → 3), 2 incidents new, 3 min faster, time in alert 15 min → 28 min"
    )
    (compared,) = compare([after], [before])
    assert compared.words() == (
        "-2 pages (3 → 1), 2 incidents missed, 3 min slower, time in alert 28 min → 15 min"
    )
    (compared,) = compare([before], [before])
    assert not compared.changed
    (compared,) = compare([], [before])
    assert compared.words() == "new, +1 page (0 → 1), 1 incident new, time in alert 0 s → 15 min"
    (compared,) = compare(outcome_of(world.history, BODIES["queue-depth-critical"]), [])
    assert compared.words() == "gone, no page less"


def test_the_same_trouble_is_matched_even_if_one_incident_ends_before_the_other_opens() -> None:
    def episode(since: int, opened: int, closed: int) -> Episode:
        return Episode(
            since_ns=since * MINUTE, opened_ns=opened * MINUTE, closed_ns=closed * MINUTE
        )

    (one,) = match([episode(0, 5, 9)], [episode(0, 2, 4)])
    assert one.sooner == 3 * ONE
    (one,) = match([episode(0, 2, 4)], [episode(1, 5, 9)])
    assert one.sooner == -3 * ONE
    one, other = match([episode(0, 5, 9)], [episode(10, 12, 14)])
    assert (one.proposed, other.current) == (None, None)
    # A trouble that is told twice is one.
    (one,) = match([episode(0, 5, 30)], [episode(1, 2, 8), episode(20, 21, 40)])
    assert one.proposed == episode(1, 2, 8)


def test_reminders_are_pages_and_the_news_of_a_closing_is_none(world: World) -> None:
    body = body_of("queue-depth-warning")
    body["alertStrategy"]["notificationChannelStrategy"] = [
        {"notificationChannelNames": ["channel:warning"], "renotifyInterval": "300s"}
    ]
    (outcome,) = outcome_of(world.history, body)
    # Open from 36 to 51: reminded at 41 and 46; at 51 it closes.
    assert outcome.pages == {"channel:warning": 3}


def test_what_cannot_be_known_is_never_quiet(world: World) -> None:
    promql = {**body_of("queue-depth-warning")}
    promql["conditions"] = [
        {"displayName": "q", "conditionPrometheusQueryLanguage": {"query": "up == 0"}}
    ]
    other = 'metric.type = "custom.googleapis.com/else" AND resource.type = "generic_task"'
    elsewhere = f'metric.type = "{QUEUE_DEPTH.type}" AND resource.type = "generic_node"'
    long = [{**AGGREGATION, "alignmentPeriod": "7200s"}]
    off = {**body_of("queue-depth-warning"), "enabled": False}
    found = outcome_of(
        world.history,
        promql,
        body_of("queue-depth-warning", filter=other),
        body_of("queue-depth-warning", filter=elsewhere),
        body_of("queue-depth-warning", aggregations=long),
        off,
        body_of("queue-depth-warning"),
    )
    assert [one.standing for one in found] == [
        Standing.NOT_EVALUATED,
        Standing.UNREADABLE,
        Standing.NOT_RECORDED,
        Standing.TOO_SHORT,
        Standing.DISABLED,
        Standing.REPLAYED,
    ]
    assert "Cannot find metric" in found[1].reason
    assert found[2].reason == f"{QUEUE_DEPTH.type} on generic_node"
    nothing = replace(world.history, series=[gauge(WORKERS_ALIVE, (LENGTH, 1))])
    (outcome,) = outcome_of(nothing, body_of("queue-depth-warning"))
    assert (outcome.standing, outcome.reason) == (
        Standing.NO_DATA,
        f"{QUEUE_DEPTH.type} on generic_task",
    )
    (outcome,) = outcome_of(world.history, body_of("queue-depth-warning"), every=5 * 60 * ONE)
    assert outcome.standing is Standing.TOO_SHORT


def test_conditions_that_must_hold_together_come_near_together() -> None:
    # One error in ten for three minutes: their share over one minute is beyond its limit that long,
    # their count over five minutes longer; at night a single error breaks the share alone.
    lines = [
        counter(REQUESTS, (40, 90), (20, 0), http_route="/a", status_class="2xx"),
        counter(
            REQUESTS, (20, 0), (3, 10), (27, 0), (2, 0.5), (8, 0),
            http_route="/a", status_class="5xx",
        ),
    ]  # fmt: skip
    (outcome,) = outcome_of(history_of(lines), BODIES["api-errors-warning"])
    assert outcome.incidents == ()
    assert outcome.near is not None
    assert (outcome.near.runs, outcome.near.longest, outcome.near.needed) == (1, 2 * ONE, 5 * ONE)
    assert outcome.near.longest_at_ns == START + 21 * MINUTE


@pytest.mark.parametrize(
    ("limit", "above", "values", "wanted"),
    [
        (100.0, True, [0, 50, 100, 150, -7], [0, 0.5, 1, 1.5, 0]),
        (1.0, False, [2, 1, 0.5, 0], [0.5, 1, 2, INFINITE]),
        (0.0, True, [-1, 0, 1], [0, 0, INFINITE]),
        (0.0, False, [-1, 0, 1], [INFINITE, 0, 0]),
        (-10.0, True, [-20, -10, -5, 3], [0.5, 1, 2, INFINITE]),
        (-10.0, False, [-5, -10, -20, 3], [0.5, 1, 2, 0]),
    ],
)
def test_nearness_is_a_share_of_the_limit_from_either_side(
    limit: float, above: bool, values: list[float], wanted: list[float]
) -> None:
    assert measured(limit, above, values)[0] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("missing", "share", "beyond"),
    [
        # Missing at first, after a violation, and after health.
        ("EVALUATION_MISSING_DATA_NO_OP", [0, 2, 2, 0.5, 0.5], [0, 1, 1, 0, 0]),
        ("EVALUATION_MISSING_DATA_INACTIVE", [0, 2, 0, 0.5, 0], [0, 1, 0, 0, 0]),
        ("EVALUATION_MISSING_DATA_ACTIVE", [0, 2, 1, 0.5, 1], [0, 1, 1, 0, 1]),
    ],
)
def test_missing_data_is_as_near_as_the_policy_says(
    missing: str, share: list[float], beyond: list[int]
) -> None:
    nan = float("nan")
    found = measured(10, True, [nan, 20, nan, 5, nan], evaluationMissingData=missing)
    assert found == (share, [bool(one) for one in beyond])


def measured(
    limit: float, above: bool, values: list[float], **changes: Any
) -> tuple[list[float], list[bool]]:
    """How near a condition says that values are."""
    comparison = "COMPARISON_GT" if above else "COMPARISON_LT"
    body = body_of("queue-depth-warning", thresholdValue=limit, comparison=comparison, **changes)
    (one,) = entrants([body], descriptors=engine_descriptors(CATALOG).get)
    assert one.spec is not None
    (condition,) = one.spec.conditions
    assert isinstance(condition, ThresholdCondition)
    verdict = Verdict(
        key=SeriesKey(metric_type="any"),
        violating=NO_RUNS,
        met=NO_RUNS,
        values=np.array(values, dtype=np.float64),
        first_known=next(n for n, value in enumerate(values) if value == value),
    )
    share, beyond = shares(condition, verdict)
    return share.tolist(), beyond.tolist()


def test_known_outages_are_detected_missed_or_answered_by_false_pages(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "outages.yaml"
    file.write_text(
        """
outages:
  - {start: 2026-01-01T00:30:00Z, end: 2026-01-01T00:50:00+00:00, subject: queue-depth}
  - {start: "2026-01-01T01:01:00Z", end: 2026-01-01 01:15:00, note: GPU driver}
  - {start: 2026-01-01T01:40:00Z, end: 2026-01-01T01:44:00Z, subject: queue-depth}
  - {start: 2026-01-01T01:20:00Z, end: 2026-01-01T01:30:00Z, subject: api-latency,
     severity: critical}
  - {start: 2026-01-01T01:50:00Z, end: 2026-01-01T01:54:00Z, subject: api-errors,
     severity: warning}
  - {start: 2026-01-01T02:20:00Z, end: 2026-01-01T02:35:00Z, subject: telemetry-silence}
  - {start: 2025-01-01T02:20:00Z, end: 2025-01-01T02:35:00Z}
""",
        encoding="utf-8",
    )
    result = replayed(world.history)
    judgement = judge(result.outcomes, read_outages(file), result)
    assert [one.by for one in judgement.detections] == [
        (("queue-depth-warning", 6 * ONE),),
        (("worker-down-critical", 5 * ONE),),
        # The warning told of it, but only the critical one was asked.
        (),
        (),
        # It is over when it has lasted long enough to be told.
        (("api-errors-warning", 6 * ONE),),
        (),
    ]
    assert [one.concerned for one in judgement.detections] == [2, len(BODIES), 1, 2, 1, 0]
    assert (judgement.missed, judgement.outside) == (3, 1)
    assert judgement.false_pages == {"telemetry-silent-critical": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "There are no outages"),
        ("outages: []", "There are no outages"),
        ("outages: [{", "cannot be read"),
        ("[1]", "1 is no mapping"),
        ("[{start: 2026-01-01T00:00:00Z}]", "end is missing"),
        ("[{start: 2026-01-02T00:00:00Z, end: 2026-01-01T00:00:00Z}]", "ends before"),
        ("[{start: soon, end: 2026-01-01T00:00:00Z}]", "'soon' is no instant"),
        ("[{start: 1, end: 2}]", "start is 1; write"),
        ("[{begin: 1}]", "'begin' is none of start, end"),
        (f"[{{{WHEN}, severity: bad}}]", "severity is 'bad', not warning or critical"),
        (f"[{{{WHEN}, subject: [a]}}]", "subject is ['a']"),
    ],
)
def test_outages_that_cannot_be_read_are_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "outages.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(HistoryError, match=re.escape(words)):
        read_outages(file)


@pytest.mark.slow
def test_a_month_is_recorded_and_replayed_as_it_was_scripted(tmp_path: Path) -> None:
    days, random = 30, np.random.default_rng(5)
    minutes = days * 1_440
    # An outage every ten hours, 1 to 40 minutes long; the warning needs more than five.
    begins = np.arange(300, minutes - 500, 600)
    begins += random.integers(0, 400, len(begins))
    lengths = random.integers(1, 41, len(begins))
    depth, alive = np.full(minutes, 3.0), np.full(minutes, 2.0)
    for number, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        line, value = (depth, 150.0) if number % 3 else (alive, 0.0)
        line[begin : begin + length] = value
    ends = START + np.arange(1, minutes + 1) * MINUTE
    series = [
        replace(gauge(metric, (1, 0)), start_ns=ends, end_ns=ends, values=values)
        for metric, values in ((QUEUE_DEPTH, depth), (WORKERS_ALIVE, alive))
    ]
    clock = ManualClock(from_ns(START))
    with Emulator(EmulatorOptions(port=0, http_port=0), clock=clock) as emulator:
        target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=emulator.grpc_address)
        play(series, clock, target)
        clock.advance(ONE)
        with Gateway(target) as gateway:
            history = retrieve(
                gateway,
                proposed_bodies(CATALOG, runbook_base_url=BASE),
                declared=engine_descriptors(CATALOG).get,
                since=timedelta(days=days, minutes=1),
            )
            written = write_history(history, tmp_path / "month.jsonl.gz")
    assert sum(written.points.values()) == 2 * minutes
    result = replayed(read_history(tmp_path / "month.jsonl.gz"))
    outcomes = {one.entrant.id: one for one in result.outcomes}
    for policy, wanted in (("queue-depth-warning", True), ("worker-down-critical", False)):
        chosen = [
            (int(begin), int(length))
            for number, (begin, length) in enumerate(zip(begins, lengths, strict=True))
            if bool(number % 3) is wanted
        ]
        # The first reading beyond the limit is that of the first minute, five later it has lasted.
        told = [(begin + 6, begin + length + 1) for begin, length in chosen if length >= 6]
        short = [length for _, length in chosen if length < 6]
        outcome = outcomes[policy]
        assert spans(outcome) == told
        assert outcome.paged == len(told)
        assert outcome.in_alert == sum((ONE * (end - begin) for begin, end in told), ONE * 0)
        assert outcome.near is not None
        assert outcome.near.runs == len(short)
        assert outcome.near.longest == ONE * (max(short) - 1)
        assert result.weekly(outcome.paged) == pytest.approx(len(told) * 7 / days, rel=0.001)
    quiet = {name for name, one in outcomes.items() if one.standing is Standing.NO_DATA}
    assert "api-errors-warning" in quiet
