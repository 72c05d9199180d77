"""Policies in the forms that other tools read: JSON and YAML of the API, Terraform, Config
Connector, and Prometheus rules where an exact twin exists. Pure.

The labels that make a policy ours stay out: whoever exports it hands it to another keeper. A
channel's name on the server is known only to `apply`, so each form refers to channels the way its
tool does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from alerts.condition import (
    Aggregation,
    Aligner,
    Condition,
    MissingData,
    PromQL,
    Reducer,
    Signal,
    Threshold,
)
from alerts.encode import (
    CHANNEL_PREFIX,
    Json,
    foreign_labels,
    policy_json,
    with_channel_names,
)
from alerts.policy import Catalog, Channel, Documentation, Policy
from speakfit.engine.filters import All, Comparison, parse_filter
from speakfit.engine.wire import print_duration


class NoTwinError(Exception):
    """A condition has no exact equal in Prometheus; the text says why."""


def compiled(policy: Policy, catalog: Catalog, *, runbook_base_url: str) -> Json:
    """A policy in REST form; a channel is `${CHANNEL_ID}`, as in Google's published samples."""
    body = policy_json(policy, catalog, runbook_base_url=runbook_base_url)
    names = {
        CHANNEL_PREFIX + channel.id: f"${{CHANNEL_{_word(channel.id).upper()}}}"
        for channel in catalog.channels
    }
    found = with_channel_names(body, names)
    found["userLabels"] = foreign_labels(body["userLabels"])
    return {name: value for name, value in found.items() if value != {}}


