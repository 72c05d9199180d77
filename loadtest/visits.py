"""What a caller does: small functions over Locust's client, with route templates as names.

The address of the API comes from Locust's host, the key from SPEAKFIT_API_KEY; both from the
running local stack where neither is given. A visit checks what it is answered: a quick wrong
answer is a failure.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import gevent

from speakfit.target import stack_environment

RECORDINGS = "/v1/recordings"
ONE = "/v1/recordings/{recording_id}"
TRANSCRIPT = "/v1/recordings/{recording_id}/transcript"

SAMPLE = Path(__file__).parent.parent / "platform/speakfit_ops/samples/kennedy.flac"
_POLL = timedelta(seconds=0.5)
_FINISH_LIMIT = timedelta(minutes=10)
_SLOW = timedelta(seconds=3)
_PIECES = 20


def local_address() -> str | None:
    """Where the API of the running local stack is; None where none runs here."""
    port = stack_environment().get("PORT")
    return f"http://127.0.0.1:{port}" if port else None


@cache
def _key() -> str | None:
    return os.environ.get("SPEAKFIT_API_KEY") or stack_environment().get("SPEAKFIT_API_KEY")


def headers() -> dict[str, str]:
    """The caller's key, where there is one."""
    key = _key()
    return {"Authorization": f"Bearer {key}"} if key else {}


def form(audio: bytes) -> tuple[bytes, dict[str, str]]:
    """A multipart form with the audio as `file`, and its headers."""
    boundary = uuid.uuid4().hex
    body = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="speech"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + audio
    body += f"\r\n--{boundary}--\r\n".encode()
    return body, {**headers(), "Content-Type": f"multipart/form-data; boundary={boundary}"}


@dataclass(kw_only=True)
class Knowledge:
    """What the visits of one process share: recordings that are there to be read."""

    audio: bytes = b""
    recordings: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    """Those with a transcript, each once."""

    def prepare(self, client: Any) -> None:
        """Upload one clip and wait for its transcript, so that reads have something to find."""
        if not self.audio:
            self.audio = SAMPLE.read_bytes()
        if not self.finished:
            found = upload(client, self)
            if found is not None:
                self.recordings.append(found)
                if finish(client, found) == "completed":
                    self.finished.append(found)


def upload(client: Any, known: Knowledge) -> str | None:
    """Send the clip; the new recording's id, or None where it was refused."""
    body, sent = form(known.audio)
    with client.post(RECORDINGS, data=body, headers=sent, catch_response=True) as answer:
        if answer.status_code != 202:
            answer.failure(f"status {answer.status_code}")
            return None
        return str(answer.json()["id"])


def status(client: Any, recording_id: str) -> str | None:
    """How a recording stands; None where the answer was none."""
    path = f"{RECORDINGS}/{recording_id}"
    with client.get(path, name=ONE, headers=headers(), catch_response=True) as answer:
        if answer.status_code != 200:
            answer.failure(f"status {answer.status_code}")
            return None
        return str(answer.json()["status"])


def finish(client: Any, recording_id: str) -> str | None:
    """Ask until the recording is completed or failed."""
    until = time.monotonic() + _FINISH_LIMIT.total_seconds()
    while time.monotonic() < until:
        found = status(client, recording_id)
        if found in (None, "completed", "failed", "cancelled"):
            return found
        gevent.sleep(_POLL.total_seconds())
    return None


def read_status(client: Any, known: Knowledge, source: random.Random) -> None:
    """Ask how a recording stands."""
    if not known.recordings:
        read_list(client, known, source)
        return
    status(client, source.choice(known.recordings))


def read_transcript(client: Any, known: Knowledge, source: random.Random) -> None:
    """Read a transcript."""
    if not known.finished:
        # Something is asked all the same: a visit that asks nothing would hide a dead server.
        read_list(client, known, source)
        return
    path = f"{RECORDINGS}/{source.choice(known.finished)}/transcript"
    with client.get(path, name=TRANSCRIPT, headers=headers(), catch_response=True) as answer:
        if answer.status_code != 200 or not answer.json()["text"]:
            answer.failure(f"status {answer.status_code}")


