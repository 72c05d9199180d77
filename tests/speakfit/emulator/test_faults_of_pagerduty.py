"""What becomes of pages while PagerDuty is away, or takes them and its answers get lost."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from speakfit.emulator.notifier import Notifier
from speakfit.emulator.store import Store
from tests.speakfit.emulator.bench import KEY, Bench


def _history(pagerduty: Bench) -> list[list[str]]:
    """What happened to each incident, oldest first."""
    return [
        [
            entry["type"]
            for entry in pagerduty.http("GET", f"/incidents/{page.id}/log_entries")[1][
                "log_entries"
            ]
        ][::-1]
        for page in pagerduty.pages()
    ]


def test_an_hour_without_pagerduty_delays_page_and_resolve_and_keeps_their_order(
    tmp_path: Path,
) -> None:
    with Bench() as pagerduty:
        url = pagerduty.emulator.http_url
    # Nothing listens there now.
    with Bench(data_dir=tmp_path, pagerduty_events_url=url) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.create(notification_channels=[bench.pagerduty_channel().name])
        bench.minutes(35, 500)
    # The emulator is restarted in the middle of it.
    with Bench(data_dir=tmp_path, pagerduty_events_url=url, clock=clock) as bench:
        bench.minutes(25, 1)
        trigger, resolve = bench.emulator.notifier.queue()
        assert (trigger.state, resolve.state) == ("pending", "pending")
        assert trigger.attempts > 50
        assert resolve.attempts == 0
        with Bench(clock=clock, http_port=urlsplit(url).port) as pagerduty:
            bench.emulator.evaluate_now()
            assert {one.state for one in bench.emulator.notifier.queue()} == {"sent"}
            bench.minutes(5, 1)
            assert _history(pagerduty) == [["trigger_log_entry", "resolve_log_entry"]]
            (page,) = pagerduty.pages()
            (incident,) = bench.emulator.incidents()
            assert (page.status, page.dedup_key) == ("resolved", incident["id"])


@contextmanager
def _lossy(url: str) -> Iterator[tuple[str, list[str]]]:
    """A way to PagerDuty on which an event gets through at the second try, its answer at the third.

    Gives its address and what became of each request.
    """
    seen: list[str] = []

    class Way(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            fate = ("refused", "answer lost", "passed")[len(seen) % 3]
            seen.append(fate)
            if fate == "refused":
                self.send_error(503)
                return
            with urllib.request.urlopen(url + self.path, data=raw, timeout=10) as answer:
                body = answer.read()
            if fate == "passed":
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_args: object) -> None:
            """Quiet: the test says what it needs to."""

    server = HTTPServer(("127.0.0.1", 0), Way)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_event_whose_answer_got_lost_is_sent_again_and_pages_once() -> None:
    with Bench() as pagerduty, _lossy(pagerduty.emulator.http_url) as (url, seen):
        with Bench(pagerduty_events_url=url) as bench:
            bench.write(bench.series(1))
            bench.create(notification_channels=[bench.pagerduty_channel().name])
            bench.minutes(9, 500)
            assert [page.status for page in pagerduty.pages()] == ["triggered"]
            bench.minutes(9, 1)
            assert {one.state for one in bench.emulator.notifier.queue()} == {"sent"}
        assert seen == ["refused", "answer lost", "passed"] * 2
        # The trigger arrived twice, the second resolve found nothing open.
        assert _history(pagerduty) == [["trigger_log_entry"] * 2 + ["resolve_log_entry"]]


def test_a_webhook_that_hangs_does_not_delay_a_page() -> None:
    store = Store(None)
    with Bench() as pagerduty, socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = Notifier(store=store, events_url=pagerduty.emulator.http_url)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        hook = {"kind": "webhook", "url": url, "event": {}}
        store.add_notification(incident="one", channel="hook", body=json.dumps(hook))
        notifier.start()
        waiting, _address = silent.accept()
        with waiting:
            # The webhook has its request and does not answer.
            payload = {"summary": "Down", "source": "api", "severity": "critical"}
            event = {"event_action": "trigger", "dedup_key": "two", "payload": payload}
            page = {"kind": "pagerduty", "routing_key": KEY, "event": event}
            store.add_notification(incident="two", channel="page", body=json.dumps(page))
            notifier.wake()
            while not pagerduty.pages():
                assert notifier.queue()[0].attempts == 0, "the page waited for the webhook"
                time.sleep(0.01)
        notifier.stop()
