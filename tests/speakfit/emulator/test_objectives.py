"""ServiceMonitoringService through its real client and REST, and alerts on what it stores."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import (
    AlreadyExists,
    InvalidArgument,
    MethodNotImplemented,
    NotFound,
)

from speakfit.emulator.console import console_page
from tests.speakfit.emulator.bench import KEY, PROJECT, RESOURCE, Bench, condition

SERVICE = f"{PROJECT}/services/api"
WEEK = 2
"""google.type.CalendarPeriod."""

OBJECTIVES = f"/v3/{SERVICE}/serviceLevelObjectives"
BAD, TOTAL = (f"workload.googleapis.com/requests.{kind}" for kind in ("bad", "total"))
LATENCY = "run.googleapis.com/request_latencies"


def _ratio(**filters: str) -> dict[str, Any]:
    return {"requestBased": {"goodTotalRatio": filters}}


BAD_OF_TOTAL = _ratio(
    badServiceFilter=f'metric.type="{BAD}" resource.type="generic_task"',
    totalServiceFilter=f'metric.type="{TOTAL}" resource.type="generic_task"',
)


def _objective(**changes: Any) -> dict[str, Any]:
    body = {
        "displayName": "90 % in four weeks",
        "goal": 0.9,
        "rollingPeriod": "2419200s",
        "serviceLevelIndicator": BAD_OF_TOTAL,
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def _declare(bench: Bench) -> None:
    for name in (BAD, TOTAL):
        descriptor = {"type": name, "metricKind": "CUMULATIVE", "valueType": "INT64"}
        assert bench.http("POST", f"/v3/{PROJECT}/metricDescriptors", descriptor)[0] == 200


def _service(bench: Bench, identity: str = "api", **service: Any) -> Any:
    return bench.objectives.create_service(
        request={
            "parent": PROJECT,
            "service_id": identity,
            "service": {"display_name": "API", "custom": {}, **service},
        }
    )


@pytest.fixture
def api(bench: Bench) -> Bench:
    """A bench with a service and the metrics of its objectives."""
    _declare(bench)
    _service(bench)
    return bench


def _make(bench: Bench, identity: str = "up", **changes: Any) -> tuple[int, dict[str, Any]]:
    return bench.http(
        "POST", f"{OBJECTIVES}?serviceLevelObjectiveId={identity}", _objective(**changes)
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """Such a bench for all refusals, which leave it as it was."""
    with Bench() as bench:
        _declare(bench)
        _service(bench)
        yield bench


def test_services_live_a_whole_life_over_grpc_and_rest(bench: Bench) -> None:
    made = _service(bench, user_labels={"team": "speech"})
    assert (made.name, "custom" in made) == (SERVICE, True)
    assert bench.objectives.get_service(name=SERVICE) == made
    with pytest.raises(AlreadyExists):
        _service(bench)
    status, other = bench.http("POST", f"/v3/{PROJECT}/services", {"meshIstio": {"meshUid": "12"}})
    assert status == 200
    assert other["name"].startswith(f"{PROJECT}/services/")
    for filter_text, names in (
        ("", [SERVICE, other["name"]]),
        ('identifier_case = "CUSTOM"', [SERVICE]),
        ('mesh_istio.mesh_uid = "12"', [other["name"]]),
        ('identifier_case = "APP_ENGINE"', []),
    ):
        request = {"parent": PROJECT, "filter": filter_text, "page_size": 1}
        found = bench.objectives.list_services(request=request)
        assert [one.name for one in found] == names
    changed = bench.objectives.update_service(
        request={
            "service": {"name": SERVICE, "display_name": "New", "user_labels": {"a": "b"}},
            "update_mask": {"paths": ["display_name", "user_labels.a"]},
        }
    )
    assert (changed.display_name, dict(changed.user_labels)) == (
        "New",
        {"team": "speech", "a": "b"},
    )
    status, replaced = bench.http("PATCH", f"/v3/{SERVICE}", {"gkeNamespace": {"location": "eu"}})
    assert (status, replaced) == (
        200,
        {"name": SERVICE, "gkeNamespace": {"projectId": "speakfit-test", "location": "eu"}},
    )
    bench.objectives.delete_service(name=SERVICE)
    with pytest.raises(NotFound, match="does not exist"):
        bench.objectives.get_service(name=SERVICE)
    assert bench.http("DELETE", f"/v3/{SERVICE}")[0] == 404


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("serviceId=Not_mine", {"custom": {}}, "[a-z0-9\\-]+"),
        ("", {"displayName": "x" * 513}, "At most 512 characters"),
        ("", {"userLabels": {"Team": "x"}}, "keys must begin with a letter"),
        ("", {"colour": "red"}, "Unknown name \"colour\" at 'service': Cannot find field."),
        ("colour=red", {}, 'Unknown name "colour"'),
        ("", {"custom": {}, "cloudRun": {}}, "oneof field 'identifier' is already set"),
    ],
)
def test_what_no_service_can_be_is_refused(
    shared: Bench, query: str, body: dict[str, Any], text: str
) -> None:
    status, answer = shared.http("POST", f"/v3/{PROJECT}/services?{query}", body)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert text in answer["error"]["message"]
    status, answer = shared.http("GET", "/v3/workspaces/12/services")
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_objectives_live_a_whole_life_over_grpc_and_rest(api: Bench) -> None:
    status, made = _make(api, "up:1.2_a-B")
    name = f"{SERVICE}/serviceLevelObjectives/up:1.2_a-B"
    assert (status, made) == (200, {"name": name, **_objective()})
    seen = api.objectives.get_service_level_objective(name=name)
    assert (seen.goal, seen.rolling_period) == (0.9, timedelta(days=28))
    assert _make(api, "up:1.2_a-B")[1]["error"]["status"] == "ALREADY_EXISTS"
    # A name that it brings is kept; without any it gets one.
    brought = deepcopy(seen)
    brought.name = f"{SERVICE}/serviceLevelObjectives/brought"
    again = api.objectives.create_service_level_objective(
        parent=SERVICE, service_level_objective=brought
    )
    assert again == brought
    status, unnamed = api.http("POST", OBJECTIVES, _objective(goal=0.5))
    assert status == 200
    request = {"parent": SERVICE, "page_size": 2}
    pages = list(api.objectives.list_service_level_objectives(request=request).pages)
    assert [[one.name for one in page.service_level_objectives] for page in pages] == [
        [name, brought.name],
        [unnamed["name"]],
    ]
    status, listed = api.http("GET", f"/v3/{PROJECT}/services/-/serviceLevelObjectives")
    assert (status, len(listed["serviceLevelObjectives"])) == (200, 3)
    changed = api.objectives.update_service_level_objective(
        request={
            "service_level_objective": {"name": name, "goal": 0.99, "calendar_period": "WEEK"},
            "update_mask": {"paths": ["goal", "calendarPeriod"]},
        }
    )
    assert (changed.goal, changed.calendar_period) == (0.99, WEEK)
    assert not changed.rolling_period
    assert changed.display_name == seen.display_name
    status, answer = api.http("PATCH", f"/v3/{name}?updateMask=goal", {"goal": 1})
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    with pytest.raises(InvalidArgument, match="the name cannot be updated"):
        api.objectives.update_service_level_objective(
            request={
                "service_level_objective": {"name": name},
                "update_mask": {"paths": ["name"]},
            }
        )
    assert api.objectives.get_service_level_objective(name=name) == changed
    assert api.http("DELETE", f"/v3/{name}") == (200, {})
    # The rest go with their service.
    api.objectives.delete_service(name=SERVICE)
    assert api.http("GET", f"/v3/{unnamed['name']}")[0] == 404
    assert api.http("GET", OBJECTIVES)[0] == 404
    assert _make(api)[0] == 404


def test_every_kind_of_indicator_is_kept_as_it_was_sent(api: Bench) -> None:
    flag = 'metric.type="monitoring.googleapis.com/uptime_check/check_passed"'
    latency = f'metric.type="{LATENCY}" resource.type="cloud_run_revision"'
    _service(api, "run", custom=None, cloud_run={"service_name": "api", "location": "eu"})
    for index, (service, indicator) in enumerate(
        (
            ("api", BAD_OF_TOTAL),
            (
                "api",
                {
                    "requestBased": {
                        "distributionCut": {
                            "distributionFilter": latency,
                            "range": {"min": "-Infinity", "max": 500.0},
                        }
                    }
                },
            ),
            ("api", {"windowsBased": {"goodBadMetricFilter": flag, "windowPeriod": "300s"}}),
            (
                "api",
                {
                    "windowsBased": {
                        "metricMeanInRange": {"timeSeries": flag, "range": {"min": 5.0}},
                        "windowPeriod": "600s",
                    }
                },
            ),
            (
                "run",
                {
                    "windowsBased": {
                        "goodTotalRatioThreshold": {
                            "basicSliPerformance": {"latency": {"threshold": "1s"}},
                            "threshold": 0.95,
                        },
                        "windowPeriod": "86400s",
                    }
                },
            ),
            ("run", {"basicSli": {"availability": {}, "location": ["eu"]}}),
        )
    ):
        path = f"/v3/{PROJECT}/services/{service}/serviceLevelObjectives"
        status, made = api.http(
            "POST",
            f"{path}?serviceLevelObjectiveId=n{index}",
            _objective(serviceLevelIndicator=indicator),
        )
        assert status == 200, made
        assert made["serviceLevelIndicator"] == indicator
        assert api.http("GET", f"/v3/{made['name']}?view=FULL") == (200, made)
    assert api.http("GET", f"/v3/{made['name']}?view=EXPLICIT")[0] == 501


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"goal": 0}, "above 0 and at most 0.9999"),
        ({"goal": 0.99995}, "above 0 and at most 0.9999"),
        ({"goal": "NaN"}, "above 0 and at most 0.9999"),
        ({"rollingPeriod": None}, "rolling_period or calendar_period must be set"),
        ({"calendarPeriod": "DAY"}, "oneof field 'period' is already set"),
        ({"rollingPeriod": "2678400s"}, "whole number of days from 1 to 30"),
        ({"rollingPeriod": "90000s"}, "whole number of days from 1 to 30"),
        ({"rollingPeriod": None, "calendarPeriod": "QUARTER"}, "only DAY, WEEK, FORTNIGHT and"),
        ({"displayName": "x" * 513}, "At most 512 characters"),
        ({"userLabels": {"a": "B"}}, "only lowercase letters"),
        ({"serviceLevelIndicator": None}, "must be set"),
        ({"serviceLevelIndicator": {"requestBased": {}}}, "must be set"),
        ({"serviceLevelIndicator": {"basicSli": {"availability": {}}}}, "a custom service has no"),
        ({"serviceLevelIndicator": _ratio(totalServiceFilter='metric.type="a.b"')}, "is unknown"),
        (
            {"serviceLevelIndicator": _ratio(totalServiceFilter=f'metric.type="{TOTAL}"')},
            "exactly two of",
        ),
        (
            {"serviceLevelIndicator": _ratio(totalServiceFilter="metric.type=")},
            "Could not parse filter",
        ),
        (
            {
                "serviceLevelIndicator": {
                    "requestBased": {
                        "distributionCut": {"distributionFilter": f'metric.type="{TOTAL}"'}
                    }
                }
            },
            "value type DISTRIBUTION",
        ),
        (
            {
                "serviceLevelIndicator": {
                    "requestBased": {
                        "distributionCut": {
                            "distributionFilter": f'metric.type="{LATENCY}"',
                            "range": {"min": 5, "max": 4},
                        }
                    }
                }
            },
            "the minimum must be below the maximum",
        ),
        (
            {"serviceLevelIndicator": {"windowsBased": {"windowPeriod": "420s"}}},
            "integer fraction of a day",
        ),
        ({"serviceLevelIndicator": {"requestBased": {"ratio": {}}}}, 'Unknown name "ratio"'),
    ],
)
def test_what_no_objective_can_be_is_refused(
    shared: Bench, changes: dict[str, Any], text: str
) -> None:
    status, answer = _make(shared, **changes)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert text in answer["error"]["message"]
    assert shared.http("GET", OBJECTIVES) == (200, {})


def _burning(name: str, lookback: str = "300s") -> dict[str, Any]:
    filter_text = f'select_slo_burn_rate("{name}", "{lookback}")'
    return condition(
        "burning", filter=filter_text, threshold_value=2.0, duration={"seconds": 0}, aggregations=[]
    )


def _counters(bench: Bench, bad: int, total: int, start: dict[str, int]) -> None:
    """Write both counters as they are now."""
    bench.write(
        *(
            {
                "metric": {"type": name},
                "resource": RESOURCE,
                "metric_kind": "CUMULATIVE",
                "points": [
                    {
                        "interval": {"start_time": start, "end_time": bench.stamp()},
                        "value": {"int64_value": value},
                    }
                ],
            }
            for name, value in ((BAD, bad), (TOTAL, total))
        )
    )


def _pass(bench: Bench, counts: list[int], start: dict[str, int], *, bad: int, total: int) -> None:
    """Five minutes of requests."""
    for _ in range(5):
        bench.clock.advance(timedelta(minutes=1))
        counts[0] += bad
        counts[1] += total
        _counters(bench, counts[0], counts[1], start)
        bench.emulator.evaluate_now()


def test_a_budget_that_burns_too_fast_pages_and_survives_a_restart(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        _declare(bench)
        _service(bench)
        _status, made = _make(bench)
        channel = bench.pagerduty_channel().name
        policy = bench.create(conditions=[_burning(made["name"])], notification_channels=[channel])
        start, counts, clock = bench.stamp(), [0, 0], bench.clock
        # The goal allows one of ten: two of twenty a minute are the rate that it is made for.
        _pass(bench, counts, start, bad=2, total=20)
        assert bench.pages() == []
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        _pass(bench, counts, start, bad=9, total=20)
        (page,) = bench.pages()
        assert page.status == "triggered"
        (incident,) = bench.emulator.incidents()
        assert incident["policyName"] == policy.name
        assert incident["series"]["metric"]["type"] == (
            f'select_slo_burn_rate("{made["name"]}", "300s")'
        )
        # Whoever lowers the goal allows more.
        status, _ = bench.http("PATCH", f"/v3/{made['name']}?updateMask=goal", {"goal": 0.5})
        assert status == 200
        _pass(bench, counts, start, bad=9, total=20)
        assert [one.status for one in bench.pages()] == ["resolved"]
        assert KEY not in str(bench.emulator.incidents())


def test_an_objective_that_is_not_measured_here_never_looks_healthy(api: Bench) -> None:
    flag = 'metric.type="monitoring.googleapis.com/uptime_check/check_passed"'
    indicator = {"windowsBased": {"goodBadMetricFilter": flag, "windowPeriod": "300s"}}
    _status, made = _make(api, serviceLevelIndicator=indicator)
    api.create(conditions=[_burning(made["name"])])
    assert "not evaluated here" in console_page(api.emulator)
    # One that is gone is not healthy either, and one that comes back is watched again.
    assert api.http("PATCH", f"/v3/{made['name']}", _objective())[0] == 200
    assert "not evaluated here" not in console_page(api.emulator)
    assert api.http("DELETE", f"/v3/{SERVICE}")[0] == 200
    assert "not evaluated here" in console_page(api.emulator)
    _service(api)
    assert _make(api)[0] == 200
    assert "not evaluated here" not in console_page(api.emulator)


def test_a_policy_needs_an_objective_that_exists(api: Bench) -> None:
    with pytest.raises(NotFound, match="Cannot find the service level objective"):
        api.create(conditions=[_burning(f"{SERVICE}/serviceLevelObjectives/none")])
    _status, made = _make(api)
    with pytest.raises(InvalidArgument, match="at most 24 hours"):
        api.create(conditions=[_burning(made["name"], "25h")])
    # The project may be named by its number.
    numbered = made["name"].replace("speakfit-test", "123456")
    assert api.create(conditions=[_burning(numbered)]).name
    with pytest.raises(MethodNotImplemented):
        api.read(f'select_slo_burn_rate("{made["name"]}", "300s")')
