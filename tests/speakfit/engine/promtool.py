"""promtool as an oracle: writes its rule tests, runs it, and reads what Prometheus answered."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROMTOOL = shutil.which("promtool")
"""From Debian's package `prometheus`; None where it is not installed."""
_ASKED = re.compile(r'expr: "(?P<expr>.*)", time: (?P<time>[0-9dhms]+),$')
_ANSWER = re.compile(r"(?P<labels>[a-z_]*(?:\{[^}]*\})?) (?P<value>[-+.0-9A-Za-z]+)(?:, |$)")
_UNITS = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}
Labels = frozenset[tuple[str, str]]
Answer = dict[Labels, float]


@dataclass(frozen=True, kw_only=True)
class AlertRule:
    """One alerting rule of Prometheus."""

    name: str
    expr: str
    minutes: int


def write_tests(
    folder: Path,
    *,
    series: Mapping[str, str],
    rules: Sequence[AlertRule] = (),
    asked: Sequence[tuple[str, int]] = (),
) -> Path:
    """Write series (name with labels to values a minute), rules, and queries with their minute."""
    (folder / "rules.yml").write_text(
        "groups:\n- name: all\n  interval: 1m\n  rules:"
        + ("" if rules else " []")
        + "".join(
            f"\n  - alert: {rule.name}\n    expr: {rule.expr}\n    for: {rule.minutes}m"
            for rule in rules
        )
        + "\n"
    )
    text = [
        "rule_files: [rules.yml]",
        "evaluation_interval: 1m",
        "tests:",
        "- interval: 1m",
        "  input_series:",
    ]
    text += [f"  - series: '{name}'\n    values: '{values}'" for name, values in series.items()]
    if asked:
        text.append("  promql_expr_test:")
    # Nothing is expected, so that promtool prints all it has.
    text += [f"  - expr: '{expr}'\n    eval_time: {minute}m" for expr, minute in asked]
    file = folder / "tests.yml"
    file.write_text("\n".join(text) + "\n")
    return file


def run_tests(file: Path) -> str:
    """What promtool prints about a file of tests; an AssertionError when it cannot read it."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    assert "FAILED" in output or "SUCCESS" in output, output
    assert "parse error" not in output, output
    return output


def answers(output: str) -> dict[tuple[str, int], Answer]:
    """What every query that found anything found, by query and minute."""
    found: dict[tuple[str, int], Answer] = {}
    name = ("", 0)
    for line in output.splitlines():
        if asked := _ASKED.search(line):
            name = (asked["expr"].replace('\\"', '"'), _minutes(asked["time"]))
        elif "got: " in line and "got: nil" not in line:
            found[name] = {
                frozenset(re.findall(r'(\w+)="([^"]*)"', answer["labels"])): float(answer["value"])
                for answer in _ANSWER.finditer(line.split("got: ", 1)[1])
            }
    return found


def _minutes(text: str) -> int:
    return round(sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([dhms])", text)))


def ask(
    folder: Path,
    *,
    series: Mapping[str, str],
    exprs: Sequence[str],
    minutes: Sequence[int],
    rules: Sequence[AlertRule] = (),
) -> dict[tuple[str, int], Answer]:
    """Ask every query at every minute."""
    asked = [(expr, minute) for expr in exprs for minute in minutes]
    return answers(run_tests(write_tests(folder, series=series, rules=rules, asked=asked)))