def _word(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def as_json(bodies: Sequence[Json]) -> str:
    """One policy, or a list call's answer when there are several."""
    found: Any = bodies[0] if len(bodies) == 1 else {"alertPolicies": list(bodies)}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def as_yaml(bodies: Iterable[Json]) -> str:
    """One document a policy."""
    return "---\n".join(_yaml(body) for body in bodies)


def _yaml(value: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks, and lists indented like a person would."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    written: str = yaml.dump(
        value,
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
    return written


# Terraform

_MAPS = frozenset({"userLabels", "labels", "labelExtractors"})
"""Attributes that are maps; every other object is a block."""


def as_terraform(policies: Sequence[tuple[Policy, Json]], channels: Iterable[Channel]) -> str:
    """`google_monitoring_alert_policy` resources, and data sources for the channels they tell.

    The attributes are the provider's, which are the API's fields in snake_case.
    """
    told = json.dumps([body for _, body in policies])
    parts = [
        f'data "google_monitoring_notification_channel" "{_word(channel.id)}" {{\n'
        f"  display_name = {_hcl_text(channel.display_name)}\n"
        f"  type         = {_hcl_text(channel.type)}\n}}\n"
        for channel in channels
        if f"${{CHANNEL_{_word(channel.id).upper()}}}" in told
    ]
    for policy, body in policies:
        lines = _hcl_block(body, 1)
        head = f'resource "google_monitoring_alert_policy" "{_word(policy.id)}" {{\n'
        parts.append(head + "".join(f"{line}\n" for line in lines) + "}\n")
    return "\n".join(parts)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def _hcl_block(body: Mapping[str, Any], depth: int) -> list[str]:
    indent = "  " * depth
    lines: list[str] = []
    plain = {name: value for name, value in body.items() if not _is_block(name, value)}
    lines += _hcl_attributes({_snake(name): value for name, value in plain.items()}, depth)
    for name, value in body.items():
        if name in plain:
            continue
        for block in value if isinstance(value, list) else [value]:
            inner = _hcl_block(block, depth + 1)
            if lines:
                lines.append("")
            lines += [f"{indent}{_snake(name)} {{", *inner, f"{indent}}}"]
    return lines


def _is_block(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, Mapping) and name not in _MAPS


def _hcl_attributes(body: Mapping[str, Any], depth: int) -> list[str]:
    """Attributes as `terraform fmt` lays them out: the `=` of neighbours stand below each other."""
    indent = "  " * depth
    written = [(name, _hcl(value, depth)) for name, value in body.items()]
    lines: list[str] = []
    for several, group in groupby(written, key=lambda one: "\n" in one[1]):
        found = list(group)
        width = 0 if several else max(len(name) for name, _ in found)
        lines += [f"{indent}{name:<{width}} = {text}" for name, text in found]
    return lines


def _hcl(value: Any, depth: int) -> str:
    if isinstance(value, Mapping):
        items = _hcl_attributes({_hcl_text(key): part for key, part in value.items()}, depth + 1)
        return "\n".join(["{", *items, "  " * depth + "}"])
    if isinstance(value, list):
        return "[" + ", ".join(_hcl(part, depth) for part in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        reference = re.fullmatch(r"\$\{CHANNEL_(\w+)\}", value)
        if reference:
            return f"data.google_monitoring_notification_channel.{reference[1].lower()}.name"
        if "\n" in value:
            # A heredoc always ends with a new line; joined lines are exact, and differ by line.
            inner = "  " * (depth + 1)
            joined = "".join(f"{inner}{_hcl_text(line)},\n" for line in value.split("\n"))
            return 'join("\\n", [\n' + joined + "  " * depth + "])"
        return _hcl_text(value)
    return json.dumps(value)


def _hcl_text(text: str) -> str:
    """A quoted template without any template in it."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


# Config Connector


def as_config_connector(policies: Iterable[tuple[Policy, Json]]) -> str:
    """`MonitoringAlertPolicy` resources; channels are referred to by their Kubernetes name.

    User labels are the resource's own labels, as Config Connector has it.
    """
    documents = []
    for policy, body in policies:
        spec = dict(body)
        labels = spec.pop("userLabels", {})
        spec["notificationChannels"] = [_reference(one) for one in body["notificationChannels"]]
        strategy = spec.get("alertStrategy", {})
        if "notificationChannelStrategy" in strategy:
            repeats = [
                {
                    **one,
                    "notificationChannelNames": [
                        _reference(name) for name in one["notificationChannelNames"]
                    ],
                }
                for one in strategy["notificationChannelStrategy"]
            ]
            spec["alertStrategy"] = {**strategy, "notificationChannelStrategy": repeats}
        documents.append(
            {
                "apiVersion": "monitoring.cnrm.cloud.google.com/v1beta1",
                "kind": "MonitoringAlertPolicy",
                "metadata": {"name": policy.id, **({"labels": labels} if labels else {})},
                "spec": spec,
            }
        )
    return as_yaml(documents)


def _reference(name: str) -> Json:
    channel = re.fullmatch(r"\$\{CHANNEL_(\w+)\}", name)
    if channel:
        return {"name": channel[1].lower().replace("_", "-")}
    return {"external": name}


# Prometheus

_OVER_TIME = {
    Aligner.ALIGN_MIN: "min_over_time",
    Aligner.ALIGN_MAX: "max_over_time",
    Aligner.ALIGN_MEAN: "avg_over_time",
    Aligner.ALIGN_SUM: "sum_over_time",
    Aligner.ALIGN_COUNT: "count_over_time",
    Aligner.ALIGN_STDDEV: "stddev_over_time",
}
_ACROSS = {
    Reducer.REDUCE_MIN: "min",
    Reducer.REDUCE_MAX: "max",
    Reducer.REDUCE_MEAN: "avg",
    Reducer.REDUCE_SUM: "sum",
    Reducer.REDUCE_COUNT: "count",
    Reducer.REDUCE_STDDEV: "stddev",
}


def as_prometheus(policies: Iterable[Policy], *, name: str) -> tuple[str, list[tuple[str, str]]]:
    """One alerting rule for each condition that has an exact twin, and why the others have none.

    Metrics are named as PromQL names them in Cloud Monitoring (the first `/` becomes `:`, all else
    that is special `_`; cloud.google.com/monitoring/promql/promql-mapping), so that Managed Service
    for Prometheus evaluates the rules as they are.
    """
    rules: list[Json] = []
    refused: list[tuple[str, str]] = []
    for policy in policies:
        try:
            if policy.needs_all and len(policy.conditions) > 1:
                raise NoTwinError("its conditions are joined by AND, whose lines need not match")
            rules += [_rule(policy, condition) for condition in policy.conditions]
        except NoTwinError as error:
            refused.append((policy.id, str(error)))
    groups = [{"name": name, "interval": "60s", "rules": rules}] if rules else []
    return _yaml({"groups": groups}), refused


def _rule(policy: Policy, condition: Condition) -> Json:
    if isinstance(condition, PromQL):
        expression = condition.query
    elif isinstance(condition, Threshold):
        expression = _expression(condition)
    else:
        raise NoTwinError(f"{condition.key}: {type(condition).__name__} has no equal")
    rule: Json = {
        "alert": "".join(word.capitalize() for word in policy.id.split("-")),
        "expr": expression,
        "for": print_duration(condition.duration),
    }
    labels = {"severity": str(policy.severity)} if policy.severity else {}
    if isinstance(condition, PromQL):
        labels |= condition.labels
    if labels:
        rule["labels"] = labels
    rule["annotations"] = {"summary": policy.title, "description": _description(policy)}
    return rule


def _description(policy: Policy) -> str:
    found = policy.guidance
    return found.content if isinstance(found, Documentation) else found.meaning


def _expression(condition: Threshold) -> str:
    key = condition.key
    if condition.then or condition.forecast or condition.aggregation is None:
        raise NoTwinError(f"{key}: several aggregations, a forecast, or none")
    if condition.trigger.percent is not None or condition.trigger.count > 1:
        raise NoTwinError(f"{key}: a trigger of more than one series")
    if condition.missing_data is not MissingData.CLOSES:
        raise NoTwinError(f"{key}: without data Prometheus closes, and this condition does not")
    metric = condition.signal.metric
    if metric is None or metric.kind != "GAUGE" or metric.value_type not in ("INT64", "DOUBLE"):
        raise NoTwinError(
            f"{key}: only gauges of numbers are read alike (counters are extrapolated)"
        )
    step = condition.aggregation
    if step.aligner not in _OVER_TIME:
        raise NoTwinError(f"{key}: {step.aligner} has no equal")
    window = f"{_selector(condition.signal, key)}[{print_duration(step.period)}]"
    line = f"{_OVER_TIME[step.aligner]}({window})"
    if step.reducer is not Reducer.REDUCE_NONE:
        if step.reducer not in _ACROSS:
            raise NoTwinError(f"{key}: {step.reducer} has no equal")
        line = f"{_ACROSS[step.reducer]}{_by(step, condition.signal, key)}({line})"
    limit = condition.above if condition.above is not None else condition.below
    return f"{line} {'>' if condition.above is not None else '<'} {limit:.12g}"


def _by(step: Aggregation, signal: Signal, key: str) -> str:
    labels = ["monitored_resource"]
    for field in step.fields(signal.metric):
        expression = parse_filter(f'{field} = ""').expression
        assert isinstance(expression, Comparison)
        labels.append(_label(expression.path, key))
    # resource.type is always one of the groups (common.proto, Aggregation).
    return f" by ({', '.join(labels)}) "


def _label(path: tuple[str, ...], key: str) -> str:
    if path[0] == "metadata" or not re.fullmatch(r"[A-Za-z_]\w*", path[-1]):
        raise NoTwinError(f"{key}: the label {'.'.join(path)} has no name in PromQL")
    return "monitored_resource" if path == ("resource", "type") else path[-1]


def _selector(signal: Signal, key: str) -> str:
    expression = parse_filter(signal.filter).expression
    terms = expression.operands if isinstance(expression, All) else (expression,)
    matchers, name = [], ""
    for term in terms:
        if not isinstance(term, Comparison) or term.operator not in ("=", "!="):
            raise NoTwinError(f"{key}: its filter says more than label matchers can")
        if term.path == ("metric", "type"):
            name = promql_name(str(term.value))
        elif isinstance(term.value, str):
            matchers.append(f"{_label(term.path, key)}{term.operator}{json.dumps(term.value)}")
        else:
            raise NoTwinError(f"{key}: its filter says more than label matchers can")
    return f"{name}{{{', '.join(sorted(matchers))}}}"


def promql_name(metric_type: str) -> str:
    """The name that PromQL has for a metric in Cloud Monitoring."""
    domain, _, path = metric_type.partition("/")
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', domain)}:{re.sub(r'[^A-Za-z0-9_]', '_', path)}"
