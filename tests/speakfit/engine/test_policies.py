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
from speakfit.errors import InvalidArgument, NotFound, WireError
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


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no condition", raw_policy(), "from 1 to 6 conditions"),
    ("seven conditions", raw_policy(*[threshold(1)] * 7), "from 1 to 6 conditions"),
    (
        "half a minute",
        raw_policy(threshold(1, duration="30s")),
        f'{CONDITION}.duration had an invalid value of "30s": only multiples of 1 minute are '
        "supported",
    ),
    ("negative duration", raw_policy(threshold(1, duration="-60s")), "must not be negative"),
    ("endless duration", raw_policy(threshold(1, duration="9" * 12 + "s")), "out of range"),
    ("unreadable duration", raw_policy(threshold(1, duration="5m")), "protobuf.Duration"),
    (
        "missing data without duration",
        _condition(evaluationMissingData="EVALUATION_MISSING_DATA_NO_OP"),
        f"{CONDITION}.evaluation_missing_data had an invalid value of "
        '"EVALUATION_MISSING_DATA_NO_OP": Conditions setting evaluation_missing_data must have a '
        "non-zero duration.",
    ),
    (
        "wrong aligner",
        raw_policy(threshold(1, aggregations=[aggregation("ALIGN_RATE")])),
        f'{CONDITION}.aggregations[0].per_series_aligner had an invalid value of "ALIGN_RATE": '
        "The aligner cannot be applied to metrics with kind GAUGE and value type DOUBLE.",
    ),
    (
        "wrong reducer",
        raw_policy(threshold(1, aggregations=[aggregation(reducer="REDUCE_COUNT_TRUE")])),
        "The reducer cannot be applied to metrics with kind GAUGE and value type DOUBLE.",
    ),
    ("short alignment", _condition(aggregations=[aggregation(period="30s")]), "at least 60 sec"),
    ("long alignment", _condition(aggregations=[aggregation(period="90060s")]), "25 hours"),
    (
        "no resource type",
        _condition(filter=f'metric.type = "{METRIC}"'),
        'must specify a restriction on "resource.type" in the filter; see '
        '"https://cloud.google.com/monitoring/api/resources" for a list of available resource '
        "types.",
    ),
    (
        "no metric type",
        _condition(filter='resource.type = "generic_task"'),
        'must specify a restriction on "metric.type" in the filter',
    ),
    (
        "regular expression operator",
        _condition(filter=FILTER + ' AND metric.label.x =~ "y"'),
        "syntax error at line 1, column",
    ),
    ("at least", _condition(comparison="COMPARISON_GE"), "only COMPARISON_GT and COMPARISON_LT"),
    ("no comparison", _condition(comparison=None), "only COMPARISON_GT and COMPARISON_LT"),
    ("unknown comparison", _condition(comparison="ABOVE"), '(TYPE_ENUM), "ABOVE"'),
    ("text threshold", _condition(thresholdValue="high"), "(TYPE_DOUBLE)"),
    ("two triggers", _condition(trigger={"count": 1, "percent": 5}), "oneof field 'type'"),
    ("percentage", _condition(trigger={"percent": 101}), "above 0 and at most 100"),
    ("unknown field", _condition(treshold=1), 'Unknown name "treshold"'),
    (
        "two kinds",
        raw_policy({**absence(), **threshold(1)}),
        "Invalid value at 'alert_policy.conditions[0]' (oneof), oneof field 'condition' is already "
        "set. Cannot set 'conditionThreshold'",
    ),
    ("no kind", raw_policy({"displayName": "x"}), "A condition must be specified."),
    ("unknown kind", raw_policy({"conditionMagic": {}}), 'Unknown name "conditionMagic"'),
    ("short absence", raw_policy(absence("60s")), "must be at least 120 seconds"),
    ("long absence", raw_policy(absence("84660s")), "must be at most 23 hours 30 minutes"),
    (
        "two log conditions",
        raw_policy(log(), log(), alertStrategy=RATE_LIMIT),
        "Alert policies with a log matching condition can only have a single condition.",
    ),
    ("two MQL conditions", raw_policy(MQL, MQL), "can only have a single condition"),
    (
        "rate limit on metrics",
        raw_policy(threshold(1), alertStrategy=RATE_LIMIT),
        "metric-based alert policies must not specify a notification rate limit",
    ),
    ("log without limit", raw_policy(log()), "must specify a notification rate limit"),
    (
        "short auto-close",
        raw_policy(threshold(1), alertStrategy={"autoClose": "600s"}),
        'Field alert_policy.alert_strategy.auto_close had an invalid value of "600s": the '
        "autoclose duration should be at least 30 minutes",
    ),
    (
        "long auto-close",
        raw_policy(threshold(1), alertStrategy={"autoClose": "604801s"}),
        "at most 7 days",
    ),
    (
        "closed only",
        raw_policy(threshold(1), alertStrategy={"notificationPrompts": ["CLOSED"]}),
        "must be [OPENED] or [OPENED, CLOSED]",
    ),
    (
        "log closed",
        raw_policy(log(), alertStrategy={**RATE_LIMIT, "notificationPrompts": ["CLOSED"]}),
        "must be [OPENED]",
    ),
    ("no combiner", raw_policy(absence(), absence(), combiner="COMBINE_UNSPECIFIED"), "combiner"),
    ("unknown combiner", raw_policy(threshold(1), combiner="XOR"), '(TYPE_ENUM), "XOR"'),
    ("unknown severity", raw_policy(threshold(1), severity="PANIC"), '(TYPE_ENUM), "PANIC"'),
    ("long name", raw_policy(threshold(1), displayName="x" * 513), "512 characters"),
    (
        "long documentation",
        raw_policy(threshold(1), documentation={"content": "x" * 8_193}),
        "8192 characters",
    ),
    (
        "many bytes",
        raw_policy(threshold(1), documentation={"content": "é" * 6_000}),
        "10240 bytes",
    ),
    (
        "plain text",
        raw_policy(threshold(1), documentation={"mimeType": "text/plain"}),
        'only "text/markdown"',
    ),
    (
        "four links",
        raw_policy(threshold(1), documentation={"links": [{"url": "https://x"}] * 4}),
        "at most 3 links",
    ),
    (
        "long link",
        raw_policy(threshold(1), documentation={"links": [{"url": "x" * 2_084}]}),
        "2083 characters",
    ),
    ("upper case", raw_policy(threshold(1), userLabels={"Team": "a"}), "lowercase letters"),
    ("digit first", raw_policy(threshold(1), userLabels={"1a": "a"}), "begin with a letter"),
    ("long value", raw_policy(threshold(1), userLabels={"a": "x" * 64}), "63 characters"),
    (
        "65 labels",
        raw_policy(threshold(1), userLabels={f"k{i}": "v" for i in range(65)}),
        "at most 64 labels",
    ),
    ("17 channels", raw_policy(threshold(1), notificationChannels=["c"] * 17), "at most 16"),
    ("empty query", raw_policy(promql(query=" ")), "must not be empty"),
    ("odd interval", raw_policy(promql(evaluationInterval="45s")), "multiples of 30 seconds"),
    ("no schedule", raw_policy(sql(booleanTest={"column": "c"})), "exactly one schedule"),
    (
        "eager schedule",
        raw_policy(sql(minutes={"periodicity": 4}, booleanTest={"column": "c"})),
        "from 5 to 1440",
    ),
    (
        "row count equality",
        raw_policy(
            sql(
                hourly={"periodicity": 1},
                rowCountTest={"comparison": "COMPARISON_EQ", "threshold": "1"},
            )
        ),
        "only COMPARISON_GT and COMPARISON_LT",
    ),
    (
        "far forecast",
        _condition(forecastOptions={"forecastHorizon": "219600s"}),
        "at most 60 hours",
    ),
    (
        "ratio periods",
        _condition(denominatorFilter=FILTER, denominatorAggregations=[aggregation(period="300s")]),
        "must use the same alignment period",
    ),
    (
        "ratio labels",
        _condition(
            aggregations=[aggregation(reducer="REDUCE_SUM", by=["metric.label.a"])],
            denominatorFilter=FILTER,
            denominatorAggregations=[aggregation(reducer="REDUCE_SUM")],
        ),
        "same labels",
    ),
    ("conditions as text", {"conditions": "many"}, "Invalid value at 'alert_policy.conditions'"),
    ("condition as text", {"conditions": ["one"]}, "Invalid value at 'alert_policy.conditions[0]'"),
]


