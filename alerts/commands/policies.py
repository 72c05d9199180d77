"""`list` and `show`: the policies of a catalog, in words and compiled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alerts.terminal import (
    DEFAULT_CATALOG,
    DEFAULT_SCENARIOS,
    CatalogOption,
    JsonOption,
    PolicyArgument,
    ScenariosOption,
    console,
    count,
    print_json,
    tell,
)

if TYPE_CHECKING:
    from rich.table import Table

    from alerts.policy import Catalog, Policy


def list_command(catalog: CatalogOption = DEFAULT_CATALOG, as_json: JsonOption = False) -> None:
    """List every policy in words.

    Reads the catalog only; no server is asked.
    """
    from alerts.catalog import load_catalog

    loaded = load_catalog(catalog)
    if as_json:
        print_json({"catalog": loaded.name, "policies": [_summary(p) for p in loaded.policies]})
        return
    out = console()
    tell(out, f"Catalog {loaded.name} ({catalog}): {count(len(loaded.policies), 'policy')}")
    if out.is_terminal:
        out.print(_policy_table(loaded), soft_wrap=False)
        return
    # One line a policy, however long: a pipe is read by grep.
    width = max((len(policy.id) for policy in loaded.policies), default=0)
    for policy in loaded.policies:
        tell(out, f"  {policy.id:<{width}}  {_summary(policy)['fires_when']}")


def show(
    policy_id: PolicyArgument,
    scenarios: ScenariosOption = DEFAULT_SCENARIOS,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Show one policy, in words and compiled.

    Says what it is proven by and where its runbook is; the last part is what Cloud Monitoring
    gets. Reads the catalog and the scenario files only; no server is asked.
    """
    from alerts.catalog import find_policy, load_catalog
    from alerts.encode import policy_json, runbook_url
    from alerts.wording import closing_words
    from speakfit.settings import read_settings

    loaded = load_catalog(catalog)
    policy = find_policy(loaded, policy_id)
    base = read_settings().runbook_base_url
    compiled = policy_json(policy, loaded, runbook_base_url=base)
    summary = _summary(policy)
    proofs = _proofs(policy, scenarios)
    if as_json:
        print_json({**summary, "scenarios": proofs, "policy": compiled})
        return
    out = console()
    tell(out, f"Policy {policy.id} of catalog {loaded.name} ({catalog})", (policy.id, "bold"))
    rows = [
        ("title", policy.title),
        ("severity", str(policy.severity)),
        ("owner", policy.owner),
        ("fires when", summary["fires_when"]),
        ("closed by", closing_words(policy)),
        ("notifies", ", ".join(c.display_name for c in loaded.channels_of(policy))),
        ("proven by", _proof_words(proofs)),
        ("runbook", runbook_url(policy, runbook_base_url=base)),
    ]
    for name, value in rows:
        tell(out, f"  {name:<10}  {value}", (f"  {name:<10}", "dim"))
    tell(out, "")
    tell(out, json.dumps(compiled, indent=2, ensure_ascii=False))


def _proofs(policy: Policy, folder: Path) -> dict[str, int]:
    """How many scenarios of each file expect a page of this policy."""
    from alerts.scenario import read_scenarios, scenario_paths

    found: dict[str, int] = {}
    for path in scenario_paths(folder) if folder.is_dir() else ():
        expecting = [
            one
            for one in read_scenarios(path).scenarios
            if any(page.policy == policy.id for page in one.pages)
        ]
        if expecting:
            found[str(path)] = len(expecting)
    return found


def _proof_words(proofs: Mapping[str, int]) -> str:
    if not proofs:
        return "no scenario expects its page"
    return ", ".join(f"{count(number, 'scenario')} of {path}" for path, number in proofs.items())


def explain(
    policy_id: PolicyArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Say in English what opens and what closes a policy's incidents.

    Reads the catalog only; no server is asked.
    """
    from alerts.catalog import find_policy, load_catalog
    from alerts.wording import explain as explain_policy

    policy = find_policy(load_catalog(catalog), policy_id)
    words = explain_policy(policy)
    if as_json:
        print_json({"id": policy.id, "explanation": words})
        return
    out = console()
    tell(out, f"{policy.id}: {words}", (policy.id, "bold"))


def policy_rows(catalog: str = DEFAULT_CATALOG) -> list[tuple[str, str, str]]:
    """Id, severity and condition in words of every policy, for generated documents."""
    from alerts.catalog import load_catalog

    return [
        (f"`{policy.id}`", str(policy.severity), str(_summary(policy)["fires_when"]))
        for policy in load_catalog(catalog).policies
    ]


def _policy_table(catalog: Catalog) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("policy", "fires when", box=box.SIMPLE_HEAD, pad_edge=False)
    for policy in catalog.policies:
        colour = "red" if policy.severity == "critical" else "yellow"
        joint = "\nand " if policy.needs_all else "\nor "
        words = Text(joint).join(Text(line) for line in _summary(policy)["conditions"])
        table.add_row(Text(policy.id, style=colour, no_wrap=True), words)
    return table


def _summary(policy: Policy) -> dict[str, Any]:
    from alerts.wording import condition_words, policy_words

    return {
        "id": policy.id,
        "subject": policy.subject,
        "severity": str(policy.severity),
        "title": policy.title,
        "owner": policy.owner,
        "fires_when": policy_words(policy),
        "conditions": [condition_words(condition) for condition in policy.conditions],
        "runbook": policy.runbook,
    }
