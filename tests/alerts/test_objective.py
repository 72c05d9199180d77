"""Burn rates are derived, and the policies they become page when a budget burns, and only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.condition import Ratio, Signal, Threshold
from alerts.encode import engine_spec
from alerts.metric import Metric
from alerts.objective import WORKBOOK, AvailabilitySlo, BurnWindow, LatencySlo
from alerts.policy import Catalog, Channel, ChannelType, Guidance, Policy, Route, Severity
from speakfit.engine.incidents import IncidentOpened, PolicyState, replay
from speakfit.engine.points import MetricKind, Series, SeriesKey, ValueType
from speakfit.errors import CatalogError

MINUTE = 60 * 10**9
BEGIN = 1_767_225_600 * 10**9
COUNT = Metric(
    type="run.googleapis.com/request_count",
    kind=MetricKind.DELTA,
    value_type=ValueType.INT64,
    unit="1",
    labels=("response_code", "response_code_class"),
)
ALL = Signal(metric=COUNT, resource_type="cloud_run_revision")
SLO = AvailabilitySlo(
    subject="checkout",
    title="Checkout",
    owner="shop",
    goal=0.999,
    bad=replace(ALL, labels={"response_code_class": "5xx"}),
    total=ALL,
    fewest_bad=10,
    guidance=Guidance(meaning="Orders fail.", users_feel="No order.", first_steps=("Look.",)),
)
CHANNEL = Channel(id="oncall", display_name="x", type=ChannelType.PAGERDUTY, secret="X")
ROUTES = tuple(
    Route(severity=severity, channel=CHANNEL) for severity in (Severity.WARNING, Severity.CRITICAL)
)
FAST, SLOW, TICKET = SLO.policies()


def test_burn_rates_and_thresholds_are_those_of_the_workbook() -> None:
    # Table 5-8 for 99.9 % over 30 days.
    assert [SLO.burn_rate(window) for window in WORKBOOK] == [Decimal("14.4"), 6, 3]
    shares = [
        condition.above
        for policy in SLO.policies()
        for condition in policy.conditions
        if isinstance(condition, Ratio)
    ]
    assert shares == [0.0144, 0.0144, 0.006, 0.006, 0.003, 0.003]
    assert [policy.id for policy in SLO.policies()] == [
        "checkout-burn-1h-critical",
        "checkout-burn-6h-critical",
        "checkout-burn-1d-warning",
    ]
    assert {policy.runbook for policy in SLO.policies()} == {"checkout"}
    assert isinstance(FAST.guidance, Guidance)
    assert "2 % of it went in 1 h, and all of it is gone in 2 d 2 h" in FAST.guidance.meaning


def test_a_latency_objective_says_what_is_slow() -> None:
    slow = LatencySlo(
        **{name: getattr(SLO, name) for name in SLO.__dataclass_fields__},
        slower_than=timedelta(seconds=2),
    )
    keys = [condition.key for condition in slow.policies()[0].conditions]
    assert keys[0] == "share of requests slower than 2 s over 1 h"


def story(policy: Policy, *stretches: tuple[int, int, int]) -> list[tuple[str, int]]:
    """What opens and closes at which minute; a stretch is (minutes, good, bad a minute)."""
    catalog = Catalog(name="shop", policies=SLO.policies(), routes=ROUTES)
    spec = engine_spec(policy, catalog, runbook_base_url="https://runbooks.test")
    lines = [
        (minute, good, bad)
        for minute, (good, bad) in enumerate(
            (good, bad) for minutes, good, bad in stretches for _ in range(minutes)
        )
    ]
    series = [
        Series.of_numbers(
            key=SeriesKey.of(
                metric_type=COUNT.type,
                metric_labels={"response_code_class": name},
                resource_type="cloud_run_revision",
                resource_labels={"service_name": "checkout"},
            ),
            kind=MetricKind.DELTA,
            value_type=ValueType.INT64,
            start_ns=[BEGIN + minute * MINUTE for minute, *_ in lines],
            end_ns=[BEGIN + (minute + 1) * MINUTE for minute, *_ in lines],
            values=[line[column] for line in lines],
        )
        for name, column in (("2xx", 1), ("5xx", 2))
    ]
    at = [BEGIN + (minute + 1) * MINUTE for minute, *_ in lines]
    _, events = replay(spec, PolicyState.empty(), series, at, active_since_ns=BEGIN)
    guard = next(c.key for c in policy.conditions if isinstance(c, Threshold))
    return [
        (
            "opened" if isinstance(event, IncidentOpened) else "closed",
            (event.at_ns - BEGIN) // MINUTE,
        )
        for event in events
        # One incident for each condition: the guard's stands for all.
        if event.incident.condition_display_name == guard
    ]


def test_an_outage_pages_within_minutes_and_ends_with_the_short_window() -> None:
    # After an hour of 100 requests a minute, half of them fail: 1.44 % of the hour's 6,000 are 87,
    # which is two minutes; a condition must hold for one more.
    events = story(FAST, (60, 100, 0), (10, 50, 50), (60, 100, 0))
    assert events == [("opened", 63), ("closed", 75)]


def test_a_slow_burn_is_for_the_longer_windows() -> None:
    # 0.7 % failing is seven times the budget: too slow for 14.4, enough for six and three.
    slow = ((1440, 10_000, 0), (720, 9_930, 70))
    assert story(FAST, *slow) == []
    assert [what for what, _ in story(SLOW, *slow)] == ["opened"]
    assert [what for what, _ in story(TICKET, *slow)] == ["opened"]


def test_within_the_budget_nobody_is_told() -> None:
    for policy in SLO.policies():
        assert story(policy, (1800, 9_991, 9)) == []


def test_a_few_failures_at_night_page_nobody() -> None:
    assert story(FAST, (60, 1, 0), (9, 0, 1), (60, 1, 0)) == []
    assert story(FAST, (60, 1, 0), (12, 0, 1), (60, 1, 0)) != []


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a goal of one": (lambda: replace(SLO, goal=1.0), "budget to burn"),
    "a period of a year": (lambda: replace(SLO, period=timedelta(days=365)), "1 to 90 days"),
    "no guard": (lambda: replace(SLO, fewest_bad=0), "at least 1"),
    "no windows": (lambda: replace(SLO, windows=()), "WORKBOOK"),
    "a burn that cannot be": (lambda: replace(SLO, goal=0.9), "smaller share"),
    "a window of three days": (
        lambda: BurnWindow(
            severity=Severity.WARNING,
            budget=0.1,
            long=timedelta(days=3),
            short=timedelta(hours=6),
        ),
        "25 hours",
    ),
    "a short window that is longer": (
        lambda: replace(WORKBOOK[0], short=timedelta(hours=2)),
        "less than the long",
    ),
    "all of the budget": (lambda: replace(WORKBOOK[0], budget=1.0), "between 0 and 1"),
    "a gauge": (
        lambda: replace(SLO, total=Signal(metric=Metric(type="a/b", kind=MetricKind.GAUGE))),
        "DELTA or CUMULATIVE",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_objective_that_cannot_work_is_refused(mistake: str) -> None:
    make, rule = MISTAKES[mistake]
    with pytest.raises(CatalogError) as raised:
        make()
    assert rule in raised.value.todo
