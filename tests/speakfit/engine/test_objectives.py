"""Burn rates: bad share of the lookback period over what the goal allows, or no measurement."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from speakfit.engine.conditions import ConditionKind, ThresholdCondition
from speakfit.engine.filters import parse_filter
from speakfit.engine.incidents import PolicyState, replay
from speakfit.engine.objectives import Cut, Objective, Ratio, count_inside, parse_selector
from speakfit.engine.points import (
    Descriptor,
    Distributions,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.engine.policies import AlertPolicySpec, parse_policy
from speakfit.errors import InvalidArgument, NotFound
from tests.speakfit.engine.build import counter, histogram, minutes, raw_policy, run

NAME = "projects/p/services/api/serviceLevelObjectives/up"
GOOD, BAD, TOTAL = (f"workload.googleapis.com/{kind}" for kind in ("good", "bad", "total"))
COUNTER = Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.INT64)


def _filter(metric: str) -> Any:
    return parse_filter(f'metric.type="{metric}" AND resource.type="generic_task"')


def _condition(lookback: str = "300s", **changes: Any) -> dict[str, Any]:
    body = {
        "filter": f'select_slo_burn_rate("{NAME}", "{lookback}")',
        "comparison": "COMPARISON_GT",
        "thresholdValue": 2.0,
        "duration": "0s",
        **changes,
    }
    return {"displayName": "burn", "conditionThreshold": body}


def _spec(indicator: Ratio | Cut | None, *, goal: float = 0.9, **changes: Any) -> AlertPolicySpec:
    objective = Objective(name=NAME, goal=goal, indicator=indicator)
    return parse_policy(
        raw_policy(_condition(**changes)),
        descriptors=lambda _: COUNTER,
        objectives={NAME: objective}.get,
    )


def _counter(metric: str, steps: str, *, task: str = "1") -> Series:
    """Growth in each minute from 1 on."""
    of = SeriesKey.of(
        metric_type=metric, resource_type="generic_task", resource_labels={"task_id": task}
    )
    total, points = 0.0, {}
    for minute, step in enumerate(steps.split(), start=1):
        total += float(step)
        points[float(minute)] = total
    return counter(points, of=of)


@pytest.mark.parametrize(
    ("indicator", "series", "told"),
    [
        (
            Ratio(bad=_filter(BAD), total=_filter(TOTAL)),
            [_counter(BAD, "0 0 0 0 0 6 0 0 0 0 0 0"), _counter(TOTAL, "4 " * 12)],
            ["6 opened", "11 closed"],
        ),
        (
            Ratio(good=_filter(GOOD), total=_filter(TOTAL)),
            [_counter(GOOD, "4 4 4 4 4 0 2 4 4 4 4 4"), _counter(TOTAL, "4 " * 12)],
            ["7 opened", "11 closed"],
        ),
        (
            Ratio(good=_filter(GOOD), bad=_filter(BAD)),
            [_counter(GOOD, "4 4 4 4 4 0 2 4 4 4 4 4"), _counter(BAD, "0 0 0 0 0 4 2 0 0 0 0 0")],
            ["7 opened", "11 closed"],
        ),
        # Several tasks count together: 3 of 20 bad would not be enough for one of them alone.
        (
            Ratio(bad=_filter(BAD), total=_filter(TOTAL)),
            [
                _counter(BAD, "0 0 0 0 0 3 0 0 0 0 0 0"),
                _counter(BAD, "0 0 0 0 0 3 0 0 0 0 0 0", task="2"),
                _counter(TOTAL, "2 " * 12),
                _counter(TOTAL, "2 " * 12, task="2"),
            ],
            ["6 opened", "11 closed"],
        ),
    ],
    ids=["bad of total", "good of total", "good and bad", "two tasks"],
)
def test_a_burn_rate_is_the_bad_share_of_the_lookback_over_what_the_goal_allows(
    indicator: Ratio, series: list[Series], told: list[str]
) -> None:
    # 6 bad ones among 20 in five minutes, with a goal of 0.9: three times too fast.
    assert run(_spec(indicator), series, until=12) == told
    assert run(_spec(indicator, thresholdValue=3.01), series, until=12) == []
    assert run(_spec(indicator, goal=0.6), series, until=12) == []


def test_the_observed_value_of_an_incident_is_the_burn_rate_and_its_series_the_selector() -> None:
    spec = _spec(Ratio(bad=_filter(BAD), total=_filter(TOTAL)))
    series = [_counter(BAD, "0 0 0 0 0 6"), _counter(TOTAL, "4 " * 6)]
    _, (event,) = replay(spec, PolicyState.empty(), series, minutes(*range(1, 7)))
    assert event.incident.observed_value == pytest.approx(3.0)
    assert event.incident.series == SeriesKey.of(
        metric_type=f'select_slo_burn_rate("{NAME}", "300s")'
    )
    assert event.incident.summary == (
        f'select_slo_burn_rate("{NAME}", "300s") is above the threshold of 2.000 with a value of '
        "3.000."
    )


def test_without_service_nothing_burns_and_a_service_without_errors_burns_nothing() -> None:
    ratio = Ratio(bad=_filter(BAD), total=_filter(TOTAL))
    below: dict[str, Any] = {"comparison": "COMPARISON_LT", "thresholdValue": 0.5}
    # Nobody has ever written an error: the burn rate is 0, not unknown.
    assert run(_spec(ratio, **below), [_counter(TOTAL, "4 4 4")], until=3) == ["1 opened"]
    # Nobody used the service: there is no share of nothing.
    assert run(_spec(ratio, **below), [_counter(TOTAL, "0 0 0")], until=3) == []
    assert run(_spec(ratio, **below), [_counter(BAD, "1 1 1")], until=3) == []
    # All of it was bad, though no good one was ever written.
    good = Ratio(good=_filter(GOOD), total=_filter(TOTAL))
    assert run(_spec(good), [_counter(TOTAL, "4 4 4")], until=3) == ["1 opened"]


def test_values_outside_a_cut_burn_the_budget() -> None:
    of = SeriesKey.of(metric_type=GOOD, resource_type="generic_task")
    # Half a second's bucket is 100 to 200: half of it is inside a cut at 150.
    slow = [(10.0 * n, 4.0 * max(0, n - 3)) for n in range(1, 9)]
    series = Series.of_distributions(
        key=of,
        kind=MetricKind.CUMULATIVE,
        start_ns=minutes(*[0] * 8),
        end_ns=minutes(*range(1, 9)),
        values=[histogram([0, 100, 200], [0, fast, middle, 0]) for fast, middle in slow],
    )
    spec = _spec(Cut(filter=_filter(GOOD), low=0, high=150), lookback="60s", thresholdValue=1.4)
    # 2 of 14 are too slow in a minute: 1.43 times what a goal of 0.9 allows.
    assert run(spec, [series], until=8) == ["4 opened"]
    wide = _spec(Cut(filter=_filter(GOOD), low=0, high=200), lookback="60s", thresholdValue=0)
    assert run(wide, [series], until=8) == []


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (-np.inf, np.inf, 10),
        (0, 10, 1),
        (0, 20, 3),
        (5, 15, 1.5),
        (15, np.inf, 8),
        # What is above the last bound may be too slow.
        (0, 1e9, 6),
        (0, 40, 6),
        (11, 12, 0.2),
        (50, np.inf, 0),
    ],
)
def test_values_are_spread_evenly_in_their_buckets(low: float, high: float, inside: float) -> None:
    column = Distributions.of([histogram([10, 20, 40], [1, 2, 3, 4])])
    assert count_inside(column, low, high)[0] == pytest.approx(inside)
    nothing = Distributions.of([histogram([10, 20, 40], [0, 0, 0, 0])])
    assert count_inside(nothing, low, high)[0] == 0


def test_what_is_not_measured_here_is_never_healthy() -> None:
    spec = _spec(None)
    assert not spec.evaluated
    assert spec.conditions[0].kind is ConditionKind.OBJECTIVE
    other = _spec(
        Ratio(bad=_filter(BAD), total=_filter(TOTAL)), filter=f'select_slo_compliance("{NAME}")'
    )
    assert not other.evaluated
    assert run(spec, [_counter(BAD, "4 4 4"), _counter(TOTAL, "4 4 4")], until=3) == []


@pytest.mark.parametrize(
    ("lookback", "length"),
    [
        ('"3600s"', timedelta(hours=1)),
        ("60m", timedelta(hours=1)),
        ('"1h30m"', timedelta(hours=1.5)),
        ("'60000ms'", timedelta(minutes=1)),
        ('"24h"', timedelta(days=1)),
    ],
)
def test_lookback_periods_have_units(lookback: str, length: timedelta) -> None:
    found = parse_selector(f'select_slo_burn_rate("{NAME}", {lookback})', field="filter")
    assert found is not None
    assert (found.objective, found.lookback) == (NAME, length)
    assert parse_selector('metric.type="x"', field="filter") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f'select_slo_burn_rate("{NAME}", 3600)', "unit of"),
        (f'select_slo_burn_rate("{NAME}", "30s")', "at least 60 seconds"),
        (f'select_slo_burn_rate("{NAME}", "25h")', "at most 24 hours"),
        (f'select_slo_burn_rate("{NAME}")', "needs lookback period"),
        (f'select_slo_health("{NAME}", "1h")', "takes no lookback period"),
        (f'select_slo_fury("{NAME}")', 'unknown function "select_slo_fury"'),
        ('select_slo_burn_rate("projects/p/services/api", "1h")', "must have the form"),
        (f'select_slo_burn_rate("{NAME}", "1h") AND metric.type="x"', "Could not parse filter"),
        (f'select_slo_burn_rate("{NAME}", "1h"', "Could not parse filter"),
    ],
)
def test_a_selector_that_is_wrong_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        _spec(None, filter=text)


def test_a_condition_on_an_objective_needs_one_that_exists_and_has_no_denominator() -> None:
    with pytest.raises(NotFound, match="Cannot find the service level objective"):
        parse_policy(raw_policy(_condition()), descriptors=lambda _: COUNTER)
    with pytest.raises(InvalidArgument, match="has no denominator"):
        _spec(None, denominatorFilter='metric.type="x"')
    # Aggregations are read, and change nothing.
    step = {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MEAN"}
    ratio = Ratio(bad=_filter(BAD), total=_filter(TOTAL))
    plain = _spec(ratio)
    assert plain == _spec(ratio, aggregations=[step])
    assert isinstance(plain.conditions[0], ThresholdCondition)
    with pytest.raises(InvalidArgument, match="at least 60 seconds"):
        _spec(None, aggregations=[{**step, "alignmentPeriod": "1s"}])
