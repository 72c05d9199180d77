"""A policy that is checked before anybody relies on it: what it says, and where that is written.

It is the REST JSON that Cloud Monitoring would get, whether a catalog compiled it or somebody wrote
it by hand. A file may hold anything, so every reading here is lenient: what cannot be read is None
or empty and never an exception, and a rule that needs it stays silent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from alerts.document import Path, Position
from alerts.metric_facts import MetricFacts
from alerts.policy import Policy
from alerts.promql import Constant, Operation, Query, read_query
from speakfit.engine.conditions import ConditionKind
from speakfit.engine.filters import All, Comparison, Filter, comparisons, parse_filter
from speakfit.engine.reduce import parse_group_by
from speakfit.engine.wire import parse_duration, parse_number
from speakfit.errors import InvalidArgument

Json = dict[str, Any]
Measure = Hashable

PLACEHOLDER = "PLACEHOLDER_"
"""What stands before the name of a `${NAME}` once it is filled in."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PERIOD_OF_RAW_POINTS = timedelta(seconds=60)
_ABOVE = {
    "COMPARISON_GT": True, "COMPARISON_LT": False, ">": True, ">=": True, "<": False, "<=": False,
}  # fmt: skip
_KINDS = tuple(kind for kind in ConditionKind if kind is not ConditionKind.FORECAST)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The file that a policy is written in, and the position of each of its fields there."""

    file: str
    positions: Mapping[Path, Position] = field(default_factory=dict)

    def position(self, path: Path) -> Position | None:
        """Where a field is written, or else the nearest that holds it."""
        for length in range(len(path), -1, -1):
            found = self.positions.get(path[:length])
            if found is not None:
                return found
        return None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One aggregation as it is written; unset fields have the API's defaults."""

    path: Path
    aligner: str = "ALIGN_NONE"
    period: timedelta | None = None
    """None when it cannot be read."""
    reducer: str = "REDUCE_NONE"
    group_by: tuple[tuple[str, ...], ...] = ()
    """Canonical selector paths, such as ("metric", "labels", "route")."""

    @property
    def operation(self) -> tuple[object, ...]:
        """What it does; equal for steps that do the same."""
        return (self.aligner, self.period, self.reducer, self.group_by)

    @property
    def reduces(self) -> bool:
        """Whether it makes one series of several."""
        return self.reducer != "REDUCE_NONE"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The series that a condition reads, and what is made of them: one side of a ratio."""

    path: Path
    """Of the filter."""
    text: str
    filter: Filter | None
    """None when it cannot be read."""
    steps: tuple[Step, ...]

    @cached_property
    def metric_types(self) -> frozenset[str]:
        """The metric types it is certain to read; none when that is not certain."""
        return (self.filter.metric_types if self.filter else None) or frozenset()

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every comparison that occurs in the filter, negated or not."""
        return tuple(comparisons(self.filter.expression)) if self.filter else ()

    @cached_property
    def terms(self) -> frozenset[str]:
        """What a series must satisfy, each term in canonical form; the raw text if unreadable."""
        if self.filter is None:
            return frozenset({" ".join(self.text.split())})
        expression = self.filter.expression
        return frozenset(
            str(term)
            for term in (expression.operands if isinstance(expression, All) else (expression,))
        )

    @property
    def operations(self) -> tuple[tuple[object, ...], ...]:
        """What all steps do."""
        return tuple(step.operation for step in self.steps)

    @property
    def group_by(self) -> tuple[tuple[str, ...], ...] | None:
        """The labels that are left after all steps; None when nothing is reduced and all are."""
        reducing = [step for step in self.steps if step.reduces]
        return reducing[-1].group_by if reducing else None

    @property
    def single(self) -> bool:
        """Whether one line at most comes out for each metric and resource type."""
        return self.group_by is not None and not any(len(path) == 3 for path in self.group_by)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A number that values are compared with."""

    path: Path
    above: bool
    """Whether values above it are trouble; otherwise those below."""
    value: float


@dataclass(frozen=True, kw_only=True)
class ConditionText:
    """One condition as it is written."""

    index: int
    name: str
    kind: ConditionKind | None
    """None when it has none that is known, or several."""
    body: Json
    """What is below the kind."""

    @property
    def path(self) -> Path:
        """Of the condition."""
        return ("conditions", self.index)

    def at(self, *parts: str | int) -> Path:
        """The path of a field below the kind."""
        return (*self.path, *([self.kind.value] if self.kind else []), *parts)

    @property
    def label(self) -> str:
        """How a sentence begins that is about it."""
        return f"Condition {self.name!r}" if self.name else f"Condition {self.index}"

    @cached_property
    def selection(self) -> Selection | None:
        """What a threshold or absence condition reads; the numerator of a ratio."""
        if self.kind not in (ConditionKind.THRESHOLD, ConditionKind.ABSENT):
            return None
        return self._selection("filter", "aggregations")

    @cached_property
    def denominator(self) -> Selection | None:
        """What a threshold condition divides by."""
        if self.kind is not ConditionKind.THRESHOLD or not self.body.get("denominatorFilter"):
            return None
        return self._selection("denominatorFilter", "denominatorAggregations")

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The numerator and the denominator, as far as there are any."""
        return tuple(side for side in (self.selection, self.denominator) if side is not None)

    @property
    def duration(self) -> timedelta | None:
        """For how long it must hold; zero when unset, None when it cannot be read."""
        return duration(self.body.get("duration", "0s"))

    @cached_property
    def limit(self) -> Limit | None:
        """What is compared with: the threshold, or the number at the end of a query."""
        if self.kind is ConditionKind.PROMQL:
            query = self.query
            if not isinstance(query, Operation) or not isinstance(query.right, Constant):
                return None
            above = _ABOVE.get(query.operator)
            value = number(query.right.value)
            field = "query"
        else:
            above = _ABOVE.get(str(self.body.get("comparison")))
            value = number(self.body.get("thresholdValue", 0.0))
            field = "thresholdValue" if "thresholdValue" in self.body else "comparison"
        if above is None or value is None or self.kind is None:
            return None
        return Limit(path=self.at(field), above=above, value=value)

    @cached_property
    def measure(self) -> Measure | None:
        """What is measured before it is compared; None when that cannot be read.

        Equal for conditions that measure the same, however their filters are spelled.
        """
        if isinstance(self.query, Operation) and self.limit is not None:
            return (self.query.left,)
        sides = self.selections
        if not sides or not all(side.text for side in sides):
            return None
        return tuple((self.kind, side.terms, side.operations) for side in sides)

    @cached_property
    def query(self) -> Query | None:
        """The query of a PromQL condition; None when there is none or it cannot be read."""
        if self.kind is not ConditionKind.PROMQL:
            return None
        text = self.body.get("query")
        return read_query(without_placeholders(text)) if isinstance(text, str) else None

    def _selection(self, name: str, aggregations: str) -> Selection:
        raw = self.body.get(name)
        text = raw if isinstance(raw, str) else ""
        listed = self.body.get(aggregations)
        return Selection(
            path=self.at(name),
            text=text,
            filter=read_filter(text),
            steps=tuple(
                _step(one, path=self.at(aggregations, index))
                for index, one in enumerate(listed if isinstance(listed, list) else ())
                if isinstance(one, dict)
            ),
        )


