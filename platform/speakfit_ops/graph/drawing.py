"""Draws the closed graph as an SVG: panels, metrics, policies, and what each policy leads to. Pure.

Four columns, and lines only between neighbours, so that a line can be followed. A line has the
colour of the policies' subject it is about, and is grey where no policy is. The same graph gives
the same text, and the picture follows the reader's light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby

from alerts.picture import DARK, LIGHT, Colours
from alerts.policy import Catalog
from speakfit_ops.graph.closed import Graph, Kind, Node

_WIDTH = 1220
_ROW, _GAP, _TOP = 15, 10, 64
_LEFT_EDGE, _METRIC_X, _POLICY_X, _RIGHT_EDGE = 250, 400, 690, 940
_METRIC_WIDTH, _POLICY_WIDTH = 215, 190
_LEADS = (Kind.ALERT_CHART, Kind.SCENARIO, Kind.RUNBOOK, Kind.DRILL)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Rows under one heading."""

    head: str
    nodes: tuple[Node, ...]

    @property
    def height(self) -> int:
        """Pixels, with the room below it."""
        return _ROW * (len(self.nodes) + bool(self.head)) + _GAP


def draw(graph: Graph, catalog: Catalog) -> str:
    """The whole SVG."""
    left = _boards(graph)
    subjects = list(dict.fromkeys(policy.subject for policy in catalog.policies))
    of = {policy.id: subjects.index(policy.subject) for policy in catalog.policies}
    right = _leads(graph, subjects, of)
    metrics = [_Group(head="", nodes=(node,)) for node in graph.of(Kind.METRIC)]
    policies = [_Group(head="", nodes=(node,)) for node in graph.of(Kind.POLICY)]
    columns = (left, metrics, policies, right)
    tall = max(sum(group.height for group in column) for column in columns)
    places: dict[Node, float] = {}
    heads: list[tuple[str, int, float]] = []
    for number, column in enumerate(columns):
        for node, head, y in _spread(column, tall):
            if node is None:
                heads.append((head, number, y))
            else:
                places[node] = y
    parts = [*_edges(graph, places, of), *_texts(places, heads, of)]
    return _document(parts, tall=_TOP + tall + _GAP)


def _boards(graph: Graph) -> list[_Group]:
    """The panels that draw a metric, board by board."""
    drawn = {right for _, right in graph.between(Kind.METRIC, Kind.PANEL)}
    nodes = [node for node in graph.of(Kind.PANEL) if node in drawn]
    return [
        _Group(head=f"dashboard {board}", nodes=tuple(panels))
        for board, panels in groupby(nodes, key=lambda node: node.name.partition(": ")[0])
    ]


def _leads(graph: Graph, subjects: list[str], of: Mapping[str, int]) -> list[_Group]:
    """What policies lead to, subject by subject; then what is of no one subject."""
    owner = {
        right: subjects[of[left.name]]
        for kind in (Kind.ALERT_CHART, Kind.DRILL)
        for left, right in graph.between(Kind.POLICY, kind)
        if left.name in of
    }
    nodes = [node for kind in _LEADS for node in graph.of(kind)]
    groups = [
        _Group(
            head=subject,
            nodes=tuple(node for node in nodes if owner.get(node, node.name) == subject),
        )
        for subject in subjects
    ]
    grouped = {node for group in groups for node in group.nodes}
    others = tuple(node for node in nodes if node not in grouped)
    return [*groups, _Group(head="of no one subject", nodes=others)] if others else groups


def _spread(column: list[_Group], tall: float) -> Iterator[tuple[Node | None, str, float]]:
    """Each row's middle: a column shorter than the tallest is spread over its height."""
    used = sum(group.height for group in column)
    room = (tall - used) / len(column) if column else 0
    y = float(_TOP) + room / 2
    for group in column:
        top = y
        if group.head:
            yield None, group.head, y + _ROW / 2
            y += _ROW
        for node in group.nodes:
            yield node, "", y + _ROW / 2
            y += _ROW
        y = top + group.height + room


