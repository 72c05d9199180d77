"""The one form that policies and channels are compared and hashed in. Pure.

Whatever means the same to Cloud Monitoring has the same form here: filters as syntax trees,
defaults of the server filled in, output-only fields dropped, lists without an order sorted. So a
plan after an apply is empty, whoever wrote the policy: our encoder, the console or gcloud.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from alerts.channel import ChannelType
from alerts.encode import SPEC_HASH, Json
from speakfit.engine.filters import canonical_filter
from speakfit.errors import InvalidArgument

_OUTPUT_ONLY = frozenset({"name", "creationRecord", "mutationRecord", "validity"})
_MAPS = frozenset({"userLabels", "labels", "labelExtractors"})
"""Fields whose keys are somebody's own words, not fields of the API."""
_PRESENT = frozenset(
    {
        "conditionThreshold", "conditionAbsent", "conditionMatchedLog", "conditionSql",
        "conditionMonitoringQueryLanguage", "conditionPrometheusQueryLanguage",
        "minutes", "hourly", "daily", "rowCountTest", "booleanTest",
    }
)  # fmt: skip
"""Members of a oneof: being there says something even when they are empty."""
_DURATIONS = frozenset(
    {
        "duration", "alignmentPeriod", "autoClose", "forecastHorizon", "evaluationInterval",
        "renotifyInterval", "period",
    }
)  # fmt: skip
_ENUMS = frozenset(
    {
        "combiner", "severity", "comparison", "evaluationMissingData", "perSeriesAligner",
        "crossSeriesReducer",
    }
)  # fmt: skip
_LABEL_PATH = re.compile(
    r'(metric|resource|metadata)\.(user_|system_)?labels?\.(?:"([^"]*)"|(.+))', re.DOTALL
)


def canonical_policy(policy: Mapping[str, Any], channels: Mapping[str, str]) -> Json:
    """A policy in REST JSON, camelCase or snake_case, in the form that policies are compared in.

    `channels` maps the server's names of our channels to their ids. Conditions become a mapping
    by display name. The spec-hash label is left out: it is the hash of this form.
    """
    body: Json = _plain(policy)
    for key in _OUTPUT_ONLY:
        body.pop(key, None)
    numbers = {last_part(name): identity for name, identity in channels.items()}
    body["enabled"] = bool(body.get("enabled", True))
    labels = dict(body.get("userLabels", {}))
    labels.pop(SPEC_HASH, None)
    body["userLabels"] = labels
    body["notificationChannels"] = _channel_ids(body.get("notificationChannels", ()), numbers)
    documentation = body.pop("documentation", {})
    if documentation.keys() - {"mimeType"}:
        body["documentation"] = {"mimeType": "text/markdown", **documentation}
    listed = body.pop("conditions", ())
    logs = any("conditionMatchedLog" in condition for condition in listed)
    body["alertStrategy"] = _strategy(body.get("alertStrategy", {}), numbers, logs=logs)
    conditions: Json = {}
    for condition in listed:
        key = free_key(condition.get("displayName", ""), conditions)
        conditions[key] = _condition(condition)
    body["conditions"] = conditions
    return body


def canonical_channel(channel: Mapping[str, Any], *, has_secret: bool) -> Json:
    """A channel without the label that holds its secret, which comes back obfuscated."""
    labels = channel.get("labels", {})
    try:
        plain = ChannelType(channel.get("type", "")).plain_labels(has_secret=has_secret)
    except ValueError:
        # A type that is not known here has no label that may be shown.
        plain = ()
    return {
        "labels": {label: labels[label] for label in plain if label in labels},
        "displayName": channel.get("displayName", ""),
        "description": channel.get("description", ""),
        "userLabels": dict(channel.get("userLabels", {})),
        "enabled": bool(channel.get("enabled", True)),
    }


def _plain(value: Any, field: str = "") -> Any:
    """JSON as protobuf would write it back: camelCase, nothing that is unset, exact durations."""
    if isinstance(value, Mapping):
        if field in _MAPS:
            return dict(value)
        found: Json = {}
        for key, inner in value.items():
            name = _camel(key)
            plain = _plain(inner, name)
            if plain not in (None, "", [], {}) or (plain == {} and name in _PRESENT):
                found[name] = plain
        return found
    if isinstance(value, list | tuple):
        return [_plain(inner, field) for inner in value]
    if isinstance(value, str):
        if field in _DURATIONS:
            return _duration(value)
        if field in _ENUMS and (
            value in ("ALIGN_NONE", "REDUCE_NONE") or value.endswith("_UNSPECIFIED")
        ):
            return None
    return value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _duration(text: str) -> str:
    """`300.000s` is `300s`, `0.500s` is `0.5s`; what is no duration stays as it is."""
    try:
        seconds = Decimal(text.removesuffix("s"))
    except InvalidOperation:
        return text
    if not text.endswith("s") or not seconds.is_finite():
        return text
    shown = f"{seconds:f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) + "s"


