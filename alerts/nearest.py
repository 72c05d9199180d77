"""Proposes the word that somebody meant when there is none like the one they wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, words: Iterable[str], *, otherwise: str, alike: float = 0.5) -> str:
    """`Did you mean A or B?`, or else another instruction; `alike` is 1 for the same word."""
    near = difflib.get_close_matches(word, list(words), n=3, cutoff=alike)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise
