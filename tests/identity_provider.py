"""Publishes signing keys as Google does, on loopback, and signs ID tokens with them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "speakfit.apps.googleusercontent.example"
ISSUER = "https://accounts.google.com"


@cache
def signing_key(key_id: str) -> RSAPrivateKey:
    """A real RSA key; the same id is always the same key."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changed: Any) -> dict[str, Any]:
    """What a good token says; a value of None leaves the claim out."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "108234",
        "iat": now,
        "exp": now + 3600,
        "email": "speaker@example.com",
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(said: dict[str, Any], *, key_id: str = "first", by: str | None = None) -> str:
    """A token that names one key and is signed by it, or by another."""
    return jwt.encode(said, signing_key(by or key_id), "RS256", headers={"kid": key_id})


@dataclass(kw_only=True)
class IdentityProvider:
    """What is published, and how often it was asked for."""

    address: str = ""
    published: list[str] = field(default_factory=lambda: ["first"])
    fetches: int = 0
    broken: bool = False

    def answer(self) -> tuple[int, bytes]:
        self.fetches += 1
        if self.broken:
            return 500, b"out of order"
        keys = []
        for key_id in self.published:
            key = json.loads(RSAAlgorithm.to_jwk(signing_key(key_id).public_key()))
            keys.append({**key, "kid": key_id, "use": "sig", "alg": "RS256"})
        return 200, json.dumps({"keys": keys}).encode()

    @contextmanager
    def serving(self) -> Iterator[IdentityProvider]:
        """Over real HTTP on loopback."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = provider.answer()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "public, max-age=3600")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            self.address = f"http://127.0.0.1:{server.server_port}/certs"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
