"""Where in the code a policy of a catalog is declared, down to the line of a field.

A finding is read beside the code it is about. The values themselves do not know where they were
made, so the files that hold them are read: the call that names the subject is the policy's, the
call that names the key is the condition's. Where a policy is computed the file is all there is.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from alerts.candidate import Origin
from alerts.document import Path, Position
from alerts.policy import Catalog, Policy

_POLICY_FIELDS = {
    "displayName": ("title",),
    "documentation": ("guidance", "documentation"),
    "userLabels": ("owner", "labels"),
    "conditions": ("conditions",),
    "combiner": ("combiner",),
    "severity": ("severity", "tiers"),
    "alertStrategy": ("auto_close", "strategy"),
    "enabled": ("enabled",),
}
_CONDITION_FIELDS = {
    "filter": ("filter", "signal"),
    "aggregations": ("aggregations", "aggregation"),
    "denominatorFilter": ("denominator",),
    "denominatorAggregations": ("denominator",),
    "comparison": ("above", "below"),
    "thresholdValue": ("above", "below"),
    "duration": ("duration",),
    "evaluationMissingData": ("missing_data",),
    "trigger": ("trigger",),
    "query": ("query",),
}


class Declarations:
    """The places where the policies of one catalog are declared."""

    def __init__(self, catalog: Catalog, module_name: str) -> None:
        home = _file_of(sys.modules.get(module_name)) or module_name
        wanted = {id(policy) for policy in catalog.policies}
        self._holding: dict[int, list[str]] = {}
        self._near = [home]
        for name, module in list(sys.modules.items()):
            file = _file_of(module)
            if file is None:
                continue
            if name.startswith(f"{module_name}."):
                self._near.append(file)
            for value in list(vars(module).values()):
                for one in value if isinstance(value, tuple) else (value,):
                    if id(one) in wanted:
                        self._holding.setdefault(id(one), []).append(file)

    def origin(self, policy: Policy, body: Mapping[str, Any]) -> Origin:
        """The file of a policy, and the position of each field that is written there."""
        files = list(dict.fromkeys([*self._holding.get(id(policy), []), *self._near]))
        found = [(call, file) for file in files for call in _calls(file) if _about(call, policy)]
        if not found:
            return Origin(file=shown(files[0]))
        call, file = max(found, key=lambda one: _nearness(one[0], policy))
        return Origin(file=shown(file), positions=_positions(call, file, body))


def shown(file: str) -> str:
    """A path as people near it write it: relative to the working folder when it is below."""
    path = FilePath(file).resolve()
    here = FilePath.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def _file_of(module: object) -> str | None:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") else None


@lru_cache(maxsize=256)
def _calls(file: str) -> tuple[ast.Call, ...]:
    try:
        tree = ast.parse(FilePath(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _literal(call: ast.Call, keyword: str) -> str | None:
    """The text that a call gives a keyword, where it is written out."""
    for one in call.keywords:
        if one.arg == keyword and isinstance(one.value, ast.Constant):
            return one.value.value if isinstance(one.value.value, str) else None
    return None


def _about(call: ast.Call, policy: Policy) -> bool:
    """Whether a call names the subject, or what it begins with: an objective's policies add to
    its subject."""
    subject = _literal(call, "subject")
    return subject is not None and f"{policy.subject}-".startswith(f"{subject}-")


def _nearness(call: ast.Call, policy: Policy) -> tuple[int, bool]:
    """The longest subject is nearest, and the severity tells two of one subject apart."""
    severities = [
        keyword.value.attr.lower()
        for keyword in call.keywords
        if keyword.arg == "severity" and isinstance(keyword.value, ast.Attribute)
    ]
    return len(_literal(call, "subject") or ""), str(policy.severity) in severities


def _positions(call: ast.Call, file: str, body: Mapping[str, Any]) -> dict[Path, Position]:
    found: dict[Path, Position] = {(): _at(call)}
    found.update((path, at) for path, at in _fields(call, _POLICY_FIELDS, ()))
    inside = [node for node in ast.walk(call) if isinstance(node, ast.Call)]
    for index, condition in enumerate(body.get("conditions", ())):
        key = str(condition.get("displayName", ""))
        for one in (*inside, *_calls(file)):
            if _literal(one, "key") == key:
                found["conditions", index] = _at(one)
                for kind in condition:
                    path: Path = ("conditions", index, kind)
                    found.update(_fields(one, _CONDITION_FIELDS, path))
                break
    return found


def _fields(
    call: ast.Call, names: Mapping[str, tuple[str, ...]], above: Path
) -> Iterator[tuple[Path, Position]]:
    keywords = {keyword.arg: keyword for keyword in call.keywords}
    for field, spellings in names.items():
        for spelling in spellings:
            if spelling in keywords:
                yield (*above, field), _at(keywords[spelling])
                break


def _at(node: ast.Call | ast.keyword) -> Position:
    return Position(line=node.lineno, column=node.col_offset + 1)
