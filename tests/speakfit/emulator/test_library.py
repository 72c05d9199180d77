"""Policies of every kind live a whole life over both protocols, however their JSON is spelled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.cloud import monitoring_v3
from google.protobuf import json_format

from tests.speakfit.emulator.bench import PROJECT, Bench
from tests.speakfit.emulator.test_corpus import Policies, Rest, live, plain_policy
from tests.speakfit.engine.library import Sample, library, objects, snake

POLICIES = f"/v3/{PROJECT}/alertPolicies"
_FEW = 12
SAMPLES = [
    pytest.param(sample, marks=[pytest.mark.slow] if number >= _FEW else [], id=sample.name)
    for number, sample in enumerate(library(200))
]


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """One emulator for all samples: every one leaves it as it found it."""
    with Bench() as bench:
        yield bench


def _declared(bench: Bench, sample: Sample) -> list[str]:
    """Declare what users write; the rest the server has to know of its own."""
    paths = []
    for metric in sample.metrics:
        if metric.declared:
            body = {
                "type": metric.type,
                "metricKind": metric.descriptor.kind.value,
                "valueType": metric.descriptor.value_type.value,
            }
            path = f"/v3/{PROJECT}/metricDescriptors"
            assert bench.http("POST", path, body)[0] == 200
            paths.append(f"{path}/{metric.type}")
    return paths


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_policy_of_any_kind_lives_over_grpc_and_rest(shared: Bench, sample: Sample) -> None:
    declared = _declared(shared, sample)
    kind = monitoring_v3.AlertPolicy.pb()
    message = json_format.ParseDict(sample.body, kind())
    live(Policies(shared), message, plain_policy)
    live(Rest(shared, POLICIES, kind, "alertPolicies"), message, plain_policy)
    for spelled in (sample.body, snake(sample.body), objects(sample.body)):
        status, made = shared.http("POST", POLICIES, spelled)
        assert status == 200, made
        assert plain_policy(json_format.ParseDict(made, kind())) == plain_policy(message)
        # What a client read it writes back, and nothing changes.
        status, again = shared.http("PATCH", f"/v3/{made['name']}", made)
        assert status == 200, again
        del made["mutationRecord"], again["mutationRecord"]
        assert again == made
        assert shared.http("DELETE", f"/v3/{made['name']}") == (200, {})
    for path in declared:
        assert shared.http("DELETE", path) == (200, {})


def test_every_metric_of_a_policy_is_guessed_for_itself(shared: Bench) -> None:
    """A flag, a counter and a latency side by side, none of which anybody wrote."""
    steps = (
        ("monitoring.googleapis.com/uptime_check/check_passed", "ALIGN_NEXT_OLDER",
         "REDUCE_COUNT_FALSE"),
        ("run.googleapis.com/request_count", "ALIGN_RATE", "REDUCE_SUM"),
        ("run.googleapis.com/request_latencies", "ALIGN_PERCENTILE_99", "REDUCE_MAX"),
        ("pubsub.googleapis.com/subscription/num_undelivered_messages", "ALIGN_MEAN", "REDUCE_SUM"),
        ("cloudsql.googleapis.com/database/up", "ALIGN_FRACTION_TRUE", "REDUCE_MEAN"),
    )  # fmt: skip
    body = {
        "displayName": "All",
        "combiner": "OR",
        "conditions": [
            {
                "displayName": name,
                "conditionThreshold": {
                    "filter": f'metric.type="{name}" resource.type="global"',
                    "comparison": "COMPARISON_GT",
                    "aggregations": [
                        {
                            "alignmentPeriod": "60s",
                            "perSeriesAligner": aligner,
                            "crossSeriesReducer": reducer,
                        }
                    ],
                },
            }
            for name, aligner, reducer in steps
        ],
    }
    status, made = shared.http("POST", POLICIES, body)
    assert status == 200, made
    assert shared.http("DELETE", f"/v3/{made['name']}") == (200, {})
    # What no metric can take is refused all the same.
    condition = body["conditions"][0]["conditionThreshold"]  # type: ignore[index]
    condition["aggregations"][0]["perSeriesAligner"] = "ALIGN_PERCENTILE_99"
    status, answer = shared.http("POST", POLICIES, body)
    assert (status, "cannot be applied" in answer["error"]["message"]) == (400, True)
