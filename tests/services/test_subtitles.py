"""Subtitles can be read in time, and FFmpeg reads from them what was meant."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.renditions import TranscriptFormat, accepted
from services.api.subtitles import Cue, cues, subrip, webvtt
from services.api.transcript import Segment, Word


def segment(*said: tuple[str, float, float], text: str | None = None) -> Segment:
    words = [Word(word=word, start=start, end=end, probability=0.9) for word, start, end in said]
    return Segment(
        text=" ".join(word.word for word in words) if text is None else text,
        start=words[0].start,
        end=words[-1].end,
        words=words,
    )


def evenly(text: str, start: float = 0.0, each: float = 0.3) -> Segment:
    return segment(
        *((word, start + i * each, start + (i + 1) * each) for i, word in enumerate(text.split()))
    )


WORDS = st.text(alphabet="abcdef,.", min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(WORDS, st.floats(-0.3, 3.0), st.floats(0.0, 9.0)), max_size=40))
def test_no_cue_is_too_long_none_overlap_and_no_letter_is_lost(
    spoken: list[tuple[str, float, float]],
) -> None:
    now, said = 0.0, []
    for word, gap, length in spoken:
        # Times of neighbouring words cross at times.
        begin = max(0.0, now + gap)
        said.append((word, begin, begin + length))
        now = begin + length
    found = cues([segment(*said)] if said else [])
    for cue in found:
        assert 0 < cue.end - cue.start <= 7.0005
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < len(line) <= 42 for line in cue.lines)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    letters = "".join("".join(cue.lines) for cue in found).replace(" ", "")
    assert letters == "".join(word for word, _, _ in spoken)


def test_cues_end_with_sentences_and_at_pauses_and_lines_are_even() -> None:
    found = cues(
        [
            evenly("Yes. I do think that we should, for once, listen before we speak to them."),
            evenly("And then", start=6.0),
            evenly("nothing happened.", start=9.0),
        ]
    )
    assert [cue.lines for cue in found] == [
        # Too short to be read alone.
        ("Yes. I do think that we should, for", "once, listen before we speak to them."),
        ("And then",),
        ("nothing happened.",),
    ]
    # A short cue stays for a second where the next leaves room, and the last one too.
    assert [(cue.start, round(cue.end, 3)) for cue in found][1:] == [(6.0, 7.0), (9.0, 10.0)]


def test_a_long_sentence_is_divided_at_its_clauses() -> None:
    text = (
        "It is a truth universally acknowledged, that a single man in possession of a good "
        "fortune, must be in want of a wife."
    )
    found = cues([evenly(text)])
    assert [cue.lines[-1].rpartition(" ")[2] for cue in found] == [
        "acknowledged,", "wife.",
    ]  # fmt: skip
    assert " ".join(line for cue in found for line in cue.lines) == text


def test_scripts_without_spaces_get_none() -> None:
    said = [("今日", 0.0, 0.5), ("は", 0.5, 0.6), ("晴れ", 0.6, 1.2)]
    (cue,) = cues([segment(*said, text="今日は晴れ")])
    assert cue.lines == ("今日は晴れ",)


HARD = [
    Cue(start=0.0, end=1.5, lines=("a <i>b</i> & c",)),
    Cue(start=3599.9996, end=3601.25, lines=("x --> y", "{\\an8}up")),
    Cue(start=363_599.5, end=363_600.0, lines=("end",)),
]


def test_times_and_markup_are_written_as_the_formats_want_them() -> None:
    word_joiner = "\u2060"
    assert subrip(HARD) == (
        f"1\n00:00:00,000 --> 00:00:01,500\na <{word_joiner}i>b<{word_joiner}/i> & c\n\n"
        f"2\n01:00:00,000 --> 01:00:01,250\nx --{word_joiner}> y\n{{{word_joiner}\\an8}}up\n\n"
        "3\n100:59:59,500 --> 101:00:00,000\nend\n"
    )
    assert webvtt(HARD) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt;i&gt;b&lt;/i&gt; &amp; c\n\n"
        "01:00:00.000 --> 01:00:01.250\nx --&gt; y\n{\\an8}up\n\n"
        "100:59:59.500 --> 101:00:00.000\nend\n"
    )
    assert (subrip([]), webvtt([])) == ("", "WEBVTT\n")


@pytest.mark.parametrize(("name", "write"), [("srt", subrip), ("webvtt", webvtt)])
def test_ffmpeg_reads_the_times_and_the_words(name: str, write: object, tmp_path: Path) -> None:
    path = tmp_path / "subtitles"
    assert callable(write)
    shown = [*HARD[:2], Cue(start=7200.0, end=7203.5, lines=("end",))]
    path.write_text(write(shown), encoding="utf-8")
    with av.open(str(path), format=name) as file:
        read = [packet for packet in file.demux() if packet.size]
        times = [
            (float(one.pts * one.time_base), float((one.duration or 0) * one.time_base))
            for one in read
        ]
        assert times == [(0.0, 1.5), (3600.0, 1.25), (7200.0, 3.5)]
        assert bytes(read[2]).decode() == "end"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", "json"), ("*/*", "json"), ("text/html,*/*;q=0.8", "json"), ("text/vtt", "vtt"),
        ("application/x-subrip, text/vtt;q=0.9", "srt"), ("text/plain;q=0.5, text/vtt", "vtt"),
        ("text/vtt;q=0", "json"), ("text/vtt;q=wrong", "json"), ("TEXT/PLAIN; q=1", "text"),
    ],
)  # fmt: skip
def test_accept_chooses_among_what_there_is(accept: str, wanted: str) -> None:
    assert accepted([accept]) == TranscriptFormat(wanted)
