"""From a metric that goes bad to a page that resolves, and nothing lost on the way."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud import monitoring_v3

from speakfit.emulator.server import Emulator
from speakfit.pagerduty import incidents
from speakfit.target import (
    Target,
    TargetKind,
    alert_policy_client,
    metric_client,
    notification_channel_client,
    policy_clock,
)
from tests.speakfit.emulator.bench import (
    KEY,
    METRIC,
    OPTIONS,
    PROJECT,
    RESOURCE,
    Bench,
    condition,
    policy,
)

MINUTE = timedelta(minutes=1)


def test_a_bad_metric_pages_with_its_runbook_and_recovery_resolves_the_page(bench: Bench) -> None:
    bench.write(bench.series(1))
    bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(3, 1)
    assert bench.pages() == []
    bench.minutes(5, 500)
    (page,) = bench.pages()
    (incident,) = bench.emulator.incidents()
    assert (page.status, page.urgency, page.severity) == ("triggered", "high", "critical")
    assert page.title == "Queue is deep"
    assert [link.href for link in page.links] == ["https://runbooks.test/queue-depth"]
    assert page.dedup_key == incident["id"]
    assert page.details["observed_value"] == "500.000"
    assert page.details["documentation"] == "Too many chunks wait on generic_task."
    assert incident["state"] == "open"
    bench.minutes(3, 1)
    (page,) = bench.pages()
    assert page.status == "resolved"
    assert bench.emulator.incidents()[0]["state"] == "closed"
    # A second bad spell is a second incident, not the old one again.
    bench.minutes(5, 500)
    assert [page.status for page in bench.pages()] == ["resolved", "triggered"]


def test_missed_evaluations_are_caught_up_so_that_a_short_spell_is_not_overlooked(
    bench: Bench,
) -> None:
    bench.write(bench.series(1))
    bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.emulator.evaluate_now()
    for minute in range(20):
        for _ in range(2):
            bench.clock.advance(timedelta(seconds=30))
            bench.write(bench.series(500 if 5 <= minute < 10 else 1))
    assert bench.emulator.evaluate_now() == 20
    (page,) = bench.pages()
    assert page.status == "resolved"


def test_a_rate_at_the_end_of_a_window_is_not_too_low_between_two_exports(bench: Bench) -> None:
    served = "workload.googleapis.com/speakfit.api.requests"
    born = bench.stamp()

    def write(total: int) -> None:
        interval = {"start_time": born, "end_time": bench.stamp()}
        bench.write(
            {
                **bench.series(1, metric=served),
                "metric_kind": "CUMULATIVE",
                "points": [{"interval": interval, "value": {"int64_value": total}}],
            }
        )

    # Exports every 30 s, ten seconds after the evaluated minute: one a second, and never less.
    bench.clock.advance(timedelta(seconds=10))
    write(10)
    slow = condition(
        filter=f'metric.type="{served}" AND resource.type="generic_task"',
        comparison="COMPARISON_LT",
        threshold_value=0.95,
        duration={"seconds": 0},
        aggregations=[{"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_RATE"}],
    )
    for half in range(1, 21):
        bench.clock.advance(timedelta(seconds=30))
        write(10 + 30 * half)
        if half == 6:
            bench.create(conditions=[slow])
        if half > 6:
            bench.emulator.evaluate_now()
    assert bench.emulator.incidents() == []


def test_deleting_a_policy_closes_its_incident_and_resolves_the_page(bench: Bench) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(5, 500)
    assert bench.pages()[0].status == "triggered"
    bench.policies.delete_alert_policy(name=policy.name)
    bench.minutes(1, 500)
    assert bench.pages()[0].status == "resolved"
    assert bench.emulator.incidents()[0]["closeReason"] == "policy-deleted"


def test_a_policy_that_tells_openings_only_leaves_the_page_to_people(bench: Bench) -> None:
    bench.write(bench.series(1))
    bench.create(
        notification_channels=[bench.pagerduty_channel().name],
        alert_strategy={"notification_prompts": ["OPENED"]},
    )
    bench.minutes(5, 500)
    bench.minutes(3, 1)
    assert bench.emulator.incidents()[0]["state"] == "closed"
    assert bench.pages()[0].status == "triggered"


def test_switching_a_policy_off_closes_its_incident_and_opens_none(bench: Bench) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(5, 500)
    policy.enabled = False
    bench.policies.update_alert_policy(alert_policy=policy)
    bench.minutes(5, 500)
    assert [page.status for page in bench.pages()] == ["resolved"]
    assert bench.emulator.incidents()[0]["closeReason"] == "disabled"


def test_an_update_that_resends_the_condition_name_keeps_the_incident_open(bench: Bench) -> None:
    bench.write(bench.series(1))
    policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(5, 500)
    policy.display_name = "Renamed"
    bench.policies.update_alert_policy(alert_policy=policy)
    bench.minutes(2, 500)
    assert [page.status for page in bench.pages()] == ["triggered"]
    policy.conditions = [monitoring_v3.AlertPolicy.Condition(condition())]
    bench.policies.update_alert_policy(alert_policy=policy)
    bench.minutes(1, 500)
    assert bench.emulator.incidents()[-1]["closeReason"] == "condition-removed"


def test_a_page_that_pagerduty_could_not_take_is_sent_when_it_is_back(tmp_path: Path) -> None:
    with Bench() as pagerduty:
        url = pagerduty.emulator.http_url
    # Nothing listens there now.
    with Bench(data_dir=tmp_path, pagerduty_events_url=url) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.create(notification_channels=[bench.pagerduty_channel().name])
        bench.minutes(5, 500)
        bench.minutes(3, 1)
        queued = bench.emulator.notifier.queue()
        assert [one.state for one in queued] == ["pending", "pending"]
        assert queued[0].error == "PagerDuty does not answer."
        # The resolve waits behind its trigger.
        assert queued[1].attempts == 0
    # After a restart PagerDuty is back: trigger and resolve arrive, in this order.
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        bench.emulator.evaluate_now()
        (page,) = bench.pages()
        _status, log = bench.http("GET", f"/incidents/{page.id}/log_entries")
        assert [entry["type"] for entry in log["log_entries"]] == [
            "resolve_log_entry",
            "trigger_log_entry",
        ]
        assert {one.state for one in bench.emulator.notifier.queue()} == {"sent"}


def test_a_restart_keeps_points_policies_channels_and_open_incidents(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1, queue="a"))
        policy = bench.create(notification_channels=[bench.pagerduty_channel().name])
        bench.minutes(5, 500)
        before = (bench.read(), bench.emulator.incidents(), bench.pages())
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        assert bench.policies.get_alert_policy(name=policy.name) == policy
        assert [page.status for page in bench.pages()] == ["triggered"]
        assert (bench.read(), bench.emulator.incidents()) == before[:2]
        bench.minutes(3, 1)
        assert [page.status for page in bench.pages()] == ["resolved"]


def test_a_restart_keeps_what_is_pending_and_what_has_had_data(tmp_path: Path) -> None:
    lasting = {"duration": {"seconds": 300}}
    silent = condition(
        "silent",
        filter=f'metric.type="{METRIC}" resource.type="generic_task" metric.labels.queue="old"',
        evaluation_missing_data="EVALUATION_MISSING_DATA_ACTIVE",
        **lasting,
    )
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.create(conditions=[condition(**lasting), silent])
        clock.advance(MINUTE / 2)
        bench.write(bench.series(1, queue="old"))
        bench.minutes(2, 500)
    # The queue is deep since 12:01; the old one had data then and has none from 12:02 on.
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        bench.minutes(4, 500)
        assert bench.emulator.incidents() == []
        for name in ("deep", "silent"):
            bench.minutes(1, 500)
            assert bench.emulator.incidents()[0]["conditionDisplayName"] == name


def test_a_policy_that_cannot_be_evaluated_does_not_silence_the_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    served = "workload.googleapis.com/speakfit.api.requests"
    counter = {
        **bench.series(1, metric=served),
        "metric_kind": "CUMULATIVE",
        "points": [
            {
                "interval": {"start_time": bench.stamp(-MINUTE), "end_time": bench.stamp()},
                "value": {"int64_value": 1},
            }
        ],
    }
    bench.write(counter, bench.series(1))
    of_growth = condition(
        filter=f'metric.type="{served}" AND resource.type="generic_task"',
        aggregations=[{"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_RATE"}],
    )
    channel = bench.pagerduty_channel().name
    for conditions in ([condition()], [of_growth], [condition()]):
        bench.create(conditions=conditions, notification_channels=[channel])
    # The counter becomes a gauge behind the policy's back, of which there is no rate.
    bench.metrics.delete_metric_descriptor(name=f"{PROJECT}/metricDescriptors/{served}")
    for _ in range(5):
        bench.write(bench.series(1, metric=served))
        bench.minutes(1, 500)
    assert [page.status for page in bench.pages()] == ["triggered", "triggered"]
    assert "could not be evaluated" in caplog.text


def test_a_full_disk_refuses_writes_and_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1, queue="accepted"))
        store = bench.emulator.backend.store
        # SQLite's own limit on the size of the file stands in for the disk's.
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ServiceUnavailable, match="full"):
            bench.write(*(bench.series(1, queue="q" * 1_000 + str(n)) for n in range(100)))
        assert len(bench.read()) == 1
        store._db.execute("PRAGMA max_page_count = 1000000")
        bench.write(bench.series(1, queue="later"))
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        queues = {series.metric.labels["queue"] for series in bench.read()}
        assert queues == {"accepted", "later"}
        assert (tmp_path / "emulator.sqlite3").stat().st_mode & 0o077 == 0


def test_an_absent_metric_pages_although_nothing_is_written_any_more(bench: Bench) -> None:
    bench.write(bench.series(1))
    absent = {
        "display_name": "silent",
        "condition_absent": {
            "filter": f'metric.type="{METRIC}" AND resource.type="generic_task"',
            "duration": {"seconds": 600},
            "aggregations": [
                {
                    "alignment_period": {"seconds": 60},
                    "per_series_aligner": "ALIGN_COUNT",
                    "cross_series_reducer": "REDUCE_SUM",
                }
            ],
        },
    }
    bench.create(conditions=[absent], notification_channels=[bench.pagerduty_channel().name])
    bench.minutes(3, 1)
    bench.minutes(8, None)
    assert bench.pages() == []
    bench.minutes(5, None)
    assert [page.status for page in bench.pages()] == ["triggered"]


def test_a_long_stop_pages_nobody_for_the_silence_while_everything_was_stopped(
    tmp_path: Path,
) -> None:
    absent = {
        "display_name": "silent",
        "condition_absent": {
            "filter": f'metric.type="{METRIC}" AND resource.type="generic_task"',
            "duration": {"seconds": 600},
            "aggregations": [
                {"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_COUNT"}
            ],
        },
    }
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.create(conditions=[absent], notification_channels=[bench.pagerduty_channel().name])
        bench.minutes(3, 1)
    clock.advance(timedelta(days=1))
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        bench.minutes(3, None)
        assert bench.pages() == []
        bench.minutes(1, 1)
        bench.minutes(13, None)
        assert [page.status for page in bench.pages()] == ["triggered"]


def test_an_old_counter_with_a_large_total_is_judged_by_its_growth_only(bench: Bench) -> None:
    errors = "workload.googleapis.com/speakfit.api.requests"

    def write(total: int) -> None:
        interval = {"start_time": born, "end_time": bench.stamp()}
        bench.write(
            {
                **bench.series(1, metric=errors),
                "metric_kind": "CUMULATIVE",
                "points": [{"interval": interval, "value": {"int64_value": total}}],
            }
        )

    born = bench.stamp(timedelta(hours=-1))
    write(1_000_000)
    grows = condition(
        duration={"seconds": 0},
        filter=f'metric.type="{errors}" AND resource.type="generic_task"',
        aggregations=[{"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_DELTA"}],
    )
    bench.create(conditions=[grows], notification_channels=[bench.pagerduty_channel().name])
    # Points are further apart than an evaluation looks back, so the one before is needed.
    for round_ in range(10):
        bench.clock.advance(timedelta(minutes=7))
        write(1_000_000 + round_)
        bench.emulator.evaluate_now()
    assert bench.pages() == []
    for round_ in range(4):
        bench.clock.advance(timedelta(minutes=7))
        write(1_010_000 + 10_000 * round_)
        bench.emulator.evaluate_now()
    assert len(bench.pages()) == 1


def test_a_key_that_pagerduty_refuses_is_reported_and_does_not_block_others(bench: Bench) -> None:
    bench.write(bench.series(1))
    wrong = bench.channels.create_notification_channel(
        name=PROJECT,
        notification_channel={"type": "pagerduty", "labels": {"service_key": "x" * 32}},
    )
    right = bench.pagerduty_channel()
    bench.create(notification_channels=[wrong.name, right.name])
    bench.minutes(5, 500)
    states = {one.channel: one for one in bench.emulator.notifier.queue()}
    assert states[wrong.name].state == "refused"
    assert "Invalid routing key" in states[wrong.name].error
    assert states[right.name].state == "sent"
    assert len(bench.pages()) == 1


def test_the_threads_evaluate_and_page_by_themselves_on_a_scaled_clock() -> None:
    # 600 times: the minute between evaluations is a tenth of a second.
    options = replace(OPTIONS, time_scale=600)
    with Emulator(options) as emulator:
        target = Target(kind=TargetKind.EMULATOR, project="p", host=emulator.grpc_address)
        assert policy_clock(target).scale == 600
        metrics = metric_client(target)
        now = time.time_ns()
        written = {"seconds": now // 10**9, "nanos": now % 10**9}
        metrics.create_time_series(
            name="projects/p",
            time_series=[
                {
                    "metric": {"type": METRIC},
                    "resource": RESOURCE,
                    "points": [
                        {
                            "interval": {"end_time": written},
                            "value": {"double_value": 5.0},
                        }
                    ],
                }
            ],
        )
        channel = notification_channel_client(target).create_notification_channel(
            name="projects/p",
            notification_channel={"type": "pagerduty", "labels": {"service_key": KEY}},
        )
        high = condition(
            threshold_value=1.0,
            duration={"seconds": 0},
            aggregations=[
                {"alignment_period": {"seconds": 600}, "per_series_aligner": "ALIGN_MAX"}
            ],
        )
        alert_policy_client(target).create_alert_policy(
            name="projects/p",
            alert_policy=monitoring_v3.AlertPolicy(
                policy(conditions=[high], notification_channels=[channel.name])
            ),
        )
        # What is read back carries the real time it was written with.
        (series,) = metrics.list_time_series(
            request={
                "name": "projects/p",
                "filter": f'metric.type="{METRIC}"',
                "interval": {
                    "start_time": {"seconds": now // 10**9 - 5},
                    "end_time": {"seconds": now // 10**9 + 1},
                },
            }
        )
        assert series.points[0].interval.end_time.timestamp() == pytest.approx(now / 1e9, abs=1e-5)
        deadline = time.monotonic() + 20
        while not incidents(emulator.http_url, "any-token"):
            assert time.monotonic() < deadline, "nobody was paged"
            time.sleep(0.02)
