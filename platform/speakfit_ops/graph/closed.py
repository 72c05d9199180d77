"""What belongs together, and what of it is missing. Pure.

A metric is exported by the code and drawn on a panel; a policy reads metrics, pages in a scenario,
has a runbook, an alert chart and a drill that passed; a runbook is led to. Whatever breaks one of
these is a finding: a thing that nobody proves, or that nobody finds at night.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from alerts.condition import signals
from alerts.policy import Catalog
from dashboards.board import Board
from dashboards.widget import AlertChart


class Kind(StrEnum):
    """What a node of the graph is."""

    METRIC = "metric"
    POLICY = "policy"
    SCENARIO = "scenario"
    RUNBOOK = "runbook"
    PANEL = "panel"
    ALERT_CHART = "alert chart"
    DRILL = "drill"


@dataclass(frozen=True, kw_only=True, order=True)
class Node:
    """One thing, under the name that people call it by."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """All that the graph is made of, as it was read."""

    catalog: Catalog
    metrics: Mapping[str, str]
    """Declared metrics: the name by type."""
    exported: frozenset[str]
    """Types of the metrics that some code of ours writes."""
    boards: tuple[Board, ...]
    scenarios: Mapping[str, frozenset[str]]
    """Ids of the policies that must page, by scenario."""
    loads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Ids of the policies that a load's contract names, by load."""
    runbooks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Pages that a page links, by subject."""
    doors: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Pages that a document outside the runbooks links, by document."""
    drills: frozenset[str] | None = None
    """Policies with a drill that passed; None as long as no drills are recorded at all."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes that are there, and edges, whose ends need not be."""

    nodes: tuple[Node, ...]
    edges: frozenset[tuple[Node, Node]]

    def of(self, kind: Kind) -> list[Node]:
        """The nodes of one kind, in their order."""
        return [node for node in self.nodes if node.kind is kind]

    def between(self, one: Kind, other: Kind) -> Iterator[tuple[Node, Node]]:
        """Edges from one kind to another, sorted."""
        for left, right in sorted(self.edges):
            if left.kind is one and right.kind is other:
                yield left, right


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is missing or leads nowhere, and what to do about it."""

    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.what}\n  to do: {self.todo}"


def make_graph(sources: Sources) -> Graph:
    """The nodes and edges of what was read."""
    name = {**{one: one for one in _read_types(sources.catalog)}, **sources.metrics}
    metric = {found: Node(kind=Kind.METRIC, name=shown) for found, shown in name.items()}
    nodes = [metric[found] for found in sources.metrics]
    edges: set[tuple[Node, Node]] = set()

    def policy(identity: str) -> Node:
        return Node(kind=Kind.POLICY, name=identity)

    def runbook(subject: str) -> Node:
        return Node(kind=Kind.RUNBOOK, name=subject)

    for one in sources.catalog.policies:
        nodes.append(policy(one.id))
        edges.add((policy(one.id), runbook(one.runbook)))
        for condition in one.conditions:
            for signal in signals(condition):
                if signal.metric is not None:
                    edges.add((metric[signal.metric.type], policy(one.id)))
    for board in sources.boards:
        for panel in board.panels():
            alert = isinstance(panel.widget.content, AlertChart)
            node = Node(kind=Kind.PANEL, name=f"{board.id}: {panel.title}")
            if alert:
                [identity] = panel.policies
                node = Node(kind=Kind.ALERT_CHART, name=f"{identity} on {board.id}")
            nodes.append(node)
            edges |= {(policy(identity), node) for identity in panel.policies}
            edges |= {(runbook(subject), node) for subject in panel.runbooks}
            if not alert:
                edges |= {
                    (metric.get(found, Node(kind=Kind.METRIC, name=found)), node)
                    for found in panel.metrics
                }
    for subject, linked in sources.runbooks.items():
        nodes.append(runbook(subject))
        edges |= {(runbook(subject), runbook(other)) for other in linked}
    for named, pages in (*sources.scenarios.items(), *sources.loads.items()):
        node = Node(kind=Kind.SCENARIO, name=named)
        nodes.append(node)
        edges |= {(policy(identity), node) for identity in pages}
    for identity in sorted(sources.drills or ()):
        node = Node(kind=Kind.DRILL, name=identity)
        nodes.append(node)
        edges.add((policy(identity), node))
    return Graph(nodes=tuple(nodes), edges=frozenset(edges))


def _read_types(catalog: Catalog) -> Iterator[str]:
    for policy in catalog.policies:
        for condition in policy.conditions:
            for signal in signals(condition):
                if signal.metric is not None:
                    yield signal.metric.type


def findings(graph: Graph, sources: Sources) -> list[Finding]:
    """Everything that is missing, in the order of kinds; empty when the graph is closed."""
    return [
        *_dead_links(graph, sources),
        *_unexported(sources),
        *_missing(graph, sources),
        *_orphans(graph, sources),
    ]


_TO_DO = {
    Kind.METRIC: "Declare it in platform/speakfit/metrics.py, or correct who names it.",
    Kind.POLICY: "Correct the id: `python -m alerts list` has them all.",
    Kind.RUNBOOK: "Write runbooks/{name}.md, or correct the link.",
}


def _dead_links(graph: Graph, sources: Sources) -> Iterator[Finding]:
    there = set(graph.nodes)
    for left, right in sorted(graph.edges):
        for gone, by in ((left, right), (right, left)):
            if gone not in there:
                yield Finding(
                    what=f"Dead link: {by} names the {gone}, which is not there.",
                    todo=_TO_DO.get(gone.kind, "Correct the name.").format(name=gone.name),
                )
    for document, pages in sorted(sources.doors.items()):
        for subject in sorted(pages - sources.runbooks.keys()):
            yield Finding(
                what=f"Dead link: {document} names the runbook {subject}, which is not there.",
                todo=_TO_DO[Kind.RUNBOOK].format(name=subject),
            )


def _unexported(sources: Sources) -> Iterator[Finding]:
    for found, name in sources.metrics.items():
        if found not in sources.exported:
            yield Finding(
                what=f"Not exported: metric {name} is declared, and no code writes it.",
                todo="Record it where it is measured, or delete its declaration.",
            )


def _missing(graph: Graph, sources: Sources) -> Iterator[Finding]:
    wanted = [
        (Kind.METRIC, Kind.PANEL, "is on no panel", "Draw it in dashboards/catalog/."),
        (
            Kind.POLICY,
            Kind.SCENARIO,
            "pages in no scenario",
            "Write one in tests/scenarios/ whose `pages` names it.",
        ),
        (
            Kind.POLICY,
            Kind.ALERT_CHART,
            "has no alert chart",
            "Add `alerts(SUBJECT)` to a board in dashboards/catalog/.",
        ),
    ]
    if sources.drills is not None:
        wanted.append(
            (
                Kind.POLICY,
                Kind.DRILL,
                "has no drill that passed",
                "Run `python -m loadtest drill {name}`.",
            )
        )
    for kind, other, what, todo in wanted:
        # A load's contract may name a policy without proving that it pages.
        joined = {
            left for left, right in graph.between(kind, other) if right.name not in sources.loads
        }
        for node in graph.of(kind):
            if node not in joined:
                yield Finding(what=f"Missing: {node} {what}.", todo=todo.format(name=node.name))
    read = {right for _, right in graph.between(Kind.METRIC, Kind.POLICY)}
    for policy in sources.catalog.policies:
        measured = any(signals(condition) for condition in policy.conditions)
        if measured and Node(kind=Kind.POLICY, name=policy.id) not in read:
            yield Finding(
                what=f"Missing: policy {policy.id} reads no metric.",
                todo="Give its conditions a Signal of a metric record.",
            )


def _orphans(graph: Graph, sources: Sources) -> Iterator[Finding]:
    joined = {node for edge in graph.edges for node in edge}
    for node in graph.of(Kind.SCENARIO):
        # A load may well prove that nothing pages.
        if node not in joined and node.name not in sources.loads:
            yield Finding(
                what=f"Orphan: {node} says of no policy that it must page.",
                todo="Give one of its scenarios `pages`, or delete the file.",
            )
    led = _led_to(graph, sources.doors.values())
    for node in graph.of(Kind.RUNBOOK):
        if node.name not in led:
            yield Finding(
                what=f"Orphan: nothing leads to the {node}: no policy, no other page, no document.",
                todo="Link it from the page where it is needed, or delete it.",
            )


def _led_to(graph: Graph, doors: Iterable[frozenset[str]]) -> set[str]:
    """Runbooks that can be reached: from a policy, from outside, or from one that can be."""
    found = {right.name for _, right in graph.between(Kind.POLICY, Kind.RUNBOOK)}
    found = found.union(*doors)
    while True:
        further = {
            right.name
            for left, right in graph.between(Kind.RUNBOOK, Kind.RUNBOOK)
            if left.name in found
        }
        if further <= found:
            return found
        found |= further
