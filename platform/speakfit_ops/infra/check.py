"""Everything that can be known about the estate without a cloud, as a list of checks.

With Terraform: its own `fmt`, `init`, `validate`, `plan` and `test`, against Google's schema and
our overlay. Without: a reading of the files against the same schema, which follows no reference and
evaluates nothing; the result says which of the two it was.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from speakfit_ops.infra.estate import PLANS, ROOT, Estate, Size, estate
from speakfit_ops.infra.invariants import broken
from speakfit_ops.infra.plan import Action, inventory, read_plan
from speakfit_ops.infra.reading import read_estate
from speakfit_ops.infra.terraform import Done, Terraform


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where: `FILE:LINE` or an address."""

    what: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one step found; `seconds` of real time."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float
    told: str = ""
    """What a passing check has to tell."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def checks(
    terraform: Terraform | None,
    sizes: Sequence[Size],
    *,
    source: Path = ROOT,
    var_file: Path | None = None,
    tests: bool = True,
    write_plans: bool = False,
) -> Iterator[Check]:
    """Run them one by one; what cannot work without an earlier one is not tried after it failed."""
    if terraform is None:
        yield _timed("read", lambda: read_estate(source))
        return
    with estate(terraform, source, var_file) as copy:
        yield _timed("fmt", lambda: (_formatting(copy), ""))
        for name, act in (("init", copy.init), ("validate", lambda: _validated(copy))):
            done = _timed(name, partial(_told, act))
            yield done
            if not done.passed:
                return
        if var_file:
            # Each size below stands in place of the one that the file names, if it names any.
            yield _timed("values", partial(_told, partial(copy.plan, sizes[0], as_named=True)))
        for size in sizes:
            golden = None if var_file else source / PLANS / f"{size}.yaml"
            yield _timed(f"plan {size}", partial(_planned, copy, size, golden, write=write_plans))
        if tests and any((copy.folder / "tests").glob("*.tftest.hcl")):
            yield _timed("test", lambda: _tested(copy))


def resize(
    terraform: Terraform, before: Size, after: Size, *, source: Path = ROOT
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """What growing from one size to another does to an estate that stands: made up, then planned.

    Answers with findings when it cannot be planned, else with one row a changed resource.
    """
    with estate(terraform, source) as copy:
        for done in (
            copy.init(),
            copy.run("apply", "-auto-approve", "-json", *copy.var_files(before)),
        ):
            if done.code != 0:
                return list(diagnostics(done)), []
        environment = _environment_of(copy, before)
        done = copy.plan(after, f"-var=environment={environment}", "-var=deletion_protection=false")
        if done.code != 0:
            return list(diagnostics(done)), []
        plan = read_plan(copy.shown(after))
        return [], [
            {
                "action": str(resource.action),
                "address": resource.address,
                "because": list(resource.forcing or resource.changed),
            }
            for action in (Action.DELETE, Action.REPLACE, Action.UPDATE, Action.CREATE)
            for resource in plan.doing(action)
        ]


def _environment_of(copy: Estate, size: Size) -> str:
    text = (copy.folder / "envs" / f"{size}.tfvars").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("environment"))
    return line.split('"')[1]


def diagnostics(done: Done) -> tuple[Finding, ...]:
    """What Terraform complained of, from its JSON: one document, or one event a line.

    It only warns of a value whose variable does not exist; that is an error here, for the name is
    misspelt and the value that was meant is another.
    """
    entries = []
    for event in _events(done):
        entries += event.get("diagnostics", ())
        if event.get("type") == "diagnostic":
            entries.append(event["diagnostic"])
    found = tuple(
        Finding(what=_unknown(entry) or _said(entry), where=_place(entry))
        for entry in entries
        if entry["severity"] == "error" or _unknown(entry)
    )
    if done.code == 0:
        return found
    return found or (Finding(what=done.text.strip()[-2000:] or "Terraform failed silently."),)


def _said(entry: dict[str, Any]) -> str:
    return ": ".join(text for text in (entry["summary"], entry.get("detail", "")) if text)


def _unknown(entry: dict[str, Any]) -> str:
    """That a value has no variable, without Terraform's advice on how to silence it."""
    if "undeclared variable" not in entry["summary"]:
        return ""
    named = re.search(r'variable named "([^"]+)"', entry.get("detail", ""))
    return f"No variable is called {named[1] if named else 'so'}: variables.tf has them all."


