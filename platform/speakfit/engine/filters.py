"""The filter language of Cloud Monitoring: parsed by a grammar, matched, and printed canonically.

Grammar and operators follow Google's "Monitoring filters" page (api/v3/filters) and the accepted
forms listed in facts §4. NOT binds tightest, then OR, then AND (AIP-160). Two filters are equal
when their canonical texts are: operand order, `label` for `labels`, quoting, layout and
redundant parentheses make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import re2
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from speakfit.engine.points import SeriesKey
from speakfit.errors import InvalidArgument

MAX_FILTER_LENGTH = 2048
"""Characters of a filter in an alert policy (facts §1)."""

_MAX_NESTING = 64
"""Parentheses and NOTs; far more than 2,048 characters of a sensible filter need."""

_GRAMMAR = r"""
    ?start: conjunction
    ?conjunction: disjunction (_AND? disjunction)*
    ?disjunction: negation (_OR negation)*
    ?negation: _NOT negation -> negate
             | "(" conjunction ")"
             | path OPERATOR _value -> comparison
    path: (WORD | QUOTED) ("." (WORD | QUOTED | NUMBER))*
    _value: QUOTED | WORD | NUMBER | call
    call: FUNCTION "(" [_literal ("," _literal)*] ")"
    _literal: QUOTED | NUMBER | WORD

    _AND.3: /AND(?![A-Za-z0-9_.])/
    _OR.3: /OR(?![A-Za-z0-9_.])/
    _NOT.3: /NOT(?![A-Za-z0-9_.])/
    OPERATOR.2: "!=" | ">=" | "<=" | /=(?![~=])/ | ">" | "<" | ":"
    QUOTED: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
    FUNCTION.4: /[a-z_]+(?:\.[a-z_]+)*(?=\s*\()/
    NUMBER.1: /-?(?:\d+\.\d+|\d+)(?:[eE][+-]?\d+)?(?![A-Za-z0-9_\-\/])/
    WORD: /[A-Za-z_\/][A-Za-z0-9_\-\/]*/
    %ignore /\s+/
"""

_STRAY_TOKEN = re.compile(r'[=!<>~:]+|"[^"]*"?|[\w.\-/]+|\S', re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_FUNCTIONS = {
    "starts_with": 1,
    "ends_with": 1,
    "has_substring": 1,
    "monitoring.regex.full_match": 1,
    "one_of": None,
}
"""Functions by name, with their number of arguments; None means one or more."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function on the right of `=` or `!=`, such as starts_with("api-")."""

    name: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(_quoted(argument) for argument in self.arguments)})"

    def accepts(self, value: str) -> bool:
        """Whether a label value satisfies the function; regular expressions match in full."""
        if self.name == "one_of":
            return value in self.arguments
        argument = self.arguments[0]
        if self.name == "starts_with":
            return value.startswith(argument)
        if self.name == "ends_with":
            return value.endswith(argument)
        if self.name == "has_substring":
            return argument in value
        return matcher(argument).fullmatch(value) is not None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One selector, operator and value."""

    path: tuple[str, ...]
    operator: str
    value: str | float | Call

    def __str__(self) -> str:
        value = self.value
        printed = (
            _quoted(value)
            if isinstance(value, str)
            else str(value)
            if isinstance(value, Call)
            else _number(value)
        )
        return f"{_printed_path(self.path)} {self.operator} {printed}"


@dataclass(frozen=True, kw_only=True)
class Negation:
    """NOT of an expression."""

    operand: Expression

    def __str__(self) -> str:
        inner = str(self.operand)
        return f"NOT ({inner})" if isinstance(self.operand, (All, AnyOf)) else f"NOT {inner}"


@dataclass(frozen=True, kw_only=True)
class All:
    """AND of at least two expressions, sorted and without repetition."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " AND ".join(
            f"({operand})" if isinstance(operand, AnyOf) else str(operand)
            for operand in self.operands
        )


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """OR of at least two expressions, sorted and without repetition."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " OR ".join(
            f"({operand})" if isinstance(operand, All) else str(operand)
            for operand in self.operands
        )


Expression = Comparison | Negation | All | AnyOf
Lookup = Callable[[tuple[str, ...]], Collection[str]]
"""The values a selector has; none means the label is absent."""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


def _unquoted(token: str) -> str:
    """The text of a quoted token; a backslash that escapes nothing is kept for the regex."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), token[1:-1], flags=re.S)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _printed_path(path: tuple[str, ...]) -> str:
    return ".".join(part if _PLAIN_KEY.fullmatch(part) else _quoted(part) for part in path)


