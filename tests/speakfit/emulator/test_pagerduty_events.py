"""The embedded PagerDuty: Events API v2 in, incidents out, as PagerDuty documents them."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

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


def _payload(**changes: object) -> dict[str, object]:
    return {"summary": "Down", "source": "api", "severity": "critical", **changes}


def _enqueue(bench: Bench, event: object) -> tuple[int, dict[str, Any]]:
    return bench.http("POST", "/v2/enqueue", event)


def _statuses(bench: Bench, query: str = "") -> list[str]:
    return [one["status"] for one in bench.http("GET", f"/incidents{query}")[1]["incidents"]]


@pytest.fixture(scope="module")
def still() -> Iterator[Bench]:
    """One emulator for all refusals: none of them may change anything."""
    with Bench() as started:
        yield started


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
        (_event(links={"href": "https://x.test"}), "'links' is not an array"),
        (_event(links=[{"href": "https://x.test", "text": 7}]), "'links[0].text' is not a string"),
        (_event(images=[{"href": "https://x.test"}]), "'images[0].src' is missing or blank"),
        (_event(images=[{"src": "http://x.test"}]), "'images[0].src' is not an https address"),
        (_event(client=["a"]), "'client' is not a string"),
        (_event(client_url=7), "'client_url' is not a string"),
        (_event(dedup_key=7), "'dedup_key' is not a string"),
        (_event("resolve", dedup_key=""), "'dedup_key' is missing or blank"),
        (_event(["trigger"]), "'event_action' is invalid"),
        (_event(None), "'event_action' is missing or blank"),
        (_event(routing_key=7), "'routing_key' is missing or blank"),
        (_event(payload=_payload(summary="x" * 1_025)), "'payload.summary' is too long"),
        (_event(payload=_payload(summary=" ")), "'payload.summary' is missing or blank"),
        (_event(payload=_payload(source=7)), "'payload.source' is not a string"),
        (_event(payload=_payload(timestamp="noon")), "'payload.timestamp' is invalid"),
        (_event(payload=_payload(component={})), "'payload.component' is not a string"),
        (_event(payload=_payload(group=1)), "'payload.group' is not a string"),
        (_event(payload=_payload(custom_details=[1])), "'payload.custom_details' is not an object"),
        (b"[]", "Event object is not a JSON object"),
        (b"\xff\xfe", "JSON parse error"),
        (b'{"payload": ' + b"[" * 50_000, "JSON parse error"),
        (b'{"client": "\\ud800"}', "JSON parse error"),
        (b'{"client": NaN}', "JSON parse error"),
    ],
)
def test_an_event_that_breaks_a_rule_is_a_400_that_names_it(
    still: Bench, event: object, error: str
) -> None:
    status, answer = _enqueue(still, event)
    assert (status, answer["status"]) == (400, "invalid event")
    assert any(error in text for text in answer["errors"])
    assert _statuses(still) == []


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


def test_more_than_120_events_a_minute_and_key_are_told_to_wait(bench: Bench) -> None:
    answers = [_enqueue(bench, _event("resolve"))[0] for _ in range(120)]
    assert answers == [202] * 120
    raw = json.dumps(_event()).encode()
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(bench.emulator.http_url + "/v2/enqueue", data=raw)
    with caught.value as error:
        assert error.code == 429
        assert 1 <= int(error.headers["Retry-After"]) <= 60
        assert json.loads(error.read())["status"] == "throttle exceeded"
    assert _statuses(bench) == []
    assert _enqueue(bench, _event(routing_key=WARNING_KEY))[0] == 202


def test_the_longest_event_is_taken_and_one_byte_more_is_not(bench: Bench) -> None:
    payload = _payload(
        summary="s" * 1_024, timestamp="2015-07-17T08:42:58.315+0000", custom_details={"a": ""}
    )
    event = _event(dedup_key="d" * 255, payload=payload)
    payload["custom_details"] = {"a": "x" * (512 * 1_024 - len(json.dumps(event)))}
    raw = json.dumps(event).encode()
    assert len(raw) == 512 * 1_024
    assert _enqueue(bench, raw)[0] == 202
    assert _enqueue(bench, raw + b" ")[0] == 413
    assert _enqueue(bench, b" " * 9_000_000)[0] == 413
    assert _statuses(bench) == ["triggered"]


def test_without_a_dedup_key_each_trigger_opens_an_incident_under_a_key_of_its_own(
    bench: Bench,
) -> None:
    keys = {_enqueue(bench, _event(dedup_key=None))[1]["dedup_key"] for _ in range(3)}
    assert (len(keys), _statuses(bench)) == (3, ["triggered"] * 3)
    for key in keys:
        assert _enqueue(bench, _event("resolve", dedup_key=key))[0] == 202
    assert _statuses(bench) == ["resolved"] * 3


def test_change_events_are_taken(bench: Bench) -> None:
    change = {"routing_key": KEY, "payload": {"summary": "Deployed"}}
    assert bench.http("POST", "/v2/change/enqueue", change)[0] == 202
    assert bench.http("POST", "/v2/change/enqueue", {"routing_key": KEY})[0] == 400
    for wrong in ({"summary": ""}, {"summary": "x" * 1_025}, {"summary": "x", "timestamp": 7}):
        answer = bench.http("POST", "/v2/change/enqueue", {**change, "payload": wrong})
        assert answer[0] == 400, wrong
    assert len(bench.http("GET", "/change_events")[1]["change_events"]) == 1


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