def _events(done: Done) -> Iterator[dict[str, Any]]:
    try:
        yield json.loads(done.out)
        return
    except ValueError:
        pass
    for line in done.out.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _place(entry: dict[str, Any]) -> str:
    place, address = entry.get("range"), entry.get("address", "")
    if not place:
        return str(address)
    # Somebody's own values lie beside the copied estate.
    file = place["filename"].removeprefix("../own/")
    return f"{file}:{place['start']['line']}" + (f" ({address})" if address else "")


def _timed(name: str, act: Callable[[], tuple[Sequence[Finding], str]]) -> Check:
    began = time.monotonic()
    findings, told = act()
    return Check(name=name, findings=tuple(findings), seconds=time.monotonic() - began, told=told)


def _formatting(copy: Estate) -> tuple[Finding, ...]:
    done = copy.run("fmt", "-check", "-recursive", "-no-color")
    if done.code == 0:
        return ()
    files = [line for line in done.out.splitlines() if line.endswith((".tf", ".tfvars", ".hcl"))]
    if not files:
        return diagnostics(done)
    return tuple(
        Finding(what="Not in Terraform's format: run `terraform fmt -recursive`.", where=file)
        for file in files
    )


def _validated(copy: Estate) -> Done:
    return copy.run("validate", "-json")


def _told(act: Callable[[], Done]) -> tuple[Sequence[Finding], str]:
    return diagnostics(act()), ""


def _planned(
    copy: Estate, size: Size, golden: Path | None, *, write: bool
) -> tuple[Sequence[Finding], str]:
    done = copy.plan(size)
    if findings := diagnostics(done):
        return findings, ""
    document = copy.shown(size)
    plan = read_plan(document)
    told = f"{len(plan.doing(Action.CREATE))} resources"
    unsafe = [Finding(what=what, where=address) for address, what in broken(plan)]
    if unsafe:
        return unsafe, told
    if golden is None:
        return (), told
    text = golden_text(document, size)
    if write:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
        return (), f"{told}, written to {golden.parent.name}/{golden.name}"
    kept = golden.read_text(encoding="utf-8") if golden.exists() else ""
    if kept == text:
        return (), f"{told}, as in {golden.parent.name}/{golden.name}"
    lines = list(
        difflib.unified_diff(kept.splitlines(), text.splitlines(), "kept", "now", n=2, lineterm="")
    )
    return [
        Finding(
            what="The plan is not the one in review; read the difference, then keep it with "
            "--write-plans:\n" + "\n".join(lines[:60]),
            where=f"{golden.parent.name}/{golden.name}",
        )
    ], told


def golden_text(document: dict[str, Any], size: Size) -> str:
    """The plan of a size as the file that is read in review."""
    import yaml

    head = (
        f"# What `terraform plan` would make for the size {size}, with tests/sample.tfvars.\n"
        "# Written by `python -m speakfit_ops.infra check --write-plans`; read it in review.\n"
    )
    return head + yaml.safe_dump(
        inventory(document), sort_keys=False, allow_unicode=True, width=100
    )


def _tested(copy: Estate) -> tuple[Sequence[Finding], str]:
    done = copy.run("test", "-json")
    runs = sum(
        event["type"] == "test_run" and event["test_run"].get("progress") == "complete"
        for event in _events(done)
        if "type" in event
    )
    return diagnostics(done), f"{runs} runs"