class Matcher(Protocol):
    """A regular expression that was read."""

    def fullmatch(self, text: str) -> object | None:
        """Something when it matches the whole text."""


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Matcher:
    """Read a regular expression in RE2's syntax, as Google does; InvalidArgument when it is none.

    RE2 takes linear time whatever the expression: Python's own engine could hang on one.
    """
    try:
        options = re2.Options()
        options.log_errors = False
        found: Matcher = re2.compile(pattern, options)
    except (re2.error, ValueError) as error:
        reason = str(error.args[0]) if error.args else ""
        raise InvalidArgument(f"invalid regular expression: {reason}") from error
    return found


def _combined(kind: type[All] | type[AnyOf], operands: Iterable[Expression]) -> Expression:
    flat: dict[str, Expression] = {}
    for operand in operands:
        for part in operand.operands if isinstance(operand, kind) else (operand,):
            flat[str(part)] = part
    ordered = tuple(flat[text] for text in sorted(flat))
    return ordered[0] if len(ordered) == 1 else kind(operands=ordered)


def _canonical_path(parts: list[str]) -> tuple[str, ...]:
    """`metric.label.k`, `metric.labels.k` and `metadata.user_labels.k` in one spelling each.

    Everything after the label word is one key: dots of an unquoted key belong to it.
    """
    heads = {
        ("metric", "label"): ("metric", "labels"),
        ("metric", "labels"): ("metric", "labels"),
        ("resource", "label"): ("resource", "labels"),
        ("resource", "labels"): ("resource", "labels"),
        ("metadata", "user_label"): ("metadata", "user_labels"),
        ("metadata", "user_labels"): ("metadata", "user_labels"),
        ("metadata", "system_label"): ("metadata", "system_labels"),
        ("metadata", "system_labels"): ("metadata", "system_labels"),
        ("user_label",): ("user_labels",),
        ("user_labels",): ("user_labels",),
        ("label",): ("labels",),
        ("labels",): ("labels",),
    }
    for length in (2, 1):
        head = heads.get(tuple(parts[:length]))
        if head is not None and len(parts) > length:
            return (*head, ".".join(parts[length:]))
    return tuple(parts)


class _Builder(Transformer[Token, Expression]):
    """Turns lark's tree into canonical expressions."""

    def path(self, parts: list[Token]) -> tuple[str, ...]:
        return _canonical_path(
            [_unquoted(part) if part.type == "QUOTED" else str(part) for part in parts]
        )

    def call(self, parts: list[Token | None]) -> Call:
        tokens = [part for part in parts if part is not None]
        arguments = tuple(
            _unquoted(token) if token.type == "QUOTED" else str(token)
            for token in tokens
            if token.type != "FUNCTION"
        )
        name = next(str(token) for token in tokens if token.type == "FUNCTION")
        if name not in _FUNCTIONS:
            raise InvalidArgument(f'unknown function "{name}"')
        wanted = _FUNCTIONS[name]
        if (wanted is None and not arguments) or (wanted is not None and len(arguments) != wanted):
            raise InvalidArgument(f'wrong number of arguments of function "{name}"')
        if name == "monitoring.regex.full_match":
            matcher(arguments[0])
        if name == "one_of":
            arguments = tuple(sorted(set(arguments)))
        return Call(name=name, arguments=arguments)

    def comparison(self, parts: list[object]) -> Comparison:
        path, operator, raw = parts
        assert isinstance(path, tuple)
        value: str | float | Call
        if isinstance(raw, Token):
            if raw.type == "QUOTED":
                value = _unquoted(raw)
            elif raw.type == "NUMBER":
                value = float(raw)
            else:
                value = str(raw)
        else:
            assert isinstance(raw, Call)
            value = raw
        if isinstance(value, Call) and operator not in ("=", "!="):
            raise InvalidArgument(f'operator "{operator}" does not take a function')
        return Comparison(path=path, operator=str(operator), value=value)

    def negate(self, parts: list[Expression]) -> Expression:
        inner = parts[0]
        return inner.operand if isinstance(inner, Negation) else Negation(operand=inner)

    def conjunction(self, parts: list[Expression]) -> Expression:
        return _combined(All, parts)

    def disjunction(self, parts: list[Expression]) -> Expression:
        return _combined(AnyOf, parts)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=False)


