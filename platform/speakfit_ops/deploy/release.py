"""The steps of a release and of taking it back; each looks at what is live before it acts.

Nobody is sent to a new revision by `release`: the database is migrated (migrations only add), a
revision is made with no traffic and a tag, and its own address must answer. `promote` replaces the
workers, then moves traffic in steps, and after each the telemetry of the new release alone must be
healthy; when it is not, everything goes back. What a step needs to know later is annotated on the
revision, so any machine can go on or roll back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from speakfit.clock import from_ns, to_ns
from speakfit.errors import ApplyError, RefusedError
from speakfit_ops.deploy.cloud import Cloud, Pause
from speakfit_ops.deploy.estate import Estate
from speakfit_ops.deploy.journal import Journal, State, Step
from speakfit_ops.deploy.smoke import Check
from speakfit_ops.deploy.verdict import Health, Verdict

TAG = "candidate"
"""Of the revision that waits for traffic; its address is `https://candidate---SERVICE...`."""

OURS = "speakfit.dev/"
"""Begins every annotation of ours."""
RELEASE = f"{OURS}release"
PREVIOUS = f"{OURS}previous-revision"
WORKER_IMAGE = f"{OURS}worker-image"
WORKERS_OF = f"{OURS}worker-version"
"""The version of the workers that belongs to a revision: a template, or a pool's revision."""
PREVIOUS_WORKERS = f"{OURS}previous-worker-version"
TRAFFIC_SINCE = f"{OURS}traffic-since"
"""On the service: the policy time of the last traffic step."""

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
MAX_NAME = 63
"""Characters of a revision's or an instance template's name (RFC 1035)."""

Tell = Callable[[str], None]
Smoke = Callable[[str, str], Sequence[Check]]
"""Asks the address of a release."""
Observe = Callable[[str, str, int], Verdict]
"""Judges a release beside the one before it, since a policy time."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is to run: images by digest, under one name."""

    name: str
    image: str
    worker_image: str | None = None
    """None leaves the workers as they are."""

    @classmethod
    def of(cls, image: str, worker_image: str | None, name: str | None) -> Release:
        """Check what was asked for; the name is the image's digest unless one is given.

        Raises RefusedError: a tag may be another image tomorrow, and a rollback would bring it.
        """
        for one, option in ((image, "--image"), (worker_image, "--worker-image")):
            if one is not None and not _DIGEST.fullmatch(one):
                raise RefusedError(
                    f"{one} is no image by digest.",
                    where=option,
                    todo="Write IMAGE@sha256:...; `gcloud artifacts docker images describe IMAGE` "
                    "shows it.",
                )
        name = name or f"d-{image.rsplit(':', 1)[1][:12]}"
        if not _NAME.fullmatch(name):
            raise RefusedError(
                f"{name!r} cannot name a release.",
                where="--release",
                todo="Use up to 30 lowercase letters, digits and dashes.",
            )
        return cls(name=name, image=image, worker_image=worker_image)

    def revision(self, estate: Estate) -> str:
        """Name of its Cloud Run revision."""
        return self._named(estate.service)

    def workers(self, estate: Estate) -> str:
        """Name of its workers' version."""
        return self._named(estate.workers)

    def _named(self, prefix: str) -> str:
        name = f"{prefix}-{self.name}"
        if len(name) > MAX_NAME:
            raise RefusedError(
                f"{name} is longer than {MAX_NAME} characters.",
                where="--release",
                todo="Name it shorter.",
            )
        return name


