"""The environment becomes one frozen value, read once.

Every setting is documented here and nowhere else; docs/settings.md is generated from these fields.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from speakfit.errors import SettingsError
from speakfit.metrics import EXPORT_INTERVAL


class Settings(BaseSettings):
    """Where everything is, and every limit that an operator may change."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy address of the database, `postgresql+psycopg://...` or `sqlite:///...`.",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Celery broker, `redis://...` or `rediss://...`."
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
    worker_processes: int = Field(
        default=1, ge=1, description="Transcribing processes per worker, one thread each."
    )
    monitoring_emulator_host: str | None = Field(
        default=None, description="`HOST:PORT` of an embedded Cloud Monitoring; unset means Google."
    )
    google_cloud_project: str | None = Field(
        default=None, description="Google Cloud project that metrics and policies belong to."
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
    max_recording_duration: timedelta = Field(
        default=timedelta(hours=3),
        description="Longest recording, ISO 8601 (`PT3H`) or seconds.",
    )
    chunk_lease: timedelta = Field(
        default=timedelta(seconds=6),
        description="How long a worker owns a chunk without renewing, ISO 8601 or seconds.",
    )
    export_interval: timedelta = Field(
        default=EXPORT_INTERVAL,
        description="Policy time between two metric exports, and between two heartbeats.",
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

    @field_validator("audio_store")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        scheme, separator, rest = (value or "").partition("://")
        if separator and (scheme not in ("gs", "file") or not rest.strip("/")):
            raise ValueError("must be a folder or gs://BUCKET/FOLDER")
        return value

    @field_validator("max_recording_duration", "chunk_lease", "export_interval")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            raise ValueError("must be longer than zero")
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


def read_settings() -> Settings:
    """Read the environment; a SettingsError names each wrong variable, never a secret's value."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(
            "Settings cannot be read: " + "; ".join(wrong),
            where="environment",
            todo="Correct the variables named above; docs/settings.md lists them all.",
        ) from None
