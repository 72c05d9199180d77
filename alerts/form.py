"""YAML files that people write: read with the place of every value, checked against a schema.

What is wrong is told like a compiler does: file, line, column, what, and what was perhaps meant.
Plain scalars are numbers, `true`, `false`, `null` or text and nothing else: YAML 1.1's `on`,
`0x10` and `1:30` stay what was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from alerts.document import Path
from alerts.nearest import did_you_mean
from alerts.notation import split_words

_DEEPEST = 32
_MOST_VALUES = 200_000
_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}
_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
}
# libyaml's parser is a tenth of the time; wheels have it, a build from source may not.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong in a file; line and column begin at 1, as editors count."""

    file: str
    line: int
    column: int
    what: str
    todo: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.what}"
        return f"{text}\n  to do: {self.todo}" if self.todo else text


@dataclass(frozen=True, kw_only=True)
class _Place:
    line: int
    column: int
    end: int
    """Where the value ends, as a position in the text."""
    start: int


class Form:
    """One YAML file: its value as dicts, lists and scalars, and where each of them stands."""

    def __init__(self, file: str, text: str) -> None:
        """Read it; `problems` says what is wrong, and then `value` may lack it.

        `parsed` is false when it is no YAML at all.
        """
        self.file = file
        self.problems: list[Problem] = []
        self.parsed = False
        self.value: Any = None
        self._text = text
        self._keys: dict[Path, _Place] = {}
        self._places: dict[Path, _Place] = {}
        self._raw: dict[Path, str] = {}
        self._left = _MOST_VALUES
        try:
            root = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            words = [part for part in (error.context, error.problem) if part]
            self.problems.append(
                Problem(
                    file=file,
                    line=mark.line + 1 if mark else 1,
                    column=mark.column + 1 if mark else 1,
                    what=f"Not YAML: {', '.join(words)}.",
                    todo="Look at the indentation, and quote text that holds ': ' or ' #'.",
                )
            )
            return
        except yaml.reader.ReaderError as error:
            self.problems.append(
                Problem(
                    file=file,
                    line=text.count("\n", 0, error.position) + 1,
                    column=1,
                    what=f"Not YAML: {error.reason}.",
                    todo="Save it as UTF-8 without control characters.",
                )
            )
            return
        self.parsed = True
        if root is not None:
            self.value = self._read(root, ())

    def raw(self, path: Path) -> str:
        """A scalar as it was written, `1.0` and `0x10` included."""
        return self._raw[path]

    def problem(self, path: Path, what: str, todo: str = "", *, token: int | None = None) -> None:
        """Note that a value, or one word of it, is wrong."""
        while path and path not in self._places:
            path = path[:-1]
        place = self._places.get(path)
        line, column = (1, 1) if place is None else (place.line, place.column)
        if place is not None and token is not None:
            line, column = self._word(place, token)
        self.problems.append(
            Problem(file=self.file, line=line, column=column, what=what, todo=todo)
        )

    def line(self, path: Path) -> int:
        """The line a value begins in."""
        return self._places[path].line if path in self._places else 1

    def check(self, schema: Mapping[str, Any]) -> None:
        """Note where the value is not what a JSON Schema asks.

        Knows the keywords that our schemas use: type, properties, required, additionalProperties,
        items, minItems, maxItems, enum, pattern, minimum, exclusiveMinimum, anyOf and $ref.
        """
        _Check(self, schema).value(self.value, schema, ())

    def wrong_key(self, path: Path, what: str, todo: str) -> None:
        """Note that a key of a mapping is wrong."""
        place = self._keys[path]
        self.problems.append(
            Problem(file=self.file, line=place.line, column=place.column, what=what, todo=todo)
        )

    def _word(self, place: _Place, token: int) -> tuple[int, int]:
        """Where the n-th word of a text stands, whatever style the text is written in."""
        source = self._text[place.start : place.end]
        offset = 0
        if source[:1] in ("|", ">"):
            offset = source.find("\n") + 1
        elif source[:1] in ('"', "'"):
            offset = 1
        for number, word in enumerate(split_words(source[offset:])):
            offset = source.index(word, offset)
            if number == token:
                break
            offset += len(word)
        before = self._text[: place.start + offset]
        return before.count("\n") + 1, len(before) - before.rfind("\n")

    def _read(self, node: Any, path: Path) -> Any:
        self._left -= 1
        if len(path) > _DEEPEST or self._left < 0:
            # Anchors can hold themselves, or one another a million times.
            if not self.problems:
                self.problem(path, "The file is too deep or too large.", "Use fewer anchors.")
            return None
        self._places[path] = _place(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, n)) for n, item in enumerate(node.value)]
        self._raw[path] = node.value
        return node.value if node.style else _scalar(node.value)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Any] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._places[(*path, "?")] = _place(key)
                self.problem((*path, "?"), "A key must be text.", "Quote it.")
                continue
            if key.value == "<<" and not key.style:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if key.value in found:
                self._keys[(*path, key.value)] = _place(key)
                self.wrong_key(
                    (*path, key.value), f"{key.value!r} is here twice.", "Keep one of them."
                )
                continue
            self._keys[(*path, key.value)] = _place(key)
            found[key.value] = self._read(value, (*path, key.value))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                self.problem(path, "'<<' must name a mapping.", "Anchor a mapping with &name.")
                continue
            for key, value in other.value:
                if key.value not in found:
                    self._keys[(*path, key.value)] = _place(key)
                    found[key.value] = self._read(value, (*path, key.value))
        return found


