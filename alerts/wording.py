"""Says a condition, a duration or a value in plain English, the same way everywhere.

`list`, `show`, `explain`, the documentation of a policy, the page and the runbook headers use
these words, so that what an engineer reads at night is what the policy really says.
"""

from __future__ import annotations

from datetime import timedelta

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
from alerts.policy import Combiner, Policy
from speakfit.engine.policies import DEFAULT_AUTO_CLOSE, MINUTE

_JOIN = {
    Combiner.ALL: ", and ",
    Combiner.ANY: ", or ",
    Combiner.ALL_ON_ONE_RESOURCE: ", and on the same resource ",
    None: "",
}
_SILENCE = {
    MissingData.KEEPS: "no data keeps it open",
    MissingData.CLOSES: "no data closes it",
    MissingData.VIOLATES: "no data counts as trouble",
    # The API's default is to keep what was.
    None: "no data keeps it open",
}
_ALIGNED = {
    Aligner.ALIGN_DELTA: "the growth of",
    Aligner.ALIGN_RATE: "the growth per second of",
    Aligner.ALIGN_INTERPOLATE: "the interpolated value of",
    Aligner.ALIGN_NEXT_OLDER: "the latest value of",
    Aligner.ALIGN_MIN: "the smallest value of",
    Aligner.ALIGN_MAX: "the largest value of",
    Aligner.ALIGN_MEAN: "the mean of",
    Aligner.ALIGN_SUM: "the sum of",
    Aligner.ALIGN_STDDEV: "the standard deviation of",
    Aligner.ALIGN_COUNT: "the number of points of",
    Aligner.ALIGN_COUNT_TRUE: "the number of true points of",
    Aligner.ALIGN_COUNT_FALSE: "the number of false points of",
    Aligner.ALIGN_FRACTION_TRUE: "the share of true points of",
    Aligner.ALIGN_PERCENTILE_99: "the 99th percentile of",
    Aligner.ALIGN_PERCENTILE_95: "the 95th percentile of",
    Aligner.ALIGN_PERCENTILE_50: "the median of",
    Aligner.ALIGN_PERCENTILE_05: "the 5th percentile of",
    Aligner.ALIGN_PERCENT_CHANGE: "the percent change of",
}
_REDUCED = {
    Reducer.REDUCE_MEAN: "averaged",
    Reducer.REDUCE_MIN: "the smallest",
    Reducer.REDUCE_MAX: "the largest",
    Reducer.REDUCE_SUM: "summed",
    Reducer.REDUCE_STDDEV: "its standard deviation",
    Reducer.REDUCE_COUNT: "its series counted",
    Reducer.REDUCE_COUNT_TRUE: "its true series counted",
    Reducer.REDUCE_COUNT_FALSE: "its false series counted",
    Reducer.REDUCE_FRACTION_TRUE: "its share of true series",
    Reducer.REDUCE_PERCENTILE_99: "its 99th percentile",
    Reducer.REDUCE_PERCENTILE_95: "its 95th percentile",
    Reducer.REDUCE_PERCENTILE_50: "its median",
    Reducer.REDUCE_PERCENTILE_05: "its 5th percentile",
}
_LANGUAGES = {
    "conditionMatchedLog": "a log query",
    "conditionMonitoringQueryLanguage": "an MQL query",
    "conditionPrometheusQueryLanguage": "a PromQL query",
    "conditionSql": "an SQL query",
    "conditionThreshold": "a threshold",
    "conditionAbsent": "an absence",
}


