"""The vectorised engine against a slow reference that walks time step by step.

The reference shares no code with the engine: points are lists, windows are scanned, growth is
found by the overlap of intervals, and durations are counted by remembering one time per series.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speakfit.engine import blocks
from speakfit.engine.incidents import PolicyState, Replay, replay, replay_many
from speakfit.engine.points import (
    Buckets,
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    ValueType,
)
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.reduce import aggregate, parse_aggregation
from tests.speakfit.engine.build import (
    MINUTE,
    aggregation,
    counter,
    gauge,
    key,
    minutes,
    policy,
    run,
    threshold,
)

STEPS = 14
Point = tuple[float, float, float]
"""Start, end and value of a point; times in minutes."""
Line = list[Point]


@dataclass(frozen=True)
class Case:
    """One policy on a few series."""

    lines: tuple[Line, ...]
    cumulative: bool
    aligner: str
    period: int
    reducer: str | None
    limit: float
    above: bool
    duration: int
    missing: str


@st.composite
def gauges(draw: st.DrawFn) -> Line:
    slots = draw(st.lists(st.integers(1, STEPS * 2), unique=True, max_size=20))
    return [(at / 2, at / 2, float(draw(st.integers(0, 9)))) for at in sorted(slots)]


@st.composite
def counters(draw: st.DrawFn) -> Line:
    slots = sorted(draw(st.lists(st.integers(1, STEPS * 2), unique=True, max_size=20)))
    start, total, line = 0.0, 0.0, list[Point]()
    for at in slots:
        fate = draw(st.sampled_from(["grow"] * 6 + ["fall", "restart"]))
        grown = float(draw(st.integers(0, 9)))
        if fate == "restart":
            start, total = at / 2 - 0.25, grown
        elif fate == "fall":
            total = min(total, grown)
        else:
            total += grown
        line.append((start, at / 2, total))
    return line


@st.composite
def cases(draw: st.DrawFn) -> Case:
    cumulative = draw(st.booleans())
    of = counters() if cumulative else gauges()
    aligners = (
        ["ALIGN_DELTA", "ALIGN_RATE"]
        if cumulative
        else [
            "ALIGN_MIN", "ALIGN_MAX", "ALIGN_MEAN", "ALIGN_SUM", "ALIGN_COUNT", "ALIGN_STDDEV",
            "ALIGN_NEXT_OLDER",
        ]
    )  # fmt: skip
    duration = draw(st.integers(0, 4))
    return Case(
        lines=tuple(draw(st.lists(of, min_size=1, max_size=3))),
        cumulative=cumulative,
        aligner=draw(st.sampled_from(aligners)),
        period=draw(st.integers(1, 6)),
        reducer=draw(
            st.sampled_from(
                [None, "REDUCE_SUM", "REDUCE_MEAN", "REDUCE_MIN", "REDUCE_MAX", "REDUCE_COUNT",
                 "REDUCE_STDDEV", "REDUCE_PERCENTILE_50", "REDUCE_PERCENTILE_95"]
            )
        ),
        # Never a value that small whole numbers can equal.
        limit=draw(st.integers(0, 12)) + 0.0371,
        above=draw(st.booleans()),
        duration=duration,
        missing=draw(st.sampled_from(["UNSPECIFIED", "NO_OP", "INACTIVE", "ACTIVE"]))
        if duration
        else "UNSPECIFIED",
    )  # fmt: skip


def growth(line: Line) -> Iterator[Point]:
    """Intervals and what was added in them."""
    before: Point | None = None
    for start, end, value in line:
        if before is None or start != before[0]:
            begin = start if before is None else max(start, before[1])
            yield begin, end, value
        else:
            yield before[1], end, value - before[2] if value >= before[2] else value
        before = (start, end, value)


def aligned(line: Line, aligner: str, period: float, at: float) -> float | None:
    low = at - period
    if aligner in ("ALIGN_DELTA", "ALIGN_RATE"):
        total, touched = 0.0, False
        for begin, end, amount in growth(line):
            overlap = min(end, at) - max(begin, low)
            if overlap > 0:
                touched = True
                total += amount * overlap / (end - begin)
        if not touched:
            return None
        return total / (period * 60) if aligner == "ALIGN_RATE" else total
    values = [value for _, end, value in line if low < end <= at]
    if not values:
        return None
    folds: dict[str, Callable[[list[float]], float]] = {
        "ALIGN_MIN": min,
        "ALIGN_MAX": max,
        "ALIGN_MEAN": statistics.fmean,
        "ALIGN_SUM": sum,
        "ALIGN_COUNT": len,
        "ALIGN_STDDEV": statistics.pstdev,
        "ALIGN_NEXT_OLDER": lambda found: found[-1],
    }
    return float(folds[aligner](values))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def reduced(values: list[float], reducer: str) -> float | None:
    if not values:
        return None
    if reducer == "REDUCE_PERCENTILE_50":
        return quantile(values, 0.5)
    if reducer == "REDUCE_PERCENTILE_95":
        return quantile(values, 0.95)
    folds: dict[str, Callable[[list[float]], float]] = {
        "REDUCE_SUM": sum,
        "REDUCE_MEAN": statistics.fmean,
        "REDUCE_MIN": min,
        "REDUCE_MAX": max,
        "REDUCE_COUNT": len,
        "REDUCE_STDDEV": statistics.pstdev,
    }
    return float(folds[reducer](values))


def measured(case: Case, at: float) -> dict[str, float | None]:
    values = {
        f"i={number}": aligned(line, case.aligner, case.period, at)
        for number, line in enumerate(case.lines)
        if line
    }
    if case.reducer is None or not values:
        return values
    known = [value for value in values.values() if value is not None]
    return {"": reduced(known, case.reducer)}


def expected_story(case: Case) -> list[str]:
    told: list[str] = []
    since: dict[str, float] = {}
    seen: set[str] = set()
    open_now: set[str] = set()
    for at in range(1, STEPS + 1):
        closing, opening = [], []
        for name, value in sorted(measured(case, at).items()):
            violates: bool | None
            if value is not None:
                seen.add(name)
                violates = value > case.limit if case.above else value < case.limit
            elif name not in seen or case.missing in ("UNSPECIFIED", "NO_OP"):
                violates = None
            else:
                violates = case.missing == "ACTIVE"
            if violates is None:
                continue
            if not violates:
                since.pop(name, None)
                if name in open_now:
                    open_now.remove(name)
                    closing.append(f"{at} closed {name}".rstrip())
                continue
            since.setdefault(name, at)
            if at - since[name] >= case.duration and name not in open_now:
                open_now.add(name)
                opening.append(f"{at} opened {name}".rstrip())
        told += closing + opening
    return told


def series_of(case: Case) -> list[Series]:
    found = []
    for number, line in enumerate(case.lines):
        of = key(i=str(number))
        points = {end: value for _, end, value in line}
        if case.cumulative:
            found.append(counter(points, start=[start for start, _, _ in line], of=of))
        else:
            found.append(gauge(points, of=of))
    return found


def spec_of(case: Case) -> AlertPolicySpec:
    raw = aggregation(case.aligner, period=f"{case.period * 60}s", reducer=case.reducer)
    more = {"evaluationMissingData": f"EVALUATION_MISSING_DATA_{case.missing}"}
    condition = threshold(
        case.limit if case.above else None,
        below=case.limit,
        duration=f"{case.duration * 60}s",
        aggregations=[raw],
        **(more if case.missing != "UNSPECIFIED" else {}),
    )
    return policy(
        condition,
        kind=MetricKind.CUMULATIVE if case.cumulative else MetricKind.GAUGE,
        value_type=ValueType.INT64 if case.cumulative else ValueType.DOUBLE,
    )


@settings(max_examples=150, deadline=None)
@given(cases())
def test_aligned_and_reduced_values_equal_those_of_the_slow_reference(case: Case) -> None:
    raw = aggregation(case.aligner, period=f"{case.period * 60}s", reducer=case.reducer)
    at = range(1, STEPS + 1)
    table = aggregate(series_of(case), [parse_aggregation(raw, field="a")], minutes(*at))
    assert table.values is not None
    for column, time in enumerate(at):
        wanted = measured(case, time)
        for row, found in enumerate(table.keys):
            name = ",".join(f"{label}={text}" for label, text in found.metric_labels)
            value = float(table.values[row, column])
            if wanted[name] is None:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(wanted[name], rel=1e-9, abs=1e-9)
        assert len(table.keys) == len(wanted)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_incidents_open_and_close_as_in_the_slow_reference(case: Case) -> None:
    assert run(spec_of(case), series_of(case), until=STEPS) == expected_story(case)


def test_the_reference_itself_knows_a_worked_case() -> None:
    line = [(0.0, 1.0, 60.0), (0.0, 3.0, 180.0)]
    assert aligned(line, "ALIGN_DELTA", 1, 2) == 60
    assert aligned(line, "ALIGN_RATE", 2, 3) == 1
    assert round(MINUTE / 1e9) == 60


@st.composite
def long_lines(draw: st.DrawFn, cumulative: bool) -> Line:
    """A few hundred points in even steps, with outages and a stretch that is out of step."""
    step = draw(st.sampled_from([0.5, 1.0, 2.0]))
    slots = np.arange(step, LONG + step, step)
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, LONG - 40))
        slots = slots[(slots <= begin) | (slots > begin + draw(st.integers(1, 20)))]
    begin = draw(st.integers(0, LONG))
    slots[(slots > begin) & (slots <= begin + 20)] += draw(st.sampled_from([0.0, 0.25]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.integers(0, 9, len(slots)).astype(float)
    start = np.zeros(len(slots))
    if cumulative:
        values = np.cumsum(values)
        for _ in range(draw(st.integers(0, 2))):
            restart = draw(st.integers(1, len(slots) - 1))
            if draw(st.booleans()):
                start[restart:] = slots[restart] - 0.125
            values[restart:] -= values[restart] - 1
    return list(zip(start.tolist(), slots.tolist(), values.tolist(), strict=True))


LONG = 160


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_long_windows_of_even_and_uneven_series_equal_the_slow_reference(
    data: st.DataObject,
) -> None:
    cumulative = data.draw(st.booleans())
    line = data.draw(long_lines(cumulative))
    period = data.draw(st.integers(1, 30))
    names = ["ALIGN_DELTA", "ALIGN_RATE"] if cumulative else [
        "ALIGN_MIN", "ALIGN_MAX", "ALIGN_MEAN", "ALIGN_SUM", "ALIGN_COUNT", "ALIGN_STDDEV",
    ]  # fmt: skip
    points = {end: value for _, end, value in line}
    series = counter(points, start=[s for s, _, _ in line]) if cumulative else gauge(points)
    for name in names:
        raw = aggregation(name, period=f"{period * 60}s")
        at = range(1, LONG + 10)
        table = aggregate([series], [parse_aggregation(raw, field="a")], minutes(*at))
        assert table.values is not None
        wanted = [aligned(line, name, period, time) for time in at]
        expected = np.array([math.nan if one is None else one for one in wanted])
        np.testing.assert_allclose(table.values[0], expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(cases(), min_size=2, max_size=4))
def test_policies_replayed_together_tell_what_each_tells_alone(several: list[Case]) -> None:
    several = [replace(case, cumulative=several[0].cumulative) for case in several]
    kinds = ("ALIGN_DELTA", "ALIGN_RATE")
    specs = [spec_of(case) for case in several if (case.aligner in kinds) == several[0].cumulative]
    series = series_of(several[0])
    at = minutes(*range(1, STEPS + 1))
    together = replay_many(
        [Replay(spec=spec, state=PolicyState.empty()) for spec in specs], iter(series), at
    )
    with pytest.MonkeyPatch.context() as patch:
        # Nor does it matter which series are worked on side by side.
        patch.setattr(blocks, "CELLS", 1)
        alone = tuple(replay(spec, PolicyState.empty(), series, at) for spec in specs)
    assert together == alone


GAUGE_ALIGNERS = [
    "ALIGN_NEXT_OLDER", "ALIGN_MIN", "ALIGN_MAX", "ALIGN_MEAN", "ALIGN_SUM", "ALIGN_COUNT",
    "ALIGN_STDDEV", "ALIGN_INTERPOLATE", "ALIGN_PERCENT_CHANGE",
]  # fmt: skip
ALIGNERS = {
    (MetricKind.GAUGE, ValueType.DOUBLE): GAUGE_ALIGNERS,
    (MetricKind.DELTA, ValueType.DOUBLE): ["ALIGN_DELTA", "ALIGN_RATE", "ALIGN_SUM", "ALIGN_MEAN"],
    (MetricKind.CUMULATIVE, ValueType.DOUBLE): ["ALIGN_DELTA", "ALIGN_RATE"],
    (MetricKind.GAUGE, ValueType.DISTRIBUTION): ["ALIGN_SUM", "ALIGN_PERCENTILE_95"],
    (MetricKind.DELTA, ValueType.DISTRIBUTION): ["ALIGN_DELTA", "ALIGN_SUM"],
    (MetricKind.CUMULATIVE, ValueType.DISTRIBUTION): ["ALIGN_DELTA"],
}


def odd_series(number: int, kind: MetricKind, value_type: ValueType, seed: int) -> Series:
    """Uneven times, fractions that round, restarts: whatever might differ by a last digit."""
    random = np.random.default_rng([seed, number])
    count = int(random.integers(1, 90))
    end = np.sort(random.choice(np.arange(1, 360), count, replace=False)) * (MINUTE // 6)
    start = end if kind is MetricKind.GAUGE else np.append(end[0] - MINUTE, end[:-1])
    if kind is MetricKind.CUMULATIVE:
        born = np.maximum.accumulate(np.where(random.random(count) < 0.1, start, start[0]))
        start = np.minimum(born, start)
    of = key(i=f"{number:02}")
    if value_type is ValueType.DOUBLE:
        values = random.standard_normal(count).round(2)
        return Series.of_numbers(
            key=of, kind=kind, value_type=value_type, start_ns=start, end_ns=end, values=values
        )
    counts = random.integers(0, 5, (count, 4)).astype(float)
    column = Distributions(
        buckets=Buckets.explicit([0.1, 0.5, 2.5]),
        count=counts.sum(axis=1),
        mean=random.random(count),
        ssd=random.random(count),
        counts=counts,
    )
    return Series.of_distributions(key=of, kind=kind, start_ns=start, end_ns=end, values=column)


def rows(series: list[Series], at: Ints, raw: dict[str, Any]) -> list[Floats]:
    """What each series, or group, comes to: numbers, or all that a distribution consists of."""
    table = aggregate(series, [parse_aggregation(raw, field="a")], at)
    if table.distributions is None:
        assert table.values is not None
        return list(table.values)
    return [
        np.column_stack((one.count, one.mean, one.ssd, one.counts)) for one in table.distributions
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(sort, name) for sort, names in ALIGNERS.items() for name in names]),
    st.sampled_from([60, 90, 300, 1_800]),
    st.integers(0, 9_999),
)
def test_not_even_rounding_depends_on_what_else_is_aligned_or_evaluated_at_once(
    asked: tuple[tuple[MetricKind, ValueType], str], period: int, seed: int
) -> None:
    (kind, value_type), name = asked
    each = aggregation(name, period=f"{period}s")
    added = aggregation(name, period=f"{period}s", reducer="REDUCE_SUM")
    series = [odd_series(number, kind, value_type, seed) for number in range(17)]
    at = minutes(*range(1, 63))
    together, (total,) = rows(series, at, each), rows(series, at, added)
    for found, one in zip(together, series, strict=True):
        np.testing.assert_array_equal(found, rows([one], at, each)[0])
    for time in (0, 1, 30, 61):
        then = at[time : time + 1]
        np.testing.assert_array_equal([row[time] for row in together], [
            row[0] for row in rows(series, then, each)
        ])  # fmt: skip
        np.testing.assert_array_equal(total[time], rows(series, then, added)[0][0])
