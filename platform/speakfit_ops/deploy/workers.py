"""The workers of one estate, replaced by a release: machines in a group, or Cloud Run's pool.

Both know a version: the instance template that machines are made from, or the pool's revision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from speakfit.errors import ApplyError, RefusedError, SpeakFitError, TargetError
from speakfit_ops.deploy.cloud import (
    READY_LIMIT,
    Pause,
    compute,
    make_client,
    patience,
    talking,
    until,
)
from speakfit_ops.deploy.estate import Estate

ROLL_LIMIT = timedelta(minutes=30)
"""For all workers, one after another: a machine with a driver and a model takes minutes."""

IMAGE_KEY = "speakfit-image"
"""Instance metadata: the image, by digest, that the start-up script runs."""
RELEASE_KEY = "speakfit-release"
"""Instance metadata: the release that its series carry."""
_MADE_HERE = "Made by python -m speakfit_ops.deploy"
_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The workers as they are."""

    version: str
    """Of new workers."""
    stable: bool
    """Nothing is being made, replaced or deleted, and all workers have the version."""
    size: int
    surge: int
    """Workers more at a time while they are replaced; 0 where Cloud Run decides."""

    def __str__(self) -> str:
        words = f"{self.size} worker(s)"
        return f"{words}, {self.surge} more at a time" if self.surge else words


class Workers(Protocol):
    """Something that workers run on."""

    def now(self) -> Fleet:
        """The workers as they are."""

    def prepare(self, version: str, *, release: str, image: str) -> None:
        """Make a version that runs an image, beside what runs; one that exists is left."""

    def renew(self, version: str, *, mark: str) -> None:
        """Make a version like the present one, whose workers read their secrets anew."""

    def roll(self, version: str) -> None:
        """Have all workers made anew from a version, the new one up before the old one goes."""

    def wait(self, version: str) -> None:
        """Wait until all workers have a version; an ApplyError says what keeps them."""


def find_workers(estate: Estate, *, pause: Pause) -> Workers:
    """What the estate's workers run on; a TargetError when it has none."""
    pool = WorkerPool(estate, pause=pause)
    if pool.exists():
        return pool
    machines = Machines(estate, pause=pause)
    if machines.exists():
        return machines
    raise TargetError(
        f"There are no workers called {estate.workers}.",
        where=str(estate),
        todo="Make them with `terraform -chdir=terraform apply`, or leave out --worker-image.",
    )


class _Waiting(ABC):
    """Waits for workers in the same words, whatever they run on."""

    def __init__(self, estate: Estate, *, pause: Pause) -> None:
        self.estate = estate
        self._pause = pause

    @abstractmethod
    def now(self) -> Fleet:
        """The workers as they are."""

    @abstractmethod
    def trouble(self) -> str:
        """What keeps them, in Google's words; empty when it is not known."""

    def wait(self, version: str) -> None:
        """Wait until all workers have a version; an ApplyError says what keeps them."""

        def look() -> bool:
            now = self.now()
            if now.version != version:
                raise RefusedError(
                    f"Somebody else moves the workers to {now.version}.",
                    where=str(self.estate),
                    todo="Look at `python -m speakfit_ops.deploy status`.",
                )
            return now.stable

        try:
            until(
                self.estate,
                "The workers were not all replaced",
                ROLL_LIMIT,
                look,
                "",
                pause=self._pause,
            )
        except ApplyError as error:
            raise ApplyError(
                f"{error.what} {self.trouble()}".rstrip(),
                where=str(self.estate),
                todo="The old workers go on. Most often a GPU quota leaves no room for the surge: "
                "ask for more, or resize by one less; then repeat, or roll back.",
            ) from error


