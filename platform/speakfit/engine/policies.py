"""Alert policies: read from REST JSON form, with every rule of the API and its words.

The limits are those of facts §1, the texts those of facts §3. What is not understood is refused,
never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from speakfit.engine.align import Aligner
from speakfit.engine.conditions import (
    AbsenceCondition,
    Condition,
    ConditionKind,
    MissingData,
    Operator,
    ThresholdCondition,
    Trigger,
    UnevaluatedCondition,
)
from speakfit.engine.filters import MAX_FILTER_LENGTH, Filter, parse_filter
from speakfit.engine.objectives import (
    BURN_RATE,
    BurnRate,
    Objective,
    ObjectiveLookup,
    Selector,
    parse_selector,
)
from speakfit.engine.points import Descriptor, ValueType
from speakfit.engine.reduce import Aggregation, Reducer, aggregated_type, parse_aggregation
from speakfit.engine.wire import (
    camel,
    parse_bool,
    parse_duration,
    parse_enum,
    parse_integer,
    parse_list,
    parse_number,
    parse_object,
    parse_text,
)
from speakfit.errors import InvalidArgument, NotFound

DescriptorLookup = Callable[[str], Descriptor | None]
"""Kind and value type of a metric type; None when no such metric exists."""

MINUTE = timedelta(minutes=1)
MAX_CONDITIONS = 6
MAX_CHANNELS = 16
MAX_DISPLAY_NAME = 512
MAX_CONTENT_CHARACTERS = 8_192
MAX_CONTENT_BYTES = 10_240
MAX_SUBJECT_BYTES = 10_240
MAX_LINKS = 3
MAX_LINK_NAME = 63
MAX_LINK_URL = 2_083
MAX_USER_LABELS = 64
MAX_LABEL_CHARACTERS = 63
MAX_LABEL_BYTES = 128
MIN_ABSENCE = timedelta(seconds=120)
MAX_ABSENCE = timedelta(hours=23, minutes=30)
MIN_AUTO_CLOSE = timedelta(minutes=30)
MAX_AUTO_CLOSE = timedelta(days=7)
DEFAULT_AUTO_CLOSE = timedelta(days=7)
EVALUATION_STEP = timedelta(seconds=30)
MIN_HORIZON, MAX_HORIZON = timedelta(hours=1), timedelta(hours=60)
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]*")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]*")
_PREFIX = "alert_policy"
_RESOURCES_PAGE = "https://cloud.google.com/monitoring/api/resources"


class Combiner(StrEnum):
    """google.monitoring.v3.AlertPolicy.ConditionCombinerType."""

    UNSPECIFIED = "COMBINE_UNSPECIFIED"
    AND = "AND"
    OR = "OR"
    AND_WITH_MATCHING_RESOURCE = "AND_WITH_MATCHING_RESOURCE"


class Severity(StrEnum):
    """google.monitoring.v3.AlertPolicy.Severity."""

    SEVERITY_UNSPECIFIED = "SEVERITY_UNSPECIFIED"
    CRITICAL = "CRITICAL"
    ERROR = "ERROR"
    WARNING = "WARNING"


class Prompt(StrEnum):
    """What a channel is told about (AlertStrategy.NotificationPrompt)."""

    NOTIFICATION_PROMPT_UNSPECIFIED = "NOTIFICATION_PROMPT_UNSPECIFIED"
    OPENED = "OPENED"
    CLOSED = "CLOSED"


class _Comparison(StrEnum):
    COMPARISON_UNSPECIFIED = "COMPARISON_UNSPECIFIED"
    COMPARISON_GT = "COMPARISON_GT"
    COMPARISON_GE = "COMPARISON_GE"
    COMPARISON_LT = "COMPARISON_LT"
    COMPARISON_LE = "COMPARISON_LE"
    COMPARISON_EQ = "COMPARISON_EQ"
    COMPARISON_NE = "COMPARISON_NE"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link of the documentation; channels show it by name."""

    display_name: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Documentation:
    """What a notification carries; content and subject may hold ${variables}."""

    content: str = ""
    mime_type: str = ""
    subject: str = ""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Renotification:
    """Repeats of a notification on some channels while an incident stays open."""

    channels: tuple[str, ...]
    interval: timedelta


