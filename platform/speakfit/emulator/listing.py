"""Filter, order and page the answers of list calls on policies, channels and descriptors.

The filter and order language is the one of "Sorting and filtering" in the API documentation
(https://cloud.google.com/monitoring/api/v3/sorting-and-filtering); time series have their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import operator as operators
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from speakfit.engine.filters import matcher
from speakfit.errors import InvalidArgument

_DEFAULT_PAGE = 1_000

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator>!=|=~|<=|>=|<|>|=|:|\(|\)|,)
      | (?P<word>[A-Za-z0-9_.\-/*$\[\]+@%]+)
    )""",
    re.VERBOSE,
)
Test = Callable[[dict[str, Any]], bool]


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def _at(value: dict[str, Any], path: Sequence[str]) -> Any:
    """What a path finds in a resource given as a snake_case dict; None when absent."""
    found: Any = value
    for index, part in enumerate(path):
        if isinstance(found, (list, str)) and part == "size":
            return len(found)
        if not isinstance(found, dict):
            return None
        name = _snake(part)
        if name in ("user_label", "label") and name not in found:
            name += "s"
        if name in ("user_labels", "labels") and index + 1 < len(path):
            labels = found.get(name)
            key = ".".join(path[index + 1 :])
            return labels.get(key) if isinstance(labels, dict) else None
        # proto-plus adds an underscore to names that Python reserves.
        found = found.get(name, found.get(f"{name}_"))
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def _rank(text: str) -> float | datetime | str:
    """What two texts are compared by: instants, numbers, else letters."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class _Parser:
    """Recursive descent over `a="x" AND (b:"y" OR NOT c=starts_with("z"))`."""

    def __init__(self, text: str) -> None:
        self._source = text
        self._tokens: list[tuple[str, str]] = []
        end = 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise self._error(text[end:].strip()[:1], end)
            kind = str(match.lastgroup)
            self._tokens.append((kind, match.group(kind)))
            end = match.end()
        self._next = 0

    def _error(self, token: str, position: int | None = None) -> InvalidArgument:
        column = "" if position is None else f" at line 1, column {position + 1}"
        return InvalidArgument(
            f"Could not parse filter \"{self._source}\"; syntax error{column}, token '{token}'"
        )

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, *expected: str) -> str:
        _kind, token = self._peek()
        if expected and token not in expected:
            raise self._error(token)
        self._next += 1
        return token

    def parse(self) -> Test:
        test = self._any()
        if self._peek()[0] != "end":
            raise self._error(self._peek()[1])
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._peek() == ("word", "OR"):
            self._take()
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while True:
            kind, token = self._peek()
            if kind == "end" or token in (")", "OR", ","):
                break
            if token == "AND":
                self._take()
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)

    def _one(self) -> Test:
        kind, token = self._peek()
        if token == "(":
            self._take()
            test = self._any()
            self._take(")")
            return test
        if kind == "word" and token in ("NOT", "-"):
            self._take()
            inner = self._one()
            return lambda value: not inner(value)
        if kind != "word":
            raise self._error(token)
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._take()
        # `user_labels."some-key"` arrives as a word ending in a dot and a string.
        if name.endswith(".") and self._peek()[0] == "string":
            name += self._literal()
        path = name.split(".")
        operator = self._take("=", "!=", ":", *_ORDERINGS)
        kind, token = self._peek()
        if kind not in ("word", "string"):
            raise self._error(token)
        if kind == "word" and self._next + 1 < len(self._tokens):
            follower = self._tokens[self._next + 1][1]
            if follower == "(" and token in _FUNCTIONS and operator not in _ORDERINGS:
                self._take()
                self._take("(")
                compare = _FUNCTIONS[token]
                argument = self._literal()
                self._take(")")
                return self._negate(
                    operator,
                    lambda value: (
                        (found := _at(value, path)) is not None and compare(_text(found), argument)
                    ),
                )
        wanted = self._literal()
        if operator in _ORDERINGS:
            ordering, bound = _ORDERINGS[operator], _rank(wanted)
            return lambda value: (
                (found := _at(value, path)) is not None
                and type(rank := _rank(_text(found))) is type(bound)
                and ordering(rank, bound)
            )

        def equal(value: dict[str, Any]) -> bool:
            found = _at(value, path)
            if found is None:
                # proto3 cannot tell an empty field from an absent one.
                return wanted == ""
            if isinstance(found, dict):
                return wanted in found
            if isinstance(found, list):
                return wanted in found
            if operator == ":":
                return wanted in _text(found)
            return _text(found) == wanted

        return self._negate(operator, equal)

    @staticmethod
    def _negate(operator: str, test: Test) -> Test:
        return (lambda value: not test(value)) if operator == "!=" else test

    def _literal(self) -> str:
        kind, token = self._peek()
        if kind == "string":
            self._take()
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if kind == "word":
            return self._take()
        raise self._error(token)


def _full_match(value: str, pattern: str) -> bool:
    return matcher(pattern).fullmatch(value) is not None


_FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "has_substring": str.__contains__,
    "monitoring.regex.full_match": _full_match,
}


def select(items: list[dict[str, Any]], *, filter_text: str, order_by: str) -> list[int]:
    """The positions of the items that the filter keeps, in the order asked for.

    Items are resources as snake_case dicts. A filter or order that cannot be read is an
    InvalidArgument.
    """
    keep = list(range(len(items)))
    if filter_text.strip():
        try:
            test = _Parser(filter_text).parse()
        except RecursionError as error:
            raise InvalidArgument("The filter is nested too deeply.") from error
        keep = [index for index in keep if test(items[index])]
    keys = [part.strip() for part in order_by.split(",") if part.strip()]
    # Python's sort is stable, so the last key is sorted first.
    for key in reversed(keys):
        words = key.lstrip("-").split()
        descending = key.startswith("-") or words[1:] == ["desc"]
        if not words or len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
            raise InvalidArgument.of_field("orderBy", order_by, "the order cannot be read.")
        path = words[0].split(".")

        def rank(index: int, path: list[str] = path) -> tuple[bool, str]:
            found = _at(items[index], path)
            if isinstance(found, int) and not isinstance(found, bool):
                return True, f"{found:020d}"
            return found is not None, "" if found is None else _text(found)

        keep.sort(key=rank, reverse=descending)
    return keep


def page(
    count: int, *, size: int, token: str, limit: int = _DEFAULT_PAGE, about: Sequence[str]
) -> tuple[slice, str]:
    """Which of `count` results this page holds, and the token of the next page or "".

    `about` is everything the listing depends on; a token from another listing is refused.
    """
    if size < 0:
        raise InvalidArgument.of_field("pageSize", size, "must not be negative.")
    digest = hashlib.sha256(json.dumps(list(about)).encode()).hexdigest()[:16]
    start = 0
    if token:
        try:
            start, seen = json.loads(base64.urlsafe_b64decode(token.encode()))
            valid = seen == digest and isinstance(start, int) and start >= 0
        except (ValueError, TypeError):
            valid = False
        if not valid:
            raise InvalidArgument.of_field(
                "pageToken", token[:64], "the token was not made by this listing."
            )
    end = start + min(size or limit, limit)
    following = ""
    if end < count:
        following = base64.urlsafe_b64encode(json.dumps([end, digest]).encode()).decode()
    return slice(start, end), following
