"""Sending through pdpyras to the embedded PagerDuty, and what happens when it does not work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from speakfit.errors import PagerDutyError
from speakfit.pagerduty import Link, Resolve, Severity, Trigger, incidents, send
from tests.speakfit.emulator.bench import KEY, Bench

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
