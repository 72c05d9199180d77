"""`record` and `backtest`: what was measured, and what policies would have made of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_ERROR,
    EXIT_GATE,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    console,
    count,
    known_policies,
    parse_span,
    print_json,
    progress,
    tell,
)
from speakfit.errors import HistoryError, TargetError

if TYPE_CHECKING:
    from rich.console import Console

    from alerts.backtest import Backtest, Outcome
    from alerts.behaviour import Behaviour
    from alerts.comparison import Comparison
    from alerts.entrant import Entrant
    from alerts.history import History
    from alerts.outage import Judgement
    from alerts.plan import Change
    from alerts.policy import Catalog
    from alerts.session import Session

_SINCE = "30d"
_SINCE_OF_A_PLAN = "14d"


def record(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="Written whole or not at all."),
    ] = Path("history.jsonl.gz"),
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back: 30d, 12h, 90m.")
    ] = _SINCE,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="ID",
            help="Only what this policy reads; repeatable.",
            autocompletion=known_policies,
        ),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record the series that the policies read, for backtest.

    Reads what the catalog's policies and those live under its name need: whole series, nothing
    aggregated, and as much before --since as their windows reach back. Changes nothing.
    """
    from alerts.catalog import find_policy, load_catalog
    from alerts.encode import engine_descriptors
    from alerts.entrant import identity, live_bodies, proposed_bodies
    from alerts.history import instant, minute, write_history
    from alerts.retrieval import retrieve
    from alerts.session import open_session

    span = parse_span(since, "--since")
    loaded = load_catalog(catalog)
    wanted = {find_policy(loaded, one).id for one in policy or ()}
    with open_session(loaded, emulator, project, as_json=as_json) as session:
        bodies = [
            body
            for body in (
                *proposed_bodies(loaded, runbook_base_url=session.settings.runbook_base_url),
                *live_bodies(session.gateway.policies(), loaded),
            )
            if not wanted or identity(body) in wanted
        ]
        try:
            with progress("Reading") as on_progress:
                history = retrieve(
                    session.gateway,
                    bodies,
                    declared=engine_descriptors(loaded).get,
                    since=span,
                    on_progress=on_progress,
                )
                written = write_history(history, out)
        except KeyboardInterrupt:
            print("\nStopped; no file was written.", file=sys.stderr)
            raise typer.Exit(EXIT_ERROR) from None
    found: list[dict[str, Any]] = [
        {
            "metric": selection.metric_type,
            "resource": selection.resource_type,
            "series": sum(n for kind, n in written.series.items() if selection.covers(kind)),
            "points": sum(n for kind, n in written.points.items() if selection.covers(kind)),
        }
        for selection in history.selections
    ]
    if as_json:
        print_json(
            {
                "file": str(out),
                "bytes": written.size,
                "project": history.project,
                "start": instant(history.start_ns),
                "end": instant(history.end_ns),
                "recorded": found,
            }
        )
        return
    tell(
        session.out,
        f"Recorded {minute(history.start_ns)} to {minute(history.end_ns)} UTC in {out} "
        f"({_size_words(written.size)})",
    )
    width = max(len(one["metric"]) for one in found)
    for one in found:
        words = f"{one['series']:,} series, {count(one['points'], 'point')}"
        tell(session.out, f"  {one['metric']:<{width}}  {words if one['series'] else 'no series'}")


