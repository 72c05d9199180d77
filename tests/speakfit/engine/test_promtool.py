"""The engine against Prometheus, where a condition has an exact twin in PromQL.

promtool 2.42 is the one tested against. Where the two differ, they differ by Google's definitions;
each difference is a test at the end that names the source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from speakfit.engine.incidents import IncidentOpened, PolicyState, replay
from speakfit.engine.points import Distribution, MetricKind, Series, ValueType
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.reduce import aggregate, parse_aggregation
from tests.speakfit.engine.build import (
    MINUTE,
    aggregation,
    counter,
    gauge,
    histogram,
    histograms,
    key,
    minutes,
    policy,
    threshold,
)
from tests.speakfit.engine.promtool import PROMTOOL, AlertRule, Answer, ask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: apt-get install prometheus"),
]
LENGTH = 60
SEEDS = range(4)
Lines = Mapping[tuple[str, str], Sequence[float | None]]
"""Number and zone of a series to one value a minute, from minute 0; None is a gap."""


def text(values: Sequence[float | None]) -> str:
    return " ".join("_" if value is None else f"{value:g}" for value in values)


def named(lines: Lines) -> dict[str, str]:
    return {f'm{{i="{i}", zone="{zone}"}}': text(line) for (i, zone), line in lines.items()}


def points(line: Sequence[float | None]) -> dict[float, float]:
    return {float(at): value for at, value in enumerate(line) if value is not None}


def gauges_of(lines: Lines) -> list[Series]:
    return [gauge(points(line), of=key(i=i, zone=zone)) for (i, zone), line in lines.items()]


def counters_of(lines: Lines) -> list[Series]:
    return [
        counter(points(line), start=-1, of=key(i=i, zone=zone)) for (i, zone), line in lines.items()
    ]


def random_gauges(seed: int, *, gaps: bool) -> Lines:
    random = np.random.default_rng(seed)
    found: dict[tuple[str, str], list[float | None]] = {}
    for number in range(12):
        walk = np.cumsum(random.integers(-3, 4, LENGTH)) + 10
        line: list[float | None] = [float(value) for value in walk]
        if gaps:
            for begin in random.integers(0, LENGTH, 4):
                stop = min(LENGTH, int(begin) + int(random.integers(1, 9)))
                line[begin:stop] = [None] * (stop - int(begin))
        found[str(number), f"z{number % 3}"] = line
    return found


def random_counters(seed: int) -> dict[tuple[str, str], list[float]]:
    random = np.random.default_rng(seed)
    found = {}
    for number in range(12):
        total = 0.0
        line: list[float] = []
        for grown in random.poisson(random.choice([0.5, 5.0]), LENGTH):
            total = float(grown) if random.random() < 0.04 else total + float(grown)
            line.append(total)
        found[str(number), f"z{number % 3}"] = line
    return found


def firing(spec: AlertPolicySpec, series: Sequence[Series]) -> dict[int, set[frozenset[str]]]:
    """Label values of the open incidents, by minute."""
    _, events = replay(spec, PolicyState.empty(), series, minutes(*range(LENGTH)))
    found: dict[int, set[frozenset[str]]] = {}
    open_now: set[frozenset[str]] = set()
    by_minute: dict[int, list[tuple[bool, frozenset[str]]]] = {}
    for event in events:
        labels = frozenset(value for _, value in event.incident.series.metric_labels)
        by_minute.setdefault(event.at_ns // MINUTE, []).append(
            (isinstance(event, IncidentOpened), labels)
        )
    for minute in range(LENGTH):
        for opened, labels in by_minute.get(minute, []):
            (open_now.add if opened else open_now.discard)(labels)
        found[minute] = set(open_now)
    return found


def prometheus_firing(
    folder: Path, lines: Lines, expr: str, *, duration: int
) -> dict[int, set[frozenset[str]]]:
    found = ask(
        folder,
        series=named(lines),
        rules=[AlertRule(name="A", expr=expr, minutes=duration)],
        exprs=['ALERTS{alertstate="firing"}'],
        minutes=range(LENGTH),
    )
    given = {"__name__", "alertname", "alertstate"}
    return {
        minute: {
            frozenset(value for name, value in labels if name not in given) for labels in answer
        }
        for minute in range(LENGTH)
        for answer in [found.get(('ALERTS{alertstate="firing"}', minute), {})]
    }


def assert_equal(
    ours: Mapping[frozenset[tuple[str, str]], Sequence[float]],
    theirs: Mapping[int, Answer],
    at: Sequence[int],
) -> None:
    assert any(theirs.values()), "Prometheus found nothing, which proves nothing"
    for column, minute in enumerate(at):
        mine = {name: line[column] for name, line in ours.items() if not math.isnan(line[column])}
        wanted = {name: v for name, v in theirs[minute].items() if not math.isnan(v)}
        assert mine == pytest.approx(wanted, rel=1e-9, abs=1e-12), f"minute {minute}"


def compare(
    folder: Path,
    *,
    names: Mapping[str, str],
    series: Sequence[Series],
    expr: str,
    aggregations: Sequence[Mapping[str, object]],
    first: int,
) -> None:
    at = range(first, LENGTH)
    found = ask(folder, series=names, exprs=[expr], minutes=at)
    table = aggregate(
        series, [parse_aggregation(one, field="a") for one in aggregations], minutes(*at)
    )
    assert table.values is not None
    ours = {
        frozenset(name.metric_labels): list(line)
        for name, line in zip(table.keys, table.values, strict=True)
    }
    assert_equal(ours, {minute: found.get((expr, minute), {}) for minute in at}, at)


@pytest.mark.parametrize("seed", SEEDS)
def test_gauge_thresholds_with_a_duration_fire_in_the_same_minutes(
    seed: int, tmp_path: Path
) -> None:
    lines = random_gauges(seed, gaps=False)
    for duration in (0, 3):
        spec = policy(threshold(12.5, duration=f"{duration * 60}s"))
        theirs = prometheus_firing(tmp_path, lines, "m > 12.5", duration=duration)
        assert any(theirs.values())
        assert firing(spec, gauges_of(lines)) == theirs


@pytest.mark.parametrize("seed", SEEDS)
def test_missing_data_that_is_inactive_closes_like_a_sample_that_is_gone(
    seed: int, tmp_path: Path
) -> None:
    lines = random_gauges(seed, gaps=True)
    inactive = "EVALUATION_MISSING_DATA_INACTIVE"
    spec = policy(threshold(below=9.5, duration="120s", evaluationMissingData=inactive))
    theirs = prometheus_firing(tmp_path, lines, "last_over_time(m[59s]) < 9.5", duration=2)
    assert any(theirs.values())
    assert firing(spec, gauges_of(lines)) == theirs


@pytest.mark.parametrize("seed", SEEDS)
def test_rates_fire_in_the_same_minutes_resets_included(seed: int, tmp_path: Path) -> None:
    # At rest until all windows begin after the first point: before, the two differ (see below).
    lines: Lines = {
        name: [0.0] * 6 + list(line[6:]) for name, line in random_counters(seed).items()
    }
    for duration in (0, 2):
        spec = policy(
            threshold(
                0.0251,
                duration=f"{duration * 60}s",
                aggregations=[aggregation("ALIGN_RATE", period="300s")],
            ),
            kind=MetricKind.CUMULATIVE,
            value_type=ValueType.INT64,
        )
        theirs = prometheus_firing(tmp_path, lines, "rate(m[5m]) > 0.0251", duration=duration)
        assert any(theirs.values())
        assert firing(spec, counters_of(lines)) == theirs


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("window", [1, 5, 17])
def test_rates_have_the_same_values_resets_included(seed: int, window: int, tmp_path: Path) -> None:
    lines: Lines = random_counters(seed)
    compare(
        tmp_path,
        names=named(lines),
        series=counters_of(lines),
        expr=f"rate(m[{window}m])",
        aggregations=[aggregation("ALIGN_RATE", period=f"{window * 60}s")],
        first=window,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fold", ["avg", "min", "max", "sum", "count", "stddev"])
def test_windows_of_gauges_have_the_same_values(seed: int, fold: str, tmp_path: Path) -> None:
    lines = random_gauges(seed, gaps=True)
    aligner = {"avg": "MEAN"}.get(fold, fold.upper())
    compare(
        tmp_path,
        names=named(lines),
        series=gauges_of(lines),
        # Prometheus 2 takes the point at the beginning of the range too.
        expr=f"{fold}_over_time(m[299s])",
        aggregations=[aggregation(f"ALIGN_{aligner}", period="300s")],
        first=0,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fold", ["sum", "avg", "min", "max", "count", "stddev"])
def test_sums_by_label_have_the_same_values(seed: int, fold: str, tmp_path: Path) -> None:
    lines = random_gauges(seed, gaps=True)
    reducer = {"avg": "MEAN"}.get(fold, fold.upper())
    compare(
        tmp_path,
        names=named(lines),
        series=gauges_of(lines),
        expr=f"{fold} by (zone) (last_over_time(m[59s]))",
        aggregations=[
            aggregation("ALIGN_MEAN", reducer=f"REDUCE_{reducer}", by=["metric.labels.zone"])
        ],
        first=0,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("percent", [50, 95, 99])
def test_percentiles_of_classic_histograms_have_the_same_values(
    seed: int, percent: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    bounds = [0.1, 0.5, 1.0, 2.5, 5.0]
    names: dict[str, str] = {}
    series: list[Series] = []
    for number in range(6):
        zone = f"z{number % 2}"
        chances = random.dirichlet(np.ones(len(bounds) + 1))
        grown = random.multinomial(random.integers(0, 9, LENGTH), chances)
        totals = np.cumsum(grown, axis=0)
        below = np.cumsum(totals, axis=1)
        for place, bound in enumerate([*(f"{bound:g}" for bound in bounds), "+Inf"]):
            name = f'm_bucket{{i="{number}", zone="{zone}", le="{bound}"}}'
            names[name] = text([float(count) for count in below[:, place]])
        values: dict[float, Distribution] = {
            float(at): histogram(bounds, [float(one) for one in totals[at]]) for at in range(LENGTH)
        }
        series.append(histograms(values, start=-1, of=key(i=str(number), zone=zone)))
    compare(
        tmp_path,
        names=names,
        series=series,
        expr=f"histogram_quantile({percent / 100}, sum by (zone, le) (rate(m_bucket[5m])))",
        aggregations=[
            aggregation(
                "ALIGN_DELTA",
                period="300s",
                reducer=f"REDUCE_PERCENTILE_{percent}",
                by=["metric.labels.zone"],
            )
        ],
        first=5,
    )


# What differs, by Google's definitions.


def both(
    folder: Path,
    line: Sequence[float | None],
    expr: str,
    raw: Mapping[str, object],
    minute: int,
    *,
    cumulative: bool = True,
) -> tuple[float, float]:
    """Google's value and Prometheus' of one series at one minute."""
    lines: Lines = {("1", "z"): line}
    found = ask(folder, series=named(lines), exprs=[expr], minutes=[minute])
    series = counters_of(lines) if cumulative else gauges_of(lines)
    table = aggregate(series, [parse_aggregation(raw, field="a")], minutes(minute))
    assert table.values is not None
    theirs = list(found.get((expr, minute), {}).values())
    return float(table.values[0, 0]), theirs[0] if theirs else math.nan


def test_over_a_gap_growth_is_interpolated_where_prometheus_extrapolates(tmp_path: Path) -> None:
    """google.monitoring.v3 common.proto, Aggregation.Aligner: ALIGN_DELTA, ALIGN_RATE."""
    line = [0.0, 6, 12, None, None, None, 18]
    raw = aggregation("ALIGN_DELTA", period="120s")
    google, prometheus = both(tmp_path, line, "increase(m[2m])", raw, 6)
    assert google == pytest.approx(3)
    assert math.isnan(prometheus)


def test_a_counter_grew_since_its_start_time_which_prometheus_does_not_know(
    tmp_path: Path,
) -> None:
    """google.monitoring.v3 common.proto, TimeInterval: a cumulative point covers its interval."""
    line = [30.0, 31]
    raw = aggregation("ALIGN_DELTA", period="120s")
    google, prometheus = both(tmp_path, line, "increase(m[2m])", raw, 1)
    assert google == pytest.approx(31)
    assert prometheus == pytest.approx(2)


def test_a_window_leaves_out_its_beginning_which_prometheus_2_takes_in(tmp_path: Path) -> None:
    """cloud.google.com/monitoring/alerts/concepts-indepth; Prometheus 3 has left-open ranges."""
    raw = aggregation("ALIGN_SUM", period="120s")
    google, prometheus = both(
        tmp_path, [1.0, 2, 4], "sum_over_time(m[2m])", raw, 2, cumulative=False
    )
    assert (google, prometheus) == (6, 7)


def test_a_missing_point_is_missing_where_prometheus_looks_back_five_minutes(
    tmp_path: Path,
) -> None:
    """google.monitoring.v3 alert.proto, EvaluationMissingData; Prometheus: lookback delta."""
    raw = aggregation("ALIGN_MEAN")
    google, prometheus = both(tmp_path, [1.0, None, None], "m", raw, 2, cumulative=False)
    assert math.isnan(google)
    assert prometheus == 1
