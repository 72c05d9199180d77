"""What runs out with time or number: descriptors, retention, evaluations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.api_core.exceptions import ResourceExhausted

from tests.speakfit.emulator.bench import NOON, PROJECT, Bench

_MINUTE = 60 * 10**9


@pytest.mark.slow
def test_a_project_has_at_most_ten_thousand_custom_metrics(bench: Bench) -> None:
    def declare(metric: str, project: str = PROJECT) -> None:
        bench.metrics.create_metric_descriptor(
            name=project,
            metric_descriptor={"type": metric, "metric_kind": "GAUGE", "value_type": "DOUBLE"},
        )

    for call in range(50):
        names = (f"custom.googleapis.com/m{200 * call + n}" for n in range(200))
        bench.write(*(bench.series(1, metric=name) for name in names))
    with pytest.raises(
        ResourceExhausted,
        match=r"Your metric descriptor quota has been exhausted: Limit for "
        r"custom\.googleapis\.com/ is 10000\.",
    ):
        declare("custom.googleapis.com/more")
    # What is there can still be changed; other domains and projects have their own limits.
    declare("custom.googleapis.com/m0")
    declare("workload.googleapis.com/more")
    declare("custom.googleapis.com/more", "projects/other")
    bench.metrics.delete_metric_descriptor(
        name=f"{PROJECT}/metricDescriptors/custom.googleapis.com/m0"
    )
    declare("custom.googleapis.com/more")


def test_points_are_forgotten_after_the_retention() -> None:
    with Bench(retention=timedelta(days=2)) as bench:
        bench.write(bench.series(1))
        bench.clock.advance(timedelta(days=1))
        bench.write(bench.series(2))
        bench.clock.advance(timedelta(days=1, hours=1))
        bench.emulator.evaluate_now()
        everything = {"start_time": bench.stamp(timedelta(days=-9)), "end_time": bench.stamp()}
        (series,) = bench.read(interval=everything)
        assert [point.value.double_value for point in series.points] == [2.0]


def test_evaluation_keeps_to_its_grid_a_watermark_behind(bench: Bench) -> None:
    noon = int(NOON.timestamp()) * 10**9
    assert bench.emulator.evaluate_now() == 1
    assert bench.emulator.evaluator.last_ns == noon - _MINUTE
    bench.clock.advance(timedelta(seconds=59))
    assert bench.emulator.evaluate_now() == 0
    bench.clock.advance(timedelta(seconds=121))
    assert bench.emulator.evaluate_now() == 3
    assert bench.emulator.evaluator.last_ns == noon + 2 * _MINUTE
    bench.clock.advance(timedelta(hours=1))
    assert bench.emulator.evaluate_now() == 60
    bench.clock.advance(timedelta(hours=1, minutes=1))
    assert bench.emulator.evaluate_now() == 1
