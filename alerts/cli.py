"""`python -m alerts`: list, show, plan and apply a catalog, and keep the runbooks' headers true.

Google, gRPC, pydantic and numpy are imported by the commands that need them: `--help` must not
wait for any.
"""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speakfit.errors import ApplyError, CatalogError, SpeakFitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from alerts.apply import Gateway
    from alerts.plan import Change, FieldChange, Plan
    from alerts.policy import Catalog, Policy
    from speakfit.settings import Settings
    from speakfit.target import Target

DEFAULT_CATALOG = "alerts.policies"

EXIT_FINE = 0
EXIT_ERROR = 1
EXIT_CHANGES = 2
EXIT_GATE = 3
EXIT_PARTLY = 4
EXIT_REFUSED = 5
EXIT_USAGE = 64

# Both are Typer's own names for "the command line is wrong"; the base class has no public one.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="alerts",
    help="Alert policies as code for Google Cloud Monitoring.",
    epilog="Exit codes: 0 fine, 1 error, 2 changes found, 3 a check failed, 4 partly applied, "
    "5 refused, 64 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_Catalog = Annotated[
    str, typer.Option("--catalog", help="Python module whose CATALOG holds the policies.")
]
_Emulator = Annotated[
    str | None,
    typer.Option("--emulator", metavar="HOST:PORT", help="Embedded Cloud Monitoring to talk to."),
]
_Project = Annotated[
    str | None, typer.Option("--project", metavar="ID", help="Google Cloud project.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
_Prune = Annotated[
    bool, typer.Option("--prune", help="Also delete what is ours and not in the catalog any more.")
]


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        code = app(standalone_mode=False)
    except SpeakFitError as error:
        _tell_error(error)
        code = EXIT_PARTLY if isinstance(error, ApplyError) and error.done else error.exit_code
    except _USAGE_ERROR as error:
        # Calling without arguments is a usage error too: its message is the help.
        print(getattr(error, "format_message", error.__str__)(), file=sys.stderr)
        print("  to do: `python -m alerts --help` lists what there is.", file=sys.stderr)
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        print("\nStopped; `python -m alerts plan` shows what is left.", file=sys.stderr)
        code = EXIT_ERROR
    sys.exit(code or EXIT_FINE)


@app.command("list")
def list_command(catalog: _Catalog = DEFAULT_CATALOG, as_json: _Json = False) -> None:
    """List every policy in words.

    Reads the catalog only; no server is asked.
    """
    loaded = load_catalog(catalog)
    if as_json:
        _print_json({"catalog": loaded.name, "policies": [_summary(p) for p in loaded.policies]})
        return
    out = _console()
    _tell(out, f"Catalog {loaded.name} ({catalog}): {_count(len(loaded.policies), 'policy')}")
    if out.is_terminal:
        out.print(_policy_table(loaded), soft_wrap=False)
        return
    # One line a policy, however long: a pipe is read by grep.
    width = max((len(policy.id) for policy in loaded.policies), default=0)
    for policy in loaded.policies:
        _tell(out, f"  {policy.id:<{width}}  {_summary(policy)['fires_when']}")


@app.command()
def show(
    policy_id: Annotated[
        str, typer.Argument(metavar="ID", help="For example worker-down-critical.")
    ],
    catalog: _Catalog = DEFAULT_CATALOG,
    as_json: _Json = False,
) -> None:
    """Show one policy, in words and compiled.

    The second part is what Cloud Monitoring gets. Reads the catalog only; no server is asked.
    """
    from alerts.encode import policy_json
    from alerts.wording import closing_words
    from speakfit.settings import read_settings

    loaded = load_catalog(catalog)
    policy = find_policy(loaded, policy_id)
    base = read_settings().runbook_base_url
    compiled = policy_json(policy, loaded, runbook_base_url=base)
    summary = _summary(policy)
    if as_json:
        _print_json({**summary, "policy": compiled})
        return
    out = _console()
    _tell(out, f"Policy {policy.id} of catalog {loaded.name} ({catalog})", (policy.id, "bold"))
    rows = [
        ("title", policy.title),
        ("severity", str(policy.severity)),
        ("owner", policy.owner),
        ("fires when", summary["fires_when"]),
        ("closed by", closing_words(policy)),
        ("notifies", ", ".join(c.display_name for c in loaded.channels_of(policy))),
        ("runbook", f"{base.rstrip('/')}/{policy.runbook}"),
    ]
    for name, value in rows:
        _tell(out, f"  {name:<10}  {value}", (f"  {name:<10}", "dim"))
    _tell(out, "")
    _tell(out, json.dumps(compiled, indent=2, ensure_ascii=False))


@app.command()
def plan(
    catalog: _Catalog = DEFAULT_CATALOG,
    emulator: _Emulator = None,
    project: _Project = None,
    prune: _Prune = False,
    as_json: _Json = False,
) -> None:
    """Show what apply would change.

    Exit code 2 when there is something, 0 when not. Policies that left the catalog are shown and
    kept, unless --prune.
    """
    loaded = load_catalog(catalog)
    with _session(loaded, emulator, project, as_json=as_json) as session:
        planned = session.plan(prune=prune)
    if as_json:
        _print_json({"target": str(session.target), **_plan_json(planned)})
    else:
        _tell_plan(session.out, planned)
    raise typer.Exit(EXIT_CHANGES if planned.changes else EXIT_FINE)


@app.command()
def apply(
    catalog: _Catalog = DEFAULT_CATALOG,
    emulator: _Emulator = None,
    project: _Project = None,
    prune: _Prune = False,
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Do not ask; needed where nobody can answer.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Make Cloud Monitoring equal to the catalog.

    Asks on a terminal and needs --auto-approve elsewhere. Touches nothing that is not labelled
    as this catalog's.
    """
    from alerts.apply import apply_plan

    loaded = load_catalog(catalog)
    with _session(loaded, emulator, project, as_json=as_json) as session:
        planned = session.plan(prune=prune)
        if not as_json:
            _tell_plan(session.out, planned)
        if planned.changes and not auto_approve and not _approved(as_json):
            raise typer.Exit(EXIT_REFUSED)
        session.require_keys(planned)
        done: list[Change] = []

        def on_done(change: Change) -> None:
            done.append(change)
            if not as_json:
                past = {"create": "created", "update": "updated", "delete": "deleted"}
                _tell(session.out, f"{past[change.action]} {change.kind} {change.id}")

        try:
            apply_plan(session.gateway, planned, keys=session.keys, on_done=on_done)
        except ApplyError:
            left = planned.changes[len(done) :]
            if as_json:
                _print_json(_applied_json(session.target, done, left))
            else:
                for change in left:
                    _tell(session.out, f"not done: {change.action} {change.kind} {change.id}")
            raise
    if as_json:
        _print_json(_applied_json(session.target, done, ()))
    elif done:
        _tell(session.out, f"Applied {_count(len(done), 'change')}.")


@app.command()
def runbooks(
    write: Annotated[bool, typer.Option("--write", help="Rewrite the headers.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only compare (the default); exit code 3 when one is old."),
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the runbooks.")] = Path("runbooks"),
    catalog: _Catalog = DEFAULT_CATALOG,
    as_json: _Json = False,
) -> None:
    """Check or rewrite the headers of runbooks.

    A header holds what the code knows: policies, limits, durations. Exit code 3 when one is old.
    """
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
        _print_json({"folder": str(folder), "written" if write else "old": old})
    else:
        out = _console()
        _tell(out, f"Runbooks in {folder}, catalog {loaded.name} ({catalog})")
        for subject in old:
            _tell(out, f"  {'rewritten' if write else 'old header'}: {subject}")
        if not old:
            _tell(out, "  every header is current")
        elif not write:
            _tell(out, "  to do: python -m alerts runbooks --write")
    raise typer.Exit(EXIT_GATE if old and not write else EXIT_FINE)


def load_catalog(module_name: str) -> Catalog:
    """The CATALOG of a module; a CatalogError says what is wrong with it and where."""
    from alerts.policy import Catalog

    try:
        module = importlib.import_module(module_name)
    except CatalogError:
        raise
    except ModuleNotFoundError as error:
        raise CatalogError(
            f"No module named {error.name!r}.",
            where=f"--catalog {module_name}",
            todo="Name an importable module, for example alerts.policies, and run where it is "
            "found.",
        ) from error
    except Exception as error:
        # A catalog is anybody's Python: whatever it raises is told as its fault, not as ours.
        raise CatalogError(
            f"The catalog raises {type(error).__name__}: {error}",
            where=f"--catalog {module_name}, {_last_line_of(error)}",
            todo="Correct it there.",
        ) from error
    catalog = getattr(module, "CATALOG", None)
    if not isinstance(catalog, Catalog):
        raise CatalogError(
            "The module has no CATALOG.",
            where=f"--catalog {module_name}",
            todo="Add CATALOG = alerts.policy.Catalog(...) to it.",
        )
    return catalog


def _last_line_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown line"
    return f"{Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}"


def find_policy(catalog: Catalog, policy_id: str) -> Policy:
    """A policy by id; a CatalogError proposes the nearest when there is none."""
    by_id = {policy.id: policy for policy in catalog.policies}
    if policy_id in by_id:
        return by_id[policy_id]
    near = difflib.get_close_matches(policy_id, by_id, n=3, cutoff=0.5)
    raise CatalogError(
        f"No policy is called {policy_id!r}.",
        where=f"catalog {catalog.name}",
        todo=f"Did you mean {' or '.join(near)}?" if near else "`python -m alerts list` has them.",
    )


def policy_rows(catalog: str = DEFAULT_CATALOG) -> list[tuple[str, str, str]]:
    """Id, severity and condition in words of every policy, for generated documents."""
    return [
        (f"`{policy.id}`", str(policy.severity), str(_summary(policy)["fires_when"]))
        for policy in load_catalog(catalog).policies
    ]


class _Session:
    """One command's conversation with one target."""

    def __init__(
        self, catalog: Catalog, target: Target, settings: Settings, gateway: Gateway, out: Console
    ) -> None:
        self.catalog = catalog
        self.target = target
        self.settings = settings
        self.gateway = gateway
        self.out = out
        self.keys = {}
        for channel in catalog.channels:
            if channel.secret not in type(settings).model_fields:
                raise CatalogError(
                    f"There is no setting {channel.secret!r}.",
                    where=f"catalog {catalog.name}, channel {channel.id}, secret",
                    todo="Name the setting that holds the integration key; docs/settings.md has "
                    "them all.",
                )
            secret = getattr(settings, channel.secret)
            if secret is not None:
                self.keys[channel.id] = secret.get_secret_value()

    def require_keys(self, planned: Plan) -> None:
        """A SettingsError names the first integration key that a plan needs and nobody gave."""
        needed = {change.id for change in planned.changes if change.secret}
        for channel in self.catalog.channels:
            if channel.id in needed:
                self.settings.require(channel.secret)

    def plan(self, *, prune: bool) -> Plan:
        """Read what is live and compare."""
        from alerts.encode import key_digest
        from alerts.plan import desired_state, make_plan

        desired = desired_state(
            self.catalog,
            runbook_base_url=self.settings.runbook_base_url,
            digests={channel: key_digest(key) for channel, key in self.keys.items()},
        )
        return make_plan(desired, self.gateway.read(self.catalog), prune=prune)


@contextmanager
def _session(
    catalog: Catalog, emulator: str | None, project: str | None, *, as_json: bool
) -> Iterator[_Session]:
    from alerts.apply import Gateway
    from speakfit.settings import read_settings
    from speakfit.target import resolve_target, with_stack_settings

    settings = read_settings()
    target = resolve_target(settings, emulator=emulator, project=project)
    settings = with_stack_settings(settings, target)
    out = _console(stderr=as_json)
    _tell(out, f"Target: {target}", ("Target:", "bold"))
    with Gateway(target) as gateway:
        yield _Session(catalog, target, settings, gateway, out)


def _approved(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty() or not sys.stdout.isatty():
        print(
            "Refused: nobody can be asked here; nothing was changed.\n"
            "  to do: Read the plan, then repeat with --auto-approve.",
            file=sys.stderr,
        )
        return False
    if typer.confirm("Make these changes?"):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False


def _console(*, stderr: bool = False) -> Console:
    """Colours on a terminal (unless NO_COLOR), plain text in a pipe."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _tell(out: Console, line: str, *styled: tuple[str, str]) -> None:
    """Print one line; `styled` colours the first occurrence of each text."""
    from rich.text import Text

    text = Text(line)
    for part, style in styled:
        at = line.find(part)
        if at >= 0:
            text.stylize(style, at, at + len(part))
    out.print(text)


def _policy_table(catalog: Catalog) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("policy", "fires when", box=box.SIMPLE_HEAD, pad_edge=False)
    for policy in catalog.policies:
        colour = "red" if policy.severity == "critical" else "yellow"
        joint = "\nand " if policy.combiner.value.startswith("AND") else "\nor "
        words = Text(joint).join(Text(line) for line in _summary(policy)["conditions"])
        table.add_row(Text(policy.id, style=colour, no_wrap=True), words)
    return table


def _tell_error(error: SpeakFitError) -> None:
    from rich.console import Console
    from rich.text import Text

    err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    err.print(Text.assemble(("Error: ", "bold red"), str(error)))


# The action's text is all a pipe gets; colour only repeats it.
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}


def _tell_plan(out: Console, planned: Plan) -> None:
    for change in planned.changes:
        sign, colour = _SIGNS[change.action]
        reason = f"  ({change.reason})" if change.reason else ""
        line = f"  {sign} {change.action} {change.kind} {change.id}{reason}"
        _tell(out, line, (line[: len(line) - len(reason)], colour))
        for field in change.fields:
            for before, after in _field_lines(field):
                _tell(out, before + after, (after, "red" if before.endswith("- ") else "green"))
    for change in planned.stale:
        _tell(out, f"  ? stale {change.kind} {change.id}: {change.reason}; kept without --prune")
    _tell(out, _outcome(planned))


def _field_lines(field: FieldChange) -> Iterator[tuple[str, str]]:
    """A field's path, then what goes away and what comes; long texts by their changed lines."""
    yield f"      {field.path}", ""
    live, desired = field.live, field.desired
    if isinstance(live, str) and isinstance(desired, str) and ("\n" in live or "\n" in desired):
        for line in difflib.ndiff(live.splitlines(), desired.splitlines()):
            if line[:2] in ("- ", "+ "):
                yield f"        {line[:2]}", line[2:]
        return
    for sign, value in (("- ", live), ("+ ", desired)):
        if value is not None:
            yield f"        {sign}", json.dumps(value, ensure_ascii=False)


def _outcome(planned: Plan) -> str:
    if not planned.changes:
        same = _count(len(planned.unchanged), "resource")
        text = f"No changes: {same} as the catalog wants"
    else:
        counts = {
            action: sum(1 for change in planned.changes if change.action == action)
            for action in _SIGNS
        }
        text = "Plan: " + ", ".join(f"{n} to {action}" for action, n in counts.items() if n)
    if planned.foreign:
        text += f"; {_count(planned.foreign, 'policy')} of others left alone"
    return text + "."


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def _summary(policy: Policy) -> dict[str, Any]:
    from alerts.encode import condition_lines
    from alerts.wording import policy_words

    return {
        "id": policy.id,
        "subject": policy.subject,
        "severity": str(policy.severity),
        "title": policy.title,
        "owner": policy.owner,
        "fires_when": policy_words(policy),
        "conditions": condition_lines(policy),
        "runbook": policy.runbook,
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "action": str(change.action),
        "kind": str(change.kind),
        "id": change.id,
        "reason": change.reason,
        "name": change.name,
        "fields": [
            {"path": field.path, "live": field.live, "desired": field.desired}
            for field in change.fields
        ],
    }


def _plan_json(planned: Plan) -> dict[str, Any]:
    return {
        "changes": [_change_json(change) for change in planned.changes],
        "stale": [_change_json(change) for change in planned.stale],
        "unchanged": len(planned.unchanged),
        "foreign": planned.foreign,
    }


def _applied_json(target: Target, done: list[Change], left: tuple[Change, ...]) -> dict[str, Any]:
    return {
        "target": str(target),
        "done": [_change_json(change) for change in done],
        "not_done": [_change_json(change) for change in left],
    }


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
