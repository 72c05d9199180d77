"""What a board is made of: charts of metrics and of policies, numbers, incidents, words.

A panel names metrics by their records and policies by their subjects, never by text. A threshold
is read from the policies each time, so that a line on a chart is where the page comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from alerts.catalog import find_policy
from alerts.condition import (
    Absence,
    Aggregation,
    Condition,
    Ratio,
    Signal,
    Threshold,
    check_steps,
    signals,
)
from alerts.nearest import did_you_mean
from alerts.objective import BurnWindow, Slo
from alerts.policies import CATALOG
from alerts.policy import Guidance, Policy, Severity
from alerts.wording import duration_words, value_words
from dashboards import widget as w
from dashboards.dashboard import DashboardFilter, FilterType
from speakfit.engine.align import Aligner
from speakfit.engine.reduce import Reducer
from speakfit.errors import CatalogError
from speakfit.metrics import RESOURCE_TYPE, VERSION_LABEL, Metric

POLICY_PREFIX = "policy:"
"""Stands before a policy's id where the API wants the server's name, which `plan` looks up."""
RUNBOOK_PREFIX = "runbook:"
"""Stands before a runbook's subject where a link to it belongs."""

HALF, THIRD, QUARTER, WHOLE = 24, 16, 12, 48
"""Widths in columns of 48."""
CHART_HEIGHT, CARD_HEIGHT = 16, 8

_PERCENT = "10^2.%"
"""UCUM for a share that is shown in percent."""
_COLORS = {
    Severity.WARNING: w.Color.YELLOW,
    Severity.ERROR: w.Color.RED,
    Severity.CRITICAL: w.Color.RED,
}

RELEASE = DashboardFilter(
    label_key=VERSION_LABEL,
    template_variable="release",
    string_value="",
    filter_type=FilterType.METRIC_LABEL,
)
LOCATION = DashboardFilter(
    label_key="location",
    template_variable="location",
    string_value="",
    filter_type=FilterType.RESOURCE_LABEL,
)
ROUTE = DashboardFilter(
    label_key="http_route",
    template_variable="route",
    string_value="",
    filter_type=FilterType.METRIC_LABEL,
)
VARIABLES = (RELEASE, LOCATION, ROUTE)
"""What a reader may choose; a chart follows those whose label its metric has."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a chart draws as one kind of line: series aggregated, or one selection by another."""

    signal: Signal
    aggregation: Aggregation
    legend: str = ""
    plot: w.PlotType = w.PlotType.LINE
    by: Signal | None = None
    """The denominator of a ratio."""
    by_aggregation: Aggregation | None = None
    worst: bool = False
    """Only the highest of its groups."""
    unit_shown: str = ""
    """The unit of a ratio of two different things."""

    def __post_init__(self) -> None:
        where = f"line {self.legend or self.signal.filter!r}"
        drawn = self.plot is w.PlotType.HEATMAP
        check_steps(where, self.signal.metric, (self.aggregation,), compared=not drawn)
        if self.by is not None:
            check_steps(where, self.by.metric, (self._below,), compared=True)

    @property
    def _below(self) -> Aggregation:
        return self.by_aggregation or self.aggregation

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What it reads."""
        return (self.signal,) if self.by is None else (self.signal, self.by)

    @property
    def unit(self) -> str:
        """The UCUM unit of its values."""
        if self.unit_shown or self.by is not None:
            return self.unit_shown or "1"
        metric = self.signal.metric
        unit = "" if metric is None else metric.unit
        return f"{unit}/s" if self.aggregation.aligner is Aligner.ALIGN_RATE else unit

    @property
    def query(self) -> w.TimeSeriesQuery:
        """The query as the API has it."""
        above = _aggregation(self.aggregation, self.signal)
        second = None
        if self.worst:
            second = w.Aggregation(
                alignment_period=self.aggregation.period,
                per_series_aligner=Aligner.ALIGN_MAX,
                cross_series_reducer=Reducer.REDUCE_MAX,
            )
        source: w.TimeSeriesFilter | w.TimeSeriesFilterRatio
        if self.by is None:
            source = w.TimeSeriesFilter(
                filter=_filter(self.signal), aggregation=above, secondary_aggregation=second
            )
        else:
            source = w.TimeSeriesFilterRatio(
                numerator=w.RatioPart(filter=_filter(self.signal), aggregation=above),
                denominator=w.RatioPart(
                    filter=_filter(self.by), aggregation=_aggregation(self._below, self.by)
                ),
                secondary_aggregation=second,
            )
        # A count has no unit worth an axis; a share is read in percent.
        unit = _PERCENT if self.unit == "1" else "" if "{" in self.unit else self.unit
        return w.TimeSeriesQuery(source=source, unit_override=unit)

    @property
    def data_set(self) -> w.DataSet:
        """The line as a chart has it."""
        return w.DataSet(
            time_series_query=self.query,
            plot_type=self.plot,
            legend_template=self.legend,
            min_alignment_period=self.aggregation.period,
            target_axis=w.TargetAxis.Y1,
        )


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One tile, and what it is about; its title is its identity in its board."""

    widget: w.Widget
    width: int = HALF
    height: int = CHART_HEIGHT
    metrics: frozenset[str] = frozenset()
    """Types of the metrics that it draws."""
    policies: frozenset[str] = frozenset()
    """Ids of the policies whose thresholds, incidents or words it shows."""
    runbooks: frozenset[str] = frozenset()
    """Subjects of the runbooks that it links."""

    @property
    def title(self) -> str:
        """What stands above it."""
        return self.widget.title

    @property
    def variables(self) -> tuple[DashboardFilter, ...]:
        """The variables that its queries follow."""
        text = repr(self.widget)
        return tuple(one for one in VARIABLES if f"${{{one.template_variable}}}" in text)


