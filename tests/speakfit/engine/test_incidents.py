"""Policies over time: what opens, what closes, when; each story told at once and step by step."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from speakfit.engine import incidents
from speakfit.engine.filters import parse_filter
from speakfit.engine.incidents import (
    CloseReason,
    Incident,
    IncidentClosed,
    IncidentOpened,
    PolicyState,
    Replay,
    Snooze,
    replay,
    replay_many,
    step,
)
from speakfit.engine.points import MetricKind, Series, SeriesKey, ValueType
from tests.speakfit.engine.build import (
    FILTER,
    METRIC,
    MINUTE,
    absence,
    aggregation,
    counter,
    gauge,
    histogram,
    histograms,
    key,
    minutes,
    policy,
    run,
    story,
    threshold,
)


def levels(text: str, *, of: SeriesKey | None = None) -> Series:
    """One point a minute from 1 on; `_` is a minute without a point."""
    values = text.split()
    return gauge(
        {minute: float(v) for minute, v in enumerate(values, start=1) if v != "_"},
        of=of or key(),
    )


def test_without_duration_one_violation_opens_and_one_measurement_closes() -> None:
    spec = policy(threshold(5))
    assert run(spec, [levels("1 9 9 5 9 1")], until=6) == [
        "2 opened", "4 closed", "5 opened", "6 closed",
    ]  # fmt: skip


def test_equal_to_the_threshold_is_not_above_or_below_it() -> None:
    assert run(policy(threshold(5)), [levels("5 5 5")], until=3) == []
    assert run(policy(threshold(below=5)), [levels("5 5 5")], until=3) == []
    assert run(policy(threshold(below=5)), [levels("5 4 5")], until=3) == ["2 opened", "3 closed"]


def test_the_duration_restarts_whenever_a_measurement_does_not_satisfy() -> None:
    spec = policy(threshold(5, duration="300s"))
    # Three violations, one measurement below, then violations from 5 on: 5 + 5 minutes.
    assert run(spec, [levels("9 9 9 1 9 9 9 9 9 9 9 1")], until=12) == ["10 opened", "12 closed"]


def test_a_sliding_window_holds_a_spike_for_its_whole_length() -> None:
    spec = policy(threshold(5, aggregations=[aggregation("ALIGN_MAX", period="300s")]))
    assert run(spec, [levels("1 1 9 1 1 1 1 1 1")], until=9) == ["3 opened", "8 closed"]


def test_every_violating_series_has_an_incident_of_its_own() -> None:
    spec = policy(threshold(5))
    series = [levels("9 9 1", of=key(route="a")), levels("1 9 9", of=key(route="b"))]
    assert run(spec, series, until=3) == [
        "1 opened route=a",
        "2 opened route=b",
        "3 closed route=a",
    ]


def test_missing_data_by_default_keeps_what_was() -> None:
    spec = policy(threshold(5, duration="120s"))
    # The pending run goes on through the gap, but only a measurement can complete it.
    assert run(spec, [levels("9 _ _ 9 1")], until=5) == ["4 opened", "5 closed"]
    assert run(spec, [levels("9 9 9 _ _ _ _ 1")], until=8) == ["3 opened", "8 closed"]
    assert run(spec, [levels("9 _ _ _ _ _")], until=6) == []


def test_no_op_says_the_same_as_the_default() -> None:
    spec = policy(
        threshold(5, duration="120s", evaluationMissingData="EVALUATION_MISSING_DATA_NO_OP")
    )
    assert run(spec, [levels("9 9 9 _ _ _ _ 1")], until=8) == ["3 opened", "8 closed"]


def test_inactive_closes_and_restarts_when_data_is_missing() -> None:
    spec = policy(
        threshold(5, duration="120s", evaluationMissingData="EVALUATION_MISSING_DATA_INACTIVE")
    )
    assert run(spec, [levels("9 9 9 _ 9 9 9")], until=7) == ["3 opened", "4 closed", "7 opened"]
    assert run(spec, [levels("9 _ _ 9 9 1")], until=6) == []


def test_active_counts_missing_data_as_violation_once_there_was_data() -> None:
    spec = policy(
        threshold(5, duration="120s", evaluationMissingData="EVALUATION_MISSING_DATA_ACTIVE")
    )
    assert run(spec, [levels("_ _ _ 1 _ _ _ 1")], until=8) == ["7 opened", "8 closed"]


def test_auto_close_waits_a_quarter_of_an_hour_and_its_own_time() -> None:
    spec = policy(threshold(5), alertStrategy={"autoClose": "1800s"})
    assert run(spec, [levels("9")], until=60) == ["1 opened", "46 closed"]
    _, events = replay(spec, PolicyState.empty(), [levels("9")], minutes(1, 46))
    assert events[1].incident.close_reason is CloseReason.AUTO_CLOSED


def test_auto_close_is_seven_days_when_unset() -> None:
    spec = policy(threshold(5))
    assert spec.auto_close == timedelta(days=7)
    week = 7 * 24 * 60
    at = minutes(1, week, week + 15, week + 16)
    _, events = replay(spec, PolicyState.empty(), [levels("9")], at)
    assert story(events) == ["1 opened", f"{week + 16} closed"]


def test_active_incidents_stay_a_day_longer_than_auto_close() -> None:
    spec = policy(
        threshold(5, duration="60s", evaluationMissingData="EVALUATION_MISSING_DATA_ACTIVE"),
        alertStrategy={"autoClose": "1800s"},
    )
    day = 24 * 60
    at = minutes(1, 2, 3, day + 30, day + 31)
    _, events = replay(spec, PolicyState.empty(), [levels("1")], at)
    assert story(events) == ["3 opened", f"{day + 31} closed"]


def test_a_series_that_returns_after_auto_close_starts_anew() -> None:
    spec = policy(threshold(5, duration="120s"), alertStrategy={"autoClose": "1800s"})
    text = "9 9 9 " + "_ " * 60 + "9 9 9"
    assert run(spec, [levels(text)], until=66) == ["3 opened", "48 closed", "66 opened"]


def test_a_trigger_count_needs_that_many_series() -> None:
    spec = policy(threshold(5, trigger={"count": 2}))
    series = [levels("9 9 9 9", of=key(i="1")), levels("1 9 9 1", of=key(i="2"))]
    assert run(spec, series, until=4) == [
        "2 opened i=1", "2 opened i=2", "4 closed i=1", "4 closed i=2",
    ]  # fmt: skip


def test_a_trigger_percentage_counts_the_series_that_are_known() -> None:
    spec = policy(threshold(5, trigger={"percent": 50}))
    series = [levels("9 9 9", of=key(i="1")), levels("_ 1 1", of=key(i="2"))]
    series.append(levels("_ _ 1", of=key(i="3")))
    assert run(spec, series, until=3) == ["1 opened i=1", "3 closed i=1"]


RATIO = threshold(
    0.05,
    filter=FILTER + ' AND metric.labels.code = "500"',
    denominatorFilter=f'metric.type = "{METRIC}"',
    aggregations=[
        aggregation("ALIGN_RATE", period="300s", reducer="REDUCE_SUM", by=["metric.label.route"])
    ],
    denominatorAggregations=[
        aggregation("ALIGN_RATE", period="300s", reducer="REDUCE_SUM", by=["metric.labels.route"])
    ],
)
GUARD = threshold(
    4,
    filter=FILTER + ' AND metric.labels.code = "500"',
    aggregations=[
        aggregation("ALIGN_DELTA", period="300s", reducer="REDUCE_SUM", by=["metric.label.route"])
    ],
)


def traffic(route: str, good: str, bad: str) -> list[Series]:
    """Counters of answered and failed requests that grow by the given amounts each minute."""
    return [
        counter(
            {0: 0}
            | {
                minute: float(total)
                for minute, total in enumerate(np.cumsum([float(x) for x in grown.split()]), 1)
            },
            start=-1,
            of=key(route=route, code=code),
        )
        for code, grown in (("200", good), ("500", bad))
    ]


CUMULATIVE: dict[str, Any] = {"kind": MetricKind.CUMULATIVE, "value_type": ValueType.INT64}


def test_a_ratio_divides_series_with_the_same_labels() -> None:
    spec = policy(RATIO, **CUMULATIVE)
    series = traffic("a", "10 10 10", "0 0 10") + traffic("b", "1 1 1", "0 1 0")
    _, events = replay(spec, PolicyState.empty(), series, minutes(1, 2, 3))
    assert story(events) == ["2 opened route=b", "3 opened route=a"]
    assert [event.incident.observed_value for event in events] == pytest.approx([1 / 3, 10 / 40])


def test_a_denominator_of_zero_is_no_measurement() -> None:
    spec = policy(RATIO, **CUMULATIVE)
    assert run(spec, traffic("a", "0 0 0", "0 0 0"), until=3) == []


def test_a_guarded_ratio_pages_nobody_for_one_error_at_night() -> None:
    spec = policy(RATIO, GUARD, combiner="AND", **CUMULATIVE)
    assert run(spec, traffic("a", "1 1 1 1", "0 1 0 0"), until=4) == []
    # Both conditions are met from 3 on, and each has its own incident for the route.
    assert run(spec, traffic("a", "1 1 1 1", "0 2 3 0"), until=4) == [
        "3 opened route=a", "3 opened route=a",
    ]  # fmt: skip


def test_and_does_not_match_labels() -> None:
    """A guard met by one route lets the ratio of another route page; the API has no such match."""
    spec = policy(RATIO, GUARD, combiner="AND", **CUMULATIVE)
    series = traffic("quiet", "1 1 1", "0 1 0") + traffic("busy", "500 500 500", "5 5 5")
    assert run(spec, series, until=3) == ["2 opened route=quiet", "2 opened route=busy"]


TWO = (
    threshold(5, filter=FILTER + ' AND metric.labels.what = "cpu"'),
    threshold(5, filter=FILTER + ' AND metric.labels.what = "mem"'),
)


def machine(task: str, cpu: str, memory: str) -> list[Series]:
    return [
        levels(cpu, of=key({"task_id": task}, what="cpu")),
        levels(memory, of=key({"task_id": task}, what="mem")),
    ]


def test_or_opens_for_any_condition() -> None:
    series = machine("1", "9 1 1", "1 9 1")
    assert run(policy(*TWO), series, until=3) == [
        "1 opened what=cpu", "2 closed what=cpu", "2 opened what=mem", "3 closed what=mem",
    ]  # fmt: skip


def test_and_is_satisfied_by_different_resources() -> None:
    series = machine("1", "9 9 9", "1 1 1") + machine("2", "1 1 1", "1 9 1")
    assert run(policy(*TWO, combiner="AND"), series, until=3) == [
        "2 opened what=cpu", "2 opened what=mem", "3 closed what=cpu", "3 closed what=mem",
    ]  # fmt: skip


def test_and_with_matching_resource_needs_one_resource() -> None:
    spec = policy(*TWO, combiner="AND_WITH_MATCHING_RESOURCE")
    series = machine("1", "9 9 9", "1 1 9") + machine("2", "1 1 1", "1 9 1")
    assert run(spec, series, until=3) == ["3 opened what=cpu", "3 opened what=mem"]


def test_absence_counts_from_the_last_point() -> None:
    spec = policy(absence("120s"))
    assert run(spec, [levels("1 1 _ _ _ 1 1")], until=7) == ["4 opened", "6 closed"]


def test_absence_needs_a_point_after_the_policy_was_written() -> None:
    spec = policy(absence("120s"))
    assert run(spec, [levels("1 1 _ _ _ _")], until=6, since=2) == []
    assert run(spec, [], until=6) == []
    assert run(spec, [levels("1 1 1 _ _ _")], until=6, since=2) == ["5 opened"]


def test_absence_of_a_group_needs_all_its_series_silent() -> None:
    spec = policy(absence("120s", aggregations=[aggregation(reducer="REDUCE_SUM")]))
    series = [levels("1 _ _ _ _ _", of=key(i="1")), levels("1 1 1 _ _ _", of=key(i="2"))]
    assert run(spec, series, until=6) == ["5 opened"]


def test_absence_is_remembered_when_the_series_itself_is_gone() -> None:
    spec = policy(absence("120s"))
    state, _ = step(spec, PolicyState.empty(), [levels("1")], MINUTE)
    state = PolicyState.from_json(state.to_json())
    _, events = step(spec, state, [], 3 * MINUTE)
    assert story(events) == ["3 opened"]


def test_latency_of_a_cumulative_histogram_opens_with_its_value() -> None:
    aggregations = [aggregation("ALIGN_DELTA", reducer="REDUCE_PERCENTILE_95")]
    spec = policy(
        threshold(2, duration="120s", aggregations=aggregations),
        kind=MetricKind.CUMULATIVE,
        value_type=ValueType.DISTRIBUTION,
        severity="WARNING",
    )
    slow = {float(minute): histogram([1, 2, 2.5], [0, 0, 10 * minute, 0]) for minute in range(1, 6)}
    _, events = replay(spec, PolicyState.empty(), [histograms(slow)], minutes(1, 2, 3))
    (opened,) = events
    assert isinstance(opened, IncidentOpened)
    assert opened.at_ns == 3 * MINUTE
    assert opened.incident.observed_value == pytest.approx(2.475)
    assert opened.incident.threshold_value == 2
    assert opened.incident.severity == "WARNING"
    assert opened.incident.summary == (
        f"{METRIC} for generic_task is above the threshold of 2.000 with a value of 2.475."
    )


def test_a_disabled_policy_closes_what_is_open_and_opens_nothing() -> None:
    spec = policy(threshold(5))
    off = replace(spec, enabled=False)
    state, _ = step(spec, PolicyState.empty(), [levels("9 9 9")], MINUTE)
    state, events = step(off, state, [levels("9 9 9")], 2 * MINUTE)
    assert story(events) == ["2 closed"]
    assert events[0].incident.close_reason is CloseReason.DISABLED
    assert step(off, state, [levels("9 9 9")], 3 * MINUTE)[1] == ()


def test_an_incident_of_a_condition_that_was_removed_closes() -> None:
    spec = policy(threshold(5))
    state, _ = step(spec, PolicyState.empty(), [levels("9 9")], MINUTE)
    renamed = policy({**threshold(5), "name": "projects/p/alertPolicies/1/conditions/new"})
    _, events = step(renamed, state, [levels("9 9")], 2 * MINUTE)
    assert [type(event) for event in events] == [IncidentClosed, IncidentOpened]
    assert events[0].incident.close_reason is CloseReason.CONDITION_REMOVED


def test_what_is_not_evaluated_never_opens_and_never_looks_healthy() -> None:
    promql = {"displayName": "q", "conditionPrometheusQueryLanguage": {"query": "up == 0"}}
    either = policy(promql, threshold(5))
    both = policy(promql, threshold(5), combiner="AND")
    assert not either.evaluated
    assert run(either, [levels("9 9")], until=2) == ["1 opened"]
    assert run(both, [levels("9 9")], until=2) == []


def test_incidents_and_state_survive_json() -> None:
    spec = policy(threshold(5, duration="120s"), severity="CRITICAL")
    state, events = replay(
        spec, PolicyState.empty(), [levels("9 9 9 9", of=key(route="/a"))], minutes(1, 2, 3)
    )
    assert PolicyState.from_json(state.to_json()) == state
    assert Incident.from_json(events[0].incident.to_json()) == events[0].incident
    closed = step(spec, state, [levels("9 9 9 1", of=key(route="/a"))], 4 * MINUTE)[1][0].incident
    assert Incident.from_json(closed.to_json()) == closed
    assert closed.close_reason is CloseReason.RECOVERED
    assert closed.ended_ns == 4 * MINUTE
    with pytest.raises(ValueError, match="version"):
        PolicyState.from_json({"version": 0})


def test_a_policy_opens_at_most_a_thousand_incidents() -> None:
    series = [levels("9", of=key(i=str(i))) for i in range(1_005)]
    state, events = step(policy(threshold(5)), PolicyState.empty(), series, MINUTE)
    assert len(events) == len(state.open) == 1_000


def test_what_found_no_room_opens_when_there_is_room_in_a_replay_as_in_single_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(incidents, "MAX_OPEN_INCIDENTS", 2)
    series = [
        levels("9 9 1 9 1", of=key(i="1")),
        levels("9 9 9 9 1", of=key(i="2")),
        levels("9 9 9 8 7", of=key(i="3")),
        levels("9 1 9 9 1", of=key(i="4")),
    ]
    spec = policy(threshold(5))
    assert run(spec, series, until=5) == [
        "1 opened i=1", "1 opened i=2", "3 closed i=1", "3 opened i=3", "5 closed i=2",
    ]  # fmt: skip
    _, events = replay(spec, PolicyState.empty(), series, minutes(1, 2, 3))
    assert events[-1].incident.started_ns == 3 * MINUTE
    assert events[-1].incident.observed_value == 9


def snooze(begin: int, end: int, *, only: str | None = None, of: str = "1") -> Snooze:
    return Snooze(
        start_ns=begin * MINUTE,
        end_ns=end * MINUTE,
        policies=frozenset({f"projects/p/alertPolicies/{of}"}),
        filter=None if only is None else parse_filter(only),
    )


def test_a_snooze_closes_what_is_open_and_what_is_still_wrong_afterwards_opens_anew() -> None:
    series = [levels("1 9 9 9 7 9 1")]
    spec = policy(threshold(5))
    assert run(spec, series, until=7, snoozes=[snooze(3, 5)]) == [
        "2 opened", "3 closed", "5 opened", "7 closed",
    ]  # fmt: skip
    _, events = replay(
        spec, PolicyState.empty(), series, minutes(2, 3, 4, 5), snoozes=[snooze(3, 5)]
    )
    assert events[1].incident.close_reason is CloseReason.SNOOZED
    assert events[2].incident.observed_value == 7


def test_a_snooze_opens_nothing_but_durations_go_on() -> None:
    spec = policy(threshold(5, duration="180s"))
    assert run(spec, [levels("9 9 9 9 9 9")], until=6, snoozes=[snooze(1, 6)]) == ["6 opened"]


def test_a_snooze_is_for_its_policies_and_the_series_of_its_filter_only() -> None:
    series = [levels("9 9 9", of=key({"task_id": task})) for task in ("1", "2")]
    spec = policy(threshold(5))
    opens = ["1 opened", "1 opened"]
    assert run(spec, series, until=3, snoozes=[snooze(1, 3, of="2")]) == opens
    one = snooze(1, 3, only='resource.labels.task_id = "2"')
    assert run(spec, series, until=3, snoozes=[one]) == ["1 opened", "3 opened"]
    assert run(spec, series, until=3, snoozes=[snooze(1, 2), snooze(2, 3)]) == [
        "3 opened", "3 opened",
    ]  # fmt: skip


def test_a_snoozed_series_still_counts_for_the_trigger_and_the_other_condition() -> None:
    both = policy(*TWO, combiner="AND")
    one = snooze(1, 3, only='resource.labels.task_id = "1"')
    series = machine("1", "9 9 9", "1 1 1") + machine("2", "1 1 1", "9 9 9")
    assert run(both, series, until=3, snoozes=[one]) == ["1 opened what=mem", "3 opened what=cpu"]


def test_an_incident_that_the_combiner_closes_after_a_snooze_says_so() -> None:
    spec = policy(*TWO, combiner="AND")
    series = machine("1", "9 9 9 9", "9 9 9 1")
    _, events = replay(
        spec, PolicyState.empty(), series, minutes(1, 2, 3, 4), snoozes=[snooze(2, 3)]
    )
    reasons = [event.incident.close_reason for event in events if isinstance(event, IncidentClosed)]
    assert reasons == [
        CloseReason.SNOOZED, CloseReason.SNOOZED, CloseReason.COMBINER, CloseReason.RECOVERED,
    ]  # fmt: skip


def test_an_incident_about_absence_closes_a_day_and_auto_close_later() -> None:
    spec = policy(absence("120s"), alertStrategy={"autoClose": "1800s"})
    end = 1 + 2 + 30 + 24 * 60
    at = minutes(*range(1, end + 2))
    _, events = replay(spec, PolicyState.empty(), [levels("1")], at)
    assert story(events) == ["3 opened", f"{end} closed"]
    assert events[1].incident.close_reason is CloseReason.AUTO_CLOSED


def test_whole_numbers_beyond_two_to_the_53rd_are_compared_as_doubles() -> None:
    huge = 2**53
    series = gauge({1: huge + 1}, value_type=ValueType.INT64)
    assert run(policy(threshold(huge)), [series], until=1) == []
    series = gauge({1: huge + 2}, value_type=ValueType.INT64)
    assert run(policy(threshold(huge)), [series], until=1) == ["1 opened"]


def test_policies_that_are_evaluated_together_keep_to_themselves() -> None:
    off = replace(policy(threshold(5)), enabled=False)
    state, _ = step(policy(threshold(5)), PolicyState.empty(), [levels("9")], MINUTE)
    replays = [
        Replay(spec=off, state=state),
        Replay(spec=policy(threshold(5)), state=PolicyState.empty()),
        Replay(spec=policy(absence("120s")), state=state, active_since_ns=2 * MINUTE),
    ]
    together = replay_many(replays, iter([levels("_ 9 9 _ _ _")]), minutes(2, 3, 4, 5))
    assert [story(events) for _, events in together] == [
        ["2 closed"], ["2 opened"], ["2 closed", "5 opened"],
    ]  # fmt: skip


def test_the_longest_duration_the_api_can_say_is_never_reached() -> None:
    spec = policy(threshold(5, duration="315576000000s"))
    assert run(spec, [levels("9 9 9")], until=3) == []
    assert run(spec, [levels("9 _ 9")], until=3) == []


def test_who_watches_sees_where_a_condition_is_violated_before_it_is_met() -> None:
    spec = policy(threshold(5, duration="180s"), absence("120s"), combiner="OR")
    heard = []
    replay_many(
        [Replay(spec=spec, state=PolicyState.empty())],
        [levels("1 9 9 1 9 _ _ 9 9 1")],
        minutes(*range(1, 11)),
        watch=lambda _number, condition, verdict: heard.append((condition.kind, verdict)),
    )
    found = dict(heard)
    above = found[spec.conditions[0].kind]
    # Missing data decides nothing: what is pending goes on.
    assert list(zip(above.violating.first, above.violating.end, strict=True)) == [(1, 3), (4, 9)]
    assert list(zip(above.met.first, above.met.end, strict=True)) == [(7, 9)]
    silent = found[spec.conditions[1].kind]
    assert (silent.silence // MINUTE).tolist() == [0, 0, 0, 0, 0, 1, 2, 0, 0, 0]
