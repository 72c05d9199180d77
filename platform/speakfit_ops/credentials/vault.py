"""Where secrets are kept: Secret Manager, and on a laptop files that only their owner can read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from speakfit.errors import RefusedError, TargetError
from speakfit_ops.credentials.inventory import Secret
from speakfit_ops.deploy.cloud import make_client, patience, talking
from speakfit_ops.deploy.estate import Estate

FOLDER = Path(".speakfit/credentials")
ACCESSOR = "roles/secretmanager.secretAccessor"
_SECONDS = 30.0
_OPEN_TO_ALL = frozenset({"allUsers", "allAuthenticatedUsers"})


@dataclass(frozen=True, kw_only=True)
class Version:
    """One enabled version of a secret, without its value."""

    number: int
    created: datetime


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of a secret without reading it."""

    exists: bool
    versions: tuple[Version, ...] = ()
    """Enabled ones, the newest first."""
    problems: tuple[str, ...] = ()
    """Why services cannot use it, or others can."""


class Vault(Protocol):
    """Keeps secrets."""

    def state(self, secret: Secret) -> State:
        """What is known of it; its value is not read."""

    def add(self, secret: Secret, value: str) -> int:
        """Keep a new value beside the old ones; the number of its version."""


class SecretManager:
    """Google's, through its own client."""

    def __init__(self, estate: Estate) -> None:
        self.estate = estate

    @cached_property
    def _client(self) -> Any:
        from google.cloud.secretmanager_v1 import SecretManagerServiceClient

        return make_client(SecretManagerServiceClient, self.estate)

    def _name(self, secret: Secret) -> str:
        return f"projects/{self.estate.project}/secrets/{self.estate.prefix}-{secret.name}"

    def state(self, secret: Secret) -> State:
        """Whether it exists, has a value, and is read by those who need it and nobody else."""
        from google.api_core.exceptions import NotFound

        name = self._name(secret)
        with talking(self.estate, f"secret {secret.name}"):
            try:
                self._client.get_secret(name=name, retry=patience(self.estate), timeout=_SECONDS)
            except NotFound:
                missing = not secret.optional or self._given(secret)
                return State(exists=False, problems=("it does not exist",) if missing else ())
        versions = self.versions(secret)
        problems = [] if versions else ["it has no enabled version"]
        return State(
            exists=True,
            versions=versions,
            problems=(*problems, *self._unread(secret, name)),
        )

    def _given(self, secret: Secret) -> bool:
        """Whether the API that runs is given the secret's variable."""
        from google.api_core.exceptions import NotFound
        from google.cloud.run_v2 import ServicesClient

        with talking(self.estate, f"service {self.estate.service}"):
            try:
                service = make_client(ServicesClient, self.estate).get_service(
                    name=self.estate.service_name, retry=patience(self.estate), timeout=_SECONDS
                )
            except NotFound:
                return False
        return any(
            variable.name == secret.variable
            for container in service.template.containers
            for variable in container.env
        )

    def _unread(self, secret: Secret, name: str) -> list[str]:
        with talking(self.estate, f"the access to secret {secret.name}"):
            policy = self._client.get_iam_policy(
                request={"resource": name}, retry=patience(self.estate), timeout=_SECONDS
            )
        members = {
            member
            for binding in policy.bindings
            # A grant under a condition may not hold.
            if binding.role == ACCESSOR and not binding.condition.expression
            for member in binding.members
        }
        missing = [
            f"{self.estate.account(service)} may not read it"
            for service in secret.readers
            if f"serviceAccount:{self.estate.account(service)}" not in members
        ]
        everybody = {
            member for binding in policy.bindings for member in binding.members
        } & _OPEN_TO_ALL
        return [*missing, *(f"{one} may read or change it" for one in sorted(everybody))]

    def versions(self, secret: Secret) -> tuple[Version, ...]:
        """The enabled versions, the newest first."""
        with talking(self.estate, f"secret {secret.name}"):
            found = self._client.list_secret_versions(
                request={"parent": self._name(secret), "filter": "state:ENABLED"},
                retry=patience(self.estate),
                timeout=_SECONDS,
            )
            versions = [
                Version(
                    number=int(one.name.rsplit("/", 1)[1]),
                    created=one.create_time.replace(tzinfo=UTC),
                )
                for one in found
                if one.state.name == "ENABLED"
            ]
        return tuple(sorted(versions, key=lambda one: -one.number))

    def add(self, secret: Secret, value: str) -> int:
        """A new version; the older ones stay enabled until somebody disables them."""
        with talking(self.estate, f"secret {secret.name}", writing=True):
            made = self._client.add_secret_version(
                request={
                    "parent": self._name(secret),
                    "payload": {"data": value.encode()},
                },
                retry=patience(self.estate),
                timeout=_SECONDS,
            )
        return int(made.name.rsplit("/", 1)[1])

    def access(self, secret: Secret, number: int) -> str:
        """The value of a version, for what must be told it; never to be shown."""
        with talking(self.estate, f"version {number} of secret {secret.name}"):
            answer = self._client.access_secret_version(
                name=f"{self._name(secret)}/versions/{number}",
                retry=patience(self.estate),
                timeout=_SECONDS,
            )
        return str(answer.payload.data.decode())

    def disable(self, secret: Secret, number: int) -> None:
        """Let nobody read a version; it can be enabled again."""
        with talking(self.estate, f"version {number} of secret {secret.name}", writing=True):
            self._client.disable_secret_version(
                name=f"{self._name(secret)}/versions/{number}",
                retry=None,
                timeout=_SECONDS,
            )


class FileVault:
    """One file a secret, for rehearsals on this machine; owner-only."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def state(self, secret: Secret) -> State:
        """Whether the file exists and nobody else may read it."""
        path = self.folder / secret.name
        try:
            found = path.stat()
        except FileNotFoundError:
            return State(exists=False, problems=("it does not exist",))
        shared = stat.S_IMODE(found.st_mode) & 0o077
        return State(
            exists=True,
            versions=(Version(number=1, created=datetime.fromtimestamp(found.st_mtime, UTC)),),
            problems=(f"others may read {path}: chmod 600 it",) if shared else (),
        )

    def add(self, secret: Secret, value: str) -> int:
        """Replace the file; it is whole and owner-only at any time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp makes it for its owner alone.
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / secret.name)
        except OSError as error:
            raise TargetError(
                f"The secret cannot be written: {error.strerror}.",
                where=str(self.folder),
                todo="Correct the rights of the folder, or make room.",
            ) from error
        return 1


def states(vault: Vault, secrets: Sequence[Secret]) -> list[tuple[Secret, State]]:
    """Each secret with its state."""
    return [(one, vault.state(one)) for one in secrets]


def needed(states: Sequence[tuple[Secret, State]]) -> list[tuple[Secret, State]]:
    """Without the optional ones that nobody needs here."""
    return [
        (secret, state)
        for secret, state in states
        if state.exists or state.problems or not secret.optional
    ]


def require(states: Sequence[tuple[Secret, State]]) -> None:
    """A RefusedError when a secret that is to be replaced does not exist."""
    for secret, state in states:
        if not state.exists:
            raise RefusedError(
                f"The secret {secret.name} does not exist.",
                where="Secret Manager",
                todo="Make it with `terraform -chdir=terraform apply`.",
            )
