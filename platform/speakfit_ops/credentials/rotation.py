"""A new database password, without anybody ever seeing it, and without losing the old one too soon.

Postgres knows one password a user, and a replica the primary's, so the order is: the new password
is kept first (a new version of each secret that holds an address), then Cloud SQL is told, then the
services are made anew, because both read secrets only when they start. Between the second and the
third step open connections go on and new ones fail: seconds for the API, whose new revision is made
at once, and for the workers until the first new one is up. When the new revision is ready, which it
is only when the database answers it, the old versions are disabled, the primary's last. A rotation
that was killed goes on from what is live: two enabled versions of the primary's address mean that
one is under way, and the newest holds the password.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from speakfit.errors import ApplyError, RefusedError, TargetError
from speakfit_ops.credentials.inventory import Secret, find_secret
from speakfit_ops.credentials.vault import SecretManager
from speakfit_ops.deploy.cloud import Cloud, Pause
from speakfit_ops.deploy.estate import Estate
from speakfit_ops.deploy.release import (
    MAX_NAME,
    OURS,
    Standing,
    failure,
    serving_container,
    split,
)

if TYPE_CHECKING:
    import requests

USER = "speakfit"
"""The application's user in Cloud SQL (terraform/modules/database)."""
MARK = f"{OURS}database-url-version"
"""On a revision: the version of the address that it was started with."""
# What a password policy of Cloud SQL may ask for (COMPLEXITY_DEFAULT), and no address must escape.
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_")
_LENGTH = 40
_SQL = "https://sqladmin.googleapis.com"
_OPERATION_LIMIT = timedelta(minutes=5)
_POLL = timedelta(seconds=1)
_SECONDS = 30.0
_SCOPE = "https://www.googleapis.com/auth/sqlservice.admin"

_RENEWED = re.compile(r"-k\d+[0-9a-f]{4}$")

Tell = Callable[[str], None]


def new_password() -> str:
    """Forty characters with at least one of each kind: 239 bits."""
    while True:
        password = "".join(secrets.choice("".join(_KINDS)) for _ in range(_LENGTH))
        if all(set(kind) & set(password) for kind in _KINDS):
            return password


@dataclass(frozen=True, kw_only=True)
class CloudSql:
    """The database's own users, through the Cloud SQL Admin API."""

    estate: Estate
    pause: Pause

    def set_password(self, password: str) -> None:
        """Give the application's user a password and wait until it has it; safe to repeat."""
        base = self.estate.endpoint or _SQL
        place = f"{base}/sql/v1beta4/projects/{self.estate.project}"
        with self._session() as session:
            operation = self._call(
                session,
                "PUT",
                f"{place}/instances/{self.estate.database}/users",
                params={"name": USER},
                json={"name": USER, "password": password},
            )
            waited = timedelta()
            while operation.get("status") != "DONE":
                if waited > _OPERATION_LIMIT:
                    raise ApplyError(
                        "Cloud SQL did not change the password in time.",
                        uncertain=True,
                        where=str(self.estate),
                        todo="Repeat: the same password is set again.",
                    )
                self.pause(_POLL)
                waited += _POLL
                operation = self._call(session, "GET", f"{place}/operations/{operation['name']}")
        errors = operation.get("error", {}).get("errors", ())
        if errors:
            raise ApplyError(
                f"Cloud SQL did not change the password: {errors[0].get('message', '')}",
                where=str(self.estate),
                todo="Correct what it names, then repeat.",
            )

    def _session(self) -> requests.Session:
        import requests

        if self.estate.endpoint is not None:
            plain = requests.Session()
            plain.trust_env = False
            return plain
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport.requests import AuthorizedSession

        find: Any = google.auth.default
        make: Any = AuthorizedSession
        try:
            credentials, _ = find(scopes=[_SCOPE])
        except DefaultCredentialsError as error:
            raise TargetError(
                "No Google credentials found.",
                where=str(self.estate),
                todo="Run `gcloud auth application-default login`.",
            ) from error
        session: requests.Session = make(credentials)
        return session

    def _call(
        self, session: requests.Session, method: str, url: str, **request: Any
    ) -> dict[str, Any]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            answer = session.request(method, url, timeout=_SECONDS, **request)
            body = answer.json()
        except (requests.RequestException, GoogleAuthError, ValueError) as error:
            # From None: the text of such an error may hold the request.
            raise ApplyError(
                f"Cloud SQL does not answer ({type(error).__name__}).",
                uncertain=True,
                where=str(self.estate),
                todo="Check the network and the credentials, then repeat.",
            ) from None
        if answer.status_code >= 400:
            message = body.get("error", {}).get("message", "") if isinstance(body, dict) else ""
            raise ApplyError(
                f"Cloud SQL refuses it ({answer.status_code}): {message}",
                where=f"instance {self.estate.database}",
                todo="Correct what it names; roles/cloudsql.admin is needed. Then repeat.",
            )
        return dict(body)