@dataclass(frozen=True, kw_only=True)
class AlertPolicySpec:
    """A valid alert policy, ready to be evaluated."""

    name: str
    display_name: str
    documentation: Documentation
    user_labels: Mapping[str, str]
    conditions: tuple[Condition, ...]
    combiner: Combiner
    enabled: bool
    severity: Severity
    notification_channels: tuple[str, ...]
    auto_close: timedelta
    prompts: tuple[Prompt, ...]
    rate_limit: timedelta | None
    renotifications: tuple[Renotification, ...]

    @property
    def evaluated(self) -> bool:
        """Whether every condition is evaluated here; if not, silence says nothing."""
        return all(condition.evaluated for condition in self.conditions)

    @property
    def metric_types(self) -> frozenset[str]:
        """Metric types whose series an evaluation reads."""
        found: set[str] = set()
        for condition in self.conditions:
            if isinstance(condition, UnevaluatedCondition):
                continue
            found |= condition.filter.metric_types or set()
            if isinstance(condition, ThresholdCondition) and condition.denominator_filter:
                found |= condition.denominator_filter.metric_types or set()
        return frozenset(found)

    @property
    def lookback(self) -> timedelta:
        """How much history an evaluation reads; cumulative series need one older point too."""
        reach = MINUTE
        for condition in self.conditions:
            if isinstance(condition, UnevaluatedCondition):
                continue
            steps = [condition.aggregations]
            if isinstance(condition, ThresholdCondition):
                steps.append(condition.denominator_aggregations)
            for aggregations in steps:
                length = timedelta(0)
                for step in aggregations:
                    length += step.alignment_period
                    if step.aligner is Aligner.ALIGN_PERCENT_CHANGE:
                        length += 10 * MINUTE
                reach = max(reach, length)
            if isinstance(condition, AbsenceCondition):
                reach = max(reach, condition.duration)
        return reach + 5 * MINUTE


def _wrong(field: str, value: object, rule: str, *, where: str = "") -> InvalidArgument:
    return InvalidArgument.of_field(field, value, rule, where=where)


def _minutes(value: object, *, field: str) -> timedelta:
    length = parse_duration("0s" if value is None else value, field=field)
    if length < timedelta(0):
        raise _wrong(field, value, "durations must not be negative")
    if length % MINUTE:
        raise _wrong(field, value, "only multiples of 1 minute are supported")
    return length


def _in_text_format(value: object, *, field: str) -> str:
    """A duration as protobuf's text format writes it, which some refusals show: `seconds: 600`."""
    length = parse_duration(value, field=field)
    seconds, rest = divmod(length, timedelta(seconds=1))
    nanos = rest // timedelta(microseconds=1) * 1_000
    parts = (("seconds", seconds), ("nanos", nanos))
    return " ".join(f"{name}: {number}" for name, number in parts if number)


def _missing_data(body: Mapping[str, Any], *, field: str, duration: timedelta) -> MissingData:
    missing = parse_enum(
        MissingData, body.get("evaluationMissingData"), field=f"{field}.evaluation_missing_data"
    )
    if missing is not MissingData.UNSPECIFIED and duration < MINUTE:
        raise _wrong(
            f"{field}.evaluation_missing_data",
            missing,
            "Conditions setting evaluation_missing_data must have a non-zero duration.",
        )
    return missing


def _metric_filter(
    value: object,
    *,
    field: str,
    descriptors: DescriptorLookup,
    resource_types: Collection[str] | None,
    needs_resource: bool,
) -> tuple[Filter, list[Descriptor]]:
    """A filter that names metrics that exist; with the descriptors it names."""
    text = parse_text(value, field=field)
    parsed = parse_filter(text, field=field)
    if not parsed.metric_types:
        raise _wrong(field, text, 'must specify a restriction on "metric.type" in the filter')
    if (
        needs_resource
        and not parsed.mentions("resource", "type")
        and not parsed.mentions("group", "id")
    ):
        raise _wrong(
            field,
            text,
            f'must specify a restriction on "resource.type" in the filter; see "{_RESOURCES_PAGE}" '
            "for a list of available resource types.",
        )
    if resource_types is not None:
        for name in sorted(parsed.resource_types or ()):
            if name not in resource_types:
                raise _wrong(field, text, f"The filter contains unknown resource type: {name}")
    found = []
    for name in sorted(parsed.metric_types):
        descriptor = descriptors(name)
        if descriptor is None:
            raise NotFound(
                f'Cannot find metric(s) that match type = "{name}". If a metric was created '
                "recently, it could take up to 10 minutes to become available. Please try again "
                "soon."
            )
        found.append(descriptor)
    return parsed, found


