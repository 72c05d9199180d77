"""The tables of rules name only tests and cases that exist."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest

from speakfit.emulator.rules import EMULATOR_RULES
from speakfit.engine.rules import RULES, Rule
from tests.conformance.case import CASES

ROOT = Path(__file__).parents[2]
TABLE = (*RULES, *EMULATOR_RULES)


@lru_cache
def _tests(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("rule", TABLE, ids=[rule.text[:40] for rule in TABLE])
def test_the_test_of_a_rule_exists(rule: Rule) -> None:
    path, _, name = rule.test.partition("::")
    if path.endswith(".yaml"):
        assert rule.test in {case.node for case in CASES}
    else:
        assert name in _tests(ROOT / path)


def test_every_rule_is_said_once_and_has_a_source() -> None:
    assert len({rule.text for rule in TABLE}) == len(TABLE)
    assert all(rule.citation for rule in TABLE)
