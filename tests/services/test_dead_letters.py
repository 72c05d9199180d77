"""Dead letters are listed, inspected, tried again and let go by a command."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select

from services.worker.__main__ import main
from services.worker.dead_letters import AUDIO_MISSING, bury_exhausted
from services.worker.lease import claim, give_back
from services.worker.results import store_cuts, store_last_cuts, store_result
from speakfit.database import Chunk, OutboxMessage, Recording, transaction
from speakfit.jobs import ATTEMPTS, cancel, retry
from tests.services.test_lease import (
    GONE,
    LEASE,
    RESULT,
    accepted,
    claim_chunk,
    claim_recording,
    cut_wholly,
    cuts,
    finish,
    prepared,
    rows,
    status,
)

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    either_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """`python -m services.worker dead-letters ...` on the same database."""
    monkeypatch.setenv("DATABASE_URL", either_engine.url.render_as_string(hide_password=False))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["services.worker", "dead-letters", *arguments])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


def bury_chunk(engine: Engine, chunks: int = 2) -> uuid.UUID:
    """A recording whose first chunk is done and whose second has killed three processes."""
    recording_id = prepared(engine, chunks)
    finish(engine, claim_chunk(engine))
    for _ in range(ATTEMPTS):
        claim_chunk(engine, GONE)
    with transaction(engine) as session:
        assert bury_exhausted(session) == [recording_id]
    return recording_id


def test_a_dead_letter_is_listed_shown_and_tried_again(
    either_engine: Engine, command: Command
) -> None:
    assert command("list") == (0, "There is no dead letter.\n", "")
    recording_id = bury_chunk(either_engine)
    code, out, _ = command("list", "--json")
    letters: list[dict[str, Any]] = json.loads(out)
    assert (code, len(letters)) == (0, 1)
    letter = letters[0]
    assert letter["recording_id"] == str(recording_id)
    assert (letter["chunk_index"], letter["attempts"]) == (1, ATTEMPTS)
    code, out, _ = command("show", str(letter["id"]))
    assert code == 0
    assert "chunk 1 (30.0 to 60.0 s)" in out
    assert "failed (chunk-failed)" in out
    assert str(recording_id) in command("list")[1]

    assert command("retry", str(letter["id"]))[0] == 0
    assert command("list", "--json")[1] == "[]\n"
    assert status(either_engine, recording_id) == "queued"
    # What is transcribed stays; the rest is cut anew, for its audio was removed.
    assert rows(either_engine) == [(0, "done", 1)]
    work = claim_recording(either_engine)
    assert store_cuts(either_engine, work, cuts([0, 1]))
    finish(either_engine, claim_chunk(either_engine))
    ended = store_last_cuts(either_engine, work, [], count=2, speech=[], lease=LEASE)
    assert ended.recording_finished


def test_all_are_let_go_and_their_recordings_stay_failed(
    either_engine: Engine, command: Command
) -> None:
    recordings = [bury_chunk(either_engine) for _ in range(2)]
    code, out, _ = command("drop", "--all")
    assert (code, out.count("is let go")) == (0, 2)
    assert command("list")[1] == "There is no dead letter.\n"
    assert len(json.loads(command("list", "--settled", "--json")[1])) == 2
    assert {status(either_engine, one) for one in recordings} == {"failed"}


@pytest.mark.parametrize("arguments", [("retry",), ("drop", "7", "--all"), ("show", "x")])
def test_a_wrong_command_line_is_told(command: Command, arguments: tuple[str, ...]) -> None:
    code, _, err = command(*arguments)
    assert code == 64
    assert "to do:" in err


def test_an_unknown_dead_letter_is_told(command: Command) -> None:
    code, _, err = command("retry", "7")
    assert code == 1
    assert "There is no such dead letter." in err


def test_work_whose_audio_is_gone_fails_and_says_so(either_engine: Engine) -> None:
    recording_id = accepted(either_engine)
    for _ in range(ATTEMPTS):
        work = claim_recording(either_engine)
        give_back(either_engine, work, error=AUDIO_MISSING, forgiven=False)
    with transaction(either_engine) as session:
        assert bury_exhausted(session) == [recording_id]
        assert session.get_one(Recording, recording_id).error_code == "audio-missing"


def test_a_cancelled_recording_leaves_nothing_to_do_and_may_be_tried_again(
    either_engine: Engine,
) -> None:
    recording_id = accepted(either_engine, 3)
    cutter = claim_recording(either_engine)
    assert store_cuts(either_engine, cutter, cuts([0, 1]))
    running = claim_chunk(either_engine)
    with transaction(either_engine) as session:
        assert cancel(session, recording_id)
        assert not cancel(session, recording_id)
    assert claim(either_engine, LEASE) is None
    assert not store_result(either_engine, running, RESULT, model="tiny.en").kept
    assert not store_cuts(either_engine, cutter, cuts([2]))
    with transaction(either_engine) as session:
        assert session.scalars(select(OutboxMessage)).all() == []
        assert retry(session, recording_id)
        assert not retry(session, recording_id)
    cut_wholly(either_engine, claim_recording(either_engine), 1)
    finish(either_engine, claim_chunk(either_engine))
    assert status(either_engine, recording_id) == "completed"


def test_a_deleted_recording_leaves_nothing_to_do(either_engine: Engine) -> None:
    recording_id = accepted(either_engine, 3)
    cutter = claim_recording(either_engine)
    assert store_cuts(either_engine, cutter, cuts([0, 1]))
    running = claim_chunk(either_engine)
    with transaction(either_engine) as session:
        session.delete(session.get_one(Recording, recording_id))
    assert not store_result(either_engine, running, RESULT, model="tiny.en").kept
    assert not store_cuts(either_engine, cutter, cuts([2]))
    give_back(either_engine, cutter, error="OSError", forgiven=True)
    assert claim(either_engine, LEASE) is None
    with transaction(either_engine) as session:
        assert session.scalars(select(Chunk)).all() == []