def _aggregations(
    value: object, *, field: str, descriptors: Collection[Descriptor], numeric: bool
) -> tuple[Aggregation, ...]:
    """Aggregation steps that fit every metric the filter names."""
    steps = tuple(
        parse_aggregation(mapping, field=f"{field}[{index}]")
        for index, mapping in enumerate(parse_list(value, field=field))
    )
    for descriptor in descriptors:
        _kind, value_type = aggregated_type(
            steps, descriptor.kind, descriptor.value_type, field=field
        )
        if numeric and value_type in (ValueType.DISTRIBUTION, ValueType.STRING):
            raise _wrong(
                field,
                value_type,
                "The aggregations must produce numbers to compare to a threshold.",
            )
    return steps


def _trigger(value: object, *, field: str) -> Trigger:
    mapping = parse_object(value, field=field, known={"count", "percent"})
    if "count" in mapping and "percent" in mapping:
        raise InvalidArgument(
            f"Invalid value at '{field}' (oneof), oneof field 'type' is already set. "
            "Cannot set 'percent'"
        )
    if "percent" in mapping:
        percent = parse_number(mapping["percent"], field=f"{field}.percent")
        if not 0 < percent <= 100:
            raise _wrong(f"{field}.percent", percent, "must be above 0 and at most 100")
        return Trigger(percent=percent)
    count = parse_integer(mapping.get("count", 1), field=f"{field}.count")
    if count < 0:
        raise _wrong(f"{field}.count", count, "must not be negative")
    return Trigger(count=max(count, 1))


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """What a threshold condition compares."""

    filter: Filter
    aggregations: tuple[Aggregation, ...]
    denominator_filter: Filter | None
    denominator_aggregations: tuple[Aggregation, ...]
    burn_rate: BurnRate | None = None


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the conditions of one policy with the same lookups."""

    descriptors: DescriptorLookup
    resource_types: Collection[str] | None
    objectives: ObjectiveLookup

    def threshold(
        self, body: Mapping[str, Any], *, field: str, name: str, display_name: str
    ) -> Condition:
        body = parse_object(
            body,
            field=field,
            known={
                "filter", "aggregations", "denominatorFilter", "denominatorAggregations",
                "forecastOptions", "comparison", "thresholdValue", "duration", "trigger",
                "evaluationMissingData",
            },
        )  # fmt: skip
        measure = self._measure(body, field=field)
        comparison = parse_enum(_Comparison, body.get("comparison"), field=f"{field}.comparison")
        if comparison.value not in (Operator.GT, Operator.LT):
            raise _wrong(
                f"{field}.comparison",
                comparison,
                "only COMPARISON_GT and COMPARISON_LT are supported",
            )
        duration = _minutes(body.get("duration"), field=f"{field}.duration")
        missing = _missing_data(body, field=field, duration=duration)
        threshold = parse_number(body.get("thresholdValue"), field=f"{field}.threshold_value")
        trigger = _trigger(body.get("trigger"), field=f"{field}.trigger")
        if body.get("forecastOptions") is not None:
            self._forecast(body["forecastOptions"], field=f"{field}.forecast_options")
            return UnevaluatedCondition(
                name=name, display_name=display_name, kind=ConditionKind.FORECAST
            )
        if measure is None:
            return UnevaluatedCondition(
                name=name, display_name=display_name, kind=ConditionKind.OBJECTIVE
            )
        return ThresholdCondition(
            name=name,
            display_name=display_name,
            filter=measure.filter,
            aggregations=measure.aggregations,
            denominator_filter=measure.denominator_filter,
            denominator_aggregations=measure.denominator_aggregations,
            burn_rate=measure.burn_rate,
            operator=Operator(comparison.value),
            threshold=threshold,
            duration=duration,
            trigger=trigger,
            missing=missing,
        )

    def _measure(self, body: Mapping[str, Any], *, field: str) -> _Measure | None:
        """What is compared; None where it cannot be measured here."""
        text = parse_text(body.get("filter"), field=f"{field}.filter")
        selector = parse_selector(text, field=f"{field}.filter")
        if selector is not None:
            return self._objective(selector, body, field=field)
        parsed, found = _metric_filter(
            text,
            field=f"{field}.filter",
            descriptors=self.descriptors,
            resource_types=self.resource_types,
            needs_resource=True,
        )
        steps = _aggregations(
            body.get("aggregations"),
            field=f"{field}.aggregations",
            descriptors=found,
            numeric=True,
        )
        below, below_steps = self._denominator(body, field=field, steps=steps)
        return _Measure(
            filter=parsed,
            aggregations=steps,
            denominator_filter=below,
            denominator_aggregations=below_steps,
        )

    def _objective(
        self, selector: Selector, body: Mapping[str, Any], *, field: str
    ) -> _Measure | None:
        """What an objective's burn rate is counted from; aggregations change nothing about it."""
        if len(body["filter"]) > MAX_FILTER_LENGTH:
            raise _wrong(
                f"{field}.filter",
                body["filter"][:64] + "...",
                f"the filter must not exceed {MAX_FILTER_LENGTH} characters.",
            )
        _aggregations(
            body.get("aggregations"),
            field=f"{field}.aggregations",
            descriptors=(),
            numeric=True,
        )
        if body.get("denominatorFilter") or body.get("denominatorAggregations"):
            raise _wrong(
                f"{field}.denominator_filter",
                body.get("denominatorFilter", ""),
                "a condition on a service level objective has no denominator",
            )
        objective: Objective | None = self.objectives(selector.objective)
        if objective is None:
            raise NotFound(
                f"Cannot find the service level objective {selector.objective} that "
                f"{field}.filter names."
            )
        if selector.name != BURN_RATE or objective.indicator is None:
            return None
        burn_rate = BurnRate(selector=selector, objective=objective)
        first, second = burn_rate.filters
        steps = (burn_rate.aggregation,)
        return _Measure(
            filter=first,
            aggregations=steps,
            denominator_filter=second,
            denominator_aggregations=() if second is None else steps,
            burn_rate=burn_rate,
        )

    def _denominator(
        self, body: Mapping[str, Any], *, field: str, steps: tuple[Aggregation, ...]
    ) -> tuple[Filter | None, tuple[Aggregation, ...]]:
        if not body.get("denominatorFilter"):
            if body.get("denominatorAggregations"):
                raise _wrong(
                    f"{field}.denominator_aggregations",
                    "",
                    "denominator_aggregations need a denominator_filter",
                )
            return None, ()
        below, found = _metric_filter(
            body.get("denominatorFilter"),
            field=f"{field}.denominator_filter",
            descriptors=self.descriptors,
            resource_types=self.resource_types,
            needs_resource=False,
        )
        below_steps = _aggregations(
            body.get("denominatorAggregations"),
            field=f"{field}.denominator_aggregations",
            descriptors=found,
            numeric=True,
        )
        if [step.alignment_period for step in steps] != [
            step.alignment_period for step in below_steps
        ]:
            raise _wrong(
                f"{field}.denominator_aggregations",
                body.get("denominatorFilter"),
                "aggregations and denominator_aggregations must use the same alignment period",
            )
        if _labels_of(steps) != _labels_of(below_steps):
            raise _wrong(
                f"{field}.denominator_aggregations",
                body.get("denominatorFilter"),
                "aggregations and denominator_aggregations must produce time series that have the "
                "same labels",
            )
        return below, below_steps

    def _forecast(self, value: object, *, field: str) -> None:
        body = parse_object(value, field=field, known={"forecastHorizon"})
        text = body.get("forecastHorizon")
        horizon = parse_duration(text, field=f"{field}.forecast_horizon")
        if not MIN_HORIZON <= horizon <= MAX_HORIZON:
            raise _wrong(
                f"{field}.forecast_horizon", text, "must be at least 1 hour and at most 60 hours"
            )

    def absence(
        self, body: Mapping[str, Any], *, field: str, name: str, display_name: str
    ) -> Condition:
        body = parse_object(
            body, field=field, known={"filter", "aggregations", "duration", "trigger"}
        )
        parsed, found = _metric_filter(
            body.get("filter"),
            field=f"{field}.filter",
            descriptors=self.descriptors,
            resource_types=self.resource_types,
            needs_resource=True,
        )
        steps = _aggregations(
            body.get("aggregations"),
            field=f"{field}.aggregations",
            descriptors=found,
            numeric=False,
        )
        duration = _minutes(body.get("duration"), field=f"{field}.duration")
        if duration < MIN_ABSENCE:
            raise _wrong(f"{field}.duration", body.get("duration"), "must be at least 120 seconds")
        if duration > MAX_ABSENCE:
            raise _wrong(
                f"{field}.duration", body.get("duration"), "must be at most 23 hours 30 minutes"
            )
        return AbsenceCondition(
            name=name,
            display_name=display_name,
            filter=parsed,
            aggregations=steps,
            duration=duration,
            trigger=_trigger(body.get("trigger"), field=f"{field}.trigger"),
        )


