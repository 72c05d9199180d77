"""A threshold, a ratio or a text in another unit than the metric's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from alerts.candidate import Candidate, ConditionText, Limit
from alerts.promql import Operation
from alerts.reach import is_part, is_part_of_query, without_guard
from alerts.rule import Hit, Level, Rule, Surroundings

_PERCENT_OF_SHARE = "10^2.%"
"""How Google's metrics write a share: 0.8 is shown as 80 %."""


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """A unit as a multiple of its dimension's first one."""

    dimension: str
    scale: float


def _scales(dimension: str, **scales: float) -> dict[str, _Unit]:
    return {name: _Unit(dimension=dimension, scale=scale) for name, scale in scales.items()}


_SHARE = _Unit(dimension="share", scale=1)
_UCUM = {
    **_scales("time", ns=1e-9, us=1e-6, ms=1e-3, s=1, min=60, h=3600, d=86400),
    **_scales("size", By=1, kBy=1e3, MBy=1e6, GBy=1e9, TBy=1e12),
    **_scales("size", KiBy=2**10, MiBy=2**20, GiBy=2**30, TiBy=2**40),
    "1": _SHARE,
    _PERCENT_OF_SHARE: _SHARE,
    "%": _Unit(dimension="share", scale=0.01),
}
_WRITTEN = {
    **_scales("time", ns=1e-9, us=1e-6, µs=1e-6, ms=1e-3, msec=1e-3, millisecond=1e-3),
    **_scales(
        "time", s=1, sec=1, second=1, min=60, minute=60, h=3600, hour=3600, d=86400, day=86400
    ),
    **_scales("size", B=1, byte=1, kB=1e3, KB=1e3, MB=1e6, GB=1e9, TB=1e12),
    **_scales("size", KiB=2**10, MiB=2**20, GiB=2**30, TiB=2**40),
    "%": _UCUM["%"],
    "percent": _UCUM["%"],
}
_BEYOND = (
    r"(?i:\babove|\bbelow|\bexceed(?:s|ed|ing)?|\b(?:greater|more|less|higher|lower|longer) than)"
)
_MENTION = re.compile(
    rf"(?:{_BEYOND}|[<>]=?|[≤≥])\s*(?P<number>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>%|[A-Za-zµ]+\b)?"
)
_ALIKE = 1e-9


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Says something only where the unit is certain: declared, or that of a share."""
    for condition in candidate.conditions:
        yield from _sides(candidate, condition)
        unit = _unit(candidate, condition)
        limit = condition.limit
        if unit is None or limit is None:
            continue
        name, measured = unit
        if name == _PERCENT_OF_SHARE and limit.value > 1.5:
            yield Hit(
                path=limit.path,
                text=f"{condition.label} compares a share, where 1 is all, with {limit.value:g}: "
                "that is meant in percent.",
            )
        texts = [condition.name]
        if len(candidate.conditions) == 1:
            texts += [candidate.display_name, candidate.content]
        wrong = _contradiction(texts, limit, measured)
        if wrong:
            yield Hit(
                path=limit.path,
                text=f"{condition.label} is compared with {limit.value:g}{_shown(name)}, but its "
                f"text says {wrong!r}.",
            )


def _shown(unit: str) -> str:
    return " as a share of 1" if _UCUM[unit] == _SHARE else f" {unit}"


def _unit(candidate: Candidate, condition: ConditionText) -> tuple[str, _Unit] | None:
    """The unit of what is compared with the limit, when it is certain."""
    query = condition.query
    if isinstance(query, Operation) and isinstance(query.left, Operation):
        inner = query.left
        share = inner.operator == "/" and is_part_of_query(inner.left, without_guard(inner.right))
        return ("1", _SHARE) if share else None
    above, below = condition.selection, condition.denominator
    if above is None:
        return None
    if below is not None:
        return ("1", _SHARE) if is_part(above, below) else None
    operations = {name for step in above.steps for name in (step.aligner, step.reducer)}
    if any("FRACTION_TRUE" in name for name in operations):
        return "1", _SHARE
    if any("COUNT" in n or n in ("ALIGN_RATE", "ALIGN_PERCENT_CHANGE") for n in operations):
        return None
    units = {facts.unit for facts in candidate.facts(above)}
    if len(units) != 1:
        return None
    name = units.pop()
    # Many metrics without a unit say 1: only one that ends at 1 is certain to be a share.
    if name == "1" and any(facts.highest > 1 for facts in candidate.facts(above)):
        return None
    return (name, _UCUM[name]) if name in _UCUM else None


def _sides(candidate: Candidate, condition: ConditionText) -> Iterator[Hit]:
    above, below = condition.selection, condition.denominator
    if above is None or below is None:
        return
    for one in candidate.facts(above):
        for other in candidate.facts(below):
            units = _UCUM.get(one.unit), _UCUM.get(other.unit)
            first, second = units
            if (
                first is not None
                and second is not None
                and first.dimension == second.dimension
                and first.scale != second.scale
            ):
                yield Hit(
                    path=below.path,
                    text=f"{condition.label} divides {one.unit} by {other.unit}: the ratio is "
                    f"{second.scale / first.scale:g} times what it seems.",
                )


def _contradiction(texts: list[str], limit: Limit, measured: _Unit) -> str:
    """The words of a text that name the threshold in another unit; empty when none does."""
    wrong = ""
    for found in (match for text in texts for match in _MENTION.finditer(text)):
        number = float(found["number"].replace(",", ""))
        word = found["unit"] or ""
        unit = _WRITTEN.get(word) or _WRITTEN.get(word.removesuffix("s"))
        if unit is None:
            # A bare number speaks in the metric's own unit.
            if math.isclose(number, limit.value, rel_tol=_ALIKE):
                return ""
            continue
        if unit.dimension != measured.dimension:
            continue
        said, meant = number * unit.scale, limit.value * measured.scale
        if math.isclose(said, meant, rel_tol=_ALIKE):
            return ""
        if math.isclose(number, limit.value, rel_tol=_ALIKE) or _by_a_unit(said, meant):
            wrong = wrong or found[0].strip()
    return wrong


def _by_a_unit(said: float, meant: float) -> bool:
    """Whether two amounts differ by just what confusing two units makes of them."""
    if not said or not meant:
        return False
    factor = max(said / meant, meant / said)
    return any(math.isclose(factor, one, rel_tol=_ALIKE) for one in (100, 1e3, 1024, 1e6, 2**20))


RULE = Rule(
    id="unit-mismatch",
    level=Level.ERROR,
    finds="a threshold, a ratio or a text in another unit than the metric's",
    why="Off by a thousand, the alert never fires or always does.",
    remedy="Write the threshold in the metric's unit, and let the text say the same.",
    check=check,
)
