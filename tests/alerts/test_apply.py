"""Plan and apply against a real emulator over gRPC: what changes, and what never does."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from alerts.apply import apply_plan
from alerts.encode import KEY_DIGEST
from alerts.gateway import Gateway
from alerts.plan import Action, desired_state, make_plan
from alerts.policies import CATALOG
from alerts.policy import Catalog
from alerts.secret import key_digest
from speakfit.emulator.server import Emulator
from speakfit.errors import ApplyError, TargetError
from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    notification_channel_client,
)
from tests.alerts.conftest import BASE_URL, CREATES, KEYS, Run, apply, edit, live_policies, plan
from tests.alerts.unreliable import Proxy

WRITES = len(CATALOG.metrics) + len(CATALOG.channels) + len(CATALOG.policies)


def test_a_plan_after_an_apply_is_empty_and_a_second_apply_writes_nothing(
    gateway: Gateway, proxy: Proxy
) -> None:
    apply(gateway)
    assert len(proxy.writes) == WRITES
    assert plan(gateway).changes == ()
    apply(gateway)
    assert len(proxy.writes) == WRITES


def test_a_plan_reads_each_collection_once_however_many_policies_there_are(
    gateway: Gateway, proxy: Proxy
) -> None:
    apply(gateway)
    proxy.reads.clear()
    plan(gateway)
    assert sorted(proxy.reads) == [
        "ListAlertPolicies",
        "ListMetricDescriptors",
        "ListNotificationChannels",
    ]


def test_descriptors_come_before_channels_and_channels_before_policies(
    gateway: Gateway, proxy: Proxy
) -> None:
    apply(gateway)
    assert list(dict.fromkeys(proxy.writes)) == [
        "CreateMetricDescriptor",
        "CreateNotificationChannel",
        "CreateAlertPolicy",
    ]


def test_policies_of_others_are_never_touched(gateway: Gateway, target: Target) -> None:
    client = alert_policy_client(target)
    apply(gateway)
    ours = next(iter(client.list_alert_policies(name=target.project_name)))
    ours.name = ""
    for condition in ours.conditions:
        condition.name = ""
    for labels in ({}, {"managed-by": "terraform"}, {**ours.user_labels, "catalog": "other"}):
        ours.user_labels = labels
        client.create_alert_policy(name=target.project_name, alert_policy=ours)
    before = live_policies(target)
    assert plan(gateway, prune=True).changes == ()
    assert plan(gateway).foreign == 3
    apply(gateway, prune=True)
    assert live_policies(target) == before


def test_an_update_keeps_the_policy_and_its_conditions(gateway: Gateway, target: Target) -> None:
    apply(gateway)
    before = live_policies(target)
    client = alert_policy_client(target)
    for policy in client.list_alert_policies(name=target.project_name):
        policy.display_name = "edited"
        policy.conditions[0].condition_threshold.threshold_value = 7
        if "telemetry" not in policy.user_labels["alert-id"]:
            client.update_alert_policy(alert_policy=policy)
    changes = plan(gateway).changes
    assert len(changes) == len(CATALOG.policies) - 1
    assert all("edited in Cloud Monitoring" in change.reason for change in changes)
    apply(gateway)
    after = live_policies(target)
    for name, policy in before.items():
        for key in ("displayName", "conditions", "userLabels", "notificationChannels"):
            assert after[name][key] == policy[key]


def test_a_policy_that_left_the_catalog_is_kept_until_pruned(
    gateway: Gateway, target: Target
) -> None:
    apply(gateway)
    smaller = replace(CATALOG, policies=CATALOG.policies[1:])
    kept = plan(gateway, smaller)
    assert kept.changes == ()
    assert [change.id for change in kept.stale] == [CATALOG.policies[0].id]
    apply(gateway, smaller)
    assert len(live_policies(target)) == len(CATALOG.policies)
    apply(gateway, smaller, prune=True)
    assert len(live_policies(target)) == len(CATALOG.policies) - 1


def test_a_pruned_channel_goes_after_the_policies_that_used_it(
    gateway: Gateway, proxy: Proxy
) -> None:
    apply(gateway)
    critical = tuple(p for p in CATALOG.policies if p.severity == "critical")
    routes = tuple(route for route in CATALOG.routes if route.severity == "critical")
    apply(gateway, replace(CATALOG, policies=critical, routes=routes), prune=True)
    deletes = [method for method in proxy.writes if method.startswith("Delete")]
    assert deletes[-1] == "DeleteNotificationChannel"
    assert set(deletes[:-1]) == {"DeleteAlertPolicy"}


def test_a_copy_made_in_the_console_is_stale_and_the_original_stays(
    gateway: Gateway, target: Target
) -> None:
    apply(gateway)
    client = alert_policy_client(target)
    original = next(iter(client.list_alert_policies(name=target.project_name)))
    name, original.name = original.name, ""
    for condition in original.conditions:
        condition.name = ""
    copy = client.create_alert_policy(name=target.project_name, alert_policy=original)
    assert [change.name for change in plan(gateway).stale] in ([copy.name], [name])
    apply(gateway, prune=True)
    assert len(live_policies(target)) == len(CATALOG.policies)


def test_another_integration_key_is_seen_although_the_server_hides_it(
    gateway: Gateway, target: Target, emulator: Emulator
) -> None:
    apply(gateway)
    new = {**KEYS, "critical": "d" * 32}
    planned = plan(gateway, **new)
    assert [(change.id, change.reason) for change in planned.changes] == [
        ("critical", "another integration key")
    ]
    assert "d" * 32 not in repr(planned)
    apply_plan(gateway, planned, keys=new)
    assert plan(gateway, **new).changes == ()
    channels = notification_channel_client(target)
    found = channels.list_notification_channels(name=target.project_name)
    critical = next(channel for channel in found if channel.user_labels["channel"] == "critical")
    assert critical.user_labels[KEY_DIGEST] == key_digest("d" * 32)
    assert critical.labels["service_key"].endswith("dddd")


def test_without_the_keys_at_hand_existing_channels_stay_as_they_are(gateway: Gateway) -> None:
    apply(gateway)
    desired = desired_state(CATALOG, runbook_base_url=BASE_URL, digests={})
    assert make_plan(desired, gateway.read(CATALOG)).changes == ()


def test_a_conflict_is_tried_again(gateway: Gateway, proxy: Proxy, naps: list[float]) -> None:
    proxy.fail = {12: grpc.StatusCode.ABORTED, 13: grpc.StatusCode.ABORTED}
    apply(gateway)
    assert len(proxy.writes) == WRITES + 2
    assert naps == [0.5, 1.0]
    assert plan(gateway).changes == ()


def test_a_conflict_that_never_ends_stops_the_apply(gateway: Gateway, proxy: Proxy) -> None:
    proxy.fail = dict.fromkeys(range(1, 100), grpc.StatusCode.ABORTED)
    with pytest.raises(ApplyError, match=f"Stopped after 0 of {CREATES} changes"):
        apply(gateway)


def test_a_used_up_quota_stops_at_once_and_tells_what_is_left(
    gateway: Gateway, proxy: Proxy, quick_alerts: Run
) -> None:
    proxy.fail = {14: grpc.StatusCode.RESOURCE_EXHAUSTED}
    done = quick_alerts("apply", "--auto-approve", "--emulator", proxy.address)
    assert done.returncode == 4
    assert len(proxy.writes) == 14
    assert done.stdout.count("\ncreated ") == 13
    assert done.stdout.count("\nnot done: ") == CREATES - 13
    told = f"Stopped after 13 of {CREATES} changes: Cloud Monitoring's quota is used up."
    assert told in done.stderr
    apply(gateway)
    assert plan(gateway).changes == ()


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
    ],
)
def test_a_write_without_an_answer_may_have_happened_and_the_next_apply_mends_it(
    code: grpc.StatusCode, arrives: bool, gateway: Gateway, proxy: Proxy, target: Target
) -> None:
    smaller = replace(CATALOG, policies=CATALOG.policies[1:])

    def without_an_answer(at: int, catalog: Catalog, *, prune: bool = False) -> None:
        (proxy.lose if arrives else proxy.fail)[len(proxy.writes) + at] = code
        with pytest.raises(ApplyError, match="may or may not have happened") as raised:
            apply(gateway, catalog, prune=prune)
        assert (raised.value.done, raised.value.uncertain) == (at - 1, True)
        proxy.fail, proxy.lose = {}, {}

    without_an_answer(9, CATALOG)  # a channel
    without_an_answer(1, CATALOG)  # the other one, or a policy
    apply(gateway)
    edit(target, CATALOG.policies[3].id, lambda policy: setattr(policy, "enabled", False))
    without_an_answer(1, CATALOG)
    apply(gateway)
    without_an_answer(1, smaller, prune=True)
    apply(gateway, smaller, prune=True)
    assert plan(gateway, smaller, prune=True).changes == ()
    assert len(live_policies(target)) == len(smaller.policies)
    channels = notification_channel_client(target)
    assert len(list(channels.list_notification_channels(name=target.project_name))) == 2


def test_a_channel_without_its_key_is_refused_before_the_first_write(
    gateway: Gateway, proxy: Proxy
) -> None:
    with pytest.raises(ApplyError, match="Channel warning needs its secret"):
        apply_plan(gateway, plan(gateway), keys={"critical": KEYS["critical"]})
    assert proxy.writes == []


def test_refused_credentials_are_told_as_such(gateway: Gateway, proxy: Proxy) -> None:
    proxy.fail = {1: grpc.StatusCode.PERMISSION_DENIED}
    with pytest.raises(ApplyError, match="does not permit it"):
        apply(gateway)


def test_a_peer_that_is_no_cloud_monitoring_is_told_as_such(emulator: Emulator) -> None:
    http = emulator.http_url.removeprefix("http://")
    nobody = Target(kind=TargetKind.EMULATOR, project="p", host=http)
    with Gateway(nobody) as gateway, pytest.raises(TargetError, match="does not answer"):
        gateway.read(CATALOG)


def test_every_change_of_an_empty_project_is_a_create(gateway: Gateway) -> None:
    assert {change.action for change in plan(gateway).changes} == {Action.CREATE}
