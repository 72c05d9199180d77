"""Reducers: which series fall into which group, and what becomes of their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speakfit.engine.points import MetricKind, Series, ValueType
from speakfit.engine.reduce import Aggregation, aggregate, parse_aggregation
from speakfit.errors import InvalidArgument
from tests.speakfit.engine.build import (
    aggregation,
    counter,
    gauge,
    histogram,
    histograms,
    key,
    minutes,
)


def steps(*raw: dict[str, Any]) -> list[Aggregation]:
    return [parse_aggregation(one, field="aggregation") for one in raw]


def reduced(series: list[Series], *raw: dict[str, Any], at: float = 1) -> dict[str, float]:
    table = aggregate(series, steps(*raw), minutes(at))
    assert table.values is not None
    return {
        ",".join(f"{k}={v}" for k, v in one.metric_labels): round(float(value), 9)
        for one, value in zip(table.keys, table.values[:, 0], strict=True)
    }


FOUR = [
    gauge({1: value}, of=key(route=route, code=code))
    for value, route, code in [(1, "a", "200"), (3, "a", "500"), (8, "b", "200"), (4, "b", "500")]
]


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [
        ("REDUCE_SUM", {"route=a": 4, "route=b": 12}),
        ("REDUCE_MEAN", {"route=a": 2, "route=b": 6}),
        ("REDUCE_MIN", {"route=a": 1, "route=b": 4}),
        ("REDUCE_MAX", {"route=a": 3, "route=b": 8}),
        ("REDUCE_COUNT", {"route=a": 2, "route=b": 2}),
        ("REDUCE_STDDEV", {"route=a": 1, "route=b": 2}),
        ("REDUCE_PERCENTILE_50", {"route=a": 2, "route=b": 6}),
        ("REDUCE_PERCENTILE_95", {"route=a": 2.9, "route=b": 7.8}),
    ],
)
def test_reducers_fold_the_series_of_each_group(reducer: str, expected: dict[str, float]) -> None:
    raw = aggregation("ALIGN_MEAN", reducer=reducer, by=["metric.label.route"])
    assert reduced(FOUR, raw) == expected


def test_without_group_by_all_series_of_a_resource_type_become_one() -> None:
    assert reduced(FOUR, aggregation(reducer="REDUCE_SUM")) == {"": 16}


def test_resource_labels_and_quoted_keys_group_too() -> None:
    series = [
        gauge({1: 1}, of=key({"task_id": "1", "location": "x"}, route="a")),
        gauge({1: 2}, of=key({"task_id": "2", "location": "x"}, route="a")),
    ]
    table = aggregate(
        series,
        steps(aggregation(reducer="REDUCE_SUM", by=['resource.labels."location"'])),
        minutes(1),
    )
    assert [one.resource for one in table.keys] == [{"location": "x"}]
    assert [one.resource_type for one in table.keys] == ["generic_task"]
    assert table.values is not None
    assert table.values.tolist() == [[3]]


def test_a_star_groups_by_every_label() -> None:
    series = [
        gauge({1: 1}, of=key({"task_id": "1", "location": "x"}, route="a")),
        gauge({1: 2}, of=key({"task_id": "1", "location": "x"}, route="b")),
        gauge({1: 4}, of=key({"task_id": "2", "location": "x"}, route="a")),
    ]
    for field in ("resource.label.*", "resource.labels.*"):
        table = aggregate(series, steps(aggregation(reducer="REDUCE_SUM", by=[field])), minutes(1))
        assert [one.resource["task_id"] for one in table.keys] == ["1", "2"]
        assert [dict(one.metric) for one in table.keys] == [{}, {}]
        assert table.values is not None
        assert table.values.tolist() == [[3], [4]]
    assert reduced(FOUR, aggregation(reducer="REDUCE_SUM", by=["metric.label.*"])) == {
        "code=200,route=a": 1, "code=500,route=a": 3, "code=200,route=b": 8, "code=500,route=b": 4,
    }  # fmt: skip


def test_a_group_has_a_value_where_any_member_has_one() -> None:
    series = [gauge({1: 1, 3: 1}, of=key(i="1")), gauge({2: 5, 3: 5}, of=key(i="2"))]
    for reducer, expected in {
        "REDUCE_SUM": [1, 5, 6],
        "REDUCE_MIN": [1, 5, 1],
        "REDUCE_MAX": [1, 5, 5],
        "REDUCE_MEAN": [1, 5, 3],
        "REDUCE_COUNT": [1, 1, 2],
        "REDUCE_PERCENTILE_50": [1, 5, 3],
    }.items():
        table = aggregate(series, steps(aggregation(reducer=reducer)), minutes(1, 2, 3, 4))
        assert table.values is not None
        assert table.values[0, :3].tolist() == expected
        assert np.isnan(table.values[0, 3])


def test_bools_are_counted_across_series() -> None:
    series = [
        gauge({1: value}, of=key(i=str(i)), value_type=ValueType.BOOL)
        for i, value in enumerate([1, 1, 0, 1])
    ]
    for reducer, expected in {
        "REDUCE_COUNT_TRUE": 3,
        "REDUCE_COUNT_FALSE": 1,
        "REDUCE_FRACTION_TRUE": 0.75,
    }.items():
        assert reduced(series, aggregation("ALIGN_NEXT_OLDER", reducer=reducer)) == {"": expected}


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_cumulative_histograms_give_a_p95_over_all_series(replicas: int) -> None:
    """The form that works for OpenTelemetry histograms: ALIGN_DELTA, REDUCE_PERCENTILE_95."""
    bounds = [1, 2, 2.5, 5]
    series = [
        histograms(
            {1: histogram(bounds, [50, 0, 0, 0, 0]), 2: histogram(bounds, [50, 90, 10, 0, 0])},
            of=key(replica=str(replica)),
        )
        for replica in range(replicas)
    ]
    raw = aggregation("ALIGN_DELTA", reducer="REDUCE_PERCENTILE_95")
    # 90 below 2 s and 10 between 2 and 2.5 s: the 95th is half-way through the last bucket.
    assert reduced(series, raw, at=2) == {"": 2.25}


def test_distributions_merge_and_average_across_series() -> None:
    series = [
        histograms({1: histogram([1, 2, 4], [0, 3, 0, 0])}, of=key(i="1"), kind=MetricKind.GAUGE),
        histograms({1: histogram([1, 2, 4], [0, 0, 1, 0])}, of=key(i="2"), kind=MetricKind.GAUGE),
    ]
    raw = aggregation("ALIGN_SUM", reducer="REDUCE_SUM")
    table = aggregate(series, steps(raw), minutes(1))
    assert table.distributions is not None
    assert table.distributions[0].counts.tolist() == [[0, 3, 1, 0]]
    assert reduced(series, aggregation("ALIGN_SUM", reducer="REDUCE_MEAN")) == {"": 1.875}
    assert reduced(series, aggregation("ALIGN_SUM", reducer="REDUCE_COUNT")) == {"": 2}
    # Three values at 1.5 and one at 3 have a population standard deviation of 0.6495.
    assert reduced(series, aggregation("ALIGN_SUM", reducer="REDUCE_STDDEV")) == {
        "": round((1.6875 / 4) ** 0.5, 9)
    }


@pytest.mark.parametrize("order", [1, -1])
def test_distributions_of_different_layouts_average_across_series(order: int) -> None:
    series = [
        histograms({1: histogram([0, 2, 4], [0, 2, 2, 0])}, of=key(i="1")),
        histograms({1: histogram([0, 1, 4], [0, 4, 0, 0])}, of=key(i="2")),
        histograms({1: histogram([0, 1, 4], [0, 0, 2, 0])}, of=key(i="3")),
    ][::order]
    assert reduced(series, aggregation("ALIGN_DELTA", reducer="REDUCE_MEAN")) == {"": 1.5}


def test_percentiles_of_infinite_values_are_infinite() -> None:
    series = [gauge({1: value}, of=key(i=str(i))) for i, value in enumerate([1, np.inf, np.inf])]
    raw = aggregation("ALIGN_MEAN", reducer="REDUCE_PERCENTILE_95")
    assert reduced(series, raw) == {"": np.inf}
    assert reduced(series[:1], raw) == {"": 1}


def test_several_aggregations_apply_in_order() -> None:
    # Two counters of 1 and 2 per second: rates of five minutes, then their sum over fifteen.
    series = [
        counter({minute: 60 * rate * minute for minute in range(31)}, of=key(i=str(rate)))
        for rate in (1, 2)
    ]
    rate = aggregation("ALIGN_RATE", period="300s", reducer="REDUCE_SUM")
    total = aggregation("ALIGN_SUM", period="900s", reducer="REDUCE_SUM")
    table = aggregate(series, steps(rate, total), minutes(20, 21, 25))
    assert table.values is not None
    assert table.values.tolist() == [[9, 9, 9]]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ({"perSeriesAligner": "ALIGN_MEAN"}, "An alignment period is required"),
        (aggregation(period="59s"), "at least 60 seconds"),
        (aggregation(period="90060s"), "at most 25 hours"),
        (aggregation(period="soon"), "google.protobuf.Duration"),
        ({"crossSeriesReducer": "REDUCE_SUM", "alignmentPeriod": "60s"}, "must be specified"),
        (aggregation("ALIGN_MEDIAN"), "(TYPE_ENUM)"),
        (aggregation(reducer="REDUCE_SUM", by=["colour"]), "not valid for grouping"),
        (aggregation(reducer="REDUCE_SUM", by=['metric.label.a = "b" AND project']), "grouping"),
        ({"alignmentPeriod": "60s", "aligner": "ALIGN_MEAN"}, 'Unknown name "aligner"'),
    ],
)
def test_wrong_aggregations_are_refused(raw: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_aggregation(raw, field="aggregation")
    assert rule in str(refused.value)


def test_a_reducer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="The reducer cannot be applied"):
        aggregate(FOUR, steps(aggregation(reducer="REDUCE_COUNT_TRUE")), minutes(1))
