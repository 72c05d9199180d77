"""Policies of elsewhere become Python that compiles back to the very same policy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import monitoring_v3

from alerts import source
from alerts.apply import apply_plan
from alerts.condition import Threshold, Verbatim, signals
from alerts.decode import free_subject, policy_of, same
from alerts.gateway import Gateway
from alerts.metric import Metric
from alerts.plan import desired_state, make_plan
from alerts.policies import CATALOG
from alerts.policy import Catalog, Policy
from alerts.rawfile import policies_of_file
from speakfit.emulator.server import Emulator
from speakfit.emulator.system_metrics import is_system_metric
from speakfit.engine.points import MetricKind, ValueType
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import ROOT, Run

SAMPLES = ROOT.parent / "shared" / "corpus" / "alert-policies"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the corpus is not here")

ODD: dict[str, Any] = {
    "displayName": 'Odd "one" \\ with a tab\t and a \u2028',
    "documentation": {
        "content": "First line\n\n" + "word " * 60 + "\n'one' and \"two\" ${policy.name}",
        "mimeType": "text/markdown",
        "subject": "Odd",
        "links": [{"displayName": "Board", "url": "https://example.test/b"}],
    },
    "userLabels": {"team": "core"},
    "combiner": "AND_WITH_MATCHING_RESOURCE",
    "severity": "ERROR",
    "enabled": False,
    "notificationChannels": ["projects/p/notificationChannels/7"],
    "alertStrategy": {
        "autoClose": "3600s",
        "notificationPrompts": ["OPENED"],
        "notificationChannelStrategy": [
            {
                "notificationChannelNames": ["projects/p/notificationChannels/7"],
                "renotifyInterval": "5400s",
            }
        ],
    },
    "conditions": [
        {
            "displayName": "two steps",
            "conditionThreshold": {
                "filter": 'resource.type = one_of("gce_instance", "k8s_node") '
                'metric.type="compute.googleapis.com/instance/cpu/utilization" '
                'NOT metric.labels.instance_name = starts_with("test-") '
                'metric.label."odd.key" = "a\\"b" metadata.user_labels."team" = "core"',
                "aggregations": [
                    {
                        "alignmentPeriod": "300s",
                        "perSeriesAligner": "ALIGN_MEAN",
                        "crossSeriesReducer": "REDUCE_MAX",
                        "groupByFields": ["resource.label.zone", "metric.label.instance_name"],
                    },
                    {"alignmentPeriod": "90s", "perSeriesAligner": "ALIGN_MAX"},
                ],
                "comparison": "COMPARISON_LT",
                "duration": "0s",
                "trigger": {"percent": 12.5},
            },
        },
        {
            "displayName": "two steps",
            "conditionThreshold": {
                "filter": 'metric.type="custom.googleapis.com/disk" resource.type="gce_instance"',
                "comparison": "COMPARISON_GT",
                "thresholdValue": 0.1,
                "duration": "600s",
                "evaluationMissingData": "EVALUATION_MISSING_DATA_ACTIVE",
                "forecastOptions": {"forecastHorizon": "7200s"},
                "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MEAN"}],
            },
        },
        {
            "displayName": "share",
            "conditionThreshold": {
                "filter": 'metric.type="custom.googleapis.com/bad" resource.type="global"',
                "denominatorFilter": 'metric.type="custom.googleapis.com/all"',
                "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_RATE"}],
                "denominatorAggregations": [
                    {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_DELTA"}
                ],
                "comparison": "COMPARISON_GT",
                "thresholdValue": 5,
                "duration": "60s",
                "trigger": {"count": 3},
            },
        },
        {
            "displayName": "up",
            "conditionPrometheusQueryLanguage": {
                "query": "absent(up{job=\"api\"})",
                "duration": "120s",
                "evaluationInterval": "60s",
                "labels": {"severity": "page"},
                "ruleGroup": "api",
                "alertRule": "ApiDown",
                "disableMetricValidation": True,
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
            "displayName": "in any group",
            "conditionAbsent": {
                "filter": 'group.id = "1" AND metric.type = starts_with("custom.googleapis.com/")',
                "duration": "300s",
            },
        },
    ],
}  # fmt: skip
"""Nearly everything that the API can say and that no published sample says."""


def run(text: str) -> Catalog:
    """What a module declares."""
    names: dict[str, Any] = {}
    exec(compile(text, "imported", "exec"), names)
    found = names["CATALOG"]
    assert isinstance(found, Catalog)
    return found


def test_what_no_sample_says_survives_as_well() -> None:
    policy = policy_of(ODD, subject="odd")
    kinds = [type(condition).__name__ for condition in policy.conditions]
    assert kinds == ["Threshold", "Threshold", "Ratio", "PromQL", "Verbatim", "Absence"]
    again = run(source.module([policy], catalog="odd", origin="made up")).policies
    assert again == (policy,)
    assert same(again[0], ODD)
    assert not same(again[0], {**ODD, "severity": "WARNING"})
    assert not same(again[0], {**ODD, "conditions": ODD["conditions"][:-1]})


def test_a_burn_rate_that_google_computes_survives_as_a_threshold() -> None:
    selector = 'select_slo_burn_rate("projects/p/services/s/serviceLevelObjectives/o", "3600s")'
    body = {
        "displayName": "Burns",
        "combiner": "OR",
        "conditions": [
            {
                "displayName": "fast",
                "conditionThreshold": {
                    "filter": selector,
                    "comparison": "COMPARISON_GT",
                    "thresholdValue": 14.4,
                    "duration": "0s",
                },
            }
        ],
    }
    policy = policy_of(body, subject="burns")
    (condition,) = policy.conditions
    assert isinstance(condition, Threshold)
    assert (condition.signal.filter, condition.above) == (selector, 14.4)
    assert run(source.module([policy], catalog="slo", origin="made up")).policies == (policy,)


def test_our_own_policies_survive_word_for_word() -> None:
    from alerts.encode import policy_json

    for policy in CATALOG.policies:
        body = policy_json(policy, CATALOG, runbook_base_url="https://runbooks.test")
        again = policy_of(body, subject=policy.subject)
        assert again.id == policy.id
        assert same(again, body)
        assert not any(isinstance(condition, Verbatim) for condition in again.conditions)


@needs_samples
def test_every_sample_becomes_python_that_is_formatted_and_compiles_back(tmp_path: Path) -> None:
    policies, bodies = [], []
    for file in sorted(SAMPLES.iterdir()):
        for body in policies_of_file(file):
            taken = {policy.subject for policy in policies}
            policies.append(policy_of(body, subject=free_subject(body, taken)))
            bodies.append(body)
    assert len(policies) > 100
    text = source.module(policies, catalog="samples", origin="published by Google")
    again = run(text).policies
    assert again == tuple(policies)
    assert all(same(policy, body) for policy, body in zip(again, bodies, strict=True))
    written = tmp_path / "samples.py"
    written.write_text(text, encoding="utf-8")
    for check in (["format", "--check"], ["check", "--select=E,F,I,UP,RUF"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--line-length=100", "--isolated", written],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def described(policy: Policy) -> dict[str, Metric]:
    """The metrics of a policy with a kind and type that its first aligner reads."""
    found = {}
    for condition in policy.conditions:
        for signal in signals(condition):
            step = getattr(condition, "aggregation", None)
            aligner = step.aligner if step is not None else ""
            growing = aligner in ("ALIGN_RATE", "ALIGN_DELTA")
            spread = "PERCENTILE" in f"{aligner}{getattr(step, 'reducer', '')}" and growing
            spread = spread or "PERCENTILE" in aligner
            if signal.metric is not None:
                found[signal.metric.type] = Metric(
                    type=signal.metric.type,
                    kind=MetricKind.CUMULATIVE if growing else MetricKind.GAUGE,
                    value_type=ValueType.DISTRIBUTION if spread else ValueType.DOUBLE,
                )
    return found


@needs_samples
def test_the_plan_is_empty_once_every_sample_is_applied(target: Target, tmp_path: Path) -> None:
    policies: list[Policy] = []
    metrics: dict[str, Metric] = {}
    for file in sorted(SAMPLES.iterdir()):
        text = re.sub(r"\$\{[A-Z_]+\}", "speakfit-test", file.read_text(encoding="utf-8"))
        filled = tmp_path / "filled.json"
        filled.write_text(text, encoding="utf-8")
        (found,) = policies_of_file(filled)
        body = {**found, "notificationChannels": []}
        subject = free_subject(body, {policy.subject for policy in policies})
        policy = policy_of(body, subject=subject)
        policies.append(policy)
        for name, metric in described(policy).items():
            if not is_system_metric(name):
                metrics.setdefault(name, metric)
    catalog = Catalog(
        name="samples", policies=tuple(policies), routes=(), metrics=tuple(metrics.values())
    )
    desired = desired_state(catalog, runbook_base_url="https://runbooks.test", digests={})
    with Gateway(target) as gateway:
        first = make_plan(desired, gateway.read(catalog))
        assert len(first.changes) == len(policies) + len(metrics)
        apply_plan(gateway, first, keys={})
        assert make_plan(desired, gateway.read(catalog)).changes == ()


def test_a_live_policy_is_imported_with_what_its_metric_is(
    emulator: Emulator, target: Target, alerts: Run, tmp_path: Path
) -> None:
    with Gateway(target) as gateway:
        wanted = desired_state(CATALOG, runbook_base_url="https://r.test", digests={})
        bare = replace(CATALOG, policies=(), routes=())
        desired = replace(wanted, channels={}, policies={})
        apply_plan(gateway, make_plan(desired, gateway.read(bare)), keys={})
    body = {
        "display_name": "Backlog",
        "combiner": "OR",
        "conditions": [
            {
                "display_name": "deep",
                "condition_threshold": {
                    "filter": 'metric.type="workload.googleapis.com/speakfit.queue.depth" '
                    'AND resource.type="generic_task"',
                    "comparison": "COMPARISON_GT",
                    "threshold_value": 42,
                    "duration": timedelta(minutes=3),
                },
            }
        ],
    }
    made = alert_policy_client(target).create_alert_policy(
        name=target.project_name, alert_policy=monitoring_v3.AlertPolicy(body)
    )
    at = ["--emulator", emulator.grpc_address]
    done = alerts("import", "Backlog", "--out", "imported.py", *at)
    assert done.returncode == 0, done.stderr
    (policy,) = run((tmp_path / "imported.py").read_text(encoding="utf-8")).policies
    metric = signals(policy.conditions[0])[0].metric
    assert metric is not None
    assert (metric.kind, metric.value_type, metric.unit) == ("GAUGE", "INT64", "{chunk}")
    assert policy.title == "Backlog"
    again = alerts("import", made.name.rpartition("/")[2], "--json", *at)
    assert json.loads(again.stdout)["policies"] == [{"id": "backlog", "title": "Backlog"}]


BROKEN: dict[str, Callable[[Path], None]] = {
    "not JSON": lambda file: file.with_suffix(".json").write_text('{"displayName": }'),
    "not YAML": lambda file: file.with_suffix(".yaml").write_text("a: [1\nb: 2\n"),
    "not text": lambda file: file.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
    "a dashboard": lambda file: file.with_suffix(".json").write_text('{"mosaicLayout": {}}'),
    "a number": lambda file: file.with_suffix(".yaml").write_text("7"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_no_policy_is_told_with_its_place(
    what: str, alerts: Run, tmp_path: Path
) -> None:
    BROKEN[what](tmp_path / "file")
    done = alerts("import", "--files", ".")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "where: file." in done.stderr
    assert "to do: " in done.stderr