def of(metric: Metric, **labels: str) -> Signal:
    """The series of one of our metrics, wherever it is written: `generic_task`."""
    return Signal(metric=metric, resource_type=RESOURCE_TYPE, labels=labels)


def chart(title: str, *lines: Line, limits: str = "", key: str = "", width: int = HALF) -> Panel:
    """Lines over time; `limits` names a subject whose thresholds are drawn too, by `key` where it
    has several conditions."""
    thresholds: tuple[w.Threshold, ...] = ()
    policies: tuple[Policy, ...] = ()
    if limits:
        watched_by = tuple(_conditions(limits, key))
        thresholds = tuple(
            w.Threshold(value=_limit(condition), label=_limit_label(policy, condition))
            for policy, condition in watched_by
            if not isinstance(condition, Absence)
        )
        policies = tuple(policy for policy, _ in watched_by)
    return _drawn(title, lines, thresholds, policies, width=width)


def watched(title: str, subject: str, *, key: str = "", width: int = HALF) -> Panel:
    """Exactly what the policies of a subject look at, with a line at each of their thresholds."""
    _, condition = _conditions(subject, key)[0]
    return chart(title, _line_of(condition, worst=False), limits=subject, key=key, width=width)


def percentiles(
    title: str, signal: Signal, *, limits: str = "", key: str = "", width: int = HALF
) -> Panel:
    """Median, 95th and 99th percentile of a distribution, all series together."""
    lines = [
        Line(
            signal=signal,
            # A cumulative distribution first becomes that of each minute.
            aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA, reducer=reducer),
            legend=legend,
        )
        for legend, reducer in (
            ("p50", Reducer.REDUCE_PERCENTILE_50),
            ("p95", Reducer.REDUCE_PERCENTILE_95),
            ("p99", Reducer.REDUCE_PERCENTILE_99),
        )
    ]
    return chart(title, *lines, limits=limits, key=key, width=width)


def heatmap(title: str, signal: Signal, *, width: int = HALF) -> Panel:
    """The whole distribution over time."""
    line = Line(
        signal=signal,
        aggregation=Aggregation(aligner=Aligner.ALIGN_DELTA, reducer=Reducer.REDUCE_SUM),
        plot=w.PlotType.HEATMAP,
    )
    return chart(title, line, width=width)


def rate(title: str, signal: Signal, *, group_by: tuple[str, ...] = (), width: int = HALF) -> Panel:
    """How fast a counter grows, stacked by some of its labels."""
    return chart(
        title,
        Line(
            signal=signal,
            aggregation=Aggregation(
                aligner=Aligner.ALIGN_RATE, reducer=Reducer.REDUCE_SUM, group_by=group_by
            ),
            legend=_legend(signal, group_by),
            plot=w.PlotType.STACKED_AREA if group_by else w.PlotType.LINE,
        ),
        width=width,
    )


def gauge(
    signal: Signal,
    *,
    legend: str = "",
    aligner: Aligner = Aligner.ALIGN_MAX,
    reducer: Reducer = Reducer.REDUCE_MAX,
    group_by: tuple[str, ...] = (),
) -> Line:
    """A gauge; replicas that count the same rows agree, so the largest is the newest truth."""
    return Line(
        signal=signal,
        aggregation=Aggregation(aligner=aligner, reducer=reducer, group_by=group_by),
        legend=legend or _legend(signal, group_by),
    )


