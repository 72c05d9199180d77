"""A condition that is called high and looks for low values, or the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alerts.candidate import Candidate, ConditionText
from alerts.rule import Hit, Level, Rule, Surroundings

_HIGH = re.compile(r"\b(high|higher|long|longer|large|too many|excessive|above|exceed\w*)\b", re.I)
_LOW = re.compile(r"\b(low|lower|short|small|too few|below)\b", re.I)
_TURNED = re.compile(r"free|avail|remain|left|headroom|idle|spare|unused|capacity|health", re.I)
"""What there is little of when there is much of the other."""


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Speaks up only when all the words point one way and the comparison the other."""
    for condition in candidate.conditions:
        limit = condition.limit
        if limit is None:
            continue
        text = (
            f"{condition.name} {candidate.display_name if len(candidate.conditions) == 1 else ''}"
        )
        high, low = _HIGH.search(text), _LOW.search(text)
        if _TURNED.search(f"{text} {_source(condition)}"):
            continue
        if limit.above and low and not high:
            yield _hit(condition, limit.path, low[0], "above")
        if not limit.above and high and not low:
            yield _hit(condition, limit.path, high[0], "below")


def _source(condition: ConditionText) -> str:
    return f"{condition.body.get('filter', '')} {condition.body.get('query', '')}"


def _hit(condition: ConditionText, path: tuple[str | int, ...], word: str, side: str) -> Hit:
    limit = condition.limit
    shown = f"{limit.value:g}" if limit else ""
    return Hit(
        path=path,
        text=f"The name says {word.lower()!r}, but {condition.label[0].lower()}"
        f"{condition.label[1:]} holds {side} {shown}.",
    )


RULE = Rule(
    id="name-contradicts-comparison",
    level=Level.WARNING,
    finds="a name that says the opposite of the comparison",
    why="One of the two was copied and not turned round, and the page will mislead.",
    remedy="Turn the comparison round, or the name.",
    check=check,
)
