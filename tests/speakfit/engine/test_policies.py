"""What an alert policy may say, and Google's words for what it may not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speakfit.engine.conditions import AbsenceCondition, ConditionKind, ThresholdCondition
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.policies import AlertPolicySpec, Combiner, Severity, parse_policy
from speakfit.errors import InvalidArgument, WireError
from tests.speakfit.engine.build import (
    FILTER,
    METRIC,
    absence,
    aggregation,
    raw_policy,
    threshold,
)

GAUGE = Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE)
CUMULATIVE = Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.INT64)
HISTOGRAM = Descriptor(kind=MetricKind.DELTA, value_type=ValueType.DISTRIBUTION)
CONDITION = "Field alert_policy.conditions[0].condition_threshold"


def parse(raw: Mapping[str, Any], descriptor: Descriptor = GAUGE) -> AlertPolicySpec:
    return parse_policy(raw, descriptors={METRIC: descriptor}.get)


def promql(**more: Any) -> dict[str, Any]:
    return {"displayName": "q", "conditionPrometheusQueryLanguage": {"query": "up", **more}}


def log(**more: Any) -> dict[str, Any]:
    return {"displayName": "l", "conditionMatchedLog": {"filter": "severity>=ERROR", **more}}


def sql(**more: Any) -> dict[str, Any]:
    return {"displayName": "s", "conditionSql": {"query": "SELECT 1", **more}}


MQL = {"displayName": "m", "conditionMonitoringQueryLanguage": {"query": "fetch", "duration": "0s"}}
RATE_LIMIT = {"notificationRateLimit": {"period": "300s"}}


def test_a_full_policy_is_read_field_by_field() -> None:
    spec = parse(
        raw_policy(
            {
                **threshold(
                    2, duration="300s", aggregations=[aggregation("ALIGN_MAX", period="120s")]
                ),
                "name": "projects/p/alertPolicies/1/conditions/2",
            },
            absence("600s"),
            combiner="AND",
            documentation={
                "content": "Look at ${metric.type}.",
                "mimeType": "text/markdown",
                "subject": "Slow",
                "links": [{"displayName": "Runbook", "url": "https://example.org/r"}],
            },
            userLabels={"alert-id": "api-latency-warning"},
            severity="CRITICAL",
            enabled=False,
            notificationChannels=["projects/p/notificationChannels/1"],
            alertStrategy={
                "autoClose": "1800s",
                "notificationPrompts": ["OPENED", "CLOSED"],
                "notificationChannelStrategy": [
                    {"notificationChannelNames": ["c"], "renotifyInterval": "3600s"}
                ],
            },
            creationRecord={"mutateTime": "2026-01-01T00:00:00Z"},
        )
    )
    first, second = spec.conditions
    assert isinstance(first, ThresholdCondition)
    assert isinstance(second, AbsenceCondition)
    assert first.name == "projects/p/alertPolicies/1/conditions/2"
    assert first.duration == timedelta(minutes=5)
    assert second.duration == timedelta(minutes=10)
    assert spec.combiner is Combiner.AND
    assert spec.severity is Severity.CRITICAL
    assert not spec.enabled
    assert spec.auto_close == timedelta(minutes=30)
    assert spec.documentation.links[0].url == "https://example.org/r"
    assert spec.renotifications[0].interval == timedelta(hours=1)
    assert spec.metric_types == {METRIC}
    assert spec.lookback == timedelta(minutes=15)


def test_an_unset_enabled_means_enabled() -> None:
    assert parse(raw_policy(threshold(1))).enabled


def _condition(**changes: Any) -> dict[str, Any]:
    return raw_policy(threshold(1, **changes))


MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("endless duration", raw_policy(threshold(1, duration="9" * 12 + "s")), "out of range"),
    ("unreadable duration", raw_policy(threshold(1, duration="5m")), "protobuf.Duration"),
    ("unknown comparison", _condition(comparison="ABOVE"), '(TYPE_ENUM), "ABOVE"'),
    ("text threshold", _condition(thresholdValue="high"), "(TYPE_DOUBLE)"),
    ("two triggers", _condition(trigger={"count": 1, "percent": 5}), "oneof field 'type'"),
    ("unknown field", _condition(treshold=1), 'Unknown name "treshold"'),
    ("unknown kind", raw_policy({"conditionMagic": {}}), 'Unknown name "conditionMagic"'),
    ("unknown combiner", raw_policy(threshold(1), combiner="XOR"), '(TYPE_ENUM), "XOR"'),
    ("unknown severity", raw_policy(threshold(1), severity="PANIC"), '(TYPE_ENUM), "PANIC"'),
    ("conditions as text", {"conditions": "many"}, "Invalid value at 'alert_policy.conditions'"),
    ("condition as text", {"conditions": ["one"]}, "Invalid value at 'alert_policy.conditions[0]'"),
]
"""JSON that no wire lets through; everything else is a case under tests/conformance."""


@pytest.mark.parametrize(
    ("raw", "words"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_json_that_is_no_policy_is_refused(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(raw)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (raw_policy(promql(duration="0s", labels={"a": "b"})), ConditionKind.PROMQL),
        (raw_policy(log(), alertStrategy=RATE_LIMIT), ConditionKind.LOG),
        (raw_policy(MQL), ConditionKind.MQL),
        (
            raw_policy(sql(daily={"periodicity": 1}, booleanTest={"column": "bad"})),
            ConditionKind.SQL,
        ),
        (_condition(forecastOptions={"forecastHorizon": "3600s"}), ConditionKind.FORECAST),
    ],
)
def test_what_is_not_evaluated_is_accepted_and_says_so(
    raw: dict[str, Any], kind: ConditionKind
) -> None:
    spec = parse(raw)
    assert spec.conditions[0].kind is kind
    assert not spec.conditions[0].evaluated
    assert not spec.evaluated


FULL = [
    raw_policy(
        threshold(
            1,
            duration="60s",
            aggregations=[aggregation(reducer="REDUCE_SUM", by=["metric.label.a"])],
            denominatorFilter=FILTER,
            denominatorAggregations=[aggregation(reducer="REDUCE_SUM", by=["metric.label.a"])],
            trigger={"count": 2},
            evaluationMissingData="EVALUATION_MISSING_DATA_ACTIVE",
            forecastOptions={"forecastHorizon": "3600s"},
        ),
        absence("600s"),
        promql(labels={"a": "b"}, evaluationInterval="30s"),
        sql(daily={"periodicity": 1}, rowCountTest={"comparison": "COMPARISON_GT"}),
        documentation={"content": "c", "links": [{"url": "https://example.org"}]},
        userLabels={"a": "b"},
        alertStrategy={
            "autoClose": "1800s",
            "notificationPrompts": ["OPENED"],
            "notificationChannelStrategy": [{"renotifyInterval": "3600s"}],
        },
    ),
    raw_policy(log(labelExtractors={"a": "b"}), alertStrategy=RATE_LIMIT),
    raw_policy(MQL),
]
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["60s", "-1s", "9" * 12 + "s", "NaN", FILTER]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_field_the_policy_is_read_or_refused(data: st.DataObject) -> None:
    raw = copy.deepcopy(data.draw(st.sampled_from(FULL)))
    *parents, last = data.draw(st.sampled_from([path for path in _places(raw) if path]))
    target: Any = raw
    for step in parents:
        target = target[step]
    target[last] = data.draw(_JSON)
    # Anything but an answer to the caller escapes and fails the test.
    with suppress(WireError):
        parse(raw)
