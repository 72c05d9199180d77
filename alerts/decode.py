"""Cloud Monitoring's REST JSON becomes a Policy again, the opposite of `encode`. Pure.

What comes out compiles back to the identical policy in canonical form, or nothing comes out: each
condition is compared with what it was read from, and one that the language's own kinds cannot say
exactly is kept in the API's own form (`Verbatim`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from alerts.canonical import canonical_policy
from alerts.condition import (
    Absence,
    Aggregation,
    Aligner,
    Condition,
    LogMatch,
    MissingData,
    PromQL,
    Ratio,
    Reducer,
    Signal,
    Threshold,
    Trigger,
    Verbatim,
)
from alerts.encode import Json, condition_json, foreign_labels, policy_json
from alerts.metric import Metric, MetricRecord
from alerts.policy import (
    Catalog,
    Combiner,
    Documentation,
    Link,
    Policy,
    Prompt,
    Renotify,
    Severity,
)
from speakfit.engine.filters import All, Comparison, parse_filter
from speakfit.engine.objectives import parse_selector
from speakfit.engine.points import MetricKind, ValueType
from speakfit.engine.policies import EVALUATION_STEP, MAX_LABEL_CHARACTERS
from speakfit.engine.wire import parse_duration
from speakfit.errors import CatalogError, InvalidArgument

MetricLookup = Callable[[str], MetricRecord | None]
"""What is known of a metric type; None when nothing is."""
Told = Callable[[str], None]
"""Hears of every condition that is kept in the API's own form, and why."""

_ALWAYS_VERBATIM = frozenset({"conditionSql", "conditionMonitoringQueryLanguage"})
_SEVERITIES = {severity.value.upper(): severity for severity in Severity}
_FIELDS = frozenset(
    {
        "name", "displayName", "documentation", "userLabels", "conditions", "combiner", "enabled",
        "validity", "notificationChannels", "creationRecord", "mutationRecord", "alertStrategy",
        "severity",
    }
)  # fmt: skip


def metric_types(body: Mapping[str, Any]) -> set[str]:
    """The metric types that a policy in REST form reads, as far as its filters tell."""
    found: set[str] = set()
    for condition in body.get("conditions", ()):
        for kind in ("conditionThreshold", "conditionAbsent"):
            for name in ("filter", "denominatorFilter"):
                text = condition.get(kind, {}).get(name)
                if text:
                    try:
                        found |= parse_filter(text).metric_types or set()
                    except InvalidArgument:
                        # Told when the policy is read.
                        continue
    return found


def described_metric(descriptor: Mapping[str, Any]) -> Metric:
    """What a live descriptor in REST form tells of a metric."""
    return Metric(
        type=descriptor["type"],
        kind=MetricKind(descriptor["metricKind"]),
        value_type=ValueType(descriptor["valueType"]),
        unit=descriptor.get("unit", ""),
        description=descriptor.get("description", ""),
        labels=tuple(sorted(label["key"] for label in descriptor.get("labels", ()))),
    )


def slug(text: str) -> str:
    """A subject made of any text: lowercase words joined by '-', beginning with a letter."""
    words = "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "policy"
    if not words[0].isalpha():
        words = f"policy-{words}"
    # Room for the severity and for a number behind it.
    return words[: MAX_LABEL_CHARACTERS - len("-critical-999")].rstrip("-")


def free_subject(body: Mapping[str, Any], taken: Collection[str]) -> str:
    """A subject for a policy of somebody's, made of its display name, unlike those taken."""
    wanted = slug(str(body.get("displayName", "")))
    number, found = 1, wanted
    while found in taken:
        number += 1
        found = f"{wanted}-{number}"
    return found


def policy_of(
    body: Mapping[str, Any],
    *,
    subject: str,
    metric_of: MetricLookup = lambda _: None,
    told: Told = lambda _: None,
) -> Policy:
    """The Policy that an AlertPolicy in REST form is.

    Raises CatalogError, naming the field, for what the API itself would refuse and for what the
    language cannot say.
    """
    where = f"policy {body.get('displayName') or subject!r}"
    for name in body:
        if name not in _FIELDS:
            raise CatalogError(
                f"Its field {name!r} is not known.", where=where, todo="Take it out, or rename it."
            )
    try:
        policy = _policy(body, subject, metric_of, told)
    except InvalidArgument as error:
        raise CatalogError(
            error.what, where=where, todo="Correct the field it names; the API refuses it too."
        ) from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CatalogError(
            f"It cannot be read as an alert policy: {error}.",
            where=where,
            todo="Compare it with the AlertPolicy of the API's reference.",
        ) from error
    if not same(policy, body):
        raise CatalogError(
            "It would not compile back to the same policy.",
            where=where,
            todo="Keep it outside the catalog, and tell us: every policy should be expressible.",
        )
    return policy


