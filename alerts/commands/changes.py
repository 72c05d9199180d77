"""`plan`, `apply` and `destroy`: what must change in Cloud Monitoring, and changing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from alerts.commands.history import replay_changes
from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_CHANGES,
    EXIT_FINE,
    EXIT_REFUSED,
    AutoApproveOption,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    MaxDeletesOption,
    ProjectOption,
    PruneOption,
    approved,
    check_deletes,
    count,
    parse_span,
    print_json,
    tell,
    typed_out,
)
from speakfit.errors import ApplyError, RefusedError, SpeakFitError

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.apply import Writer
    from alerts.plan import Change, Plan
    from speakfit.target import Target


def plan(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Keep the plan, for `apply FILE`."),
    ] = None,
    behaviour: Annotated[
        bool,
        typer.Option("--behaviour", help="Also show what it would have done on recorded history."),
    ] = False,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="With --behaviour: a history that record wrote, instead of the target's.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN",
            help="With --behaviour: how far back. [default: 14d, or all of --from]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what apply would change.

    Exit code 2 when there is something, 0 when not. Policies that left the catalog are shown and
    kept, unless --prune.
    """
    from alerts.catalog import load_catalog
    from alerts.planfile import snapshot, write_plan
    from alerts.report import glossary, plan_json, tell_plan
    from alerts.session import open_session

    if not behaviour and (from_file is not None or since is not None):
        raise typer.BadParameter("--from and --since say what --behaviour replays; it is missing.")
    span = None if since is None else parse_span(since, "--since")
    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        live = session.read()
        planned = session.plan(live, prune=prune)
        if not as_json:
            tell_plan(session.out, planned, glossary(loaded, live), prune=prune)
        told = replay_changes(session, planned.changes, from_file, span) if behaviour else None
    if as_json:
        document = {"target": str(session.target), **plan_json(planned)}
        if behaviour:
            document["behaviour"] = None if told is None else told.to_json()
        print_json(document)
    elif behaviour:
        nothing = ["On recorded history: no policy changes, so nothing does."]
        for line in told.lines() if told is not None else nothing:
            tell(session.out, line)
    if out is not None:
        try:
            write_plan(out, snapshot(planned, session.desired, live, session.target, prune=prune))
        except OSError as error:
            raise typer.BadParameter(f"--out {out}: {error.strerror}") from error
        tell(session.out, f"Kept in {out}; `python -m alerts apply {out}` makes these changes.")
    raise typer.Exit(EXIT_CHANGES if planned.changes else EXIT_FINE)


