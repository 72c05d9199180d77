"""Says a condition, a duration or a value in plain English, the same way everywhere.

`list`, `show`, the documentation of a policy, the page and the runbook headers use these words,
so that what an engineer reads at night is what the policy really says.
"""

from __future__ import annotations

from datetime import timedelta

from alerts.policy import (
    MINUTE,
    Absence,
    Combiner,
    Condition,
    MissingData,
    Policy,
    Ratio,
    Threshold,
)

_JOIN = {
    Combiner.ALL: ", and ",
    Combiner.ANY: ", or ",
    Combiner.ALL_ON_ONE_RESOURCE: ", and on the same resource ",
}
_SILENCE = {
    MissingData.KEEPS: "no data keeps it open",
    MissingData.CLOSES: "no data closes it",
    MissingData.VIOLATES: "no data counts as trouble",
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
        return f"{value * 100:g} %"
    if unit.startswith("{"):
        return f"{value:g}"
    return f"{value:g} {unit}"


def condition_words(condition: Condition) -> str:
    """One condition as a phrase: what is measured, the limit, and for how long."""
    lasting = f"for {duration_words(condition.duration)}"
    if isinstance(condition, Absence):
        return f"{condition.key} silent {lasting}"
    if isinstance(condition, Ratio):
        return f"{condition.key} above {value_words(condition.above, '1')} {lasting}"
    window = condition.aggregation.period
    over = f" over {duration_words(window)}" if window > MINUTE else ""
    above = condition.above is not None
    limit = condition.above if condition.above is not None else condition.below
    words = value_words(limit or 0.0, condition.signal.metric.unit)
    return f"{condition.key}{over} {'above' if above else 'below'} {words} {lasting}"


def policy_words(policy: Policy) -> str:
    """All conditions of a policy as one phrase."""
    return _JOIN[policy.combiner].join(condition_words(c) for c in policy.conditions)


def closing_words(policy: Policy) -> str:
    """What ends an incident of this policy."""
    silences: list[str] = []
    for condition in policy.conditions:
        if isinstance(condition, Threshold | Ratio):
            words = _SILENCE[condition.missing_data]
        else:
            words = "any new point closes it"
        if words not in silences:
            silences.append(words)
    closes = f"auto-close after {duration_words(policy.auto_close)} without data"
    if any(isinstance(condition, Absence) for condition in policy.conditions):
        return f"{', '.join(silences)}; {closes}"
    return f"the condition no longer holding; {', '.join(silences)}; {closes}"