def same(policy: Policy, body: Mapping[str, Any]) -> bool:
    """Whether a policy compiles to what was read, in canonical form, labels of ours apart."""
    nobody = Catalog(name="nobody", policies=(), routes=())
    compiled = policy_json(policy, nobody, runbook_base_url="")
    sides = [canonical_policy(side, {}) for side in (compiled, body)]
    for side in sides:
        side["userLabels"] = foreign_labels(side["userLabels"])
    return sides[0] == sides[1]


def _policy(body: Mapping[str, Any], subject: str, metric_of: MetricLookup, told: Told) -> Policy:
    documentation = body.get("documentation") or {}
    strategy = body.get("alertStrategy") or {}
    severity = _SEVERITIES.get(str(body.get("severity", "")))
    combiner = body.get("combiner")
    name = str(body.get("displayName", ""))
    suffix = f" ({severity})" if severity else ""
    titled = bool(suffix) and name.endswith(suffix) and name != suffix
    return Policy(
        subject=subject,
        severity=severity,
        title=name.removesuffix(suffix) if titled else name or subject,
        exact_display_name="" if titled or not severity else name,
        conditions=_conditions(body.get("conditions") or (), metric_of, told),
        guidance=Documentation(
            content=documentation.get("content", ""),
            subject=documentation.get("subject", ""),
            links=tuple(
                Link(display_name=link.get("displayName", ""), url=link.get("url", ""))
                for link in documentation.get("links") or ()
            ),
        ),
        combiner=None if combiner in (None, "COMBINE_UNSPECIFIED") else Combiner(combiner),
        auto_close=_duration(strategy, "autoClose"),
        channels=tuple(body.get("notificationChannels") or ()),
        labels=foreign_labels(body.get("userLabels") or {}),
        enabled=bool(body.get("enabled", True)),
        prompts=tuple(Prompt(one) for one in strategy.get("notificationPrompts") or ()),
        rate_limit=_duration(strategy.get("notificationRateLimit") or {}, "period"),
        renotify=tuple(
            Renotify(
                interval=_duration(one, "renotifyInterval") or timedelta(0),
                channels=tuple(one.get("notificationChannelNames") or ()),
            )
            for one in strategy.get("notificationChannelStrategy") or ()
        ),
    )


def _duration(body: Mapping[str, Any], name: str) -> timedelta | None:
    value = body.get(name)
    return None if value is None else parse_duration(value, field=name)


def _conditions(
    bodies: Sequence[Mapping[str, Any]], metric_of: MetricLookup, told: Told
) -> tuple[Condition, ...]:
    found: list[Condition] = []
    taken: set[str] = set()
    for number, body in enumerate(bodies, start=1):
        # Display names are not unique on the server, and may be empty; a key is neither.
        key = wanted = str(body.get("displayName") or f"condition {number}")
        while key in taken:
            key = f"{wanted} #{number}"
            number += 1
        taken.add(key)
        found.append(_condition(body, key, metric_of, told))
    return tuple(found)


def _condition(body: Mapping[str, Any], key: str, metric_of: MetricLookup, told: Told) -> Condition:
    kinds = {name: value for name, value in body.items() if name not in ("name", "displayName")}
    verbatim = Verbatim(key=key, body=kinds)
    kind, inner = next(iter(kinds.items()))
    if kind in _ALWAYS_VERBATIM:
        return verbatim
    try:
        condition = _spoken(kind, inner, key, metric_of)
    except CatalogError as error:
        # Whatever the language refuses, Cloud Monitoring may have accepted: it is kept as it is.
        told(f"{key}: {error.what} {error.todo}")
        return verbatim
    except (InvalidArgument, KeyError, ValueError, TypeError, AttributeError) as error:
        told(f"{key}: {error}")
        return verbatim
    if _canonical(condition) == _canonical(verbatim):
        return condition
    told(f"{key}: it says more than the language can.")
    return verbatim


