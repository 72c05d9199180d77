"""Finds the policies in JSON and YAML that people keep by hand, and where each field is written.

A file may hold one policy, several documents, a list, or what the API lists (`alertPolicies`).
Names may be written as in JSON or as in the proto (`displayName`, `display_name`); both are what
the API itself reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from alerts.candidate import Candidate, Origin, Path, Position, path_text
from alerts.checks.not_a_policy import RULE as NOT_A_POLICY
from alerts.checks.unreadable_file import RULE as UNREADABLE
from alerts.declaration import shown
from alerts.document import Document, read_documents
from alerts.google_metrics import GOOGLE_METRICS
from alerts.rule import Finding, Rule
from speakfit.errors import CatalogError, DocumentError

SUFFIXES = (".json", ".yaml", ".yml")

_LISTED = "alertPolicies"
_FREE = {"userLabels", "user_labels", "labels", "labelExtractors", "label_extractors"}
"""Below these the names are the writer's own."""
_UNDERSCORE = re.compile(r"_([a-z])")


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """What some files hold: policies, and what is wrong with the files themselves."""

    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]


def policy_files(paths: Sequence[FilePath]) -> list[FilePath]:
    """Every file named, and every JSON and YAML file below a folder named, hidden ones left out.

    A CatalogError when a path is not there or a folder holds none: nothing would be checked.
    """
    found: list[FilePath] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        below = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not below:
            raise CatalogError(
                "There is no JSON and no YAML in this folder.",
                where=f"--files {path}",
                todo="Name the folder that holds the policies.",
            )
        found += below
    for file in found:
        if not file.exists():
            raise CatalogError(
                "There is no such file.",
                where=f"--files {file}",
                todo="Name a file or a folder that is there.",
            )
    return list(dict.fromkeys(found))


def read_policy_files(files: Sequence[FilePath]) -> PolicyFiles:
    """The policies of some files; what cannot be read becomes a finding."""
    candidates: list[Candidate] = []
    findings: list[Finding] = []
    for file in files:
        name = shown(str(file))
        try:
            documents = read_documents(file.read_text(encoding="utf-8-sig"), file=name)
        except DocumentError as error:
            at = Position(line=error.line, column=error.column)
            findings.append(_of_file(UNREADABLE, name, at, error.what))
            continue
        except UnicodeError:
            findings.append(_of_file(UNREADABLE, name, None, "It is not text in UTF-8."))
            continue
        except OSError as error:
            findings.append(_of_file(UNREADABLE, name, None, f"{error.strerror}."))
            continue
        if not documents:
            findings.append(_of_file(NOT_A_POLICY, name, None, "There is nothing in it."))
        for document in documents:
            for path, body in _bodies(document):
                if isinstance(body, dict) and isinstance(body.get("conditions"), list):
                    candidates.append(_candidate(document, path, body, name))
                    continue
                what = f"{path_text(path)}: it" if path else "It"
                text = f"{what} has no list of conditions, so it is not checked."
                findings.append(_of_file(NOT_A_POLICY, name, document.positions.get(path), text))
    return PolicyFiles(candidates=tuple(candidates), findings=tuple(findings))


def _of_file(rule: Rule, file: str, at: Position | None, text: str) -> Finding:
    return Finding(
        rule=rule.id,
        level=rule.level,
        subject=file,
        file=file,
        position=at,
        text=text,
        remedy=rule.remedy,
    )


def _bodies(document: Document) -> list[tuple[Path, Any]]:
    """What may be policies in a document, and where each begins."""
    value = document.value
    above: Path = ()
    if isinstance(value, dict) and isinstance(value.get(_LISTED), list):
        above, value = (_LISTED,), value[_LISTED]
    if isinstance(value, list):
        return [((*above, index), one) for index, one in enumerate(value)]
    return [((), value)]


def _candidate(document: Document, path: Path, raw: dict[str, Any], file: str) -> Candidate:
    body = _camel(raw)
    positions = {
        _camel_path(at[len(path) :]): position
        for at, position in document.positions.items()
        if at[: len(path)] == path
    }
    name = body.get("displayName")
    return Candidate(
        id=" ".join(name.split()) if isinstance(name, str) and name.strip() else file,
        body=body,
        origin=Origin(file=file, positions=positions),
        metrics=GOOGLE_METRICS,
    )


def _camel(value: Any) -> Any:
    """The value with every field named as in JSON."""
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _camel_name(str(name)): one if name in _FREE else _camel(one) for name, one in value.items()
    }


def _camel_path(path: Path) -> Path:
    found: list[str | int] = []
    for index, part in enumerate(path):
        found.append(_camel_name(part) if isinstance(part, str) else part)
        if part in _FREE:
            return (*found, *path[index + 1 :])
    return tuple(found)


def _camel_name(name: str) -> str:
    return _UNDERSCORE.sub(lambda found: found[1].upper(), name)
