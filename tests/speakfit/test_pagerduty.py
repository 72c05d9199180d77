"""Sending through pdpyras to the embedded PagerDuty, and what happens when it does not work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pdpyras
import pytest

from speakfit.emulator.pagerduty_account import DEFAULT_EMAIL
from speakfit.errors import PagerDutyError
from speakfit.pagerduty import (
    Link,
    PagerDutyApi,
    Resolve,
    ServiceSettings,
    Severity,
    Trigger,
    incidents,
    send,
)
from tests.speakfit.emulator.bench import KEY, NOON, Bench
from tests.unreliable_pagerduty import (
    BAD_TOKEN,
    RATE_LIMIT,
    READ_ONLY,
    Fault,
    Proxy,
    unreliable_pagerduty,
)

TRIGGER = Trigger(
    routing_key=KEY,
    dedup_key="one",
    summary="Queue is deep",
    source="api",
    severity=Severity.CRITICAL,
    component="queue-depth-critical",
    custom_details={"observed_value": "500.000"},
    links=(Link(href="https://runbooks.test/queue-depth", text="Runbook"),),
)


@contextmanager
def _server(status: int) -> Iterator[tuple[str, list[str]]]:
    """A PagerDuty that answers everything with one status, and the requests it saw."""
    seen: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, *_args: object) -> None:
            """Quiet: the test says what it needs to."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_trigger_and_its_resolve_are_read_back_with_link_and_details() -> None:
    with Bench() as bench:
        url = bench.emulator.http_url
        assert send(TRIGGER, url) == "one"
        (incident,) = incidents(url, "any-token")
        assert incident.title == "Queue is deep"
        assert incident.links == TRIGGER.links
        assert incident.details == {"observed_value": "500.000"}
        assert incident.component == "queue-depth-critical"
        assert (incident.status, incident.severity) == ("triggered", "critical")
        send(Resolve(routing_key=KEY, dedup_key="one"), url)
        assert incidents(url, "any-token")[0].status == "resolved"


def test_a_refused_event_is_not_worth_a_retry_and_no_text_shows_the_key() -> None:
    with Bench() as bench:
        secret = "s" * 32
        event = Resolve(routing_key=secret, dedup_key="one")
        with pytest.raises(PagerDutyError, match="Invalid routing key") as caught:
            send(event, bench.emulator.http_url)
        assert caught.value.retry is False
        assert secret not in str(caught.value) + repr(event)


# 200, 400 without a body and 403 come from a login page or a proxy on the way there.
@pytest.mark.parametrize(
    ("status", "tries"), [(429, 2), (500, 1), (503, 1), (200, 1), (400, 1), (403, 1)]
)
def test_whatever_is_not_said_about_the_event_is_worth_a_retry_later(
    status: int, tries: int
) -> None:
    with _server(status) as (url, seen):
        with pytest.raises(PagerDutyError, match=str(status)) as caught:
            send(TRIGGER, url)
        assert caught.value.retry is True
        assert seen == ["/v2/enqueue"] * tries


def test_a_pagerduty_that_is_not_there_is_worth_a_retry_later() -> None:
    with _server(202) as (url, _seen):
        gone = url
    with pytest.raises(PagerDutyError, match="does not answer") as caught:
        send(TRIGGER, gone)
    assert caught.value.retry is True


def test_a_rejected_token_is_told_without_showing_it() -> None:
    with _server(401) as (url, _seen):
        with pytest.raises(PagerDutyError, match="401") as caught:
            send(TRIGGER, url)
        assert "cccc" not in str(caught.value)


def test_a_summary_that_is_too_long_is_cut_because_a_page_must_not_be_lost() -> None:
    long = Trigger(
        routing_key=KEY, dedup_key="one", summary="x" * 5_000, source="a", severity=Severity.INFO
    )
    assert len(long.to_json()["payload"]["summary"]) == 1_024


TOKEN = "a-very-secret-4711"


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as started:
        yield started


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    with unreliable_pagerduty(bench.emulator.http_url) as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    """How long would have been slept."""
    return []


@pytest.fixture
def api(proxy: Proxy, naps: list[float]) -> Iterator[PagerDutyApi]:
    with PagerDutyApi(proxy.url, TOKEN, sleep=naps.append) as running:
        yield running


