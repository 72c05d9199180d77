"""The one form that dashboards are compared and hashed in. Pure.

Whatever means the same to Cloud Monitoring has the same form here: tiles go by their titles and
filters by their syntax trees, a project by id or by number is one project, and what the server or
the console fills in is not there. So a plan after an apply is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alerts.canonical import comparable_filter, free_key, label_path, last_part
from alerts.encode import SPEC_HASH
from dashboards.shape import Json, holds_nothing

_OUTPUT_ONLY = frozenset({"name", "etag"})
_DEFAULTS: Mapping[str, frozenset[Any]] = {
    "targetAxis": frozenset({"Y1"}),
    "plotType": frozenset({"LINE"}),
    "scale": frozenset({"LINEAR"}),
    "mode": frozenset({"COLOR"}),
    "perSeriesAligner": frozenset({"ALIGN_NONE"}),
    "crossSeriesReducer": frozenset({"REDUCE_NONE"}),
    "backgroundColor": frozenset({"#FFFFFF"}),
    "textColor": frozenset({"#212121"}),
    "fontSize": frozenset({"FS_LARGE"}),
    "horizontalAlignment": frozenset({"H_LEFT"}),
    "verticalAlignment": frozenset({"V_TOP"}),
    "padding": frozenset({"P_EXTRA_SMALL"}),
    "apiSource": frozenset({"DEFAULT_CLOUD"}),
}
"""What a member is when nobody has set it. The console writes each of them into what it saves:
so do most of the published dashboards (GoogleCloudPlatform/monitoring-dashboard-samples)."""

_POLICY = re.compile(r"projects/[^/]+/alertPolicies/([^/]+)")
_VARIABLE = re.compile(r"\$\{?\w+\}?")


def canonical_dashboard(body: Mapping[str, Any], policies: Mapping[str, str]) -> Json:
    """A dashboard in REST form, in the form that dashboards are compared in.

    `policies` maps the server's names of policies to `policy:ID`. The spec-hash label is left
    out: it is the hash of this form.
    """
    numbers = {last_part(name): identity for name, identity in policies.items()}
    found = _plain({k: v for k, v in body.items() if k not in _OUTPUT_ONLY}, "", numbers) or {}
    labels = {k: v for k, v in body.get("labels", {}).items() if k != SPEC_HASH}
    filters: Json = {}
    for one in found.pop("dashboardFilters", ()):
        key = free_key(one.get("templateVariable") or one.get("labelKey", ""), filters)
        filters[key] = one
    tiles: Json = {}
    for tile in body.get("mosaicLayout", {}).get("tiles", ()):
        widget = tile.get("widget", {})
        place = {key: tile.get(key, 0) for key in ("xPos", "yPos", "width", "height")}
        # What it shows is said even where it holds nothing else, as a blank does.
        content = {
            key: _plain(value, key, numbers) or {}
            for key, value in widget.items()
            if key not in ("title", "id") or (key == "id" and value)
        }
        tiles[free_key(widget.get("title", ""), tiles)] = {**place, **content}
    if "mosaicLayout" in found:
        found["mosaicLayout"].pop("tiles", None)
    return {**found, "labels": labels, "dashboardFilters": filters, "tiles": tiles}


def _plain(value: Any, field: str, numbers: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        found = {key: _plain(inner, key, numbers) for key, inner in value.items()}
        if isinstance(value.get("filter"), str):
            found["filter"], found["variables"] = _filter(value["filter"])
        return {key: inner for key, inner in found.items() if inner is not None} or None
    if isinstance(value, list):
        if field == "groupByFields":
            return sorted({label_path(one) for one in value}) or None
        plain = [_plain(inner, field, numbers) for inner in value]
        if field == "policyNames":
            return sorted(one for one in plain if one) or None
        return [one if one is not None else {} for one in plain] or None
    if holds_nothing(value) or value in _DEFAULTS.get(field, ()):
        return None
    if isinstance(value, str):
        policy = _POLICY.fullmatch(value)
        return numbers.get(policy[1], value) if policy else value
    # 64-bit numbers come as text, all others as they were sent.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _filter(text: str) -> tuple[str | None, list[str] | None]:
    """The terms in one form, and the variables in one order."""
    variables = sorted(_VARIABLE.findall(text))
    terms = " ".join(_VARIABLE.sub(" ", text).split())
    return comparable_filter(terms) if terms else None, variables or None