def apply(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A plan kept by `plan --out`.", show_default=False),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    prune: PruneOption = False,
    max_deletes: MaxDeletesOption = None,
    auto_approve: AutoApproveOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make Cloud Monitoring equal to the catalog.

    Asks on a terminal and needs --auto-approve elsewhere. Touches nothing that is not labelled
    as this catalog's. With FILE it makes exactly the changes of that plan, and refuses when
    something of the catalog was edited since.
    """
    from alerts.catalog import load_catalog
    from alerts.planfile import (
        catalog_digest,
        check_purpose,
        read_plan,
        remaining,
        snapshot,
        with_digests,
    )
    from alerts.report import glossary, tell_plan
    from alerts.session import open_session

    if file is not None and prune:
        raise typer.BadParameter("--prune belongs to `plan --out`: FILE says what is deleted.")
    saved = None if file is None else read_plan(file)
    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        if saved is not None and file is not None:
            check_purpose(saved, file, session.target, loaded.name)
            if saved.catalog_digest != catalog_digest(session.desired):
                tell(
                    session.out,
                    f"Note: the catalog changed after {file} was made; the file is applied as it "
                    "is.",
                )
        live = session.read()
        if saved is None:
            saved = snapshot(
                session.plan(live, prune=prune), session.desired, live, session.target, prune=prune
            )
        planned = remaining(saved, live)
        ready = len(saved.plan.changes) - len(planned.changes)
        if ready:
            tell(session.out, f"{ready} of {count(len(saved.plan.changes), 'change')} done before.")
        if not as_json:
            tell_plan(session.out, planned, glossary(loaded, live), prune=saved.prune)
        check_deletes(planned.deletes, max_deletes)
        if planned.changes and not auto_approve:
            if not approved(as_json):
                raise typer.Exit(EXIT_REFUSED)
            # People take their time: look again.
            planned = remaining(saved, session.read())
        carry_out(session, with_digests(planned, session.digests), as_json=as_json)


def destroy(
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Also delete the catalog's metrics, with all their data."),
    ] = False,
    max_deletes: MaxDeletesOption = None,
    auto_approve: AutoApproveOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete every policy of the catalog, then its channels.

    Asks for the catalog's name on a terminal; elsewhere it needs both --auto-approve and
    --max-deletes N. Metrics and their data stay unless --metrics asks for them, and a channel
    that others use stays.
    """
    from alerts.catalog import load_catalog
    from alerts.plan import destroy_plan
    from alerts.report import glossary, tell_plan
    from alerts.session import open_session

    loaded = load_catalog(catalog)
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        live = session.read()
        planned = destroy_plan(loaded.name, live, metrics=metrics)
        if not as_json:
            tell_plan(session.out, planned, glossary(loaded, live), prune=True)
        check_deletes(planned.deletes, max_deletes)
        if planned.changes and auto_approve and max_deletes is None:
            raise RefusedError(
                "--auto-approve alone does not destroy; nothing was changed.",
                todo="Say with --max-deletes N how much may go, or answer on a terminal.",
            )
        if planned.changes and not auto_approve:
            if not typed_out(loaded.name, as_json):
                raise typer.Exit(EXIT_REFUSED)
            # People take their time: look again.
            if destroy_plan(loaded.name, session.read(), metrics=metrics) != planned:
                raise RefusedError(
                    "Something of the catalog was changed after the question; nothing was deleted.",
                    where=str(session.target),
                    todo="Read what there is now, then repeat.",
                )
        carry_out(session, planned, as_json=as_json)


class Conversation(Protocol):
    """What `carry_out` needs of a session, of policies or of dashboards."""

    @property
    def target(self) -> Target:
        """Where the changes go."""

    @property
    def gateway(self) -> Writer:
        """Makes them."""

    @property
    def out(self) -> Console:
        """Tells them."""

    @property
    def keys(self) -> Mapping[str, str]:
        """Secrets by channel id."""

    def require_keys(self, planned: Plan) -> None:
        """Refuse a plan whose secrets are not all there."""


def carry_out(session: Conversation, planned: Plan, *, as_json: bool) -> None:
    """Make the changes of a plan, tell each one, and of a stop tell what is not done."""
    from alerts.apply import apply_plan
    from alerts.report import PAST, change_json

    session.require_keys(planned)
    done: list[Change] = []

    def on_done(change: Change) -> None:
        done.append(change)
        if not as_json:
            tell(session.out, f"{PAST[change.action]} {change.kind} {change.id}")

    def as_document(
        unknown: Sequence[Change], left: Sequence[Change], error: SpeakFitError | None
    ) -> dict[str, Any]:
        return {
            "target": str(session.target),
            "error": error and {"what": error.what, "where": error.where, "todo": error.todo},
            "done": [change_json(change) for change in done],
            "unknown": [change_json(change) for change in unknown],
            "not_done": [change_json(change) for change in left],
        }

    try:
        apply_plan(session.gateway, planned, keys=session.keys, on_done=on_done)
    except (ApplyError, RefusedError) as error:
        left = planned.changes[len(done) :]
        # Of at most one write nobody knows: it was under way, and no answer came.
        under_way = 1 if isinstance(error, ApplyError) and error.uncertain else 0
        if as_json:
            print_json(as_document(left[:under_way], left[under_way:], error))
        else:
            for number, change in enumerate(left):
                how = "perhaps done" if number < under_way else "not done"
                tell(session.out, f"{how}: {change.action} {change.kind} {change.id}")
        raise
    if as_json:
        print_json(as_document((), (), None))
    elif done:
        tell(session.out, f"Applied {count(len(done), 'change')}.")
