"""`runbooks`: are the generated headers current?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_FINE,
    EXIT_GATE,
    CatalogOption,
    JsonOption,
    console,
    print_json,
    tell,
)


def runbooks(
    write: Annotated[bool, typer.Option("--write", help="Rewrite the headers.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only compare (the default); exit code 3 when one is old."),
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the runbooks.")] = Path("runbooks"),
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Check or rewrite the headers of runbooks.

    A header holds what the code knows: policies, limits, durations. Exit code 3 when one is old.
    """
    from alerts.catalog import load_catalog
    from alerts.runbook import current_pages, page_path

    if write and check:
        raise typer.BadParameter("--write and --check exclude each other.")
    loaded = load_catalog(catalog)
    old = [
        subject
        for subject, (found, wanted) in current_pages(loaded, folder).items()
        if found != wanted
    ]
    if write:
        for subject, (_, wanted) in current_pages(loaded, folder).items():
            if subject in old:
                page_path(folder, subject).write_text(wanted, encoding="utf-8")
    if as_json:
        print_json({"folder": str(folder), "written" if write else "old": old})
    else:
        out = console()
        tell(out, f"Runbooks in {folder}, catalog {loaded.name} ({catalog})")
        for subject in old:
            tell(out, f"  {'rewritten' if write else 'old header'}: {subject}")
        if not old:
            tell(out, "  every header is current")
        elif not write:
            tell(out, "  to do: python -m alerts runbooks --write")
    raise typer.Exit(EXIT_GATE if old and not write else EXIT_FINE)
