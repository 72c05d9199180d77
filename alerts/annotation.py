"""A lint report as workflow commands of GitHub Actions, which show it beside the lines changed."""

from __future__ import annotations

from alerts.lint import Report
from alerts.rule import Finding, Level

_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def workflow_commands(report: Report) -> list[str]:
    """One command a finding, the worst first: GitHub shows ten of a kind and no more."""
    return [_annotation(one) for one in sorted(report.findings, key=lambda one: one.level.rank)]


def _annotation(finding: Finding) -> str:
    properties = {"file": finding.file}
    if finding.position is not None:
        properties["line"] = str(finding.position.line)
        properties["col"] = str(finding.position.column)
    properties["title"] = f"{finding.rule} ({finding.subject})"
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    message = _message(f"{finding.text}\nTo do: {finding.remedy}")
    return f"::{_COMMANDS[finding.level]} {listed}::{message}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
