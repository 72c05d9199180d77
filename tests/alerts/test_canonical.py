"""One form for whatever means the same, on Google's published policies and on every field."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from alerts.apply import apply_plan
from alerts.canonical import canonical_policy
from alerts.difference import differences
from alerts.encode import Json, descriptor_message, mapping, policy_message
from alerts.gateway import Gateway
from alerts.plan import Desired, make_plan, with_spec_hash
from alerts.policies import CATALOG
from speakfit.emulator.system_metrics import is_system_metric
from speakfit.target import Target, alert_policy_client, metric_client
from tests.speakfit.engine.test_corpus import POLICIES, descriptors, read

corpus = pytest.mark.skipif(
    not POLICIES, reason="no corpus of Google's policies; SPEAKFIT_CORPUS names its folder"
)

EVERYTHING: Json = {
    "displayName": "Everything",
    "documentation": {
        "content": "Look.\nThen act.",
        "mimeType": "text/markdown",
        "subject": "Look",
        "links": [{"displayName": "Runbook", "url": "https://runbooks.test"}],
    },
    "userLabels": {"team": "x", "empty_value": "", "snake_case": "stays_so"},
    "combiner": "OR",
    "enabled": True,
    "severity": "WARNING",
    "notificationChannels": [
        "projects/p/notificationChannels/2",
        "projects/p/notificationChannels/1",
    ],
    "alertStrategy": {
        "autoClose": "1800s",
        "notificationPrompts": ["OPENED", "CLOSED"],
        "notificationChannelStrategy": [
            {
                "notificationChannelNames": ["projects/p/notificationChannels/1"],
                "renotifyInterval": "1800s",
            }
        ],
    },
    "conditions": [
        {
            "displayName": "ratio",
            "conditionThreshold": {
                "filter": 'metric.type = "a/b" AND resource.type = "r" AND metric.labels.k = "v"',
                "denominatorFilter": 'metric.type = "a/b" AND resource.type = "r"',
                "aggregations": [
                    {
                        "alignmentPeriod": "60s",
                        "perSeriesAligner": "ALIGN_RATE",
                        "crossSeriesReducer": "REDUCE_SUM",
                        "groupByFields": ["metric.labels.k", "resource.labels.zone"],
                    },
                    {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX"},
                ],
                "denominatorAggregations": [
                    {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_RATE"}
                ],
                "comparison": "COMPARISON_GT",
                "thresholdValue": 0.5,
                "duration": "120s",
                "trigger": {"percent": 50.0},
                "evaluationMissingData": "EVALUATION_MISSING_DATA_INACTIVE",
                "forecastOptions": {"forecastHorizon": "3600s"},
            },
        },
        {
            "displayName": "absent",
            "conditionAbsent": {
                "filter": 'metric.type = "a/b" AND resource.type = "r"',
                "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MEAN"}],
                "duration": "300.5s",
                "trigger": {"count": 3},
            },
        },
        {
            "displayName": "promql",
            "conditionPrometheusQueryLanguage": {
                "query": "up == 0\nand on() vector(1)",
                "duration": "60s",
                "evaluationInterval": "60s",
                "labels": {"snake_case": "x"},
                "ruleGroup": "group",
                "alertRule": "Rule",
                "disableMetricValidation": True,
            },
        },
        {
            "displayName": "mql",
            "conditionMonitoringQueryLanguage": {
                "query": "fetch gce_instance",
                "duration": "60s",
                "trigger": {"count": 2},
                "evaluationMissingData": "EVALUATION_MISSING_DATA_ACTIVE",
            },
        },
        {
            "displayName": "log",
            "conditionMatchedLog": {
                "filter": 'severity=ERROR "x"',
                "labelExtractors": {"snake_case": 'EXTRACT(jsonPayload.x)'},
            },
        },
        {
            "displayName": "rows",
            "conditionSql": {
                "query": "SELECT 1",
                "hourly": {"periodicity": 2, "minuteOffset": 5},
                "rowCountTest": {"comparison": "COMPARISON_GT", "threshold": "3"},
            },
        },
        {
            "displayName": "flag",
            "conditionSql": {
                "query": "SELECT true AS bad",
                "daily": {"periodicity": 1, "executionTime": {"hours": 9, "minutes": 30}},
                "booleanTest": {"column": "bad"},
            },
        },
    ],
}  # fmt: skip
"""Every field of AlertPolicy that a client can set, in every kind of condition."""

SPARSE: Json = {
    "displayName": "Sparse",
    "combiner": "OR",
    "conditions": [
        {
            "displayName": "zero",
            "conditionThreshold": {
                "filter": 'metric.type = "a/b" AND resource.type = "r"',
                "comparison": "COMPARISON_GT",
            },
        },
        {"displayName": "promql", "conditionPrometheusQueryLanguage": {"query": "up == 0"}},
        {"displayName": "rows", "conditionSql": {"minutes": {}, "rowCountTest": {}}},
    ],
}
"""Everything that a server fills in is left to it."""

SPELLED_OUT: Json = {
    "name": "projects/p/alertPolicies/1",
    "display_name": "Sparse",
    "combiner": "OR",
    "enabled": True,
    "severity": "SEVERITY_UNSPECIFIED",
    "user_labels": {},
    "notification_channels": [],
    "documentation": {"mime_type": "text/markdown"},
    "alert_strategy": {
        "auto_close": "604800.000s",
        "notification_prompts": ["CLOSED", "OPENED"],
        "notification_channel_strategy": [],
    },
    "mutation_record": {"mutate_time": "2026-01-01T00:00:00Z"},
    "validity": {"code": 3},
    "conditions": [
        {
            "name": "projects/p/alertPolicies/1/conditions/1",
            "display_name": "zero",
            "condition_threshold": {
                "filter": 'resource.type="r"\n metric.type="a/b"',
                "denominator_filter": "",
                "aggregations": [],
                "comparison": "COMPARISON_GT",
                "threshold_value": 0,
                "duration": "0.000s",
                "trigger": {"count": 1},
                "evaluation_missing_data": "EVALUATION_MISSING_DATA_NO_OP",
            },
        },
        {
            "name": "projects/p/alertPolicies/1/conditions/2",
            "display_name": "promql",
            "condition_prometheus_query_language": {
                "query": "up == 0",
                "duration": "0s",
                "evaluation_interval": "30s",
                "labels": {},
                "rule_group": "",
                "disable_metric_validation": False,
            },
        },
        {
            "name": "projects/p/alertPolicies/1/conditions/3",
            "display_name": "rows",
            "condition_sql": {
                "query": "",
                "minutes": {"periodicity": 0},
                "row_count_test": {"comparison": "COMPARISON_UNSPECIFIED", "threshold": "0"},
            },
        },
    ],
}
"""The same policy with every default written down, by a client that writes snake_case."""


def test_defaults_written_down_are_no_difference() -> None:
    assert canonical_policy(SPELLED_OUT, {}) == canonical_policy(SPARSE, {})


def respelled(value: Any, dice: random.Random, field: str = "") -> Any:
    """The same policy as another client might write it."""
    if isinstance(value, dict):
        items = list(value.items())
        dice.shuffle(items)
        mine = field in ("userLabels", "labels", "labelExtractors")
        found = {
            key
            if mine or dice.random() < 0.5
            else re.sub("[A-Z]", lambda one: "_" + one[0].lower(), key): respelled(
                inner, dice, "" if mine else key
            )
            for key, inner in items
        }
        for key, empty in (("displayName", ""), ("filter", ""), ("aggregations", [])):
            if not mine and key not in value and dice.random() < 0.2:
                found.setdefault(key, empty)
        return found
    if isinstance(value, list):
        listed = [respelled(inner, dice, field) for inner in value]
        if field in ("groupByFields", "notificationChannels", "notificationPrompts"):
            dice.shuffle(listed)
        return listed
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\d+s", value):
        return value[:-1] + dice.choice(["s", ".000s", ".000000000s"])
    if field == "groupByFields":
        return value.replace(".labels.", dice.choice([".labels.", ".label."]))
    if field in ("filter", "denominatorFilter") and "metric.type" in value:
        terms = value.split(" AND ")
        dice.shuffle(terms)
        spaced = dice.choice([" = ", "=", "  =\n "])
        return dice.choice([" AND ", " ", "\n"]).join(term.replace(" = ", spaced) for term in terms)
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


_MEANT = {
    "SEVERITY_UNSPECIFIED": "CRITICAL",
    "ALIGN_NONE": "ALIGN_RATE",
    "REDUCE_NONE": "REDUCE_SUM",
    "ALIGN_RATE": "ALIGN_DELTA",
    "REDUCE_SUM": "REDUCE_MEAN",
    "COMPARISON_GT": "COMPARISON_LT",
}


def edited(value: Any) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[1:] or ["metric.labels.other"]
    if isinstance(value, dict):
        return {"changed": "yes"}
    if value in _MEANT:
        return _MEANT[value]
    if re.fullmatch(r"[\d.]+s", value):
        return "2" + value
    if "metric.type" in value:
        return value + ' AND metric.labels.edited = "yes"'
    return "1" + value


def every_edit_shows(policy: Json) -> None:
    before = canonical_policy(policy, {})
    for path in leaves(policy):
        changed = deepcopy(policy)
        inside = changed
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = edited(inside[path[-1]])
        assert differences(before, canonical_policy(changed, {})), path


def test_another_spelling_is_no_difference_and_every_edit_is_one() -> None:
    dice = random.Random(1)
    wanted = canonical_policy(EVERYTHING, {})
    for _ in range(50):
        assert canonical_policy(respelled(EVERYTHING, dice), {}) == wanted
    every_edit_shows(EVERYTHING)


def test_our_channels_are_known_by_project_id_and_by_project_number() -> None:
    ids = {"projects/p/notificationChannels/1": "channel:critical"}
    by_number = deepcopy(EVERYTHING)
    by_number["notificationChannels"][1] = "projects/123456/notificationChannels/1"
    for policy in (EVERYTHING, by_number):
        found = canonical_policy(policy, ids)
        assert found["notificationChannels"] == [
            "channel:critical",
            "projects/p/notificationChannels/2",
        ]
        (strategy,) = found["alertStrategy"]["notificationChannelStrategy"]
        assert strategy["notificationChannelNames"] == ["channel:critical"]


@corpus
def test_every_edit_of_a_published_policy_shows() -> None:
    for path in POLICIES:
        every_edit_shows(read(path))


@pytest.fixture
def published(target: Target) -> list[Json]:
    """Google's policies, their channels left out, and every user metric they read declared."""
    client = metric_client(target)
    bodies = [{**read(path), "notificationChannels": []} for path in POLICIES]
    for body in bodies:
        for name, descriptor in descriptors(body).items():
            if not is_system_metric(name):
                metric = {
                    "type": name,
                    "metricKind": str(descriptor.kind),
                    "valueType": str(descriptor.value_type),
                }
                client.create_metric_descriptor(
                    name=target.project_name, metric_descriptor=descriptor_message(metric)
                )
    return bodies


@corpus
def test_a_published_policy_comes_back_without_a_difference(
    target: Target, published: list[Json]
) -> None:
    client = alert_policy_client(target)
    for body in published:
        made = client.create_alert_policy(
            name=target.project_name, alert_policy=policy_message(body)
        )
        again = mapping(client.get_alert_policy(name=made.name))
        assert differences(canonical_policy(again, {}), canonical_policy(body, {})) == ()


@corpus
def test_a_plan_after_an_apply_of_published_policies_is_empty(
    target: Target, published: list[Json]
) -> None:
    def labelled(number: int, body: Json) -> Json:
        ours = {"managed-by": "speakfit-alerts", "catalog": "speakfit", "alert-id": f"n{number}"}
        return with_spec_hash({**body, "userLabels": {**body.get("userLabels", {}), **ours}}, {})

    policies = {f"n{number}": labelled(number, body) for number, body in enumerate(published)}
    desired = Desired(catalog=CATALOG.name, metrics={}, channels={}, policies=policies)
    with Gateway(target) as gateway:
        apply_plan(gateway, make_plan(desired, gateway.read(CATALOG)), keys={})
        again = make_plan(desired, gateway.read(CATALOG))
    assert again.changes == ()
    assert len(again.unchanged) == len(POLICIES)