def number(title: str, line: Line, *, limits: str = "", key: str = "") -> Panel:
    """The newest value with its recent past; yellow and red from the thresholds of a subject."""
    watched_by = tuple(_conditions(limits, key)) if limits else ()
    thresholds = tuple(
        w.Threshold(
            value=_limit(condition),
            color=_COLORS[policy.severity or Severity.CRITICAL],
            direction=w.Direction.ABOVE if condition.above is not None else w.Direction.BELOW,
        )
        for policy, condition in watched_by
        if not isinstance(condition, Absence)
    )
    card = w.Scorecard(
        time_series_query=line.query,
        view=w.SparkChartView(spark_chart_type=w.SparkChartType.SPARK_LINE),
        thresholds=thresholds,
    )
    return Panel(
        widget=w.Widget(title=title, content=card),
        width=QUARTER,
        height=CARD_HEIGHT,
        metrics=_metrics((line,)),
        policies=frozenset(policy.id for policy, _ in watched_by),
    )


def health(title: str, subject: str, *, key: str = "") -> Panel:
    """A number of what the policies of a subject look at; of several groups the worst."""
    _, condition = _conditions(subject, key)[0]
    return number(title, _line_of(condition, worst=True), limits=subject, key=key)


def alert(policy_id: str) -> Panel:
    """The alert chart of one policy: its series, its threshold and its incidents."""
    policy = find_policy(CATALOG, policy_id)
    shown = w.AlertChart(name=POLICY_PREFIX + policy.id)
    return Panel(
        widget=w.Widget(title=policy.display_name, content=shown),
        policies=frozenset({policy.id}),
        metrics=frozenset(
            signal.metric.type
            for condition in policy.conditions
            for signal in signals(condition)
            if signal.metric is not None
        ),
    )


def alerts(*subjects: str) -> tuple[Panel, ...]:
    """The alert chart of every policy of some subjects."""
    return tuple(alert(policy.id) for subject in subjects for policy in _of_subject(subject))


def incidents(title: str, *subjects: str, width: int = HALF) -> Panel:
    """Open and past incidents of some subjects."""
    policies = [policy for subject in subjects for policy in _of_subject(subject)]
    names = tuple(POLICY_PREFIX + policy.id for policy in policies)
    return Panel(
        widget=w.Widget(title=title, content=w.IncidentList(policy_names=names)),
        width=width,
        policies=frozenset(policy.id for policy in policies),
    )


def guide(subject: str, *, width: int = HALF) -> Panel:
    """What a page of this subject means and the first steps, as the page itself says them."""
    policies = _of_subject(subject)
    guidance, runbook = policies[0].guidance, policies[0].runbook
    if not isinstance(guidance, Guidance):
        raise CatalogError(
            "Its words are given as they are.",
            where=f"guide of {subject}",
            todo="Give the policy a Guidance.",
        )
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(guidance.first_steps, 1))
    content = (
        f"{guidance.meaning} **Users:** {guidance.users_feel}\n\n{steps}\n\n"
        f"[Runbook]({RUNBOOK_PREFIX}{runbook})"
    )
    return Panel(
        widget=w.Widget(title=f"When {subject} pages", content=_markdown(content)),
        width=width,
        height=CHART_HEIGHT,
        policies=frozenset(policy.id for policy in policies),
        runbooks=frozenset({runbook}),
    )


def words(title: str, content: str, *, width: int = WHOLE, height: int = CARD_HEIGHT) -> Panel:
    """Markdown."""
    return Panel(
        widget=w.Widget(title=title, content=_markdown(content)), width=width, height=height
    )


def burn(slo: Slo, window: BurnWindow) -> Panel:
    """The share of bad events over a window, with a line where its budget burns too fast."""
    length = duration_words(window.long)
    line = _share_of(slo, window.long)
    limit = float(slo.threshold(window))
    shown = w.Threshold(
        value=limit,
        label=f"{value_words(limit, '1')}: {slo.burn_rate(window):.4g} times too fast",
    )
    return _drawn(f"{slo.title}: burn over {length}", (line,), (shown,), (), width=THIRD)


def budget(slo: Slo) -> Panel:
    """The share of bad events of the last day, red where the day spends more than its part."""
    line = _share_of(slo, timedelta(days=1))
    card = w.Scorecard(
        time_series_query=line.query,
        view=w.SparkChartView(spark_chart_type=w.SparkChartType.SPARK_LINE),
        thresholds=(
            w.Threshold(value=float(slo.budget), color=w.Color.RED, direction=w.Direction.ABOVE),
        ),
    )
    return Panel(
        widget=w.Widget(title=f"{slo.title}: missed in a day", content=card),
        width=QUARTER,
        height=CARD_HEIGHT,
        metrics=_metrics((line,)),
    )


def _share_of(slo: Slo, over: timedelta) -> Line:
    return Line(
        signal=slo.bad,
        by=slo.total,
        aggregation=Aggregation(
            aligner=Aligner.ALIGN_DELTA, period=over, reducer=Reducer.REDUCE_SUM
        ),
        legend=slo.missed,
    )


