"""`adopt`: a policy that somebody made elsewhere becomes one of the catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from alerts.terminal import (
    DEFAULT_CATALOG,
    EXIT_REFUSED,
    AutoApproveOption,
    CatalogOption,
    EmulatorOption,
    JsonOption,
    ProjectOption,
    approved,
    print_json,
    tell,
)
from speakfit.errors import RefusedError

if TYPE_CHECKING:
    from alerts.encode import Json
    from alerts.plan import Change, Live
    from alerts.session import Session


def adopt(
    name: Annotated[
        str,
        typer.Argument(metavar="ID", help="The live policy's number, full name or display name."),
    ],
    policy_id: Annotated[
        str, typer.Option("--as", metavar="SUBJECT-SEVERITY", help="Its id in the catalog.")
    ],
    catalog: CatalogOption = DEFAULT_CATALOG,
    emulator: EmulatorOption = None,
    project: ProjectOption = None,
    auto_approve: AutoApproveOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a live policy ours without making it anew.

    Only its labels change: it keeps its name, its conditions and its open incidents. What an
    apply would change afterwards is shown first. When the catalog does not have the policy yet,
    nothing is changed and the Python to add is printed.
    """
    from alerts.adopt import adoption, afterwards, named_policy
    from alerts.apply import apply_plan
    from alerts.catalog import load_catalog
    from alerts.plan import Plan
    from alerts.session import open_session

    loaded = load_catalog(catalog)
    # The Python goes to stdout, to be kept; everything else is talk.
    with open_session(loaded, emulator, project, as_json=True) as session:
        live = session.read()
        policy = named_policy(name, live.policies, where=str(session.target))
        change = adoption(policy, live, desired=session.desired, policy_id=policy_id)
        if change is None:
            if as_json:
                _print_adopted(session, policy, policy_id, after=None, adopted=False)
            else:
                tell(session.out, f"Nothing to do: {policy['name']} is {policy_id} already.")
            return
        if policy_id not in session.desired.policies:
            _tell_python(session, policy, policy_id, as_json=as_json)
            raise RefusedError(
                f"The catalog has no policy {policy_id} yet; nothing was changed.",
                where=f"--catalog {catalog}",
                todo="Add the Python above to the catalog's policies, then adopt again. A live "
                "policy with our labels and without code would be pruned.",
            )
        after = afterwards(change, live, session.desired)
        if not as_json:
            _tell_adoption(session, change, after, live)
        if not auto_approve and not approved(as_json):
            raise typer.Exit(EXIT_REFUSED)
        apply_plan(session.gateway, Plan(changes=(change,)), keys={})
        if as_json:
            _print_adopted(session, policy, policy_id, after=after)
        else:
            tell(session.out, f"Adopted {policy['name']} as {policy_id}.")


def _tell_adoption(session: Session, change: Change, after: Change | None, live: Live) -> None:
    from alerts.adopt import lost_conditions
    from alerts.report import glossary, tell_change

    out, policy = session.out, change.live
    tell(
        out, f"  ~ adopt {policy['name']}: {policy.get('displayName', '')!r}", ("~ adopt", "yellow")
    )
    for label, value in change.body["userLabels"].items():
        if policy.get("userLabels", {}).get(label) != value:
            line = f"+ userLabels.{label}: {json.dumps(value)}"
            tell(out, f"      {line}", (line, "green"))
    if after is None:
        tell(out, "It is as the catalog wants then: an apply changes nothing more.")
        return
    tell(out, "An apply will then change:")
    names = session.plan(live, prune=False).channel_names
    tell_change(out, after, glossary(session.catalog, live), channels=names)
    lost = lost_conditions(change, session.desired)
    if lost:
        keys = ", ".join(json.dumps(name, ensure_ascii=False) for name in lost)
        tell(out, f"To keep open incidents, let a condition's key in the catalog be {keys}.")


def _print_adopted(
    session: Session, policy: Json, policy_id: str, *, after: Change | None, adopted: bool = True
) -> None:
    from alerts.report import change_json

    print_json(
        {
            "target": str(session.target),
            "name": policy["name"],
            "id": policy_id,
            "adopted": adopted,
            "next": None if after is None else change_json(after),
        }
    )


def _tell_python(session: Session, policy: Json, policy_id: str, *, as_json: bool) -> None:
    from alerts.adopt import python_of
    from alerts.decode import described_metric, metric_types

    found = session.gateway.descriptors(metric_types(policy))
    metrics = {one["type"]: described_metric(one) for one in found}
    text = python_of(policy, policy_id=policy_id, metric_of=metrics.get)
    if as_json:
        print_json({"target": str(session.target), "name": policy["name"], "python": text})
    else:
        print(text, end="")
