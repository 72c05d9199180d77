"""The service and the migration job of one estate, through Google's clients.

Writes are sent once and never waited for by their operation: what is live is read until it has
settled, so that a deploy that was killed finds its way by reading. Google's libraries are imported
late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from speakfit.errors import ApplyError, TargetError
from speakfit_ops.deploy.estate import Estate

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError

    from speakfit_ops.deploy.workers import Workers

READY_LIMIT = timedelta(minutes=10)
"""A revision that is not ready by then never will be; Cloud Run's own limit is about the same."""
MIGRATION_LIMIT = timedelta(minutes=30)
_SECONDS = 30.0
_POLL = timedelta(milliseconds=250)
_LONGEST_POLL = timedelta(seconds=5)
"""The first looks come quickly, for a rollback takes effect in a second or two."""


Pause = Callable[[timedelta], None]


def sleep(length: timedelta) -> None:
    """Wait for so long, in real time."""
    time.sleep(length.total_seconds())


def refusal(error: GoogleAPICallError, what: str, estate: Estate) -> tuple[str, str, bool]:
    """What an answer of Google's means, what to do, and whether the write may have happened."""
    from google.api_core import exceptions

    if isinstance(error, exceptions.NotFound):
        return (
            f"{what} does not exist",
            "Check --project, --region and --environment, or make it with "
            "`terraform -chdir=terraform apply`.",
            False,
        )
    if isinstance(error, exceptions.Unauthorized):
        return (
            f"Google does not accept the credentials: {error.message}",
            "Run `gcloud auth application-default login`, then repeat.",
            False,
        )
    if isinstance(error, exceptions.Forbidden):
        return (
            f"{what} is not permitted: {error.message}",
            "Log in as somebody who may, or enable the API it names, then repeat.",
            False,
        )
    if isinstance(error, exceptions.TooManyRequests):
        return (
            f"a quota is used up: {error.message}",
            "Ask for more, or wait; then repeat.",
            False,
        )
    if isinstance(error, exceptions.Conflict | exceptions.PreconditionFailed):
        return (
            f"somebody else changed {what} meanwhile",
            "Look at `python -m speakfit_ops.deploy status`, then repeat.",
            False,
        )
    unknown = isinstance(error, exceptions.ServerError)
    if error.code is None or isinstance(error, exceptions.ServiceUnavailable):
        return (f"{estate} does not answer", "Check the network, then repeat.", True)
    return (f"{what}: {error.message}", "Correct what it names, then repeat.", unknown)


def make_client(kind: Any, estate: Estate) -> Any:
    """One of Google's clients over REST; a TargetError where there are no credentials."""
    from google.auth import credentials, exceptions

    transport = kind.get_transport_class("rest")
    if estate.endpoint is None:
        try:
            return kind(transport="rest")
        except exceptions.DefaultCredentialsError as error:
            raise TargetError(
                "No Google credentials found.",
                where=str(estate),
                todo="Run `gcloud auth application-default login`.",
            ) from error
    scheme, _, host = estate.endpoint.partition("://")
    nobody: Any = credentials.AnonymousCredentials
    made = transport(host=host, url_scheme=scheme, credentials=nobody())
    # A proxy of the environment cannot reach this machine.
    made._session.trust_env = False
    return kind(transport=made)


def patience(estate: Estate) -> Any:
    """How reads are tried again: Google is now and then away for a moment, a loopback is not.

    Writes are sent once; whoever sends one reads afterwards.
    """
    if estate.endpoint is not None:
        return None
    import requests
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type

    passing = if_exception_type(
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        exceptions.TooManyRequests,
        requests.ConnectionError,
    )
    return Retry(predicate=passing, initial=1.0, maximum=10.0, timeout=60.0)


@contextmanager
def talking(estate: Estate, what: str, *, writing: bool = False) -> Iterator[None]:
    """Tell every error of Google's in our words.

    A read that fails is a TargetError, a write an ApplyError that knows whether it may have
    happened.
    """
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAPICallError as error:
        words, todo, uncertain = refusal(error, what, estate)
        cause: Exception = error
    except GoogleAuthError as error:
        words = "Google's credentials cannot be used"
        todo, uncertain = "Run `gcloud auth application-default login`, then repeat.", False
        cause = error
    except requests.RequestException as error:
        words, todo, uncertain = "nobody answers", "Check the network, then repeat.", True
        cause = error
    else:
        return
    words = words[0].upper() + words[1:].rstrip(".")
    if writing:
        maybe = "; it may or may not have happened" if uncertain else ""
        raise ApplyError(
            f"{words}{maybe}.", uncertain=uncertain, where=str(estate), todo=todo
        ) from cause
    raise TargetError(f"{words}.", where=str(estate), todo=todo) from cause


def until(
    estate: Estate,
    what: str,
    limit: timedelta,
    look: Callable[[], bool],
    todo: str,
    *,
    pause: Pause,
) -> None:
    """Look until it is so; an ApplyError says what did not happen in time."""
    deadline = time.monotonic() + limit.total_seconds()
    wait = _POLL
    while not look():
        if time.monotonic() > deadline:
            raise ApplyError(
                f"{what} within {limit.total_seconds() / 60:.0f} minutes.",
                where=str(estate),
                todo=todo,
            )
        pause(wait)
        wait = min(wait * 2, _LONGEST_POLL)


