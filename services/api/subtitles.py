"""Subtitles from a transcript: cues that can be read in time, as SubRip and WebVTT. Pure functions.

A cue ends with its sentence, at a pause, or before it is too long to be read: two lines of 42
characters and 7 s, as broadcasters write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.api.transcript import Segment

LINE_LENGTH = 42
LINES = 2
LONGEST_CUE = timedelta(seconds=7)

_PAUSE_SECONDS = timedelta(seconds=0.7).total_seconds()
_SHORTEST_SECONDS = timedelta(seconds=1).total_seconds()
_SENTENCE_ENDS = (".", "?", "!", "\u2026", "\u3002", "\uff1f", "\uff01")
_CLAUSE_ENDS = (",", ";", ":", "\u2014", "\u3001", "\uff0c")
_CLOSING = "\"'\u201d\u2019)]\u300d"
_WORD_JOINER = "\u2060"
# SubRip knows no escaping: what players would take for a tag or a time line is broken up unseen.
_SUBRIP_MARKUP = re.compile(r"<(?=[/a-zA-Z])|\{(?=\\)|--(?=>)")


@dataclass(frozen=True, kw_only=True)
class Cue:
    """What is shown from one time to another, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Token:
    """A word that is never torn; `spaced` where a space stands before it."""

    text: str
    start: float
    end: float
    spaced: bool


def cues(segments: Sequence[Segment]) -> list[Cue]:
    """In order, none overlapping another, none longer than 7 s or two lines."""
    pieces: list[list[_Token]] = []
    for phrase in _phrases([token for segment in segments for token in _tokens(segment)]):
        rest = phrase
        while rest:
            count = _first_cue(rest)
            # A sentence of one word would flash by alone.
            if pieces and _is_short(pieces[-1]) and _belongs(pieces[-1], rest[:count]):
                pieces[-1] = [*pieces[-1], *rest[:count]]
            else:
                pieces.append(rest[:count])
            rest = rest[count:]
    return _timed(pieces)


def _tokens(segment: Segment) -> Iterator[_Token]:
    """The segment's words as its text spaces them; not every script puts spaces between."""
    words = [(word.word, word.start, word.end) for word in segment.words]
    if not words:
        texts = segment.text.split()
        each = (segment.end - segment.start) / max(1, len(texts))
        words = [
            (text, segment.start + i * each, segment.start + (i + 1) * each)
            for i, text in enumerate(texts)
        ]
    position = 0
    for text, start, end in words:
        at = segment.text.find(text, position)
        spaced = at < 0 or position == 0 or at > position
        position = max(position, at + len(text)) if at >= 0 else position
        bare = " ".join(text.split())
        for place in range(0, len(bare), LINE_LENGTH):
            # Only what fits into no line is torn.
            part = bare[place : place + LINE_LENGTH]
            yield _Token(text=part, start=start, end=end, spaced=spaced and place == 0)


def _phrases(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    phrase: list[_Token] = []
    for token in tokens:
        if phrase and token.start - phrase[-1].end >= _PAUSE_SECONDS:
            yield phrase
            phrase = []
        phrase.append(token)
        if token.text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
            yield phrase
            phrase = []
    if phrase:
        yield phrase


def _first_cue(tokens: Sequence[_Token]) -> int:
    """How many tokens the first cue takes: all, or up to the last clause that is no mere beginning,
    or what fits.
    """
    fitting = 1
    while fitting < len(tokens) and _fits(tokens[: fitting + 1]):
        fitting += 1
    if fitting == len(tokens):
        return fitting
    for count in range(fitting, fitting // 3, -1):
        if tokens[count - 1].text.endswith(_CLAUSE_ENDS):
            return count
    return fitting


def _fits(tokens: Sequence[_Token]) -> bool:
    seconds = tokens[-1].end - tokens[0].start
    return seconds <= LONGEST_CUE.total_seconds() and len(_lines(tokens)) <= LINES


def _is_short(tokens: Sequence[_Token]) -> bool:
    return tokens[-1].end - tokens[0].start < _SHORTEST_SECONDS


def _belongs(before: Sequence[_Token], after: Sequence[_Token]) -> bool:
    return after[0].start - before[-1].end < _PAUSE_SECONDS and _fits([*before, *after])


def _lines(tokens: Sequence[_Token]) -> tuple[str, ...]:
    """As few lines as possible; two of them about as long as each other."""
    whole = _wrapped(tokens, LINE_LENGTH)
    if len(whole) != LINES:
        return whole
    longest = max(map(len, whole))
    for width in range(sum(map(len, whole)) // LINES, longest):
        even = _wrapped(tokens, width)
        if len(even) == LINES and max(map(len, even)) <= LINE_LENGTH:
            return even
    return whole


def _wrapped(tokens: Sequence[_Token], width: int) -> tuple[str, ...]:
    lines = [""]
    for token in tokens:
        gap = " " if token.spaced and lines[-1] else ""
        if lines[-1] and len(lines[-1]) + len(gap) + len(token.text) > width:
            lines.append(token.text)
        else:
            lines[-1] += gap + token.text
    return tuple(lines)


def _timed(pieces: Sequence[Sequence[_Token]]) -> list[Cue]:
    """Shown for a second at least where the next one leaves room for it."""
    found: list[Cue] = []
    shown_until = 0.0
    for place, tokens in enumerate(pieces):
        start = max(tokens[0].start, shown_until)
        following = pieces[place + 1][0].start if place + 1 < len(pieces) else float("inf")
        end = max(tokens[-1].end, min(start + _SHORTEST_SECONDS, following))
        # Times of neighbouring words may cross by a little; a cue never has no length at all.
        end = max(min(end, start + LONGEST_CUE.total_seconds()), start + 0.001)
        found.append(Cue(start=start, end=end, lines=_lines(tokens)))
        shown_until = end
    return found


def subrip(shown: Sequence[Cue]) -> str:
    """As an .srt file."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n"
        + "".join(_SUBRIP_MARKUP.sub(rf"\g<0>{_WORD_JOINER}", line) + "\n" for line in cue.lines)
        for number, cue in enumerate(shown, start=1)
    )


def webvtt(shown: Sequence[Cue]) -> str:
    """As a .vtt file (W3C WebVTT)."""
    return "WEBVTT\n" + "".join(
        f"\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n"
        + "".join(_escaped(line) + "\n" for line in cue.lines)
        for cue in shown
    )


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{milliseconds:03}"
