"""Sounds that fill a pause, the one spelling each is counted under, and how many are found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_FILLER = re.compile(r"(u+[hm]+|u+h+m+|e+r+m*|a+h+|h+m+|m+h*m+)")
_NAMES = (
    (re.compile(r"u+h*m+"), "um"),
    (re.compile(r"u+h+"), "uh"),
    (re.compile(r"e+r+"), "er"),
    (re.compile(r"e+r+m+"), "erm"),
    (re.compile(r"a+h+"), "ah"),
    (re.compile(r"h+m+|m+h*m+"), "hmm"),
)


def filler_name(word: str) -> str | None:
    """The one spelling of a filler (`Umm,` is `um`); None for a word that means something."""
    bare = "".join(letter for letter in word.lower() if letter.isalpha())
    if not _FILLER.fullmatch(bare):
        return None
    return next((name for pattern, name in _NAMES if pattern.fullmatch(bare)), bare)


class FillerMethod(StrEnum):
    """How fillers were listened for."""

    TRANSCRIPT = "transcript"
    """Only what the transcript holds; Whisper leaves most fillers out."""
    VERBATIM_PASS = "verbatim-pass"
    """Also a second decoding, shown fillers, that is used for nothing else."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How many of so many spoken fillers were found, and how many made up where there were none."""

    found: int
    spoken: int
    invented: int

    @property
    def share(self) -> float:
        return round(self.found / self.spoken, 2)


RECALL = {
    ("tiny.en", FillerMethod.TRANSCRIPT): Recall(found=12, spoken=48, invented=0),
    ("tiny.en", FillerMethod.VERBATIM_PASS): Recall(found=45, spoken=48, invented=0),
}
"""By model and method, in English synthesised by eSpeak NG; `python -m tests.benchmarks.fillers`
measures it. Other models' recall is not known, and so not told.
"""
