"""No word is lost or doubled where two chunks meet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.seams import Heard, join
from services.worker.engines.whisper import WhisperEngine
from tests.benchmarks.seams import Errors, errors_at_seams, hear, text, whisper, without_pauses
from tests.services.speech import AUSTEN, samples_of

EACH = 0.4
"""Seconds that a made-up word takes."""


@pytest.fixture(scope="module")
def engine() -> Iterator[WhisperEngine]:
    made = whisper()
    yield made
    made.close()


def word(said: str, place: float, shift: float = 0.0) -> dict[str, Any]:
    start = place * EACH + shift
    return {"word": said, "start": start, "end": start + EACH, "probability": 0.9}


def segment(words: list[dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    return {
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "text": " ".join(w["word"] for w in words) if text is None else text,
        "words": words,
    }


@settings(max_examples=200, deadline=None)
@given(
    st.integers(30, 60),
    st.floats(3.5, 5.0),
    st.integers(3, 12),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 10_000),
)
def test_two_hearings_of_the_same_words_become_one(
    count: int, overlap: float, vocabulary: int, torn_left: int, torn_right: int, seed: int
) -> None:
    """Words repeat, times differ, and the cut words at both edges are misheard."""
    chance = random.Random(seed)
    said = [f"w{chance.randrange(vocabulary)}" for _ in range(count)]
    end = count * EACH * 0.6
    begin = end - overlap

    def heard(first: int, last: int) -> list[dict[str, Any]]:
        return [word(said[i], i, chance.uniform(-0.15, 0.15)) for i in range(first, last)]

    left = heard(0, int(end / EACH))
    right = heard(int(begin / EACH) + 1, count)
    for place, torn in enumerate(left[len(left) - torn_left :] + right[:torn_right]):
        torn["word"] = f"torn{place}"
    sides = [
        Heard(start=0.0, end=end, result={"segments": [segment(left)], "language": "en"}),
        Heard(
            start=begin,
            end=count * EACH,
            result={"segments": [segment(right[:3]), segment(right[3:])], "language": "en"},
        ),
    ]
    assert text(join(sides)).split() == said
    starts = [w["start"] for r in join(sides) for s in r["segments"] for w in s["words"]]
    assert starts == sorted(starts)


def test_where_nothing_agrees_time_decides() -> None:
    left = [word(f"l{i}", i) for i in range(20)]
    right = [word(f"r{i}", i) for i in range(10, 30)]
    sides = [
        Heard(start=0.0, end=8.0, result={"segments": [segment(left)]}),
        Heard(start=4.0, end=12.0, result={"segments": [segment(right)]}),
    ]
    told = text(join(sides)).split()
    assert told == [f"l{i}" for i in range(15)] + [f"r{i}" for i in range(15, 30)]


@pytest.mark.parametrize("silent", ["left", "right"])
def test_where_only_one_heard_anything_it_tells_all(silent: str) -> None:
    words = {"left": [word(f"l{i}", i) for i in range(20)], "right": [word("r", 25)]}
    if silent == "left":
        words = {"left": [word("l", 0)], "right": [word(f"r{i}", i) for i in range(11, 30)]}
    sides = [
        Heard(start=0.0, end=8.0, result={"segments": [segment(words["left"])]}),
        Heard(start=4.0, end=12.0, result={"segments": [segment(words["right"])]}),
    ]
    assert len(text(join(sides)).split()) == len(words["left"]) + len(words["right"])


def test_a_filler_that_both_heard_is_told_once_and_chunks_without_overlap_stay() -> None:
    left = [word(f"w{i}", i) for i in range(20)]
    right = [word(f"w{i}", i) for i in range(10, 30)]
    um = {"word": "Um,", "start": 5.0, "end": 5.2}
    alone = {"segments": [segment(right)], "fillers": [um]}
    sides = [
        Heard(start=0.0, end=8.0, result={"segments": [segment(left)], "fillers": [um]}),
        Heard(start=4.0, end=12.0, result=alone),
    ]
    assert [len(one["fillers"]) for one in join(sides)] == [1, 0]
    assert join([Heard(start=8.0, end=12.0, result=alone)] * 1) == [alone]


def test_text_without_spaces_is_cut_between_its_words() -> None:
    left = [
        word(said, i) for i, said in enumerate(["今日", "は", "とても", "いい", "天気", "です"])
    ]
    right = [word(said, i) for i, said in enumerate(["いい", "天気", "です", "ね"], start=3)]
    sides = [
        Heard(
            start=0.0, end=2.4, result={"segments": [segment(left, "今日は、とてもいい天気です")]}
        ),
        Heard(start=1.2, end=4.0, result={"segments": [segment(right, "いい天気ですね")]}),
    ]
    assert (
        "".join(s["text"] for r in join(sides) for s in r["segments"])
        == "今日は、とてもいい天気ですね"
    )


def test_real_speech_cut_in_a_word_loses_and_doubles_none(engine: WhisperEngine) -> None:
    samples = without_pauses(samples_of(AUSTEN))
    cut = 16_000 * 16
    heard = [hear(engine, samples, 0, cut), hear(engine, samples, cut - 64_000, len(samples))]
    errors = Errors().plus(text(join(heard)))
    assert (errors.lost, errors.added) == (0, 0)
    assert errors.rate <= 0.06


@pytest.mark.slow
def test_no_cut_anywhere_in_speech_loses_or_doubles_a_word(engine: WhisperEngine) -> None:
    samples = without_pauses(samples_of(AUSTEN))
    errors = errors_at_seams(engine, samples, overlap=4.0, step=0.5)
    assert (errors.lost, errors.added) == (0, 0)
    assert errors.rate <= 0.04