class Rotation:
    """Replaces the database's password in one estate."""

    def __init__(
        self, vault: SecretManager, database: CloudSql, cloud: Cloud, *, tell: Tell
    ) -> None:
        self._vault = vault
        self._database = database
        self._cloud = cloud
        self._tell = tell
        self._secret = find_secret("database-url")
        self._replica = find_secret("database-replica-url")

    def rotate(self) -> int:
        """Carry it out, or to its end where it was stopped; the version that is in use then.

        Raises RefusedError while a release is under way, ApplyError where a step failed.
        """
        standing = Standing.of(self._cloud.service())
        if standing.candidate is not None or len(standing.serving) != 1:
            raise RefusedError(
                "A release is under way.",
                where=str(self._cloud.estate),
                todo="`promote` it to the end, or `rollback`, first.",
            )
        enabled = self._vault.versions(self._secret)
        if not enabled:
            raise RefusedError(
                "The database's address has no value yet.",
                where=f"secret {self._secret.name}",
                todo="Make it with `terraform -chdir=terraform apply`.",
            )
        done = 0
        going_on = len(enabled) > 1
        try:
            if going_on:
                number = enabled[0].number
                self._tell(f"Going on with version {number}.")
                value = self._vault.access(self._secret, number)
            else:
                before = self._vault.access(self._secret, enabled[0].number)
                value = _with_password(before, new_password())
                number = self._vault.add(self._secret, value)
                self._tell(f"The new password is kept as version {number}.")
            done = 1
            password = str(_url(value).password)
            replica = self._keep_replica(password)
            self._set_password(password, {self._secret: number, self._replica: replica}, going_on)
            self._tell("Cloud SQL has it.")
            done = 2
            self._renew_api(standing.serving[0], number)
            done = 3
            self._renew_workers(number)
            done = 4
        except ApplyError as error:
            error.after(done)
            raise
        if replica is not None:
            self._disable_before(self._replica, replica)
        # Last: as long as it has two versions, repeating goes on with this rotation.
        self._disable_before(self._secret, number)
        return number

    def _set_password(
        self, password: str, made: Mapping[Secret, int | None], going_on: bool
    ) -> None:
        try:
            self._database.set_password(password)
        except ApplyError as error:
            # One of an earlier run may be in use: what is refused then is only its being set again.
            if not error.uncertain and not going_on:
                for secret, number in made.items():
                    if number is not None:
                        self._vault.disable(secret, number)
                        self._tell(f"Version {number} of {secret.name} is disabled again.")
            raise

    def _keep_replica(self, password: str) -> int | None:
        """The version of the replica's address that has it, made if need be; None: no replica."""
        if not self._vault.state(self._replica).exists:
            return None
        enabled = self._vault.versions(self._replica)
        if not enabled:
            raise ApplyError(
                "The replica's address has no value.",
                where=f"secret {self._replica.name}",
                todo="Make it with `terraform -chdir=terraform apply`, then repeat.",
            )
        newest = enabled[0].number
        value = self._vault.access(self._replica, newest)
        if _url(value).password == password:
            return newest
        number = self._vault.add(self._replica, _with_password(value, password))
        self._tell(f"The replica's address has it as version {number}.")
        return number

    def _disable_before(self, secret: Secret, number: int) -> None:
        for old in self._vault.versions(secret):
            if old.number < number:
                self._vault.disable(secret, old.number)
                self._tell(f"Version {old.number} of {secret.name} is disabled.")

    def _renew_api(self, serving: str, number: int) -> None:
        """A revision like the serving one, which reads the newest version when it starts."""
        live = self._cloud.revision(serving)
        if live is None or live.annotations.get(MARK) == str(number):
            return
        # The digits at its end, because a revision that did not become ready keeps its name.
        ending = f"-k{number}{secrets.token_hex(2)}"
        name = _RENEWED.sub("", serving)[: MAX_NAME - len(ending)] + ending
        service = self._cloud.service()
        # Not the service's own template: that may be of a release that was taken back.
        template = service.template
        template.containers = live.containers
        template.revision = name
        template.annotations.clear()
        # Google's own annotations are refused when they are sent back.
        ours = {key: text for key, text in live.annotations.items() if key.startswith(OURS)}
        for key, text in {**ours, MARK: str(number)}.items():
            template.annotations[key] = text
        self._tell(f"Making revision {name}.")
        service.traffic = split([(serving, 100)])
        self._cloud.update(service, "template", "traffic")
        self._cloud.settle()
        why = failure(self._cloud.revision(name))
        if why:
            raise ApplyError(
                f"Revision {name} does not become ready: {why}",
                where=str(self._cloud.estate),
                todo=f"{serving} goes on with the connections it has. Read the log of the new one; "
                "repeating goes on.",
            )
        probe = serving_container(live).startup_probe.http_get.path
        if probe != "/readyz":
            raise ApplyError(
                "Nothing proves that the new revision reaches the database.",
                where=f"start-up probe of {serving}",
                todo="Let Cloud Run probe /readyz (terraform/modules/api), then repeat.",
            )
        service = self._cloud.service()
        service.traffic = split([(name, 100)])
        self._cloud.update(service, "traffic")
        if Standing.of(self._cloud.settle()).serving != (name,):
            raise ApplyError(
                f"Cloud Run did not send the traffic to {name}.",
                where=str(self._cloud.estate),
                todo="Repeat.",
            )

    def _renew_workers(self, number: int) -> None:
        workers = self._cloud.workers
        version = f"{self._cloud.estate.workers}-k{number}"
        fleet = workers.now()
        if fleet.version != version:
            self._tell(f"Replacing {fleet}.")
            workers.renew(version, mark=f"database-url {number}")
            workers.roll(version)
        workers.wait(version)


def _with_password(value: str, password: str) -> str:
    return str(_url(value).set(password=password).render_as_string(hide_password=False))


def _url(value: str) -> Any:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(value)
    except ArgumentError:
        # From None: the text of the error holds the address.
        raise RefusedError(
            "The database's address cannot be read.",
            where="secret database-url or database-replica-url",
            todo="Set it anew with `set NAME`.",
        ) from None
