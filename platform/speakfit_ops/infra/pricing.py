"""Estimates in words: for a terminal, for a document, for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from speakfit_ops.infra.cost import Estimate, Part
from speakfit_ops.infra.prices import PriceBook

_NAMES = {
    Part.API: "API",
    Part.DATABASE: "PostgreSQL",
    Part.REDIS: "Redis",
    Part.WORKER: "GPU workers",
    Part.STORAGE_AND_NETWORK: "storage and network",
    Part.OBSERVABILITY: "logs, metrics, alerts",
}


def rows(estimate: Estimate) -> list[tuple[str, float, tuple[float, float] | None]]:
    """Part, dollars a month, and the founding document's least and most; the total is last."""
    found = [(_NAMES[part], estimate.of(part), estimate.founding.get(part)) for part in Part]
    return [*found, ("total", estimate.total, estimate.founding["total"])]


def hoped(figure: tuple[float, float] | None) -> str:
    """`$60-90`, `$50`, or that nothing was said."""
    if figure is None:
        return "not counted"
    least, most = figure
    return f"${least:,.0f}" if least == most else f"${least:,.0f}-{most:,.0f}"


def gap(monthly: float, figure: tuple[float, float] | None) -> str:
    """How far a price is from the nearest end of a figure."""
    least, most = figure or (0.0, 0.0)
    away = monthly - most if monthly > most else monthly - least if monthly < least else 0.0
    return f"{away:+,.0f}" if round(away) else "0"


def comparison(estimates: Sequence[Estimate]) -> Iterator[str]:
    """Each part beside the founding document's figure, and what would come nearer."""
    for estimate in estimates:
        yield f"{estimate.size}, US dollars a month at list price"
        yield f"  {'':<24}{'now':>9}  {'founding':>11}  {'gap':>7}"
        for name, monthly, figure in rows(estimate):
            yield (
                f"  {name:<24}{f'${monthly:,.0f}':>9}  {hoped(figure):>11}"
                f"  {gap(monthly, figure):>7}"
            )
        yield from _nearer(estimate)
        yield ""


def _nearer(estimate: Estimate) -> Iterator[str]:
    if not estimate.alternatives:
        return
    yield "  nearer to the founding figures:"
    for alternative in estimate.alternatives:
        yield f"    -${alternative.saves:,.0f}  {alternative.words}"
    best = lowest(estimate)
    founding = estimate.founding["total"][1]
    verdict = "which meets it" if best <= founding else f"still ${best - founding:,.0f} above it"
    yield (
        f"    with the best of each part: ${best:,.0f}; the founding document says "
        f"${founding:,.0f}, {verdict}"
    )


def lowest(estimate: Estimate) -> float:
    """The total with the alternative that saves most taken in each part."""
    saved = {
        part: max((one.saves for one in estimate.alternatives if one.part is part), default=0.0)
        for part in Part
    }
    return estimate.total - sum(saved.values())


def details(estimates: Sequence[Estimate], book: PriceBook) -> Iterator[str]:
    """Every line with its price, and how sure the prices are."""
    for estimate in estimates:
        yield f"{estimate.size}, US dollars a month at list price in {book.region}"
        for part in Part:
            if not estimate.of(part):
                continue
            yield f"  {_NAMES[part]:<58}{f'${estimate.of(part):,.2f}':>12}"
            for line in estimate.lines:
                if line.part is part:
                    price = book.price(line.price)
                    mark = "?" if price.recalled else " "
                    yield (
                        f"    {line.what:<56}{f'{line.monthly:,.2f}':>12}{mark}"
                        f" {line.quantity:,.0f} x {price.price:g} / {price.unit}"
                    )
        yield f"  {'total':<58}{f'${estimate.total:,.2f}':>12}"
        yield ""
    oldest = min(price.date for price in book.prices.values())
    newest = max(price.date for price in book.prices.values())
    yield (
        "Counted are the least instances and workers; what is added under load costs more. "
        f"Prices are of {oldest} to {newest}; ? marks those without a dated source. Sources and "
        f"assumptions: terraform/prices/{book.region}.yaml"
    )


def document(estimates: Sequence[Estimate], book: PriceBook) -> list[dict[str, Any]]:
    """The same for machines."""
    return [
        {
            "size": estimate.size,
            "currency": "USD",
            "total": round(estimate.total, 2),
            "parts": [
                {
                    "part": part,
                    "monthly": round(estimate.of(part), 2),
                    "founding": estimate.founding.get(part),
                }
                for part in Part
            ],
            "lines": [
                {
                    "part": line.part,
                    "what": line.what,
                    "quantity": round(line.quantity, 3),
                    "price": line.price,
                    "date": book.price(line.price).date,
                    "recalled": book.price(line.price).recalled,
                    "monthly": round(line.monthly, 2),
                }
                for line in estimate.lines
            ],
            "alternatives": [
                {"part": one.part, "words": one.words, "saves": round(one.saves, 2)}
                for one in estimate.alternatives
            ],
        }
        for estimate in estimates
    ]
