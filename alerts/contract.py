"""The telemetry contract: what is referred to, and what is really exported. Pure.

An alert on a metric, label, unit or resource that nobody exports can never page, and looks like
health. So every filter of every policy, and of whatever else is handed over as JSON (dashboards),
is held against what the services wrote.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from alerts.metric import MetricRecord
from speakfit.engine.filters import All, Comparison, Expression, Filter, parse_filter
from speakfit.engine.points import Descriptor, MetricKind, SeriesKey, ValueType
from speakfit.engine.reduce import aggregated_type, parse_aggregation
from speakfit.errors import InvalidArgument

MAX_VALUES = 50
"""Values of one label that are remembered; one with more is not held to its values."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One metric as it was really written."""

    descriptor: Descriptor
    unit: str
    resources: Mapping[str, frozenset[str]]
    """Label keys of each monitored resource type that it was written on."""
    labels: Mapping[str, frozenset[str] | None]
    """Values of each of its labels; None for more than are remembered."""


def exported(
    descriptors: Mapping[str, Mapping[str, Any]], keys: Iterable[SeriesKey]
) -> dict[str, Exported]:
    """What descriptors (REST form, by type) and series together say was written."""
    resources: dict[str, dict[str, frozenset[str]]] = {}
    labels: dict[str, dict[str, set[str]]] = {}
    for key in keys:
        kinds = resources.setdefault(key.metric_type, {})
        kinds[key.resource_type] = kinds.get(key.resource_type, frozenset()) | key.resource.keys()
        values = labels.setdefault(key.metric_type, {})
        for name, value in key.metric_labels:
            found = values.setdefault(name, set())
            if len(found) <= MAX_VALUES:
                found.add(value)
    return {
        name: Exported(
            descriptor=Descriptor(
                kind=MetricKind(body["metricKind"]), value_type=ValueType(body["valueType"])
            ),
            unit=str(body.get("unit", "")),
            resources=resources[name],
            labels={
                label: frozenset(values) if len(values) <= MAX_VALUES else None
                for label, values in labels[name].items()
            },
        )
        for name, body in descriptors.items()
        # A kind of zero, which is unspecified, is left out of JSON.
        if name in resources and "metricKind" in body and "valueType" in body
    }


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One filter that something relies on."""

    source: str
    """Whose it is and where it stands, for people."""
    filter: Filter
    aggregations: tuple[Mapping[str, Any], ...] = ()
    """In REST form."""


def references(document: Any, source: str) -> Iterator[Reference]:
    """Every filter on time series in a JSON document: a policy, a dashboard, anything alike.

    Log filters and queries have languages of their own and are not found.
    """
    yield from _walk(document, source, "")


def _walk(value: Any, source: str, path: str) -> Iterator[Reference]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, source, f"{path}[{index}]")
    if not isinstance(value, Mapping):
        return
    for name, steps in (
        ("filter", ("aggregation", "aggregations", "secondaryAggregation")),
        ("denominatorFilter", ("denominatorAggregations",)),
    ):
        text = value.get(name)
        if not isinstance(text, str):
            continue
        try:
            parsed = parse_filter(text)
        except InvalidArgument:
            continue
        if parsed.metric_types:
            yield Reference(
                source=f"{source}, {path}.{name}" if path else f"{source}, {name}",
                filter=parsed,
                aggregations=tuple(_steps(value, steps)),
            )
    for name, inner in value.items():
        yield from _walk(inner, source, f"{path}.{name}" if path else str(name))


def _steps(value: Mapping[str, Any], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        found = value.get(name)
        for step in found if isinstance(found, list) else [found]:
            if isinstance(step, Mapping):
                yield step


class Grade(StrEnum):
    """How bad a finding is."""

    BROKEN = "broken"
    """What relies on it sees nothing, or something else than it means."""
    DOUBTFUL = "doubtful"
    """Perhaps it just has not happened yet."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One way in which what is exported is not what is relied on."""

    grade: Grade
    source: str
    what: str
    todo: str = ""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The two sides compared."""

    findings: tuple[Finding, ...]
    references: int
    metrics: tuple[str, ...]
    """Metrics that were exported and are relied on."""
    unused: tuple[str, ...] = field(default=())
    """Metrics that were exported and nothing relies on."""

    @property
    def kept(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.grade is Grade.BROKEN for finding in self.findings)


def compare(
    relied_on: Sequence[Reference],
    written: Mapping[str, Exported],
    declared: Iterable[MetricRecord] = (),
) -> Contract:
    """Hold references and declarations against what was written."""
    found: list[Finding] = []
    used: set[str] = set()
    for reference in relied_on:
        for name in sorted(reference.filter.metric_types or ()):
            used.add(name)
            found += _check(reference, name, written)
    for metric in declared:
        found += _check_declaration(metric, written.get(metric.type))
    return Contract(
        findings=tuple(dict.fromkeys(found)),
        references=len(relied_on),
        metrics=tuple(sorted(used & written.keys())),
        unused=tuple(sorted(written.keys() - used)),
    )


def _check(reference: Reference, name: str, written: Mapping[str, Exported]) -> Iterator[Finding]:
    source = reference.source
    one = written.get(name)
    if one is None:
        yield Finding(
            grade=Grade.BROKEN,
            source=source,
            what=f"Nobody exports {name}.",
            todo=_meant(name, written) or "Export it, or take the reference out.",
        )
        return
    wanted = reference.filter.resource_types
    if wanted is not None and not wanted & one.resources.keys():
        yield Finding(
            grade=Grade.BROKEN,
            source=source,
            what=f"{name} is not exported on {' or '.join(sorted(wanted))}.",
            todo=f"It is exported on {', '.join(sorted(one.resources))}.",
        )
    keys = {
        "metric": frozenset(one.labels),
        "resource": frozenset().union(
            *(labels for kind, labels in one.resources.items() if wanted is None or kind in wanted)
        ),
    }
    required = {comparison.path for comparison in _required(reference.filter.expression)}
    grouped, steps = [], []
    for index, body in enumerate(reference.aggregations):
        try:
            step = parse_aggregation(body, field=f"aggregations[{index}]", alerting=False)
        except InvalidArgument:
            # What the API refuses is not a matter of telemetry.
            continue
        steps.append(step)
        grouped += list(step.group_by)
    for path in dict.fromkeys([*sorted(required), *grouped]):
        if len(path) == 3 and path[0] in keys and path[2] not in keys[path[0]] | {"*"}:
            yield Finding(
                grade=Grade.BROKEN,
                source=source,
                what=f"{name} has no label {'.'.join(path)}.",
                todo=_meant(path[2], keys[path[0]])
                or f"It has {', '.join(sorted(keys[path[0]])) or 'none'}.",
            )
    for comparison in _required(reference.filter.expression):
        values = one.labels.get(comparison.path[-1]) if comparison.path[0] == "metric" else None
        if len(comparison.path) != 3 or values is None or not isinstance(comparison.value, str):
            continue
        if comparison.value not in values:
            seen = ", ".join(sorted(values)[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
            yield Finding(
                grade=Grade.DOUBTFUL,
                source=source,
                what=f"{name} was never written with {comparison.path[-1]} = {comparison.value!r}.",
                todo=f"Seen: {seen}. A counter is born with add(0), so that this shows.",
            )
    try:
        aggregated_type(steps, one.descriptor.kind, one.descriptor.value_type)
    except InvalidArgument as error:
        yield Finding(
            grade=Grade.BROKEN,
            source=source,
            what=f"{name} is exported as {one.descriptor.kind} {one.descriptor.value_type}: "
            f"{error.what}",
            todo="Aggregate it otherwise, or export it as it was meant.",
        )


def _required(expression: Expression) -> list[Comparison]:
    """The equalities that every series must satisfy."""
    terms = expression.operands if isinstance(expression, All) else (expression,)
    return [
        term
        for term in terms
        if isinstance(term, Comparison) and term.operator == "=" and term.value != ""
    ]


def _check_declaration(metric: MetricRecord, one: Exported | None) -> Iterator[Finding]:
    source = f"declaration of {metric.type}"
    if one is None:
        yield Finding(
            grade=Grade.DOUBTFUL,
            source=source,
            what="It is declared, and nobody exported it.",
            todo="Record while the services work, or take the declaration out.",
        )
        return
    for what, declared, real in (
        ("kind", metric.kind, one.descriptor.kind),
        ("value type", metric.value_type, one.descriptor.value_type),
        ("unit", metric.unit, one.unit),
    ):
        if declared is not None and declared != real:
            yield Finding(
                grade=Grade.BROKEN,
                source=source,
                what=f"Its {what} is declared {declared} and exported as {real or 'nothing'}.",
                todo="Correct the declaration or the instrument.",
            )
    for key in metric.exported_keys:
        if key not in one.labels:
            yield Finding(
                grade=Grade.BROKEN,
                source=source,
                what=f"It is declared with the label {key}, which is not exported.",
                todo=f"It has {', '.join(sorted(one.labels)) or 'none'}.",
            )


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"Did you mean {near[0]}?" if near else ""
