"""The lint rules, one module each, found by being here: no list has to be kept."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from alerts.nearest import did_you_mean
from alerts.rule import Rule
from speakfit.errors import CatalogError


@lru_cache(maxsize=1)
def all_rules() -> tuple[Rule, ...]:
    """Every rule, by id."""
    found = [
        importlib.import_module(f"{__name__}.{module.name}").RULE
        for module in pkgutil.iter_modules(__path__)
    ]
    return tuple(sorted(found, key=lambda rule: rule.id))


def find_rule(rule_id: str, *, where: str) -> Rule:
    """A rule by id; a CatalogError proposes the nearest when there is none."""
    by_id = {rule.id: rule for rule in all_rules()}
    if rule_id in by_id:
        return by_id[rule_id]
    raise CatalogError(
        f"No rule is called {rule_id!r}.",
        where=where,
        todo=did_you_mean(
            rule_id, by_id, otherwise="`python -m alerts lint --list-rules` has them."
        ),
    )
