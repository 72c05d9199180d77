"""The closed graph of this checkout, and that whatever opens it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from alerts.policies import CATALOG
from speakfit.metrics import POOL_MAX, QUEUE_DEPTH
from speakfit_ops.graph import reading
from speakfit_ops.graph.__main__ import app
from speakfit_ops.graph.closed import Sources, findings, make_graph
from speakfit_ops.graph.drawing import draw


@pytest.fixture(scope="module")
def sources() -> Sources:
    """This checkout."""
    return reading.read_sources()


def _findings(sources: Sources) -> list[str]:
    return [one.what for one in findings(make_graph(sources), sources)]


def test_the_graph_of_this_checkout_is_closed(sources: Sources) -> None:
    assert _findings(sources) == []


def test_the_drawing_in_the_documents_is_of_this_graph(sources: Sources) -> None:
    fresh = draw(make_graph(sources), CATALOG)
    kept = (reading.ROOT / "docs" / "graph.svg").read_text(encoding="utf-8")
    assert kept == fresh, "docs/graph.svg is old; `make docs` draws it anew"
    texts = {element.text for element in ElementTree.fromstring(fresh).iter()}
    assert {metric.partition("/")[2] for metric in sources.metrics} <= texts
    assert {policy.id for policy in CATALOG.policies} <= texts


_QUEUE = "queue-depth-critical"


def _without_panels_of(sources: Sources, metric: str) -> Sources:
    boards = tuple(
        replace(
            board,
            sections=tuple(
                replace(
                    section,
                    panels=tuple(one for one in section.panels if metric not in one.metrics),
                )
                for section in board.sections
            ),
        )
        for board in sources.boards
    )
    return replace(sources, boards=boards)


BREAKS: dict[str, tuple[Callable[[Sources], Sources], str]] = {
    "a runbook is gone": (
        lambda s: replace(s, runbooks={k: v for k, v in s.runbooks.items() if k != "worker-down"}),
        "Dead link: policy worker-down-critical names the runbook worker-down, which is not there.",
    ),
    "a document links a page that is not there": (
        lambda s: replace(s, doors={**s.doors, "docs/x.md": frozenset({"nowhere"})}),
        "Dead link: docs/x.md names the runbook nowhere, which is not there.",
    ),
    "a scenario pages a policy that is not there": (
        lambda s: replace(s, scenarios={**s.scenarios, "night": frozenset({"night-critical"})}),
        "Dead link: scenario night names the policy night-critical, which is not there.",
    ),
    "a load's contract names a policy that is not there": (
        lambda s: replace(s, loads={"load night": frozenset({"night-critical"})}),
        "Dead link: scenario load night names the policy night-critical, which is not there.",
    ),
    "a drill is of a policy that is not there": (
        lambda s: replace(s, drills=frozenset({"old", *(one.id for one in CATALOG.policies)})),
        "Dead link: drill old names the policy old, which is not there.",
    ),
    "a metric is not declared any more": (
        lambda s: replace(s, metrics={k: v for k, v in s.metrics.items() if k != QUEUE_DEPTH.type}),
        f"Dead link: policy {_QUEUE} names the metric {QUEUE_DEPTH.type}, which is not there.",
    ),
    "no code writes a metric": (
        lambda s: replace(s, exported=s.exported - {POOL_MAX.type}),
        f"Not exported: metric {POOL_MAX.name} is declared, and no code writes it.",
    ),
    "a metric is on no panel": (
        lambda s: _without_panels_of(s, POOL_MAX.type),
        f"Missing: metric {POOL_MAX.name} is on no panel.",
    ),
    "a policy pages in no scenario": (
        lambda s: replace(s, scenarios={k: v - {_QUEUE} for k, v in s.scenarios.items()}),
        f"Missing: policy {_QUEUE} pages in no scenario.",
    ),
    "a policy has no alert chart": (
        lambda s: _without_panels_of(s, QUEUE_DEPTH.type),
        f"Missing: policy {_QUEUE} has no alert chart.",
    ),
    "drills are recorded, but not of this policy": (
        lambda s: replace(
            s, drills=frozenset(one.id for one in CATALOG.policies if one.id != _QUEUE)
        ),
        f"Missing: policy {_QUEUE} has no drill that passed.",
    ),
    "a scenario file proves nothing": (
        lambda s: replace(s, scenarios={**s.scenarios, "calm": frozenset()}),
        "Orphan: scenario calm says of no policy that it must page.",
    ),
    "nothing leads to a page": (
        lambda s: replace(
            s,
            # Two lonely pages that link each other are still lonely.
            runbooks={**s.runbooks, "one": frozenset({"two"}), "two": frozenset({"one"})},
        ),
        "Orphan: nothing leads to the runbook one: no policy, no other page, no document.",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_whatever_opens_the_graph_is_told(sources: Sources, how: str) -> None:
    broken, told = BREAKS[how]
    assert told in _findings(broken(sources))


def test_a_page_may_be_reached_over_others(sources: Sources) -> None:
    chain = {"one": frozenset({"two"}), "two": frozenset({"three"}), "three": frozenset[str]()}
    doors = {**sources.doors, "docs/x.md": frozenset({"one"})}
    assert _findings(replace(sources, runbooks={**sources.runbooks, **chain}, doors=doors)) == []


def test_a_load_may_prove_that_nothing_pages(sources: Sources) -> None:
    assert _findings(replace(sources, loads={"load steady": frozenset()})) == []


def test_the_exit_code_says_whether_it_is_closed(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "read_sources", lambda: sources)
    assert CliRunner().invoke(app, []).exit_code == 0
    monkeypatch.setattr(reading, "read_sources", lambda: replace(sources, exported=frozenset()))
    assert CliRunner().invoke(app, []).exit_code == 3
