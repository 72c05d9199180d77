"""Idempotency-Key, over the real API and database: sent again is answered, not repeated."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import Engine, func, select, update

from services.api.idempotency import HEADER, REPLAYED
from services.api.keys import create_key
from speakfit.database import IdempotencyKey, Recording, database_now, transaction
from tests.services.speech import AUSTEN, KENNEDY
from tests.services.test_recordings import assert_problem

AUDIO = KENNEDY.read_bytes()


def send(api: httpx.Client, key: str, audio: bytes = AUDIO, **headers: str) -> httpx.Response:
    return api.post("/v1/recordings", files={"file": audio}, headers={HEADER: key, **headers})


def count(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.scalar(select(func.count()).select_from(Recording)) or 0


def test_sent_again_it_is_answered_as_before(api: httpx.Client, engine: Engine) -> None:
    key = str(uuid.uuid4())
    first, again = send(api, key), send(api, key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
    assert count(engine) == 1
    assert_problem(send(api, key, AUSTEN.read_bytes()), 422, "idempotency-key-reused")
    stranger = create_key(engine, name="another").key
    other = send(api, key, Authorization=f"Bearer {stranger}")
    assert (other.status_code, REPLAYED in other.headers) == (202, False)
    assert count(engine) == 2


def test_sent_many_times_at_once_it_makes_one_recording(api: httpx.Client, engine: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(api, "the-same"), range(8)))
    made = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(made) == count(engine) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "request-in-progress")
            assert answer.headers["retry-after"] == "2"


def test_a_request_that_died_stands_in_the_way_for_a_time_only(
    api: httpx.Client, engine: Engine
) -> None:
    assert send(api, "died").status_code == 202
    with transaction(engine) as session:
        # As its process left it: taken, and never answered.
        session.execute(
            update(IdempotencyKey).values(
                status_code=None, locked_until=database_now(timedelta(seconds=60))
            )
        )
    assert_problem(send(api, "died"), 409, "request-in-progress")
    with transaction(engine) as session:
        session.execute(
            update(IdempotencyKey).values(locked_until=database_now(timedelta(seconds=-1)))
        )
    assert send(api, "died").status_code == 202


def test_what_was_refused_leaves_the_key_free(api: httpx.Client, engine: Engine) -> None:
    assert_problem(send(api, "again", b"no audio"), 415, "not-audio")
    assert send(api, "again").status_code == 202
    assert count(engine) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\xe9"])
def test_a_key_that_cannot_be_used_is_refused(key: str, api: httpx.Client) -> None:
    answer = api.post(
        "/v1/recordings",
        files={"file": AUDIO},
        headers=[(HEADER.encode(), key.encode("latin-1"))],  # type: ignore[arg-type]
    )
    assert_problem(answer, 400, "invalid-idempotency-key")