@dataclass(frozen=True, kw_only=True)
class Share:
    """One line of a service's traffic as it is served."""

    revision: str
    percent: int
    tag: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Who serves, and who waits."""

    shares: tuple[Share, ...]

    @classmethod
    def of(cls, service: Any) -> Standing:
        """As the service tells it; the newest revision is named, not called the latest."""
        latest = str(service.latest_ready_revision).rsplit("/", 1)[-1]
        return cls(
            shares=tuple(
                Share(
                    revision=one.revision.rsplit("/", 1)[-1] or latest,
                    percent=one.percent,
                    tag=one.tag,
                    url=one.uri,
                )
                for one in service.traffic_statuses
            )
        )

    @property
    def candidate(self) -> Share | None:
        """The revision under the tag, with all of its traffic."""
        tagged = next((one for one in self.shares if one.tag == TAG), None)
        if tagged is None:
            return None
        return Share(
            revision=tagged.revision,
            percent=self.percent(tagged.revision),
            tag=TAG,
            url=tagged.url,
        )

    def percent(self, revision: str) -> int:
        """The traffic of one revision."""
        return sum(one.percent for one in self.shares if one.revision == revision)

    @property
    def serving(self) -> tuple[str, ...]:
        """Revisions with traffic, the most first."""
        names = {one.revision for one in self.shares if one.percent}
        return tuple(sorted(names, key=lambda name: (-self.percent(name), name)))

    @property
    def revisions(self) -> tuple[str, ...]:
        """All that are named, those with the most traffic first."""
        return tuple(dict.fromkeys([*self.serving, *(one.revision for one in self.shares)]))

    def others(self, revision: str) -> tuple[str, ...]:
        """Serving revisions but this one."""
        return tuple(name for name in self.serving if name != revision)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a release would do."""

    step: Step
    text: str
    done: bool


def split(shares: Sequence[tuple[str, int]], *, tagged: str | None = None) -> list[Any]:
    """Traffic by revision, and the tag; a revision without traffic is left out."""
    from google.cloud.run_v2 import TrafficTarget, TrafficTargetAllocationType

    kind = TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    targets = [
        TrafficTarget(type_=kind, revision=revision, percent=percent)
        for revision, percent in shares
        if percent
    ]
    if tagged:
        targets.append(TrafficTarget(type_=kind, revision=tagged, tag=TAG))
    return targets


def failure(revision: Any) -> str:
    """Why a revision is not ready, in Cloud Run's words; empty when it is or still may be."""
    if revision is None:
        return "Cloud Run has not made it."
    for one in revision.conditions:
        if one.type_ == "Ready" and one.state.name == "CONDITION_FAILED":
            return str(one.message) or "no reason given."
    return ""


def serving_container(template: Any) -> Any:
    """The container that has the port; the only one as a rule."""
    return next((one for one in template.containers if one.ports), template.containers[0])


