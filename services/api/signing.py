"""Addresses of our own that may be used until they expire, by whoever has them.

They stand in for those of an object store where audio is kept in a folder.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class Permit:
    """The right to put one file, for as long as it lasts."""

    upload_id: uuid.UUID
    expires: int
    """Seconds since 1970."""

    @classmethod
    def until(cls, upload_id: uuid.UUID, moment: datetime) -> Permit:
        """A permit that ends with the second of `moment`."""
        return cls(upload_id=upload_id, expires=int(moment.astimezone(UTC).timestamp()))

    def sign(self, secret: bytes) -> str:
        """HMAC-SHA256 of all that the permit says, hexadecimal."""
        text = f"PUT\n{self.upload_id}\n{self.expires}"
        return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()

    def proven_by(self, signature: str, secret: bytes) -> bool:
        """Whether a signature is ours; how long it takes tells nothing."""
        return hmac.compare_digest(self.sign(secret).encode(), signature.encode())
