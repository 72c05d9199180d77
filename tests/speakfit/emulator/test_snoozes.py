"""SnoozeService through its real client, and what a snooze does to incidents."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument, NotFound
from google.cloud import monitoring_v3
from google.protobuf import field_mask_pb2

from speakfit.clock import from_ns
from tests.speakfit.emulator.bench import LABELS, PROJECT, RESOURCE, Bench

MINUTE = timedelta(minutes=1)


def _at(bench: Bench, minutes: float) -> datetime:
    return from_ns(bench.clock.now_ns()) + minutes * MINUTE


def _snooze(bench: Bench, policy: str, *, start: float = 0, end: float = 60, **rest: Any) -> Any:
    """A snooze from and until so many minutes from now."""
    criteria = {"policies": [policy], **rest.pop("criteria", {})}
    return bench.snoozes.create_snooze(
        parent=PROJECT,
        snooze=monitoring_v3.Snooze(
            criteria=criteria,
            display_name="Maintenance",
            interval={"start_time": _at(bench, start), "end_time": _at(bench, end)},
            **rest,
        ),
    )


def _update(bench: Bench, snooze: Any, *paths: str) -> Any:
    mask = field_mask_pb2.FieldMask(paths=paths)
    return bench.snoozes.update_snooze(snooze=snooze, update_mask=mask)


def test_nothing_opens_while_a_policy_is_snoozed_and_what_is_still_wrong_opens_after(
    bench: Bench,
) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    _snooze(bench, policy.name, end=20)
    bench.minutes(20, 500)
    assert bench.emulator.incidents() == []
    bench.minutes(3, 500)
    assert [page.status for page in bench.pages()] == ["triggered"]


def test_a_snooze_closes_what_is_open_and_resolves_its_page(bench: Bench) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(5, 500)
    assert [page.status for page in bench.pages()] == ["triggered"]
    _snooze(bench, policy.name)
    bench.minutes(2, 500)
    assert [page.status for page in bench.pages()] == ["resolved"]
    (incident,) = bench.emulator.incidents()
    assert (incident["state"], incident["closeReason"]) == ("closed", "snoozed")


def test_missed_evaluations_across_a_snooze_are_caught_up_as_if_they_had_not_been_missed(
    bench: Bench,
) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.emulator.evaluate_now()
    _snooze(bench, policy.name, start=10, end=20)
    for _ in range(60):
        bench.clock.advance(MINUTE / 2)
        bench.write(bench.series(500))
    assert bench.emulator.evaluate_now() == 30
    assert [one["closeReason"] for one in bench.emulator.incidents()] == [None, "snoozed"]


def test_a_snooze_with_a_filter_silences_only_the_series_it_names(bench: Bench) -> None:
    def write(value: float) -> None:
        for task in ("one", "two"):
            resource = {**RESOURCE, "labels": {**LABELS, "task_id": task}}
            bench.write({**bench.series(value), "resource": resource})

    write(1)
    policy = bench.create(
        conditions=[
            {
                "display_name": "deep",
                "condition_threshold": {
                    "filter": 'metric.type="workload.googleapis.com/speakfit.queue.depth" '
                    'resource.type="generic_task"',
                    "comparison": "COMPARISON_GT",
                    "threshold_value": 100.0,
                    "duration": {"seconds": 0},
                    "aggregations": [
                        {"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_MAX"}
                    ],
                },
            }
        ]
    )
    _snooze(bench, policy.name, criteria={"filter": 'resource.labels.task_id="one"'})
    for _ in range(4):
        bench.clock.advance(MINUTE)
        write(500)
        bench.emulator.evaluate_now()
    (incident,) = bench.emulator.incidents()
    assert incident["series"]["resource"]["labels"]["task_id"] == "two"


def test_a_snooze_is_read_back_listed_by_its_times_and_kept(bench: Bench) -> None:
    policy = f"{PROJECT}/alertPolicies/1"
    early, late = _snooze(bench, policy, end=10), _snooze(bench, policy, start=30, end=40)
    assert early.name.startswith(f"{PROJECT}/snoozes/")
    assert bench.snoozes.get_snooze(name=early.name) == early

    def listed(text: str) -> list[str]:
        request = {"parent": PROJECT, "filter": text}
        return [one.name for one in bench.snoozes.list_snoozes(request=request)]

    assert listed("") == [early.name, late.name]
    after = _at(bench, 5).astimezone(UTC).isoformat()
    assert listed(f'interval.start_time > "{after}"') == [late.name]
    assert listed(f'interval.start_time < "{after}" AND interval.end_time > "{after}"') == [
        early.name
    ]
    with pytest.raises(NotFound):
        bench.snoozes.get_snooze(name=f"{PROJECT}/snoozes/1")


def test_a_snooze_must_have_a_name_policies_and_a_time_to_come(bench: Bench) -> None:
    policy = f"{PROJECT}/alertPolicies/1"
    with pytest.raises(InvalidArgument, match="cannot be in the past"):
        _snooze(bench, policy, start=-1)
    # Requests take a while: fifteen seconds are forgiven.
    _snooze(bench, policy, start=-0.2)
    with pytest.raises(InvalidArgument, match="must be after the start time"):
        _snooze(bench, policy, start=5, end=5)
    with pytest.raises(InvalidArgument, match="1 to 16 alert policies"):
        _snooze(bench, policy, criteria={"policies": [policy] * 17})
    two = {"policies": [policy, f"{policy}2"], "filter": 'resource.labels.zone="a"'}
    with pytest.raises(InvalidArgument, match="Exactly 1 alert policy"):
        _snooze(bench, policy, criteria=two)
    with pytest.raises(InvalidArgument, match="Could not parse filter"):
        _snooze(bench, policy, criteria={"filter": "resource.labels.zone=="})


def test_only_what_is_to_come_of_a_snooze_can_be_changed(bench: Bench) -> None:
    snooze = _snooze(bench, f"{PROJECT}/alertPolicies/1", start=10, end=20)
    snooze.interval.start_time = _at(bench, 5)
    snooze.display_name = "Earlier"
    changed = _update(bench, snooze, "displayName", "interval.startTime")
    assert (changed.display_name, changed.interval.start_time) == ("Earlier", _at(bench, 5))
    with pytest.raises(InvalidArgument, match="cannot be updated"):
        _update(bench, snooze, "criteria")
    bench.clock.advance(6 * MINUTE)
    snooze.interval.start_time = _at(bench, 1)
    with pytest.raises(InvalidArgument, match="start time of an active snooze"):
        _update(bench, snooze, "interval.start_time")
    # gcloud cancels with an end that is now, and without a mask.
    cancelled = bench.snoozes.get_snooze(name=snooze.name)
    cancelled.interval.end_time = _at(bench, 0)
    _update(bench, cancelled)
    cancelled.display_name = "Too late"
    with pytest.raises(InvalidArgument, match="read-only"):
        _update(bench, cancelled, "display_name")


def test_the_rest_calls_of_gcloud_make_list_and_cancel_a_snooze(bench: Bench) -> None:
    def iso(minutes: float) -> str:
        return _at(bench, minutes).astimezone(UTC).isoformat().replace("+00:00", "Z")

    body = {
        "criteria": {"policies": [f"{PROJECT}/alertPolicies/1"]},
        "displayName": "Maintenance",
        "interval": {"startTime": iso(5), "endTime": iso(10)},
    }
    status, made = bench.http("POST", f"/v3/{PROJECT}/snoozes?alt=json", body)
    assert status == 200, made
    assert {key: made[key] for key in body} == body
    assert bench.http("GET", f"/v3/{PROJECT}/snoozes")[1] == {"snoozes": [made]}
    made["interval"] = {"startTime": iso(0), "endTime": iso(0)}
    assert bench.http("PATCH", f"/v3/{made['name']}", made) == (200, made)