def read_list(client: Any, known: Knowledge, source: random.Random) -> None:
    """List the caller's recordings."""
    with client.get(RECORDINGS, headers=headers(), catch_response=True) as answer:
        if answer.status_code != 200:
            answer.failure(f"status {answer.status_code}")


def send_clip(client: Any, known: Knowledge, source: random.Random) -> None:
    """Upload a clip and go."""
    found = upload(client, known)
    if found is not None:
        known.recordings.append(found)


def coach(client: Any, known: Knowledge, source: random.Random) -> None:
    """What a person does: upload, wait for the transcript, read it."""
    found = upload(client, known)
    if found is not None and finish(client, found) == "completed":
        known.recordings.append(found)
        known.finished.append(found)
        path = f"{RECORDINGS}/{found}/transcript"
        client.get(path, name=TRANSCRIPT, headers=headers())


def send_noise(client: Any, known: Knowledge, source: random.Random) -> None:
    """Upload what is no audio; the refusal is the right answer."""
    body, sent = form(source.randbytes(2_000))
    with client.post(
        RECORDINGS, name=f"{RECORDINGS} (noise)", data=body, headers=sent, catch_response=True
    ) as answer:
        if answer.status_code == 415:
            answer.success()
        else:
            answer.failure(f"status {answer.status_code}")


def read_unknown(client: Any, known: Knowledge, source: random.Random) -> None:
    """Ask for a recording that is not there; 404 is the right answer."""
    path = f"{RECORDINGS}/{uuid.UUID(int=source.getrandbits(128), version=4)}"
    _refused(client, path, f"{ONE} (unknown)", headers(), 404)


def come_without_key(client: Any, known: Knowledge, source: random.Random) -> None:
    """Ask without a key; 401 is the right answer."""
    _refused(client, RECORDINGS, f"{RECORDINGS} (no key)", {}, 401)


def _refused(client: Any, path: str, name: str, sent: dict[str, str], status: int) -> None:
    with client.get(path, name=name, headers=sent, catch_response=True) as answer:
        if answer.status_code == status:
            answer.success()
        else:
            answer.failure(f"status {answer.status_code}")


class SlowBody:
    """A body that is sent bit by bit, as a phone with a poor line does."""

    def __init__(self, body: bytes, takes: timedelta) -> None:
        self._body = body
        self._sent = 0
        self._piece = max(1, len(body) // _PIECES)
        self._pause = takes.total_seconds() / _PIECES

    def __len__(self) -> int:
        return len(self._body)

    def read(self, _size: int = -1) -> bytes:
        """The next bit, after a pause."""
        piece = self._body[self._sent : self._sent + self._piece]
        self._sent += len(piece)
        if piece:
            gevent.sleep(self._pause)
        return piece


def send_slowly(client: Any, known: Knowledge, source: random.Random) -> None:
    """Upload noise over three seconds; a refusal is the right answer, whoever else waits."""
    body, sent = form(source.randbytes(2_000))
    with client.post(
        RECORDINGS,
        name=f"{RECORDINGS} (slowly)",
        data=SlowBody(body, _SLOW),
        headers=sent,
        catch_response=True,
    ) as answer:
        if answer.status_code == 415:
            answer.success()
        else:
            answer.failure(f"status {answer.status_code}")


Visit = Callable[[Any, Knowledge, random.Random], None]

VISITS: dict[str, Visit] = {
    visit.__name__: visit
    for visit in (
        read_status,
        read_transcript,
        read_list,
        read_unknown,
        come_without_key,
        send_clip,
        send_noise,
        send_slowly,
        coach,
    )
}
"""By name, as scenarios refer to them."""
