"""Generated cases find what a policy's author would not expect, and say where none can be made."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from alerts.catalog import find_policy
from alerts.condition import Absence, Aggregation, Aligner, MissingData, Signal, Threshold
from alerts.metric import Metric
from alerts.policies import CATALOG
from alerts.policy import Combiner, Policy
from alerts.probe import Probes, probe
from alerts.stage import Stage
from speakfit.engine.points import MetricKind, ValueType

LIKE = find_policy(CATALOG, "queue-depth-warning")
LOAD = Metric(
    type="agent.googleapis.com/cpu/load_1m", kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE
)
BYTES = Metric(
    type="agent.googleapis.com/disk/bytes", kind=MetricKind.CUMULATIVE, value_type=ValueType.INT64
)
ON = Metric(type="agent.googleapis.com/on", kind=MetricKind.GAUGE, value_type=ValueType.BOOL)
MEAN = Aggregation(aligner=Aligner.ALIGN_MEAN)
HIGH = Threshold(
    key="load",
    signal=Signal(metric=LOAD, resource_type="gce_instance", where='metric.labels.cpu != "0"'),
    aggregation=MEAN,
    above=4,
    duration=timedelta(minutes=5),
    missing_data=MissingData.CLOSES,
)


def probed(*conditions: Threshold | Absence, **changes: object) -> Probes:
    policy: Policy = replace(LIKE, conditions=conditions, **changes)  # type: ignore[arg-type]
    catalog = replace(CATALOG, policies=(policy,))
    return probe(Stage.of(catalog), [policy.id])


def surprises(*conditions: Threshold | Absence, **changes: object) -> list[str]:
    return [f"{one.case}: {one.surprise}" for one in probed(*conditions, **changes).surprises]


def skipped(condition: Threshold) -> str:
    (one,) = probed(condition).skipped
    return one.surprise


def test_what_does_as_its_fields_say_surprises_nobody() -> None:
    found = probed(HIGH, replace(HIGH, key="low", above=None, below=0.2), combiner=Combiner.ANY)
    assert len(found.findings) == 4, "beyond and silent of each; one series cannot be held apart"
    assert found.surprises == found.skipped == ()


def test_a_long_window_delays_the_page_and_its_end() -> None:
    slow = replace(HIGH, aggregation=replace(MEAN, period=timedelta(minutes=15)))
    (late,) = surprises(slow)
    assert late.startswith("just beyond its threshold: it pages 20m after the value broke")
    rate = replace(
        HIGH,
        signal=Signal(metric=BYTES, resource_type="gce_instance"),
        aggregation=Aggregation(aligner=Aligner.ALIGN_RATE, period=timedelta(minutes=15)),
    )
    assert "its window of 15m has to fill" in surprises(rate)[0]
    highest = replace(
        HIGH, aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, period=timedelta(minutes=15))
    )
    assert "it resolves 15m after the value recovered" in surprises(highest)[0]


def test_a_rate_that_must_not_be_low_is_low_while_a_series_is_new() -> None:
    low = replace(
        HIGH,
        signal=Signal(metric=BYTES, resource_type="gce_instance"),
        aggregation=Aggregation(aligner=Aligner.ALIGN_RATE, period=timedelta(minutes=5)),
        above=None,
        below=10,
        duration=timedelta(minutes=1),
    )
    new = "it pages when its series is new, before its window of 5m has filled"
    assert f"just short of its threshold: {new}" in surprises(low)


def test_silence_that_keeps_an_incident_open_for_days_is_a_surprise() -> None:
    keeps = replace(HIGH, missing_data=MissingData.KEEPS)
    assert surprises(keeps, auto_close=timedelta(minutes=30)) == []
    assert surprises(keeps, auto_close=None) == [
        "silent while open: silence keeps it open for more than an hour: auto-close is 7d"
    ]


def test_a_threshold_that_says_nothing_has_no_boundary() -> None:
    growth = replace(
        HIGH,
        signal=Signal(metric=BYTES, resource_type="gce_instance"),
        aggregation=Aggregation(aligner=Aligner.ALIGN_RATE),
    )
    assert skipped(replace(growth, above=-1)) == "every value breaks it"
    assert skipped(replace(growth, above=None, below=0)) == "no value breaks it"
    many = replace(HIGH, aggregation=Aggregation(aligner=Aligner.ALIGN_COUNT))
    assert skipped(many) == "what it measures does not follow the values of its series"
    on = Signal(metric=ON, resource_type="gce_instance")
    share = Aggregation(aligner=Aligner.ALIGN_FRACTION_TRUE)
    assert "true and false" in skipped(replace(HIGH, signal=on, aggregation=share, above=0.5))
    nothing = replace(HIGH.signal, where='metric.labels.cpu = monitoring.regex.full_match("[ab]c")')
    assert skipped(replace(HIGH, signal=nothing)).startswith("no series could be found")


def test_an_absence_is_probed_by_silence() -> None:
    gone = Absence(key="gone", signal=HIGH.signal, aggregation=MEAN, duration=timedelta(minutes=10))
    found = probed(gone)
    assert [one.case for one in found.findings] == [
        "just beyond its threshold",
        "just short of its threshold",
    ]
    assert found.surprises == ()
