"""When requests begin is decided beforehand, by the profile and the seed alone."""

from __future__ import annotations

import itertools
import statistics
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.arrivals import Arrivals, Spacing, Stage, constant, ramp, rates, read_trace, spike
from speakfit.errors import LoadError

SECOND = timedelta(seconds=1)


def offsets(arrivals: Arrivals) -> list[float]:
    return [arrival.at for arrival in arrivals.all()]


def test_even_arrivals_keep_their_rate_in_every_second() -> None:
    found = offsets(Arrivals(stages=constant(50, 10 * SECOND)))
    assert rates(found) == [50] * 10


def test_a_ramp_rises_in_a_straight_line() -> None:
    # The integral of 0..100/s over 10 s in second k: from 5k^2 to 5(k+1)^2, that is 10k + 5.
    found = offsets(Arrivals(stages=ramp(0, 100, 10 * SECOND)))
    assert rates(found) == [10 * k + 5 for k in range(10)]


def test_a_spike_begins_and_ends_at_once() -> None:
    stages = spike(10, 60, before=2 * SECOND, lasting=2 * SECOND, after=2 * SECOND)
    arrivals = list(Arrivals(stages=stages).all())
    assert rates([one.at for one in arrivals]) == [10, 10, 60, 60, 10, 10]
    assert {one.stage for one in arrivals if 2 <= one.at < 4} == {"spike"}


def test_poisson_gaps_are_exponential_and_the_seed_decides_them() -> None:
    stages = constant(100, 100 * SECOND)
    found = offsets(Arrivals(stages=stages, spacing=Spacing.POISSON, seed=7))
    gaps = [later - sooner for sooner, later in itertools.pairwise(found)]
    # Of 10,000 exponential gaps both are within 5 % of the mean, 1/100 s, in every run of the seed.
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.05)
    again = Arrivals(stages=stages, spacing=Spacing.POISSON, seed=7)
    other = Arrivals(stages=stages, spacing=Spacing.POISSON, seed=8)
    assert offsets(again) == found != offsets(other)


@given(
    rises=st.lists(st.tuples(st.floats(0, 80), st.floats(0, 80)), min_size=1, max_size=3),
    spacing=st.sampled_from(Spacing),
    seed=st.integers(0, 1000),
    of=st.integers(1, 4),
)
def test_shards_together_are_all_arrivals_in_order_and_in_time(
    rises: list[tuple[float, float]], spacing: Spacing, seed: int, of: int
) -> None:
    stages = tuple(
        Stage(name=str(number), duration=SECOND, rate=start, to_rate=end)
        for number, (start, end) in enumerate(rises)
    )
    arrivals = Arrivals(stages=stages, spacing=spacing, seed=seed)
    whole = list(arrivals.all())
    shards = [one for index in range(of) for one in arrivals.shard(index, of)]
    assert sorted(shards, key=lambda one: one.index) == whole
    times = [one.at for one in whole]
    assert times == sorted(times)
    assert all(0 <= at <= len(stages) for at in times)


def test_a_trace_is_replayed_and_a_bad_line_is_named() -> None:
    trace = read_trace(["2.5  # late", "", "0.5"], "file.txt")
    assert offsets(Arrivals(trace=trace)) == [0.5, 2.5]
    with pytest.raises(LoadError) as caught:
        read_trace(["1", "soon"], "file.txt")
    assert caught.value.where == "file.txt:2"
    with pytest.raises(LoadError, match="holds no arrival"):
        read_trace(["# nothing"], "file.txt")
