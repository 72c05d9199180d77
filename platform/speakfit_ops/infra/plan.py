"""A Terraform plan, read from its JSON: what it would do, and what each resource would be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from speakfit_ops.infra.schema import Block, google_schema

LATER = "(known after apply)"
HIDDEN = "(sensitive)"
_LONG = 400


class Action(StrEnum):
    """What happens to a resource."""

    NOTHING = "nothing"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    READ = "read"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One resource of a plan; `values` are those after it."""

    address: str
    type: str
    action: Action
    values: Mapping[str, Any]
    changed: tuple[str, ...] = ()
    """Arguments that differ, of an update or a replacement."""
    forcing: tuple[str, ...] = ()
    """Arguments whose change makes a new resource."""

    @property
    def module(self) -> str:
        """Name of the module it is in, empty for the root: `module.api[0].X.this` is in api."""
        parts = self.address.split(".")
        return parts[1].split("[")[0] if parts[0] == "module" else ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All resources of a plan, by address."""

    resources: tuple[Planned, ...]

    def of(self, resource_type: str) -> list[Planned]:
        """The resources of one type that there will be."""
        return [
            resource
            for resource in self.resources
            if resource.type == resource_type and resource.action is not Action.DELETE
        ]

    def doing(self, action: Action) -> list[Planned]:
        """The resources that something happens to."""
        return [resource for resource in self.resources if resource.action is action]


def read_plan(document: Mapping[str, Any]) -> Plan:
    """From `terraform show -json`."""
    resources = []
    for entry in document.get("resource_changes", ()):
        if entry["mode"] != "managed":
            continue
        change = entry["change"]
        before, after = change.get("before") or {}, change.get("after") or {}
        action = _action(change["actions"])
        unknown = change.get("after_unknown") or {}
        resources.append(
            Planned(
                address=entry["address"],
                type=entry["type"],
                action=action,
                values=after or before,
                changed=tuple(
                    sorted(
                        key
                        for key in {*before, *after}
                        if before.get(key) != after.get(key) and not _later(unknown.get(key))
                    )
                )
                if action in (Action.UPDATE, Action.REPLACE)
                else (),
                forcing=tuple(
                    ".".join(str(step) for step in path if isinstance(step, str))
                    for path in change.get("replace_paths", ())
                ),
            )
        )
    return Plan(resources=tuple(sorted(resources, key=lambda resource: resource.address)))


def _action(actions: list[str]) -> Action:
    if sorted(actions) == ["create", "delete"]:
        return Action.REPLACE
    return Action.NOTHING if actions == ["no-op"] else Action(actions[0])


def _later(mark: Any) -> bool:
    """Whether Terraform's mark says that something in a value is not known yet."""
    if isinstance(mark, dict):
        return any(_later(item) for item in mark.values())
    if isinstance(mark, list):
        return any(_later(item) for item in mark)
    return mark is True


def inventory(document: Mapping[str, Any]) -> dict[str, Any]:
    """Each resource as the configuration has it, for people to read: no nulls, nothing made up.

    What is only known later shows where it was written, not where Google alone decides.
    """
    found = {}
    schema = google_schema().resources
    for entry in document.get("resource_changes", ()):
        change = entry["change"]
        if entry["mode"] != "managed" or change["after"] is None:
            continue
        found[entry["address"]] = _shown(
            schema[entry["type"]],
            change["after"],
            change.get("after_unknown") or {},
            change.get("after_sensitive") or {},
        )
    outputs = document.get("planned_values", {}).get("outputs", {})
    return {
        "outputs": {
            name: HIDDEN if output["sensitive"] else output.get("value", LATER)
            for name, output in sorted(outputs.items())
        },
        "resources": dict(sorted(found.items())),
    }


def kept_plan(document: Mapping[str, Any]) -> Plan:
    """The plan that an inventory was written from, as far as it was known before apply."""
    return Plan(
        resources=tuple(
            Planned(
                address=address,
                type=re.findall(r"(?:^|\.)(google_\w+)\.", address)[-1],
                action=Action.CREATE,
                values=values,
            )
            for address, values in document["resources"].items()
        )
    )


def _shown(block: Block, value: Any, unknown: Any, sensitive: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, attribute in sorted(block.attributes.items()):
        if _mark(sensitive, name) is True or attribute.sensitive:
            if value.get(name) is not None:
                shown[name] = HIDDEN
        elif attribute.computed and not attribute.optional:
            continue
        elif _later(_mark(unknown, name)) and not attribute.computed:
            shown[name] = LATER
        elif value.get(name) not in (None, [], {}, ""):
            shown[name] = _short(value[name])
    for name, nested in sorted(block.blocks.items()):
        below = value.get(name)
        if nested.mode == "single":
            if below:
                shown[name] = _shown(nested.block, below, _mark(unknown, name) or {}, {})
            continue
        items = [
            _shown(nested.block, item, _item(unknown, name, at), _item(sensitive, name, at))
            for at, item in enumerate(below or ())
        ]
        if items:
            shown[name] = items
    return shown


def _mark(marks: Any, name: str) -> Any:
    return marks.get(name) if isinstance(marks, dict) else marks


def _item(marks: Any, name: str, at: int) -> Any:
    below = _mark(marks, name)
    if isinstance(below, list):
        return below[at] if at < len(below) else {}
    return below if below is True else {}


def _short(value: Any) -> Any:
    """A long text by its length and digest: it is read where it is written."""
    if isinstance(value, str) and len(value) > _LONG:
        digest = hashlib.sha256(value.encode()).hexdigest()[:12]
        return f"({value.count(chr(10))} lines, sha256 {digest})"
    if isinstance(value, dict):
        return {key: _short(item) for key, item in sorted(value.items())}
    return value
