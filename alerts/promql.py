"""Reads PromQL into small values that can be compared; matchers have no order.

The grammar is the promql-parser package's, which follows Prometheus 3 with its quoted names, as
Cloud Monitoring's own samples use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import promql_parser as parser

_NAME = "__name__"
_OPERATORS = {
    "MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """One restriction of a selector, such as code=~"5.."."""

    label: str
    operator: str
    """=, !=, =~ or !~."""
    value: str


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Series of one metric; with a range, their recent points."""

    metric: str
    """Empty when the name is not fixed."""
    matchers: frozenset[Matcher]
    """Besides the metric's name."""
    range: timedelta | None = None
    shift: str = ""
    """`offset` and `@` as they are written."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function of its arguments."""

    function: str
    arguments: tuple[Query, ...]


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """An aggregation: sum, avg, topk and so on, by some labels or without some."""

    operator: str
    operand: Query
    by: frozenset[str] | None
    without: frozenset[str] | None
    parameter: Query | None = None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Two sides and what stands between them."""

    operator: str
    left: Query
    right: Query
    on: frozenset[str] | None = None
    ignoring: frozenset[str] | None = None
    one_to_one: bool = True
    """False for set operations and with group_left or group_right."""


@dataclass(frozen=True, kw_only=True)
class Negative:
    """Minus something."""

    operand: Query


@dataclass(frozen=True, kw_only=True)
class Subquery:
    """A query evaluated over a range."""

    operand: Query
    window: str


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A number or a text."""

    value: float | str


Query = Selector | Call | Reduction | Operation | Negative | Subquery | Constant


class QueryError(ValueError):
    """A query that is no PromQL; its text says why."""


@lru_cache(maxsize=1024)
def parse_query(text: str) -> Query:
    """A query; QueryError in the parser's words when it is none."""
    try:
        return _query(parser.parse(text))
    except (ValueError, RecursionError) as error:
        raise QueryError(str(error)) from error


def read_query(text: str) -> Query | None:
    """A query, or None when it is none."""
    try:
        return parse_query(text)
    except QueryError:
        return None


def parts(query: Query) -> Iterator[Query]:
    """A query and everything in it, outermost first."""
    yield query
    for child in _children(query):
        yield from parts(child)


def _children(query: Query) -> tuple[Query, ...]:
    match query:
        case Call(arguments=arguments):
            return arguments
        case Reduction(operand=operand, parameter=parameter):
            return (operand,) if parameter is None else (operand, parameter)
        case Operation(left=left, right=right):
            return (left, right)
        case Negative(operand=operand) | Subquery(operand=operand):
            return (operand,)
    return ()


def _query(node: object) -> Query:
    match node:
        case parser.ParenExpr():
            return _query(node.expr)
        case parser.NumberLiteral() | parser.StringLiteral():
            return Constant(value=node.val)
        case parser.VectorSelector():
            return _selector(node, None)
        case parser.MatrixSelector():
            return _selector(node.vector_selector, node.range)
        case parser.UnaryExpr():
            return Negative(operand=_query(node.expr))
        case parser.SubqueryExpr():
            return Subquery(
                operand=_query(node.expr), window=f"{node.range} {node.step} {_shift(node)}"
            )
        case parser.Call():
            return Call(function=node.func.name, arguments=tuple(map(_query, node.args)))
        case parser.AggregateExpr():
            return _reduction(node)
        case parser.BinaryExpr():
            return _operation(node)
    raise QueryError(f"{type(node).__name__} is not known.")


def _selector(node: parser.VectorSelector, length: timedelta | None) -> Selector:
    if node.matchers.or_matchers:
        raise QueryError("Alternatives between matchers (`or`) are not known.")
    matchers = [
        Matcher(label=one.name, operator=_OPERATORS[str(one.op)], value=one.value)
        for one in node.matchers.matchers
    ]
    names = [one for one in matchers if one.label == _NAME and one.operator == "="]
    return Selector(
        metric=node.name or (names[0].value if len(names) == 1 else ""),
        matchers=frozenset(one for one in matchers if one not in names[:1]),
        range=length,
        shift=_shift(node),
    )


def _shift(node: parser.VectorSelector | parser.SubqueryExpr) -> str:
    shift = "" if node.offset is None else f"offset {node.offset}"
    return shift if node.at is None else f"{shift} @ {node.at.type} {node.at.at}"


def _reduction(node: parser.AggregateExpr) -> Reduction:
    modifier = node.modifier
    labels = frozenset(modifier.labels) if modifier else frozenset()
    without = modifier is not None and modifier.type == parser.AggModifierType.Without
    return Reduction(
        operator=str(node.op),
        operand=_query(node.expr),
        by=None if without else labels,
        without=labels if without else None,
        parameter=None if node.param is None else _query(node.param),
    )


def _operation(node: parser.BinaryExpr) -> Operation:
    modifier = node.modifier
    matching = modifier.matching if modifier else None
    return Operation(
        operator=str(node.op).strip().lower(),
        left=_query(node.lhs),
        right=_query(node.rhs),
        on=frozenset(matching.labels)
        if matching and matching.type == parser.LabelModifierType.Include
        else None,
        ignoring=frozenset(matching.labels)
        if matching and matching.type == parser.LabelModifierType.Exclude
        else None,
        one_to_one=modifier is None or modifier.card == parser.VectorMatchCardinality.OneToOne,
    )
