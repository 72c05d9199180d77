"""Aligners: what each makes of the points in (t - period, t], and what it refuses."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from speakfit.engine.align import Aligner, align, aligned_type, percentile
from speakfit.engine.points import (
    Buckets,
    Distribution,
    Distributions,
    Floats,
    MetricKind,
    Series,
    ValueType,
)
from speakfit.errors import InvalidArgument
from tests.speakfit.engine.build import MINUTE, counter, gauge, histogram, histograms, minutes


def aligned(series: Series, aligner: str, *at: float, period: float = 1) -> list[float | None]:
    values = align(
        series, aligner=Aligner(aligner), period_ns=round(period * MINUTE), at_ns=minutes(*at)
    )
    assert not isinstance(values, Distributions)
    return [None if np.isnan(value) else round(float(value), 9) for value in values]


@pytest.mark.parametrize(
    ("aligner", "expected"),
    [
        ("ALIGN_NONE", 8),
        ("ALIGN_NEXT_OLDER", 8),
        ("ALIGN_MIN", 2),
        ("ALIGN_MAX", 8),
        ("ALIGN_MEAN", 5),
        ("ALIGN_SUM", 15),
        ("ALIGN_COUNT", 3),
        ("ALIGN_STDDEV", round(6**0.5, 9)),
    ],
)
def test_gauge_aligners_fold_the_points_of_the_window(aligner: str, expected: float) -> None:
    series = gauge({0.5: 100, 1: 100, 1.5: 2, 2: 5, 3: 8, 3.5: 100})
    # The window (1, 3] holds 2, 5 and 8: its open end leaves out the point at 1.
    assert aligned(series, aligner, 3, period=2) == [expected]


def test_a_window_without_points_has_no_value() -> None:
    series = gauge({1: 1, 5: 5})
    for aligner in ("ALIGN_MEAN", "ALIGN_SUM", "ALIGN_COUNT", "ALIGN_NEXT_OLDER", "ALIGN_MIN"):
        assert aligned(series, aligner, 0, 1, 3, 5, 6)[0::2] == [None, None, None]


def test_windows_slide_with_the_evaluation() -> None:
    series = gauge({minute: minute for minute in range(1, 8)})
    assert aligned(series, "ALIGN_SUM", 5, 6, 7, period=5) == [15, 20, 25]


def test_long_windows_fold_like_short_ones() -> None:
    series = gauge({minute: (minute * 7) % 5 for minute in range(1, 61)})
    for aligner in ("ALIGN_MIN", "ALIGN_MAX", "ALIGN_SUM", "ALIGN_MEAN", "ALIGN_STDDEV"):
        # Thirty minutes make six full cycles of 0..4.
        expected = {"ALIGN_MIN": 0, "ALIGN_MAX": 4, "ALIGN_SUM": 60, "ALIGN_MEAN": 2}
        assert (
            aligned(series, aligner, 40, 60, period=30)
            == [pytest.approx(expected.get(aligner, 2**0.5))] * 2
        )


def test_the_mean_of_a_constant_is_that_constant() -> None:
    for points in (3, 7, 30):
        series = gauge(dict.fromkeys(range(1, points + 1), 0.1))
        values = align(
            series,
            aligner=Aligner.ALIGN_MEAN,
            period_ns=points * MINUTE,
            at_ns=minutes(points),
        )
        assert not isinstance(values, Distributions)
        assert values[0] == 0.1


def test_no_mean_of_equal_values_is_above_or_below_them() -> None:
    for value in (0.1, 0.7, 1 / 3, 1e17 / 3, -0.1):
        series = gauge({float(minute): value for minute in range(1, 60)})
        for period in range(2, 40):
            means = align(
                series,
                aligner=Aligner.ALIGN_MEAN,
                period_ns=period * MINUTE,
                at_ns=minutes(*range(1, 60)),
            )
            assert not isinstance(means, Distributions)
            assert set(means.tolist()) == {value}


def test_bools_count_and_make_fractions() -> None:
    series = gauge({1: 1, 2: 0, 3: 1, 4: 1}, value_type=ValueType.BOOL)
    assert aligned(series, "ALIGN_COUNT_TRUE", 4, period=4) == [3]
    assert aligned(series, "ALIGN_COUNT_FALSE", 4, period=4) == [1]
    assert aligned(series, "ALIGN_FRACTION_TRUE", 4, period=4) == [0.75]
    assert aligned(series, "ALIGN_COUNT", 4, period=4) == [4]


def test_interpolation_lies_between_neighbours_and_ends_at_the_live_edge() -> None:
    series = gauge({1: 10, 3: 30})
    assert aligned(series, "ALIGN_INTERPOLATE", 0.5, 1, 2, 2.5, 3, 3.5, 4) == [
        None, 10, 20, 25, 30, 30, None,
    ]  # fmt: skip


def test_percent_change_compares_ten_minute_means() -> None:
    calm = gauge(dict.fromkeys(range(1, 21), 10.0))
    assert aligned(calm, "ALIGN_PERCENT_CHANGE", 20, period=10) == [0]
    doubled = gauge({minute: 10.0 if minute <= 10 else 20.0 for minute in range(1, 21)})
    assert aligned(doubled, "ALIGN_PERCENT_CHANGE", 20, period=10) == [100]
    from_zero = gauge({minute: 0.0 if minute <= 10 else 5.0 for minute in range(1, 21)})
    assert aligned(from_zero, "ALIGN_PERCENT_CHANGE", 20, period=10) == [np.inf]
    still_zero = gauge(dict.fromkeys(range(1, 21), 0.0))
    assert aligned(still_zero, "ALIGN_PERCENT_CHANGE", 20, period=10) == [0]
    negative = gauge({minute: -5.0 if minute % 2 else 10.0 for minute in range(1, 21)})
    assert aligned(negative, "ALIGN_PERCENT_CHANGE", 20, period=10) == [0]


def test_percent_change_needs_data_now_and_before() -> None:
    ended = gauge(dict.fromkeys(range(1, 11), 10.0))
    assert aligned(ended, "ALIGN_PERCENT_CHANGE", 15, 20, 25, period=10) == [0, None, None]
    begun = gauge(dict.fromkeys(range(11, 21), 10.0))
    assert aligned(begun, "ALIGN_PERCENT_CHANGE", 20, period=10) == [None]


def test_growth_in_no_time_belongs_to_the_window_that_holds_the_point() -> None:
    series = counter({1: 5, 2: 7, 4: 8}, start=[1, 1, 4])
    assert aligned(series, "ALIGN_DELTA", 1, 2, 3, 4, 5) == [5, 2, None, 8, None]
    assert aligned(series, "ALIGN_DELTA", 1.5, 2, period=0.5) == [1, 1]


def test_a_counter_becomes_growth_per_window_and_per_second() -> None:
    series = counter({1: 60, 2: 180, 3: 180})
    assert aligned(series, "ALIGN_DELTA", 1, 2, 3) == [60, 120, 0]
    assert aligned(series, "ALIGN_RATE", 1, 2, 3) == [1, 2, 0]
    assert aligned(series, "ALIGN_DELTA", 3, period=2) == [120]


def test_a_counter_that_fell_restarted_and_grew_by_its_new_value() -> None:
    series = counter({1: 100, 2: 130, 3: 5, 4: 15})
    assert aligned(series, "ALIGN_DELTA", 2, 3, 4) == [30, 5, 10]


def test_a_new_start_time_is_a_restart_even_when_the_value_rose() -> None:
    series = counter({1: 100, 2: 130, 4: 200, 5: 210}, start=[0, 0, 3, 3])
    # Nothing is known between 2 and the new start at 3: that window has no value.
    assert aligned(series, "ALIGN_DELTA", 2, 3, 4, 5) == [30, None, 200, 10]


def test_growth_between_two_points_is_spread_evenly_over_empty_windows() -> None:
    series = counter({1: 0, 5: 40})
    assert aligned(series, "ALIGN_DELTA", 2, 3, 4, 5) == [10, 10, 10, 10]
    assert aligned(series, "ALIGN_DELTA", 6) == [None]
    assert aligned(series, "ALIGN_DELTA", 1.5, 3) == [5, 10]


def test_delta_points_belong_to_their_intervals() -> None:
    series = Series.of_numbers(
        key=gauge({1: 1}).key,
        kind=MetricKind.DELTA,
        value_type=ValueType.INT64,
        start_ns=minutes(0, 1, 4),
        end_ns=minutes(1, 2, 5),
        values=[6, 8, 10],
    )
    assert aligned(series, "ALIGN_DELTA", 1, 2, 3, 4, 5) == [6, 8, None, None, 10]
    assert aligned(series, "ALIGN_SUM", 2, period=2) == [14]
    assert aligned(series, "ALIGN_RATE", 5) == [round(10 / 60, 9)]


ONE_BETWEEN_128_AND_256 = histogram([64, 128, 256, 512], [0, 0, 1, 0, 0])


@pytest.mark.parametrize(("percent", "expected"), [(50, 192), (95, 249.6), (99, 254.72)])
def test_percentiles_interpolate_linearly_inside_the_bucket(
    percent: float, expected: float
) -> None:
    """The worked case of api/v3/distribution-metrics: one value in [128, 256)."""
    column = Distributions.of([ONE_BETWEEN_128_AND_256])
    assert percentile(column, percent)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "percent", "expected"),
    [
        ([0, 10, 10, 0], 50, 2.0),
        ([0, 10, 10, 0], 75, 3.0),
        ([0, 0, 0, 0], 95, None),
        ([0, 0, 0, 5], 50, 4.0),
        ([5, 0, 0, 0], 50, 0.5),
        ([1, 0, 0, 1], 95, 4.0),
    ],
)
def test_percentiles_at_the_edges(
    counts: list[float], percent: float, expected: float | None
) -> None:
    value = percentile(Distributions.of([histogram([1, 2, 4], counts)]), percent)[0]
    assert (None if np.isnan(value) else value) == expected


def test_linear_and_exponential_buckets_have_the_documented_bounds() -> None:
    assert Buckets.linear(num_finite_buckets=3, width=10, offset=5).bounds == (5, 15, 25, 35)
    exponential = Buckets.exponential(num_finite_buckets=3, growth_factor=2, scale=64)
    assert exponential.bounds == (64, 128, 256, 512)
    value = Distribution(count=1, mean=192, ssd=0, buckets=exponential, bucket_counts=(0, 0, 1))
    assert percentile(Distributions.of([value]), 95)[0] == pytest.approx(249.6)
    for buckets in (exponential, Buckets.linear(num_finite_buckets=2, width=1, offset=0)):
        assert Buckets.from_rest(buckets.to_rest()) == buckets
        assert Buckets.from_rest(buckets.to_rest()).to_rest() == buckets.to_rest()


def test_growth_of_a_cumulative_distribution_is_a_distribution() -> None:
    bounds = [1, 2, 4]
    series = histograms(
        {
            1: histogram(bounds, [0, 10, 0, 0]),
            2: histogram(bounds, [0, 10, 10, 0]),
            3: histogram(bounds, [0, 2, 0, 0]),
        }
    )
    column = align(series, aligner=Aligner.ALIGN_DELTA, period_ns=MINUTE, at_ns=minutes(1, 2, 3, 9))
    assert isinstance(column, Distributions)
    assert column.counts[:3].tolist() == [[0, 10, 0, 0], [0, 0, 10, 0], [0, 2, 0, 0]]
    assert column.mean[:3].tolist() == pytest.approx([1.5, 3.0, 1.5])
    assert column.ssd[:3].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    assert np.isnan(column.count[3])


def test_percentile_aligners_take_gauge_and_delta_distributions() -> None:
    series = histograms(
        {1: histogram([1, 2, 4], [0, 10, 0, 0]), 2: histogram([1, 2, 4], [0, 0, 10, 0])},
        kind=MetricKind.GAUGE,
    )
    assert aligned(series, "ALIGN_PERCENTILE_50", 1, 2, 3, period=1) == [1.5, 3, None]
    assert aligned(series, "ALIGN_PERCENTILE_50", 2, period=2) == [2]
    assert aligned(series, "ALIGN_PERCENTILE_99", 2, period=2) == [3.96]


N = {ValueType.INT64, ValueType.DOUBLE}
B = {ValueType.BOOL}
H = {ValueType.DISTRIBUTION}
G, D, C = MetricKind.GAUGE, MetricKind.DELTA, MetricKind.CUMULATIVE
ACCEPTS: dict[str, tuple[set[MetricKind], set[ValueType]]] = {
    "ALIGN_DELTA": ({D, C}, N | H),
    "ALIGN_RATE": ({D, C}, N),
    "ALIGN_INTERPOLATE": ({G}, N),
    "ALIGN_NEXT_OLDER": ({G}, N | B | H),
    "ALIGN_MIN": ({G, D}, N),
    "ALIGN_MAX": ({G, D}, N),
    "ALIGN_MEAN": ({G, D}, N),
    "ALIGN_STDDEV": ({G, D}, N),
    "ALIGN_SUM": ({G, D}, N | H),
    "ALIGN_COUNT": ({G, D}, N | B),
    "ALIGN_COUNT_TRUE": ({G}, B),
    "ALIGN_COUNT_FALSE": ({G}, B),
    "ALIGN_FRACTION_TRUE": ({G}, B),
    "ALIGN_PERCENTILE_99": ({G, D}, H),
    "ALIGN_PERCENTILE_95": ({G, D}, H),
    "ALIGN_PERCENTILE_50": ({G, D}, H),
    "ALIGN_PERCENTILE_05": ({G, D}, H),
    "ALIGN_PERCENT_CHANGE": ({G, D}, N),
    "ALIGN_NONE": ({G, D, C}, N | B | H | {ValueType.STRING}),
}


@pytest.mark.parametrize("aligner", Aligner)
def test_every_aligner_takes_exactly_what_the_api_says(aligner: Aligner) -> None:
    kinds, types = ACCEPTS[aligner]
    for kind, value_type in product(MetricKind, ValueType):
        if kind in kinds and value_type in types:
            aligned_type(aligner, kind, value_type)
        else:
            with pytest.raises(InvalidArgument) as refused:
                aligned_type(aligner, kind, value_type)
            assert str(refused.value) == (
                f"The aligner cannot be applied to metrics with kind {kind} and value type "
                f"{value_type}."
            )


def test_outputs_have_the_documented_types() -> None:
    assert aligned_type(Aligner.ALIGN_DELTA, C, ValueType.DISTRIBUTION) == (
        D, ValueType.DISTRIBUTION,
    )  # fmt: skip
    assert aligned_type(Aligner.ALIGN_RATE, C, ValueType.INT64) == (G, ValueType.DOUBLE)
    assert aligned_type(Aligner.ALIGN_COUNT, G, ValueType.BOOL) == (G, ValueType.INT64)
    assert aligned_type(Aligner.ALIGN_MEAN, D, ValueType.INT64) == (G, ValueType.DOUBLE)
    assert aligned_type(Aligner.ALIGN_PERCENTILE_95, D, ValueType.DISTRIBUTION) == (
        G, ValueType.DOUBLE,
    )  # fmt: skip


def test_merging_bucket_layouts_keeps_counts_and_percentiles() -> None:
    coarse, fine = histogram([0, 4, 8], [0, 8, 8, 0]), histogram([0, 2, 4, 8], [0, 0, 0, 4, 0])
    column = Distributions.of([coarse, fine])
    assert column.counts.sum(axis=1).tolist() == [16, 4]
    alone: Floats = percentile(Distributions.of([coarse]), 25)
    assert percentile(column, 25)[0] == alone[0] == 2


def test_what_lies_above_the_last_bound_stays_right_above_it() -> None:
    coarse, fine = histogram([0, 4], [0, 0, 3]), histogram([0, 2, 4, 8], [0, 0, 0, 0, 1])
    column = Distributions.of([coarse, fine])
    assert column.counts.tolist() == [[0, 0, 0, 3, 0], [0, 0, 0, 0, 1]]


def test_a_sum_of_observations_may_fall_without_a_restart() -> None:
    buckets = Buckets.explicit([0, 4])
    series = histograms(
        {
            1: Distribution(count=4, mean=2, ssd=0, buckets=buckets, bucket_counts=(0, 4, 0)),
            2: Distribution(count=8, mean=-0.5, ssd=50, buckets=buckets, bucket_counts=(4, 4, 0)),
        }
    )
    column = align(series, aligner=Aligner.ALIGN_DELTA, period_ns=MINUTE, at_ns=minutes(2))
    assert isinstance(column, Distributions)
    assert column.counts.tolist() == [[4, 0, 0]]
    assert column.mean.tolist() == [-3]
