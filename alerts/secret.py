"""The secrets of a catalog's channels: read from the environment, told apart by keyed digests.

They go from here into the one label of the one channel that carries them, and nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from alerts.channel import Channel, ChannelType
from alerts.policy import Catalog
from speakfit.errors import SettingsError

INTEGRATION_KEY_LENGTH = 32
"""Characters of an integration key of PagerDuty's Events API v2."""

_CONTEXT = b"speakfit-alerts: which PagerDuty integration key does this channel carry"
_DIGEST_CHARACTERS = 32
_SCRYPT_COST = 2**14


def read_secrets(catalog: Catalog, environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets that are at hand, by channel id; a SettingsError names one that cannot be one."""
    found = {}
    for channel in catalog.channels:
        secret = environment.get(channel.secret, "") if channel.secret else ""
        if not secret:
            continue
        if channel.type is ChannelType.PAGERDUTY and len(secret) != INTEGRATION_KEY_LENGTH:
            raise SettingsError(
                f"{channel.secret} has {len(secret)} characters.",
                where=f"environment; channel {channel.id} of catalog {catalog.name}",
                todo=f"An integration key has {INTEGRATION_KEY_LENGTH}.",
            )
        found[channel.id] = secret
    return found


def missing_secret(channel: Channel) -> SettingsError:
    """The error for a write that needs a secret which nobody gave."""
    ways = []
    if channel.secret:
        ways.append(f"set {channel.secret}")
    if channel.service is not None:
        ways.append("run `python -m alerts route apply`, which reads it from PagerDuty")
    todo = ", or ".join(ways)
    return SettingsError(
        f"The {channel.type.secret_label} of channel {channel.id} is not at hand.",
        where="environment",
        todo=f"{todo[0].upper()}{todo[1:]}.",
    )


def channel_digests(catalog: Catalog, secrets: Mapping[str, str]) -> dict[str, str]:
    """The digest of each secret at hand, by channel id."""
    return {
        channel.id: secret_digest(channel, secrets[channel.id])
        for channel in catalog.channels
        if channel.id in secrets
    }


def secret_digest(channel: Channel, secret: str) -> str:
    """Tells whether a channel carries this secret, without telling the secret.

    Cloud Monitoring gives secrets back obfuscated, so drift in them shows only here.
    """
    if channel.type is ChannelType.WEBHOOK_BASICAUTH:
        # People choose passwords: everybody who may read the label could try the likely ones,
        # so each try is made to cost.
        slow = hashlib.scrypt(
            secret.encode(), salt=_CONTEXT + channel.id.encode(), n=_SCRYPT_COST, r=8, p=1
        )
        return slow.hex()[:_DIGEST_CHARACTERS]
    return key_digest(secret)


def key_digest(key: str) -> str:
    """The digest of a secret that a machine made: its many random bits cannot be tried."""
    return hmac.new(key.encode(), _CONTEXT, hashlib.sha256).hexdigest()[:_DIGEST_CHARACTERS]