def duration_words(duration: timedelta) -> str:
    """`5 min`, `1 h 30 min`, `45 s`."""
    seconds = int(duration.total_seconds())
    parts = (
        (seconds // 86_400, "d"),
        (seconds % 86_400 // 3_600, "h"),
        (seconds % 3_600 // 60, "min"),
        (seconds % 60, "s"),
    )
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def value_words(value: float, unit: str) -> str:
    """A value with its UCUM unit: a share (`1`) in percent, a count (`{chunk}`) bare."""
    if unit == "1":
        # Sixteen digits of a binary fraction are no help at night: 0.0144 is 1.44 %.
        return f"{value * 100:.10g} %"
    if not unit or unit.startswith("{"):
        return f"{value:g}"
    return f"{value:g} {unit}"


def _lasting(duration: timedelta) -> str:
    return f"for {duration_words(duration)}" if duration else "at once"


def _unit(signal: Signal) -> str:
    return signal.metric.unit if signal.metric is not None else ""


def _limit_words(condition: Threshold | Ratio) -> str:
    unit = "1" if isinstance(condition, Ratio) else _unit(condition.signal)
    if condition.above is not None:
        return f"above {value_words(condition.above, unit)}"
    return f"below {value_words(condition.below or 0.0, unit)}"


def condition_words(condition: Condition) -> str:
    """One condition as a phrase: what is measured, the limit, and for how long."""
    if isinstance(condition, Verbatim):
        return f"{condition.key} ({_LANGUAGES[next(iter(condition.body))]})"
    if isinstance(condition, LogMatch):
        return f"{condition.key} in the logs"
    if isinstance(condition, PromQL):
        return f"{condition.key} (PromQL) {_lasting(condition.duration)}"
    if isinstance(condition, Absence):
        return f"{condition.key} silent {_lasting(condition.duration)}"
    over = ""
    if isinstance(condition, Threshold) and condition.aggregation is not None:
        window = condition.aggregation.period
        over = f" over {duration_words(window)}" if window > MINUTE else ""
    lasting = _lasting(condition.duration)
    if isinstance(condition, Threshold) and condition.forecast is not None:
        lasting = f"within {duration_words(condition.forecast)} by forecast"
    return f"{condition.key}{over} {_limit_words(condition)} {lasting}"


def policy_words(policy: Policy) -> str:
    """All conditions of a policy as one phrase."""
    return _JOIN[policy.combiner].join(condition_words(c) for c in policy.conditions)


def closing_words(policy: Policy) -> str:
    """What ends an incident of this policy."""
    silences: list[str] = []
    for condition in policy.conditions:
        if isinstance(condition, Threshold | Ratio):
            words = _SILENCE[condition.missing_data]
        elif isinstance(condition, Absence):
            words = "any new point"
        else:
            continue
        if words not in silences:
            silences.append(words)
    silence = f"{', '.join(silences)}; " if silences else ""
    auto_close = policy.auto_close or DEFAULT_AUTO_CLOSE
    closes = f"auto-close after {duration_words(auto_close)} without data"
    if any(isinstance(condition, Absence) for condition in policy.conditions):
        return f"{silence}{closes}"
    return f"the condition no longer holding; {silence}{closes}"


def explain(policy: Policy) -> str:
    """The whole policy as English sentences: what is measured how, when it opens, what ends it."""
    joined = {
        Combiner.ALL: "; and, at the same time, ",
        Combiner.ALL_ON_ONE_RESOURCE: "; and, at the same time on the same resource, ",
    }.get(policy.combiner or Combiner.ANY, "; or ")
    when = joined.join(_condition_sentence(condition) for condition in policy.conditions)
    many = any(_lines(condition) for condition in policy.conditions)
    each = " Each combination of labels is judged alone and opens an incident of its own."
    return f"Opens when {when}.{each if many else ''} Closed by {closing_words(policy)}."


def _lines(condition: Condition) -> bool:
    """Whether a condition judges more lines than one."""
    if not isinstance(condition, Threshold | Ratio | Absence):
        return False
    steps = (condition.aggregation,) if isinstance(condition, Ratio) else condition.steps
    last = steps[-1] if steps else None
    return last is None or last.reducer is Reducer.REDUCE_NONE or bool(last.group_by)


def _condition_sentence(condition: Condition) -> str:
    if isinstance(condition, Verbatim):
        return f"{_LANGUAGES[next(iter(condition.body))]} says so (“{condition.key}”)"
    if isinstance(condition, LogMatch):
        return f"a log entry matches `{' '.join(condition.filter.split())}`"
    if isinstance(condition, PromQL):
        every = duration_words(condition.interval)
        return (
            f"the PromQL query `{' '.join(condition.query.split())}`, run every {every}, has a "
            f"result {_lasting(condition.duration)}"
        )
    if isinstance(condition, Absence):
        what = _measured(condition.signal, condition.steps)
        return f"{what} has no data for {duration_words(condition.duration)}"
    enough = _trigger_words(condition.trigger)
    if isinstance(condition, Ratio):
        what = (
            f"{_measured(condition.signal, (condition.aggregation,))} divided by "
            f"{_measured(condition.denominator, (condition.below_aggregation,))}"
        )
    else:
        what = _measured(condition.signal, condition.steps)
    if isinstance(condition, Threshold) and condition.forecast is not None:
        return (
            f"{what} is predicted to be {_limit_words(condition)} within "
            f"{duration_words(condition.forecast)}{enough}"
        )
    if condition.duration:
        lasting = f"stays {_limit_words(condition)} for {duration_words(condition.duration)}"
    else:
        lasting = f"is {_limit_words(condition)} once"
    return f"{what} {lasting}{enough}"


def _trigger_words(trigger: Trigger) -> str:
    if trigger.percent is not None:
        return f", in at least {trigger.percent:g} % of the series"
    return f", in at least {trigger.count} series" if trigger.count > 1 else ""


def _selected(signal: Signal) -> str:
    metric = signal.metric
    name = "the series" if metric is None else metric.type.removeprefix("workload.googleapis.com/")
    terms = [signal.resource_type] if signal.resource_type else []
    terms += [f"{label} {value}" for label, value in sorted(signal.labels.items())]
    terms += [f"{label} {value}" for label, value in sorted(signal.resource_labels.items())]
    terms += [" ".join(signal.where.split())] if signal.where else []
    return f"{name} ({', '.join(terms)})" if terms else name


def _measured(signal: Signal, steps: tuple[Aggregation, ...]) -> str:
    words = _selected(signal)
    for number, step in enumerate(steps):
        if step.aligner in _ALIGNED:
            inner = f"that ({words})" if number else words
            words = f"{_ALIGNED[step.aligner]} {inner} in {duration_words(step.period)}"
        if step.reducer in _REDUCED:
            groups = f"per {' and '.join(step.group_by)}" if step.group_by else "over all series"
            words = f"{words}, {_REDUCED[step.reducer]} {groups},"
    return words
