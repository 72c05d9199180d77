"""A policy that Cloud Monitoring would not take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from alerts.candidate import PLACEHOLDER, Candidate, without_placeholders
from alerts.document import Path
from alerts.metric_facts import MetricFacts
from alerts.rule import Hit, Level, Rule, Surroundings
from speakfit.emulator.resources import POLICY_RESOURCES
from speakfit.engine.objectives import Objective
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.policies import parse_policy
from speakfit.errors import WireError

_ROOT = "alert_policy"
_FIELD = re.compile(rf"{_ROOT}((?:\.[a-z_]+|\[\d+\])*)")
_PART = re.compile(r"\.([a-z_]+)|\[(\d+)\]")
_ACCEPTABLE: Mapping[str, Any] = {
    **dict.fromkeys(
        ("duration", "alignmentPeriod", "autoClose", "period", "renotifyInterval"), "3600s"
    ),
    "evaluationInterval": "30s",
    **dict.fromkeys(("thresholdValue", "count", "percent"), 1),
}
_GUESSES = tuple(
    Descriptor(kind=kind, value_type=value_type)
    for kind, value_type in product(
        MetricKind, (ValueType.DOUBLE, ValueType.INT64, ValueType.DISTRIBUTION, ValueType.BOOL)
    )
)
"""What a metric may be that nobody has declared."""


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """The API's own rules and words, as the engine knows them.

    What is filled in later is taken for right, and an undeclared metric may be anything.
    """
    body = _filled(candidate.body)
    unknown: set[str] = set()
    refusals = []
    for guess in _GUESSES:
        refusal = _refusal(body, candidate.metrics, guess, unknown)
        if refusal is None:
            return
        if PLACEHOLDER in refusal.what:
            # Whatever is filled in there, it is not this.
            return
        refusals.append(refusal)
        if not unknown:
            break
    # Several undeclared metrics may be of different kinds, which one guess for all cannot try.
    if len(unknown) > 1 and len({one.what for one in refusals}) > 1:
        return
    # The guesses that come furthest are few, and the field they fail at is the one to tell.
    fields = Counter(map(_path, refusals))
    refusal = min(refusals, key=lambda one: fields[_path(one)])
    yield Hit(path=_path(refusal), text=f"Cloud Monitoring refuses it: {refusal.what}")


def _refusal(
    body: Any, metrics: Mapping[str, MetricFacts], guess: Descriptor, unknown: set[str]
) -> WireError | None:
    def lookup(name: str) -> Descriptor:
        facts = metrics.get(name)
        if facts is None or facts.kind is None or facts.value_type is None:
            unknown.add(name)
            return guess
        return Descriptor(kind=MetricKind(facts.kind), value_type=ValueType(facts.value_type))

    try:
        parse_policy(
            body, descriptors=lookup, resource_types=POLICY_RESOURCES, objectives=_any_objective
        )
    except WireError as error:
        return error
    return None


def _any_objective(name: str) -> Objective:
    return Objective(name=name, goal=0.5, indicator=None)


def _filled(value: Any, name: str = "") -> Any:
    """The policy with something acceptable in the place of each `${NAME}`."""
    if isinstance(value, dict):
        return {
            key: _filled(one, "userLabels" if name == "userLabels" else key)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_filled(one, name) for one in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if name == "userLabels":
        return without_placeholders(value).lower()
    return _ACCEPTABLE.get(name, without_placeholders(value))


def _path(refusal: WireError) -> Path:
    """The field that a refusal is about, in the spelling of JSON."""
    found = _FIELD.search(refusal.where or refusal.what)
    path: list[str | int] = []
    for name, index in _PART.findall(found[1] if found else ""):
        path.append(int(index) if index else re.sub("_([a-z])", lambda one: one[1].upper(), name))
    return tuple(path)


RULE = Rule(
    id="refused-by-api",
    level=Level.ERROR,
    finds="a policy that Cloud Monitoring would not take",
    why="It fails when it is applied, which is later than now.",
    remedy="Correct the field that the message names; docs/fidelity.md says whose rule it is.",
    check=check,
)
