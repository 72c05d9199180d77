"""Draws what a condition measured round a moment, with the threshold in it, as plain text.

The same lines go to a terminal, a pipe, JUnit and pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from math import isnan

from alerts.notation import print_span
from alerts.trial import Failure, Measured, Opening, Trial
from speakfit.engine.conditions import MissingData, Operator, ThresholdCondition
from speakfit.engine.points import SeriesKey
from speakfit.engine.runs import Runs

_MINUTE = timedelta(minutes=1)
_WIDTH = 32
_BEFORE, _AFTER = 3, 2
"""Evaluations shown round a moment."""
_MOST_ROWS = 14
_MOST_SERIES = 3


def explain(trial: Trial, failure: Failure) -> list[str]:
    """A failure, and a table for each condition of its policy that shows why."""
    lines = failure.what.splitlines()
    if not failure.moments:
        return lines
    measured = trial.measured.get(failure.policy, ())
    openings = trial.openings.get(failure.policy, ())
    seen = {one.condition.name for one in measured}
    condition: Measured | None = None
    for name in sorted(seen):
        those = [one for one in measured if one.condition.name == name]
        those.sort(key=lambda one: _interest(one, openings))
        for condition in those[:_MOST_SERIES]:
            lines += ["", *_table(trial, condition, openings, failure.moments)]
        if len(those) > _MOST_SERIES:
            lines.append(f"  and {len(those) - _MOST_SERIES} more series")
    if condition is None:
        lines += ["", "  It measured nothing: no series of the scenario passes its filter."]
    return lines


def explanation(trial: Trial) -> str:
    """Everything that failed in a scenario, as one text."""
    return "\n\n".join("\n".join(explain(trial, failure)) for failure in trial.failures)


def condition_title(one: Measured) -> str:
    """`chunks accepted and not finished > 100 for 5m`."""
    condition = one.condition
    lasting = print_span(condition.duration)
    if isinstance(condition, ThresholdCondition):
        sign = ">" if condition.operator is Operator.GT else "<"
        return f"{condition.display_name} {sign} {condition.threshold:g} for {lasting}"
    return f"{condition.display_name} silent for {lasting}"


def _interest(one: Measured, openings: Sequence[Opening]) -> tuple[bool, bool, SeriesKey]:
    """What paged comes first, then what nearly did."""
    key = one.verdict.key
    return (
        all(opening.incident.series != key for opening in openings),
        not len(one.verdict.violating),
        key,
    )


def _table(
    trial: Trial, one: Measured, openings: Sequence[Opening], moments: Iterable[timedelta]
) -> list[str]:
    values, limit, show = _measure(one)
    rows = _rows(len(values), moments)
    shown = [values[row] for row in rows if row is not None]
    scale = _Scale(limit, shown, above=_is_above(one))
    states = _states(trial, one, openings)
    labels = _labels(one.verdict.key)
    lines = [f"  {condition_title(one)}{labels}", f"  {'':>8} {'':>9}  {scale.head(show(limit))}"]
    for row in rows:
        if row is None:
            lines.append(f"  {'...':>8}")
            continue
        value = values[row]
        text = "no data" if isnan(value) else show(value)
        time = print_span((row + 1) * _MINUTE)
        lines.append(f"  {time:>8} {text:>9}  {scale.bar(value)}  {states(row)}".rstrip())
    return lines


def _measure(one: Measured) -> tuple[Sequence[float], float, Callable[[float], str]]:
    """What was compared, with what, and how it is written."""
    verdict, condition = one.verdict, one.condition
    if isinstance(condition, ThresholdCondition) and verdict.values is not None:
        return verdict.values.tolist(), condition.threshold, lambda value: f"{value:.5g}"
    silent = [] if verdict.silence is None else (verdict.silence / 1e9).tolist()
    return silent, condition.duration.total_seconds(), _seconds


def _seconds(value: float) -> str:
    return print_span(timedelta(seconds=value))


def _active(one: Measured) -> bool:
    """Whether missing data counts as breaking the threshold."""
    condition = one.condition
    return isinstance(condition, ThresholdCondition) and condition.missing is MissingData.ACTIVE


def _is_above(one: Measured) -> bool:
    condition = one.condition
    return not isinstance(condition, ThresholdCondition) or condition.operator is Operator.GT


def _labels(key: SeriesKey) -> str:
    labels = {**key.resource, **key.metric}
    labels.pop("project_id", None)
    return f"  ({', '.join(f'{name}={value}' for name, value in labels.items())})" if labels else ""


def _rows(length: int, moments: Iterable[timedelta]) -> list[int | None]:
    """Indices of the evaluations to show; None where some are left out."""
    wanted: set[int] = set()
    for moment in moments:
        place = moment // _MINUTE - 1
        wanted |= set(range(place - _BEFORE, place + _AFTER + 1))
    wanted = {row for row in wanted if 0 <= row < length}
    if wanted and max(wanted) - min(wanted) < _MOST_ROWS:
        wanted = set(range(min(wanted), max(wanted) + 1))
    found: list[int | None] = []
    for row in sorted(wanted):
        if found and found[-1] is not None and row > found[-1] + 1:
            found.append(None)
        found.append(row)
    return found


class _Scale:
    """Bars with the threshold as `|`; what breaks it shows a bar beyond, or short of, it."""

    def __init__(self, limit: float, values: Sequence[float], *, above: bool) -> None:
        finite = [value for value in values if abs(value) < float("inf")]
        self._limit = limit
        self._above = above
        self._low = min(0.0, limit, *finite) if finite else min(0.0, limit)
        high = max([limit, *finite])
        self._width = (high - self._low) or 1.0
        self._at = self._place(limit)

    def _place(self, value: float) -> int:
        share = (min(value, self._low + self._width) - self._low) / self._width
        return round(max(share, 0.0) * (_WIDTH - 2))

    def head(self, text: str) -> str:
        return f"{'':{self._at}}| {text}"

    def bar(self, value: float) -> str:
        filled = 0 if isnan(value) else self._place(value)
        # Rounding must not hide on which side of the threshold a value lies.
        if value > self._limit:
            filled = max(filled, self._at + 1)
        elif value <= self._limit:
            filled = min(filled, self._at)
            if value < self._limit and not self._above:
                filled = min(filled, max(self._at - 1, 0))
        before = "=" * min(filled, self._at)
        after = "=" * max(filled - self._at, 0)
        return f"{before:{self._at}}|{after:{_WIDTH - 1 - self._at}}"


def _states(trial: Trial, one: Measured, openings: Sequence[Opening]) -> Callable[[int], str]:
    """What the condition said in each evaluation, in words."""
    mine = [
        opening
        for opening in openings
        if opening.incident.identity == (one.condition.name, one.verdict.key)
    ]
    values = one.verdict.values
    lasting = print_span(one.condition.duration)

    def state(row: int) -> str:
        time = (row + 1) * _MINUTE
        for opening in mine:
            if opening.opened == time:
                return "OPENS"
            if opening.closed == time:
                return f"closes ({opening.reason})"
            if opening.open_at(time):
                return "open"
        silent = values is not None and isnan(values[row])
        if _begin(one.verdict.met, row) is not None:
            return "met, held back"
        since = _begin(one.verdict.violating, row)
        if since is None:
            return ""
        if silent and not _active(one):
            return "undecided"
        return f"breaks, {print_span((row - since) * _MINUTE)} of {lasting}"

    return state


def _begin(runs: Runs, row: int) -> int | None:
    """Where the stretch that holds an evaluation begins; None when none holds it."""
    for first, end in zip(runs.first.tolist(), runs.end.tolist(), strict=True):
        if first <= row < end:
            return int(first)
    return None
