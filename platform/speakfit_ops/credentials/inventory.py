"""Which secrets there are, who reads each, and what may be put into it.

The names and readers are those of `terraform/main.tf`; a test compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from speakfit.errors import RefusedError

_PLACEHOLDER = re.compile(
    r"(?i)<[^>]*>|\$\{?[a-z_]+\}?|change.?me|place.?holder|your[-_ ].*|.*[-_]here|to.?do|tbd|x{3,}"
    r"|\.{3,}|example.*|dummy.*|test(ing)?|secret|password|none|null|foo|bar|abc123?|(.)\2*"
)
_SHORTEST = 8


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret, by the name that people use; Secret Manager's begins with the environment."""

    name: str
    readers: tuple[str, ...]
    """Services whose accounts read it."""
    variable: str
    """The environment variable that carries it."""
    by_people: bool
    """Filled by people; the others are made by Terraform."""
    optional: bool = False
    """Not made at every size; needed where the API is given its variable."""


SECRETS = (
    Secret(
        name="database-url", readers=("api", "worker"), variable="DATABASE_URL", by_people=False
    ),
    Secret(
        name="database-replica-url",
        readers=("api",),
        variable="DATABASE_REPLICA_URL",
        by_people=False,
        optional=True,
    ),
    Secret(name="redis-url", readers=("api", "worker"), variable="REDIS_URL", by_people=False),
    Secret(name="database-ca", readers=("api", "worker"), variable="", by_people=False),
    Secret(name="redis-ca", readers=("api", "worker"), variable="", by_people=False),
    Secret(
        name="elevenlabs-api-key",
        readers=("api",),
        variable="ELEVENLABS_API_KEY",
        by_people=True,
    ),
    Secret(
        name="google-oauth-client-id",
        readers=("api",),
        variable="GOOGLE_OAUTH_CLIENT_ID",
        by_people=True,
    ),
    Secret(
        name="google-oauth-client-secret",
        readers=("api",),
        variable="GOOGLE_OAUTH_CLIENT_SECRET",
        by_people=True,
    ),
)


def find_secret(name: str) -> Secret:
    """A secret by its name; a RefusedError names those that there are."""
    for one in SECRETS:
        if one.name == name:
            return one
    raise RefusedError(
        f"No secret is called {name!r}.",
        where="NAME",
        todo=f"There are: {', '.join(one.name for one in SECRETS)}.",
    )


def accept(secret: Secret, text: str) -> str:
    """The value as it is stored: without the line end that a shell adds.

    Raises RefusedError for what cannot be it. The value is in no message.
    """
    value = text.removesuffix("\n").removesuffix("\r")
    why = _wrong(secret, value)
    if why:
        raise RefusedError(
            f"That is no value for {secret.name}: {why}.",
            where="standard input or prompt",
            todo="Copy the value itself; nothing was changed.",
        )
    return value


def _wrong(secret: Secret, value: str) -> str:
    if not value:
        return "it is empty"
    if value != value.strip():
        return "it begins or ends with white space"
    if _PLACEHOLDER.fullmatch(value):
        return "it looks like a placeholder"
    if len(value) < _SHORTEST:
        return f"it has fewer than {_SHORTEST} characters"
    if secret.name.endswith("-ca"):
        return "" if value.startswith("-----BEGIN CERTIFICATE-----") else "it is no certificate"
    if any(character.isspace() or not character.isprintable() for character in value):
        return "it has white space in it"
    if secret.name.endswith("-url"):
        return _wrong_address(secret, value)
    if secret.name == "google-oauth-client-id" and not value.endswith(
        ".apps.googleusercontent.com"
    ):
        return "it does not end in .apps.googleusercontent.com"
    return ""


def _wrong_address(secret: Secret, value: str) -> str:
    schemes = {
        "database-url": ("postgresql+psycopg",),
        "database-replica-url": ("postgresql+psycopg",),
        "redis-url": ("redis", "rediss"),
    }[secret.name]
    address = urlsplit(value)
    if address.scheme not in schemes or not address.hostname:
        return f"it is no address that begins with {' or '.join(one + '://' for one in schemes)}"
    if not address.password:
        return "it carries no password"
    if _PLACEHOLDER.fullmatch(address.password):
        return "its password looks like a placeholder"
    return ""
