"""Suppressions: findings that somebody answers for until a day, kept in a file beside the code.

Each names the rule, the policies, the reason, an owner and an end. When the end has passed the
findings are back; one that suppresses nothing is a finding too, so the file only shrinks or is
looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from alerts.checks import all_rules
from alerts.document import Document, Path, Position, path_text, read_documents
from alerts.nearest import did_you_mean
from alerts.rule import Finding
from speakfit.errors import DocumentError

DEFAULT_FILE = "alerts-suppressions.yaml"

_LIST = "suppressions"
_FIELDS = {
    "rule": "Id of a rule, as in `python -m alerts lint --list-rules`.",
    "policy": "Id of a policy, in files its display name or path; * and ? stand for anything.",
    "reason": "Why the finding may stay.",
    "owner": "Who answers for it.",
    "expires": "The last day on which it counts, YYYY-MM-DD.",
}


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """One finding, or several alike, that may stay for now."""

    rule: str
    policy: str
    """A name with * and ?."""
    reason: str
    owner: str
    expires: date
    """The last day on which it counts."""
    file: str
    position: Position | None

    def matches(self, finding: Finding) -> bool:
        """Whether it is about a finding, expired or not."""
        return finding.rule == self.rule and self.about(finding.subject, finding.file)

    def about(self, subject: str, file: str) -> bool:
        """Whether its policies include one, by name or by file."""
        return fnmatchcase(subject, self.policy) or fnmatchcase(file, self.policy)

    def expired(self, today: date) -> bool:
        """Whether its last day has passed."""
        return today > self.expires


def suppression_schema() -> dict[str, Any]:
    """The JSON Schema of a suppressions file, for editors."""
    rules = [rule.id for rule in all_rules()]
    forms: dict[str, dict[str, Any]] = {
        name: {"type": "string", "minLength": 1, "description": text}
        for name, text in _FIELDS.items()
    }
    forms["rule"]["enum"] = rules
    forms["expires"]["pattern"] = r"^\d{4}-\d{2}-\d{2}$"
    forms["expires"]["format"] = "date"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Suppressions of python -m alerts lint",
        "type": "object",
        "additionalProperties": False,
        "required": [_LIST],
        "properties": {
            _LIST: {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": list(_FIELDS),
                    "properties": forms,
                },
            }
        },
    }


def read_suppressions(text: str, *, file: str) -> tuple[Suppression, ...]:
    """The suppressions of a file; a DocumentError names the line of what is wrong."""
    return tuple(
        one for document in read_documents(text, file=file) for one in _Reader(document, file).all()
    )


class _Reader:
    """Reads one document, and knows where each part of it stands."""

    def __init__(self, document: Document, file: str) -> None:
        self._document = document
        self._file = file

    def all(self) -> Iterator[Suppression]:
        root = self._document.value
        if not isinstance(root, dict):
            raise self._wrong("This is no mapping.", (), f"Begin with `{_LIST}:`.")
        self._refuse_strangers(root, {_LIST}, ())
        listed = root.get(_LIST)
        if not isinstance(listed, list):
            raise self._wrong(f"There is no list {_LIST!r}.", (_LIST,), f"Begin with `{_LIST}:`.")
        for index, one in enumerate(listed):
            yield self._one(one, (_LIST, index))

    def _one(self, body: object, path: Path) -> Suppression:
        if not isinstance(body, dict):
            raise self._wrong("This is no mapping.", path, f"Give it {', '.join(_FIELDS)}.")
        self._refuse_strangers(body, _FIELDS, path)
        rule = self._text(body, "rule", path)
        rules = [rule.id for rule in all_rules()]
        if rule not in rules:
            raise self._wrong(
                f"No rule is called {rule!r}.",
                (*path, "rule"),
                did_you_mean(
                    rule, rules, otherwise="`python -m alerts lint --list-rules` has them."
                ),
            )
        return Suppression(
            rule=rule,
            policy=self._text(body, "policy", path),
            reason=self._text(body, "reason", path),
            owner=self._text(body, "owner", path),
            expires=self._date(body, "expires", path),
            file=self._file,
            position=self._document.positions.get((*path, "rule")),
        )

    def _text(self, body: dict[str, Any], name: str, path: Path) -> str:
        if name not in body:
            raise self._wrong(f"There is no {name!r}.", path, f"Add it: {_FIELDS[name]}")
        value = body[name]
        if not isinstance(value, str) or not value.strip():
            what = "is empty" if value in (None, "") else "is no text"
            raise self._wrong(f"{name!r} {what}.", (*path, name), f"It says: {_FIELDS[name]}")
        return value.strip()

    def _date(self, body: dict[str, Any], name: str, path: Path) -> date:
        text = self._text(body, name, path)
        try:
            # Only this form: fromisoformat reads 20270101 and 2027-W01-1 too.
            if len(text) == len("2027-01-31") and text[4] == text[7] == "-":
                return date.fromisoformat(text)
        except ValueError:
            pass
        raise self._wrong(f"{text!r} is no day.", (*path, name), "Write it like 2027-01-31.")

    def _refuse_strangers(self, body: dict[str, Any], known: Collection[str], path: Path) -> None:
        for name in body:
            if name not in known:
                raise self._wrong(
                    f"{name!r} is not known here.",
                    (*path, str(name)),
                    did_you_mean(str(name), known, otherwise=f"Use {', '.join(known)}."),
                )

    def _wrong(self, what: str, path: Path, todo: str) -> DocumentError:
        positions = self._document.positions
        at = positions.get(path) or positions.get(path[:-1]) or Position(line=1, column=1)
        field = path_text(path)
        return DocumentError(
            f"{field}: {what}" if field else what,
            file=self._file,
            line=at.line,
            column=at.column,
            todo=todo,
        )