class Cloud:
    """Reads and writes one estate; every error is told in our words."""

    def __init__(self, estate: Estate, *, pause: Pause = sleep) -> None:
        self.estate = estate
        self._pause = pause

    def warm(self) -> None:
        """Import Compute's client beside whatever comes first."""
        threading.Thread(target=compute, daemon=True).start()

    @cached_property
    def _services(self) -> Any:
        from google.cloud.run_v2 import ServicesClient

        return make_client(ServicesClient, self.estate)

    @cached_property
    def _revisions(self) -> Any:
        from google.cloud.run_v2 import RevisionsClient

        return make_client(RevisionsClient, self.estate)

    @cached_property
    def _jobs(self) -> Any:
        from google.cloud.run_v2 import JobsClient

        return make_client(JobsClient, self.estate)

    @cached_property
    def _executions(self) -> Any:
        from google.cloud.run_v2 import ExecutionsClient

        return make_client(ExecutionsClient, self.estate)

    def _talking(self, what: str, *, writing: bool = False) -> AbstractContextManager[None]:
        return talking(self.estate, what, writing=writing)

    def _until(self, what: str, limit: timedelta, look: Callable[[], bool], todo: str) -> None:
        until(self.estate, what, limit, look, todo, pause=self._pause)

    @cached_property
    def workers(self) -> Workers:
        """The workers: Cloud Run's pool where there is one, else machines."""
        from speakfit_ops.deploy.workers import find_workers

        return find_workers(self.estate, pause=self._pause)

    # The service

    def service(self) -> Any:
        """The service as it is (google.cloud.run_v2.Service)."""
        with self._talking(f"service {self.estate.service}"):
            return self._services.get_service(
                name=self.estate.service_name, retry=patience(self.estate), timeout=_SECONDS
            )

    def revision(self, name: str) -> Any | None:
        """One revision by its short name; None when there is none."""
        from google.api_core.exceptions import NotFound

        with self._talking(f"revision {name}"):
            try:
                return self._revisions.get_revision(
                    name=f"{self.estate.service_name}/revisions/{name}",
                    retry=patience(self.estate),
                    timeout=_SECONDS,
                )
            except NotFound:
                return None

    def update(self, service: Any, *paths: str) -> None:
        """Send what was changed in a service as it was read; refused when it moved meanwhile."""
        from google.cloud.run_v2 import UpdateServiceRequest

        request = UpdateServiceRequest(service=service, update_mask={"paths": list(paths)})
        with self._talking(f"service {self.estate.service}", writing=True):
            self._services.update_service(request=request, retry=None, timeout=_SECONDS)

    def settle(self) -> Any:
        """Wait until Cloud Run has made of the service what it can, and return it.

        That need not be what was asked for: a revision that is not ready stays without traffic.
        """
        found: list[Any] = []

        def look() -> bool:
            service = self.service()
            found[:] = [service]
            return not service.reconciling and service.observed_generation == service.generation

        self._until(
            "The service did not settle",
            READY_LIMIT,
            look,
            "Look at `python -m speakfit_ops.deploy status`; repeating goes on from there.",
        )
        return found[0]

    # The migration job

    def point_job(self, image: str) -> None:
        """Let the migration job run an image; nothing is written when it does already."""
        with self._talking(f"job {self.estate.job_name.rsplit('/', 1)[1]}"):
            job = self._jobs.get_job(
                name=self.estate.job_name, retry=patience(self.estate), timeout=_SECONDS
            )
        container = job.template.template.containers[0]
        if container.image == image:
            return
        container.image = image
        with self._talking("the migration job", writing=True):
            self._jobs.update_job(job=job, retry=None, timeout=_SECONDS)

        def look() -> bool:
            with self._talking("the migration job"):
                now = self._jobs.get_job(
                    name=self.estate.job_name, retry=patience(self.estate), timeout=_SECONDS
                )
            return not now.reconciling and now.observed_generation == now.generation

        self._until("The migration job did not settle", READY_LIMIT, look, "Repeat.")

    def run_job(self) -> str:
        """Start the migration and return the execution's name."""
        with self._talking("the migration job", writing=True):
            operation = self._jobs.run_job(name=self.estate.job_name, retry=None, timeout=_SECONDS)
            return str(operation.metadata.name)

    def migrated(self, execution: str) -> None:
        """Wait for an execution; an ApplyError when it failed."""

        def look() -> bool:
            with self._talking(f"execution {execution}"):
                now = self._executions.get_execution(
                    name=execution, retry=patience(self.estate), timeout=_SECONDS
                )
            if now.failed_count or now.cancelled_count:
                said = next((one.message for one in now.conditions if one.type_ == "Completed"), "")
                raise ApplyError(
                    f"The migration failed{f': {said}' if said else '.'}",
                    where=execution,
                    todo="Read its log; nothing else was changed, and a migration only adds. "
                    "Correct it and release again.",
                )
            return bool(now.completion_time and now.succeeded_count)

        self._until(
            "The migration did not end",
            MIGRATION_LIMIT,
            look,
            f"Look at execution {execution.rsplit('/', 1)[1]}; repeating waits for it again.",
        )


_importing = threading.Lock()


def compute() -> Any:
    """Compute's client library; it takes seconds to import, and only once."""
    with _importing:
        from google.cloud import compute_v1
    return compute_v1
