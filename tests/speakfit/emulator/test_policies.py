"""AlertPolicyService and NotificationChannelService through the real clients."""

from datetime import timedelta
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, InvalidArgument, NotFound
from google.cloud import monitoring_v3
from google.protobuf import field_mask_pb2

from tests.speakfit.emulator.bench import KEY, METRIC, PROJECT, Bench, condition

AlertPolicy = monitoring_v3.AlertPolicy


def _mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def test_a_new_policy_gets_names_records_and_is_enabled(bench: Bench) -> None:
    bench.write(bench.series(1))
    made = bench.create()
    assert made.name.removeprefix(f"{PROJECT}/alertPolicies/").isdigit()
    assert made.conditions[0].name.removeprefix(f"{made.name}/conditions/").isdigit()
    assert made.enabled is True
    assert made.creation_record.mutate_time.isoformat() == "2026-01-05T12:00:00+00:00"
    assert bench.policies.get_alert_policy(name=made.name) == made


def test_a_policy_on_a_metric_nobody_has_written_is_a_404(bench: Bench) -> None:
    with pytest.raises(NotFound, match="Cannot find metric"):
        bench.create()


def test_the_engine_refuses_in_googles_words_and_nothing_is_stored(bench: Bench) -> None:
    bench.write(bench.series(1))
    with pytest.raises(InvalidArgument, match="only multiples of 1 minute are supported"):
        bench.create(conditions=[condition(duration={"seconds": 30})])
    with pytest.raises(NotFound, match="notification channel doesn't exist"):
        bench.create(notification_channels=[f"{PROJECT}/notificationChannels/1"])
    assert list(bench.policies.list_alert_policies(name=PROJECT)) == []


def test_conditions_keep_names_that_are_sent_and_lose_those_that_are_not(bench: Bench) -> None:
    bench.write(bench.series(1))
    made = bench.create(conditions=[condition("first"), condition("second")])
    first, second = made.conditions
    made.conditions = [first, AlertPolicy.Condition(condition("third"))]
    updated = bench.policies.update_alert_policy(alert_policy=made)
    assert [one.display_name for one in updated.conditions] == ["first", "third"]
    assert updated.conditions[0].name == first.name
    assert updated.conditions[1].name not in (first.name, second.name)
    made.conditions = [second]
    with pytest.raises(InvalidArgument, match="has no condition of this name"):
        bench.policies.update_alert_policy(alert_policy=made)


@pytest.mark.parametrize("path", ["user_labels.team", "userLabels.team", "user_label.team"])
def test_a_mask_changes_one_label_and_nothing_else(bench: Bench, path: str) -> None:
    bench.write(bench.series(1))
    made = bench.create(user_labels={"team": "old", "kept": "yes"})
    change = AlertPolicy(
        name=made.name, display_name="not in the mask", user_labels={"team": "new"}
    )
    updated = bench.policies.update_alert_policy(alert_policy=change, update_mask=_mask(path))
    assert dict(updated.user_labels) == {"team": "new", "kept": "yes"}
    assert updated.display_name == made.display_name
    assert updated.conditions == made.conditions


def test_masks_reach_into_documentation_and_switch_a_policy_off(bench: Bench) -> None:
    bench.write(bench.series(1))
    made = bench.create()
    change = AlertPolicy(
        name=made.name, enabled=False, documentation={"content": "New text.", "subject": "no"}
    )
    updated = bench.policies.update_alert_policy(
        alert_policy=change, update_mask=_mask("documentation.content", "enabled")
    )
    assert updated.documentation.content == "New text."
    assert updated.documentation.subject == "Queue is deep"
    assert updated.enabled is False
    with pytest.raises(InvalidArgument, match="names no field"):
        bench.policies.update_alert_policy(alert_policy=change, update_mask=_mask("nonsense"))


def test_without_a_mask_everything_is_replaced_but_the_name_and_its_creation(
    bench: Bench,
) -> None:
    bench.write(bench.series(1))
    made = bench.create()
    change = AlertPolicy(
        name=made.name, display_name="Bare", combiner="OR", conditions=[condition()]
    )
    updated = bench.policies.update_alert_policy(alert_policy=change)
    assert updated.display_name == "Bare"
    assert dict(updated.user_labels) == {}
    assert updated.enabled is True
    assert updated.creation_record == made.creation_record


def test_lists_filter_order_and_page(bench: Bench) -> None:
    bench.write(bench.series(1))
    for number in range(5):
        bench.create(
            display_name=f"Policy {number}",
            user_labels={"managed-by": "us" if number % 2 else "them"},
        )

    def names(**request: object) -> list[str]:
        found = bench.policies.list_alert_policies(request={"name": PROJECT, **request})
        return [one.display_name for one in found]

    assert names(filter='user_labels.managed-by="us"') == ["Policy 1", "Policy 3"]
    assert names(filter='user_labels."managed-by"="us" AND display_name="Policy 3"') == ["Policy 3"]
    assert names(filter='NOT display_name=starts_with("Policy") OR display_name="Policy 0"') == [
        "Policy 0"
    ]
    assert names(order_by="-display_name", page_size=2) == [f"Policy {n}" for n in (4, 3, 2, 1, 0)]
    with pytest.raises(InvalidArgument, match="Could not parse filter"):
        names(filter="display_name = = x")
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        names(filter="(" * 2_000 + 'display_name="x"' + ")" * 2_000)
    first = bench.policies.list_alert_policies(request={"name": PROJECT, "page_size": 2})
    token = first.next_page_token
    assert first.total_size == 5
    with pytest.raises(InvalidArgument, match="token was not made by this listing"):
        names(page_token=token, filter='display_name="Policy 1"')


