"""Google's published alert policies, where a checkout of them is at hand."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from speakfit.engine.conditions import AbsenceCondition, ThresholdCondition
from speakfit.engine.filters import parse_filter
from speakfit.engine.incidents import PolicyState, replay
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import AlertPolicySpec, parse_policy
from tests.speakfit.engine.build import histogram, minutes, remembering

CORPUS = Path(os.environ.get("SPEAKFIT_CORPUS", Path(__file__).parents[4] / "shared" / "corpus"))
POLICIES = sorted((CORPUS / "alert-policies").glob("*.json"))
MATCHING = {"[a-f0-9]{7,10}": "0123abc", "[a-z0-9]{5}": "x1y2z"}
"""Text that satisfies the regular expressions of the corpus."""
pytestmark = pytest.mark.skipif(
    not POLICIES, reason="no corpus of Google's policies; SPEAKFIT_CORPUS names its folder"
)


def read(path: Path) -> dict[str, Any]:
    text = re.sub(r"\$\{[A-Za-z0-9_]+\}", "filled-in", path.read_text(encoding="utf-8"))
    raw: dict[str, Any] = json.loads(text)
    return raw


def descriptor_for(aggregations: list[dict[str, Any]]) -> Descriptor:
    """Kind and type that the first aggregation is meant for."""
    first = aggregations[0] if aggregations else {}
    aligner = first.get("perSeriesAligner", "ALIGN_NONE")
    reducer = first.get("crossSeriesReducer", "")
    if aligner in ("ALIGN_COUNT_TRUE", "ALIGN_COUNT_FALSE", "ALIGN_FRACTION_TRUE"):
        return Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.BOOL)
    if "ALIGN_PERCENTILE" in aligner:
        return Descriptor(kind=MetricKind.DELTA, value_type=ValueType.DISTRIBUTION)
    if aligner == "ALIGN_DELTA" and "PERCENTILE" in reducer:
        return Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.DISTRIBUTION)
    if aligner in ("ALIGN_DELTA", "ALIGN_RATE"):
        return Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.DOUBLE)
    return Descriptor(kind=MetricKind.GAUGE, value_type=ValueType.DOUBLE)


def descriptors(raw: dict[str, Any]) -> dict[str, Descriptor]:
    found = {}
    for condition in raw["conditions"]:
        body = condition.get("conditionThreshold") or condition.get("conditionAbsent")
        if body:
            for name in parse_filter(body["filter"]).metric_types or ():
                found[name] = descriptor_for(body.get("aggregations", []))
    return found


def series_for(spec: AlertPolicySpec, known: dict[str, Descriptor]) -> list[Series]:
    """Rising series of the right kind that every filter of a policy selects."""
    found = []
    at = list(range(0, 60, 1))
    for condition in spec.conditions:
        if not isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            continue
        for name in condition.filter.metric_types or ():
            kind, value_type = known[name].kind, known[name].value_type
            labels: dict[str, dict[str, str]] = {}
            for path, value in re.findall(
                r'(\w+\.\w+\.(?:\w+|"[^"]+")) = (?:\w[\w.]*\()?"([^"]*)"', str(condition.filter)
            ):
                head, _, label = path.rpartition(".") if '"' not in path else (
                    path[: path.index('"') - 1], "", path[path.index('"') + 1 : -1]
                )  # fmt: skip
                for pattern, text in MATCHING.items():
                    value = value.replace(pattern, text)
                labels.setdefault(head, {})[label] = value
            of = SeriesKey.of(
                metric_type=name,
                metric_labels=labels.get("metric.labels"),
                resource_type=min(condition.filter.resource_types or {"generic_task"}),
                resource_labels=labels.get("resource.labels"),
                system_labels=labels.get("metadata.system_labels"),
                user_labels=labels.get("metadata.user_labels"),
            )
            starts = None if kind is MetricKind.GAUGE else minutes(*[-1] * len(at))
            if value_type is ValueType.DISTRIBUTION:
                values = [histogram([1, 1e6, 1e9], [0, 0, one, 0]) for one in at]
                found.append(
                    Series.of_distributions(
                        key=of, kind=kind, end_ns=minutes(*at), start_ns=starts, values=values
                    )
                )
            else:
                found.append(
                    Series.of_numbers(
                        key=of,
                        kind=kind,
                        value_type=value_type,
                        end_ns=minutes(*at),
                        start_ns=starts,
                        values=[
                            float(one % 2 if value_type is ValueType.BOOL else one) for one in at
                        ],
                    )
                )
    return found


@pytest.mark.parametrize("path", POLICIES, ids=[path.stem for path in POLICIES])
def test_a_published_policy_is_valid_and_evaluates(path: Path) -> None:
    raw = read(path)
    known = descriptors(raw)
    spec = parse_policy(raw, descriptors=known.get)
    assert len(spec.conditions) == len(raw["conditions"])
    # Many are published disabled, which would evaluate nothing.
    spec = remembering(spec)
    state, _ = replay(spec, PolicyState.empty(), series_for(spec, known), minutes(*range(1, 90)))
    assert PolicyState.from_json(state.to_json()) == state
    for condition in spec.conditions:
        if isinstance(condition, (ThresholdCondition, AbsenceCondition)):
            assert parse_filter(str(condition.filter)) == condition.filter
            assert len(state.series[condition.name]), "the filter selected none of its own series"