def _place(node: Any) -> _Place:
    start, end = node.start_mark, node.end_mark
    return _Place(line=start.line + 1, column=start.column + 1, start=start.index, end=end.index)


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Check:
    """Walks a value and a schema together."""

    def __init__(self, form: Form, root: Mapping[str, Any]) -> None:
        self._form = form
        self._definitions: Mapping[str, Any] = root.get("$defs", {})

    def value(self, value: Any, schema: Mapping[str, Any], path: Path) -> None:
        schema = self._resolved(schema)
        if "anyOf" in schema:
            branches = [self._resolved(branch) for branch in schema["anyOf"]]
            chosen = [branch for branch in branches if _is_one(value, branch)]
            if not chosen:
                self._wrong(path, value, schema, _either(branches))
            elif len(chosen) == 1:
                self.value(value, chosen[0], path)
            elif not any(value in branch.get("enum", ()) for branch in chosen):
                self.value(value, chosen[-1], path)
            return
        if not _is_one(value, schema):
            self._wrong(path, value, schema, _either([schema]))
        elif isinstance(value, dict):
            self._mapping(value, schema, path)
        elif isinstance(value, list):
            least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
            if not least <= len(value) <= most:
                self._form.problem(
                    path,
                    f"The list has {len(value) or 'nothing'} in it.",
                    _about(schema),
                )
            for number, item in enumerate(value):
                self.value(item, schema.get("items", {}), (*path, number))
        else:
            self._plain(value, schema, path)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" in schema:
            found: Mapping[str, Any] = self._definitions[schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def _mapping(self, value: dict[str, Any], schema: Mapping[str, Any], path: Path) -> None:
        known = schema.get("properties", {})
        name = schema.get("title", "this mapping")
        misspelt = [key for key in value if key not in known]
        for key in schema.get("required", ()):
            # One slip of the pen is one problem.
            if key not in value and not difflib.get_close_matches(key, misspelt, n=1):
                self._form.problem(path, f"{name} lacks {key!r}.", _about(known.get(key, {})))
        for key, item in value.items():
            if key in known:
                self.value(item, known[key], (*path, key))
                continue
            others = schema.get("additionalProperties", True)
            if others is False:
                self._form.wrong_key(
                    (*path, key),
                    f"{name} has no {key!r}.",
                    did_you_mean(key, known, otherwise=f"It has {', '.join(known)}."),
                )
            elif isinstance(others, Mapping):
                self.value(item, others, (*path, key))

    def _plain(self, value: Any, schema: Mapping[str, Any], path: Path) -> None:
        if "enum" in schema and value not in schema["enum"]:
            known = [str(one) for one in schema["enum"]]
            self._form.problem(
                path,
                f"{value!r} is not {' or '.join(known)}.",
                did_you_mean(str(value), known, otherwise=_about(schema)),
            )
        if "pattern" in schema and not re.search(schema["pattern"], value):
            self._form.problem(path, f"{value!r} does not fit.", _about(schema))
        if "minimum" in schema and value < schema["minimum"]:
            self._form.problem(path, f"{value} is below {schema['minimum']}.", _about(schema))
        low = schema.get("exclusiveMinimum")
        if low is not None and value <= low:
            self._form.problem(path, f"{value} is not above {low}.", _about(schema))

    def _wrong(self, path: Path, value: Any, schema: Mapping[str, Any], wanted: str) -> None:
        found = "nothing" if value is None else _NAMES[_type_of(value)]
        self._form.problem(path, f"Here is {found}; it must be {wanted}.", _about(schema))


def _about(schema: Mapping[str, Any]) -> str:
    text: str = schema.get("description", "")
    return text


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next(name for name, kinds in _TYPES.items() if isinstance(value, kinds))


def _is_one(value: Any, schema: Mapping[str, Any]) -> bool:
    wanted = schema.get("type")
    if wanted is None:
        return value is not None
    names: Sequence[str] = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names)


def _either(branches: Sequence[Mapping[str, Any]]) -> str:
    names: list[str] = []
    for branch in branches:
        wanted = branch.get("type", "string")
        names += [wanted] if isinstance(wanted, str) else wanted
    return " or ".join(_NAMES[name] for name in dict.fromkeys(names))
