"""The watchdog tells as long as evaluation and delivery go on, and falls silent with them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from speakfit.emulator.console import console_page
from speakfit.emulator.server import Emulator
from speakfit.emulator.watchdog import WatchdogTarget
from speakfit.errors import SettingsError
from tests.recording_monitoring import until
from tests.speakfit.emulator.bench import KEY, OPTIONS, PROJECT, Bench, condition
from tests.speakfit.emulator.hook import Hook

MINUTE = timedelta(minutes=1)


def _watched(hook: Hook, **changes: Any) -> Bench:
    target = WatchdogTarget.parse(f"{hook.url}/secret-uuid")
    return Bench(watchdog=target, watchdog_interval=2 * MINUTE, **changes)


def _minutes(bench: Bench, count: int) -> None:
    for _ in range(count):
        bench.clock.advance(MINUTE)
        bench.emulator.evaluate_now()


def test_a_dead_mans_switch_is_told_at_its_interval_however_quiet_everything_is(
    hook: Hook,
) -> None:
    with _watched(hook) as bench:
        assert "not told yet" not in console_page(bench.emulator)
        assert "silent: nothing was evaluated yet" in console_page(bench.emulator)
        _minutes(bench, 6)
        assert [path for path, _allowed, _body in hook.got] == ["/secret-uuid"] * 3
        incident = hook.got[-1][2]["incident"]
        assert (incident["policy_name"], incident["state"]) == ("Watchdog", "open")
        page = console_page(bench.emulator)
        assert "watchdog to 127.0.0.1" in page
        assert "told of 2026-01-05 12:04:00" in page
        assert "secret-uuid" not in page
        # It is no policy that somebody could delete, and its queue does not grow.
        assert list(bench.policies.list_alert_policies(name=PROJECT)) == []
        assert len(bench.emulator.notifier.queue()) == 1


def test_it_falls_silent_when_the_evaluator_hangs(hook: Hook) -> None:
    with _watched(hook) as bench:
        _minutes(bench, 4)
        told = len(hook.got)
        # Somebody holds what a round of evaluation needs, and does not let go.
        with bench.emulator.evaluator._running:
            stuck = threading.Thread(target=bench.emulator.evaluate_now)
            stuck.start()
            bench.clock.advance(10 * MINUTE)
            bench.emulator.notifier.deliver(patient=False)
            assert len(hook.got) == told
        stuck.join()
        _minutes(bench, 2)
        assert len(hook.got) > told


def test_it_falls_silent_when_a_policy_cannot_be_evaluated(hook: Hook) -> None:
    with _watched(hook) as bench:
        metric = "compute.googleapis.com/instance/queue"
        rate = {"alignment_period": {"seconds": 60}, "per_series_aligner": "ALIGN_RATE"}
        filter_text = f'metric.type="{metric}" AND resource.type="generic_task"'
        bench.create(conditions=[condition(filter=filter_text, aggregations=[rate])])
        _minutes(bench, 2)
        told = len(hook.got)
        assert told > 0
        # The metric turns out to be a gauge, which has no rate.
        bench.metrics.create_service_time_series(
            name=PROJECT, time_series=[bench.series(1, metric=metric)]
        )
        _minutes(bench, 4)
        assert len(hook.got) == told
        page = console_page(bench.emulator)
        assert "silent: 1 policies could not be evaluated" in page
        assert "cannot be evaluated</span>" in page


def test_it_falls_silent_when_pages_are_not_delivered(hook: Hook) -> None:
    with _watched(hook, pagerduty_events_url="http://127.0.0.1:9") as bench:
        bench.write(bench.series(1))
        bench.create(notification_channels=[bench.pagerduty_channel().name])
        bench.minutes(5, 500)
        told = len(hook.got)
        assert told > 0
        bench.minutes(12, 500)
        assert "silent: 1 notifications are not delivered" in console_page(bench.emulator)
        told = len(hook.got)
        bench.minutes(4, 500)
        assert len(hook.got) == told


def test_what_could_not_be_told_in_time_is_never_told(hook: Hook) -> None:
    hook.status = 503
    target = WatchdogTarget.parse(hook.url)
    with Bench(watchdog=target, watchdog_interval=timedelta(microseconds=1)) as bench:
        _minutes(bench, 1)
        assert "silent: " in console_page(bench.emulator)
        hook.status = 200
        # The evaluator is dead: what is queued would feign life.
        bench.emulator.notifier.deliver(patient=False)
        assert hook.got == []
        assert [one.state for one in bench.emulator.notifier.queue()] == ["expired"]


def test_a_channel_can_be_the_target_once_it_exists(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        channel = bench.pagerduty_channel().name
        clock = bench.clock
    target = WatchdogTarget.parse(channel)
    with Bench(data_dir=tmp_path, clock=clock, watchdog=target) as bench:
        _minutes(bench, 3)
        (page,) = bench.pages()
        assert (page.status, page.title) == ("triggered", "Watchdog: " + page.title[10:])
        assert KEY not in console_page(bench.emulator)
        bench.channels.delete_notification_channel(name=channel)
        _minutes(bench, 3)
        assert f"silent: nothing is delivered to {channel}" in console_page(bench.emulator)


def test_with_threads_of_its_own_it_tells_again_and_again(hook: Hook) -> None:
    options = replace(
        OPTIONS,
        time_scale=600,
        watchdog=WatchdogTarget.parse(hook.url),
        watchdog_interval=timedelta(seconds=0.1),
    )
    with Emulator(options):
        until(lambda: len(hook.got) >= 3, what="the third telling")


@pytest.mark.parametrize("text", ["", "hc-ping.com/uuid", "ftp://x", "http://", "projects/p"])
def test_a_target_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="target of the watchdog"):
        WatchdogTarget.parse(text)
