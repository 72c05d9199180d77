"""Every rule finds what it is for and is silent otherwise, by examples that stand beside it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.candidate import Candidate, Origin
from alerts.checks import all_rules
from alerts.document import path_text
from alerts.metric_facts import MetricFacts
from alerts.rule import Hit, Rule, Surroundings

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples"
DOCUMENT = HERE.parents[2] / "docs" / "lint.md"
RULES = {rule.id: rule for rule in all_rules()}
OF_POLICIES = {rule.id: rule for rule in all_rules() if rule.check}


@cache
def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def changed(body: Any, changes: dict[str, Any]) -> Any:
    """A copy with other values at some paths; null leaves a field out."""
    body = copy.deepcopy(body)
    for path, value in changes.items():
        *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        at = body
        for part in above:
            at = at[part]
        if isinstance(at, list) and last == len(at):
            at.append(value)
        elif value is None:
            del at[last]
        else:
            at[last] = value
    return body


def facts(name: str, fields: dict[str, Any]) -> MetricFacts:
    fields = {**fields, "labels": frozenset(fields["labels"]) if "labels" in fields else None}
    if "buckets" in fields:
        fields["buckets"] = tuple(fields["buckets"])
    if "interval" in fields:
        fields["interval"] = timedelta(seconds=fields["interval"])
    return MetricFacts(type=name, **fields)


def candidate(example: dict[str, Any]) -> Candidate:
    clean = read(HERE / "clean.yaml")
    metrics = {**clean["metrics"], **example.get("metrics", {})}
    body = changed(clean["policy"], example.get("with", {}))
    channels = example.get("channels")
    return Candidate(
        id=body.get("displayName", "unnamed"),
        body=body,
        origin=Origin(file="policy.yaml"),
        metrics={name: facts(name, fields) for name, fields in metrics.items()},
        channels=None if channels is None else frozenset(channels),
    )


def hits(rule: Rule, example: dict[str, Any]) -> list[Hit]:
    checked = candidate(example)
    earlier, later = (
        [
            replace(candidate(other), id=f"other {number}")
            for number, other in enumerate(example.get(when, []))
        ]
        for when in ("earlier", "others")
    )
    runbooks = example.get("runbooks")
    around = Surroundings(
        candidates=(*earlier, checked, *later),
        runbook_base_url="https://runbooks.test",
        runbooks=None if runbooks is None else frozenset(runbooks),
    )
    assert rule.check is not None
    return list(rule.check(checked, around))


def examples(kind: str) -> list[Any]:
    return [
        pytest.param(name, example, id=f"{name}: {example['that']}")
        for name in OF_POLICIES
        if (EXAMPLES / f"{name}.yaml").is_file()
        for example in read(EXAMPLES / f"{name}.yaml").get(kind, ())
    ]


@pytest.mark.parametrize(("name", "example"), examples("fails"))
def test_a_rule_finds(name: str, example: dict[str, Any]) -> None:
    found = hits(RULES[name], example)
    assert example["at"] in [path_text(hit.path) for hit in found]
    assert example.get("says", "") in " ".join(hit.text for hit in found)
    assert example.get("level", RULES[name].level) in [
        hit.level or RULES[name].level for hit in found
    ]


@pytest.mark.parametrize(("name", "example"), examples("passes"))
def test_a_rule_is_silent(name: str, example: dict[str, Any]) -> None:
    assert hits(RULES[name], example) == []


def test_no_rule_has_anything_to_say_about_the_clean_policy() -> None:
    assert {name: hits(rule, {}) for name, rule in OF_POLICIES.items() if hits(rule, {})} == {}


def test_every_rule_has_a_module_both_kinds_of_examples_and_a_section_under_one_name() -> None:
    names = set(RULES)
    folder = HERE.parents[2] / "alerts" / "checks"
    assert {path.stem.replace("_", "-") for path in folder.glob("[a-z]*.py")} == names
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == set(OF_POLICIES)
    for name in OF_POLICIES:
        example = read(EXAMPLES / f"{name}.yaml")
        assert example["fails"]
        assert example["passes"]
    sections = re.findall(r"(?m)^### ([a-z-]+)$", DOCUMENT.read_text(encoding="utf-8"))
    assert sections == sorted(names)


FIELDS = (
    "filter", "query", "duration", "denominatorFilter", "comparison", "aggregations", "conditions",
    "conditionThreshold", "conditionAbsent", "conditionPrometheusQueryLanguage",
)  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["ALIGN_DELTA", "REDUCE_SUM", "60s", "a / a", 'metric.type = "a"']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "url", "x"]), inner)
    ),
    max_leaves=6,
)


def places(value: Any, path: str = "") -> Iterator[str]:
    inside = value.items() if isinstance(value, dict) else ()
    for name, one in enumerate(value) if isinstance(value, list) else inside:
        yield f"{path}{name}"
        yield from places(one, f"{path}{name}/")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_nothing_that_a_file_may_hold_makes_a_rule_fail(data: st.DataObject) -> None:
    clean = read(HERE / "clean.yaml")["policy"]
    path = data.draw(st.sampled_from(sorted(places(clean))))
    example = {"with": {path: data.draw(JSON)}, "others": [{}]}
    for rule in OF_POLICIES.values():
        hits(rule, example)
