"""The series notation: promtool's own examples, what was added, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from alerts.notation import (
    Literal,
    Normal,
    NotationError,
    Silence,
    bucket_counts,
    moments,
    parse_series,
    parse_span,
    print_span,
    unroll,
)

STEP = timedelta(seconds=30)
MISSING, GONE, RESET = Silence.MISSING, Silence.GONE, Silence.RESET

SERIES = {
    # promtool's documentation: the first six are its own examples.
    "-2+4x3": [-2, 2, 6, 10],
    "1-2x4": [1, -1, -3, -5, -7],
    "1x4": [1, 1, 1, 1, 1],
    "4x0": [4],
    "1 _x3 stale": [1, MISSING, MISSING, MISSING, GONE],
    "0+1x2 _ 5": [0, 1, 2, MISSING, 5],
    "1.5e2 -3 .5": [150, -3, 0.5],
    "7 for 2m": [7, 7, 7, 7],
    "0+1 for 90s": [0, 1, 2],
    "_ for 1m 3 reset 1": [MISSING, MISSING, 3, RESET, 1],
    "stale for 1m true false": [GONE, GONE, True, False],
    "{mean: 0.2, n: 3}x1": [Normal(mean=0.2, deviation=0, count=3)] * 2,
    "{0.1: 94, 2.4: 6} for 30s": [Literal(counts=((0.1, 94), (2.4, 6)))],
}


@pytest.mark.parametrize("text", SERIES)
def test_a_series_unrolls_into_its_points(text: str) -> None:
    assert list(unroll(parse_series(text), STEP)) == SERIES[text]


REFUSED = {
    "": 0,
    "1 1+1": 1,
    "0 for 5m 10z3": 3,
    "0 for": 1,
    "5x3 for 2m": 1,
    "5 for 2min": 2,
    "5 for 45s": 2,
    "_+1x3": 0,
    "1 {mean: 3}": 1,
    "{mean: 3, n: 1.5}": 0,
    "{mean: 3, n: 1, sd: -1}": 0,
    "{a: 3}": 0,
    "1x9999999": 0,
    "1e400": 0,
    "0+1e400x2": 0,
    "1 {mean: 1e400, n: 1}": 1,
    "{0.1: 1e12}": 0,
    "1x150000 1x150000": 1,
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_parse_is_refused_at_its_word(text: str) -> None:
    with pytest.raises(NotationError) as raised:
        list(unroll(parse_series(text), STEP))
    assert raised.value.token == REFUSED[text]
    assert raised.value.what
    assert raised.value.todo


def test_a_normal_distribution_is_laid_over_buckets_without_losing_a_measurement() -> None:
    bounds = (0.0, 1.0, 2.0, 3.0)
    counts = bucket_counts(Normal(mean=1.5, deviation=0.5, count=100), bounds)
    assert counts == (0, 16, 68, 16, 0)
    assert sum(bucket_counts(Normal(mean=1.5, deviation=0.5, count=7), bounds)) == 7
    # A bucket includes its lower bound.
    assert bucket_counts(Normal(mean=2.0, deviation=0, count=5), bounds) == (0, 0, 0, 5, 0)
    assert moments(Literal(counts=((1.0, 1), (3.0, 1)))) == (2, 2.0, 2.0)


def test_durations_are_read_and_written_the_same_way() -> None:
    for text in ("30s", "5m", "1h30m", "2d", "1d1h1m1s"):
        assert print_span(parse_span(text)) == text
    assert parse_span("1.5h") == timedelta(minutes=90)
    assert print_span(timedelta(0)) == "0m"
    for wrong in ("5", "5 m", "m", "-5m", "", "9999999d", "1d1d1d1d1d"):
        with pytest.raises(NotationError):
            parse_span(wrong)
