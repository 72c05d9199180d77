"""JUnit XML, which every CI reads: one suite a group, one case a scenario or mutant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from speakfit.errors import ScenarioError


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of a JUnit report."""

    group: str
    name: str
    file: str = ""
    line: int = 0
    seconds: float = 0.0
    failure: str = ""
    """Why it failed; empty when it passed."""


def write_junit(path: Path, cases: Iterable[Case]) -> None:
    """Write a report; a ScenarioError when the file cannot be written."""
    root = ElementTree.Element("testsuites", name="alerts")
    for group, members in groupby(cases, key=lambda case: case.group):
        those = list(members)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=group,
            tests=str(len(those)),
            failures=str(sum(bool(case.failure) for case in those)),
            errors="0",
            skipped="0",
            time=f"{sum(case.seconds for case in those):.3f}",
        )
        for case in those:
            suite.append(_element(case))
    ElementTree.indent(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise ScenarioError(
            f"The report cannot be written: {error.strerror}.",
            where=str(path),
            todo="Name another file with --junit.",
        ) from error


def _element(case: Case) -> ElementTree.Element:
    element = ElementTree.Element(
        "testcase", classname=case.group, name=case.name, time=f"{case.seconds:.3f}"
    )
    if case.file:
        element.set("file", case.file)
        element.set("line", str(case.line))
    if case.failure:
        failure = ElementTree.SubElement(
            element, "failure", message=case.failure.partition("\n")[0]
        )
        failure.text = case.failure
    return element
