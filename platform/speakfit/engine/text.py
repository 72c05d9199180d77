"""The words of an incident: its summary line, and documentation with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache

from speakfit.engine.points import SeriesKey

_VARIABLE = re.compile(r"\$\{([^${}]*)\}")
_UNKNOWN = "(null)"
MAX_SUBJECT_BYTES = 255
"""A subject is cut to this many bytes after expansion (facts §1)."""


def number(value: float) -> str:
    """Three decimals, as webhook 1.2 writes observed and threshold values (facts §6)."""
    return f"{value:.3f}"


def _labels(key: SeriesKey) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.metric_labels)


@lru_cache(maxsize=4_096)
def _subject(key: SeriesKey, metric_name: str) -> str:
    resource = ", ".join(f"{name}={value}" for name, value in key.resource_labels)
    where = f"{key.resource_type} labels {{{resource}}}" if resource else key.resource_type
    text = metric_name or key.metric_type
    if where:
        text = f"{text} for {where}"
    return f"{text} with metric labels {{{_labels(key)}}}" if key.metric_labels else text


def threshold_summary(
    key: SeriesKey, *, above: bool, threshold: float, observed: float | None, metric_name: str = ""
) -> str:
    """What an open threshold incident says, after webhook 1.2's wording (facts §6)."""
    side = "above" if above else "below"
    value = "no data" if observed is None else f"a value of {number(observed)}"
    return (
        f"{_subject(key, metric_name)} is {side} the threshold of {number(threshold)} with {value}."
    )


def absence_summary(key: SeriesKey, *, duration: timedelta, metric_name: str = "") -> str:
    """What an open absence incident says (wording assumed)."""
    minutes = duration // timedelta(minutes=1)
    return f"{_subject(key, metric_name)} has had no data for {minutes} minutes."


def closed_summary(key: SeriesKey, *, metric_name: str = "") -> str:
    """What a closed incident says, after the uptime wording of webhook 1.2 (facts §6)."""
    return f"{_subject(key, metric_name)} has returned to a normal state."


def variables(
    *,
    key: SeriesKey,
    policy_name: str = "",
    policy_display_name: str = "",
    policy_user_labels: Mapping[str, str] | None = None,
    condition_name: str = "",
    condition_display_name: str = "",
    project: str = "",
    metric_display_name: str = "",
) -> dict[str, str]:
    """Documentation variables and their values (alerts/doc-variables)."""
    found = {
        "condition.name": condition_name,
        "condition.display_name": condition_display_name,
        "policy.name": policy_name,
        "policy.display_name": policy_display_name,
        "metric.type": key.metric_type,
        "metric.display_name": metric_display_name or key.metric_type,
        "resource.type": key.resource_type,
        "resource.display_name": key.resource_type,
        "project": project,
        "resource.project": project,
    }
    for name, value in (policy_user_labels or {}).items():
        found[f"policy.user_label.{name}"] = value
        found[f"policy.user_labels.{name}"] = value
    for name, value in key.resource_labels:
        found[f"resource.label.{name}"] = value
        found[f"resource.labels.{name}"] = value
        found[f"metric_or_resource.label.{name}"] = value
        found[f"metric_or_resource.labels.{name}"] = value
    for name, value in key.metric_labels:
        # A metric label goes before a resource label of the same name.
        found[f"metric.label.{name}"] = value
        found[f"metric.labels.{name}"] = value
        found[f"metric_or_resource.label.{name}"] = value
        found[f"metric_or_resource.labels.{name}"] = value
    for name, value in key.system_labels:
        found[f"metadata.system_label.{name}"] = value
        found[f"metadata.system_labels.{name}"] = value
    for name, value in key.user_labels:
        found[f"metadata.user_label.{name}"] = value
        found[f"metadata.user_labels.{name}"] = value
    return found


def expand(template: str, values: Mapping[str, str]) -> str:
    """Fill ${variables} in; one that has no value becomes `(null)` (alerts/doc-variables).

    A value is never expanded again, so a label cannot smuggle a variable in.
    """
    return _VARIABLE.sub(lambda found: values.get(found[1].strip(), _UNKNOWN), template)


def expand_subject(template: str, values: Mapping[str, str]) -> str:
    """A subject with its variables filled in, cut to 255 bytes at a character."""
    raw = expand(template, values).encode()[:MAX_SUBJECT_BYTES]
    return raw.decode(errors="ignore")
