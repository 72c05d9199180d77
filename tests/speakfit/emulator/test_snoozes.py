"""SnoozeService through its real client, and what a snooze does to incidents."""

from datetime import datetime, timedelta
from typing import Any

from google.cloud import monitoring_v3

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