def evaluate(expression: Expression, lookup: Lookup) -> bool:
    """Whether an object, seen through `lookup`, satisfies an expression.

    A label that is absent compares like an empty string (assumed; rules.py "absent labels").
    """
    if isinstance(expression, All):
        return all(evaluate(operand, lookup) for operand in expression.operands)
    if isinstance(expression, AnyOf):
        return any(evaluate(operand, lookup) for operand in expression.operands)
    if isinstance(expression, Negation):
        return not evaluate(expression.operand, lookup)
    values = lookup(expression.path) or ("",)
    if expression.operator == "!=":
        return not any(_holds("=", expression.value, value) for value in values)
    return any(_holds(expression.operator, expression.value, value) for value in values)


def _holds(operator: str, wanted: str | float | Call, value: str) -> bool:
    if isinstance(wanted, Call):
        return wanted.accepts(value)
    if operator == ":":
        return (wanted if isinstance(wanted, str) else _number(wanted)) in value
    if operator == "=" and isinstance(wanted, str):
        return value == wanted
    try:
        left, right = float(value), float(wanted)
    except ValueError:
        return False
    return {
        "=": left == right,
        ">": left > right,
        ">=": left >= right,
        "<": left < right,
        "<=": left <= right,
    }[operator]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A parsed filter; prints canonically and equals every filter that means the same text."""

    expression: Expression

    @cached_property
    def _text(self) -> str:
        return str(self.expression)

    def __str__(self) -> str:
        return self._text

    def test(self, lookup: Lookup) -> bool:
        """Whether any object satisfies the filter; for lists of policies, channels, snoozes."""
        return evaluate(self.expression, lookup)

    def matches(
        self, key: SeriesKey, *, project: str = "", group_ids: Collection[str] = ()
    ) -> bool:
        """Whether a series satisfies the filter."""

        def lookup(path: tuple[str, ...]) -> Collection[str]:
            match path:
                case ("metric", "type"):
                    return (key.metric_type,)
                case ("resource", "type"):
                    return (key.resource_type,)
                case ("project",):
                    return (project,)
                case ("group", "id"):
                    return group_ids
                case ("metric", "labels", name):
                    labels = key.metric
                case ("resource", "labels", name):
                    labels = key.resource
                    if name == "project_id" and name not in labels and project:
                        return (project,)
                case ("metadata", "system_labels", name):
                    labels = key.system
                case ("metadata", "user_labels", name):
                    labels = key.user
                case _:
                    return ()
            return (labels[name],) if name in labels else ()

        return evaluate(self.expression, lookup)

    @cached_property
    def metric_types(self) -> frozenset[str] | None:
        """Metric types an object must be one of; None when equality does not pin them."""
        return _pinned(self.expression, ("metric", "type"))

    @cached_property
    def resource_types(self) -> frozenset[str] | None:
        """Resource types an object must be one of; None when equality does not pin them."""
        return _pinned(self.expression, ("resource", "type"))

    def mentions(self, *path: str) -> bool:
        """Whether a selector occurs anywhere in the filter."""
        return any(comparison.path == path for comparison in comparisons(self.expression))


def _pinned(expression: Expression, path: tuple[str, ...]) -> frozenset[str] | None:
    if isinstance(expression, Comparison):
        if expression.path != path or expression.operator != "=":
            return None
        if isinstance(expression.value, str):
            return frozenset({expression.value})
        if isinstance(expression.value, Call) and expression.value.name == "one_of":
            return frozenset(expression.value.arguments)
        return None
    if isinstance(expression, All):
        pins = [pin for part in expression.operands if (pin := _pinned(part, path)) is not None]
        return frozenset.intersection(*pins) if pins else None
    if isinstance(expression, AnyOf):
        parts = [_pinned(part, path) for part in expression.operands]
        known = [part for part in parts if part is not None]
        return frozenset.union(*known) if len(known) == len(parts) else None
    return None


def comparisons(expression: Expression) -> Iterable[Comparison]:
    """Every comparison of an expression, negated or not."""
    if isinstance(expression, Comparison):
        yield expression
    elif isinstance(expression, Negation):
        yield from comparisons(expression.operand)
    else:
        for operand in expression.operands:
            yield from comparisons(operand)


def _known_selector(path: tuple[str, ...]) -> bool:
    match path:
        case ("metric", "type") | ("resource", "type") | ("project",) | ("group", "id"):
            return True
        case ("metric" | "resource", "labels", _):
            return True
        case ("metadata", "system_labels" | "user_labels", _):
            return True
    return False


def _refused(field: str, text: str, rule: str) -> InvalidArgument:
    return InvalidArgument.of_field(field, text, rule)


def _syntax_error(field: str, text: str, error: UnexpectedInput) -> InvalidArgument:
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if at_end:
        position, token = len(text), ""
    else:
        position = error.pos_in_stream or 0
        found = _STRAY_TOKEN.match(text, position)
        token = found[0] if found else text[position : position + 1]
        if isinstance(error, UnexpectedCharacters) and token in ('"', "'"):
            token = text[position:]
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return _refused(
        field,
        text,
        f"Could not parse filter {_quoted(text)}; syntax error at line {line}, column {column}, "
        f"token '{token}'",
    )


def _nesting(text: str) -> int:
    """How deep parentheses and NOTs nest; an upper bound is enough to protect the parser."""
    depth = deepest = 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|\(|\)|\bNOT\b', text):
        if token in ("(", "NOT"):
            depth += 1
            deepest = max(deepest, depth)
        elif token == ")":
            depth = max(0, depth - 1)
    return deepest


@lru_cache(maxsize=4096)
def _parsed(text: str, field: str, any_selector: bool) -> Filter:
    if len(text) > MAX_FILTER_LENGTH:
        raise _refused(
            field, text[:64] + "...", f"the filter must not exceed {MAX_FILTER_LENGTH} characters."
        )
    if not text.strip():
        raise _refused(field, text, "The filter is empty.")
    if _nesting(text) > _MAX_NESTING:
        raise _refused(field, text, "The filter is nested too deeply.")
    try:
        tree = _parser().parse(text)
        expression = _Builder().transform(tree)
    except UnexpectedInput as error:
        raise _syntax_error(field, text, error) from None
    except VisitError as error:
        if isinstance(error.orig_exc, InvalidArgument):
            raise _refused(
                field, text, f"Could not parse filter {_quoted(text)}; {error.orig_exc.what}"
            ) from None
        raise
    if not any_selector:
        for comparison in comparisons(expression):
            if not _known_selector(comparison.path):
                raise _refused(
                    field,
                    text,
                    f"The filter contains unknown selector: {'.'.join(comparison.path)}",
                )
        for path in (("metric", "type"), ("resource", "type")):
            if _restrictions(expression, path) > 1:
                raise _refused(
                    field, text, f"The '{'.'.join(path)}' restriction is used more than once."
                )
    return Filter(expression=expression)


def _restrictions(expression: Expression, path: tuple[str, ...]) -> int:
    """How many different values a conjunction demands of one selector at once."""
    parts = expression.operands if isinstance(expression, All) else (expression,)
    return sum(
        isinstance(part, Comparison)
        and part.path == path
        and part.operator == "="
        and isinstance(part.value, str)
        for part in parts
    )


def parse_filter(text: str, *, field: str = "filter", any_selector: bool = False) -> Filter:
    """Parse a filter on time series; `any_selector` allows the fields of policies and channels.

    Raises InvalidArgument in Google's words (facts §3), naming `field`.
    """
    return _parsed(text, field, any_selector)


def canonical_filter(text: str) -> str:
    """The canonical text of a filter: equal for filters that differ in spelling only."""
    return str(parse_filter(text))
