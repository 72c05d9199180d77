"""Where a deploy happens: the names that Terraform gives one environment, and who answers there.

An endpoint on loopback takes Google's place in tests and rehearsals; it gets no credentials.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from speakfit.errors import RefusedError, TargetError
from speakfit.settings import Settings

ENDPOINT_VARIABLE = "SPEAKFIT_CLOUD_ENDPOINT"
_WORD = re.compile(r"[a-z][a-z0-9]{1,10}")


@dataclass(frozen=True, kw_only=True)
class Estate:
    """One environment in one project and region, by the names of `terraform/`."""

    project: str
    region: str
    environment: str
    endpoint: str | None = None
    """`http://127.0.0.1:PORT`; None is Google."""

    @property
    def prefix(self) -> str:
        """What every name begins with."""
        return f"speakfit-{self.environment}"

    @property
    def service(self) -> str:
        """The Cloud Run service's id."""
        return f"{self.prefix}-api"

    @property
    def location(self) -> str:
        """The parent of services and jobs."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def service_name(self) -> str:
        """The Cloud Run service's resource name."""
        return f"{self.location}/services/{self.service}"

    @property
    def job_name(self) -> str:
        """The resource name of the Cloud Run job that migrates the database."""
        return f"{self.location}/jobs/{self.prefix}-migrate"

    @property
    def workers(self) -> str:
        """The regional managed instance group's name."""
        return f"{self.prefix}-gpu-worker"

    @property
    def database(self) -> str:
        """The Cloud SQL instance's name."""
        return f"{self.prefix}-postgres"

    def account(self, service: str) -> str:
        """The service account of `api` or `worker`."""
        return f"{self.prefix}-{service}@{self.project}.iam.gserviceaccount.com"

    def __str__(self) -> str:
        where = f"{self.project}, {self.region}, environment {self.environment}"
        if self.endpoint:
            return f"loopback endpoint at {self.endpoint}, project {where}"
        return f"Google Cloud, project {where}"


def resolve_estate(
    settings: Settings,
    *,
    project: str | None,
    region: str | None,
    environment: str | None,
    endpoint: str | None,
) -> Estate:
    """The estate that options and environment name; nothing is guessed.

    Raises TargetError for what is missing, RefusedError for an endpoint that is not on loopback.
    """
    named = project or settings.google_cloud_project
    if not named:
        raise TargetError(
            "No Google Cloud project is named.",
            where="--project, GOOGLE_CLOUD_PROJECT",
            todo="Name it; `gcloud projects list` has them.",
        )
    if not environment or not _WORD.fullmatch(environment):
        raise TargetError(
            f"{environment!r} is no environment." if environment else "No environment is named.",
            where="--environment, SPEAKFIT_ENVIRONMENT",
            todo="Name the one that Terraform made, for example production.",
        )
    if endpoint:
        address = urlsplit(endpoint)
        if address.scheme != "http" or address.hostname not in ("127.0.0.1", "localhost"):
            raise RefusedError(
                "Only an endpoint on this machine may take Google's place.",
                where=f"--endpoint, {ENDPOINT_VARIABLE}",
                todo="Write http://127.0.0.1:PORT, or leave it out for Google.",
            )
    return Estate(
        project=named,
        region=region or settings.speakfit_location,
        environment=environment,
        endpoint=(endpoint or "").rstrip("/") or None,
    )