class Deployer:
    """Carries out releases in one estate, one step after another."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        tell: Tell,
        smoke: Smoke,
        observe: Observe,
        now_ns: Callable[[], int],
        pause: Pause,
        smoke_reaches: bool = False,
    ) -> None:
        """`now_ns` is policy time, in which `pause` waits too.

        `smoke_reaches` says that `smoke` asks an address of its own choice.
        """
        self.cloud = cloud
        self.estate = cloud.estate
        self._tell = tell
        self._smoke = smoke
        self._observe = observe
        self._now_ns = now_ns
        self._pause = pause
        self._smoke_reaches = smoke_reaches

    # Plan

    def plan(self, wanted: Release, journal: Journal) -> list[Change]:
        """What `release` and `promote` would do, in their order; reads only."""
        standing = Standing.of(self.cloud.service())
        name = wanted.revision(self.estate)
        existing = self._existing(wanted)
        self._refuse_another(standing, name)
        serving = standing.percent(name)
        made = existing is not None
        changes = [
            Change(
                step=Step.MIGRATE,
                text=f"run {self.estate.job_name.rsplit('/', 1)[1]} with {_short(wanted.image)}",
                # Whoever made the revision had migrated before.
                done=made or journal.done(Step.MIGRATE),
            ),
            Change(
                step=Step.CANDIDATE,
                text=f"make revision {name} with {_short(wanted.image)}, no traffic, tag {TAG}",
                done=made,
            ),
            Change(
                step=Step.SMOKE,
                text="ask the revision at its own address",
                done=serving > 0 or journal.done(Step.SMOKE),
            ),
        ]
        if wanted.worker_image:
            fleet = self.cloud.workers.now()
            changes.append(
                Change(
                    step=Step.WORKERS,
                    text=f"replace {fleet} by {_short(wanted.worker_image)}",
                    done=fleet.version == wanted.workers(self.estate) and fleet.stable,
                )
            )
        others = ", ".join(standing.others(name)) or "nobody"
        changes.append(
            Change(
                step=Step.TRAFFIC,
                text=f"move traffic from {others} in steps, each judged by its own telemetry",
                done=serving == 100,
            )
        )
        return changes

    def _existing(self, wanted: Release) -> Any | None:
        """The revision of a release; RefusedError when another image has its name."""
        revision = self.cloud.revision(wanted.revision(self.estate))
        if revision is not None and serving_container(revision).image != wanted.image:
            raise RefusedError(
                f"Release {wanted.name} exists already with another image: "
                f"{_short(serving_container(revision).image)}.",
                where=f"revision {wanted.revision(self.estate)}",
                todo="Name this one otherwise with --release.",
            )
        return revision

    def _refuse_another(self, standing: Standing, name: str) -> None:
        candidate = standing.candidate
        under_way = candidate is not None and candidate.percent and candidate.revision != name
        if under_way or len(standing.others(name)) > 1:
            raise RefusedError(
                f"Another release is under way: {', '.join(standing.serving)} have traffic.",
                where=str(self.estate),
                todo="`promote` it to the end, or `rollback`, first.",
            )

    # Release

    def release(self, wanted: Release, journal: Journal) -> Sequence[Check]:
        """Migrate, make the revision without traffic, and ask it; what is done is not repeated.

        Returns the answers of the revision, none where it serves everybody already. Raises
        ApplyError where a step failed.
        """
        done = 0
        try:
            existing = self._existing(wanted)
            name = wanted.revision(self.estate)
            standing = Standing.of(self.cloud.service())
            if standing.percent(name) == 100 and standing.candidate is None:
                return ()
            self._refuse_another(standing, name)
            if wanted.worker_image:
                # What is not there is told before anything is changed.
                self.cloud.workers.now()
            if existing is None:
                self._migrate(wanted, journal)
                done += 1
            self._candidate(wanted, journal)
            done += 1
            return self._look(wanted.name, name, journal)
        except ApplyError as error:
            error.done += done
            raise

    def _migrate(self, wanted: Release, journal: Journal) -> None:
        if journal.done(Step.MIGRATE):
            return
        last = journal.last(Step.MIGRATE)
        execution = (
            str(last.facts.get("execution", "")) if last and last.state is State.BEGUN else ""
        )
        self._tell("Migrating the database; migrations only add.")
        if not execution:
            self.cloud.point_job(wanted.image)
            # Killed here, the next try starts another: migrating twice does nothing.
            execution = self.cloud.run_job()
            journal.note(Step.MIGRATE, State.BEGUN, execution=execution)
        try:
            self.cloud.migrated(execution)
        except ApplyError as error:
            journal.note(Step.MIGRATE, State.FAILED, execution=execution, why=error.what)
            raise
        journal.note(Step.MIGRATE, State.DONE, execution=execution)

    def _candidate(self, wanted: Release, journal: Journal) -> None:
        name = wanted.revision(self.estate)
        service = self.cloud.service()
        standing = Standing.of(service)
        present = self.cloud.revision(name) is not None
        tagged = standing.candidate is not None and standing.candidate.revision == name
        if not (present and (tagged or standing.percent(name))):
            serving = standing.others(name)
            if not serving:
                raise RefusedError(
                    "No revision serves yet.",
                    where=str(self.estate),
                    todo="The first one is made by `terraform -chdir=terraform apply`.",
                )
            previous = serving[0]
            journal.note(Step.CANDIDATE, State.BEGUN, revision=name, previous=previous)
            self._tell(f"Making revision {name}; {previous} keeps all traffic.")
            paths = ["traffic"]
            service.traffic = split([(previous, 100)], tagged=name)
            if not present:
                self._describe(service.template, wanted, name, previous)
                paths.append("template")
            self.cloud.update(service, *paths)
        self.cloud.settle()
        trouble = failure(self.cloud.revision(name))
        if trouble:
            journal.note(Step.CANDIDATE, State.FAILED, revision=name, why=trouble)
            raise ApplyError(
                f"Revision {name} does not become ready: {trouble}",
                where=str(self.estate),
                todo="It has no traffic. Read its log, correct the cause and release again under "
                "another name.",
            )
        if not journal.done(Step.CANDIDATE):
            journal.note(Step.CANDIDATE, State.DONE, revision=name)

    def _describe(self, template: Any, wanted: Release, name: str, previous: str) -> None:
        """Change a revision template into that of the release, with all that later steps ask."""
        container = serving_container(template)
        container.image = wanted.image
        # Its name is what its series carry (speakfit.settings.release).
        template.revision = name
        about = {RELEASE: wanted.name, PREVIOUS: previous}
        if wanted.worker_image:
            about |= {
                WORKER_IMAGE: wanted.worker_image,
                WORKERS_OF: wanted.workers(self.estate),
                PREVIOUS_WORKERS: self.cloud.workers.now().version,
            }
        else:
            # The workers stay those of the release before, whichever that was.
            before = self.cloud.revision(previous)
            kept = "" if before is None else before.annotations.get(WORKERS_OF, "")
            about |= {WORKERS_OF: kept} if kept else {}
        for key in [key for key in template.annotations if key.startswith(OURS)]:
            del template.annotations[key]
        for key, value in about.items():
            template.annotations[key] = value

    def _look(self, release: str, revision: str, journal: Journal) -> Sequence[Check]:
        share = Standing.of(self.cloud.service()).candidate
        if share is None or share.revision != revision or not share.url:
            raise ApplyError(
                f"Revision {revision} has no address of its own.",
                where=str(self.estate),
                todo="Repeat `release`: it gives the revision its tag again.",
            )
        checks = self._probed(revision) or self._smoke(share.url, release)
        failed = [one for one in checks if not one.ok]
        journal.note(
            Step.SMOKE,
            State.FAILED if failed else State.DONE,
            checks={one.name: one.detail for one in checks},
        )
        return checks

    def _probed(self, revision: str) -> Sequence[Check]:
        """What Cloud Run itself has asked, where nobody else can; empty where we can ask.

        Behind a load balancer a revision's own address is closed. Its start-up probe is /readyz,
        so a revision that is ready has answered what we would ask.
        """
        closed = self.cloud.service().ingress.name != "INGRESS_TRAFFIC_ALL"
        if self._smoke_reaches or not closed:
            return ()
        found = self.cloud.revision(revision)
        probe = "" if found is None else serving_container(found).startup_probe.http_get.path
        if probe != "/readyz":
            return (
                Check(
                    name="ready",
                    ok=False,
                    detail="its address is closed to this machine and Cloud Run does not probe "
                    "/readyz; name an address with --smoke-url",
                ),
            )
        why = failure(found)
        detail = why or "Cloud Run's own probe of /readyz; its address is closed to this machine"
        return (Check(name="ready", ok=not why, detail=detail),)

    # Promote

    def promote(
        self,
        journal_of: Callable[[str], Journal],
        *,
        steps: Sequence[int],
        soak: timedelta,
        every: timedelta,
    ) -> Verdict:
        """Replace the workers, then move traffic in steps; each must stay healthy for `soak`.

        The telemetry is looked at `every` so often, and trouble ends the step at once: everything
        goes back. An inconclusive verdict leaves traffic where it is; repeating goes on from
        there. Returns the last verdict. Raises RefusedError when nothing waits for traffic or it
        does not answer, ApplyError where a step failed.
        """
        candidate = Standing.of(self.cloud.service()).candidate
        if candidate is None:
            raise RefusedError(
                "No revision waits for traffic.",
                where=str(self.estate),
                todo="Make one with `release`; `status` shows who serves.",
            )
        name = candidate.revision
        revision = self.cloud.revision(name)
        about = {} if revision is None else dict(revision.annotations)
        if RELEASE not in about:
            raise RefusedError(
                f"Revision {name} was not made by `release`.",
                where=str(self.estate),
                todo="Release its image; then promote that.",
            )
        if why := failure(revision):
            raise RefusedError(
                f"Revision {name} is not ready: {why}",
                where=str(self.estate),
                todo="Read its log, correct the cause and release again under another name.",
            )
        release = about[RELEASE]
        journal = journal_of(release)
        if not candidate.percent and not journal.done(Step.SMOKE):
            failed = [one for one in self._look(release, name, journal) if not one.ok]
            if failed:
                raise RefusedError(
                    f"The revision does not answer as it must: {failed[0].name}: "
                    f"{failed[0].detail}.",
                    where=candidate.url,
                    todo="Correct it and release again under another name.",
                )
        others = Standing.of(self.cloud.service()).others(name)
        previous = others[0] if others else about[PREVIOUS]
        self._workers(release, about, journal)
        verdict = None
        for percent in [*(one for one in sorted(steps) if one < 100), 100]:
            if percent < candidate.percent:
                continue
            since_ns = self._traffic(name, previous, percent, journal)
            verdict = self._watch(release, previous, percent, since_ns, soak, every, journal)
            if verdict.health is Health.UNHEALTHY:
                self.rollback(previous, journal_of, why="; ".join(verdict.reasons))
                return verdict
            if verdict.health is Health.INCONCLUSIVE:
                return verdict
        assert verdict is not None
        service = self.cloud.service()
        service.traffic = split([(name, 100)])
        self._send(service, {name: 100})
        journal.note(Step.FINISH, State.DONE, revision=name, previous=previous)
        return verdict

    def _workers(self, release: str, about: dict[str, str], journal: Journal) -> None:
        image = about.get(WORKER_IMAGE)
        if image is None:
            return
        version = about[WORKERS_OF]
        workers = self.cloud.workers
        fleet = workers.now()
        if fleet.version != version:
            journal.note(Step.WORKERS, State.BEGUN, version=version, previous=fleet.version)
            self._tell(f"Replacing {fleet}.")
            workers.prepare(version, release=release, image=image)
            workers.roll(version)
        try:
            workers.wait(version)
        except ApplyError as error:
            journal.note(Step.WORKERS, State.FAILED, version=version, why=error.what)
            raise
        if not journal.done(Step.WORKERS):
            journal.note(Step.WORKERS, State.DONE, version=version)

    def _traffic(self, name: str, previous: str, percent: int, journal: Journal) -> int:
        """Give the candidate so much; the policy time at which it had it."""
        service = self.cloud.service()
        standing = Standing.of(service)
        began = service.annotations.get(TRAFFIC_SINCE, "")
        if standing.percent(name) == percent and began:
            return to_ns(datetime.fromisoformat(began))
        now_ns = self._now_ns()
        journal.note(Step.TRAFFIC, State.BEGUN, percent=percent, revision=name)
        self._tell(f"Sending {percent} % to {name}.")
        service.traffic = split([(previous, 100 - percent), (name, percent)], tagged=name)
        service.annotations[TRAFFIC_SINCE] = from_ns(now_ns).astimezone(UTC).isoformat()
        self._send(service, {previous: 100 - percent, name: percent}, "annotations")
        journal.note(Step.TRAFFIC, State.DONE, percent=percent, revision=name)
        return now_ns

    def _send(self, service: Any, wanted: dict[str, int], *paths: str) -> None:
        """Write traffic and wait until it is so; an ApplyError says why it cannot be."""
        self.cloud.update(service, "traffic", *paths)
        after = self.cloud.settle()
        standing = Standing.of(after)
        if any(standing.percent(revision) != percent for revision, percent in wanted.items()):
            raise ApplyError(
                f"Cloud Run did not move the traffic: {after.terminal_condition.message}",
                where=str(self.estate),
                todo="Look at `python -m speakfit_ops.deploy status`, then repeat or roll back.",
            )

    def _watch(
        self,
        release: str,
        previous: str,
        percent: int,
        since_ns: int,
        soak: timedelta,
        every: timedelta,
        journal: Journal,
    ) -> Verdict:
        before = previous.removeprefix(f"{self.estate.service}-")
        until_ns = since_ns + to_ns_span(soak)
        while True:
            left = timedelta(microseconds=max(0, until_ns - self._now_ns()) // 1_000)
            if left:
                self._pause(min(left, every))
            verdict = self._observe(release, before, since_ns)
            ended = self._now_ns() >= until_ns
            if ended or verdict.health is Health.UNHEALTHY:
                break
        self._tell(f"At {percent} %: {verdict}.")
        journal.note(
            Step.VERDICT,
            State.DONE if verdict.health is Health.HEALTHY else State.FAILED,
            percent=percent,
            health=verdict.health,
            requests=verdict.requests,
            reasons=list(verdict.reasons),
        )
        return verdict

    # Rollback

    def rollback(
        self, to: str | None, journal_of: Callable[[str], Journal], *, why: str = ""
    ) -> str:
        """Send all traffic to a revision, the one before when none is named; then its workers.

        The API first: it is what people feel, and it takes effect in seconds. Workers are told to
        be replaced and not waited for. Returns the revision. Raises RefusedError when there is no
        such revision or it was never ready.
        """
        service = self.cloud.service()
        standing = Standing.of(service)
        target = to or self._before(standing)
        found = self.cloud.revision(target)
        if found is None:
            raise RefusedError(
                f"There is no revision {target}.",
                where=f"service {self.estate.service}",
                todo="`gcloud run revisions list` has them; `status` shows who serves.",
            )
        if failure(found):
            raise RefusedError(
                f"Revision {target} was never ready: {failure(found)}",
                where=f"service {self.estate.service}",
                todo="Name another one.",
            )
        leaving = list(standing.others(target))
        if standing.candidate is not None and standing.candidate.revision != target:
            leaving.append(standing.candidate.revision)
        left = [one for one in map(self.cloud.revision, dict.fromkeys(leaving)) if one is not None]
        journal = journal_of(_release_of(left[0] if left else found))
        journal.note(Step.ROLLBACK, State.BEGUN, revision=target, why=why)
        if standing.percent(target) != 100 or standing.candidate is not None:
            self._tell(f"Sending all traffic to {target}.")
            service.traffic = split([(target, 100)])
            self._send(service, {target: 100})
        self._workers_back(found, left)
        journal.note(Step.ROLLBACK, State.DONE, revision=target)
        return target

    def _before(self, standing: Standing) -> str:
        candidate = standing.candidate
        current = candidate.revision if candidate is not None else standing.serving[0]
        others = standing.others(current)
        if others:
            return others[0]
        revision = self.cloud.revision(current)
        previous = "" if revision is None else revision.annotations.get(PREVIOUS, "")
        if not previous:
            raise RefusedError(
                f"Nothing tells which revision served before {current}.",
                where=str(self.estate),
                todo="Name it: rollback --to REVISION.",
            )
        return str(previous)

    def _workers_back(self, target: Any, left: Sequence[Any]) -> None:
        """Roll the workers to the version that belongs to a revision, where one is known."""
        template = target.annotations.get(WORKERS_OF, "")
        short = str(target.name).rsplit("/", 1)[-1]
        for gone in left if not template else ():
            if gone.annotations.get(PREVIOUS) == short:
                template = gone.annotations.get(PREVIOUS_WORKERS, "")
        if not template:
            if any(gone.annotations.get(WORKER_IMAGE) for gone in left):
                self._tell(f"The workers stay as they are: nothing tells which belong to {short}.")
            return
        if self.cloud.workers.now().version != template:
            self._tell(f"Replacing the workers by {template}; this goes on by itself.")
            self.cloud.workers.roll(template)


def _release_of(revision: Any) -> str:
    """The release of a revision; its own name when Terraform made it."""
    return str(revision.annotations.get(RELEASE) or str(revision.name).rsplit("/", 1)[-1])


def describe(name: str, revision: Any) -> dict[str, Any]:
    """One revision for people and machines."""
    if revision is None:
        return {"revision": name, "release": "", "image": "", "previous": ""}
    return {
        "revision": name,
        "release": revision.annotations.get(RELEASE, ""),
        "image": _short(serving_container(revision).image),
        "previous": revision.annotations.get(PREVIOUS, ""),
    }


def to_ns_span(length: timedelta) -> int:
    """Nanoseconds of a length of time."""
    return round(length.total_seconds() * 1_000_000_000)


def _short(image: str) -> str:
    """The end of an image's name and the beginning of its digest, for people."""
    name, _, digest = image.rpartition("@sha256:")
    return f"{name.rsplit('/', 1)[-1]}@{digest[:12]}" if name else image