def _size_words(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def backtest(
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN",
            help="How far back: 30d, 12h, 90m. [default: 30d, or all of --from]",
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A history that record wrote."),
    ] = None,
    current: Annotated[
        Path | None,
        typer.Option(
            "--current",
            metavar="FILE",
            help="Compare with the policies of this JSON or YAML file, not with the live ones.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no server: with --from, compare with nothing live."),
    ] = False,
    incidents: Annotated[
        Path | None,
        typer.Option("--incidents", metavar="FILE", help="YAML file of known outages."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="ID",
            help="Only this policy, in detail; repeatable.",
            autocompletion=known_policies,
        ),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="SPAN", help="How often to evaluate.")
    ] = "60s",
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE",
            help="Draw the series and the incidents on them, as .svg or .png.",
        ),
    ] = None,
    max_pages: Annotated[
        float | None,
        typer.Option(
            "--max-pages-per-week",
            metavar="N",
            min=0,
            help="Exit code 3 when the catalog would page more.",
        ),
    ] = None,
    max_missed: Annotated[
        int | None,
        typer.Option(
            "--max-missed",
            metavar="N",
            min=0,
            help="Exit code 3 when it would miss more known outages; without --incidents, more "
            "incidents of the current policies.",
        ),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay history through the current policies and the catalog's.

    Shows incidents, pages a week, time in alert and near misses of both, and what changes. What
    cannot be evaluated here is told as such, never as quiet. Changes nothing.
    """
    from alerts.backtest import backtest as replay
    from alerts.catalog import find_policy, load_catalog
    from alerts.comparison import compare
    from alerts.history import minute
    from alerts.outage import judge, read_outages
    from alerts.picture import COLUMNS, require_renderer

    span = None if since is None else parse_span(since, "--since")
    step = parse_span(every, "--every")
    if offline and from_file is None:
        raise typer.BadParameter("--offline needs --from FILE.")
    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise typer.BadParameter(f"--picture draws .svg or .png, not {picture.name!r}.")
    if picture is not None and picture.suffix == ".png":
        require_renderer()
    loaded = load_catalog(catalog)
    wanted = {find_policy(loaded, one).id for one in policy or ()}
    outages = () if incidents is None else read_outages(incidents)
    with _material(
        loaded,
        wanted,
        from_file,
        current,
        span or parse_span(_SINCE, "--since"),
        where=(emulator, project),
        offline=offline,
        as_json=as_json,
    ) as found:
        if max_missed is not None and not outages and found.before is None:
            raise typer.BadParameter(
                "--max-missed needs --incidents FILE, or current policies to compare with."
            )
        out, history, before, after = found.out, found.history, found.before or (), found.after
        tell(
            out,
            f"History: {from_file or 'read from the target'}, project {history.project}, "
            f"{minute(history.start_ns)} to {minute(history.end_ns)} UTC",
            ("History:", "bold"),
        )
        result = replay(
            [*before, *after],
            history,
            since=span,
            every=step,
            columns=0 if picture is None else COLUMNS,
        )
    outcomes = result.outcomes
    old, new = outcomes[: len(before)], outcomes[len(before) :]
    report = _Report(
        result=result,
        compared=compare(old, new),
        against=None if found.before is None else str(current or "the live policies"),
        judgements=tuple(
            judge(side, outages, result)
            for side in ((new,) if found.before is None else (new, old))
        )
        if outages
        else (),
        details=bool(wanted),
    )
    if picture is not None:
        _draw(report, picture, f"Backtest of {loaded.name}, project {history.project}")
        tell(out, f"Picture: {picture}", ("Picture:", "bold"))
    gates = _gates(report, max_pages, max_missed)
    if as_json:
        print_json(_report_json(report, history, gates))
    else:
        _tell_report(out, report, gates)
    if not any(one.standing.known for one in new):
        raise HistoryError(
            "None of the policies could be replayed.",
            where=str(from_file or history.source),
            todo="Record a history of what they read, long enough for their windows.",
        )
    if not all(gate.passed for gate in gates):
        raise typer.Exit(EXIT_GATE)


@dataclass(frozen=True, kw_only=True)
class _Material:
    out: Console
    history: History
    before: tuple[Entrant, ...] | None
    """The current policies; None where nothing is there to compare with."""
    after: tuple[Entrant, ...]


@contextmanager
def _material(
    catalog: Catalog,
    wanted: set[str],
    file: Path | None,
    current: Path | None,
    since: timedelta,
    *,
    where: tuple[str | None, str | None],
    offline: bool,
    as_json: bool,
) -> Iterator[_Material]:
    """The history and the policies to replay, from files or from the target, `where` it is named.

    A target is asked for what no file gives; none is needed when a file gives the history.
    """
    from alerts.encode import engine_descriptors
    from alerts.entrant import either, entrants, identity, live_bodies, proposed_bodies
    from alerts.rawfile import policies_of_file
    from alerts.retrieval import open_history, require_project
    from alerts.session import open_session
    from speakfit.settings import read_settings

    def chosen(bodies: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        return tuple(body for body in bodies if not wanted or identity(body, names) in wanted)

    proposed = proposed_bodies(catalog, runbook_base_url=read_settings().runbook_base_url)
    names = {str(body["displayName"]): identity(body) for body in proposed}
    declared = engine_descriptors(catalog).get
    with ExitStack() as stack:
        session = None
        if file is None or not (offline or current or _nobody(*where)):
            session = stack.enter_context(open_session(catalog, *where, as_json=as_json))
        out = console(stderr=as_json) if session is None else session.out
        live: tuple[dict[str, Any], ...] | None = None
        if current is not None:
            live = chosen(policies_of_file(current))
        elif session is not None:
            live = chosen(live_bodies(session.gateway.policies(), catalog))
        elif not offline:
            tell(out, "No target and no --current: nothing to compare the catalog with")
        history = open_history(
            file,
            None if session is None else session.gateway,
            (*chosen(proposed), *(live or ())),
            declared=declared,
            since=since,
            on_progress=stack.enter_context(progress("Replaying")),
        )
        if session is None and where[1] is not None:
            require_project(history, where[1])
        lookup = either(history.descriptor, declared)
        yield _Material(
            out=out,
            history=history,
            before=None if live is None else entrants(live, descriptors=lookup, known_as=names),
            after=entrants(chosen(proposed), descriptors=lookup),
        )


def replay_changes(
    session: Session, changes: Sequence[Change], file: Path | None, since: timedelta | None
) -> Behaviour | None:
    """What changes would have done on the history of a file, or of the target; None for nothing.

    A file is replayed whole unless `since` is given.
    """
    from alerts.behaviour import behaviour, policies_of
    from alerts.encode import engine_descriptors
    from alerts.entrant import either
    from alerts.retrieval import open_history

    live = session.gateway.policies()
    before, after = policies_of(changes, live)
    if not before and not after:
        return None
    declared = engine_descriptors(session.catalog).get
    with progress("Replaying") as on_progress:
        history = open_history(
            file,
            session.gateway,
            (*before, *after),
            declared=declared,
            since=since or parse_span(_SINCE_OF_A_PLAN, "--since"),
            on_progress=on_progress,
        )
        lookup = either(history.descriptor, declared)
        return behaviour(changes, live, history, descriptors=lookup, since=since)


def _nobody(emulator: str | None, project: str | None) -> bool:
    """Whether no Cloud Monitoring is named anywhere: then there is nothing live."""
    from speakfit.settings import read_settings
    from speakfit.target import resolve_target

    try:
        resolve_target(read_settings(), emulator=emulator, project=project)
    except TargetError:
        return True
    return False


def _draw(report: _Report, file: Path, title: str) -> None:
    from alerts.picture import picture, png

    bitmap = file.suffix == ".png"
    text = picture(
        report.compared,
        report.result,
        title=title,
        before=report.against is not None,
        follows_reader=not bitmap,
    )
    try:
        file.write_bytes(png(text) if bitmap else text.encode())
    except OSError as error:
        raise HistoryError(
            f"The picture cannot be written: {error.strerror}.",
            where=str(file),
            todo="Name another file with --picture.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Report:
    result: Backtest
    compared: tuple[Comparison, ...]
    against: str | None
    """What the catalog is compared with."""
    judgements: tuple[Judgement, ...]
    """Of the catalog, then of what it is compared with; none without known outages."""
    details: bool

    @property
    def proposed(self) -> list[Outcome]:
        return [one.proposed for one in self.compared if one.proposed is not None]

    @property
    def current(self) -> list[Outcome]:
        return [one.current for one in self.compared if one.current is not None]


@dataclass(frozen=True, kw_only=True)
class _Gate:
    words: str
    passed: bool


def _gates(report: _Report, max_pages: float | None, max_missed: int | None) -> list[_Gate]:
    """What was asked for; policies of which nothing is known are named, never counted as quiet."""
    from alerts.tally import number_words

    unknown = sum(1 for one in report.compared if not one.known)
    blind = f"; nothing is known of {count(unknown, 'policy')}" if unknown else ""
    found = []
    if max_pages is not None:
        weekly = report.result.weekly(sum(one.paged for one in report.proposed))
        passed = weekly <= max_pages
        found.append(
            _Gate(
                words=f"{number_words(weekly)} pages a week, {_than(passed)} {max_pages:g}{blind}",
                passed=passed,
            )
        )
    if max_missed is not None:
        if report.judgements:
            missed = report.judgements[0].missed
            what = count(missed, "known outage")
        else:
            missed = sum(one.missed for one in report.compared)
            what = f"{count(missed, 'incident')} of the current policies"
        passed = missed <= max_missed
        found.append(
            _Gate(words=f"{what} missed, {_than(passed)} {max_missed}{blind}", passed=passed)
        )
    return found


def _than(passed: bool) -> str:
    return "at most" if passed else "more than"


def _tell_report(out: Console, report: _Report, gates: Sequence[_Gate]) -> None:
    from alerts.history import minute
    from alerts.tally import HEAD, detection_line, incident_line, rows, table, total_words
    from alerts.wording import duration_words

    result = report.result
    known = any(one.standing.known for one in report.proposed)
    if known:
        tell(
            out,
            f"Evaluated every {duration_words(result.every)}, {minute(result.start_ns)} to "
            f"{minute(result.end_ns)} UTC"
            + (f"; {report.against} → the catalog" if report.against else ""),
        )
    head, *body = table(HEAD, rows(report.compared, result, before=report.against is not None))
    tell(out, f"  {head}", (head, "dim"))
    for line, one in zip(body, report.compared, strict=True):
        tell(out, f"  {line}", *(() if one.known else ((line, "yellow"),)))
        if report.details and one.proposed is not None:
            for incident in one.proposed.incidents:
                tell(out, f"    {incident_line(incident)}")
    if not known:
        # An error says so; totals would look like quiet.
        return
    if report.against is not None:
        changed = [
            one
            for one in report.compared
            if one.changed
            and not one.quiet
            # The table says already why nothing is known of them.
            and (one.proposed is None or one.proposed.standing.known)
        ]
        for one in changed:
            tell(out, f"  {one.id}: {one.words()}", (one.id, "bold"))
        tell(out, f"Current: {total_words(report.current, result)}.")
    tell(out, f"Proposed: {total_words(report.proposed, result)}.")
    for side, judgement in zip(("proposed", "current"), report.judgements, strict=False):
        detected = len(judgement.detections) - judgement.missed
        outside = f", {judgement.outside} outside the replayed time" if judgement.outside else ""
        tell(
            out,
            f"Known outages, {side}: {detected} of {len(judgement.detections)} detected{outside}",
        )
        for detection in judgement.detections:
            missed = () if detection.by else (("missed", "red"),)
            tell(out, f"  {detection_line(detection)}", *missed)
        if judgement.false_pages:
            pages = ", ".join(f"{name} {number}" for name, number in judgement.false_pages.items())
            tell(out, f"  pages outside every known outage: {pages}")
    for gate in gates:
        verdict = "passed" if gate.passed else "failed"
        tell(
            out,
            f"Gate {verdict}: {gate.words}.",
            (f"Gate {verdict}:", "green" if gate.passed else "bold red"),
        )


def _report_json(report: _Report, history: History, gates: Sequence[_Gate]) -> dict[str, Any]:
    from alerts.history import instant
    from alerts.tally import by_severity, comparison_json, judgement_json

    result = report.result
    before = report.against is not None
    body: dict[str, Any] = {
        "history": {
            "project": history.project,
            "start": instant(history.start_ns),
            "end": instant(history.end_ns),
        },
        "start": instant(result.start_ns),
        "end": instant(result.end_ns),
        "every_seconds": result.every.total_seconds(),
        "current": report.against,
        "pages_per_week": {
            severity or "none": round(result.weekly(number), 3)
            for severity, number in by_severity(report.proposed).items()
        },
        "policies": [comparison_json(one, result, before=before) for one in report.compared],
    }
    for name, judgement in zip(("outages", "outages_current"), report.judgements, strict=False):
        body[name] = judgement_json(judgement)
    if gates:
        body["gates"] = [{"words": gate.words, "passed": gate.passed} for gate in gates]
    return body
