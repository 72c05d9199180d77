"""Nobody is named who answers for the policy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.rule import Hit, Level, Rule, Surroundings

_LABEL = re.compile(r"(.*[_-])?(owner|owners|owned[_-]by|team|squad|contact)([_-].*)?")
_TEXT = re.compile(r"\b(owners?|team|squad|contact|on-?call)\W{0,4}:\W{0,4}\w|\bowned by \w", re.I)


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """A user label such as `owner` or `team`, or `Owner: NAME` in the documentation, counts."""
    if any(_LABEL.fullmatch(key) and value for key, value in candidate.labels.items()):
        return
    if not _TEXT.search(candidate.content):
        yield Hit(path=("userLabels",), text="No user label and no line of text names an owner.")


RULE = Rule(
    id="missing-owner",
    level=Level.WARNING,
    finds="a policy that nobody owns",
    why="An alert without an owner is neither tuned nor deleted, and everybody learns to ignore "
    "it.",
    remedy="Name the team that answers: owner= in a catalog, a user label `owner` in a file.",
    check=check,
)