def _labels_of(steps: tuple[Aggregation, ...]) -> set[tuple[str, ...]] | None:
    """Labels that survive; None when nothing is reduced and all do."""
    reducing = [step for step in steps if step.reducer is not Reducer.REDUCE_NONE]
    return {path for path in reducing[-1].group_by if len(path) == 3} if reducing else None


def _text_required(body: Mapping[str, Any], name: str, *, field: str) -> str:
    text = parse_text(body.get(name), field=f"{field}.{name}")
    if not text.strip():
        raise _wrong(f"{field}.{name}", text, "must not be empty")
    return text


def _log_match(body: object, *, field: str) -> None:
    mapping = parse_object(body, field=field, known={"filter", "labelExtractors"})
    _text_required(mapping, "filter", field=field)
    extractors = mapping.get("labelExtractors") or {}
    if not isinstance(extractors, Mapping) or not all(
        isinstance(value, str) for value in extractors.values()
    ):
        raise InvalidArgument(f"Invalid value at '{field}.label_extractors' (TYPE_MESSAGE)")


def _mql(body: object, *, field: str) -> None:
    mapping = parse_object(
        body, field=field, known={"query", "duration", "trigger", "evaluationMissingData"}
    )
    _text_required(mapping, "query", field=field)
    duration = _minutes(mapping.get("duration"), field=f"{field}.duration")
    _trigger(mapping.get("trigger"), field=f"{field}.trigger")
    _missing_data(mapping, field=field, duration=duration)