def test_a_service_is_made_changed_and_read_back_and_its_key_is_never_shown(
    api: PagerDutyApi,
) -> None:
    policy = api.escalation_policies()["Default"]
    settings = ServiceSettings(
        name="Payments",
        urgency="low",
        escalation_policy_id=policy,
        auto_resolve_timeout=timedelta(hours=4),
    )
    made = api.create_service(settings)
    integration = api.create_integration(made.id, "Google Cloud Monitoring")
    api.update_service(made, replace(settings, urgency="severity_based"))
    found = next(one for one in api.services() if one.name == "Payments")
    assert (found.urgency, found.escalation_policy) == ("severity_based", "Default")
    assert (found.acknowledgement_timeout, found.auto_resolve_timeout) == (
        None,
        timedelta(hours=4),
    )
    assert found.integrations == (integration,)
    assert len(integration.key) == 32
    assert integration.key not in repr(found)
    assert [(one.user, one.level) for one in api.on_call(policy)] == [("On Call", 1)]
    assert api.maintenance_until(found.id) is None


def test_incidents_are_read_by_time_status_service_and_key(api: PagerDutyApi, bench: Bench) -> None:
    for key in ("early", "late"):
        send(replace(TRIGGER, dedup_key=key), bench.emulator.http_url)
        bench.clock.advance(timedelta(hours=1))
    send(Resolve(routing_key=KEY, dedup_key="late"), bench.emulator.http_url)
    loud, soft = api.services()
    (late,) = api.incidents(since=NOON + timedelta(minutes=1))
    assert (late.dedup_key, late.assigned_to, late.status) == ("late", (), "resolved")
    (early,) = api.incidents(statuses=["triggered", "acknowledged"])
    assert (early.dedup_key, early.assigned_to) == ("early", ("On Call",))
    assert early.escalation_policy == "Default"
    assert len(api.incidents(service_ids=[loud.id])) == 2
    assert api.incidents(service_ids=[soft.id]) == []
    assert [one.dedup_key for one in api.incidents(dedup_key="late")] == ["late"]


def test_reads_are_tried_again_and_writes_only_when_nothing_can_have_happened(
    api: PagerDutyApi, proxy: Proxy, naps: list[float]
) -> None:
    proxy.faults["GET /escalation_policies"] = Fault(status=503, times=3)
    policy = api.escalation_policies()["Default"]
    assert naps == [0.5, 1.0, 2.0]
    settings = ServiceSettings(name="Payments", urgency="low", escalation_policy_id=policy)
    proxy.faults["POST /services"] = Fault(status=429, body=RATE_LIMIT, times=2)
    made = api.create_service(settings)
    for status in (503, 0):
        proxy.faults["POST /services"] = Fault(status=status, times=1, late=True)
        with pytest.raises(PagerDutyError, match="may or may not have happened"):
            api.create_integration(made.id, "Lost")
    assert len([one for one in proxy.writes if one.startswith("POST")]) == 5
    assert len(next(one for one in api.services() if one.id == made.id).integrations) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, body=BAD_TOKEN), "does not accept the token"),
        (Fault(status=403, body=READ_ONLY), "does not permit it: Access Denied"),
        (Fault(status=429, body=RATE_LIMIT), "rate limit is used up"),
        (Fault(status=500), "answered 500"),
        (Fault(status=200, body=[]), "not in the form of its REST API"),
        (Fault(status=200, body={"services": [{}], "more": False}), "not in the form"),
        (Fault(status=0), "does not answer"),
    ],
)
def test_what_goes_wrong_is_told_without_the_token(
    fault: Fault, words: str, api: PagerDutyApi, proxy: Proxy
) -> None:
    proxy.faults["GET"] = fault
    with pytest.raises(PagerDutyError, match=words) as caught:
        api.services()
    assert TOKEN[-4:] not in str(caught.value)
    assert caught.value.status == (fault.status or None if fault.status != 200 else None)


def test_whoever_acknowledged_is_remembered_after_the_end(api: PagerDutyApi, bench: Bench) -> None:
    send(TRIGGER, bench.emulator.http_url)
    (incident,) = api.incidents()
    with pdpyras.APISession(TOKEN, default_from=DEFAULT_EMAIL) as person:
        person.url, person.trust_env = bench.emulator.http_url, False
        for status in ("acknowledged", "resolved"):
            wish = {"type": "incident_reference", "status": status}
            person.rput(f"incidents/{incident.id}", json=wish)
    (incident,) = api.incidents()
    assert (incident.status, incident.acknowledged_by) == ("resolved", ())
    assert api.acknowledgers(incident.id) == ("On Call",)
