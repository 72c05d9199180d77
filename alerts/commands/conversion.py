"""`import` and `export`: policies of elsewhere become Python, and ours become what others read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_ERROR,
    EXIT_FINE,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    console,
    count,
    print_json,
    tell,
)
from speakfit.command_line import tell_error
from speakfit.errors import CatalogError

if TYPE_CHECKING:
    from alerts.metric import Metric
    from alerts.policy import Policy


def import_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Live policies by display name, number or full name; all that are not ours "
            "when none is given.",
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--files", metavar="PATH", help="Read JSON or YAML files or folders, not a server."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write there, not to stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    catalog_name: Annotated[
        str, typer.Option("--catalog-name", metavar="NAME", help="What the new catalog is called.")
    ] = "imported",
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write live or raw policies as Python.

    The Python compiles back to the identical policies, which is checked before it is written.
    Nothing is changed on the server; `adopt` makes a live policy ours afterwards.
    """
    from alerts import source

    if files and names:
        raise typer.BadParameter("Names are of live policies; --files reads all it finds.")
    if out is not None and out.exists() and not force:
        raise CatalogError(
            "The file exists already.",
            where=str(out),
            todo="Name another --out, or overwrite it with --force.",
        )
    metrics: dict[str, Metric] = {}
    if files:
        origin, bodies = "read from files", _read_files(files)
    else:
        origin, bodies, metrics = _read_live(names or [], emulator, project)
    policies, refused, kept = _decoded(bodies, metrics)
    text = source.module(policies, catalog=catalog_name, origin=origin)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    said = console(stderr=True)
    for reason in kept:
        tell(said, f"kept in the API's own form: {reason}")
    for where, error in refused:
        tell(said, f"not imported: {where}")
        tell_error(error)
    if as_json:
        print_json(
            {
                "policies": [{"id": policy.id, "title": policy.title} for policy in policies],
                "not_imported": [where for where, _ in refused],
                **({"file": str(out)} if out is not None else {"source": text}),
            }
        )
    elif out is None:
        print(text, end="")
    if not as_json:
        written = f" into {out}" if out is not None else ""
        tell(said, f"Imported {count(len(policies), 'policy')}{written}, {origin}.")
        if policies and any(policy.channels for policy in policies):
            tell(
                said,
                "  to do: replace `channels` by routes of the catalog where PagerDuty is meant.",
            )
    raise typer.Exit(EXIT_ERROR if refused else EXIT_FINE)


def _decoded(
    bodies: list[tuple[str, Mapping[str, Any]]], metrics: Mapping[str, Metric]
) -> tuple[list[Policy], list[tuple[str, CatalogError]], list[str]]:
    """Every policy that can be read, what is wrong with the others, and what stayed as it is."""
    from alerts.decode import free_subject, policy_of

    policies: list[Policy] = []
    refused: list[tuple[str, CatalogError]] = []
    kept: list[str] = []
    taken: set[str] = set()
    for where, body in bodies:
        subject = free_subject(body, taken)
        try:
            reasons: list[str] = []
            policies.append(
                policy_of(body, subject=subject, metric_of=metrics.get, told=reasons.append)
            )
            taken.add(subject)
            kept += [f"{where}, {reason}" for reason in reasons]
        except CatalogError as error:
            refused.append((where, error))
    return policies, refused, kept


def _read_files(paths: list[Path]) -> list[tuple[str, Mapping[str, Any]]]:
    """The policies of files and folders, in the API's own spelling, with where each was found."""
    from alerts.rawfile import files_of, policies_of_file

    return [(str(file), body) for file in files_of(paths) for body in policies_of_file(file)]


def _read_live(
    names: list[str], emulator: str | None, project: str | None
) -> tuple[str, list[tuple[str, Mapping[str, Any]]], dict[str, Metric]]:
    """Live policies that are named, or all not ours, and what is known of their metrics."""
    from alerts.adopt import named_policy
    from alerts.decode import described_metric, metric_types
    from alerts.encode import MANAGED_BY, MANAGER
    from alerts.gateway import Gateway
    from speakfit.settings import read_settings
    from speakfit.target import resolve_target

    target = resolve_target(read_settings(), emulator=emulator, project=project)
    tell(console(stderr=True), f"Target: {target}", ("Target:", "bold"))
    with Gateway(target) as gateway:
        live = gateway.policies()
        if names:
            chosen = [named_policy(name, live, where=str(target)) for name in names]
        else:
            chosen = [
                body for body in live if body.get("userLabels", {}).get(MANAGED_BY) != MANAGER
            ]
        types = {name for body in chosen for name in metric_types(body)}
        descriptors = gateway.descriptors(types) if types else ()
    found: list[tuple[str, Mapping[str, Any]]] = [(str(body["name"]), body) for body in chosen]
    metrics = {one["type"]: described_metric(one) for one in descriptors}
    return f"read from {target.project_name}", found, metrics


class ExportFormat(StrEnum):
    """What `export` can write."""

    JSON = "json"
    YAML = "yaml"
    TERRAFORM = "terraform"
    CONFIG_CONNECTOR = "config-connector"
    PROMETHEUS = "prometheus"


def export(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Policies; all of the catalog when none is given."),
    ] = None,
    form: Annotated[
        ExportFormat, typer.Option("--format", help="What to write.")
    ] = ExportFormat.JSON,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write there, not to stdout.")
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
) -> None:
    """Write policies in the form of another tool.

    Reads the catalog only. Channels are referred to as the other tool does; Prometheus rules are
    written where an exact twin exists, and exit code 1 says that some policy has none.
    """
    from alerts import export as forms
    from alerts.catalog import find_policy, load_catalog
    from speakfit.settings import read_settings

    loaded = load_catalog(catalog)
    chosen = [find_policy(loaded, one) for one in ids] if ids else list(loaded.policies)
    base = read_settings().runbook_base_url
    pairs = [(one, forms.compiled(one, loaded, runbook_base_url=base)) for one in chosen]
    refused: list[tuple[str, str]] = []
    if form is ExportFormat.JSON:
        text = forms.as_json([body for _, body in pairs])
    elif form is ExportFormat.YAML:
        text = forms.as_yaml(body for _, body in pairs)
    elif form is ExportFormat.TERRAFORM:
        text = forms.as_terraform(pairs, loaded.channels)
    elif form is ExportFormat.CONFIG_CONNECTOR:
        text = forms.as_config_connector(pairs)
    else:
        text, refused = forms.as_prometheus(chosen, name=loaded.name)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
    said = console(stderr=True)
    for identity, reason in refused:
        tell(said, f"no exact twin: {identity}: {reason}")
    written = count(len(chosen) - len(refused), "policy")
    tell(said, f"Exported {written} as {form}{f' into {out}' if out else ''}.")
    raise typer.Exit(EXIT_ERROR if refused else EXIT_FINE)
