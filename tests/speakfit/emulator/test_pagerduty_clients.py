"""PagerDuty's own client for Python, unmodified but for its address, against the embedded one."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pdpyras
import pytest

from speakfit.emulator.pagerduty_account import DEFAULT_EMAIL
from tests.speakfit.emulator.bench import KEY, NOON, Bench

WARNING_KEY = "w" * 32


@contextmanager
def _session(session: Any, bench: Bench) -> Iterator[Any]:
    session.url = bench.emulator.http_url
    session.trust_env = False
    session.retry = {429: 1}
    session.sleep_timer = 0.01
    with session:
        yield session


def _api(bench: Bench, *, user: str | None = DEFAULT_EMAIL) -> Any:
    return _session(pdpyras.APISession("any-token", default_from=user), bench)


def _events(bench: Bench, key: str = KEY) -> Any:
    return _session(pdpyras.EventsAPISession(key), bench)


def _refused(error: Any) -> tuple[int, dict[str, Any]]:
    response = error.value.response
    return response.status_code, response.json()["error"]


def test_the_life_of_an_incident_from_trigger_over_acknowledge_and_note_to_resolve(
    bench: Bench,
) -> None:
    with _events(bench) as events, _api(bench) as api:
        key = events.trigger(
            "Queue is deep",
            "api-1",
            severity="error",
            custom_details={"depth": 500},
            images=[{"src": "https://x.test/a.png", "alt": "Graph"}],
            links=[{"href": "https://runbooks.test/queue", "text": "Runbook"}],
            payload={"component": "queue", "group": "api", "class": "depth"},
        )
        assert len(key) == 32
        (incident,) = api.list_all("incidents", params={"statuses": ["triggered"]})
        (alert,) = api.list_all(f"incidents/{incident['id']}/alerts")
        assert (alert["alert_key"], alert["severity"]) == (key, "error")
        assert [one["type"] for one in alert["body"]["contexts"]] == ["link", "image"]
        facts = alert["body"]["cef_details"]
        assert (facts["source_component"], facts["service_group"]) == ("queue", "api")
        assert alert == api.rget(f"incidents/{incident['id']}/alerts/{alert['id']}")
        assert events.acknowledge(key) == key
        assert api.rget(incident)["status"] == "acknowledged"
        note = api.rpost(f"incidents/{incident['id']}/notes", json={"content": "Looking at it."})
        assert note["user"]["summary"] == "On Call"
        assert api.rget(f"incidents/{incident['id']}/notes") == [note]
        bench.clock.advance(timedelta(minutes=5))
        done = api.rput(incident, json={"type": "incident_reference", "status": "resolved"})
        assert (done["status"], done["resolved_at"]) == ("resolved", "2026-01-05T12:05:00Z")
        assert done["last_status_change_by"]["type"] == "user_reference"
        assert [
            (one["type"], one["agent"]["type"])
            for one in api.iter_all(f"incidents/{incident['id']}/log_entries")
        ] == [
            ("resolve_log_entry", "user_reference"),
            ("annotate_log_entry", "user_reference"),
            ("acknowledge_log_entry", "service_reference"),
            ("trigger_log_entry", "service_reference"),
        ]
        first = api.rget(f"log_entries/{incident['first_trigger_log_entry']['id']}")
        assert first["channel"]["details"] == {"depth": 500}
        assert len(api.list_all("log_entries")) == 4
        assert events.resolve(key) == key
        events.trigger("Queue is deep", "api-1", dedup_key=key)
        assert [one["status"] for one in api.list_all("incidents")] == ["triggered", "resolved"]


def test_many_incidents_are_acknowledged_and_resolved_at_once_or_not_at_all(bench: Bench) -> None:
    with _events(bench) as events, _api(bench) as api:
        for number in range(3):
            events.trigger("Down", "api", dedup_key=str(number))
        wishes = [
            {"id": one["id"], "type": "incident_reference", "status": "acknowledged"}
            for one in api.list_all("incidents")
        ]
        assert {one["status"] for one in api.rput("incidents", json=wishes)} == {"acknowledged"}
        wishes = [{**one, "status": "resolved"} for one in wishes]
        for wrong in ({"id": "UNKNOWN"}, {"status": "asleep"}, {"type": "service"}):
            with pytest.raises(pdpyras.PDHTTPError) as error:
                api.rput("incidents", json=[*wishes[:2], {**wishes[2], **wrong}])
            assert _refused(error)[0] == 400
        assert {one["status"] for one in api.list_all("incidents")} == {"acknowledged"}
        api.rput("incidents", json=wishes)
        with pytest.raises(pdpyras.PDHTTPError) as error:
            api.rput("incidents", json=wishes[:1])
        assert _refused(error) == (400, {"message": "Incident Already Resolved", "code": 1001})


def test_a_service_that_is_made_gets_a_key_that_events_accept_also_after_a_restart(
    tmp_path: Path,
) -> None:
    with Bench(data_dir=tmp_path) as bench, _api(bench) as api:
        user = api.persist("users", "email", {"name": "Ada", "email": "ada@x.test"})
        rules = [{"escalation_delay_in_minutes": 5, "targets": [{"id": user["id"]}]}]
        policy = api.persist(
            "escalation_policies", "name", {"name": "Ops", "escalation_rules": rules}
        )
        wanted = {
            "name": "Transcripts",
            "escalation_policy": {"id": policy["id"], "type": "escalation_policy_reference"},
            "incident_urgency_rule": {"type": "constant", "urgency": "severity_based"},
        }
        service = api.persist("services", "name", wanted)
        assert api.persist("services", "name", wanted)["id"] == service["id"]
        changed = api.persist("services", "name", {**wanted, "description": "Text"}, update=True)
        assert (changed["id"], changed["description"]) == (service["id"], "Text")
        integration = api.rpost(
            f"services/{service['id']}/integrations",
            json={"type": "events_api_v2_inbound_integration", "name": "Monitoring"},
        )
        key = integration["integration_key"]
        assert len(key) == 32
        on_calls = api.list_all("oncalls", params={"escalation_policy_ids": [policy["id"]]})
        assert [one["user"]["summary"] for one in on_calls] == ["Ada"]
        assert api.rget("services", params={"include": ["integrations"], "query": "transc"})[0][
            "integrations"
        ] == [integration]
    with Bench(data_dir=tmp_path) as bench, _api(bench) as api, _events(bench, key) as events:
        integration = api.rget(f"services/{service['id']}/integrations/{integration['id']}")
        assert integration["integration_key"] == key
        events.trigger("Down", "api", dedup_key="a", severity="critical")
        events.trigger("Slow", "api", dedup_key="b", severity="warning")
        mine = {"service_ids": [service["id"]], "sort_by": "created_at:asc"}
        incidents = api.list_all("incidents", params=mine)
        assert [one["urgency"] for one in incidents] == ["high", "low"]
        assert incidents[0]["assignments"][0]["assignee"]["summary"] == "Ada"
        assert api.rget(f"services/{service['id']}")["status"] == "critical"
        # Another key of the same service does not reach the alert of the first.
        other = api.rpost(
            f"services/{service['id']}/integrations",
            json={"type": "events_api_v2_inbound_integration"},
        )
        with _events(bench, other["integration_key"]) as others:
            others.resolve("a")
        assert api.rget(incidents[0])["status"] == "triggered"
        api.rput(f"services/{service['id']}", json={"status": "disabled"})
        events.trigger("Down again", "api", dedup_key="c")
        assert len(api.list_all("incidents", params=mine)) == 2
        api.rdelete(integration)
        with pytest.raises(pdpyras.PDHTTPError, match="400"):
            events.trigger("Down", "api")
        api.rdelete(f"services/{service['id']}")
        api.rdelete(f"escalation_policies/{policy['id']}")
        api.rdelete(f"users/{user['id']}")
        assert [one["name"] for one in api.list_all("services")] == [
            "SpeakFit critical",
            "SpeakFit warning",
        ]


def _layer(start: datetime, end: datetime, *users: str) -> dict[str, Any]:
    """A rotation of an hour each."""
    return {
        "start": start.isoformat(),
        "end": end.isoformat(),
        "rotation_virtual_start": start.isoformat(),
        "rotation_turn_length_seconds": 3_600,
        "users": [{"user": {"id": user, "type": "user_reference"}} for user in users],
    }


def test_the_first_level_with_somebody_on_call_gets_the_incident_and_with_nobody_there_is_none(
    bench: Bench,
) -> None:
    with _events(bench) as events, _api(bench) as api:
        ada, ben = (
            api.rpost("users", json={"name": name, "email": f"{name}@x.test"})["id"]
            for name in ("Ada", "Ben")
        )
        hour = timedelta(hours=1)
        schedule = api.rpost(
            "schedules",
            json={
                "name": "Office",
                "time_zone": "Etc/UTC",
                "schedule_layers": [_layer(NOON, NOON + 3 * hour, ada, ben)],
            },
        )
        later = api.rpost(
            "schedules",
            json={
                "name": "Evening",
                "time_zone": "Etc/UTC",
                "schedule_layers": [_layer(NOON - hour, NOON + 4 * hour, ben)],
            },
        )
        policy = api.find("escalation_policies", "Default")
        api.rput(
            policy,
            json={
                "escalation_rules": [
                    {"targets": [{"id": one["id"], "type": "schedule_reference"}]}
                    for one in (schedule, later)
                ]
            },
        )

        def on_call() -> list[tuple[str, int, str]]:
            wish = {"escalation_policy_ids": [policy["id"]]}
            return [
                (one["user"]["summary"], one["escalation_level"], one["schedule"]["summary"])
                for one in api.iter_all("oncalls", params=wish)
            ]

        def assigned(key: str) -> list[str] | None:
            events.trigger("Down", "api", dedup_key=key)
            found = api.list_all("incidents", params={"incident_key": key})
            if not found:
                return None
            return [one["assignee"]["summary"] for one in found[0]["assignments"]]

        assert on_call() == [("Ada", 1, "Office"), ("Ben", 2, "Evening")]
        assert assigned("first hour") == ["Ada"]
        bench.clock.advance(hour)
        (turn,) = api.list_all("oncalls", params={"schedule_ids": [schedule["id"]]})
        assert (turn["start"], turn["end"]) == ("2026-01-05T13:00:00Z", "2026-01-05T14:00:00Z")
        assert assigned("second hour") == ["Ben"]
        bench.clock.advance(2 * hour)
        assert on_call() == [("Ben", 2, "Evening")]
        assert assigned("the second level") == ["Ben"]
        bench.clock.advance(hour)
        assert on_call() == []
        assert assigned("nobody") is None
        for place in (f"schedules/{schedule['id']}", f"users/{ada}"):
            with pytest.raises(pdpyras.PDHTTPError) as error:
                api.rdelete(place)
            assert _refused(error)[0] == 400


def test_a_service_in_maintenance_takes_events_and_opens_nothing(bench: Bench) -> None:
    with _events(bench) as events, _api(bench) as api:
        service = api.find("services", "SpeakFit critical")
        window = api.rpost(
            "maintenance_windows",
            json={
                "type": "maintenance_window",
                "start_time": (NOON + timedelta(hours=1)).isoformat(),
                "end_time": (NOON + timedelta(hours=2)).isoformat(),
                "description": "Move",
                "services": [{"id": service["id"], "type": "service_reference"}],
            },
        )

        def count(phase: str) -> int:
            wish = {"filter": phase, "service_ids": [service["id"]]}
            return len(api.list_all("maintenance_windows", params=wish))

        assert [count(one) for one in ("future", "ongoing", "open", "past", "all")] == [
            1, 0, 1, 0, 1,
        ]  # fmt: skip
        bench.clock.advance(timedelta(hours=1))
        assert [count(one) for one in ("future", "ongoing", "open", "past")] == [0, 1, 1, 0]
        assert api.rget(service)["status"] == "maintenance"
        events.trigger("Down", "api")
        assert api.list_all("incidents") == []
        api.rdelete(window)
        assert api.rget(window)["end_time"] == "2026-01-05T13:00:00Z"
        assert (count("past"), api.rget(service)["status"]) == (1, "active")
        with pytest.raises(pdpyras.PDHTTPError) as error:
            api.rdelete(window)
        assert _refused(error)[0] == 405
        events.trigger("Down", "api")
        assert len(api.list_all("incidents")) == 1


def test_lists_are_filtered_by_status_service_urgency_and_time_and_come_in_pages(
    bench: Bench,
) -> None:
    with _events(bench) as loud, _events(bench, WARNING_KEY) as soft, _api(bench) as api:
        for day in range(40):
            (loud if day % 2 else soft).trigger("Down", "api", dedup_key=str(day))
            bench.clock.advance(timedelta(days=1))
        loud.resolve("39")

        def count(**params: Any) -> int:
            return len(api.list_all("incidents", params=params, page_size=7))

        everything = {"date_range": "all"}
        assert count() == 30
        assert count(**everything) == 40
        assert count(**everything, statuses=["triggered", "acknowledged"]) == 39
        assert count(**everything, urgencies=["low"]) == 20
        service = api.find("services", "SpeakFit critical")
        assert count(**everything, service_ids=[service["id"]], statuses=["resolved"]) == 1
        assert count(**everything, incident_key="5") == 1
        since = (NOON + timedelta(days=3)).isoformat()
        assert count(since=since, until=(NOON + timedelta(days=5)).isoformat()) == 2
        numbers = [
            one["incident_number"]
            for one in api.iter_all(
                "incidents", params={**everything, "sort_by": "incident_number:asc"}, page_size=9
            )
        ]
        assert numbers == list(range(1, 41))
        seen: list[object] = []
        api.list_all(
            "incidents", params=everything, total=True, item_hook=lambda *facts: seen.append(facts)
        )
        assert {facts[2] for facts in seen} == {40}  # type: ignore[index]


def test_a_change_is_told_to_its_service_and_to_incidents_and_pages_nobody(bench: Bench) -> None:
    with (
        _session(pdpyras.ChangeEventsAPISession(KEY), bench) as changes,
        _events(bench) as events,
        _api(bench) as api,
    ):
        changes.submit("Deployed 1.2", source="ci", custom_details={"build": 7})
        assert api.list_all("incidents") == []
        (change,) = api.list_all("change_events")
        assert (change["summary"], change["source"]) == ("Deployed 1.2", "ci")
        assert change["custom_details"] == {"build": 7}
        assert api.rget(f"change_events/{change['id']}") == change
        service = change["services"][0]["id"]
        assert api.list_all(f"services/{service}/change_events") == [change]
        events.trigger("Down", "api")
        (incident,) = api.list_all("incidents")
        assert api.rget(f"incidents/{incident['id']}/related_change_events") == [change]


def test_writes_in_a_name_need_a_user_and_pdpyras_tells_the_kind_of_token(bench: Bench) -> None:
    with _events(bench) as events, _api(bench, user=None) as nameless:
        events.trigger("Down", "api")
        (incident,) = nameless.list_all("incidents")
        wish = {"type": "incident_reference", "status": "acknowledged"}
        with pytest.raises(pdpyras.PDHTTPError) as error:
            nameless.rput(incident, json=wish)
        status, body = _refused(error)
        assert (status, '"From" header' in body["message"]) == (400, True)
        assert nameless.api_key_access == "account"
    with _api(bench, user="nobody@x.test") as stranger:
        with pytest.raises(pdpyras.PDHTTPError) as error:
            stranger.rpost(f"incidents/{incident['id']}/notes", json={"content": "Hello"})
        assert _refused(error) == (400, {"message": "Requester User Not Found", "code": 1008})
        assert stranger.rget(incident)["status"] == "triggered"


def test_a_person_can_open_an_incident_and_it_has_no_alert(bench: Bench) -> None:
    with _api(bench) as api:
        service = api.find("services", "SpeakFit warning")
        wish = {
            "type": "incident",
            "title": "Somebody called",
            "service": {"id": service["id"], "type": "service_reference"},
            "incident_key": "call-1",
        }
        incident = api.rpost("incidents", json=wish)
        assert (incident["urgency"], incident["incident_key"]) == ("low", "call-1")
        assert api.list_all(f"incidents/{incident['id']}/alerts") == []
        with pytest.raises(pdpyras.PDHTTPError) as error:
            api.rpost("incidents", json=wish)
        assert "matching dedup key" in _refused(error)[1]["errors"][0]


def _call(
    bench: Bench, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        bench.emulator.http_url + path, data=raw, method=method, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


TOKEN = {"Authorization": "Token token=abc", "From": DEFAULT_EMAIL}


@pytest.fixture(scope="module")
def still() -> Iterator[Bench]:
    """One emulator for all refusals: none of them may change anything."""
    with Bench() as started:
        yield started


@pytest.mark.parametrize("header", [None, "", "abc", "Token abc", "Token token=", "Basic YTpi"])
def test_a_call_without_a_token_in_the_documented_form_is_a_401(
    still: Bench, header: str | None
) -> None:
    given = {} if header is None else {"Authorization": header}
    answer = _call(still, "GET", "/incidents", **given)
    assert answer == (401, {"error": {"message": "Authentication failed", "code": 2006}})


def test_what_is_not_there_is_a_404_in_pagerdutys_form(still: Bench) -> None:
    for method, path in (
        ("GET", "/incidents/UNKNOWN"),
        ("GET", "/incidents/UNKNOWN/notes"),
        ("PUT", "/incidents/UNKNOWN"),
        ("GET", "/services/UNKNOWN/integrations/UNKNOWN"),
        ("DELETE", "/services/UNKNOWN"),
        ("PATCH", "/users"),
        ("GET", "/users/UNKNOWN/sessions"),
    ):
        answer = _call(still, method, path, {} if method == "PUT" else None, **TOKEN)
        assert answer == (404, {"error": {"message": "Not Found", "code": 2100}}), path


BAD_QUERIES = {
    "limit=many": 2001,
    "limit=0": 2001,
    "offset=-1": 2001,
    "limit=100&offset=9901": 2001,
    "statuses[]=asleep": 2001,
    "urgencies[]=loud": 2001,
    "sort_by=colour": 2001,
    "since=yesterday": 2004,
    "since=2026-01-02&until=2026-01-01": 2005,
    "since=2025-01-01&until=2026-01-01": 2005,
    "until=0001-01-01": 2005,
}


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_query_that_breaks_a_rule_is_a_400_with_the_documented_code(
    still: Bench, query: str
) -> None:
    status, body = _call(still, "GET", f"/incidents?{query}", **TOKEN)
    assert (status, body["error"]["code"]) == (400, BAD_QUERIES[query])


BAD_BODIES: list[tuple[str, str, object]] = [
    ("POST", "/services", b"{"),
    ("POST", "/services", []),
    ("POST", "/services", {"name": "unwrapped"}),
    ("POST", "/services", {"service": {"name": ""}}),
    ("POST", "/services", {"service": {"name": "SpeakFit Critical"}}),
    ("POST", "/services", {"service": {"name": "new", "escalation_policy": {"id": "NONE"}}}),
    ("POST", "/services", {"service": {"name": "new", "incident_urgency_rule": "high"}}),
    ("POST", "/services", {"service": {"name": "x" * 256}}),
    ("POST", "/users", {"user": {"name": "Ada", "email": "nowhere"}}),
    ("POST", "/users", {"user": {"name": "Twin", "email": DEFAULT_EMAIL.upper()}}),
    ("POST", "/users", {"user": {"name": 7, "email": "a@x.test"}}),
    ("POST", "/escalation_policies", {"escalation_policy": {"name": "new"}}),
    (
        "POST",
        "/escalation_policies",
        {"escalation_policy": {"name": "new", "escalation_rules": [{"targets": [{"id": "X"}]}]}},
    ),
    ("POST", "/schedules", {"schedule": {"name": "x", "time_zone": "Etc/UTC"}}),
    (
        "POST",
        "/schedules",
        {"schedule": {"name": "x", "time_zone": "Etc/UTC", "schedule_layers": [{"start": "now"}]}},
    ),
    (
        "POST",
        "/maintenance_windows",
        {"maintenance_window": {"start_time": "2026-01-05T12:00:00Z", "end_time": "noon"}},
    ),
    ("PUT", "/incidents", {"incidents": []}),
    ("PUT", "/incidents", {"incidents": [7]}),
    ("POST", "/incidents", {"incident": {"title": "x", "service": {"id": "NONE"}}}),
    ("POST", "/services", b'{"service": {"name": "\\ud800"}}'),
    ("POST", "/services", b"[" * 100_000),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD_BODIES)
def test_a_body_that_breaks_a_rule_is_a_400_and_changes_nothing(
    still: Bench, method: str, path: str, body: object
) -> None:
    before = [_call(still, "GET", place, **TOKEN) for place in ("/services", "/users")]
    status, answer = _call(still, method, path, body, **TOKEN)
    assert status == 400
    assert set(answer["error"]) >= {"message", "code"}
    after = [_call(still, "GET", place, **TOKEN) for place in ("/services", "/users")]
    assert before == after
