"""The table of rules names only tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from speakfit.engine.rules import RULES, Rule

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("rule", RULES, ids=[rule.text[:40] for rule in RULES])
def test_the_test_of_a_rule_exists(rule: Rule) -> None:
    path, _, name = rule.test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_rule_is_said_once_and_has_a_source() -> None:
    assert len({rule.text for rule in RULES}) == len(RULES)
    assert all(rule.citation for rule in RULES)
