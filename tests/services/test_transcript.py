"""Coaching figures follow the definitions in services.api.transcript."""

from __future__ import annotations

import pytest

from services.api.seams import Heard
from services.api.transcript import assemble, coach, pauses
from speakfit.fillers import filler_name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Um,", "um"), ("ummm", "um"), ("Uhm", "um"), ("uh...", "uh"), ("Er", "er"),
        ("erm", "erm"), ("Ah!", "ah"), ("Hmm.", "hmm"), ("mm-hmm", "hmm"),
        ("umbrella", None), ("her", None), ("a", None), ("I", None), ("so", None), ("12", None),
    ],
)  # fmt: skip
def test_fillers_have_one_spelling_and_words_are_none(word: str, name: str | None) -> None:
    assert filler_name(word) == name


def test_words_per_minute_count_speaking_time_only() -> None:
    figures = coach(["so", "um", "yes", "uh"], [[1.0, 2.0], [10.0, 11.0]])
    assert figures.words_per_minute == 120.0
    assert figures.speaking_seconds == 2.0
    assert figures.filler_words.model_dump() == {"total": 2, "by_word": {"uh": 1, "um": 1}}


def test_a_pause_is_between_speech_and_lasts_at_least_300_ms() -> None:
    found = pauses([[1.0, 2.0], [2.29, 3.0], [3.3, 4.0]])
    assert [(one.start, one.end, one.duration) for one in found] == [(3.0, 3.3, 0.3)]


def test_chunks_are_joined_in_order_and_keep_their_absolute_times() -> None:
    def heard(text: str, start: float) -> Heard:
        word = {"word": text, "start": start, "end": start + 0.5, "probability": 0.9}
        segment = {"text": text, "start": start, "end": start + 0.5, "words": [word]}
        return Heard(start=start, end=start + 30, result={"language": "en", "segments": [segment]})

    found = assemble(
        recording_id="r",
        duration_seconds=60.0,
        chunks=[heard("one", 1.0), heard("two", 31.0)],
        speech=[[1.0, 1.5], [31.0, 31.5]],
    )
    assert found.text == "one two"
    assert [word.start for segment in found.segments for word in segment.words] == [1.0, 31.0]


def test_no_words_and_no_speech_give_zeros_not_errors() -> None:
    assert coach([], []).words_per_minute == 0.0
