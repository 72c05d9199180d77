"""Compares what the boards want with what is live, and says what must change. Pure.

There is no state file. A dashboard is ours when its labels say so and its id is the one we gave
it: a copy that somebody made of one of ours has the labels, and is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alerts.difference import FieldChange, differences
from alerts.encode import ALERT_ID, CATALOG, MANAGED_BY, SPEC_HASH, spec_hash
from alerts.encode import MANAGER as POLICY_MANAGER
from alerts.plan import Action, Change, Kind, Plan, update_of
from dashboards.board import DASHBOARD_ID, MANAGER, Board, board_json
from dashboards.canonical import canonical_dashboard
from dashboards.links import resource_name, server_id
from dashboards.panel import POLICY_PREFIX
from dashboards.shape import Json
from speakfit.errors import CatalogError, RefusedError

NEWER = "newer fields"
"""Stands where a live dashboard has fields that the published messages lack."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the server has, in REST form, ours or not."""

    dashboards: tuple[Json, ...]
    policies: tuple[Json, ...]


def desired_state(
    boards: Iterable[Board], *, catalog: str, runbook_base_url: str
) -> dict[str, Json]:
    """Each board in REST form by id, with the hash of its content; policies go by their ids."""
    return {
        board.id: _hashed(board_json(board, catalog=catalog, runbook_base_url=runbook_base_url))
        for board in boards
    }


def _hashed(body: Json) -> Json:
    labels = {**body["labels"], SPEC_HASH: spec_hash(canonical_dashboard(body, {}))}
    return {**body, "labels": labels}


def policy_names(live: Live, catalog: str) -> dict[str, str]:
    """The server's name of each of our policies, by `policy:ID`."""
    return {
        POLICY_PREFIX + labels[ALERT_ID]: policy["name"]
        for policy in live.policies
        if (labels := policy.get("userLabels", {})).get(MANAGED_BY) == POLICY_MANAGER
        and labels.get(CATALOG) == catalog
        and ALERT_ID in labels
    }


def with_policy_names(body: Json, names: Mapping[str, str]) -> Json:
    """The body with the server's names of policies.

    A CatalogError names the policies that are not live: their charts would show nothing.
    """
    missing: list[str] = []

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [named(inner) for inner in value]
        if isinstance(value, str) and value.startswith(POLICY_PREFIX):
            if value not in names:
                missing.append(value.removeprefix(POLICY_PREFIX))
            return names.get(value, value)
        return value

    found: Json = named(body)
    if missing:
        absent = list(dict.fromkeys(missing))
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise CatalogError(
            f"Not live, so that their charts would be empty: {', '.join(absent[:3])}{more}.",
            where=f"policies on {body['displayName']!r}",
            todo="Apply the policies first: `python -m alerts apply`.",
        )
    return found


def make_plan(
    desired: Mapping[str, Json],
    live: Live,
    *,
    catalog: str,
    project: str,
    prune: bool = False,
) -> Plan:
    """The plan that makes `live` equal to `desired`; deletes only when pruning.

    Raises CatalogError when a policy that is shown is not live, and RefusedError when somebody
    else's dashboard has the id of one of ours.
    """
    names = policy_names(live, catalog)
    known = {name: identity for identity, name in names.items()}
    ours = {one["labels"][DASHBOARD_ID]: one for one in live.dashboards if is_ours(one, catalog)}
    _refuse_taken(desired, live, catalog)
    changes: list[Change] = []
    for identity, body in desired.items():
        name = resource_name(identity, project=project, catalog=catalog)
        sent = {**with_policy_names(body, names), "name": name}
        found = ours.get(identity)
        if found is None:
            changes.append(
                Change(action=Action.CREATE, kind=Kind.DASHBOARD, id=identity, body=sent)
            )
        else:
            changes.append(_compare(identity, body, sent, found, known))
    stale = tuple(
        Change(
            action=Action.DELETE,
            kind=Kind.DASHBOARD,
            id=identity,
            reason="live, but not in the catalog",
            name=found["name"],
            live=found,
            fingerprint=found.get("etag", ""),
        )
        for identity, found in ours.items()
        if identity not in desired
    )
    todo = tuple(change for change in changes if change.action is not Action.NONE)
    return Plan(
        changes=(*todo, *stale) if prune else todo,
        unchanged=tuple(change for change in changes if change.action is Action.NONE),
        stale=() if prune else stale,
        foreign=len(live.dashboards) - len(ours),
        channel_names=names,
    )


def is_ours(dashboard: Mapping[str, Any], catalog: str) -> bool:
    """Whether this catalog manages a live dashboard: by its labels and by the id we gave it."""
    labels = dashboard.get("labels", {})
    return bool(
        labels.get(MANAGED_BY) == MANAGER
        and labels.get(CATALOG) == catalog
        and dashboard["name"].rpartition("/")[2]
        == server_id(labels.get(DASHBOARD_ID, ""), catalog=catalog)
    )


def _refuse_taken(desired: Mapping[str, Json], live: Live, catalog: str) -> None:
    for one in live.dashboards:
        identity = one["name"].rpartition("/")[2].removeprefix(server_id("", catalog=catalog))
        named = one["name"].endswith(f"/{server_id(identity, catalog=catalog)}")
        if named and identity in desired and not is_ours(one, catalog):
            raise RefusedError(
                f"Somebody else's dashboard {one.get('displayName', '')!r} has the id of ours; "
                "nothing was changed.",
                where=one["name"],
                todo="Copy what is worth keeping and delete it, or give it back its labels "
                f"{MANAGED_BY}={MANAGER}, {CATALOG}={catalog} and {DASHBOARD_ID}={identity}.",
            )


def _compare(
    identity: str, body: Json, sent: Json, found: Json, known: Mapping[str, str]
) -> Change:
    before, after = canonical_dashboard(found, known), canonical_dashboard(body, {})
    newer = before.pop(NEWER, None)
    edited = spec_hash(before) != found["labels"].get(SPEC_HASH) or bool(newer)
    fields = tuple(_gathered(differences(before, after), before, after))
    if newer:
        fields = (*fields, FieldChange(parts=(NEWER,), live=newer, desired=None))
    return update_of(
        Kind.DASHBOARD,
        identity,
        found=found,
        body={**sent, "name": found["name"]},
        fields=fields,
        labels="labels",
        edited="edited in Cloud Monitoring" if edited else "",
        fingerprint=found.get("etag", ""),
    )


def _gathered(fields: Iterable[FieldChange], before: Json, after: Json) -> Iterator[FieldChange]:
    """A tile that is on one side only is one change, not one for each of its fields."""
    told: set[str] = set()
    for one in fields:
        title = one.parts[1] if len(one.parts) > 1 and one.parts[0] == "tiles" else None
        sides = [side["tiles"].get(title) for side in (before, after)]
        if not isinstance(title, str) or None not in sides:
            yield one
        elif title not in told:
            told.add(title)
            live, desired = (None if side is None else content_of(side) for side in sides)
            yield FieldChange(parts=("tiles", title), live=live, desired=desired)


def content_of(tile: Mapping[str, Any]) -> str:
    """What kind of widget a canonical tile holds."""
    place = ("xPos", "yPos", "width", "height", "id", "visibilityCondition")
    return next((key for key in tile if key not in place), "nothing")