def last_part(name: str) -> str:
    """The last part of a channel's name: a project is written by its id or by its number."""
    return name.rpartition("/")[2]


def _channel_ids(names: Any, numbers: Mapping[str, str]) -> list[str]:
    return sorted({numbers.get(last_part(name), name) for name in names})


def _strategy(strategy: Mapping[str, Any], numbers: Mapping[str, str], *, logs: bool) -> Json:
    # Seven days is what an incident without data stays open unless told otherwise; opening and
    # closing are both told unless the policy reads logs (magic-modules #12052).
    prompts = strategy.get("notificationPrompts") or (["OPENED"] if logs else ["OPENED", "CLOSED"])
    body: Json = {"autoClose": "604800s", **strategy, "notificationPrompts": sorted(set(prompts))}
    if "notificationChannelStrategy" in body:
        body["notificationChannelStrategy"] = sorted(
            (
                {
                    **one,
                    "notificationChannelNames": _channel_ids(
                        one.get("notificationChannelNames", ()), numbers
                    ),
                }
                for one in body["notificationChannelStrategy"]
            ),
            key=repr,
        )
    return body


def free_key(key: str, taken: Mapping[str, Any]) -> str:
    """Display names are not unique on the server: the second of a name becomes `NAME #2`."""
    if key not in taken:
        return key
    number = 2
    while f"{key} #{number}" in taken:
        number += 1
    return f"{key} #{number}"


def _condition(condition: Mapping[str, Any]) -> Json:
    return {
        kind: _BODIES[kind](body) if kind in _BODIES else body
        for kind, body in condition.items()
        if kind not in ("name", "displayName")
    }


def _absence(body: Mapping[str, Any]) -> Json:
    found: Json = {"duration": "0s", "trigger": {"count": 1}, **body}
    for key in ("filter", "denominatorFilter"):
        if key in found:
            found[key] = comparable_filter(found[key])
    for key in ("aggregations", "denominatorAggregations"):
        if key in found:
            found[key] = [_aggregation(one) for one in found[key]]
    return found


def _threshold(body: Mapping[str, Any]) -> Json:
    found = _absence(body)
    found["thresholdValue"] = float(found.get("thresholdValue", 0.0))
    # Unspecified means the same as no-op (AlertPolicy proto).
    found.setdefault("evaluationMissingData", "EVALUATION_MISSING_DATA_NO_OP")
    return found


def _mql(body: Mapping[str, Any]) -> Json:
    return {
        "duration": "0s",
        "trigger": {"count": 1},
        "evaluationMissingData": "EVALUATION_MISSING_DATA_NO_OP",
        **body,
    }


def _promql(body: Mapping[str, Any]) -> Json:
    found = {"duration": "0s", "evaluationInterval": "30s", **body}
    if not found.get("disableMetricValidation", False):
        found.pop("disableMetricValidation", None)
    return found


def _sql(body: Mapping[str, Any]) -> Json:
    """Whole numbers of 64 bits come as text, and zeros do not come at all."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            found = {key: plain(inner) for key, inner in value.items()}
            return {key: inner for key, inner in found.items() if inner not in (0, {})}
        return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value

    return {
        key: plain(value) if isinstance(value, Mapping) else value for key, value in body.items()
    }


_BODIES = {
    "conditionThreshold": _threshold,
    "conditionAbsent": _absence,
    "conditionMonitoringQueryLanguage": _mql,
    "conditionPrometheusQueryLanguage": _promql,
    "conditionSql": _sql,
}
"""A log match is compared as it is written."""


def comparable_filter(text: str) -> str:
    """A filter in the form in which two that differ in spelling only are equal."""
    try:
        return canonical_filter(text)
    except InvalidArgument:
        # A live filter that our grammar does not know is compared as it is written.
        return text


def _aggregation(aggregation: Mapping[str, Any]) -> Json:
    body = dict(aggregation)
    if "groupByFields" in body:
        body["groupByFields"] = sorted({label_path(path) for path in body["groupByFields"]})
    return body


def label_path(path: str) -> str:
    """`metric.label.k`, `metric.labels."k"` and `metric.labels.k` are one label."""
    found = _LABEL_PATH.fullmatch(path)
    if found is None:
        return path
    owner, scope, quoted, bare = found.groups()
    return f"{owner}.{scope or ''}labels.{quoted if quoted is not None else bare}"
