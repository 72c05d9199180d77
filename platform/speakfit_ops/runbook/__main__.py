"""`python -m speakfit_ops.runbook`: list, show, check and run the runbooks, and serve them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_ERROR,
    EXIT_FINE,
    EXIT_GATE,
    EXIT_PARTLY,
    CatalogOption,
    JsonOption,
    ProjectOption,
    console,
    count,
    parse_span,
    print_json,
    tell,
)
from speakfit.command_line import run_app, tell_error
from speakfit.errors import RefusedError, StackError
from speakfit.target import STACK_FILE, TargetKind

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.policy import Catalog
    from speakfit.runbook import Block, Place, Runbook
    from speakfit.settings import Settings
    from speakfit_ops.runbook.walk import Answer, Step


SubjectArgument = Annotated[str, typer.Argument(metavar="ID", help="For example queue-depth.")]

app = typer.Typer(
    name="runbook",
    help="Runbooks: what to do when a page comes, checked and walked through step by step.",
    epilog="Exit codes: 0 fine, 1 error, 3 a check failed, or what was to be mended is not (run), "
    "4 stopped after something was changed, 5 refused, 64 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command("list")
def list_command(catalog: CatalogOption = DEFAULT_CATALOG, as_json: JsonOption = False) -> int:
    """List the runbooks: subject, policies that lead there, drill time and title."""
    from alerts.catalog import load_catalog
    from alerts.runbook import drill_times
    from speakfit_ops.runbook.shelf import ROOT, find_runbook, policies_of, subjects

    loaded, drills = load_catalog(catalog), drill_times(ROOT / "docs" / "drills.json")
    rows: list[dict[str, Any]] = []
    for subject in subjects():
        page = find_runbook(subject)
        policies = [policy.id for policy in policies_of(subject, loaded)]
        rows.append(
            {
                "id": subject,
                "title": page.title.removeprefix(f"{subject}: "),
                "policies": policies,
                "blocks": len(page.blocks),
                "digest": page.digest,
                "drills": {name: drills[name] for name in policies if name in drills},
            }
        )
    if as_json:
        print_json(rows)
        return EXIT_FINE
    out = console()
    for row in rows:
        tell(out, f"{row['id']}: {row['title']}", (row["id"], "bold"))
        for policy in row["policies"]:
            drill = row["drills"].get(policy)
            tell(out, f"    {policy}" + (f"  drilled: {drill}" if drill else ""))
    return EXIT_FINE


@app.command()
def show(subject: SubjectArgument, as_json: JsonOption = False) -> int:
    """Show one runbook on the terminal."""
    from speakfit_ops.runbook.pages import without_markers
    from speakfit_ops.runbook.shelf import find_runbook

    page = find_runbook(subject)
    if as_json:
        blocks = [
            {
                "kind": block.kind,
                "name": block.name,
                "language": block.language,
                "place": block.place,
                "changes": block.kind.changes,
                "section": block.section,
                "line": block.line,
                "text": block.text,
            }
            for block in page.blocks
        ]
        print_json({"id": page.id, "title": page.title, "digest": page.digest, "blocks": blocks})
        return EXIT_FINE
    out = console()
    if not out.is_terminal:
        print(without_markers(page.text))
        return EXIT_FINE
    from rich.console import Console
    from rich.markdown import Markdown

    # Wrapped here, where people read; everywhere else lines stay as they are.
    Console(width=min(out.width, 80)).print(Markdown(without_markers(page.text), hyperlinks=False))
    return EXIT_FINE


@app.command()
def check(
    subject: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only this one; all without it.")
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> int:
    """Check every link, command, option and name that runbooks hold; exit code 3 for a finding."""
    from alerts.catalog import load_catalog
    from speakfit_ops.runbook.check import findings
    from speakfit_ops.runbook.shelf import find_runbook, subjects

    loaded = load_catalog(catalog)
    pages = [find_runbook(one) for one in ([subject] if subject else subjects())]
    found = [finding for page in pages for finding in findings(page, loaded)]
    if as_json:
        print_json([finding.to_json() for finding in found])
    else:
        out = console()
        for finding in found:
            tell(out, str(finding), (finding.where, "bold"))
        tell(out, f"{count(len(pages), 'runbook')}, {count(len(found), 'finding')}.")
    return EXIT_GATE if found else EXIT_FINE


@app.command()
def run(
    subject: SubjectArgument,
    project: ProjectOption = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="SPEAKFIT_STACK_DIR", help="Folder of the local stack.")
    ] = STACK_FILE.parent,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="NAME", help="Run this fix or rollback, and no other."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="What a block asks for."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; fixes only by --fix.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, run nothing.")] = False,
    wait: Annotated[
        str, typer.Option(metavar="SPAN", help="How long a verify may take to hold.")
    ] = "60s",
    limit: Annotated[
        str, typer.Option(metavar="SPAN", help="How long any other block may take.")
    ] = "10m",
    incident: Annotated[
        str | None,
        typer.Option(metavar="ID", help="PagerDuty's; else all open ones of this runbook."),
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="EMAIL", envvar="PAGERDUTY_FROM", help="Who writes the note."
        ),
    ] = None,
    no_note: Annotated[bool, typer.Option("--no-note", help="Write none.")] = False,
    catalog: CatalogOption = DEFAULT_CATALOG,
) -> int:
    """Walk through a runbook, step by step, and note on its incident what was done.

    On the local stack what only reads runs at once, and each fix is asked about. With --project
    (or GOOGLE_CLOUD_PROJECT) it is production: each step is shown and asked about, and runs in the
    environment of this shell.
    """
    from alerts.catalog import load_catalog
    from speakfit.settings import read_settings
    from speakfit_ops.runbook.shelf import find_runbook
    from speakfit_ops.runbook.walk import Walk, chosen_blocks, refuse_unanswered

    page, loaded = find_runbook(subject), load_catalog(catalog)
    waited, most = parse_span(wait, "--wait"), parse_span(limit, "--limit")
    wanted = _assignments(settings or [])
    place, words, environment = _where(read_settings(), project, data_dir)
    environment |= wanted
    out = console()
    tell(out, f"Target: {words}", ("Target:", "bold"))
    # Somebody who answers can be asked about each fix; nobody else runs one that is not named.
    asking = sys.stdin.isatty() and not yes
    blocks = chosen_blocks(page, place, named=fix or [], all_changes=asking or dry_run)
    if dry_run:
        for block in blocks:
            _show(out, block)
        tell(out, "Nothing was run.")
        return EXIT_FINE
    if not asking and not yes and _must_ask(place, blocks):
        raise RefusedError(
            "Nobody can be asked here; nothing was run.",
            where=words,
            todo="Repeat at a terminal, or with --yes, which runs what reads and each --fix NAME.",
        )
    if not asking:
        refuse_unanswered(blocks, environment)
    asker = _Asker(out=out, place=place, environment=environment, asking=asking)
    walk = Walk(
        blocks=blocks,
        environment=environment,
        ask=asker.ask,
        before=lambda block: _begin(out, block, shown=asker.shown),
        after=lambda step, output: _end(out, step, output),
        limit=most,
        patience=waited,
    )
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(ValueError):
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        walk.run()
    except (KeyboardInterrupt, typer.Abort, EOFError):
        interrupted = True
    _sum_up(out, walk.steps, interrupted=interrupted)
    if not no_note:
        _write_note(out, page, loaded, place, walk.steps, environment, incident, sender, data_dir)
    if interrupted:
        touched = any(step.block.kind.changes and step.exit_code is not None for step in walk.steps)
        return max(walk.exit_code, EXIT_PARTLY if touched else EXIT_ERROR)
    return walk.exit_code


def _assignments(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="'--set'")
        found[name] = value
    return found


def _where(
    settings: Settings, project: str | None, data_dir: Path
) -> tuple[Place, str, dict[str, str]]:
    """Local or production, in words, and the environment that blocks run in."""
    from speakfit.runbook import Place, block_environment
    from speakfit.target import resolve_target, stack_environment

    file = data_dir / STACK_FILE.name
    if project and settings.monitoring_emulator_host:
        raise RefusedError(
            "This shell holds the settings of a local stack; nothing was run.",
            where="MONITORING_EMULATOR_HOST",
            todo="Open a new one and prepare it as runbooks/shell.md says.",
        )
    target = resolve_target(settings, project=project, stack_file=file)
    if target.kind is TargetKind.GOOGLE:
        named = {"GOOGLE_CLOUD_PROJECT": target.project}
        return Place.PRODUCTION, f"production, project {target.project}", {**os.environ, **named}
    stack = stack_environment(file)
    if not stack:
        raise StackError(
            "No stack is running here.",
            where=str(data_dir),
            todo="Start one with `make up`, or name the project with --project.",
        )
    # Whatever this shell says of another stack: blocks run against the one that was named.
    environment = block_environment({**stack, "SPEAKFIT_STACK_DIR": str(data_dir.absolute())})
    return Place.LOCAL, f"local stack in {data_dir}", environment


def _must_ask(place: Place, blocks: tuple[Block, ...]) -> bool:
    from speakfit.runbook import Place

    return place is Place.PRODUCTION or any(block.kind.changes for block in blocks)


@dataclass(kw_only=True)
class _Asker:
    """Asks before a block where that is due, and for what the block needs filled in."""

    out: Console
    place: Place
    environment: dict[str, str]
    asking: bool
    shown: str = ""

    def ask(self, block: Block) -> Answer:
        from speakfit_ops.runbook.walk import Answer

        if not self.asking or not _must_ask(self.place, (block,)):
            return Answer.RUN
        _show(self.out, block)
        self.shown = block.name
        default = "s" if block.kind.changes else "r"
        said = typer.prompt("[r]un, [s]kip, [q]uit", default=default).strip().lower()
        if said[:1] == "q":
            return Answer.QUIT
        if said[:1] not in ("r", "y"):
            return Answer.SKIP
        for name, words in block.asks.items():
            if not self.environment.get(name):
                self.environment[name] = typer.prompt(f"{name} ({words})")
        return Answer.RUN


def _show(out: Console, block: Block) -> None:
    effect = "changes something" if block.kind.changes else "only reads"
    tell(out, f"\n{block.kind} {block.name} ({effect}; {block.section})", (block.name, "bold"))
    for line in block.text.rstrip().splitlines():
        tell(out, f"    {line}")


def _begin(out: Console, block: Block, *, shown: str) -> None:
    if block.name != shown:
        _show(out, block)


def _end(out: Console, step: Step, output: str) -> None:
    from speakfit_ops.runbook.walk import State

    for line in output.rstrip().splitlines():
        tell(out, f"  | {line}")
    code = f" (exit code {step.exit_code})" if step.exit_code else ""
    style = "green" if step.state is State.DONE else "yellow"
    if step.state in {State.FAILED, State.INTERRUPTED}:
        style = "bold red"
    tell(out, f"  {step.state}{code}", (str(step.state), style))


def _sum_up(out: Console, steps: list[Step], *, interrupted: bool) -> None:
    from speakfit_ops.runbook.walk import State

    tell(out, "\nInterrupted." if interrupted else "")
    for state in State:
        names = [f"{one.block.kind} {one.block.name}" for one in steps if one.state is state]
        if names:
            tell(out, f"{state}: {', '.join(names)}", (str(state), "bold"))
    if not any(step.block.kind.changes and step.exit_code is not None for step in steps):
        tell(out, "Nothing was changed.")


def _write_note(
    out: Console,
    page: Runbook,
    catalog: Catalog,
    place: Place,
    steps: list[Step],
    environment: Mapping[str, str],
    incident: str | None,
    sender: str | None,
    data_dir: Path,
) -> None:
    from speakfit.emulator.pagerduty_account import DEFAULT_EMAIL
    from speakfit.runbook import Place
    from speakfit_ops.runbook.walk import deliver_note, note_text

    if not any(step.exit_code is not None for step in steps):
        return
    at = datetime.now(UTC)
    text = note_text(page, place, steps, at)
    token = environment.get("PAGERDUTY_API_TOKEN", "")
    name = sender or (DEFAULT_EMAIL if place is Place.LOCAL else "")
    if not token or not name:
        tell(out, "No note was written: that needs PAGERDUTY_API_TOKEN and --from EMAIL. It is:")
        tell(out, text)
        return
    delivery = deliver_note(
        text,
        page,
        catalog,
        url=environment.get("PAGERDUTY_API_URL", "https://api.pagerduty.com"),
        token=token,
        sender=name,
        incident=incident,
        kept_in=data_dir / "notes",
        at=at,
    )
    if delivery.incidents:
        tell(out, f"Noted on PagerDuty's {', '.join(delivery.incidents)}.")
    if delivery.trouble is not None:
        tell_error(delivery.trouble)
        tell(out, f"The note is kept in {delivery.kept}; add it by hand:")
        tell(out, text)
    elif not delivery.incidents:
        tell(out, "No open incident leads to this runbook; no note was written.")


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8087,
) -> None:
    """Serve the runbooks at http://127.0.0.1:PORT/ID."""
    from speakfit_ops.runbook import pages

    pages.serve(port)


def main() -> int:
    """Run the command line; the documented exit code."""
    return run_app(app, "speakfit_ops.runbook", stopped="Stopped; nothing was changed.")


if __name__ == "__main__":
    sys.exit(main())
