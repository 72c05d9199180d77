"""Service level objectives as an alert sees them: how fast their error budget is used up.

A condition names an objective by a time-series selector in place of a filter (SLO monitoring,
"Retrieving SLO data"). Whoever stores objectives resolves the name to an `Objective`; from there
on everything is filters, aggregations and arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from speakfit.engine.align import Aligner
from speakfit.engine.columns import Columns
from speakfit.engine.filters import Filter
from speakfit.engine.points import Distributions, Floats, Keys, MetricKind, SeriesKey, ValueType
from speakfit.engine.reduce import Aggregation, Reducer
from speakfit.errors import InvalidArgument

MIN_LOOKBACK = timedelta(seconds=60)
MAX_LOOKBACK = timedelta(hours=24)
"""Alerts cannot look further back (SLO monitoring, "Alerting policies and lookback periods")."""

_DIGITS = 12
"""More than any goal has."""

BURN_RATE = "select_slo_burn_rate"
_SELECTORS = {
    BURN_RATE: True,
    "select_slo_budget": False,
    "select_slo_budget_fraction": False,
    "select_slo_budget_total": False,
    "select_slo_compliance": False,
    "select_slo_counts": False,
    "select_slo_health": False,
}
"""Selectors by name, and whether they take a lookback period."""

_CALL = re.compile(
    r"""\s*(?P<name>select_slo_\w+)\s*\(
    \s*(?P<q1>["']?)(?P<objective>[^"',()\s]+)(?P=q1)\s*
    (?:,\s*(?P<q2>["']?)(?P<lookback>[^"',()\s]*)(?P=q2)\s*)?
    \)\s*""",
    re.VERBOSE,
)
_NAME = re.compile(r"projects/([^/]+)/services/([^/]+)/serviceLevelObjectives/([^/]+)")
_LENGTH = re.compile(r"(?:\d{1,18}(?:\.\d{1,9})?(?:ns|us|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class Selector:
    """One time-series selector: its name, the objective it is about, how far back it looks."""

    name: str
    objective: str
    lookback: timedelta = timedelta(0)

    def __str__(self) -> str:
        if not self.lookback:
            return f'{self.name}("{self.objective}")'
        return f'{self.name}("{self.objective}", "{self.lookback.total_seconds():g}s")'


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Service counted by two of three filters; good and bad are together the total."""

    good: Filter | None = None
    bad: Filter | None = None
    total: Filter | None = None


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Service counted by distributions: what lies from `low` to `high` is good."""

    filter: Filter
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A service level objective, resolved to what it measures."""

    name: str
    goal: float
    indicator: Ratio | Cut | None
    """None when it is not measured here, as windows-based and basic indicators are not."""


ObjectiveLookup = Callable[[str], Objective | None]
"""An objective by its resource name; None when there is none."""


@dataclass(frozen=True, kw_only=True)
class BurnRate:
    """How the summed columns of a condition become a burn rate."""

    selector: Selector
    objective: Objective

    @property
    def filters(self) -> tuple[Filter, Filter | None]:
        """What is measured, and beside what; a cut needs nothing beside its distributions."""
        indicator = self.objective.indicator
        if isinstance(indicator, Cut):
            return indicator.filter, None
        assert indicator is not None
        first = indicator.bad or indicator.good
        assert first is not None
        return first, indicator.total or indicator.good

    @property
    def aggregation(self) -> Aggregation:
        """Everything that was counted in the lookback period."""
        return Aggregation(
            alignment_period=self.selector.lookback,
            aligner=Aligner.ALIGN_DELTA,
            reducer=Reducer.REDUCE_SUM,
        )

    def columns(self, first: Sequence[Columns], second: Sequence[Columns], length: int) -> Columns:
        """One series: bad share of the lookback period over the share that the goal allows.

        Without service there is no measurement. What was never written while there was service
        counts as none, so a service without a single error burns nothing.
        """
        indicator = self.objective.indicator
        if isinstance(indicator, Cut):
            bad, total = _outside(first, indicator, length)
        else:
            assert indicator is not None
            counted, beside = _total(first, length), _total(second, length)
            if indicator.total is None:
                bad, total = counted, np.nan_to_num(counted) + np.nan_to_num(beside)
            elif indicator.bad is not None:
                bad, total = counted, beside
            else:
                bad, total = beside - np.nan_to_num(counted), beside
        share = np.full(length, np.nan)
        np.divide(np.nan_to_num(bad), total, out=share, where=total > 0)
        # 1 - 0.9 is a little less than 0.1, which would lift a burn rate of 2 above 2.
        allowed = round(1.0 - self.objective.goal, _DIGITS)
        return Columns(
            keys=Keys.of((SeriesKey.of(metric_type=str(self.selector)),)),
            kind=MetricKind.GAUGE,
            value_type=ValueType.DOUBLE,
            values=np.clip(share, 0.0, 1.0)[None] / allowed,
        )


def _total(several: Sequence[Columns], length: int) -> Floats:
    """The sum of what is there; NaN where nothing is."""
    total = np.full(length, np.nan)
    for columns in several:
        for row in columns.numbers:
            total = np.where(np.isnan(total), row, total + np.nan_to_num(row))
    return total


def _outside(several: Sequence[Columns], cut: Cut, length: int) -> tuple[Floats, Floats]:
    """How many values lie outside a cut, and how many there are."""
    bad, total = np.full(length, np.nan), np.full(length, np.nan)
    for columns in several:
        for key, values in columns.rows():
            if not isinstance(values, Distributions):
                raise InvalidArgument(f"{key.metric_type} holds no distributions.")
            lost = values.count - count_inside(values, cut.low, cut.high)
            bad = np.where(np.isnan(bad), lost, bad + np.nan_to_num(lost))
            total = np.where(np.isnan(total), values.count, total + np.nan_to_num(values.count))
    return bad, total


def count_inside(column: Distributions, low: float, high: float) -> Floats:
    """How many values of each distribution lie from `low` to `high`, spread evenly in buckets.

    The outer buckets are read as for percentiles, but what lies above the last bound is inside
    only if there is no upper limit: a value that may be too slow is not fast enough.
    """
    bounds = np.array(column.buckets.bounds)
    if not len(bounds):
        return np.where(np.isneginf(low) and np.isposinf(high), column.count, 0.0)
    lows = np.concatenate(([min(0.0, bounds[0])], bounds))
    highs = np.concatenate((bounds, [np.inf]))
    width = highs[:-1] - lows[:-1]
    covered = np.minimum(highs[:-1], high) - np.maximum(lows[:-1], low)
    share = np.empty(len(lows))
    share[:-1] = np.divide(covered, width, out=np.ones(len(width)), where=width > 0)
    # An underflow bucket of no width holds values that are no larger than its bound.
    share[:-1][(width == 0) & ((low > highs[:-1]) | (high < lows[:-1]))] = 0.0
    share[-1] = float(np.isposinf(high) and low <= bounds[-1])
    return np.where(np.isnan(column.count), np.nan, column.counts @ np.clip(share, 0.0, 1.0))


def parse_selector(text: str, *, field: str) -> Selector | None:
    """Read a selector; None when the text is no selector but, perhaps, a filter.

    Raises InvalidArgument, naming `field`, for a selector that is wrong.
    """
    if not text.lstrip().startswith("select_slo_"):
        return None
    found = _CALL.fullmatch(text)
    if found is None:
        raise _wrong(field, text, f'Could not parse filter "{text}"')
    name, objective, lookback = found["name"], found["objective"], found["lookback"]
    if name not in _SELECTORS:
        raise _wrong(field, text, f'Could not parse filter "{text}"; unknown function "{name}"')
    if not _NAME.fullmatch(objective):
        raise _wrong(
            field,
            text,
            'the objective must have the form "projects/ID/services/ID/serviceLevelObjectives/ID".',
        )
    if _SELECTORS[name] is not (lookback is not None):
        need = "needs" if _SELECTORS[name] else "takes no"
        raise _wrong(field, text, f'"{name}" {need} lookback period.')
    if lookback is None:
        return Selector(name=name, objective=objective)
    return Selector(name=name, objective=objective, lookback=_lookback(lookback, text, field))


def _lookback(lookback: str, text: str, field: str) -> timedelta:
    if not _LENGTH.fullmatch(lookback):
        raise _wrong(
            field,
            text,
            f'the lookback period "{lookback}" is no number with a unit of ns, us, ms, s, m or h.',
        )
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(lookback))
    if not MIN_LOOKBACK.total_seconds() <= seconds <= MAX_LOOKBACK.total_seconds():
        raise _wrong(
            field, text, "the lookback period must be at least 60 seconds and at most 24 hours."
        )
    return timedelta(seconds=seconds)


def _wrong(field: str, text: str, rule: str) -> InvalidArgument:
    return InvalidArgument.of_field(field, text, rule)
