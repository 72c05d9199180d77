"""What the emulator keeps when it is killed, its disk is full, or its clients hang."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import grpc
import pytest
from google.api_core.exceptions import GoogleAPICallError, ServiceUnavailable
from google.cloud import monitoring_v3

from tests.speakfit.emulator.bench import KEY, METRIC, RESOURCE, Bench, policy

PLATFORM = Path(__file__).resolve().parents[3] / "platform"
PROJECT = "projects/speakfit-test"
PARTS = 3
"""Series in one write; they must all be there or none."""


@dataclass(kw_only=True)
class Child:
    """An emulator in a process of its own, and clients that do not try again."""

    process: subprocess.Popen[str]
    http: str
    channel: Any

    def client(self, kind: Any) -> Any:
        return kind(transport=kind.get_transport_class("grpc")(channel=self.channel))

    def enqueue(self, action: str, dedup_key: str) -> None:
        """Raises an OSError unless PagerDuty's 202 came back."""
        event = {
            "routing_key": KEY,
            "event_action": action,
            "dedup_key": dedup_key,
            "payload": {"summary": "Down", "source": "api", "severity": "critical"},
        }
        with urllib.request.urlopen(
            f"{self.http}/v2/enqueue", data=json.dumps(event).encode(), timeout=10
        ) as answer:
            assert answer.status == 202

    def get(self, path: str) -> Any:
        request = urllib.request.Request(
            self.http + path, headers={"Authorization": "Token token=any"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def write(self, call: str, *, size: int = 0) -> None:
        now = time.time_ns()
        interval = {"end_time": {"seconds": now // 10**9, "nanos": now % 10**9}}
        series = [
            {
                "metric": {
                    "type": METRIC,
                    "labels": {"call": call, "part": str(part), "size": "x" * size},
                },
                "resource": RESOURCE,
                "points": [{"interval": interval, "value": {"double_value": float(part)}}],
            }
            for part in range(PARTS)
        ]
        self.client(monitoring_v3.MetricServiceClient).create_time_series(
            name=PROJECT, time_series=series, retry=None, timeout=10
        )

    def written(self) -> dict[str, list[float]]:
        """What every write left, by its name."""
        now = int(time.time())
        found: dict[str, list[float]] = {}
        for series in self.client(monitoring_v3.MetricServiceClient).list_time_series(
            request={
                "name": PROJECT,
                "filter": f'metric.type="{METRIC}"',
                "interval": {
                    "start_time": {"seconds": now - 3600},
                    "end_time": {"seconds": now + 1},
                },
            }
        ):
            values = found.setdefault(series.metric.labels["call"], [])
            values.extend(point.value.double_value for point in series.points)
        return {call: sorted(values) for call, values in found.items()}


@contextmanager
def _child(folder: Path) -> Iterator[Child]:
    kept = {name: value for name, value in os.environ.items() if "PAGERDUTY" not in name}
    options = ("--host-port", "127.0.0.1:0", "--http-port", "0", "--data-dir", str(folder))
    options += ("--pagerduty-service", f"Critical={KEY}:high")
    process = subprocess.Popen(
        [sys.executable, "-m", "speakfit.emulator", "--json", *options],
        env={**kept, "PYTHONPATH": str(PLATFORM)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ExitStack() as stack:
        stack.callback(process.communicate)
        stack.callback(process.kill)
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        channel = grpc.insecure_channel(addresses["grpc"])
        stack.callback(channel.close)
        yield Child(process=process, http=addresses["http"], channel=channel)


@dataclass(kw_only=True)
class Book:
    """What was answered OK, and what may or may not have happened when the answer did not come."""

    calls: set[str] = field(default_factory=set)
    policies: dict[str, str] = field(default_factory=dict)
    """Display name by policy."""
    pages: dict[str, str] = field(default_factory=dict)
    """Status by dedup key."""
    unsure: set[str] = field(default_factory=set)
    accepted: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def ok(self, note: Callable[[], object]) -> None:
        with self.changed:
            note()
            self.accepted += 1
            self.changed.notify_all()


def _write_points(child: Child, book: Book, round_: int) -> None:
    for number in range(1_000):
        call = f"{round_}-{number}"
        book.unsure.add(call)
        child.write(call)
        book.ok(lambda call=call: book.calls.add(call))  # type: ignore[misc]
        book.unsure.discard(call)


def _write_policies(child: Child, book: Book, round_: int) -> None:
    client = child.client(monitoring_v3.AlertPolicyServiceClient)
    for number in range(100):
        shown = f"policy {round_}-{number}"
        book.unsure.add(shown)
        made = client.create_alert_policy(
            name=PROJECT,
            alert_policy=monitoring_v3.AlertPolicy(policy(display_name=shown)),
            retry=None,
            timeout=10,
        )
        book.ok(lambda made=made: book.policies.update({made.name: made.display_name}))  # type: ignore[misc]
        book.unsure.discard(shown)
        made.display_name = f"{shown} renamed"
        book.unsure.add(made.display_name)
        client.update_alert_policy(alert_policy=made, retry=None, timeout=10)
        book.ok(lambda made=made: book.policies.update({made.name: made.display_name}))  # type: ignore[misc]
        book.unsure.discard(made.display_name)
        if number % 2:
            book.unsure.add(made.name)
            client.delete_alert_policy(name=made.name, retry=None, timeout=10)
            book.ok(lambda made=made: book.policies.pop(made.name))  # type: ignore[misc]
            book.unsure.discard(made.name)


def _write_pages(child: Child, book: Book, round_: int) -> None:
    steps = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
    for number in range(30):
        key = f"{round_}-{number}"
        for action, status in steps.items():
            book.unsure.add(f"{key} {status}")
            child.enqueue(action, key)
            book.ok(lambda key=key, status=status: book.pages.update({key: status}))  # type: ignore[misc]
            book.unsure.discard(f"{key} {status}")


def _kill_while_writing(child: Child, book: Book, round_: int, writes: int) -> None:
    def until_killed(writer: Callable[[Child, Book, int], None]) -> None:
        try:
            writer(child, book, round_)
        except (GoogleAPICallError, OSError):
            # The process is gone; what was under way stays in the list of the unsure.
            return

    threads = [
        threading.Thread(target=until_killed, args=(writer,))
        for writer in (_write_points, _write_policies, _write_pages)
    ]
    enough = book.accepted + writes
    for thread in threads:
        thread.start()
    with book.changed:
        assert book.changed.wait_for(lambda: book.accepted >= enough, timeout=60)
    child.process.send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def _check(child: Child, book: Book) -> None:
    """All that was answered OK is there, whole, and nothing that nobody wrote."""
    written = child.written()
    assert book.calls <= written.keys()
    assert written.keys() - book.calls <= book.unsure
    whole = [float(part) for part in range(PARTS)]
    assert {call: values for call, values in written.items() if values != whole} == {}

    stored = {
        one.name: one
        for one in child.client(monitoring_v3.AlertPolicyServiceClient).list_alert_policies(
            name=PROJECT
        )
    }
    for name, shown in book.policies.items():
        if name in stored:
            assert stored[name].display_name in {shown, *book.unsure}
        else:
            assert name in book.unsure
    for name, one in stored.items():
        assert name in book.policies or one.display_name in book.unsure
        assert len(one.conditions) == 1
        assert one.documentation.subject == "Queue is deep"

    pages: dict[str, str] = {}
    more, offset = True, 0
    while more:
        page = child.get(f"/incidents?date_range=all&limit=100&offset={offset}")
        for one in page["incidents"]:
            assert one["incident_key"] not in pages, "one dedup key has two incidents"
            pages[one["incident_key"]] = one["status"]
        more, offset = page["more"], offset + 100
    assert book.pages.keys() <= pages.keys()
    for key, status in pages.items():
        assert status == book.pages.get(key) or f"{key} {status}" in book.unsure


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_what_was_answered_ok_is_there_whole_however_often_the_process_is_killed(
    tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    book = Book()
    with _child(tmp_path) as child:
        # The policies' metric must exist.
        child.write("first")
        book.calls.add("first")
    for round_ in range(kills):
        with _child(tmp_path) as child:
            _check(child, book)
            _kill_while_writing(child, book, round_, writes=chance.randint(1, 40))
    with _child(tmp_path) as child:
        _check(child, book)
    assert len(book.calls) > kills
    with sqlite3.connect(tmp_path / "emulator.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux can limit the files of another process"
)
def test_a_full_disk_refuses_everything_that_must_be_kept_and_recovers(tmp_path: Path) -> None:
    with _child(tmp_path) as child:
        child.write("before")
        child.enqueue("trigger", "before")
        pid = child.process.pid
        _soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # No file may grow beyond one byte: what a full disk is to the store.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        with pytest.raises(ServiceUnavailable, match="cannot store"):
            child.write("refused", size=900)
        with pytest.raises(ServiceUnavailable):
            child.client(monitoring_v3.AlertPolicyServiceClient).create_alert_policy(
                name=PROJECT, alert_policy=monitoring_v3.AlertPolicy(policy()), timeout=10
            )
        for action, key in (("trigger", "refused"), ("resolve", "before")):
            with pytest.raises(HTTPError) as caught:
                child.enqueue(action, key)
            with caught.value as error:
                assert error.code == 503
                assert json.loads(error.read())["message"] == "Event not processed"
        assert child.written().keys() == {"before"}
        (incident,) = child.get("/incidents")["incidents"]
        assert (incident["incident_key"], incident["status"]) == ("before", "triggered")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        child.write("after")
        child.enqueue("resolve", "before")
        child.process.send_signal(signal.SIGKILL)
    with _child(tmp_path) as child:
        assert child.written().keys() == {"before", "after"}
        (incident,) = child.get("/incidents")["incidents"]
        assert incident["status"] == "resolved"


HALVES = (
    b"",
    b"GET /incidents HT",
    b"POST /v2/enqueue HTTP/1.1\r\nHost: x\r\n",
    b"POST /v2/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
    b"PUT /incidents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"POST /v3/projects/p/timeSeries HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
)
"""Requests whose other half never comes."""


def test_clients_that_leave_in_the_middle_of_a_request_leave_no_traceback(tmp_path: Path) -> None:
    with _child(tmp_path) as child:
        place = urlsplit(child.http)
        for half in HALVES:
            with socket.create_connection((str(place.hostname), int(place.port or 0))) as leaving:
                leaving.sendall(half)
                # Sending is over, so the server has read all of it once it closes its side.
                leaving.shutdown(socket.SHUT_WR)
                leaving.settimeout(10)
                while leaving.recv(1_000):
                    continue
        child.process.send_signal(signal.SIGTERM)
        _out, errors = child.process.communicate(timeout=20)
        # A line that a request was malformed is welcome.
        assert "Traceback" not in errors
        assert child.process.returncode == 0


def test_clients_that_hang_do_not_keep_others_waiting(bench: Bench) -> None:
    host, port = bench.emulator.http_address.split(":")
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait()
        yield b""

    with ExitStack() as stack:
        for half in HALVES * 10:
            hanging = stack.enter_context(socket.create_connection((host, int(port))))
            hanging.sendall(half)
        grpc_host, grpc_port = bench.emulator.grpc_address.split(":")
        for half in (b"", b"PRI * HTTP/2.0\r\n\r\n") * 10:
            hanging = stack.enter_context(socket.create_connection((grpc_host, int(grpc_port))))
            hanging.sendall(half)
        stack.callback(never.set)
        channel = stack.enter_context(grpc.insecure_channel(bench.emulator.grpc_address))
        call = channel.stream_unary("/google.monitoring.v3.MetricService/CreateTimeSeries")
        # Calls that are announced and whose request never comes.
        announced = [call.future(nothing()) for _ in range(32)]
        for one in announced:
            stack.callback(one.cancel)
        bench.write(bench.series(1))
        assert len(bench.read()) == 1
        assert bench.http("GET", "/incidents")[0] == 200