def _drawn(
    title: str,
    lines: Sequence[Line],
    thresholds: tuple[w.Threshold, ...],
    policies: Iterable[Policy],
    *,
    width: int,
) -> Panel:
    units = sorted({line.unit for line in lines})
    if len(units) > 1:
        raise CatalogError(
            f"Its lines are in {' and '.join(units)}.",
            where=f"chart {title!r}",
            todo="Draw one unit a chart: two on one axis cannot be read.",
        )
    shown = w.XyChart(
        data_sets=tuple(line.data_set for line in lines),
        thresholds=thresholds,
        y_axis=w.Axis(scale=w.Scale.LINEAR),
        chart_options=w.ChartOptions(mode=w.ChartMode.COLOR),
    )
    return Panel(
        widget=w.Widget(title=title, content=shown),
        width=width,
        metrics=_metrics(lines),
        policies=frozenset(policy.id for policy in policies),
    )


def _metrics(lines: Iterable[Line]) -> frozenset[str]:
    return frozenset(
        signal.metric.type for line in lines for signal in line.signals if signal.metric is not None
    )


def _line_of(condition: Condition, *, worst: bool) -> Line:
    """The line that a condition judges; of its groups all, or the worst."""
    legend = condition.key
    if isinstance(condition, Ratio):
        return Line(
            signal=condition.signal,
            aggregation=condition.aggregation,
            legend=legend,
            by=condition.denominator,
            by_aggregation=condition.denominator_aggregation,
            worst=worst and bool(condition.aggregation.group_by),
        )
    if isinstance(condition, Threshold | Absence) and len(condition.steps) == 1:
        (step,) = condition.steps
        return Line(
            signal=condition.signal,
            aggregation=step,
            legend=legend,
            worst=worst and bool(step.group_by),
        )
    raise CatalogError(
        "It cannot be drawn: it is a query, or aggregated more than once.",
        where=f"condition {legend!r}",
        todo="Draw it with `chart`.",
    )


def _limit(condition: Threshold | Ratio) -> float:
    return float((condition.above if condition.above is not None else condition.below) or 0)


def _limit_label(policy: Policy, condition: Threshold | Ratio) -> str:
    metric = condition.signal.metric
    unit = "1" if isinstance(condition, Ratio) else metric.unit if metric is not None else ""
    side = "above" if condition.above is not None else "below"
    lasting = f" for {duration_words(condition.duration)}" if condition.duration else ""
    return f"{policy.severity}: {side} {value_words(_limit(condition), unit)}{lasting}"


def _conditions(subject: str, key: str) -> list[tuple[Policy, Threshold | Ratio | Absence]]:
    """The conditions of a subject's policies under one key, the first one's unless it is given."""
    policies = _of_subject(subject)
    wanted = key or policies[0].conditions[0].key
    found = [
        (policy, condition)
        for policy in policies
        for condition in policy.conditions
        if condition.key == wanted and isinstance(condition, Threshold | Ratio | Absence)
    ]
    if not found:
        keys = [condition.key for policy in policies for condition in policy.conditions]
        raise CatalogError(
            f"No policy of {subject} has a condition called {wanted!r} that can be drawn.",
            where=f"panel of {subject}",
            todo=did_you_mean(wanted, keys, otherwise=f"There are: {', '.join(keys)}."),
        )
    return found


def _of_subject(subject: str) -> tuple[Policy, ...]:
    found = tuple(policy for policy in CATALOG.policies if policy.subject == subject)
    if not found:
        subjects = [policy.subject for policy in CATALOG.policies]
        raise CatalogError(
            f"No policy has the subject {subject!r}.",
            where="panel",
            todo=did_you_mean(subject, subjects, otherwise="`python -m alerts list` has them."),
        )
    return found


def _aggregation(aggregation: Aggregation, signal: Signal) -> w.Aggregation:
    return w.Aggregation(
        alignment_period=aggregation.period,
        per_series_aligner=aggregation.aligner,
        cross_series_reducer=aggregation.reducer,
        group_by_fields=tuple(aggregation.fields(signal.metric)),
    )


def _filter(signal: Signal) -> str:
    """The signal's filter and the variables that fit; a variable nobody chose is no term at all,
    so the terms are joined by a space."""
    keys = () if signal.metric is None else signal.metric.exported_keys
    variables = [
        f"${{{one.template_variable}}}"
        for one in VARIABLES
        if one.filter_type is FilterType.RESOURCE_LABEL or one.label_key in keys
    ]
    return " ".join([signal.filter.replace(" AND ", " "), *variables])


def _legend(signal: Signal, group_by: tuple[str, ...]) -> str:
    if signal.metric is None:
        return ""
    keys = [signal.metric.label_key(label) for label in group_by]
    return " ".join(f"${{metric.labels.{key}}}" for key in keys)


def _markdown(content: str) -> w.Text:
    return w.Text(content=content, format=w.TextFormat.MARKDOWN)
