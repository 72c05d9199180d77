"""Google ID tokens as bearer tokens: signed by a key Google publishes, meant for us, not expired.

https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import jwt
import requests

ALGORITHMS = ["RS256"]
"""Google's; a list that also held HS256 would take the public key for a shared secret."""

_CLAIMS = ["aud", "exp", "iat", "iss", "sub"]
_LEEWAY = timedelta(seconds=10)
_FETCH_LIMIT = timedelta(seconds=3)
_REFETCH_EVERY = timedelta(seconds=10)
_OUTAGE_LIMIT = timedelta(hours=24)
_FRESH_DEFAULT = timedelta(hours=1)
_FRESH_LIMITS = (timedelta(minutes=1), timedelta(hours=24))
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})\b")
_LARGEST_ANSWER = 256 * 1024

logger = logging.getLogger(__name__)


class KeysUnavailableError(Exception):
    """The published keys cannot be had, and none that may still be used are kept."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a token proves: the account, and when the token ends (POSIX seconds)."""

    subject: str
    expires_at: float


class PublishedKeys:
    """The signing keys at a JWKS address, fetched when needed and kept for as long as it says.

    A key id that is not among them causes one new fetch, at most one in ten seconds, however many
    ask: so a rotation is seen at once and made-up ids cause no traffic. While the address does not
    answer, what was fetched last is used for a day.
    """

    def __init__(self, address: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._now = now
        self._lock = threading.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._fresh = _FRESH_DEFAULT

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of this id, None when none is published; raises KeysUnavailableError."""
        kept = key_id in self._keys
        # Whoever's key is there need not wait for a fetch that another makes.
        if (not kept or self._is_stale()) and self._lock.acquire(blocking=not kept):
            try:
                if self._is_stale() or key_id not in self._keys:
                    self._refetch()
            finally:
                self._lock.release()
        if self._now() - self._fetched_at > _OUTAGE_LIMIT.total_seconds():
            raise KeysUnavailableError
        return self._keys.get(key_id)

    def _is_stale(self) -> bool:
        return self._now() - self._fetched_at > self._fresh.total_seconds()

    def _refetch(self) -> None:
        if self._now() - self._tried_at < _REFETCH_EVERY.total_seconds():
            return
        self._tried_at = self._now()
        try:
            with requests.get(
                self._address, timeout=_FETCH_LIMIT.total_seconds(), stream=True
            ) as answer:
                answer.raise_for_status()
                content = answer.raw.read(_LARGEST_ANSWER, decode_content=True)
                cache_control = answer.headers.get("Cache-Control", "")
            keys = _signing_keys(content)
        except (requests.RequestException, ValueError, jwt.PyJWTError, OSError) as error:
            logger.warning("the signing keys could not be fetched: %s", type(error).__name__)
            return
        self._keys = keys
        self._fetched_at = self._now()
        self._fresh = _freshness(cache_control)


def _signing_keys(content: bytes) -> dict[str, jwt.PyJWK]:
    listed = json.loads(content)["keys"]
    keys = {}
    for entry in listed:
        if entry.get("kty") == "RSA" and entry.get("use", "sig") == "sig" and entry.get("kid"):
            keys[str(entry["kid"])] = jwt.PyJWK(entry, algorithm=ALGORITHMS[0])
    if not keys:
        raise ValueError("no signing keys")
    return keys


def _freshness(cache_control: str) -> timedelta:
    found = _MAX_AGE.search(cache_control)
    wanted = timedelta(seconds=int(found[1])) if found else _FRESH_DEFAULT
    shortest, longest = _FRESH_LIMITS
    return min(max(wanted, shortest), longest)


@dataclass(frozen=True, kw_only=True)
class IdTokens:
    """Checks ID tokens for one audience."""

    keys: PublishedKeys
    audience: str
    issuers: tuple[str, ...]

    def verify(self, token: str) -> Verified | None:
        """What the token proves, None when it proves nothing; raises KeysUnavailableError."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self.keys.find(key_id) if isinstance(key_id, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key=key,
                algorithms=ALGORITHMS,
                audience=self.audience,
                issuer=self.issuers,
                leeway=_LEEWAY,
                options={"require": _CLAIMS},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= 200:
            return None
        return Verified(subject=subject, expires_at=float(claims["exp"]))
