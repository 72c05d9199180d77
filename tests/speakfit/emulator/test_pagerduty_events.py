"""The embedded PagerDuty: Events API v2 in, incidents out, as PagerDuty documents them."""

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.speakfit.emulator.bench import KEY, Bench

WARNING_KEY = "w" * 32


def _event(action: str = "trigger", **changes: object) -> dict[str, Any]:
    event: dict[str, Any] = {
        "routing_key": KEY,
        "event_action": action,
        "dedup_key": "one",
        "payload": {"summary": "Down", "source": "api", "severity": "critical"},
    }
    event.update(changes)
    return event


def _enqueue(bench: Bench, event: object) -> tuple[int, dict[str, Any]]:
    return bench.http("POST", "/v2/enqueue", event)


def _statuses(bench: Bench, query: str = "") -> list[str]:
    return [one["status"] for one in bench.http("GET", f"/incidents{query}")[1]["incidents"]]


def test_a_trigger_opens_one_incident_however_often_it_comes(bench: Bench) -> None:
    answer = {"status": "success", "message": "Event processed", "dedup_key": "one"}
    assert _enqueue(bench, _event()) == (202, answer)
    assert _enqueue(bench, _event()) == (202, answer)
    assert _statuses(bench) == ["triggered"]
    _enqueue(bench, _event("acknowledge"))
    _enqueue(bench, _event())
    assert _statuses(bench) == ["acknowledged"]
    _enqueue(bench, _event("resolve"))
    assert _statuses(bench) == ["resolved"]
    _enqueue(bench, _event())
    assert _statuses(bench) == ["triggered", "resolved"]


def test_keys_match_only_under_their_own_service_and_urgency_follows_it(bench: Bench) -> None:
    _enqueue(bench, _event())
    _enqueue(bench, _event("resolve", routing_key=WARNING_KEY))
    assert _statuses(bench) == ["triggered"]
    _enqueue(bench, _event(routing_key=WARNING_KEY))
    found = bench.http("GET", "/incidents?sort_by=created_at:asc")[1]["incidents"]
    assert [(one["service"]["summary"], one["urgency"]) for one in found] == [
        ("SpeakFit critical", "high"),
        ("SpeakFit warning", "low"),
    ]
    assert _statuses(bench, "?urgencies[]=low&statuses[]=triggered") == ["triggered"]
    services = bench.http("GET", "/services")[1]["services"]
    assert [one["name"] for one in services] == ["SpeakFit critical", "SpeakFit warning"]
    assert KEY not in str(services) + str(found)


def test_resolving_what_is_not_open_is_taken_and_dropped(bench: Bench) -> None:
    assert _enqueue(bench, _event("resolve"))[0] == 202
    assert _statuses(bench) == []


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"{", "JSON parse error"),
        (_event(routing_key=""), "'routing_key' is missing or blank"),
        (_event(routing_key="short"), "Length of 'routing_key' is incorrect"),
        (_event(routing_key="u" * 32), "Invalid routing key"),
        (_event("shout"), "'event_action' is invalid"),
        (_event("resolve", dedup_key=None), "'dedup_key' is missing or blank"),
        (_event(dedup_key="x" * 256), "'dedup_key' is too long"),
        (_event(payload={"source": "a", "severity": "info"}), "'payload.summary' is missing"),
        (_event(payload={"summary": "a", "source": "a", "severity": "bad"}), "is invalid"),
        (_event(payload=None), "'payload' is missing or blank"),
        (_event(links=[{"text": "no address"}]), "'links[0].href' is missing or blank"),
    ],
)
def test_an_event_that_breaks_a_rule_is_a_400_that_names_it(
    bench: Bench, event: object, error: str
) -> None:
    status, answer = _enqueue(bench, event)
    assert (status, answer["status"]) == (400, "invalid event")
    assert any(error in text for text in answer["errors"])
    assert _statuses(bench) == []


def test_lists_come_in_pages(bench: Bench) -> None:
    for number in range(5):
        _enqueue(bench, _event(dedup_key=str(number)))
    status, page = bench.http("GET", "/incidents?limit=2&offset=2&total=true")
    assert status == 200
    assert (len(page["incidents"]), page["more"], page["total"]) == (2, True, 5)
    assert bench.http("GET", "/incidents?limit=2&offset=4")[1]["more"] is False
    assert bench.http("GET", "/incidents?limit=many")[0] == 400
    for path in ("/incidents/UNKNOWN", "/incidents-of-others", "/services/UNKNOWN"):
        assert bench.http("GET", path)[0] == 404


def test_more_than_120_events_a_minute_are_told_to_wait(bench: Bench) -> None:
    answers = [_enqueue(bench, _event("resolve"))[0] for _ in range(121)]
    assert answers == [202] * 120 + [429]


def test_change_events_are_taken(bench: Bench) -> None:
    change = {"routing_key": KEY, "payload": {"summary": "Deployed"}}
    assert bench.http("POST", "/v2/change/enqueue", change)[0] == 202
    assert bench.http("POST", "/v2/change/enqueue", {"routing_key": KEY})[0] == 400


def test_incidents_survive_a_restart(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        _enqueue(bench, _event())
    with Bench(data_dir=tmp_path) as bench:
        assert _statuses(bench) == ["triggered"]
        _enqueue(bench, _event("resolve"))
        assert _statuses(bench) == ["resolved"]


def test_the_console_escapes_what_it_shows_and_links_only_to_pages(bench: Bench) -> None:
    bench.write(bench.series(1))
    bench.create(display_name="<script>alert(1)</script>")
    _enqueue(
        bench,
        _event(
            payload={"summary": "<img src=x>", "source": "api", "severity": "warning"},
            links=[
                {"href": "https://runbooks.test/queue-depth", "text": "Runbook"},
                {"href": "javascript:alert(1)", "text": "Trap"},
                {"href": 'https://x.test/" onclick="alert(1)', "text": "Other trap"},
            ],
        ),
    )
    with urllib.request.urlopen(bench.emulator.http_url) as answer:
        html = answer.read().decode()
    assert "<script>" not in html
    assert "<img" not in html
    assert 'href="https://runbooks.test/queue-depth"' in html
    assert 'href="javascript' not in html
    assert 'onclick="' not in html
    assert ">quiet<" in html
