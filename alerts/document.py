"""Reads JSON and YAML and keeps where each value is written, so that a finding can point at it.

JSON is read by rules of its own, not as YAML: tabs, escaped slashes and surrogate pairs are fine in
one and errors in the other.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from speakfit.errors import DocumentError

Path = tuple[str | int, ...]
"""Where in a document: ("conditions", 0, "conditionThreshold", "duration")."""

MAX_VALUES = 200_000
"""Values of one document; aliases of YAML could multiply a short file without end."""

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALARS = json.JSONDecoder()
_TODO = "Correct it there."


@dataclass(frozen=True, kw_only=True, order=True)
class Position:
    """A line and a column of a file, both from 1."""

    line: int
    column: int


def path_text(path: Path) -> str:
    """A path as people write it: `conditions[0].conditionThreshold.duration`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, kw_only=True)
class Document:
    """One value of a file, with the position of every part of it."""

    value: Any
    positions: Mapping[Path, Position]
    """Of a member its name, of an element its beginning."""


def read_documents(text: str, *, file: str) -> tuple[Document, ...]:
    """Every document of a file; several may follow each other, in YAML between `---`.

    A DocumentError says where the file is wrong.
    """
    if file.endswith(".json"):
        return _Json(text, file).documents()
    if text.lstrip().startswith(("{", "[")):
        try:
            return _Json(text, file).documents()
        except DocumentError:
            # Braces are YAML too.
            pass
    return _yaml_documents(text, file)


class _Json:
    """One pass over a text of JSON."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._positions: dict[Path, Position] = {}

    def documents(self) -> tuple[Document, ...]:
        found = []
        at = self._after_space(0)
        while at < len(self._text):
            self._positions = {}
            try:
                value, at = self._value(at, ())
            except json.JSONDecodeError as error:
                raise self._wrong(error.pos, f"{error.msg}.") from error
            except RecursionError as error:
                raise self._wrong(at, "It is nested too deeply.") from error
            found.append(Document(value=value, positions=self._positions))
            at = self._after_space(at)
        return tuple(found)

    def _value(self, at: int, path: Path) -> tuple[Any, int]:
        self._positions.setdefault(path, self._position(at))
        first = self._text[at : at + 1]
        if first == "{":
            return self._object(at + 1, path)
        if first == "[":
            return self._array(at + 1, path)
        return self._scalar(at)

    def _scalar(self, at: int) -> tuple[Any, int]:
        try:
            return _SCALARS.raw_decode(self._text, at)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            # Python refuses integers of thousands of digits.
            raise json.JSONDecodeError("Number out of range", self._text, at) from error

    def _object(self, at: int, path: Path) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self._after_space(at)
        if self._text[at : at + 1] == "}":
            return found, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise json.JSONDecodeError(
                    "Expecting property name enclosed in double quotes", self._text, at
                )
            start = at
            name, at = self._scalar(at)
            if name in found:
                raise json.JSONDecodeError(f"Name {name!r} occurs twice", self._text, start)
            self._positions[(*path, name)] = self._position(start)
            at = self._expect(":", at)
            found[name], at = self._value(at, (*path, name))
            at = self._after_space(at)
            if self._text[at : at + 1] == "}":
                return found, at + 1
            at = self._expect(",", at)

    def _array(self, at: int, path: Path) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self._after_space(at)
        if self._text[at : at + 1] == "]":
            return found, at + 1
        while True:
            value, at = self._value(at, (*path, len(found)))
            found.append(value)
            at = self._after_space(at)
            if self._text[at : at + 1] == "]":
                return found, at + 1
            at = self._expect(",", at)

    def _expect(self, sign: str, at: int) -> int:
        at = self._after_space(at)
        if self._text[at : at + 1] != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r}", self._text, at)
        return self._after_space(at + 1)

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _position(self, at: int) -> Position:
        line = bisect_right(self._lines, at)
        return Position(line=line, column=at - self._lines[line - 1] + 1)

    def _wrong(self, at: int, what: str) -> DocumentError:
        where = self._position(at)
        return DocumentError(
            f"It is not JSON: {what}",
            file=self._file,
            line=where.line,
            column=where.column,
            todo=_TODO,
        )


class _Loader(yaml.CSafeLoader):
    """YAML's safe loader, but dates stay text and 1e3 is a number, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _yaml_documents(text: str, file: str) -> tuple[Document, ...]:
    found = []
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            positions: dict[Path, Position] = {}
            value = loader.construct_document(node)
            _mark(node, (), positions)
            found.append(Document(value=value, positions=positions))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(
            f"It is not YAML: {error.problem or error.context}.",
            file=file,
            line=mark.line + 1 if mark else 1,
            column=mark.column + 1 if mark else 1,
            todo="Put what begins with * in quotes." if "alias" in str(error.context) else _TODO,
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DocumentError(f"It is not YAML: {reason}.", file=file, todo=_TODO) from error
    except (RecursionError, OverflowError) as error:
        raise DocumentError(
            "It is nested too deeply, refers to itself or is too large.", file=file, todo=_TODO
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    return tuple(document for document in found if document.value is not None)


def _mark(node: yaml.Node, path: Path, positions: dict[Path, Position]) -> None:
    positions.setdefault(path, _start(node))
    if len(positions) > MAX_VALUES:
        raise OverflowError
    if isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            _mark(element, (*path, index), positions)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            positions[below] = _start(key)
            _mark(value, below, positions)


def _start(node: yaml.Node) -> Position:
    return Position(line=node.start_mark.line + 1, column=node.start_mark.column + 1)