def test_a_deleted_policy_is_gone(bench: Bench) -> None:
    bench.write(bench.series(1))
    made = bench.create()
    bench.policies.delete_alert_policy(name=made.name)
    with pytest.raises(NotFound):
        bench.policies.get_alert_policy(name=made.name)
    with pytest.raises(NotFound):
        bench.policies.delete_alert_policy(name=made.name)


def test_a_stored_key_is_never_shown_and_survives_being_written_back(bench: Bench) -> None:
    made = bench.pagerduty_channel()
    assert made.labels["service_key"] == "************cccc"
    made.display_name = "Renamed"
    bench.channels.update_notification_channel(notification_channel=made)
    route = bench.emulator.backend.channels.route(made.name)
    assert route == {"kind": "pagerduty", "routing_key": KEY}
    made.labels["service_key"] = "n" * 32
    bench.channels.update_notification_channel(
        notification_channel=made, update_mask=_mask("labels")
    )
    route = bench.emulator.backend.channels.route(made.name)
    assert route == {"kind": "pagerduty", "routing_key": "n" * 32}
    assert KEY not in str(list(bench.channels.list_notification_channels(name=PROJECT)))


def test_a_channel_needs_the_labels_of_its_type(bench: Bench) -> None:
    def create(kind: str, **labels: str) -> None:
        bench.channels.create_notification_channel(
            name=PROJECT, notification_channel={"type": kind, "labels": labels}
        )

    with pytest.raises(InvalidArgument, match='label "service_key" is required'):
        create("pagerduty")
    with pytest.raises(InvalidArgument, match='label "colour" is unknown'):
        create("email", email_address="a@example.com", colour="red")
    with pytest.raises(InvalidArgument, match="channel type is unknown"):
        create("pigeon")
    found = bench.channels.list_notification_channel_descriptors(name=PROJECT)
    assert "pagerduty" in {one.type_ for one in found}
    bench.pagerduty_channel()
    create("email", email_address="a@example.com")
    only = bench.channels.list_notification_channels(
        request={"name": PROJECT, "filter": 'type="email"'}
    )
    assert [one.type_ for one in only] == ["email"]


def test_a_channel_in_use_goes_only_by_force_and_leaves_its_policies(bench: Bench) -> None:
    bench.write(bench.series(1))
    channel = bench.pagerduty_channel()
    policy = bench.create(notification_channels=[channel.name])
    with pytest.raises(BadRequest, match="is used by the alert policies"):
        bench.channels.delete_notification_channel(name=channel.name)
    bench.channels.delete_notification_channel(name=channel.name, force=True)
    assert list(bench.policies.get_alert_policy(name=policy.name).notification_channels) == []
    with pytest.raises(NotFound):
        bench.channels.get_notification_channel(name=channel.name)


def test_policies_on_metrics_of_another_project_are_not_found(bench: Bench) -> None:
    bench.write(bench.series(1))
    with pytest.raises(NotFound, match=METRIC):
        bench.policies.create_alert_policy(
            name="projects/other",
            alert_policy=AlertPolicy(display_name="x", combiner="OR", conditions=[condition()]),
        )


def test_a_phone_is_verified_with_the_code_that_was_sent_to_it(bench: Bench) -> None:
    def phone(number: str) -> Any:
        channel = {"type": "sms", "labels": {"number": number}}
        return bench.channels.create_notification_channel(
            name=PROJECT, notification_channel=channel
        )

    status = monitoring_v3.NotificationChannel.VerificationStatus
    channel, twin, other = phone("+1555"), phone("+1555"), phone("+1777")
    assert channel.verification_status == status.UNVERIFIED
    with pytest.raises(BadRequest, match="not verified"):
        bench.channels.get_notification_channel_verification_code(name=channel.name)
    bench.channels.send_notification_channel_verification_code(name=channel.name)
    _status, answer = bench.http("GET", "/emulator/v1/verificationCodes")
    code = answer["verificationCodes"][0]["code"]
    with pytest.raises(InvalidArgument, match="wrong or has expired"):
        bench.channels.verify_notification_channel(name=other.name, code=code)
    verified = bench.channels.verify_notification_channel(name=channel.name, code=code)
    assert verified.verification_status == status.VERIFIED
    # A verified channel vouches for an equal one, over REST as well.
    _status, passed_on = bench.http("POST", f"/v3/{channel.name}:getVerificationCode", {})
    status_code, answer = bench.http("POST", f"/v3/{twin.name}:verify", {"code": passed_on["code"]})
    assert (status_code, answer["verificationStatus"]) == (200, "VERIFIED")
    bench.clock.advance(timedelta(hours=2))
    with pytest.raises(InvalidArgument, match="wrong or has expired"):
        bench.channels.verify_notification_channel(name=channel.name, code=code)


def test_services_write_metrics_of_their_own_and_users_do_not(bench: Bench) -> None:
    system = "redis.googleapis.com/stats/memory/usage_ratio"
    written = bench.series(0.9, metric=system)
    with pytest.raises(InvalidArgument, match="must start with one of"):
        bench.write(written)
    bench.metrics.create_service_time_series(name=PROJECT, time_series=[written])
    (series,) = bench.read(f'metric.type="{system}"')
    assert series.points[0].value.double_value == 0.9
    with pytest.raises(InvalidArgument, match="user-defined metric"):
        bench.metrics.create_service_time_series(name=PROJECT, time_series=[bench.series(1)])
    # What a service wrote is still closed to users.
    bench.clock.advance(timedelta(minutes=1))
    with pytest.raises(InvalidArgument, match="must start with one of"):
        bench.write(bench.series(0.9, metric=system))
