"""The environment becomes one frozen value, read once.

Every setting is documented here and nowhere else; docs/settings.md is generated from these fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from speakfit.errors import SettingsError
from speakfit.metrics import EXPORT_INTERVAL


class EngineName(StrEnum):
    """What transcribes: see services.worker.engines."""

    WHISPER = "whisper"
    TIMED = "timed"
    RECORDED = "recorded"


class Settings(BaseSettings):
    """Where everything is, and every limit that an operator may change."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy address of the database, `postgresql+psycopg://...` or `sqlite:///...`.",
    )
    database_max_connections: int = Field(
        default=60,
        ge=1,
        description="`max_connections` of the database; Cloud SQL's is in docs/connections.md.",
    )
    database_reserved_connections: int = Field(
        default=10,
        ge=0,
        description="Connections left to PostgreSQL itself, migrations and people.",
    )
    api_replicas: int = Field(
        default=2,
        ge=1,
        description="Most API instances at a time, both releases of a rollout counted.",
    )
    worker_replicas: int = Field(default=1, ge=0, description="Most workers at a time.")
    database_replica_url: SecretStr | None = Field(
        default=None,
        description="Address of a read replica that lists are read from; unset means none.",
    )
    database_replica_max_lag: timedelta = Field(
        default=timedelta(seconds=5),
        description="How old a list may be; a replica that is further behind is not asked.",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Celery broker, `redis://...` or `rediss://...`."
    )
    speech_engine: EngineName = Field(
        default=EngineName.WHISPER,
        description="`whisper`; `timed` takes as long and makes words up, for load tests; "
        "`recorded` gives stored results again.",
    )
    recorded_speech_dir: Path | None = Field(
        default=None, description="Folder that the `recorded` engine reads its results from."
    )
    whisper_model: str | None = Field(
        default=None,
        description="Folder or name of a faster-whisper model; the local stack uses tiny.en.",
    )
    whisper_device: str = Field(default="auto", description="`cpu`, `cuda` or `auto`.")
    whisper_compute_type: str = Field(
        default="default",
        description="CTranslate2 compute type: `default`, `int8`, `float16`, ...",
    )
    whisper_batch_size: int = Field(
        default=1,
        ge=1,
        description="Chunks a GPU decodes at once; halved by itself where memory runs out.",
    )
    whisper_idle_limit: timedelta = Field(
        default=timedelta(minutes=15),
        description="Without work for so long the model is unloaded; 0 keeps it loaded.",
    )
    worker_processes: int = Field(
        default=1, ge=1, description="Transcribing processes per worker, one thread each."
    )
    monitoring_emulator_host: str | None = Field(
        default=None, description="`HOST:PORT` of an embedded Cloud Monitoring; unset means Google."
    )
    google_cloud_project: str | None = Field(
        default=None, description="Google Cloud project that metrics and policies belong to."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        description="Base address of an OTLP/HTTP collector that spans go to, instead of Cloud "
        "Trace; the SDK's other `OTEL_EXPORTER_OTLP_*` and `OTEL_BSP_*` variables hold too.",
    )
    otel_traces_sampler_arg: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of requests that are traced where the caller has not decided.",
    )
    speakfit_location: str = Field(
        default="us-central1", description="`location` of the monitored resource."
    )
    pagerduty_events_url: str = Field(
        default="https://events.pagerduty.com", description="Base address of the Events API v2."
    )
    pagerduty_api_url: str = Field(
        default="https://api.pagerduty.com", description="Base address of PagerDuty's REST API."
    )
    pagerduty_api_token: SecretStr | None = Field(
        default=None, description="Token for PagerDuty's REST API."
    )
    runbook_base_url: str = Field(
        default="https://github.com/speakfit/platform/blob/main/runbooks",
        description="Where runbooks are read; a page links `BASE/SUBJECT.md`.",
    )
    audio_dir: Path = Field(
        default=Path(".speakfit/audio"),
        description="Local folder for audio on its way, and for all of it without `AUDIO_STORE`.",
    )
    audio_store: str | None = Field(
        default=None,
        description="Where accepted audio is kept: `gs://BUCKET/FOLDER` or a folder; "
        "unset means `AUDIO_DIR`.",
    )
    max_upload_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1, description="Largest upload, in bytes (Cloud Run's limit)."
    )
    max_signed_upload_bytes: int = Field(
        default=384 * 1024 * 1024,
        ge=1,
        description="Largest file that an address from `/v1/uploads` takes, in bytes.",
    )
    max_recording_duration: timedelta = Field(
        default=timedelta(hours=3),
        description="Longest recording, ISO 8601 (`PT3H`) or seconds.",
    )
    chunk_lease: timedelta = Field(
        default=timedelta(seconds=6),
        description="How long a worker owns a chunk without renewing, ISO 8601 or seconds.",
    )
    chunk_time_limit: timedelta = Field(
        default=timedelta(minutes=10),
        description="After how long a process that transcribes a chunk of 30 s is killed as hung; "
        "shorter chunks in proportion, never under a fifth.",
    )
    export_interval: timedelta = Field(
        default=EXPORT_INTERVAL,
        description="Policy time between two metric exports, and between two heartbeats.",
    )
    max_queue_chunks: int = Field(
        default=5000,
        ge=1,
        description="Chunks of 30 s that may wait; beyond it uploads get 503 with Retry-After.",
    )
    rate_limit_requests: int = Field(
        default=6000,
        ge=0,
        description="Requests of one caller in RATE_LIMIT_WINDOW, at once or evenly; 0: no limit.",
    )
    rate_limit_window: timedelta = Field(
        default=timedelta(minutes=1),
        description="In which RATE_LIMIT_REQUESTS come back, ISO 8601 or seconds.",
    )
    client_timeout: timedelta = Field(
        default=timedelta(seconds=10),
        description="How long a client may take to send a head, or be silent in a body.",
    )
    answer_timeout: timedelta = Field(
        default=timedelta(seconds=30),
        description="How long an answer may take once a request is here; five minutes to compute.",
    )
    transcription_timeout: timedelta = Field(
        default=timedelta(seconds=290),
        description="How long `/v1/audio/transcriptions` waits for its work before it answers 504.",
    )
    id_token_audience: str | None = Field(
        default=None,
        description="OAuth client id that Google ID tokens must be made for; unset takes none.",
    )
    id_token_keys_url: str = Field(
        default="https://www.googleapis.com/oauth2/v3/certs",
        description="Address of Google's signing keys (JWKS).",
    )
    id_token_issuers: str = Field(
        default="https://accounts.google.com,accounts.google.com",
        description="Who may have issued an ID token, separated by commas.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API.")
    service_version: str | None = Field(
        default=None,
        description="Release that metrics carry where no Cloud Run revision names it; unset means "
        "the installed package's version.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _seconds(cls, value: Any, info: ValidationInfo) -> Any:
        """A bare number is seconds where a length of time is meant."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if kind is not timedelta or not isinstance(value, str):
            return value
        try:
            return timedelta(seconds=float(value))
        except (ValueError, OverflowError):
            return value

    @field_validator("audio_store")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        scheme, separator, rest = (value or "").partition("://")
        if separator and (scheme not in ("gs", "file") or not rest.strip("/")):
            raise ValueError("must be a folder or gs://BUCKET/FOLDER")
        return value

    @field_validator(
        "answer_timeout",
        "chunk_lease",
        "chunk_time_limit",
        "client_timeout",
        "database_replica_max_lag",
        "export_interval",
        "max_recording_duration",
        "rate_limit_window",
        "transcription_timeout",
    )
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            raise ValueError("must be longer than zero")
        return value

    @field_validator("whisper_idle_limit")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError("must not be negative")
        return value

    def require(self, name: str) -> str:
        """The value of a setting as text, or a SettingsError that names its variable."""
        value = getattr(self, name)
        if value is None:
            raise SettingsError(
                f"{name.upper()} is not set.",
                where="environment",
                todo=f"Set {name.upper()}: {type(self).model_fields[name].description} "
                "Or start everything locally with `make up`.",
            )
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def release() -> str:
    """Which release this process is.

    On Cloud Run the name of the revision tells it (its container contract), so that a deploy
    changes no variable that Terraform owns; elsewhere SERVICE_VERSION does.
    """
    for owner, name in (
        ("K_SERVICE", "K_REVISION"),
        ("CLOUD_RUN_WORKER_POOL", "CLOUD_RUN_WORKER_POOL_REVISION"),
    ):
        service, revision = os.environ.get(owner), os.environ.get(name)
        if service and revision:
            return revision.removeprefix(f"{service}-")
    return os.environ.get("SERVICE_VERSION") or version("speakfit-platform")


def read_settings() -> Settings:
    """Read the environment; a SettingsError names each wrong variable, never a secret's value."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part) for part in item['loc']).upper()}: {_reason(item)}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(
            "Settings cannot be read: " + "; ".join(wrong),
            where="environment",
            todo="Correct the variables named above; docs/settings.md lists them all.",
        ) from None


def _reason(item: Mapping[str, Any]) -> str:
    """What is wrong, without the library's own words around ours."""
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if item["type"] == "time_delta_parsing":
        return "must be a length of time: seconds (90), or ISO 8601 (PT15M)"
    return str(item["msg"])
