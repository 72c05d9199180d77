"""`python -m speakfit_ops.deploy`: plan, release, promote, roll back, and show who serves.

Google's libraries are imported by the commands that need them: `--help` must not wait for any.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.terminal import (
    EXIT_CHANGES,
    EXIT_FINE,
    EXIT_GATE,
    EXIT_REFUSED,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    console,
    parse_span,
    print_json,
    tell,
)
from speakfit.command_line import run_app
from speakfit.errors import TargetError
from speakfit_ops.deploy.estate import Estate, resolve_estate
from speakfit_ops.deploy.options import (
    EndpointOption,
    EnvironmentOption,
    RegionOption,
    YesOption,
    agreed,
)

if TYPE_CHECKING:
    from rich.console import Console

    from speakfit.settings import Settings
    from speakfit_ops.deploy.journal import Journal
    from speakfit_ops.deploy.release import Change, Deployer, Release


EXIT_INVALID = 6
"""Nothing was proved: too few requests, or no telemetry."""

ImageOption = Annotated[
    str, typer.Option("--image", metavar="IMAGE@DIGEST", help="The API's image.")
]
WorkerImageOption = Annotated[
    str | None,
    typer.Option(
        "--worker-image", metavar="IMAGE@DIGEST", help="The workers'; they stay without it."
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--release", metavar="NAME", help="Default: from the image's digest."),
]
SmokeUrlOption = Annotated[
    str | None,
    typer.Option(
        "--smoke-url",
        metavar="URL",
        help="Where the revision answers, when its own address is closed to this machine.",
    ),
]

app = typer.Typer(
    name="deploy",
    help="Release the API and the workers on Google Cloud, step by step, and take them back.",
    epilog="Exit codes: 0 fine, 1 error, 2 there is something to do (plan), 3 smoke checks or "
    "telemetry say no, 4 partly done, 5 refused, 6 inconclusive, 64 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@dataclass(frozen=True, kw_only=True)
class _Session:
    estate: Estate
    deployer: Deployer
    out: Console

    def journal(self, release: str) -> Journal:
        from speakfit_ops.deploy.journal import Journal

        return Journal.of(self.estate, release)


@contextmanager
def _session(
    *,
    project: str | None,
    region: str | None,
    environment: str | None,
    endpoint: str | None,
    as_json: bool,
    emulator: str | None = None,
    minimum: int = 0,
    smoke_url: str | None = None,
    compute: bool = False,
) -> Iterator[_Session]:
    from speakfit.settings import read_settings
    from speakfit_ops.deploy.cloud import Cloud, sleep
    from speakfit_ops.deploy.release import Deployer
    from speakfit_ops.deploy.smoke import smoke

    settings = read_settings()
    estate = resolve_estate(
        settings, project=project, region=region, environment=environment, endpoint=endpoint
    )
    out = console(stderr=as_json)
    tell(out, f"Target: {estate}", ("Target:", "bold"))
    cloud = Cloud(estate)
    if compute:
        cloud.warm()
    telemetry = _Telemetry(settings, estate, emulator=emulator, minimum=minimum, out=out)
    yield _Session(
        estate=estate,
        deployer=Deployer(
            cloud,
            tell=lambda line: tell(out, line),
            smoke=lambda url, release: smoke(
                smoke_url or url, release=release, token=_token(estate, url), pause=sleep
            ),
            observe=telemetry.observe,
            now_ns=telemetry.now_ns,
            pause=telemetry.pause,
            smoke_reaches=smoke_url is not None,
        ),
        out=out,
    )


class _Telemetry:
    """The Cloud Monitoring that tells how a release does; asked only by what needs it."""

    def __init__(
        self,
        settings: Settings,
        estate: Estate,
        *,
        emulator: str | None,
        minimum: int,
        out: Console,
    ) -> None:
        from speakfit.target import TargetKind, resolve_target

        self._settings = settings
        self._minimum = minimum
        self._target = resolve_target(settings, emulator=emulator, project=estate.project)
        if emulator and self._target.kind is TargetKind.EMULATOR:
            tell(out, f"Telemetry: {self._target}", ("Telemetry:", "bold"))

    def observe(self, release: str, before: str, since_ns: int) -> Any:
        from alerts.catalog import DEFAULT_CATALOG, load_catalog
        from alerts.gateway import Gateway
        from speakfit_ops.deploy.observation import observe

        with Gateway(self._target) as gateway:
            return observe(
                gateway,
                load_catalog(DEFAULT_CATALOG),
                release=release,
                before=before,
                since_ns=since_ns,
                now_ns=self.now_ns(),
                minimum=self._minimum,
                runbook_base_url=self._settings.runbook_base_url,
            )

    def now_ns(self) -> int:
        from speakfit.target import policy_now_ns

        return policy_now_ns(self._target)

    def pause(self, length: timedelta) -> None:
        from speakfit.target import policy_clock
        from speakfit_ops.deploy.cloud import sleep

        sleep(length / policy_clock(self._target).scale)


def _token(estate: Estate, url: str) -> str | None:
    """An identity token, where these credentials can make one; an open service needs none."""
    if estate.endpoint is not None:
        return None
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    fetch: Any = id_token.fetch_id_token
    try:
        return str(fetch(Request(), url))
    except (GoogleAuthError, ValueError):
        return None


def _show(out: Console, changes: list[Change]) -> None:
    for number, change in enumerate(changes, 1):
        mark = "done" if change.done else "to do"
        tell(out, f"  {number}. {change.step:<9} {mark:<5}  {change.text}", ("to do", "yellow"))


@app.command()
def plan(
    image: ImageOption,
    worker_image: WorkerImageOption = None,
    release_name: NameOption = None,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a release would do, and what of it is done; changes nothing."""
    from speakfit_ops.deploy.release import Release

    wanted = Release.of(image, worker_image, release_name)
    with _session(
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
        compute=worker_image is not None,
    ) as session:
        changes = session.deployer.plan(wanted, session.journal(wanted.name))
        if as_json:
            print_json({"release": wanted.name, "changes": [asdict(one) for one in changes]})
        else:
            tell(session.out, f"Release {wanted.name}:")
            _show(session.out, changes)
    return EXIT_FINE if all(one.done for one in changes) else EXIT_CHANGES