def _canonical(condition: Condition) -> Json:
    found: Json = canonical_policy({"conditions": [condition_json(condition)]}, {})["conditions"]
    return found


def _spoken(kind: str, body: Mapping[str, Any], key: str, metric_of: MetricLookup) -> Condition:
    """A condition in the language's own words; any error means that it has none for it."""
    if kind == "conditionPrometheusQueryLanguage":
        return PromQL(
            key=key,
            query=body["query"],
            duration=_duration(body, "duration") or timedelta(0),
            interval=_duration(body, "evaluationInterval") or EVALUATION_STEP,
            labels=body.get("labels") or {},
            rule_group=body.get("ruleGroup", ""),
            alert_rule=body.get("alertRule", ""),
            disable_metric_validation=body.get("disableMetricValidation", False),
        )
    if kind == "conditionMatchedLog":
        return LogMatch(
            key=key, filter=body["filter"], label_extractors=body.get("labelExtractors") or {}
        )
    signal = _signal(body["filter"], metric_of)
    steps = [_aggregation(step) for step in body.get("aggregations") or ()]
    first = steps[0] if steps else None
    duration = _duration(body, "duration") or timedelta(0)
    trigger = _trigger(body.get("trigger") or {})
    if kind == "conditionAbsent":
        return Absence(
            key=key, signal=signal, aggregation=first, duration=duration, trigger=trigger
        )
    if kind != "conditionThreshold":
        raise KeyError(kind)
    missing = body.get("evaluationMissingData")
    shared: dict[str, Any] = {
        "key": key,
        "signal": signal,
        "duration": duration,
        "trigger": trigger,
        "missing_data": None
        if missing in (None, "EVALUATION_MISSING_DATA_UNSPECIFIED")
        else MissingData(missing),
        # A threshold of zero is left out on the wire.
        {"COMPARISON_GT": "above", "COMPARISON_LT": "below"}[body["comparison"]]: float(
            body.get("thresholdValue", 0)
        ),
    }
    if body.get("denominatorFilter"):
        (above,) = steps
        (below,) = (_aggregation(step) for step in body.get("denominatorAggregations") or ())
        return Ratio(
            denominator=_signal(body["denominatorFilter"], metric_of),
            aggregation=above,
            denominator_aggregation=None if below == above else below,
            **shared,
        )
    return Threshold(
        aggregation=first,
        then=tuple(steps[1:]),
        forecast=_duration(body.get("forecastOptions") or {}, "forecastHorizon"),
        **shared,
    )


def _trigger(body: Mapping[str, Any]) -> Trigger:
    if "percent" in body:
        return Trigger(percent=float(body["percent"]))
    return Trigger(count=int(body.get("count", 1)))


def _aggregation(body: Mapping[str, Any]) -> Aggregation:
    return Aggregation(
        aligner=Aligner(body.get("perSeriesAligner", "ALIGN_NONE")),
        period=_duration(body, "alignmentPeriod") or timedelta(0),
        reducer=Reducer(body.get("crossSeriesReducer", "REDUCE_NONE")),
        group_by=tuple(
            re.sub(r"^metric\.labels?\.", "", str(field))
            for field in body.get("groupByFields") or ()
        ),
    )


def _signal(text: str, metric_of: MetricLookup) -> Signal:
    """A filter as metric, resource and labels where equality says it, the rest as it is."""
    if parse_selector(text, field="filter") is not None:
        return Signal(where=text)
    expression = parse_filter(text).expression
    terms = expression.operands if isinstance(expression, All) else (expression,)
    equal: dict[tuple[str, ...], str] = {}
    rest: list[str] = []
    for term in terms:
        if (
            isinstance(term, Comparison)
            and term.operator == "="
            and isinstance(term.value, str)
            and term.path[0] in ("metric", "resource")
            and term.path not in equal
        ):
            equal[term.path] = term.value
        else:
            rest.append(str(term) if isinstance(term, Comparison) else f"({term})")
    metric_type = equal.pop(("metric", "type"), None)
    if metric_type is None:
        return Signal(where=text)
    return Signal(
        metric=metric_of(metric_type) or Metric(type=metric_type),
        resource_type=equal.pop(("resource", "type"), ""),
        labels={path[-1]: value for path, value in equal.items() if path[0] == "metric"},
        resource_labels={path[-1]: value for path, value in equal.items() if path[0] == "resource"},
        where=" AND ".join(rest),
    )
