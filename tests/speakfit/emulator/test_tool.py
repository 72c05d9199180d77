"""The emulator as a tool for other projects: seeds and a clock moved by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from speakfit.emulator.server import Emulator
from speakfit.errors import SettingsError
from tests.speakfit.emulator.bench import KEY, METRIC, NOON, OPTIONS, RESOURCE, Bench

_OBJECTIVE = "projects/seeded/services/api/serviceLevelObjectives/up"
_CHANNEL = "projects/seeded/notificationChannels/pager"


def _seed(**changes: Any) -> dict[str, Any]:
    points = [
        {
            "interval": {"endTime": (NOON - timedelta(minutes=n)).isoformat()},
            "value": {"doubleValue": 500.0 + n},
        }
        for n in range(10)
    ]
    return {
        "project": "seeded",
        "notificationChannels": [
            {"name": _CHANNEL, "type": "pagerduty", "labels": {"service_key": KEY}}
        ],
        "timeSeries": [
            {"metric": {"type": METRIC}, "resource": RESOURCE, "points": points},
            {
                "metric": {"type": "compute.googleapis.com/instance/uptime"},
                "resource": {"type": "gce_instance", "labels": {"instance_id": "1", "zone": "a"}},
                "points": points[:1],
            },
        ],
        "alertPolicies": [
            {
                "displayName": "Deep",
                "combiner": "OR",
                "notificationChannels": [_CHANNEL],
                "conditions": [
                    {
                        "displayName": "deep",
                        "conditionThreshold": {
                            "filter": f'metric.type="{METRIC}" resource.type="generic_task"',
                            "comparison": "COMPARISON_GT",
                            "thresholdValue": 100,
                            "duration": "0s",
                            "aggregations": [
                                {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX"}
                            ],
                        },
                    }
                ],
            }
        ],
        "services": [{"name": "projects/seeded/services/api", "custom": {}}],
        "serviceLevelObjectives": [
            {
                "name": _OBJECTIVE,
                "goal": 0.9,
                "calendarPeriod": "WEEK",
                "serviceLevelIndicator": {
                    "requestBased": {
                        "goodTotalRatio": {
                            "goodServiceFilter": 'metric.type="run.googleapis.com/good"',
                            "totalServiceFilter": 'metric.type="run.googleapis.com/total"',
                        }
                    }
                },
            }
        ],
        "dashboards": [{"displayName": "Board", "gridLayout": {}}],
        **changes,
    }


def test_a_seed_is_loaded_once_and_pages_like_anything_else(tmp_path: Path) -> None:
    file = tmp_path / "seed.json"
    file.write_text(json.dumps(_seed()))
    with Bench(seed=file, data_dir=tmp_path / "data") as bench:
        clock = bench.clock
        (policy,) = bench.policies.list_alert_policies(name="projects/seeded")
        (channel,) = bench.channels.list_notification_channels(name="projects/seeded")
        assert list(policy.notification_channels) == [channel.name]
        assert bench.emulator.backend.points.count() == (2, 11)
        assert bench.objectives.get_service_level_objective(name=_OBJECTIVE).goal == 0.9
        bench.emulator.evaluate_now()
        assert [page.status for page in bench.pages()] == ["triggered"]
    with Bench(seed=file, data_dir=tmp_path / "data", clock=clock) as bench:
        assert len(list(bench.policies.list_alert_policies(name="projects/seeded"))) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{", "cannot be read"),
        ("[]", '"project"'),
        (json.dumps(_seed(policies=[])), '"policies" is none of them'),
        (json.dumps(_seed(alertPolicies=[{"displayName": "x"}])), "conditions"),
        (json.dumps(_seed(timeSeries=[{}])), "metric.type"),
        (json.dumps(_seed(serviceLevelObjectives=[{"goal": 0.5}])), "does not exist"),
    ],
)
def test_a_seed_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, body: str, text: str
) -> None:
    file = tmp_path / "seed.json"
    file.write_text(body)
    with pytest.raises(SettingsError) as caught, Bench(seed=file):
        pass
    assert text in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_clock_that_stands_still_is_moved_over_http_and_stays_where_it_was(
    tmp_path: Path,
) -> None:
    options = replace(OPTIONS, manual_clock=True, data_dir=tmp_path)

    def advance(bench: Bench, body: object) -> tuple[int, dict[str, Any]]:
        return bench.http("POST", "/emulator/v1/clock:advance", body)

    bench = Bench()
    bench.emulator = Emulator(options)
    with bench:
        before = bench.emulator.clock.now_ns()
        status, answer = advance(bench, {"seconds": 3_600})
        assert (status, int(answer["nowNs"]) - before) == (200, 3_600 * 10**9)
        assert answer["evaluations"] == 1
        assert advance(bench, {"seconds": 300})[1]["evaluations"] == 5
        for wrong in ({"seconds": -1}, {}, {"seconds": "x"}, {"seconds": 1e99}, b"{"):
            assert advance(bench, wrong)[0] == 400
        after = bench.emulator.clock.now_ns()
    bench.emulator = Emulator(options)
    with bench:
        # Stored to the nanosecond, read back to the microsecond.
        assert 0 <= after - bench.emulator.clock.now_ns() < 1_000


def test_the_clock_cannot_be_moved_unless_it_was_asked_for(bench: Bench) -> None:
    assert bench.http("POST", "/emulator/v1/clock:advance", {"seconds": 60})[0] == 404