def _promql(body: object, *, field: str) -> None:
    mapping = parse_object(
        body,
        field=field,
        known={
            "query", "duration", "evaluationInterval", "labels", "ruleGroup", "alertRule",
            "disableMetricValidation",
        },
    )  # fmt: skip
    _text_required(mapping, "query", field=field)
    text = mapping.get("duration", "0s")
    if parse_duration(text, field=f"{field}.duration") < timedelta(0):
        raise _wrong(f"{field}.duration", text, "durations must not be negative")
    text = mapping.get("evaluationInterval", "30s")
    interval = parse_duration(text, field=f"{field}.evaluation_interval")
    if interval <= timedelta(0) or interval % EVALUATION_STEP:
        raise _wrong(f"{field}.evaluation_interval", text, "only positive multiples of 30 seconds")
    for name in ("ruleGroup", "alertRule"):
        parse_text(mapping.get(name), field=f"{field}.{name}")
    if not isinstance(mapping.get("labels") or {}, Mapping):
        raise InvalidArgument(f"Invalid value at '{field}.labels' (TYPE_MESSAGE)")
    parse_bool(mapping.get("disableMetricValidation"), field=f"{field}.disable_metric_validation")


def _sql(body: object, *, field: str) -> None:
    mapping = parse_object(
        body,
        field=field,
        known={"query", "minutes", "hourly", "daily", "rowCountTest", "booleanTest"},
    )
    _text_required(mapping, "query", field=field)
    limits = {"minutes": (5, 1440), "hourly": (1, 48), "daily": (1, 31)}
    schedules = [name for name in limits if name in mapping]
    if len(schedules) != 1:
        raise _wrong(field, ", ".join(schedules), "exactly one schedule must be set")
    schedule = schedules[0]
    extra = {"hourly": {"minuteOffset"}, "daily": {"executionTime"}}.get(schedule, set())
    details = parse_object(
        mapping[schedule], field=f"{field}.{schedule}", known={"periodicity"} | extra
    )
    periodicity = parse_integer(details.get("periodicity"), field=f"{field}.{schedule}.periodicity")
    low, high = limits[schedule]
    if not low <= periodicity <= high:
        raise _wrong(
            f"{field}.{schedule}.periodicity", periodicity, f"must be from {low} to {high}"
        )
    tests = [name for name in ("rowCountTest", "booleanTest") if name in mapping]
    if len(tests) != 1:
        raise _wrong(field, ", ".join(tests), "exactly one test must be set")
    if tests == ["booleanTest"]:
        test = parse_object(mapping["booleanTest"], field=f"{field}.boolean_test", known={"column"})
        _text_required(test, "column", field=f"{field}.boolean_test")
        return
    test = parse_object(
        mapping["rowCountTest"], field=f"{field}.row_count_test", known={"comparison", "threshold"}
    )
    comparison = parse_enum(
        _Comparison, test.get("comparison"), field=f"{field}.row_count_test.comparison"
    )
    if comparison.value not in (Operator.GT, Operator.LT):
        raise _wrong(
            f"{field}.row_count_test.comparison",
            comparison,
            "only COMPARISON_GT and COMPARISON_LT are supported",
        )
    parse_integer(test.get("threshold"), field=f"{field}.row_count_test.threshold")