@pytest.mark.parametrize(
    ("raw", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_the_api_refuses_is_refused(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(raw)
    assert words in str(refused.value)


def test_percentiles_cannot_be_taken_of_a_cumulative_distribution() -> None:
    raw = raw_policy(threshold(2, aggregations=[aggregation("ALIGN_PERCENTILE_95")]))
    with pytest.raises(InvalidArgument, match="kind CUMULATIVE and value type DISTRIBUTION"):
        parse(raw, Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.DISTRIBUTION))


def test_a_threshold_needs_numbers() -> None:
    raw = raw_policy(threshold(2, aggregations=[aggregation("ALIGN_DELTA")]))
    with pytest.raises(InvalidArgument, match="must produce numbers"):
        parse(raw, HISTOGRAM)


def test_a_metric_that_nobody_has_written_is_not_found() -> None:
    raw = raw_policy(threshold(1, filter=FILTER.replace(METRIC, "workload.googleapis.com/new")))
    with pytest.raises(NotFound) as refused:
        parse(raw)
    assert str(refused.value) == (
        'Cannot find metric(s) that match type = "workload.googleapis.com/new". If a metric was '
        "created recently, it could take up to 10 minutes to become available. Please try again "
        "soon."
    )


def test_an_unknown_resource_type_is_refused_when_the_known_ones_are_given() -> None:
    raw = raw_policy(threshold(1, filter=FILTER.replace("generic_task", "gce_route")))
    with pytest.raises(InvalidArgument, match="unknown resource type: gce_route"):
        parse_policy(raw, descriptors={METRIC: GAUGE}.get, resource_types={"generic_task"})


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
