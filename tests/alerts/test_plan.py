"""The pure comparison: what counts as a difference and what does not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from alerts.plan import Action, Desired, Kind, Live, Plan, desired_state, make_plan
from alerts.policies import CATALOG
from alerts.secret import key_digest
from speakfit.errors import CatalogError

DESIRED = desired_state(
    CATALOG,
    runbook_base_url="https://runbooks.test",
    digests={"critical": key_digest("c" * 32), "warning": key_digest("w" * 32)},
)
WARNING = "queue-depth-warning"


def as_server(desired: Desired = DESIRED) -> Live:
    """What a server would answer after an apply: names and records added, defaults spelled out."""
    channels, policies = [], []
    for number, body in enumerate(desired.channels.values(), 1):
        channels.append(
            {
                **deepcopy(body),
                "name": f"projects/p/notificationChannels/{number}",
                "labels": {"service_key": "************cccc"},
                "creationRecord": {"mutateTime": "2026-01-01T00:00:00Z"},
            }
        )
    names = {c["userLabels"]["channel"]: c["name"] for c in channels}
    for number, body in enumerate(desired.policies.values(), 1):
        policy: dict[str, Any] = deepcopy(body)
        policy["name"] = f"projects/p/alertPolicies/{number}"
        policy["mutationRecord"] = {"mutateTime": "2026-01-02T00:00:00Z", "mutatedBy": "ben@x.test"}
        policy["notificationChannels"] = [
            names[channel.removeprefix("channel:")] for channel in policy["notificationChannels"]
        ]
        for index, condition in enumerate(policy["conditions"]):
            condition["name"] = f"{policy['name']}/conditions/{index}"
        policies.append(policy)
    return Live(
        metrics=tuple(deepcopy(body) for body in desired.metrics.values()),
        channels=tuple(channels),
        policies=tuple(policies),
    )


def edited(policy_id: str, edit: Any) -> Plan:
    live = as_server()
    policy = next(p for p in live.policies if p["userLabels"]["alert-id"] == policy_id)
    edit(policy)
    return make_plan(DESIRED, live)


def threshold(policy: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = policy["conditions"][0]["conditionThreshold"]
    return found


def test_what_a_server_adds_is_no_change() -> None:
    assert make_plan(DESIRED, as_server()).changes == ()


SPELLINGS = {
    "filter order, label for labels, layout": lambda p: threshold(p).update(
        filter='resource.type="generic_task"\n  metric.type="'
        + DESIRED.policies[WARNING]["conditions"][0]["conditionThreshold"]["filter"].split('"')[1]
        + '"'
    ),
    "trigger unset": lambda p: threshold(p).pop("trigger"),
    "enabled unset": lambda p: p.pop("enabled"),
    "missing data unset is no-op": lambda p: threshold(p).pop("evaluationMissingData"),
    "durations with fractions": lambda p: threshold(p).update(duration="300.000s"),
    "mime type unset": lambda p: p["documentation"].pop("mimeType"),
    "conditions in another order": lambda p: p["conditions"].reverse(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_is_no_change(spelling: str) -> None:
    assert edited(WARNING, SPELLINGS[spelling]).changes == ()


def test_a_dropped_default_reducer_is_no_change() -> None:
    live = as_server()
    for policy in live.policies:
        for condition in policy["conditions"]:
            (body,) = [v for k, v in condition.items() if k.startswith("condition")]
            for one in body["aggregations"]:
                one["groupByFields"] = [
                    field.replace("metric.labels.", "metric.label.")
                    for field in one.get("groupByFields", ())
                ]
    assert make_plan(DESIRED, live).changes == ()


EDITS = {
    'conditions["chunks accepted and not finished"].conditionThreshold.thresholdValue': (
        lambda p: threshold(p).update(thresholdValue=99.0)
    ),
    'conditions["chunks accepted and not finished"].conditionThreshold.comparison': (
        lambda p: threshold(p).update(comparison="COMPARISON_LT")
    ),
    'conditions["chunks accepted and not finished"].conditionThreshold.forecastOptions'
    ".forecastHorizon": lambda p: threshold(p).update(forecastOptions={"forecastHorizon": "3600s"}),
    "alertStrategy.autoClose": lambda p: p["alertStrategy"].update(autoClose="604800s"),
    "enabled": lambda p: p.update(enabled=False),
    "notificationChannels": lambda p: p.update(notificationChannels=[]),
    "severity": lambda p: p.pop("severity"),
    "userLabels.team": lambda p: p["userLabels"].update(team="x"),
}


@pytest.mark.parametrize("path", EDITS)
def test_an_edit_shows_as_exactly_its_field(path: str) -> None:
    (change,) = edited(WARNING, EDITS[path]).changes
    assert [field.path for field in change.fields] == [path]
    assert change.reason == "edited in Cloud Monitoring by ben@x.test at 2026-01-02T00:00:00Z"


def test_a_change_in_code_is_told_from_an_edit() -> None:
    moved = desired_state(CATALOG, runbook_base_url="https://elsewhere.test", digests={})
    plan = make_plan(moved, as_server())
    assert {change.reason for change in plan.changes} == {"changed in code"}
    live = as_server()
    for policy in live.policies:
        policy["enabled"] = False
    both = make_plan(moved, live)
    assert all(
        change.reason.startswith("changed in code; edited in Cloud Monitoring")
        for change in both.changes
    )


def test_an_update_sends_the_names_of_conditions_it_keeps() -> None:
    def rename(policy: dict[str, Any]) -> None:
        policy["conditions"][1]["displayName"] = "renamed in the console"

    (change,) = edited("transcription-stalled-critical", rename).changes
    names = [condition.get("name") for condition in change.body["conditions"]]
    assert [name is None for name in names] == [False, True, False]
    assert change.mask, "an empty mask would replace the whole policy"


def test_the_secret_is_in_no_plan() -> None:
    live = as_server()
    live.channels[0]["userLabels"]["key-digest"] = "0" * 32
    planned = make_plan(DESIRED, live)
    (change,) = planned.changes
    assert (change.kind, change.action, change.secret) == (Kind.CHANNEL, Action.UPDATE, True)
    assert "labels" in change.mask
    assert "c" * 32 not in repr(planned)


def test_a_metric_of_another_kind_is_refused_because_no_write_can_mend_it() -> None:
    live = as_server()
    live.metrics[0]["metricKind"] = "GAUGE"
    with pytest.raises(CatalogError, match="metricKind is GAUGE"):
        make_plan(DESIRED, live)


def test_a_metric_that_lacks_a_label_gets_it_and_keeps_its_own() -> None:
    live = as_server()
    live.metrics[0]["labels"] = [{"key": "added_by_hand"}, *live.metrics[0]["labels"][1:]]
    (change,) = make_plan(DESIRED, live).changes
    keys = {label["key"] for label in change.body["labels"]}
    assert "added_by_hand" in keys
    assert keys > {label["key"] for label in DESIRED.metrics[change.id]["labels"]}


def test_label_values_fit_the_api() -> None:
    for body in [*DESIRED.policies.values(), *DESIRED.channels.values()]:
        for value in body["userLabels"].values():
            assert len(value) <= 63
            assert value == value.lower()
