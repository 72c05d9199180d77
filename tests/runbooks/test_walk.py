"""A walk stops where it must, and says what was done and what was not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alerts.policies import CATALOG
from speakfit.errors import CatalogError, PagerDutyError, RefusedError
from speakfit.runbook import Block, Place, Runbook, block_environment, parse_runbook
from speakfit_ops.runbook.walk import (
    Answer,
    State,
    Walk,
    chosen_blocks,
    deliver_note,
    note_text,
    refuse_unanswered,
)

AT = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def page(*blocks: str) -> Runbook:
    parts = [block.partition(": ") for block in blocks]
    fences = "\n".join(f"```bash {opening}\n{text}\n```\n" for opening, _, text in parts)
    return parse_runbook("worker-down", f"# a\n\n{fences}", where="worker-down.md")


def walked(runbook: Runbook, answers: dict[str, Answer] | None = None) -> Walk:
    walk = Walk(
        blocks=runbook.blocks,
        environment=block_environment({}),
        ask=lambda block: (answers or {}).get(block.name, Answer.RUN),
        before=lambda _: None,
        after=lambda *_: None,
        limit=timedelta(seconds=30),
        patience=timedelta(0),
    )
    walk.run()
    return walk


def states(walk: Walk) -> list[tuple[str, State]]:
    return [(step.block.name, step.state) for step in walk.steps]


def test_a_fix_that_fails_stops_the_walk_and_the_rest_is_named() -> None:
    walk = walked(page("check a: exit 7", "fix b: true", "fix c: false", "verify d: true"))
    assert states(walk) == [
        ("a", State.FOUND),
        ("b", State.DONE),
        ("c", State.FAILED),
        ("d", State.NOT_REACHED),
    ]
    assert walk.exit_code == 4
    assert note_text(page("check a: true"), Place.LOCAL, walk.steps, AT) == (
        "Runbook worker-down (local), 2026-01-31 03:00:00 UTC\n"
        "- check a: found something, exit code 7\n"
        "- fix b: done\n"
        "- fix c: failed, exit code 1\n"
        "- verify d: not reached"
    )


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        (("check a: true", "verify b: true"), 0),
        (("check a: false", "verify b: true"), 0),
        (("check a: false",), 1),
        (("check a: no-such-command", "verify b: true"), 1),
        (("verify a: false",), 3),
        (("fix a: true", "verify b: false"), 3),
        (("fix a: false",), 4),
    ],
)
def test_the_exit_code_tells_what_became_of_it(blocks: tuple[str, ...], code: int) -> None:
    assert walked(page(*blocks)).exit_code == code


def test_whoever_quits_leaves_the_rest_and_whoever_skips_only_one() -> None:
    runbook = page("check a: true", "fix b: true", "verify c: true")
    quitting = walked(runbook, {"b": Answer.QUIT})
    assert states(quitting)[1:] == [("b", State.NOT_REACHED), ("c", State.NOT_REACHED)]
    skipping = walked(runbook, {"b": Answer.SKIP})
    assert states(skipping)[1:] == [("b", State.SKIPPED), ("c", State.DONE)]


def test_only_named_changes_are_chosen_and_a_rollback_never_by_itself() -> None:
    runbook = page(
        "check a local: true", "fix b local: true", "fix c production: true", "rollback d: true"
    )

    def names(*named: str, all_changes: bool = False, place: Place = Place.LOCAL) -> str:
        blocks = chosen_blocks(runbook, place, named=named, all_changes=all_changes)
        return "".join(block.name for block in blocks)

    assert (names(), names("b"), names("d"), names(all_changes=True)) == ("a", "ab", "ad", "ab")
    assert names(all_changes=True, place=Place.PRODUCTION) == "c"
    with pytest.raises(CatalogError, match="no fix or rollback c"):
        names("c")
    with pytest.raises(CatalogError, match="no blocks to run"):
        chosen_blocks(page(), Place.LOCAL, named=(), all_changes=True)
    asking: tuple[Block, ...] = page("fix a: echo ${ID:?which}").blocks
    with pytest.raises(RefusedError, match=r"ID \(which\)"):
        refuse_unanswered(asking, {})
    refuse_unanswered(asking, {"ID": "1"})


def test_a_note_that_cannot_be_sent_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    delivery = deliver_note(
        "what was done",
        page("check a: true"),
        CATALOG,
        url="http://127.0.0.1:9",
        token="t",
        sender="a@b.c",
        incident="P1",
        kept_in=tmp_path / "notes",
        at=AT,
    )
    assert isinstance(delivery.trouble, PagerDutyError)
    assert delivery.kept is not None
    assert delivery.kept.read_text("utf-8") == "what was done\n"
    assert delivery.kept.stat().st_mode & 0o777 == 0o600
