"""Mutants: every part of a policy is changed, what cannot differ is left out, ours are killed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from alerts.catalog import find_policy
from alerts.condition import Aggregation, Aligner, MissingData, Signal, Threshold, Trigger
from alerts.metric import Metric
from alerts.mutation import Mutant, Part, brood, hunt, score_percent
from alerts.policies import CATALOG
from alerts.policy import Combiner
from alerts.stage import PROJECT, Play, Stage
from alerts.suite import read_folder
from speakfit.engine.incidents import Event, PolicyState, replay
from speakfit.engine.points import MetricKind, ValueType
from speakfit.engine.policies import AlertPolicySpec
from speakfit.engine.reduce import Reducer
from tests.alerts.conftest import ROOT

STAGE = Stage.of(CATALOG)
PLAYS = read_folder(ROOT / "tests" / "scenarios", STAGE)


def events(spec: AlertPolicySpec, play: Play) -> tuple[Event, ...]:
    return replay(
        spec,
        PolicyState.empty(),
        play.series,
        play.times,
        active_since_ns=play.start_ns,
        snoozes=play.snoozes,
        project=PROJECT,
    )[1]


def changes(mutants: tuple[Mutant, ...], part: Part) -> set[str]:
    return {mutant.change.partition(": ")[2] for mutant in mutants if mutant.part is part}


def test_our_scenarios_kill_nine_mutants_of_ten() -> None:
    scores = [hunt(policy, PLAYS, STAGE) for policy in STAGE.policies.values()]
    assert score_percent(scores) >= 90
    parts = {one.mutant.part for score in scores for one in score.verdicts}
    assert parts == set(Part), "nothing is left unchanged"


@pytest.mark.parametrize("policy", ["telemetry-silent-critical", "transcription-stalled-critical"])
def test_what_is_left_out_as_equivalent_never_differs(policy: str) -> None:
    staged = STAGE.policies[policy]
    left_out = brood(staged, STAGE).equivalent
    assert left_out
    for play in PLAYS:
        same = events(staged.spec, play)
        for mutant in left_out:
            assert events(mutant.spec, play) == same, mutant.change


def test_without_scenarios_that_say_anything_all_survive() -> None:
    staged = STAGE.policies["queue-depth-warning"]
    other = [play for play in PLAYS if play.scenario.subject == "api-latency"]
    assert hunt(staged, other, STAGE).killed == 0


def test_thresholds_of_whole_numbers_move_by_whole_numbers() -> None:
    depth = brood(STAGE.policies["queue-depth-warning"], STAGE).mutants
    assert changes(depth, Part.THRESHOLD) == {"100 -> 101", "100 -> 99", "100 -> 110", "100 -> 90"}
    share = brood(STAGE.policies["database-connections-warning"], STAGE).mutants
    assert changes(share, Part.THRESHOLD) == {"0.8 -> 0.88", "0.8 -> 0.72"}


def test_every_part_of_a_policy_that_says_more_is_changed() -> None:
    load = Metric(
        type="agent.googleapis.com/load",
        kind=MetricKind.GAUGE,
        value_type=ValueType.DOUBLE,
        labels=("zone", "state"),
    )
    one = Threshold(
        key="load",
        signal=Signal(
            metric=load,
            resource_type="gce_instance",
            where='metric.labels.state = "busy" OR metric.labels.state = "idle"',
        ),
        aggregation=Aggregation(
            aligner=Aligner.ALIGN_MEAN,
            reducer=Reducer.REDUCE_SUM,
            group_by=("zone", "resource.labels.instance_id"),
        ),
        above=0,
        duration=timedelta(0),
        trigger=Trigger(percent=50),
        missing_data=None,
    )
    two = replace(
        one,
        key="steady load",
        trigger=Trigger(count=2),
        duration=timedelta(minutes=3),
        missing_data=MissingData.VIOLATES,
    )
    policy = replace(
        find_policy(CATALOG, "queue-depth-warning"),
        conditions=(one, two),
        combiner=Combiner.ALL_ON_ONE_RESOURCE,
        auto_close=None,
    )
    stage = Stage.of(replace(CATALOG, policies=(policy,)))
    found = brood(stage.policies[policy.id], stage)
    first = tuple(mutant for mutant in found.mutants if mutant.condition == "load")
    second = tuple(mutant for mutant in found.mutants if mutant.condition == "steady load")
    assert changes(first, Part.COMPARATOR) == {"COMPARISON_GT -> COMPARISON_LT"}
    assert changes(first, Part.THRESHOLD) == {"0 -> 0.1", "0 -> -0.1"}
    assert changes(first, Part.DURATION) == {"0s -> 60s"}, "no duration is negative"
    assert changes(second, Part.DURATION) == {"180s -> 120s", "180s -> 240s"}
    assert changes(first, Part.MISSING_DATA) == set(), "refused without a duration"
    assert changes(second, Part.MISSING_DATA) == {"ACTIVE -> INACTIVE", "ACTIVE -> NO_OP"}
    assert changes(first, Part.TRIGGER) == {"50 % -> 1 series"}
    assert changes(second, Part.TRIGGER) == {"2 series -> 3 series"}
    zone, instance, state = (
        "metric.labels.zone",
        "resource.labels.instance_id",
        "metric.labels.state",
    )
    assert changes(first, Part.GROUPING) == {
        f"{zone}, {instance} -> {instance}",
        f"{zone}, {instance} -> {zone}",
        f"{zone}, {instance} -> {zone}, {instance}, {state}",
    }
    assert len(changes(first, Part.FILTER)) == 2
    assert changes(found.mutants, Part.CONDITION) == {"there -> gone"}
    assert changes(found.mutants, Part.COMBINER) == {
        "AND_WITH_MATCHING_RESOURCE -> AND",
        "AND_WITH_MATCHING_RESOURCE -> OR",
    }
    assert changes(found.mutants, Part.AUTO_CLOSE) == {"604800s -> 1800s"}
    assert "period 60s -> 120s" in changes(first, Part.ALIGNER)
    assert "ALIGN_MEAN -> ALIGN_MAX" in changes(first, Part.ALIGNER)
    assert "REDUCE_SUM -> REDUCE_NONE" in changes(first, Part.REDUCER)
