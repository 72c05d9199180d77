"""The dated price table and its assumptions, read from terraform/prices/REGION.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speakfit.errors import InfraError

DEFAULT = Path(__file__).resolve().parents[3] / "terraform" / "prices" / "us-central1.yaml"


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars a unit; `recalled` when no dated source was at hand."""

    id: str
    price: float
    unit: str
    source: str
    date: str
    recalled: bool = False


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a month is assumed to hold, in millions, GB and GiB."""

    requests_million: float
    egress_gb: float
    ingress_gb: float
    cdn_gb: float
    audio_gb: float
    images_gb: float
    log_gib: float


@dataclass(frozen=True, kw_only=True)
class PriceBook:
    """All prices of a region, and what they are multiplied with."""

    region: str
    hours: float
    prices: Mapping[str, Price]
    free: Mapping[str, float]
    sustained_use_discount: float
    usage: Mapping[str, Usage]
    telemetry: Mapping[str, float]
    working_days: float
    founding: Mapping[str, Mapping[str, tuple[float, float]]]
    """By size and part: the founding document's least and most."""

    def price(self, name: str) -> Price:
        """One row; an InfraError when the table has none."""
        try:
            return self.prices[name]
        except KeyError:
            raise InfraError(
                f"There is no price for {name}.",
                where=f"terraform/prices/{self.region}.yaml",
                todo="Add a row with its source and date.",
            ) from None


def read_prices(file: Path = DEFAULT) -> PriceBook:
    """The table of a file; an InfraError says what it lacks."""
    import yaml

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _book(raw)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InfraError(
            f"The price table cannot be used: {error}",
            where=str(file),
            todo="Compare it with terraform/prices/us-central1.yaml.",
        ) from error


def _book(raw: Mapping[str, Any]) -> PriceBook:
    return PriceBook(
        region=raw["region"],
        hours=float(raw["hours_per_month"]),
        prices={
            name: Price(
                id=name,
                price=float(row["price"]),
                unit=row["unit"],
                source=row["source"],
                date=str(row["date"]),
                recalled=row.get("recalled", False),
            )
            for name, row in raw["prices"].items()
        },
        free=raw["free"],
        sustained_use_discount=float(raw["sustained_use_discount"]),
        usage={size: Usage(**row) for size, row in raw["usage"].items()},
        telemetry=raw["telemetry"],
        working_days=float(raw["working_days_per_month"]),
        founding={
            size: {part: (float(least), float(most)) for part, (least, most) in parts.items()}
            for size, parts in raw["founding"].items()
        },
    )