class Machines(_Waiting):
    """A regional managed instance group on Compute Engine."""

    @cached_property
    def _groups(self) -> Any:
        return make_client(compute().RegionInstanceGroupManagersClient, self.estate)

    @cached_property
    def _templates(self) -> Any:
        return make_client(compute().InstanceTemplatesClient, self.estate)

    def _read(self) -> Any | None:
        from google.api_core.exceptions import NotFound

        with talking(self.estate, f"instance group {self.estate.workers}"):
            try:
                return self._groups.get(
                    project=self.estate.project,
                    region=self.estate.region,
                    instance_group_manager=self.estate.workers,
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
            except NotFound:
                return None

    def exists(self) -> bool:
        """Whether there is such a group."""
        return self._read() is not None

    def now(self) -> Fleet:
        """The group as it is; its version is an instance template's name."""
        live = self._read()
        if live is None:
            raise TargetError(
                f"The instance group {self.estate.workers} is gone.", where=str(self.estate)
            )
        template = live.versions[-1].instance_template if live.versions else ""
        return Fleet(
            version=(template or live.instance_template).rsplit("/", 1)[-1],
            stable=live.status.is_stable and live.status.version_target.is_reached,
            size=live.target_size,
            # A regional group takes no surge below its number of zones.
            surge=max(1, len(live.distribution_policy.zones)),
        )

    def prepare(self, version: str, *, release: str, image: str) -> None:
        """An instance template like Terraform's newest, with another image."""
        if self._template(version) is None:
            like = self._declared() or self.now().version
            self._copy(like, version, {IMAGE_KEY: image, RELEASE_KEY: release})

    def renew(self, version: str, *, mark: str) -> None:
        """The present template again: machines read their secrets when they boot."""
        if self._template(version) is None:
            self._copy(self.now().version, version, {"speakfit-renewed": mark})

    def _template(self, name: str) -> Any | None:
        from google.api_core.exceptions import NotFound

        with talking(self.estate, f"instance template {name}"):
            try:
                return self._templates.get(
                    project=self.estate.project,
                    instance_template=name,
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
            except NotFound:
                return None

    def _declared(self) -> str | None:
        """The newest instance template of the workers that was not made here: Terraform's.

        It carries what was changed there since, for example the machine. None when there is none.
        """
        with talking(self.estate, f"instance templates {self.estate.workers}-*"):
            found = [
                one
                for one in self._templates.list(
                    request={
                        "project": self.estate.project,
                        "filter": f'name eq "{self.estate.workers}-.*"',
                    },
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
                if one.description != _MADE_HERE
            ]
        newest = max(
            found, key=lambda one: datetime.fromisoformat(one.creation_timestamp), default=None
        )
        return None if newest is None else str(newest.name)

    def _copy(self, like: str, name: str, metadata: Mapping[str, str]) -> None:
        """A template like another, with other metadata; RefusedError when `like` is gone."""
        model = self._template(like)
        if model is None:
            raise RefusedError(
                f"The workers' instance template {like} does not exist.",
                where=str(self.estate),
                todo="Make it with `terraform -chdir=terraform apply`.",
            )
        library = compute()
        properties = model.properties
        kept = [item for item in properties.metadata.items if item.key not in metadata]
        properties.metadata = library.Metadata(
            items=[
                *kept,
                *(library.Items(key=key, value=value) for key, value in metadata.items()),
            ]
        )
        resource = library.InstanceTemplate(
            name=name, description=_MADE_HERE, properties=properties
        )
        with talking(self.estate, f"instance template {name}", writing=True):
            self._templates.insert_unary(
                project=self.estate.project,
                instance_template_resource=resource,
                retry=None,
                timeout=_SECONDS,
            )
        until(
            self.estate,
            f"The instance template {name} was not made",
            READY_LIMIT,
            lambda: self._template(name) is not None,
            "Look for a quota of instance templates, then repeat.",
            pause=self._pause,
        )

    def roll(self, version: str) -> None:
        """Replace with surge, none missing at any time; Compute goes on by itself."""
        library = compute()
        resource = library.InstanceGroupManager(
            versions=[
                library.InstanceGroupManagerVersion(
                    instance_template=f"projects/{self.estate.project}/global/instanceTemplates/"
                    f"{version}"
                )
            ],
            update_policy=library.InstanceGroupManagerUpdatePolicy(
                type_="PROACTIVE",
                minimal_action="REPLACE",
                replacement_method="SUBSTITUTE",
                max_surge=library.FixedOrPercent(fixed=self.now().surge),
                max_unavailable=library.FixedOrPercent(fixed=0),
            ),
        )
        with talking(self.estate, f"instance group {self.estate.workers}", writing=True):
            self._groups.patch_unary(
                project=self.estate.project,
                region=self.estate.region,
                instance_group_manager=self.estate.workers,
                instance_group_manager_resource=resource,
                retry=None,
                timeout=_SECONDS,
            )

    def trouble(self) -> str:
        """The newest error of the group, in Compute's words; empty when it cannot be asked."""
        try:
            with talking(self.estate, f"instance group {self.estate.workers}"):
                errors = self._groups.list_errors(
                    project=self.estate.project,
                    region=self.estate.region,
                    instance_group_manager=self.estate.workers,
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
                for one in errors:
                    return f"{one.error.code}: {one.error.message}"
        except SpeakFitError:
            pass
        return ""


class WorkerPool(_Waiting):
    """A Cloud Run worker pool; its versions are revisions, and instances are split among them."""

    @property
    def _name(self) -> str:
        return f"{self.estate.location}/workerPools/{self.estate.workers}"

    @cached_property
    def _pools(self) -> Any:
        from google.cloud.run_v2 import WorkerPoolsClient

        return make_client(WorkerPoolsClient, self.estate)

    @cached_property
    def _revisions(self) -> Any:
        from google.cloud.run_v2 import RevisionsClient

        return make_client(RevisionsClient, self.estate)

    def _read(self) -> Any | None:
        from google.api_core.exceptions import NotFound

        with talking(self.estate, f"worker pool {self.estate.workers}"):
            try:
                return self._pools.get_worker_pool(
                    name=self._name, retry=patience(self.estate), timeout=_SECONDS
                )
            except NotFound:
                return None

    def _live(self) -> Any:
        live = self._read()
        if live is None:
            raise TargetError(
                f"The worker pool {self.estate.workers} is gone.", where=str(self.estate)
            )
        return live

    def exists(self) -> bool:
        """Whether there is such a pool."""
        return self._read() is not None

    def now(self) -> Fleet:
        """The pool as it is; its version is the revision with the most instances."""
        return self._fleet(self._live())

    @staticmethod
    def _fleet(live: Any) -> Fleet:
        latest = str(live.latest_ready_revision)
        splits = sorted(live.instance_split_statuses, key=lambda one: -one.percent)
        revision = (splits[0].revision if splits else "") or latest
        return Fleet(
            version=revision.rsplit("/", 1)[-1],
            stable=not live.reconciling
            and live.observed_generation == live.generation
            and len([one for one in splits if one.percent]) <= 1,
            size=live.scaling.manual_instance_count,
            surge=0,
        )

    def prepare(self, version: str, *, release: str, image: str) -> None:
        """A revision without instances, with another image."""
        self._make(version, image=image)

    def renew(self, version: str, *, mark: str) -> None:
        """The present revision again: it reads its secrets when it starts."""
        self._make(version, image=None)

    def _exists(self, version: str) -> bool:
        from google.api_core.exceptions import NotFound

        with talking(self.estate, f"revision {version}"):
            try:
                self._revisions.get_revision(
                    name=f"{self._name}/revisions/{version}",
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
            except NotFound:
                return False
        return True

    def _make(self, version: str, *, image: str | None) -> None:
        if self._exists(version):
            return
        live = self._live()
        serving = self._fleet(live).version
        with talking(self.estate, f"revision {serving}"):
            present = self._revisions.get_revision(
                name=f"{self._name}/revisions/{serving}",
                retry=patience(self.estate),
                timeout=_SECONDS,
            )
        live.template.revision = version
        live.template.containers[0].image = image or present.containers[0].image
        live.instance_splits = _all_to(serving)
        self._update(live, "template", "instance_splits")
        until(
            self.estate,
            f"Revision {version} was not made",
            READY_LIMIT,
            lambda: self._exists(version) and self.now().stable,
            "Read the worker pool's log, then repeat.",
            pause=self._pause,
        )

    def roll(self, version: str) -> None:
        """Send all instances to a revision; Cloud Run starts new ones before it ends the old."""
        live = self._live()
        live.instance_splits = _all_to(version)
        self._update(live, "instance_splits")

    def _update(self, live: Any, *paths: str) -> None:
        from google.cloud.run_v2 import UpdateWorkerPoolRequest

        request = UpdateWorkerPoolRequest(worker_pool=live, update_mask={"paths": list(paths)})
        with talking(self.estate, f"worker pool {self.estate.workers}", writing=True):
            self._pools.update_worker_pool(request=request, retry=None, timeout=_SECONDS)

    def trouble(self) -> str:
        """Why the pool is not as it was told to be, in Cloud Run's words."""
        live = self._read()
        return "" if live is None else str(live.terminal_condition.message)


def _all_to(revision: str) -> list[Any]:
    from google.cloud.run_v2 import InstanceSplit, InstanceSplitAllocationType

    kind = InstanceSplitAllocationType.INSTANCE_SPLIT_ALLOCATION_TYPE_REVISION
    return [InstanceSplit(type_=kind, revision=revision, percent=100)]
