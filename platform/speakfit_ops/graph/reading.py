"""Reads what the graph is made of from this checkout."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from alerts.policies import CATALOG
from alerts.scenario import read_scenarios, scenario_paths
from dashboards.catalog import BOARDS
from speakfit import metrics
from speakfit.errors import CatalogError
from speakfit_ops.graph.closed import Sources

ROOT = Path(__file__).resolve().parents[3]

_LINK = re.compile(r"\]\((?:\.\./|\./)?(?:runbooks/)?([a-z0-9-]+)\.md(?:#[^)]*)?\)")
_DOOR = re.compile(r"\brunbooks/([a-z0-9-]+)\.md\b")
_CODE = ("services", "platform/speakfit")
"""What writes metrics; everything above only reads them."""


def read_sources(root: Path = ROOT) -> Sources:
    """Everything that the graph is made of.

    Raises ScenarioError, LoadError or CatalogError for a file that cannot be read.
    """
    return Sources(
        catalog=CATALOG,
        metrics={metric.type: metric.name for metric in metrics.METRICS},
        exported=_exported(root),
        boards=BOARDS,
        scenarios=_scenarios(root / "tests" / "scenarios"),
        loads=_loads(),
        runbooks={
            page.stem: frozenset(_LINK.findall(page.read_text(encoding="utf-8"))) - {page.stem}
            for page in sorted((root / "runbooks").glob("*.md"))
        },
        doors={
            page.relative_to(root).as_posix(): frozenset(found)
            for page in (root / "README.md", *sorted((root / "docs").glob("*.md")))
            if (found := _DOOR.findall(page.read_text(encoding="utf-8")))
        },
        drills=_drills(root / "docs" / "drills.json"),
    )


def _exported(root: Path) -> frozenset[str]:
    """Metrics whose record some code uses by its name: a declaration alone writes nothing."""
    records = {
        name: value.type
        for name, value in vars(metrics).items()
        if isinstance(value, metrics.Metric)
    }
    declared = Path(metrics.__file__)
    used: set[str] = set()
    for folder in _CODE:
        for file in sorted((root / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if file == declared or metrics.__name__ not in text:
                continue
            tree = ast.parse(text)
            used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return frozenset(found for name, found in records.items() if name in used)


def _scenarios(folder: Path) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for path in scenario_paths(folder):
        pages = {page.policy for one in read_scenarios(path).scenarios for page in one.pages}
        found[path.stem] = frozenset(pages)
    return found


def _loads() -> dict[str, frozenset[str]]:
    """The policies that the contracts of loads name; none where there are no contracts yet."""
    if importlib.util.find_spec("loadtest.contract") is None:
        return {}
    contracts = importlib.import_module("loadtest.contract").CONTRACTS
    return {
        f"load {name}": frozenset(policy.id for policy in contract.policies)
        for name, contract in contracts.items()
    }


def _drills(file: Path) -> frozenset[str] | None:
    try:
        entries: Any = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(entry["policy"] for entry in entries)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CatalogError(
            "The record of drills is damaged.",
            where=str(file),
            todo="Take it from the last commit, or run `python -m loadtest drill --all`.",
        ) from error
