"""List, cancel, try again, delete: over the real API, database, store and worker."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select, update

from services.api.keys import create_key
from speakfit.database import (
    Chunk,
    Recording,
    StoredObject,
    database_now,
    transaction,
)
from speakfit.store import object_key
from tests.conftest import service
from tests.services.speech import AUSTEN, KENNEDY
from tests.services.test_recordings import assert_problem, finished, upload

PATH = "/v1/recordings"


def listed(api: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = api.get(PATH, params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def all_pages(api: httpx.Client, **asked: Any) -> list[str]:
    found: list[str] = []
    page = listed(api, **asked)
    while True:
        found += [one["id"] for one in page["recordings"]]
        if page["next_cursor"] is None:
            return found
        page = listed(api, **{**asked, "cursor": page["next_cursor"]})


def test_pages_hold_each_recording_once_the_newest_first_whatever_comes_meanwhile(
    api: httpx.Client, engine: Engine
) -> None:
    ids = [upload(api, KENNEDY) for _ in range(5)]
    with transaction(engine) as session:
        # Accepted in the same instant: the order is still one.
        same = database_now()
        session.execute(update(Recording).values(created_at=session.scalar(select(same))))
    first = listed(api, limit=2)
    newer = upload(api, AUSTEN)
    rest = all_pages(api, limit=2, cursor=first["next_cursor"])
    assert sorted([one["id"] for one in first["recordings"]] + rest) == sorted(ids)
    assert all_pages(api, limit=4)[0] == newer
    assert first["recordings"][0] == api.get(f"{PATH}/{first['recordings'][0]['id']}").json()
    stranger = create_key(engine, name="another").key
    assert api.get(PATH, headers={"Authorization": f"Bearer {stranger}"}).json() == {
        "recordings": [],
        "next_cursor": None,
    }
    assert all_pages(api, status="completed") == []
    assert len(all_pages(api, status="queued", limit=1)) == 6


@pytest.mark.parametrize("cursor", ["x", "", "é", "MjAyNg", "A" * 200, "AAAA===="])
def test_what_is_no_cursor_is_refused(cursor: str, api: httpx.Client) -> None:
    assert_problem(api.get(PATH, params={"cursor": cursor}), 422, "invalid-cursor")


@pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 101}, {"status": "done"}])
def test_a_page_has_bounds(asked: dict[str, Any], api: httpx.Client) -> None:
    assert_problem(api.get(PATH, params=asked), 422, "invalid-request")


def test_a_cancelled_recording_is_not_worked_on_until_it_is_tried_again(
    api: httpx.Client, environment: dict[str, str], tmp_path: Path
) -> None:
    one = upload(api, KENNEDY)
    assert_problem(api.post(f"{PATH}/{one}/retry"), 409, "wrong-status")
    for _ in range(2):
        answer = api.post(f"{PATH}/{one}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert_problem(api.get(f"{PATH}/{one}/transcript"), 409, "cancelled")
    other = upload(api, AUSTEN)
    with service("services.worker", environment, tmp_path / "worker.log"):
        assert finished(api, other)["status"] == "completed"
        assert api.get(f"{PATH}/{one}").json()["status"] == "cancelled"
        assert_problem(api.post(f"{PATH}/{other}/cancel"), 409, "wrong-status")
        again = api.post(f"{PATH}/{one}/retry")
        assert (again.status_code, again.json()["status"]) == (202, "queued")
        assert finished(api, one)["status"] == "completed"


def test_deleted_audio_is_gone_when_no_other_recording_needs_it(
    api: httpx.Client, engine: Engine, environment: dict[str, str]
) -> None:
    first, second = upload(api, KENNEDY), upload(api, KENNEDY)
    kept = Path(environment["AUDIO_DIR"]) / object_key(
        api.get(f"{PATH}/{first}").json()["checksum_sha256"]
    )
    assert api.delete(f"{PATH}/{first}").status_code == 204
    assert_problem(api.get(f"{PATH}/{first}"), 404, "unknown-recording")
    assert_problem(api.delete(f"{PATH}/{first}"), 404, "unknown-recording")
    assert kept.exists(), "the second recording needs it"
    assert api.delete(f"{PATH}/{second}").status_code == 204
    assert not kept.exists()
    with transaction(engine) as session:
        assert session.scalars(select(StoredObject)).all() == []


def test_a_recording_deleted_under_a_worker_leaves_nothing(
    api: httpx.Client, engine: Engine, environment: dict[str, str], tmp_path: Path
) -> None:
    audio = Path(environment["AUDIO_DIR"])
    long, short = upload(api, AUSTEN), upload(api, KENNEDY)
    with service("services.worker", environment, tmp_path / "worker.log"):
        assert finished(api, short)["status"] == "completed"
        with transaction(engine) as session:
            working = session.scalar(select(Recording).where(Recording.id == uuid.UUID(long)))
        assert working is not None
        assert api.delete(f"{PATH}/{long}").status_code == 204
        # The worker goes on and meets nothing it cannot bear.
        assert finished(api, upload(api, KENNEDY))["status"] == "completed"
    with transaction(engine) as session:
        assert session.scalars(select(Chunk).where(Chunk.recording_id == working.id)).all() == []
    assert not (audio / "chunks" / long).exists()