@app.command()
def release(
    image: ImageOption,
    worker_image: WorkerImageOption = None,
    release_name: NameOption = None,
    smoke_url: SmokeUrlOption = None,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Migrate, make a revision without traffic, and check that it answers.

    Nobody is sent to it; `promote` does that. Repeating goes on where it was stopped.
    """
    from speakfit_ops.deploy.release import Release

    wanted: Release = Release.of(image, worker_image, release_name)
    with _session(
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
        smoke_url=smoke_url,
        compute=worker_image is not None,
    ) as session:
        journal = session.journal(wanted.name)
        if not yes:
            _show(session.out, session.deployer.plan(wanted, journal))
        if not agreed("Migrate and make the revision?", yes=yes, as_json=as_json):
            return EXIT_REFUSED
        checks = session.deployer.release(wanted, journal)
        revision = wanted.revision(session.estate)
        if as_json:
            print_json(
                {
                    "release": wanted.name,
                    "revision": revision,
                    "checks": [asdict(one) for one in checks],
                }
            )
        for one in checks:
            tell(
                session.out,
                f"  {'ok' if one.ok else 'FAILED':<6} {one.name}: {one.detail}",
                ("FAILED", "bold red"),
            )
        if not all(one.ok for one in checks):
            tell(session.out, f"{revision} has no traffic and will not get any.")
            return EXIT_GATE
        if not checks:
            tell(session.out, f"{revision} serves everybody already.")
            return EXIT_FINE
        tell(session.out, f"{revision} waits for traffic; `promote` gives it.")
        return EXIT_FINE


@app.command()
def promote(
    steps: Annotated[
        str, typer.Option("--steps", metavar="PERCENTS", help="Shares of traffic, in order.")
    ] = "5,25,50",
    soak: Annotated[
        str, typer.Option("--pause", metavar="SPAN", help="How long each step must be healthy.")
    ] = "10m",
    every: Annotated[
        str, typer.Option("--every", metavar="SPAN", help="How often telemetry is looked at.")
    ] = "1m",
    minimum: Annotated[
        int,
        typer.Option(
            "--min-requests",
            min=1,
            metavar="N",
            help="Fewer in a step prove nothing.",
        ),
    ] = 50,
    smoke_url: SmokeUrlOption = None,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Replace the workers, then move traffic in steps while telemetry stays healthy.

    After each step the alert policies are evaluated on what the new release alone reported. When
    one of them would have opened an incident, everything goes back.
    """
    from speakfit_ops.deploy.verdict import Health

    shares = _percents(steps)
    with _session(
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
        emulator=emulator,
        minimum=minimum,
        smoke_url=smoke_url,
    ) as session:
        question = f"Send traffic to the candidate in steps of {steps},100 %?"
        if not agreed(question, yes=yes, as_json=as_json):
            return EXIT_REFUSED
        verdict = session.deployer.promote(
            session.journal,
            steps=shares,
            soak=parse_span(soak, "--pause"),
            every=parse_span(every, "--every"),
        )
        if as_json:
            print_json(asdict(verdict))
        for reason in verdict.reasons:
            tell(session.out, f"  {reason}")
        if verdict.health is Health.UNHEALTHY:
            tell(session.out, "Rolled back.", ("Rolled back.", "bold red"))
            return EXIT_GATE
        if verdict.health is Health.INCONCLUSIVE:
            tell(
                session.out,
                "Not promoted; traffic stays as it is. Repeat when there was more of it, or roll "
                "back.",
            )
            return EXIT_INVALID
        tell(session.out, "Promoted; `rollback` takes it back.")
        return EXIT_FINE


def _percents(text: str) -> tuple[int, ...]:
    try:
        shares = tuple(int(one) for one in text.split(","))
    except ValueError:
        shares = (0,)
    if not all(0 < one <= 100 for one in shares) or list(shares) != sorted(set(shares)):
        raise typer.BadParameter(
            f"{text!r} are no growing percentages; write for example 5,25,50.",
            param_hint="'--steps'",
        )
    return shares


@app.command()
def rollback(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REVISION", help="Default: the one that served before."),
    ] = None,
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Send all traffic to an earlier revision at once, and have its workers made again.

    The database stays as it is: migrations only add, so the earlier release runs on it.
    """
    with _session(
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
        compute=True,
    ) as session:
        question = f"Send all traffic to {to or 'the revision that served before'}?"
        if not agreed(question, yes=yes, as_json=as_json):
            return EXIT_REFUSED
        revision = session.deployer.rollback(to, session.journal, why="by hand")
        if as_json:
            print_json({"revision": revision})
        tell(session.out, f"{revision} serves.")
    return EXIT_FINE


@app.command()
def status(
    project: ProjectOption = None,
    region: RegionOption = None,
    environment: EnvironmentOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show who serves, who waits, and how far the last release came."""
    from speakfit_ops.deploy.release import Standing, describe

    with _session(
        project=project,
        region=region,
        environment=environment,
        endpoint=endpoint,
        as_json=as_json,
        compute=True,
    ) as session:
        cloud = session.deployer.cloud
        standing = Standing.of(cloud.service())
        rows = [describe(one, cloud.revision(one)) for one in standing.revisions]
        for row in rows:
            row["percent"] = standing.percent(row["revision"])
            row["tag"] = next(
                (one.tag for one in standing.shares if one.revision == row["revision"] and one.tag),
                "",
            )
            last = session.journal(row["release"]).entries[-1:] if row["release"] else []
            row["last"] = f"{last[0].step} {last[0].state} {last[0].at}" if last else ""
        try:
            fleet = cloud.workers.now()
        except TargetError as error:
            # Before the first workers were made there are none.
            fleet, why = None, error.what
        if as_json:
            print_json({"revisions": rows, "workers": None if fleet is None else asdict(fleet)})
            return EXIT_FINE
        for row in rows:
            words = [f"{row['percent']:>3} %  {row['revision']}"]
            words += [row["image"], f"tag {row['tag']}" if row["tag"] else "", row["last"]]
            tell(session.out, "  ".join(word for word in words if word))
        if fleet is None:
            tell(session.out, why)
        else:
            tell(
                session.out,
                f"{fleet.size} worker(s) of {fleet.version}"
                + ("" if fleet.stable else ", being replaced"),
            )
    return EXIT_FINE


def main() -> int:
    """Run the command line; the documented exit code."""
    return run_app(
        app,
        "speakfit_ops.deploy",
        stopped="Stopped; `python -m speakfit_ops.deploy status` shows where; repeating goes on.",
    )


if __name__ == "__main__":
    sys.exit(main())
