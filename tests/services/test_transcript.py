"""Coaching figures follow the definitions in services.api.transcript."""

from __future__ import annotations

import pytest

from services.api.seams import Heard
from services.api.transcript import (
    Filler,
    Word,
    assemble,
    coach,
    pace,
    pauses,
    repetitions,
    syllable_count,
)
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


def said(*words: str, start: float = 1.0, each: float = 0.5) -> list[Word]:
    return [
        Word(word=word, start=start + i * each, end=start + (i + 1) * each, probability=0.9)
        for i, word in enumerate(words)
    ]


def test_words_per_minute_count_speaking_time_only() -> None:
    figures = coach(said("so", "um", "yes", "uh"), [[1.0, 2.0], [10.0, 11.0]])
    assert figures.words_per_minute == 120.0
    assert figures.speaking_seconds == 2.0
    assert figures.filler_words.by_word == {"uh": 1, "um": 1}
    assert figures.filler_words.method == "transcript"


def test_a_filler_that_both_passes_heard_counts_once_and_recall_is_told_where_measured() -> None:
    words = said("So,", "Um,", "yes", "we", "can")
    heard = [
        Filler(word="Um,", start=1.7, end=1.9),
        Filler(word="uhh", start=2.4, end=2.6),
        Filler(word="Um", start=8.0, end=8.2),
    ]
    found = coach(words, [[1.0, 9.0]], fillers=heard, model="tiny.en").filler_words
    assert [(one.word, one.start) for one in found.found] == [("um", 1.5), ("uh", 2.4), ("um", 8.0)]
    assert (found.total, found.by_word) == (3, {"uh": 1, "um": 2})
    assert (found.method, found.recall) == ("verbatim-pass", 0.94)
    # Not measured: another model, another language.
    assert coach(words, [], fillers=heard, model="large-v3").filler_words.recall is None
    german = coach(words, [], fillers=heard, model="tiny.en", language="de")
    assert (german.filler_words.recall, german.articulation_rate) == (None, None)


def test_pace_is_words_by_speaking_time_in_windows_of_15_s() -> None:
    words = [*said(*["word"] * 10, start=0.0), *said(*["word"] * 20, start=30.0)]
    found = pace(words, [[0.0, 5.0], [29.0, 40.0]])
    assert [(one.start, one.words_per_minute) for one in found] == [
        (0.0, 120.0), (15.0, None), (30.0, 120.0),
    ]  # fmt: skip


def test_words_repeated_at_once_are_told_and_numbers_are_none() -> None:
    words = said("I", "I,", "um", "i", "went", "to", "To", "8", "8", "the", "other", "the")
    assert [(one.word, one.count, one.start, one.end) for one in repetitions(words)] == [
        ("i", 3, 1.0, 3.0), ("to", 2, 3.5, 4.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("so", 1), ("there", 1), ("table", 2), ("wanted", 2), ("asked", 1), ("houses", 2),
        ("Americans,", 4), ("don't", 1), ("42", 2), ("...", 0), ("rhythm", 1),
        ("cold-hearted", 3),
    ],
)  # fmt: skip
def test_syllables_are_estimated_by_vowels(word: str, count: int) -> None:
    assert syllable_count(word) == count


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
