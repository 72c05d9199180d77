"""AlertPolicyService and NotificationChannelService through the real clients."""

from datetime import timedelta
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, InvalidArgument
from google.cloud import monitoring_v3
from google.protobuf import field_mask_pb2

from tests.speakfit.emulator.bench import KEY, PROJECT, Bench

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
