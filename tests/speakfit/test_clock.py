"""The clocks: policy time never runs back, and a scaled clock maps instants exactly."""

from datetime import UTC, datetime, timedelta

import pytest

from speakfit.clock import ManualClock, RealClock, ScaledClock, from_ns, to_ns

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def test_an_instant_survives_the_way_to_nanoseconds_and_back() -> None:
    exact = NOON + timedelta(microseconds=123_457)
    assert from_ns(to_ns(exact)) == exact
    assert to_ns(NOON) == 1_767_614_400_000_000_000


def test_a_manual_clock_stands_still_until_told_and_refuses_to_run_back() -> None:
    clock = ManualClock(NOON)
    assert from_ns(clock.now_ns()) == NOON
    clock.advance(timedelta(minutes=5))
    assert from_ns(clock.now_ns()) == NOON + timedelta(minutes=5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(timedelta(seconds=-1))


def test_policy_time_is_utc_on_a_real_clock() -> None:
    clock = RealClock()
    assert clock.to_policy_ns(5) == clock.to_real_ns(5) == 5
    assert clock.scale == 1


def test_a_scaled_clock_runs_faster_from_its_anchor_and_maps_both_ways() -> None:
    clock = ScaledClock(scale=60, anchor_real_ns=1_000, anchor_policy_ns=50_000)
    assert clock.to_policy_ns(1_000) == 50_000
    assert clock.to_policy_ns(1_007) == 50_000 + 7 * 60
    assert clock.to_real_ns(clock.to_policy_ns(1_234_567)) == 1_234_567
    # Also before the anchor: a cumulative series may have begun before the emulator.
    assert clock.to_policy_ns(990) == 50_000 - 600


@pytest.mark.parametrize("scale", [0, 0.5, 1.5])
def test_a_scale_that_is_no_whole_number_of_at_least_one_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="whole number"):
        ScaledClock(scale=scale, anchor_real_ns=0, anchor_policy_ns=0)
