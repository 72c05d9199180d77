"""What Cloud Monitoring answers, as data: one YAML file a subject, read into cases.

Every case names its source and says how sure we are (documented, observed, assumed) and whether it
has been run against Google itself. Shorthand of the files:

    set: {conditions[0].duration: 30s}   changes to the file's `base` request; null removes
    "@-60s"                              a time, counted from the clock of the case
    "${made.name}"                       a field of an earlier answer (`as: made`); ${project}
    !times {of: x, count: 513}           text or list repeated; `#` in a list's text is the index
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
PROJECT = "projects/conformance"

_TIMES = "!times"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"@(-?\d+(?:\.\d+)?)([smhd])\b")
_REFERENCE = re.compile(r"\$\{([^}]+)\}")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class Surface(StrEnum):
    """Where a case can run."""

    ENGINE = "engine"
    GRPC = "grpc"
    REST = "rest"


class Kind(StrEnum):
    """What is compared: an answer to a call, aggregated points, a policy's story, raw input."""

    CALL = "call"
    POINTS = "points"
    STORY = "story"
    HTTP = "http"
    BYTES = "bytes"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One expectation; `body` is what its kind needs."""

    file: str
    name: str
    kind: Kind
    source: str
    status: str
    gcp_verified: bool
    surfaces: tuple[Surface, ...]
    given: tuple[Mapping[str, Any], ...]
    body: Mapping[str, Any] = field(repr=False)

    @property
    def node(self) -> str:
        """How the table of rules names it."""
        return f"tests/conformance/{self.file}::{self.name}"


class _Loader(yaml.SafeLoader):
    """YAML without its guesses: times stay text, and only true and false are booleans."""


_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern)
        for tag, pattern in found
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    ]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def _numbered(value: Any, index: int) -> Any:
    if isinstance(value, str):
        return value.replace("#", str(index))
    if isinstance(value, dict):
        return {key.replace("#", str(index)): _numbered(one, index) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbered(one, index) for one in value]
    return value


def _times(loader: _Loader, node: yaml.MappingNode) -> Any:
    """Left as a marker: what it refers to may not be read yet."""
    return {_TIMES: loader.construct_mapping(node, deep=True)}


_Loader.add_constructor("!times", _times)


def _repeated(value: Any) -> Any:
    """A value with its `!times` carried out."""
    if isinstance(value, list):
        return [_repeated(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _TIMES not in value:
        return {key: _repeated(one) for key, one in value.items()}
    of, count = _repeated(value[_TIMES]["of"]), value[_TIMES]["count"]
    if isinstance(of, str) and "#" not in of:
        return of * count
    return [_numbered(of, index) for index in range(count)]


def _path(text: str) -> list[str | int]:
    return [int(index) if index else name for name, index in _STEP.findall(text)]


def changed(base: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a request with values set at paths; None removes, missing parents are made."""
    made = copy.deepcopy(base)
    for text, value in changes.items():
        *parents, last = _path(text)
        target = made
        for step in parents:
            target = target.setdefault(step, {}) if isinstance(step, str) else target[step]
        if value is None:
            target.pop(last, None)
        elif isinstance(last, int) and last == len(target):
            target.append(value)
        else:
            target[last] = value
    return made


def filled(value: Any, *, now: datetime, answers: Mapping[str, Any]) -> Any:
    """A value with its times and references put in."""

    def found(match: re.Match[str]) -> str:
        target: Any = {**answers, "project": PROJECT}
        for step in _path(match.group(1)):
            target = target[step]
        return str(target)

    def moment(match: re.Match[str]) -> str:
        at = now + timedelta(seconds=float(match.group(1)) * _UNITS[match.group(2)])
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    if isinstance(value, str):
        return _REFERENCE.sub(found, _TIME.sub(moment, value))
    if isinstance(value, dict):
        return {
            filled(key, now=now, answers=answers): filled(one, now=now, answers=answers)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [filled(one, now=now, answers=answers) for one in value]
    return value


def _case(file: str, top: Mapping[str, Any], raw: Mapping[str, Any]) -> Case:
    kind = next(
        kind
        for kind in (Kind.STORY, Kind.POINTS, Kind.HTTP, Kind.BYTES, Kind.CALL)
        if kind in raw or kind is Kind.CALL
    )
    body = {**top.get("common", {}), **raw}
    if "set" in raw:
        body["request"] = changed(top["base"], raw["set"])
    return Case(
        file=file,
        name=raw["name"],
        kind=kind,
        source=raw.get("source", top.get("source", "")),
        status=raw.get("status", top.get("status", "")),
        gcp_verified=raw.get("gcp_verified", top["gcp_verified"]),
        surfaces=tuple(Surface(one) for one in raw.get("on", top["on"])),
        given=(*top.get("given", ()), *raw.get("given", ())),
        body=body,
    )


def read(file: Path) -> list[Case]:
    """All cases of one file."""
    top = _repeated(yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader))
    return [_case(file.name, top, raw) for raw in top["cases"]]


CASES = [case for file in sorted(FOLDER.glob("*.yaml")) for case in read(file)]
