"""What a plan costs, by figures that were worked out by hand from the list prices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alerts.catalog import load_catalog
from alerts.terminal import DEFAULT_CATALOG
from speakfit.errors import InfraError
from speakfit_ops.infra.cost import FREE, PRICED, Estimate, Part, estimate
from speakfit_ops.infra.estate import Size, kept, types_in_use
from speakfit_ops.infra.plan import Plan, read_plan
from speakfit_ops.infra.prices import PriceBook, read_prices
from speakfit_ops.infra.pricing import comparison, lowest
from tests.terraform.conftest import Applied

BOOK = read_prices()


def price(plan: Plan, size: Size, book: PriceBook = BOOK) -> Estimate:
    return estimate(plan, book, size, load_catalog(DEFAULT_CATALOG))


@pytest.fixture(scope="module")
def production(applied: Applied) -> Plan:
    done = applied.estate.plan(Size.PRODUCTION)
    assert done.code == 0, done.text
    return read_plan(applied.estate.shown(Size.PRODUCTION))


def monthly(estimate: Estimate, what: str) -> float:
    found = [line.monthly for line in estimate.lines if line.what.startswith(what)]
    assert found, f"{what} is not among {[line.what for line in estimate.lines]}"
    return round(sum(found), 2)


def test_production_by_hand(production: Plan) -> None:
    found = price(production, Size.PRODUCTION)
    # 2 x 730 h x 3600 s of one vCPU and one GiB.
    assert monthly(found, "Cloud Run, 2 instance(s) always") == 105.12
    # (4 x 0.0413 + 16 x 0.0070) x 730 h, twice for the standby.
    assert monthly(found, "primary with standby, db-custom-4-16384") == 404.71
    assert monthly(found, "Redis standard, 4 GB") == 186.88
    # Two of (0.19 + 0.35) x 730 h, 30 % less for running the whole month.
    compute = monthly(found, "n1-standard-4") + monthly(found, "nvidia-tesla-t4")
    assert round(compute, 2) == 551.88
    assert monthly(found, "forwarding rules") == 18.25
    catalog = load_catalog(DEFAULT_CATALOG)
    conditions = sum(len(policy.conditions) for policy in catalog.policies)
    words = f"{len(catalog.policies)} alert policies, conditions"
    assert monthly(found, words) == conditions * 1.5


def test_scale_by_hand_and_from_the_very_plan_that_was_applied(applied: Applied) -> None:
    found = price(read_plan(applied.plan), Size.SCALE)
    assert monthly(found, "Redis standard, 5 GB") == 197.1
    assert monthly(found, "replica, db-custom-4-16384") == 202.36
    assert monthly(found, "replica, SSD") == 42.5
    assert monthly(found, "from the CDN") == 160.0
    # The plan kept for review costs the same, so that prices need no Terraform.
    assert price(kept(Size.SCALE), Size.SCALE) == found


def test_it_never_pretends_to_meet_a_figure(production: Plan) -> None:
    found = price(production, Size.PRODUCTION)
    assert found.total == pytest.approx(sum(found.of(part) for part in Part))
    text = "\n".join(comparison([found]))
    assert found.total > 1300
    assert lowest(found) > 800
    assert f"the founding document says $800, still ${lowest(found) - 800:,.0f} above it" in text
    assert "not counted" in text


def test_development_pays_for_hours_not_for_a_month(applied: Applied) -> None:
    done = applied.estate.plan(Size.DEVELOPMENT)
    assert done.code == 0, done.text
    plan = read_plan(applied.estate.shown(Size.DEVELOPMENT))
    found = price(plan, Size.DEVELOPMENT)
    # 22 days of 9 hours at 0.058 + 0.112, and the disk meanwhile.
    assert found.of(Part.WORKER) == pytest.approx(198 * 0.17 + 50 * 0.10 * 198 / 730)
    assert not any("forwarding" in line.what for line in found.lines)


def test_a_type_nobody_priced_and_a_row_that_is_missing_are_errors(production: Plan) -> None:
    first = production.resources[0]
    strange = Plan(resources=(replace(first, type="google_bigtable_instance"),))
    with pytest.raises(InfraError, match="Nobody has said what google_bigtable_instance costs"):
        price(strange, Size.PRODUCTION)
    prices = {name: row for name, row in BOOK.prices.items() if name != "sql-ssd-gb"}
    with pytest.raises(InfraError, match="There is no price for sql-ssd-gb"):
        price(production, Size.PRODUCTION, replace(BOOK, prices=prices))


def test_a_damaged_table_is_told_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("region: us-central1\n", encoding="utf-8")
    with pytest.raises(InfraError) as error:
        read_prices(file)
    assert str(file) in str(error.value)


def test_every_type_in_use_is_priced_or_free_and_every_price_has_source_and_date() -> None:
    resources, _ = types_in_use()
    assert resources - FREE - set(PRICED) == set()
    assert set(PRICED) & FREE == set()
    for row in BOOK.prices.values():
        assert row.source
        assert len(row.date) == 7 and row.date[:2] == "20", row  # noqa: PT018
