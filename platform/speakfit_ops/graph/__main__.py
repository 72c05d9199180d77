"""`python -m speakfit_ops.graph`: is everything proven, linked and drawn?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alerts.terminal import EXIT_FINE, EXIT_GATE, JsonOption, console, count, print_json, tell
from speakfit.command_line import run_app

app = typer.Typer(
    name="graph",
    help="Check the closed graph of metrics, policies, scenarios, runbooks, panels and drills.",
    epilog="Exit codes: 0 closed, 1 error, 3 something is missing, 64 wrong usage.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def check(
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw the graph, as .svg."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell dead links, orphans, metrics that nobody exports, and edges that are missing.

    Reads this checkout only; exit code 3 when something is found.
    """
    from alerts.policies import CATALOG
    from speakfit_ops.graph.closed import Kind, findings, make_graph
    from speakfit_ops.graph.drawing import draw as drawn
    from speakfit_ops.graph.reading import read_sources

    sources = read_sources()
    graph = make_graph(sources)
    found = findings(graph, sources)
    if draw is not None:
        try:
            draw.write_text(drawn(graph, CATALOG), encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"--draw {draw}: {error.strerror}") from error
    if as_json:
        print_json(
            {
                "nodes": [{"kind": str(node.kind), "name": node.name} for node in graph.nodes],
                "edges": [[str(one), str(other)] for one, other in sorted(graph.edges)],
                "findings": [{"what": one.what, "todo": one.todo} for one in found],
            }
        )
    else:
        out = console()
        for one in found:
            tell(out, str(one), (one.what, "red"))
        counts = ", ".join(
            count(len(nodes), str(kind)) for kind in Kind if (nodes := graph.of(kind))
        )
        verdict = count(len(found), "finding") if found else "Closed"
        tell(out, f"{verdict}: {counts}, {count(len(graph.edges), 'edge')}.")
    raise typer.Exit(EXIT_GATE if found else EXIT_FINE)


if __name__ == "__main__":
    sys.exit(run_app(app, "speakfit_ops.graph"))
