"""The same calls over REST, as gcloud and Terraform make them, and bad input of every kind."""

from tests.speakfit.emulator.bench import PROJECT, Bench, condition

POLICIES = f"/v3/{PROJECT}/alertPolicies"


def _policy() -> dict[str, object]:
    deep = condition()
    threshold = deep["condition_threshold"]
    return {
        "displayName": "Queue depth",
        "combiner": "OR",
        "conditions": [
            {
                "displayName": "deep",
                "conditionThreshold": {
                    "filter": threshold["filter"],
                    "comparison": "COMPARISON_GT",
                    "thresholdValue": 100,
                    "duration": "120s",
                    "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX"}],
                },
            }
        ],
    }


def test_a_policy_made_over_rest_is_the_same_over_grpc(bench: Bench) -> None:
    bench.write(bench.series(1))
    status, made = bench.http("POST", POLICIES, _policy())
    assert status == 200
    seen = bench.policies.get_alert_policy(name=made["name"])
    assert seen.conditions[0].condition_threshold.threshold_value == 100
    assert made["enabled"] is True
    assert made["creationRecord"]["mutateTime"] == "2026-01-05T12:00:00Z"
    status, listed = bench.http("GET", f"{POLICIES}?pageSize=5&alt=json")
    assert (status, listed["totalSize"]) == (200, 1)
    assert listed["alertPolicies"] == [made]
    path = f"/v3/{made['name']}"
    status, changed = bench.http(
        "PATCH",
        f"{path}?updateMask=display_name,userLabels.team",
        {"displayName": "New", "userLabels": {"team": "a"}},
    )
    assert (status, changed["displayName"], changed["userLabels"]) == (200, "New", {"team": "a"})
    assert changed["conditions"] == made["conditions"]
    assert bench.http("DELETE", path) == (200, {})
    assert bench.http("GET", path)[0] == 404


def test_time_series_are_written_and_read_in_googles_json(bench: Bench) -> None:
    series = {
        "metric": {"type": "custom.googleapis.com/depth"},
        "resource": {"type": "global"},
        "points": [{"interval": {"endTime": "2026-01-05T12:00:00Z"}, "value": {"int64Value": "7"}}],
    }
    assert bench.http("POST", f"/v3/{PROJECT}/timeSeries", {"timeSeries": [series]}) == (200, {})
    status, found = bench.http(
        "GET",
        f"/v3/{PROJECT}/timeSeries?filter=metric.type%3D%22custom.googleapis.com/depth%22"
        "&interval.startTime=2026-01-05T11:00:00Z&interval.endTime=2026-01-05T12:00:00Z"
        "&aggregation.alignmentPeriod=60s&aggregation.perSeriesAligner=ALIGN_MAX",
    )
    assert status == 200
    assert found["timeSeries"][0]["points"][0]["value"] == {"int64Value": "7"}
    status, refused = bench.http("POST", f"/v3/{PROJECT}/timeSeries", {"timeSeries": [series]})
    assert (status, refused["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert refused["error"]["details"][0]["@type"].endswith("CreateTimeSeriesSummary")


def test_the_clock_and_readiness_are_told(bench: Bench) -> None:
    status, clock = bench.http("GET", "/emulator/v1/clock")
    assert (status, clock["scale"]) == (200, 1)
    assert clock["nowNs"] == str(bench.clock.now_ns())
