"""Alert policies of every kind that a library of them has, made up at random but always alike.

Each comes with the metrics it is about, so that they can be declared, or left to be guessed, and
written.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

from speakfit.engine.align import Aligner
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.reduce import Reducer, aggregated_type, parse_aggregation
from speakfit.errors import InvalidArgument
from tests.speakfit.engine.build import histogram, minutes

_SYSTEM = (
    ("compute.googleapis.com/instance/cpu/utilization", "gce_instance"),
    ("agent.googleapis.com/memory/percent_used", "gce_instance"),
    ("kubernetes.io/container/restart_count", "k8s_container"),
    ("kubernetes.io/node_daemon/cpu/core_usage_time", "k8s_node"),
    ("istio.io/service/server/request_count", "istio_canonical_service"),
    ("knative.dev/serving/revision/request_count", "knative_revision"),
    ("cloudsql.googleapis.com/database/up", "cloudsql_database"),
    ("pubsub.googleapis.com/subscription/oldest_unacked_message_age", "pubsub_subscription"),
    ("bigquery.googleapis.com/query/scanned_bytes", "global"),
    ("bigquerystorage.googleapis.com/dataflow_write/uploaded_bytes_count", "dataflow_worker"),
    ("loadbalancing.googleapis.com/https/request_count", "https_lb_rule"),
    ("loadbalancing.googleapis.com/l3/external/ingress_bytes_count", "tcp_lb_rule"),
    ("run.googleapis.com/request_latencies", "cloud_run_revision"),
    ("logging.googleapis.com/user/my-errors", "k8s_cluster"),
    ("logging.googleapis.com/log_entry_count", "audited_resource"),
    ("monitoring.googleapis.com/uptime_check/check_passed", "uptime_url"),
    ("spanner.googleapis.com/instance/cpu/utilization_by_priority", "spanner_instance"),
    ("storage.googleapis.com/api/request_count", "gcs_bucket"),
    ("serviceruntime.googleapis.com/quota/exceeded", "consumer_quota"),
    ("aws.googleapis.com/EC2/CPUUtilization/Average", "aws_ec2_instance"),
    ("networking.googleapis.com/vm_flow/rtt", "networking.googleapis.com/Location"),
    ("redis.googleapis.com/cluster/memory/average_utilization", "redis.googleapis.com/Cluster"),
    ("cloudvolumesgcp-api.netapp.com/cloudvolume/volume_usage",
     "cloudvolumesgcp-api.netapp.com/CloudVolume"),
)  # fmt: skip
_OURS = (
    ("workload.googleapis.com/activemq.disk.temp.limit", "gce_instance"),
    ("custom.googleapis.com/invoice/paid/amount", "generic_task"),
    ("prometheus.googleapis.com/kafka_topic_partition/gauge", "prometheus_target"),
    ("external.googleapis.com/prometheus/up", "k8s_pod"),
)
_KINDS = tuple(
    Descriptor(kind=kind, value_type=value_type)
    for kind in MetricKind
    for value_type in (ValueType.INT64, ValueType.DOUBLE, ValueType.BOOL, ValueType.DISTRIBUTION)
    if kind in (MetricKind.GAUGE, MetricKind.DELTA, MetricKind.CUMULATIVE)
    and (kind is MetricKind.GAUGE or value_type is not ValueType.BOOL)
)
_PERIODS = ("60s", "120s", "300s", "900s", "3600s", "86400s")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that a policy is about, with labels that its filter selects."""

    type: str
    resource: str
    descriptor: Descriptor
    declared: bool
    """Whether users write it; others are known to the server only."""

    key: SeriesKey

    def series(self, points: int = 40) -> Series:
        """One point a minute, rising."""
        at = range(1, points + 1)
        kind, value_type = self.descriptor.kind, self.descriptor.value_type
        starts = {
            MetricKind.GAUGE: None,
            MetricKind.DELTA: minutes(*(one - 1 for one in at)),
        }.get(kind, minutes(*[0] * points))
        if value_type is ValueType.DISTRIBUTION:
            return Series.of_distributions(
                key=self.key,
                kind=kind,
                start_ns=starts,
                end_ns=minutes(*at),
                values=[histogram([0, 10, 100], [0, one, 2 * one, 0]) for one in at],
            )
        return Series.of_numbers(
            key=self.key,
            kind=kind,
            value_type=value_type,
            start_ns=starts,
            end_ns=minutes(*at),
            values=[one % 2 if value_type is ValueType.BOOL else one for one in at],
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One policy in REST JSON, and what it is about."""

    name: str
    body: dict[str, Any]
    metrics: list[Metric] = field(default_factory=list)

    def descriptors(self, metric_type: str) -> Descriptor | None:
        """What the metrics of the policy are."""
        return {one.type: one.descriptor for one in self.metrics}.get(metric_type)


class _Maker:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.metrics: list[Metric] = []
        self._used: set[str] = set()

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    def metric(self, *needs: Descriptor, resource: str = "") -> Metric:
        """A metric that the policy does not use yet, of one of the kinds."""
        descriptor = self.dice.choice(needs or _KINDS)
        names = [
            one for one in (_OURS if self.chance(0.4) else _SYSTEM) if one[0] not in self._used
        ]
        if descriptor.kind is MetricKind.DELTA:
            # Nobody may declare such a custom metric.
            names = [one for one in names if not one[0].startswith("custom.googleapis.com/")]
        name, usual = self.dice.choice(names or list(_SYSTEM))
        declared = name in dict(_OURS)
        self._used.add(name)
        made = Metric(
            type=name,
            resource=resource or usual,
            descriptor=descriptor,
            declared=declared,
            key=SeriesKey.of(
                metric_type=name,
                metric_labels={"state": "used", "code": "503", "route": "v1/a-b"},
                resource_type=resource or usual,
                resource_labels={"zone": "us-central1-a", "project_id": "speakfit-test"},
                system_labels={"name": "vm-1"},
                user_labels={"app.kubernetes.io/name": "web"},
            ),
        )
        self.metrics.append(made)
        return made

    def filter(self, metric: Metric, *, resource: bool = True) -> str:
        parts = [f'metric.type = "{metric.type}"']
        if resource:
            parts.append(
                self.dice.choice(
                    (
                        f'resource.type = "{metric.resource}"',
                        f'resource.type="{metric.resource}"',
                        f'resource.type = one_of("{metric.resource}", "global")',
                    )
                )
            )
        extra = [
            'metric.labels.state = "used"',
            'metric.label."state"="used"',
            'metric.labels.state != starts_with("free")',
            "metric.labels.code >= 500",
            'metric.label.code = monitoring.regex.full_match("5\\\\d\\\\d")',
            '(metric.labels.state = "used" OR metric.labels.state = "reserved")',
            'NOT metric.labels.state = one_of("free", "cached")',
            'resource.labels."zone" = has_substring("central1")',
            'resource.label.zone = ends_with("-a")',
            'resource.labels.project_id = "speakfit-test"',
            'metadata.user_labels."app.kubernetes.io/name" = "web"',
            'metadata.system_labels.name = "vm-1"',
            'project = "speakfit-test"',
            'metric.labels.state : "use"',
        ]
        parts += self.dice.sample(extra, self.dice.randrange(3))
        self.dice.shuffle(parts)
        return self.dice.choice((" AND ", " ", "\n", "\n  AND ")).join(parts)

    def steps(self, descriptor: Descriptor, *, numeric: bool) -> list[dict[str, Any]]:
        """One or two aggregations that fit."""
        while True:
            found = [self._step() for _ in range(self.dice.choice((1, 1, 1, 2)))]
            try:
                parsed = [parse_aggregation(one, field="a") for one in found]
                _kind, value_type = aggregated_type(parsed, descriptor.kind, descriptor.value_type)
            except InvalidArgument:
                continue
            if not numeric or value_type is not ValueType.DISTRIBUTION:
                return found

    def _step(self) -> dict[str, Any]:
        step: dict[str, Any] = {
            "alignmentPeriod": self.dice.choice(_PERIODS),
            "perSeriesAligner": self.dice.choice(list(Aligner)).value,
        }
        if self.chance(0.7):
            step["crossSeriesReducer"] = self.dice.choice(list(Reducer)).value
            step["groupByFields"] = self.dice.sample(
                [
                    'resource.label."zone"', "resource.labels.zone", "metric.label.state",
                    'metric.labels."route"', "metadata.system_labels.name",
                    'metadata.user_labels."app.kubernetes.io/name"', "resource.type",
                    "metric.type", "project", "resource.label.project_id", "resource.label.*",
                    "metric.labels.*",
                ],
                self.dice.randrange(4),
            )  # fmt: skip
        return step

    def threshold(self) -> dict[str, Any]:
        metric = self.metric()
        body: dict[str, Any] = {
            "filter": self.filter(metric),
            "aggregations": self.steps(metric.descriptor, numeric=True),
            "comparison": self.dice.choice(("COMPARISON_GT", "COMPARISON_LT")),
            "thresholdValue": self.dice.choice((0, 1, 0.9, -1, 5_000_000_000, "90", 1e-9)),
            "duration": self.dice.choice(("0s", "60s", "300s", "3600s")),
            "trigger": self.dice.choice(({"count": 1}, {"percent": 50}, {"count": "3"}, {})),
        }
        if body["duration"] != "0s" and self.chance(0.5):
            body["evaluationMissingData"] = "EVALUATION_MISSING_DATA_" + self.dice.choice(
                ("ACTIVE", "INACTIVE", "NO_OP")
            )
        if self.chance(0.1):
            body["forecastOptions"] = {"forecastHorizon": "3600s"}
        if self.chance(0.1):
            del body["thresholdValue"]
        return {"conditionThreshold": body}

    def ratio(self) -> dict[str, Any]:
        kinds = [
            one
            for one in _KINDS
            if one.kind is not MetricKind.GAUGE and one.value_type is not ValueType.DISTRIBUTION
        ]
        above = self.metric(*kinds)
        below = self.metric(*kinds, resource=above.resource)
        steps = [
            {
                "alignmentPeriod": "300s",
                "perSeriesAligner": "ALIGN_RATE",
                "crossSeriesReducer": "REDUCE_SUM",
                "groupByFields": ['metric.label."route"'],
            }
        ]
        return {
            "conditionThreshold": {
                "filter": self.filter(above),
                "aggregations": steps,
                "denominatorFilter": self.filter(below, resource=self.chance(0.5)),
                "denominatorAggregations": [{**steps[0], "groupByFields": ["metric.labels.route"]}],
                "comparison": "COMPARISON_GT",
                "thresholdValue": 0.01,
                "duration": "120s",
            }
        }

    def uptime(self) -> dict[str, Any]:
        """What the console makes for an uptime check."""
        metric = self.metric(Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.BOOL))
        return {
            "conditionThreshold": {
                "filter": self.filter(metric),
                "aggregations": [
                    {
                        "alignmentPeriod": "1200s",
                        "perSeriesAligner": "ALIGN_NEXT_OLDER",
                        "crossSeriesReducer": "REDUCE_COUNT_FALSE",
                        "groupByFields": ["resource.label.zone"],
                    }
                ],
                "comparison": "COMPARISON_GT",
                "thresholdValue": 1,
                "duration": "60s",
                "trigger": {"count": 1},
            }
        }

    def absence(self) -> dict[str, Any]:
        metric = self.metric()
        return {
            "conditionAbsent": {
                "filter": self.filter(metric),
                "aggregations": self.steps(metric.descriptor, numeric=False),
                "duration": self.dice.choice(("120s", "300s", "3600s", "84600s")),
                "trigger": self.dice.choice(({"count": 1}, {"percent": 100})),
            }
        }

    def promql(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "query": 'sum by (zone) (rate(up{job="a",zone=~"us-.*"}[5m]))\n  > on () vector(1)',
            "duration": self.dice.choice(("0s", "30s", "600s")),
        }
        more = {
            "evaluationInterval": self.dice.choice(("30s", "60s", "300s")),
            "labels": {"severity": "page", "team": "a"},
            "ruleGroup": "group-1",
            "alertRule": "TooMany",
            "disableMetricValidation": True,
        }
        for name in self.dice.sample(list(more), self.dice.randrange(len(more))):
            body[name] = more[name]
        return {"conditionPrometheusQueryLanguage": body}

    def mql(self) -> dict[str, Any]:
        query = "fetch gce_instance\n| metric 'compute.googleapis.com/x'\n| condition val() > 1 '1'"
        return {
            "conditionMonitoringQueryLanguage": {
                "query": query,
                "duration": "0s",
                "trigger": {"count": 1},
                "evaluationMissingData": "EVALUATION_MISSING_DATA_UNSPECIFIED",
            }
        }

    def log(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "filter": 'resource.type="gce_instance"\nlogName=~"cloudaudit" AND\n'
            'protoPayload.methodName=("a" OR "b") AND severity>=ERROR AND -labels.x:"y"'
        }
        if self.chance(0.5):
            body["labelExtractors"] = {
                "zone": "EXTRACT(resource.labels.zone)",
                "code": 'REGEXP_EXTRACT(jsonPayload.message, "code=(\\\\d+)")',
            }
        return {"conditionMatchedLog": body}

    def sql(self) -> dict[str, Any]:
        schedule = self.dice.choice(
            (
                {"minutes": {"periodicity": 30}},
                {"hourly": {"periodicity": 2, "minuteOffset": 15}},
                {"daily": {"periodicity": 1, "executionTime": {"hours": 7, "minutes": 30}}},
            )
        )
        test = self.dice.choice(
            (
                {"rowCountTest": {"comparison": "COMPARISON_GT", "threshold": "5"}},
                {"booleanTest": {"column": "too_many"}},
            )
        )
        return {"conditionSql": {"query": "SELECT 1 AS too_many", **schedule, **test}}

    def policy(self, number: int) -> dict[str, Any]:
        alone = self.dice.choice((self.log, self.mql))
        several = (
            self.threshold, self.threshold, self.threshold, self.ratio, self.uptime, self.absence,
            self.promql, self.sql,
        )  # fmt: skip
        if self.chance(0.15):
            conditions = [alone()]
        else:
            count = self.dice.choice((1, 1, 2, 3))
            conditions = [self.dice.choice(several)() for _ in range(count)]
        for index, condition in enumerate(conditions):
            condition["displayName"] = f"Condition {index} on ${{PROJECT_ID}}"
            if self.chance(0.3):
                condition["name"] = f"projects/123/alertPolicies/456/conditions/{index}"
        strategy: dict[str, Any] = {}
        if "conditionMatchedLog" in conditions[0]:
            strategy["notificationRateLimit"] = {"period": "300s"}
        elif self.chance(0.5):
            strategy["notificationPrompts"] = self.dice.choice((["OPENED"], ["OPENED", "CLOSED"]))
        if self.chance(0.8):
            strategy["autoClose"] = self.dice.choice(("1800s", "3600s", "86400s", "604800s"))
        body: dict[str, Any] = {
            "displayName": f"Sample {number} — ${{CLUSTER_NAME}}",
            "conditions": conditions,
            "combiner": self.dice.choice(("OR", "AND", "AND_WITH_MATCHING_RESOURCE")),
            "enabled": self.chance(0.7),
            "alertStrategy": strategy,
            "notificationChannels": [],
            "userLabels": {"version": "1", "team-x": ""},
            "severity": self.dice.choice(("SEVERITY_UNSPECIFIED", "CRITICAL", "ERROR", "WARNING")),
        }
        odd = {
            "name": "projects/123/alertPolicies/456",
            "validity": {},
            "creationRecord": {
                "mutateTime": "2024-05-06T07:08:09.123456789Z",
                "mutatedBy": "someone@example.test",
            },
            "mutationRecord": {"mutateTime": "2024-05-06T07:08:09Z"},
            "documentation": {
                "content": "See ${resource.label.zone}: `x` — **now**\n\n1. Look.",
                "mimeType": "text/markdown",
                "subject": "${metric_or_resource.label.zone} is down",
                "links": [{"displayName": "Runbook", "url": "https://example.test/${project}"}],
            },
        }
        for name in self.dice.sample(list(odd), self.dice.randrange(len(odd) + 1)):
            body[name] = odd[name]
        if self.chance(0.1):
            del body["enabled"]
        return body


_MAPS = ("userLabels", "labels", "labelExtractors")


def snake(value: Any) -> Any:
    """The same JSON with the names that the proto has."""
    if isinstance(value, list):
        return [snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name): (
            item if name in _MAPS else snake(item)
        )
        for name, item in value.items()
    }


def objects(value: Any) -> Any:
    """The same JSON with durations as objects, as a page of Google's writes them."""
    if isinstance(value, list):
        return [objects(item) for item in value]
    if isinstance(value, dict):
        return {name: item if name in _MAPS else objects(item) for name, item in value.items()}
    found = re.fullmatch(r"(\d+)s", value) if isinstance(value, str) else None
    return {"seconds": found[1]} if found else value


def library(count: int) -> list[Sample]:
    """So many policies, each the same every time."""
    samples = []
    for number in range(count):
        maker = _Maker(number)
        body = maker.policy(number)
        samples.append(Sample(name=f"sample-{number}", body=body, metrics=maker.metrics))
    return samples
