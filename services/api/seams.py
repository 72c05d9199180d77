"""Chunks become one text: what two of them both heard is told once.

Chunks overlap where the worker found no pause to cut in. There the last words of one and the first
of the next are torn words, misheard. The seam goes through a word that both heard at about the same
time, where the words before it and after it are the surest; both being sure, near the middle.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_SAME_TIME_SECONDS = timedelta(seconds=0.8).total_seconds()
"""Word times of two hearings differ by 0.12 s in the median, and by more beside a cut."""

_AWAY_COSTS = 0.05
"""So much surety a second from the middle: torn words are unsure, but not always."""

_SLACK_SECONDS = timedelta(seconds=0.5).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What was heard in one chunk, and where in the recording it lies, in seconds."""

    start: float
    end: float
    result: dict[str, Any]
    model: str | None = None
    """What transcribed it."""


def join(chunks: Sequence[Heard]) -> list[dict[str, Any]]:
    """The results in order, without what is told by two: segments, words and fillers."""
    results = [chunk.result for chunk in chunks]
    for place, (before, after) in enumerate(itertools.pairwise(chunks)):
        if after.start < before.end:
            results[place], results[place + 1] = _joined(
                results[place], results[place + 1], after.start, before.end
            )
    return results


def _joined(
    left: dict[str, Any], right: dict[str, Any], begin: float, end: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    ours = [word for segment in left["segments"] for word in segment["words"]]
    theirs = [word for segment in right["segments"] for word in segment["words"]]
    kept, dropped = find_seam(ours, theirs, begin=begin, end=end)
    seam = _time(ours, theirs, kept, dropped, begin=begin, end=end)
    return (
        {
            **left,
            "segments": _slice(left["segments"], 0, kept),
            "fillers": _within(left.get("fillers"), float("-inf"), seam),
        },
        {
            **right,
            "segments": _slice(right["segments"], dropped, len(theirs)),
            "fillers": _within(right.get("fillers"), seam, float("inf")),
        },
    )


def find_seam(
    left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]], *, begin: float, end: float
) -> tuple[int, int]:
    """How many words of the left remain, and how many of the right are dropped."""
    middle = (begin + end) / 2
    first = next(
        (i for i, word in enumerate(left) if word["end"] > begin - _SLACK_SECONDS), len(left)
    )
    last = next(
        (i for i, word in enumerate(right) if word["start"] >= end + _SLACK_SECONDS), len(right)
    )
    chain = _common(left[first:], right[:last])
    if chain:
        # Sure words before the seam and sure words after it; where that is even, the middle.
        def surety(pair: tuple[int, int]) -> float:
            one, other = pair
            told = itertools.chain(left[first : first + one + 1], right[other + 1 : last])
            away = abs(_middle(left[first + one]) - middle)
            return sum(float(word["probability"]) for word in told) - away * _AWAY_COSTS

        one, other = max(chain, key=surety)
        return first + one + 1, other + 1
    if first == len(left) or last == 0:
        return len(left), 0
    return (
        sum(_middle(word) < middle for word in left),
        sum(_middle(word) < middle for word in right),
    )


def _common(
    left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]
) -> list[tuple[int, int]]:
    """The best chain of words that both heard in the same order, the nearer in time the better."""
    gains = [[_likeness(one, other) for other in right] for one in left]
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, j in itertools.product(reversed(range(len(left))), reversed(range(len(right)))):
        best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + gains[i][j])
    chain: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            chain.append((i, j))
            i, j = i + 1, j + 1
    return chain


def _likeness(one: dict[str, Any], other: dict[str, Any]) -> float:
    """1 for the same word at the same time, 0 for another word or a time too far."""
    if _bare(one["word"]) != _bare(other["word"]):
        return 0.0
    return max(0.0, 1.0 - abs(_middle(one) - _middle(other)) / _SAME_TIME_SECONDS)


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word


def _middle(word: dict[str, Any]) -> float:
    return float(word["start"] + word["end"]) / 2


def _time(
    left: Sequence[dict[str, Any]],
    right: Sequence[dict[str, Any]],
    kept: int,
    dropped: int,
    *,
    begin: float,
    end: float,
) -> float:
    """When one hearing ends and the other takes over."""
    before = left[kept - 1]["end"] if kept else begin
    after = right[dropped]["start"] if dropped < len(right) else end
    return float(before + after) / 2


def _within(
    fillers: Sequence[dict[str, Any]] | None, begin: float, end: float
) -> list[dict[str, Any]] | None:
    if fillers is None:
        return None
    return [filler for filler in fillers if begin <= _middle(filler) < end]


def _slice(segments: Sequence[dict[str, Any]], first: int, last: int) -> list[dict[str, Any]]:
    """The segments reduced to the words from `first` to before `last`, counted over all."""
    kept: list[dict[str, Any]] = []
    count = 0
    for segment in segments:
        words = segment["words"]
        begin, end = max(first - count, 0), min(last - count, len(words))
        count += len(words)
        if begin == 0 and end == len(words):
            kept.append(segment)
        elif begin < end:
            some = words[begin:end]
            kept.append(
                {
                    **segment,
                    "start": some[0]["start"],
                    "end": some[-1]["end"],
                    "text": _text(segment["text"], words, begin, end),
                    "words": some,
                }
            )
    return kept


def _text(text: str, words: Sequence[dict[str, Any]], first: int, last: int) -> str:
    """The part of a text that some of its words take; not every script puts spaces between."""
    places: list[tuple[int, int]] = []
    position = 0
    for word in words[:last]:
        at = text.find(word["word"], position)
        if at < 0:
            return " ".join(word["word"] for word in words[first:last])
        position = at + len(word["word"])
        places.append((at, position))
    return text[places[first][0] : places[last - 1][1]]
