"""Policies of every kind are read and evaluated, whatever their metrics are."""

from __future__ import annotations

import pytest

from speakfit.engine.align import Aligner
from speakfit.engine.conditions import AbsenceCondition, ThresholdCondition
from speakfit.engine.filters import parse_filter
from speakfit.engine.incidents import PolicyState, replay
from speakfit.engine.policies import parse_policy
from tests.speakfit.engine.build import minutes, remembering
from tests.speakfit.engine.library import Sample, library, snake

_FEW = 40
SAMPLES = [
    pytest.param(sample, marks=[pytest.mark.slow] if number >= _FEW else [], id=sample.name)
    for number, sample in enumerate(library(400))
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_policy_of_any_kind_is_valid_and_evaluates(sample: Sample) -> None:
    body = {
        name: value
        for name, value in sample.body.items()
        if name not in ("validity", "creationRecord", "mutationRecord")
    }
    spec = parse_policy(body, descriptors=sample.descriptors)
    assert parse_policy(snake(body), descriptors=sample.descriptors) == spec
    assert len(spec.conditions) == len(body["conditions"])
    spec = remembering(spec)
    state, _events = replay(
        spec,
        PolicyState.empty(),
        [metric.series() for metric in sample.metrics],
        minutes(*range(1, 60)),
        project="speakfit-test",
    )
    assert PolicyState.from_json(state.to_json()) == state
    for condition in spec.conditions:
        if isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            changes = any(
                step.aligner is Aligner.ALIGN_PERCENT_CHANGE for step in condition.aggregations
            )
            assert parse_filter(str(condition.filter)) == condition.filter
            # A change needs more history than there is.
            assert changes or len(state.series[condition.name]), "the filter selected none"
