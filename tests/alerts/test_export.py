"""What `export` writes is what the other tool reads: parsed back, it is the same policy."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from alerts import export
from alerts.canonical import canonical_policy
from alerts.catalog import find_policy
from alerts.condition import Aggregation, Aligner, MissingData, Reducer, Signal, Threshold
from alerts.decode import policy_of, same
from alerts.encode import engine_spec
from alerts.metric import Metric
from alerts.policies import CATALOG
from alerts.policy import Catalog, Policy
from speakfit.engine.incidents import IncidentOpened, PolicyState, replay
from speakfit.engine.points import MetricKind, Series, SeriesKey, ValueType
from tests.alerts.conftest import Run
from tests.alerts.test_conversion import ODD
from tests.speakfit.engine.promtool import PROMTOOL, AlertRule, ask

BASE = "https://runbooks.test"
EVERY: list[tuple[Policy, dict[str, Any]]] = [
    (policy, export.compiled(policy, CATALOG, runbook_base_url=BASE)) for policy in CATALOG.policies
]
ODD_POLICY = policy_of(ODD, subject="odd")
ODD_PAIR = (ODD_POLICY, export.compiled(ODD_POLICY, CATALOG, runbook_base_url=BASE))

LOAD = Metric(
    type="custom.googleapis.com/load",
    kind=MetricKind.GAUGE,
    value_type=ValueType.DOUBLE,
    labels=("zone",),
)
LOADED = Policy(
    subject="load",
    severity=None,
    title="Load",
    channels=(),
    conditions=(
        Threshold(
            key="load per zone",
            signal=Signal(metric=LOAD, resource_type="global", labels={"zone": "z1"}),
            aggregation=Aggregation(
                aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_SUM, group_by=("zone",)
            ),
            above=2.5,
            duration=timedelta(minutes=3),
            missing_data=MissingData.CLOSES,
        ),
    ),
)


def test_exported_json_and_yaml_are_the_policies_without_the_labels_of_ours() -> None:
    listed = json.loads(export.as_json([body for _, body in EVERY]))["alertPolicies"]
    assert listed == list(yaml.safe_load_all(export.as_yaml(body for _, body in EVERY)))
    assert [body["displayName"] for body in listed] == [one.display_name for one, _ in EVERY]
    assert not any("userLabels" in body for body in listed)
    assert listed[0]["notificationChannels"] == ["${CHANNEL_WARNING}"]
    one = json.loads(export.as_json([ODD_PAIR[1]]))
    assert same(ODD_POLICY, one)
    assert same(ODD_POLICY, yaml.safe_load(export.as_yaml([one])))


def _from_hcl(value: Any, name: str = "") -> Any:
    """What an attribute or a block says, in REST form."""
    if isinstance(value, dict):
        plain = {key: part for key, part in value.items() if not key.startswith("__")}
        if name in ("user_labels", "labels", "label_extractors"):
            return {_from_hcl(key): _from_hcl(part) for key, part in plain.items()}
        return {_camel(key): _from_hcl(part, key) for key, part in plain.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            blocks = [_from_hcl(one, name) for one in value]
            # A list in the API is a repeated block; a message is a block that stands once.
            return blocks if name in _REPEATED else blocks[0]
        return [_from_hcl(one) for one in value]
    if isinstance(value, str):
        joined = re.fullmatch(r'\$\{join\("\\n", (\[.*\])\)\}', value, re.DOTALL)
        if joined:
            return "\n".join(_unquoted(line) for line in json.loads(joined[1]))
        reference = re.fullmatch(
            r"\$\{data\.google_monitoring_notification_channel\.(\w+)\.name\}", value
        )
        if reference:
            return f"${{CHANNEL_{reference[1].upper()}}}"
        return _unquoted(json.loads(value)) if value.startswith('"') else value
    return value


_REPEATED = frozenset(
    {
        "conditions", "aggregations", "denominator_aggregations", "links",
        "notification_channel_strategy",
    }
)  # fmt: skip


def _unquoted(text: str) -> str:
    return text.replace("$${", "${").replace("%%{", "%{")


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name)


def test_exported_terraform_says_what_the_policies_say() -> None:
    pairs = [*EVERY, ODD_PAIR]
    parsed = hcl2.loads(export.as_terraform(pairs, CATALOG.channels))  # type: ignore[attr-defined]
    names = {name.strip('"'): body for one in parsed["resource"] for name, body in one.items()}
    assert set(names) == {"google_monitoring_alert_policy"}
    bodies = {
        name.strip('"'): _from_hcl(body)
        for one in parsed["resource"]
        for name, body in one['"google_monitoring_alert_policy"'].items()
    }
    assert len(bodies) == len(pairs)
    for policy, body in pairs:
        found = bodies[policy.id.replace("-", "_")]
        assert canonical_policy(found, {}) == canonical_policy(body, {}), policy.id
    channels = [name.strip('"') for one in parsed["data"] for name in next(iter(one.values()))]
    assert channels == ["critical", "warning"]


def test_exported_config_connector_refers_to_channels_and_has_labels_where_it_keeps_them() -> None:
    documents = list(yaml.safe_load_all(export.as_config_connector([EVERY[0], ODD_PAIR])))
    first, odd = documents
    assert (first["kind"], first["metadata"]["name"]) == (
        "MonitoringAlertPolicy",
        "api-latency-warning",
    )
    assert first["spec"]["notificationChannels"] == [{"name": "warning"}]
    assert odd["metadata"]["labels"] == {"team": "core"}
    channel = {"external": "projects/p/notificationChannels/7"}
    assert odd["spec"]["notificationChannels"] == [channel]
    (strategy,) = odd["spec"]["alertStrategy"]["notificationChannelStrategy"]
    assert strategy["notificationChannelNames"] == [channel]


def test_prometheus_rules_are_written_only_where_they_mean_the_same() -> None:
    text, refused = export.as_prometheus([LOADED, *CATALOG.policies], name="all")
    ((group),) = yaml.safe_load(text)["groups"]
    (rule,) = group["rules"]
    assert rule["expr"] == (
        "sum by (monitored_resource, zone) (max_over_time(custom_googleapis_com:load"
        '{monitored_resource="global", zone="z1"}[60s])) > 2.5'
    )
    assert rule["for"] == "180s"
    assert {identity for identity, _ in refused} == {policy.id for policy in CATALOG.policies}
    (condition,) = LOADED.conditions
    assert isinstance(condition, Threshold)
    for unlike in (
        replace(condition, missing_data=MissingData.KEEPS),
        replace(condition, forecast=timedelta(hours=1)),
        replace(
            condition, signal=replace(condition.signal, where='metric.labels.zone = one_of("a")')
        ),
        replace(
            condition, signal=replace(condition.signal, metric=replace(LOAD, kind=MetricKind.DELTA))
        ),
    ):
        _, refused = export.as_prometheus([replace(LOADED, conditions=(unlike,))], name="all")
        assert refused, unlike


@pytest.mark.slow
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: apt-get install prometheus")
def test_prometheus_agrees_with_the_engine_about_an_exported_rule(tmp_path: Path) -> None:
    lines = {
        "a": [1, 1, 2, 2, 2, 2, 2, None, 2, 2, 2, 2, 0, 0, 3, 3, 3, 3, 3, 3, 1, 1],
        "b": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
    text, _ = export.as_prometheus([LOADED], name="all")
    (rule,) = yaml.safe_load(text)["groups"][0]["rules"]
    # Prometheus 2 counts the point at the beginning of a window, Cloud Monitoring (and Prometheus
    # 3) does not.
    expression = rule["expr"].replace("[60s]", "[59s]")
    minutes = range(len(lines["a"]))
    found = ask(
        tmp_path,
        series={
            f'custom_googleapis_com:load{{monitored_resource="global", zone="z1", i="{name}"}}': (
                " ".join("_" if value is None else str(value) for value in line)
            )
            for name, line in lines.items()
        },
        rules=[AlertRule(name="Load", expr=expression, minutes=3)],
        exprs=['ALERTS{alertstate="firing"}'],
        minutes=minutes,
    )
    minute = 60 * 10**9
    series = [
        Series.of_numbers(
            key=SeriesKey.of(
                metric_type=LOAD.type,
                metric_labels={"zone": "z1"},
                resource_type="global",
                resource_labels={"i": name},
            ),
            kind=MetricKind.GAUGE,
            value_type=ValueType.DOUBLE,
            end_ns=[minute * (at + 1) for at, value in enumerate(line) if value is not None],
            values=[value for value in line if value is not None],
        )
        for name, line in lines.items()
    ]
    spec = engine_spec(
        LOADED, Catalog(name="x", policies=(LOADED,), routes=()), runbook_base_url=BASE
    )
    _, events = replay(spec, PolicyState.empty(), series, [minute * (at + 1) for at in minutes])
    firing, expected = False, []
    changes = {event.at_ns // minute - 1: isinstance(event, IncidentOpened) for event in events}
    for at in minutes:
        firing = changes.get(at, firing)
        expected.append(firing)
    assert [bool(found.get(('ALERTS{alertstate="firing"}', at))) for at in minutes] == expected
    assert any(expected)
    assert not all(expected)


def test_export_tells_what_it_could_not_write(alerts: Run, tmp_path: Path) -> None:
    done = alerts("export", "--format", "prometheus", "--out", "rules.yaml")
    assert done.returncode == 1
    assert "no exact twin: telemetry-silent-critical: " in done.stderr
    assert yaml.safe_load((tmp_path / "rules.yaml").read_text()) == {"groups": []}
    assert find_policy(CATALOG, "worker-down-critical").display_name in (
        alerts("export", "worker-down-critical").stdout
    )