def _edges(graph: Graph, places: Mapping[Node, float], of: Mapping[str, int]) -> Iterator[str]:
    policies_of: dict[Node, set[str]] = {}
    for metric, policy in graph.between(Kind.METRIC, Kind.POLICY):
        policies_of.setdefault(metric, set()).add(policy.name)
    watched: dict[Node, set[str]] = {}
    for policy, panel in graph.between(Kind.POLICY, Kind.PANEL):
        watched.setdefault(panel, set()).add(policy.name)
    for metric, panel in graph.between(Kind.METRIC, Kind.PANEL):
        if panel in places:
            shared = sorted(policies_of.get(metric, set()) & watched.get(panel, set()))
            tint = f"c{of[shared[0]]}" if shared else "g"
            yield _curve(_LEFT_EDGE, places[panel], _METRIC_X, places[metric], tint)
    for metric, policy in graph.between(Kind.METRIC, Kind.POLICY):
        start = _METRIC_X + _METRIC_WIDTH
        yield _curve(start, places[metric], _POLICY_X, places[policy], f"c{of[policy.name]}")
    for kind in _LEADS:
        for policy, node in graph.between(Kind.POLICY, kind):
            start = _POLICY_X + _POLICY_WIDTH
            tint = f"c{of[policy.name]}"
            if node in places and policy in places:
                yield _curve(start, places[policy], _RIGHT_EDGE, places[node], tint)


def _curve(x1: float, y1: float, x2: float, y2: float, tint: str) -> str:
    middle = (x1 + x2) / 2
    return (
        f'<path class="e {tint}" d="M{x1:g} {y1:.1f}C{middle:g} {y1:.1f} {middle:g} {y2:.1f} '
        f'{x2:g} {y2:.1f}"/>'
    )


def _texts(
    places: Mapping[Node, float], heads: list[tuple[str, int, float]], of: Mapping[str, int]
) -> Iterator[str]:
    for edge, anchor, title in (
        (_LEFT_EDGE, "end", "Panels"),
        (_METRIC_X, "start", "Metrics"),
        (_POLICY_X, "start", "Policies"),
        (_RIGHT_EDGE + 8, "start", "Proof and help"),
    ):
        yield f'<text class="i h" x="{edge}" y="40" text-anchor="{anchor}">{title}</text>'
    for head, column, y in heads:
        edge, anchor = (_LEFT_EDGE - 8, "end") if column == 0 else (_RIGHT_EDGE + 8, "start")
        yield f'<text class="q b" x="{edge}" y="{y + 4:.1f}" text-anchor="{anchor}">{head}</text>'
    for node, y in places.items():
        x, anchor, name, kind = float(_LEFT_EDGE - 8), "end", node.name, "i"
        if node.kind in (Kind.METRIC, Kind.POLICY):
            wide = _METRIC_WIDTH if node.kind is Kind.METRIC else _POLICY_WIDTH
            left = _METRIC_X if node.kind is Kind.METRIC else _POLICY_X
            x, anchor = left + wide / 2, "middle"
            frame = f"c{of[node.name]}" if node.kind is Kind.POLICY else "g"
            yield (
                f'<rect class="s {frame}" x="{left}" y="{y - 10:.1f}" width="{wide}" '
                f'height="20" rx="4"/>'
            )
        elif node.kind is not Kind.PANEL:
            x, anchor = _RIGHT_EDGE + 8, "start"
        if node.kind is Kind.PANEL:
            name = name.partition(": ")[2]
        if node.kind in _LEADS:
            name = f"{node.kind}: {name}"
        yield (
            f'<text class="{kind}" x="{x:g}" y="{y + 4:.1f}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )


def _style(colours: Colours) -> str:
    tints = "".join(f".c{n}{{stroke:{tint}}}" for n, tint in enumerate(colours.lines))
    return (
        f".s{{fill:{colours.surface}}}.i{{fill:{colours.ink}}}.q{{fill:{colours.quiet}}}"
        f".g{{stroke:{colours.quiet};stroke-opacity:.45}}{tints}"
    )


def _document(parts: list[str], *, tall: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {tall:.0f}" '
        f'width="{_WIDTH}" height="{tall:.0f}" role="img" aria-labelledby="title desc" '
        'font-family="system-ui,-apple-system,&quot;Segoe UI&quot;,Roboto,'
        '&quot;DejaVu Sans&quot;,sans-serif" font-size="11">\n'
        '<title id="title">The closed graph</title>\n'
        '<desc id="desc">Which panels draw which metrics, which policies read them, and the '
        "alert charts, scenarios, runbooks and drills of each policy.</desc>\n"
        f"<style>.e{{fill:none;stroke-width:1.2}}.h{{font-size:15px;font-weight:600}}"
        f".b{{font-weight:600}}{_style(LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_style(DARK)}}}</style>\n"
        '<rect class="s" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
