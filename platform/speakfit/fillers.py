"""Sounds that fill a pause, and the one spelling that each is counted under."""

from __future__ import annotations

import re

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