_LIGHT: dict[ConditionKind, tuple[str, Callable[..., None]]] = {
    ConditionKind.LOG: ("condition_matched_log", _log_match),
    ConditionKind.MQL: ("condition_monitoring_query_language", _mql),
    ConditionKind.PROMQL: ("condition_prometheus_query_language", _promql),
    ConditionKind.SQL: ("condition_sql", _sql),
}
_KINDS = [
    kind for kind in ConditionKind if kind not in (ConditionKind.FORECAST, ConditionKind.OBJECTIVE)
]


def _condition(value: object, *, index: int, reader: _Reader) -> Condition:
    field = f"{_PREFIX}.conditions[{index}]"
    mapping = parse_object(value, field=field, known={"name", "displayName", *_KINDS})
    name = parse_text(mapping.get("name"), field=f"{field}.name") or str(index)
    display_name = _display_name(mapping.get("displayName"), field=f"{field}.display_name")
    kinds = [kind for kind in mapping if kind in _KINDS and mapping[kind] is not None]
    if len(kinds) > 1:
        raise InvalidArgument(
            f"Invalid value at '{field}' (oneof), oneof field 'condition' is already set. "
            f"Cannot set '{kinds[1]}'"
        )
    if not kinds:
        raise _wrong(
            f"{field}.condition_case",
            0,
            'Condition subtype (e.g. "condition_absent","condition_threshold", etc.) is absent or '
            "unknown.",
            where=field,
        )
    kind = ConditionKind(kinds[0])
    body = mapping[kind]
    if kind is ConditionKind.THRESHOLD:
        return reader.threshold(
            body, field=f"{field}.condition_threshold", name=name, display_name=display_name
        )
    if kind is ConditionKind.ABSENT:
        return reader.absence(
            body, field=f"{field}.condition_absent", name=name, display_name=display_name
        )
    snake, validate = _LIGHT[kind]
    validate(body, field=f"{field}.{snake}")
    return UnevaluatedCondition(name=name, display_name=display_name, kind=kind)


def _display_name(value: object, *, field: str) -> str:
    text = parse_text(value, field=field)
    if len(text) > MAX_DISPLAY_NAME:
        raise _wrong(field, text, f"must not exceed {MAX_DISPLAY_NAME} characters")
    return text


def _documentation(value: object) -> Documentation:
    field = f"{_PREFIX}.documentation"
    mapping = parse_object(value, field=field, known={"content", "mimeType", "subject", "links"})
    content = parse_text(mapping.get("content"), field=f"{field}.content")
    if len(content) > MAX_CONTENT_CHARACTERS or len(content.encode()) > MAX_CONTENT_BYTES:
        raise _wrong(
            f"{field}.content",
            content[:64] + "...",
            f"must not exceed {MAX_CONTENT_CHARACTERS} characters or {MAX_CONTENT_BYTES} bytes",
        )
    mime_type = parse_text(mapping.get("mimeType"), field=f"{field}.mime_type")
    if mime_type not in ("", "text/markdown"):
        raise _wrong(f"{field}.mime_type", mime_type, 'only "text/markdown" is supported')
    subject = parse_text(mapping.get("subject"), field=f"{field}.subject")
    if len(subject.encode()) > MAX_SUBJECT_BYTES:
        raise _wrong(
            f"{field}.subject",
            subject[:64] + "...",
            f"must not exceed {MAX_SUBJECT_BYTES} bytes",
        )
    links = parse_list(mapping.get("links"), field=f"{field}.links")
    if len(links) > MAX_LINKS:
        raise _wrong(f"{field}.links", len(links), f"at most {MAX_LINKS} links are allowed")
    return Documentation(
        content=content,
        mime_type=mime_type,
        subject=subject,
        links=tuple(
            _link(link, field=f"{field}.links[{index}]") for index, link in enumerate(links)
        ),
    )


