"""What a revision must answer before anybody is sent to it, asked at its own address."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import requests

COLD_START = timedelta(seconds=60)
"""How long the first answer may take: a new revision has no instance running."""
_SECONDS = 15.0
_AGAIN = timedelta(seconds=1)

Pause = Callable[[timedelta], None]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question and how it was answered."""

    name: str
    ok: bool
    detail: str


def smoke(
    url: str, *, release: str, token: str | None, pause: Pause, patience: timedelta = COLD_START
) -> tuple[Check, ...]:
    """Ask a revision at its address: alive, the right release, ready, and wrong calls refused.

    `token` is an identity token for a service that not everybody may call. Errors are answers.
    """
    session = requests.Session()
    # Neither a proxy nor a .netrc of whoever deploys belongs to the check.
    session.trust_env = not url.startswith("http://127.0.0.1")
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    with session:
        return (
            _asked("alive", lambda: _alive(session, url, release, pause, patience)),
            _asked("ready", lambda: _ready(session, url)),
            _asked("refuses what does not exist", lambda: _refuses(session, url)),
        )


def _asked(name: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, detail=ask())
    except _WrongError as error:
        return Check(name=name, ok=False, detail=str(error))
    except requests.RequestException as error:
        return Check(name=name, ok=False, detail=f"no answer ({type(error).__name__})")


class _WrongError(Exception):
    """An answer is not what it must be."""


def _alive(
    session: requests.Session, url: str, release: str, pause: Pause, patience: timedelta
) -> str:
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            answer = session.get(f"{url}/healthz", timeout=_SECONDS)
            if answer.status_code == 200 or time.monotonic() > deadline:
                break
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
        pause(_AGAIN)
    if answer.status_code != 200:
        raise _WrongError(f"GET /healthz answers {answer.status_code}")
    # An address that leads to another revision would prove the wrong one.
    running = _object(answer).get("release")
    if running != release:
        raise _WrongError(f"release {running or 'unknown'} answers, not {release}")
    return f"release {running}"


def _ready(session: requests.Session, url: str) -> str:
    answer = session.get(f"{url}/readyz", timeout=_SECONDS)
    checks = _object(answer).get("checks")
    parts = checks if isinstance(checks, dict) else {}
    if answer.status_code != 200:
        failing = [name for name, check in parts.items() if not check.get("ok")]
        raise _WrongError(
            f"GET /readyz answers {answer.status_code}"
            + (f": {', '.join(failing)} not ready" if failing else "")
        )
    return ", ".join(sorted(parts))


def _refuses(session: requests.Session, url: str) -> str:
    # Neither 404 nor 401 writes anything, and both need routing and problem answers to work.
    answer = session.get(f"{url}/v1/recordings/{'0' * 32}", timeout=_SECONDS)
    if answer.status_code not in (401, 403, 404):
        raise _WrongError(f"a recording that does not exist is answered {answer.status_code}")
    if "problem+json" not in answer.headers.get("Content-Type", ""):
        raise _WrongError("the refusal is no problem+json: something else answers")
    return f"answers {answer.status_code}"


def _object(answer: requests.Response) -> dict[str, object]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
