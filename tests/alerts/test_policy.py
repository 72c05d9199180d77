"""A wrong policy cannot be made: the message names the field and the rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from alerts.catalog import find_policy
from alerts.policies import CATALOG
from alerts.policy import (
    Absence,
    Aggregation,
    Aligner,
    Catalog,
    Documentation,
    LogMatch,
    Metric,
    MissingData,
    Policy,
    Prompt,
    PromQL,
    Ratio,
    Reducer,
    Signal,
    Threshold,
    Verbatim,
)
from speakfit.errors import CatalogError
from speakfit.metrics import QUEUE_DEPTH, REQUEST_DURATION, REQUESTS, RESOURCE_TYPE

DEPTH = Signal(metric=QUEUE_DEPTH, resource_type=RESOURCE_TYPE)
ALL = Signal(metric=REQUESTS, resource_type=RESOURCE_TYPE)
SLOW = Signal(metric=REQUEST_DURATION, resource_type=RESOURCE_TYPE)
MAX = Aggregation(aligner=Aligner.ALIGN_MAX)
GOOD = Threshold(
    key="depth",
    signal=DEPTH,
    aggregation=MAX,
    above=1,
    duration=timedelta(minutes=1),
    missing_data=MissingData.KEEPS,
)
POLICY = find_policy(CATALOG, "queue-depth-warning")

SHARE = Ratio(
    key="share of errors",
    signal=replace(ALL, labels={"status_class": "5xx"}),
    denominator=ALL,
    aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_SUM),
    above=0.5,
    duration=timedelta(minutes=1),
    missing_data=MissingData.CLOSES,
)

MISTAKES: dict[str, tuple[Callable[[], object], str, str]] = {
    "a duration of 90 s": (
        lambda: replace(GOOD, duration=timedelta(seconds=90)),
        "duration",
        "multiple of one minute",
    ),
    "missing data without a duration": (
        lambda: replace(GOOD, duration=timedelta(0)),
        "duration",
        "at least one minute",
    ),
    "above and below": (lambda: replace(GOOD, below=0), "above", "exactly one"),
    "neither above nor below": (lambda: replace(GOOD, above=None), "above", "exactly one"),
    "an empty key": (lambda: replace(GOOD, key=""), "key", "display name"),
    "alignment under a minute": (
        lambda: Aggregation(aligner=Aligner.ALIGN_MAX, period=timedelta(seconds=30)),
        "period",
        "between 60 s and 25 h",
    ),
    "groups without a reducer": (
        lambda: Aggregation(aligner=Aligner.ALIGN_DELTA, group_by=("http.route",)),
        "group_by",
        "Name a reducer",
    ),
    "an aligner the kind does not allow": (
        lambda: replace(GOOD, aggregation=Aggregation(aligner=Aligner.ALIGN_RATE)),
        "aggregation.aligner",
        "ALIGN_MEAN, ALIGN_COUNT",
    ),
    "a percentile aligner on a cumulative distribution": (
        lambda: replace(
            GOOD, signal=SLOW, aggregation=Aggregation(aligner=Aligner.ALIGN_PERCENTILE_95)
        ),
        "aggregation.aligner",
        "Use one of: ALIGN_NONE, ALIGN_DELTA.",
    ),
    "a distribution compared with a number": (
        lambda: replace(GOOD, signal=SLOW, aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA)),
        "aggregation.reducer",
        "percentile",
    ),
    "the largest of distributions": (
        lambda: replace(
            GOOD,
            signal=SLOW,
            aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_MAX),
        ),
        "aggregation.reducer",
        "REDUCE_PERCENTILE_99",
    ),
    "a group by an unknown label": (
        lambda: replace(
            GOOD,
            aggregation=Aggregation(
                aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX, group_by=("x",)
            ),
        ),
        "group_by",
        "it has none",
    ),
    "a filter on an unknown label": (
        lambda: replace(ALL, labels={"status": "5xx"}),
        "labels",
        "status_class",
    ),
    "a filter too long": (
        lambda: replace(ALL, labels={"status_class": "x" * 2048}),
        "labels",
        "2048",
    ),
    "a ratio of the same to the same": (
        lambda: replace(SHARE, signal=ALL),
        "denominator",
        "numerator",
    ),
    "an absence of one minute": (
        lambda: Absence(key="gone", signal=DEPTH, aggregation=MAX, duration=timedelta(minutes=1)),
        "duration",
        "2 minutes to 23 hours 30 minutes",
    ),
    "an absence of a day": (
        lambda: Absence(key="gone", signal=DEPTH, aggregation=MAX, duration=timedelta(days=1)),
        "duration",
        "2 minutes to 23 hours 30 minutes",
    ),
    "auto-close of ten minutes": (
        lambda: replace(POLICY, auto_close=timedelta(minutes=10)),
        "auto_close",
        "30 minutes to 7 days",
    ),
    "a subject that is no label": (
        lambda: replace(POLICY, subject="Queue depth"),
        "subject",
        "lowercase words",
    ),
    "no conditions": (lambda: replace(POLICY, conditions=()), "conditions", "1 to 6"),
    "two conditions of one key": (
        lambda: replace(POLICY, conditions=(GOOD, GOOD)),
        "conditions",
        "identity",
    ),
    "a reducer without an aligner": (
        lambda: Aggregation(aligner=Aligner.ALIGN_NONE, reducer=Reducer.REDUCE_SUM),
        "aligner",
        "different times",
    ),
    "a filter that cannot be read": (
        lambda: replace(ALL, where='metric.labels.x =~ "a"'),
        "where",
        "Correct the filter",
    ),
    "a forecast of a week": (
        lambda: replace(GOOD, forecast=timedelta(days=7)),
        "forecast",
        "1 to 60 hours",
    ),
    "a ratio of different windows": (
        lambda: replace(
            SHARE,
            denominator_aggregation=replace(SHARE.aggregation, period=timedelta(minutes=5)),
        ),
        "denominator_aggregation",
        "same alignment period",
    ),
    "a ratio of different groups": (
        lambda: replace(
            SHARE, denominator_aggregation=replace(SHARE.aggregation, group_by=("http.route",))
        ),
        "denominator_aggregation",
        "alike",
    ),
    "a PromQL interval of 45 s": (
        lambda: PromQL(key="up", query="up == 0", interval=timedelta(seconds=45)),
        "interval",
        "multiples of 30 s",
    ),
    "a verbatim condition of two kinds": (
        lambda: Verbatim(key="two", body={"conditionSql": {}, "conditionAbsent": {}}),
        "body",
        "exactly one",
    ),
    "a log match beside another condition": (
        lambda: replace(POLICY, conditions=(GOOD, LogMatch(key="crash", filter="severity=ERROR"))),
        "conditions",
        "single condition",
    ),
    "a log match without a rate limit": (
        lambda: replace(POLICY, conditions=(LogMatch(key="crash", filter="severity=ERROR"),)),
        "rate_limit",
        "must have one",
    ),
    "a rate limit on metrics": (
        lambda: replace(POLICY, rate_limit=timedelta(hours=1)),
        "rate_limit",
        "must not specify",
    ),
    "a prompt for closing alone": (
        lambda: replace(POLICY, prompts=(Prompt.CLOSED,)),
        "prompts",
        "OPENED",
    ),
    "several conditions without a combiner": (
        lambda: replace(POLICY, combiner=None, conditions=(GOOD, replace(GOOD, key="other"))),
        "combiner",
        "all or any",
    ),
    "documentation that is too long": (
        lambda: replace(POLICY, guidance=Documentation(content="ä" * 6_000)),
        "guidance, content",
        "10240 bytes",
    ),
    "a label with capitals": (
        lambda: replace(POLICY, labels={"Team": "core"}),
        "labels['Team']",
        "lowercase",
    ),
    "seventeen channels": (
        lambda: replace(POLICY, channels=("projects/p/notificationChannels/1",) * 17),
        "channels",
        "16",
    ),
    "two policies of one id": (
        lambda: replace(CATALOG, policies=(POLICY, POLICY)),
        "policies",
        "Rename",
    ),
    "a metric to be made without a kind": (
        lambda: replace(CATALOG, metrics=(Metric(type="custom.googleapis.com/x"),)),
        "metrics, custom.googleapis.com/x",
        "Give both",
    ),
    "a severity without a route": (lambda: replace(CATALOG, routes=()), "routes", "Add a Route"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_field_and_rule(mistake: str) -> None:
    make, field, rule = MISTAKES[mistake]
    with pytest.raises(CatalogError) as raised:
        make()
    assert field in raised.value.where
    assert rule in raised.value.todo


def test_a_label_value_cannot_break_out_of_its_filter() -> None:
    signal = Signal(
        metric=REQUESTS, resource_type=RESOURCE_TYPE, labels={"http.route": 'a" OR "b\\'}
    )
    assert signal.filter.endswith(r'metric.labels.http_route = "a\" OR \"b\\"')


def test_the_core_works_for_a_catalog_that_is_not_ours() -> None:
    other = Catalog(
        name="other",
        policies=(replace(POLICY, subject="another-thing", runbook="shared"),),
        routes=CATALOG.routes,
    )
    (policy,) = other.policies
    assert isinstance(policy, Policy)
    assert (policy.id, policy.runbook) == ("another-thing-warning", "shared")
