"""`contract`: is what alerts and dashboards refer to really exported?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_FINE,
    EXIT_GATE,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    console,
    count,
    parse_span,
    print_json,
    tell,
)
from speakfit.errors import CatalogError

if TYPE_CHECKING:
    from alerts.contract import Contract, Exported, Reference
    from alerts.policy import Catalog


def contract(
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="What `record` wrote, not a server."),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back to look: 1h, 30d.")
    ] = "1h",
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--also",
            metavar="PATH",
            help="JSON whose filters count as references too, such as dashboards; repeatable.",
        ),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what policies refer to with what is exported.

    Finds metrics, labels, units, kinds and resources that nobody exports, by which an alert could
    never page. Exit code 3 when something is broken; doubts alone are told. Queries in PromQL, MQL
    and SQL are not read.
    """
    from alerts.catalog import load_catalog
    from alerts.contract import compare

    loaded = load_catalog(catalog)
    relied_on = [*_of_catalog(loaded), *(one for path in also or () for one in _of_path(path))]
    if from_file is not None:
        source, written = _recorded(from_file)
    else:
        source, written = _live(loaded, relied_on, emulator, project, since, as_json=as_json)
    result = compare(relied_on, written, loaded.metrics)
    if as_json:
        print_json({"source": source, **_json(result)})
    else:
        _tell_contract(result, source)
    raise typer.Exit(EXIT_FINE if result.kept else EXIT_GATE)


def _of_catalog(catalog: Catalog) -> Iterator[Reference]:
    from alerts.contract import references
    from alerts.encode import policy_json

    for policy in catalog.policies:
        body = policy_json(policy, catalog, runbook_base_url="")
        yield from references(body, f"policy {policy.id}")


def _of_path(path: Path) -> Iterator[Reference]:
    from alerts.contract import references

    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise CatalogError("There is no JSON in it.", where=str(path), todo="Correct --also.")
    for file in files:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CatalogError(
                f"It cannot be read as JSON: {error}.", where=str(file), todo="Correct --also."
            ) from error
        yield from references(document, file.name)


def _recorded(file: Path) -> tuple[str, dict[str, Exported]]:
    from alerts.contract import exported
    from alerts.history import minute, read_history

    history = read_history(file)
    written = exported(history.descriptors, (series.key for series in history.series))
    return f"{history.source}, recorded until {minute(history.end_ns)} UTC", written


def _live(
    catalog: Catalog,
    relied_on: list[Reference],
    emulator: str | None,
    project: str | None,
    since: str,
    *,
    as_json: bool,
) -> tuple[str, dict[str, Exported]]:
    from alerts.contract import exported
    from alerts.retrieval import series_keys
    from alerts.session import open_session

    span = parse_span(since, "--since")
    types = {metric.type for metric in catalog.metrics}
    types |= {name for one in relied_on for name in one.filter.metric_types or ()}
    with open_session(catalog, emulator, project, as_json=as_json) as session:
        descriptors = {body["type"]: body for body in session.gateway.descriptors(types)}
        keys = series_keys(session.gateway, sorted(descriptors), since=span)
        return str(session.target), exported(descriptors, keys)


def _json(result: Contract) -> dict[str, Any]:
    return {
        "kept": result.kept,
        "references": result.references,
        "findings": [
            {"grade": str(one.grade), "source": one.source, "what": one.what, "todo": one.todo}
            for one in result.findings
        ],
        "metrics": list(result.metrics),
        "unused": list(result.unused),
    }


def _tell_contract(result: Contract, source: str) -> None:
    from alerts.contract import Grade

    out = console()
    tell(out, f"Exported: {source}", ("Exported:", "bold"))
    for one in result.findings:
        style = "red" if one.grade is Grade.BROKEN else "yellow"
        tell(out, f"  {one.grade}  {one.what}", (str(one.grade), style))
        tell(out, f"          in {one.source}", (one.source, "dim"))
        if one.todo:
            tell(out, f"          to do: {one.todo}")
    broken = sum(1 for one in result.findings if one.grade is Grade.BROKEN)
    doubtful = len(result.findings) - broken
    verdict = "Kept" if result.kept else "Broken"
    told = [f"{number} {word}" for number, word in ((broken, "broken"), (doubtful, "doubtful"))]
    tell(
        out,
        f"{verdict}: {count(result.references, 'reference')} to "
        f"{count(len(result.metrics), 'exported metric')}; {', '.join(told)}.",
        (verdict, "bold"),
    )
    if result.unused:
        tell(out, f"Nothing refers to {', '.join(result.unused)}.")