def duration(value: object) -> timedelta | None:
    """A duration in JSON form, or None."""
    try:
        return parse_duration(value, field="")
    except InvalidArgument:
        return None


def number(value: object) -> float | None:
    """A number, which JSON may also write as text; None when it is none or not finite."""
    try:
        found = float(value) if isinstance(value, str) else parse_number(value, field="")
    except (InvalidArgument, ValueError):
        return None
    return found if math.isfinite(found) else None


def without_placeholders(text: str) -> str:
    """The text as it may be once `${NAME}` is filled in; each name stays itself."""
    return _VARIABLE.sub(rf"{PLACEHOLDER}\1", text)


def read_filter(text: str) -> Filter | None:
    """A filter, or None when it cannot be read; `${NAME}` may stand for any value."""
    for attempt in (text, without_placeholders(text)):
        try:
            return parse_filter(attempt)
        except InvalidArgument:
            continue
    return None


def _step(body: Json, *, path: Path) -> Step:
    aligner = body.get("perSeriesAligner") or "ALIGN_NONE"
    listed = body.get("groupByFields")
    groups: list[tuple[str, ...]] = []
    for text in listed if isinstance(listed, list) else ():
        try:
            groups.append(parse_group_by(str(text), field=""))
        except InvalidArgument:
            continue
    return Step(
        path=path,
        aligner=str(aligner),
        period=_PERIOD_OF_RAW_POINTS
        if aligner == "ALIGN_NONE"
        else duration(body.get("alignmentPeriod")),
        reducer=str(body.get("crossSeriesReducer") or "REDUCE_NONE"),
        group_by=tuple(groups),
    )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A policy that is checked."""

    id: str
    """What people call it: the id in a catalog, the display name in a file."""
    body: Json
    origin: Origin
    metrics: Mapping[str, MetricFacts] = field(default_factory=dict)
    """What is known of the metrics it may read, by type; of the others nothing is."""
    policy: Policy | None = None
    """What it was compiled from, when a catalog has it."""
    channels: frozenset[str] | None = None
    """The notification channels that are known to exist; None when that is not known."""

    @cached_property
    def conditions(self) -> tuple[ConditionText, ...]:
        """Every condition that has the form of one."""
        listed = self.body.get("conditions")
        return tuple(
            _condition(one, index)
            for index, one in enumerate(listed if isinstance(listed, list) else ())
            if isinstance(one, dict)
        )

    @cached_property
    def alternatives(self) -> tuple[tuple[ConditionText, ...], ...]:
        """The sets of conditions of which each opens incidents: all together, or each alone."""
        if str(self.body.get("combiner", "")).startswith("AND"):
            return (self.conditions,) if self.conditions else ()
        return tuple((condition,) for condition in self.conditions)

    @property
    def of_catalog(self) -> bool:
        """Whether a catalog holds it, so that what it refers to must be declared there."""
        return self.channels is not None

    @property
    def documentation(self) -> Json:
        """What a notification carries; empty when there is nothing."""
        found = self.body.get("documentation")
        return found if isinstance(found, dict) else {}

    @property
    def content(self) -> str:
        """The text of the documentation."""
        return self._text(self.documentation.get("content"))

    @cached_property
    def links(self) -> tuple[str, ...]:
        """Addresses of the documentation's links."""
        listed = self.documentation.get("links")
        return tuple(
            str(link["url"])
            for link in (listed if isinstance(listed, list) else ())
            if isinstance(link, dict) and link.get("url")
        )

    @property
    def display_name(self) -> str:
        """What the console shows."""
        return self._text(self.body.get("displayName"))

    @property
    def labels(self) -> Mapping[str, str]:
        """The user labels."""
        found = self.body.get("userLabels")
        return (
            {str(key): str(value) for key, value in found.items()}
            if (isinstance(found, dict))
            else {}
        )

    @property
    def severity(self) -> str:
        """CRITICAL, ERROR or WARNING; empty when unset."""
        found = self._text(self.body.get("severity"))
        return "" if found == "SEVERITY_UNSPECIFIED" else found

    @property
    def enabled(self) -> bool:
        """Whether it is evaluated; unset means so."""
        return self.body.get("enabled") is not False

    def facts(self, selection: Selection) -> tuple[MetricFacts, ...]:
        """What is known of the metrics of a selection; nothing unless all of them are known."""
        known = tuple(
            self.metrics[name] for name in sorted(selection.metric_types) if name in self.metrics
        )
        return known if len(known) == len(selection.metric_types) else ()

    def each_selection(self) -> Iterator[tuple[ConditionText, Selection]]:
        """Every selection of every condition."""
        for condition in self.conditions:
            for selection in condition.selections:
                yield condition, selection

    @staticmethod
    def _text(value: object) -> str:
        return value if isinstance(value, str) else ""


def _condition(body: Json, index: int) -> ConditionText:
    kinds = [kind for kind in _KINDS if isinstance(body.get(kind.value), dict)]
    name = body.get("displayName")
    return ConditionText(
        index=index,
        name=name if isinstance(name, str) else "",
        kind=kinds[0] if len(kinds) == 1 else None,
        body=body[kinds[0].value] if len(kinds) == 1 else {},
    )
