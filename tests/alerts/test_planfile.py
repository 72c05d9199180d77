"""A kept plan: what is applied is what was read, and a world that has moved is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from alerts.apply import apply_plan
from alerts.gateway import Gateway
from alerts.plan import make_plan
from alerts.planfile import (
    SavedPlan,
    read_plan,
    remaining,
    snapshot,
    with_digests,
    write_plan,
)
from alerts.policies import CATALOG
from alerts.policy import Catalog
from alerts.secret import key_digest
from speakfit.errors import ApplyError, RefusedError
from speakfit.target import Target, alert_policy_client, metric_client, notification_channel_client
from tests.alerts.conftest import CREATES, KEYS, apply, desired, edit, live_policies, plan
from tests.alerts.test_canonical import leaves
from tests.alerts.unreliable import Proxy

DIGESTS = {channel: key_digest(key) for channel, key in KEYS.items()}
WANTED = replace(CATALOG, policies=CATALOG.policies[2:])
"""The next version of the catalog: two policies less."""


def kept(gateway: Gateway, file: Path, catalog: Catalog = CATALOG, **keys: str) -> SavedPlan:
    """Plan with pruning, keep the plan and read it again."""
    live = gateway.read(catalog)
    made = snapshot(
        plan(gateway, catalog, prune=True, **keys),
        desired(catalog, **keys),
        live,
        gateway.target,
        prune=True,
    )
    write_plan(file, made)
    assert read_plan(file) == made
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "the.plan"


@pytest.fixture
def saved(gateway: Gateway, target: Target, file: Path) -> SavedPlan:
    """One update, two deletes, and much that is unchanged."""
    apply(gateway)
    edit(target, "worker-down-critical", lambda policy: setattr(policy, "display_name", "edited"))
    made = kept(gateway, file, WANTED)
    assert [str(change.action) for change in made.plan.changes] == ["update", "delete", "delete"]
    return made


def test_a_kept_plan_does_what_it_says_and_only_once(
    gateway: Gateway, target: Target, saved: SavedPlan, proxy: Proxy
) -> None:
    apply_plan(gateway, remaining(saved, gateway.read(WANTED)), keys=KEYS)
    assert plan(gateway, WANTED, prune=True).changes == ()
    before = len(proxy.writes)
    assert remaining(saved, gateway.read(WANTED)).changes == ()
    assert len(proxy.writes) == before


def test_a_kept_plan_that_is_cut_off_at_every_write_goes_on_where_it_stopped(
    gateway: Gateway, proxy: Proxy, file: Path
) -> None:
    saved = kept(gateway, file)
    for done in range(CREATES):
        left = remaining(saved, gateway.read(CATALOG))
        assert len(left.changes) == CREATES - done
        # This run's second write is refused.
        proxy.fail = {len(proxy.writes) + 2: grpc.StatusCode.RESOURCE_EXHAUSTED}
        with contextlib.suppress(ApplyError):
            apply_plan(gateway, left, keys=KEYS)
    assert remaining(saved, gateway.read(CATALOG)).changes == ()
    assert plan(gateway, prune=True).changes == ()


def _copy(target: Target, alert_id: str) -> None:
    client = alert_policy_client(target)
    found = client.list_alert_policies(name=target.project_name)
    policy = next(one for one in found if one.user_labels["alert-id"] == alert_id)
    policy.name = ""
    for condition in policy.conditions:
        condition.name = ""
    client.create_alert_policy(name=target.project_name, alert_policy=policy)


def _delete(target: Target, alert_id: str) -> None:
    name = next(
        name
        for name, policy in live_policies(target).items()
        if policy["userLabels"]["alert-id"] == alert_id
    )
    alert_policy_client(target).delete_alert_policy(name=name)


def _disable(target: Target, alert_id: str) -> None:
    edit(target, alert_id, lambda policy: setattr(policy, "enabled", False))


def _rename_channel(target: Target, channel: str) -> None:
    client = notification_channel_client(target)
    found = client.list_notification_channels(name=target.project_name)
    one = next(one for one in found if one.user_labels["channel"] == channel)
    one.display_name = "renamed"
    client.update_notification_channel(notification_channel=one)


MOVES: dict[str, tuple[Callable[[Target, str], None], str, str]] = {
    "what is updated was edited": (_disable, "worker-down-critical", "edited by"),
    "what is updated is gone": (_delete, "worker-down-critical", "deleted"),
    "what is deleted was edited": (_disable, "api-latency-warning", "edited by"),
    "what is unchanged was edited": (_disable, "queue-depth-warning", "edited by"),
    "what is unchanged is gone": (_delete, "queue-depth-warning", "deleted"),
    "a copy appeared": (_copy, "queue-depth-warning", "created"),
    "a channel was edited": (_rename_channel, "critical", "edited"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_world_that_has_moved_is_refused(
    move: str, gateway: Gateway, target: Target, saved: SavedPlan
) -> None:
    act, identity, word = MOVES[move]
    act(target, identity)
    with pytest.raises(RefusedError, match=f"{identity}.* was {word}|was {word}") as refused:
        remaining(saved, gateway.read(WANTED))
    assert refused.value.exit_code == 5


def test_what_others_do_meanwhile_is_no_reason_to_refuse(
    gateway: Gateway, target: Target, saved: SavedPlan
) -> None:
    client = alert_policy_client(target)
    policy = next(iter(client.list_alert_policies(name=target.project_name)))
    policy.name, policy.user_labels = "", {"catalog": "theirs"}
    for condition in policy.conditions:
        condition.name = ""
    client.create_alert_policy(name=target.project_name, alert_policy=policy)
    assert len(remaining(saved, gateway.read(WANTED)).changes) == 3


def test_a_metric_that_a_service_wrote_meanwhile_is_no_reason_to_refuse(
    gateway: Gateway, target: Target, file: Path
) -> None:
    saved = kept(gateway, file)
    metric_client(target).create_metric_descriptor(
        name=target.project_name,
        metric_descriptor={
            "type": CATALOG.metrics[0].type,
            "metric_kind": CATALOG.metrics[0].kind,
            "value_type": CATALOG.metrics[0].value_type,
        },
    )
    apply_plan(gateway, remaining(saved, gateway.read(CATALOG)), keys=KEYS)
    assert plan(gateway).changes == ()


def test_any_edit_of_the_file_is_seen(saved: SavedPlan, file: Path) -> None:
    body = json.loads(file.read_text(encoding="utf-8"))
    for path in leaves(body):
        changed = deepcopy(body)
        inside: Any = changed
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = ["something else"]
        file.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(RefusedError):
            read_plan(file)


def test_no_key_is_in_the_file(gateway: Gateway, file: Path) -> None:
    kept(gateway, file)
    creates = file.read_text(encoding="utf-8")
    apply(gateway)
    kept(gateway, file, critical="d" * 32, warning=KEYS["warning"])
    for text in (creates, file.read_text(encoding="utf-8")):
        assert "key-digest" in text
        for key in (*KEYS.values(), "d" * 32):
            # The server shows the last four characters; not even these are passed on.
            assert key[:4] not in text.replace("****", "")


def test_a_key_may_come_after_the_plan_but_not_another_one(
    gateway: Gateway, target: Target, file: Path
) -> None:
    live = gateway.read(CATALOG)
    blind = desired(CATALOG, nobody="x" * 32)
    saved = snapshot(make_plan(blind, live), blind, live, target, prune=False)
    apply_plan(gateway, with_digests(remaining(saved, live), DIGESTS), keys=KEYS)
    assert plan(gateway).changes == ()
    assert remaining(saved, gateway.read(CATALOG)).changes == ()
    rekeyed = kept(gateway, file, critical="d" * 32, warning=KEYS["warning"])
    with pytest.raises(RefusedError, match="another secret"):
        with_digests(rekeyed.plan, DIGESTS)