def _link(value: object, *, field: str) -> Link:
    mapping = parse_object(value, field=field, known={"displayName", "url"})
    name = parse_text(mapping.get("displayName"), field=f"{field}.display_name")
    url = parse_text(mapping.get("url"), field=f"{field}.url")
    if len(name) > MAX_LINK_NAME:
        raise _wrong(f"{field}.display_name", name, f"must not exceed {MAX_LINK_NAME} characters")
    if not url or len(url) > MAX_LINK_URL:
        raise _wrong(f"{field}.url", url, f"must have 1 to {MAX_LINK_URL} characters")
    return Link(display_name=name, url=url)


def parse_user_labels(value: object, *, field: str) -> dict[str, str]:
    """Labels of a policy, service or objective; InvalidArgument for one that cannot be."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"Invalid value at '{field}' (TYPE_MESSAGE), \"{value}\"")
    if len(value) > MAX_USER_LABELS:
        raise _wrong(field, len(value), f"at most {MAX_USER_LABELS} labels are allowed")
    labels = {}
    for key, raw in value.items():
        text = parse_text(raw, field=f'{field}["{key}"]')
        for part, form in ((str(key), _LABEL_KEY), (text, _LABEL_VALUE)):
            if len(part) > MAX_LABEL_CHARACTERS or len(part.encode()) > MAX_LABEL_BYTES:
                raise _wrong(field, part, f"must not exceed {MAX_LABEL_CHARACTERS} characters")
            if not form.fullmatch(part):
                raise _wrong(
                    field,
                    part,
                    "labels and values can contain only lowercase letters, numerals, underscores, "
                    "and dashes; keys must begin with a letter",
                )
        labels[str(key)] = text
    return labels


@dataclass(frozen=True, kw_only=True)
class _Strategy:
    auto_close: timedelta
    prompts: tuple[Prompt, ...]
    rate_limit: timedelta | None
    renotifications: tuple[Renotification, ...]


def _strategy(value: object, *, logs: bool) -> _Strategy:
    field = f"{_PREFIX}.alert_strategy"
    mapping = parse_object(
        value,
        field=field,
        known={
            "notificationRateLimit", "notificationPrompts", "autoClose",
            "notificationChannelStrategy",
        },
    )  # fmt: skip
    rate_limit = None
    if mapping.get("notificationRateLimit") is not None:
        limit_field = f"{field}.notification_rate_limit"
        limit = parse_object(mapping["notificationRateLimit"], field=limit_field, known={"period"})
        text = limit.get("period")
        if not logs:
            raise _wrong(
                "alertStrategy.notificationRateLimit",
                f"period {{ {_in_text_format(text, field=limit_field)} }}",
                "metric-based alert policies must not specify a notification rate limit",
                where=limit_field,
            )
        rate_limit = parse_duration(text, field=f"{limit_field}.period")
    elif logs:
        raise _wrong(
            f"{field}.notification_rate_limit",
            "",
            "log-based alert policies must specify a notification rate limit",
        )
    auto_close = DEFAULT_AUTO_CLOSE
    if mapping.get("autoClose") is not None:
        text = mapping["autoClose"]
        auto_close = parse_duration(text, field=f"{field}.auto_close")
        written = _in_text_format(text, field=f"{field}.auto_close")
        if auto_close < MIN_AUTO_CLOSE:
            raise _wrong(
                "alertStrategy.autoClose",
                written,
                "the autoclose duration should be at least 30 minutes",
                where=f"{field}.auto_close",
            )
        if auto_close > MAX_AUTO_CLOSE:
            raise _wrong(
                "alertStrategy.autoClose",
                written,
                "the autoclose duration should be at most 7 days",
                where=f"{field}.auto_close",
            )
    prompts = tuple(
        parse_enum(Prompt, prompt, field=f"{field}.notification_prompts[{index}]")
        for index, prompt in enumerate(
            parse_list(mapping.get("notificationPrompts"), field=f"{field}.notification_prompts")
        )
    )
    allowed = [{Prompt.OPENED}] if logs else [{Prompt.OPENED}, {Prompt.OPENED, Prompt.CLOSED}]
    if prompts and (set(prompts) not in allowed or len(set(prompts)) != len(prompts)):
        raise _wrong(
            f"{field}.notification_prompts",
            ", ".join(prompts),
            "must be [OPENED]" if logs else "must be [OPENED] or [OPENED, CLOSED]",
        )
    return _Strategy(
        auto_close=auto_close,
        prompts=prompts,
        rate_limit=rate_limit,
        renotifications=_renotifications(
            mapping.get("notificationChannelStrategy"),
            field=f"{field}.notification_channel_strategy",
        ),
    )


def _renotifications(value: object, *, field: str) -> tuple[Renotification, ...]:
    found = []
    for index, entry in enumerate(parse_list(value, field=field)):
        mapping = parse_object(
            entry, field=f"{field}[{index}]", known={"notificationChannelNames", "renotifyInterval"}
        )
        text = mapping.get("renotifyInterval")
        interval = parse_duration(text, field=f"{field}[{index}].renotify_interval")
        if interval <= timedelta(0):
            raise _wrong(f"{field}[{index}].renotify_interval", text, "must be positive")
        names = parse_list(
            mapping.get("notificationChannelNames"),
            field=f"{field}[{index}].notification_channel_names",
        )
        found.append(Renotification(channels=tuple(str(name) for name in names), interval=interval))
    return tuple(found)


def parse_policy(
    mapping: Mapping[str, Any],
    *,
    descriptors: DescriptorLookup,
    resource_types: Collection[str] | None = None,
    objectives: ObjectiveLookup = lambda _name: None,
) -> AlertPolicySpec:
    """Read and validate an AlertPolicy in REST JSON form.

    Raises InvalidArgument, or NotFound for a metric nobody has written yet or an objective that
    does not exist. Resource types are checked when a list of them is given. Output-only fields
    are ignored.
    """
    mapping = parse_object(
        mapping,
        field=_PREFIX,
        known={
            "name", "displayName", "documentation", "userLabels", "conditions", "combiner",
            "enabled", "validity", "notificationChannels", "creationRecord", "mutationRecord",
            "alertStrategy", "severity",
        },
    )  # fmt: skip
    raw = parse_list(mapping.get("conditions"), field=f"{_PREFIX}.conditions")
    if not 1 <= len(raw) <= MAX_CONDITIONS:
        raise _wrong(
            f"{_PREFIX}.conditions",
            len(raw),
            f"A policy must have from 1 to {MAX_CONDITIONS} conditions.",
        )
    present = [{camel(name) for name in one} if isinstance(one, Mapping) else set() for one in raw]
    if len(raw) > 1 and any(ConditionKind.LOG in names for names in present):
        raise InvalidArgument(
            "Alert policies with a log matching condition can only have a single condition."
        )
    if len(raw) > 1 and any(ConditionKind.MQL in names for names in present):
        raise InvalidArgument(
            "Alert policies with a Monitoring Query Language condition can only have a single "
            "condition."
        )
    reader = _Reader(descriptors=descriptors, resource_types=resource_types, objectives=objectives)
    conditions = tuple(_condition(one, index=index, reader=reader) for index, one in enumerate(raw))
    combiner = parse_enum(Combiner, mapping.get("combiner"), field=f"{_PREFIX}.combiner")
    if combiner is Combiner.UNSPECIFIED and len(conditions) > 1:
        raise _wrong(
            f"{_PREFIX}.combiner", combiner, "A combiner is required with several conditions."
        )
    strategy = _strategy(
        mapping.get("alertStrategy"),
        logs=any(condition.kind is ConditionKind.LOG for condition in conditions),
    )
    channels = parse_list(
        mapping.get("notificationChannels"), field=f"{_PREFIX}.notification_channels"
    )
    if len(channels) > MAX_CHANNELS:
        raise _wrong(
            f"{_PREFIX}.notification_channels",
            len(channels),
            f"at most {MAX_CHANNELS} notification channels are allowed",
        )
    return AlertPolicySpec(
        name=parse_text(mapping.get("name"), field=f"{_PREFIX}.name"),
        display_name=_display_name(mapping.get("displayName"), field=f"{_PREFIX}.display_name"),
        documentation=_documentation(mapping.get("documentation")),
        user_labels=parse_user_labels(mapping.get("userLabels"), field=f"{_PREFIX}.user_labels"),
        conditions=conditions,
        combiner=combiner,
        enabled=parse_bool(mapping.get("enabled"), field=f"{_PREFIX}.enabled", default=True),
        severity=parse_enum(Severity, mapping.get("severity"), field=f"{_PREFIX}.severity"),
        notification_channels=tuple(
            parse_text(channel, field=f"{_PREFIX}.notification_channels[{index}]")
            for index, channel in enumerate(channels)
        ),
        auto_close=strategy.auto_close,
        prompts=strategy.prompts,
        rate_limit=strategy.rate_limit,
        renotifications=strategy.renotifications,
    )
