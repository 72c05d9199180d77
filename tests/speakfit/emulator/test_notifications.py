"""Webhooks, mail and reminders: what arrives, in which order, and what waits until it can."""

from __future__ import annotations

import base64
import json
import socketserver
from datetime import timedelta
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument

from speakfit.emulator.delivery import MailServer
from speakfit.errors import SettingsError, TargetError
from speakfit.target import Target, TargetKind, send_test_notification
from tests.speakfit.emulator.bench import PROJECT, Bench
from tests.speakfit.emulator.hook import Hook, serving


class _Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP server that takes every mail, or answers `reply` to every recipient."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.mails: list[Any] = []
        self.reply = "250 ok"


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as smtplib speaks."""

    server: _Mailbox

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self._say("220 ready")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "RCPT":
                self._say(self.server.reply)
            elif verb == "DATA":
                self._say("354 go on")
                lines = []
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.server.mails.append(message_from_string("\n".join(lines)))
                self._say("250 ok")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")


def _channel(bench: Bench, kind: str, **labels: str) -> str:
    channel = {"type": kind, "labels": labels}
    made = bench.channels.create_notification_channel(name=PROJECT, notification_channel=channel)
    return str(made.name)


def test_a_webhook_is_told_of_opening_and_closing_in_schema_1_2(bench: Bench, hook: Hook) -> None:
    bench.write(bench.series(1, queue="main"))
    channels = [
        _channel(
            bench, "webhook_basicauth", url=f"{hook.url}/basic", username="me", password="secret"
        ),
        _channel(bench, "webhook_tokenauth", url=f"{hook.url}/token?auth_token=t0ken"),
    ]
    bench.create(notification_channels=channels)
    bench.minutes(5, 500)
    bench.minutes(3, 1)
    paths = sorted(path for path, _allowed, _body in hook.got)
    assert paths == ["/basic", "/basic", "/token?auth_token=t0ken", "/token?auth_token=t0ken"]
    opened, closed = (one for one in hook.got if one[0] == "/basic")
    assert opened[1] == "Basic " + base64.b64encode(b"me:secret").decode()
    assert (opened[2]["version"], closed[2]["version"]) == ("1.2", "1.2")
    first, last = opened[2]["incident"], closed[2]["incident"]
    (stored,) = bench.emulator.incidents()
    assert first["incident_id"] == last["incident_id"] == stored["id"]
    assert (first["state"], first["ended_at"]) == ("open", None)
    assert (last["state"], last["ended_at"] > last["started_at"]) == ("closed", True)
    assert (first["observed_value"], first["threshold_value"]) == ("500.000", "100.000")
    assert first["condition"]["conditionThreshold"]["thresholdValue"] == 100.0
    assert first["documentation"]["content"] == "Too many chunks wait on generic_task."
    assert first["policy_user_labels"]["alert-id"] == "queue-depth-critical"
    # Secrets stay between the channel and the receiver.
    assert "secret" not in json.dumps(bench.emulator.incidents())
    assert {one.state for one in bench.emulator.notifier.queue()} == {"sent"}


def test_a_webhook_that_is_down_is_told_later_and_one_that_refuses_is_reported(
    tmp_path: Path, hook: Hook
) -> None:
    hook.status = 503
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.create(notification_channels=[_channel(bench, "webhook_tokenauth", url=hook.url)])
        bench.minutes(5, 500)
        (queued,) = bench.emulator.notifier.queue()
        assert (queued.state, queued.error) == ("pending", "The webhook answered 503.")
    hook.status = 200
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        bench.minutes(3, 1)
        assert [body["incident"]["state"] for _p, _a, body in hook.got] == ["open", "closed"]
        hook.status = 401
        bench.minutes(5, 500)
        assert bench.emulator.notifier.queue()[-1].state == "refused"


def test_a_mail_is_sent_and_waits_while_the_server_says_later() -> None:
    box = _Mailbox()
    server = MailServer(host="127.0.0.1", port=box.server_address[1], sender="alerts@test")
    with serving(box), Bench(mail=server) as bench:
        bench.write(bench.series(1))
        bench.create(notification_channels=[_channel(bench, "email", email_address="on-call@test")])
        box.reply = "451 later"
        bench.minutes(5, 500)
        (queued,) = bench.emulator.notifier.queue()
        assert (queued.state, box.mails) == ("pending", [])
        box.reply = "250 ok"
        bench.minutes(3, 1)
        assert [mail["To"] for mail in box.mails] == ["on-call@test", "on-call@test"]
        assert [mail["Subject"] for mail in box.mails] == [
            "[ALERT - OPEN] Queue is deep",
            "[ALERT - CLOSED] Queue is deep",
        ]
        assert "https://runbooks.test/queue-depth" in box.mails[0].get_payload()


def test_channels_that_nothing_is_delivered_to_are_shown_so(bench: Bench) -> None:
    bench.write(bench.series(1))
    channels = [
        _channel(bench, "slack", channel_name="#ops"),
        _channel(bench, "email", email_address="on-call@test"),
    ]
    bench.create(notification_channels=channels)
    bench.minutes(5, 500)
    (incident,) = bench.emulator.incidents()
    assert (incident["notified"], incident["notDelivered"]) == ([], channels)
    with pytest.raises(InvalidArgument, match="http or https"):
        _channel(bench, "webhook_tokenauth", url="file:///etc/passwd")


def test_a_channel_is_reminded_while_an_incident_stays_open(bench: Bench, hook: Hook) -> None:
    bench.write(bench.series(1))
    channel = _channel(bench, "webhook_tokenauth", url=hook.url)
    strategy = {
        "notification_channel_names": [channel],
        "renotify_interval": {"seconds": 1_800},
    }
    bench.create(
        notification_channels=[channel],
        alert_strategy={"notification_channel_strategy": [strategy]},
    )
    bench.minutes(70, 500)
    assert [body["incident"].get("renotify", False) for _p, _a, body in hook.got] == [
        False,
        True,
        True,
    ]
    bench.minutes(40, 1)
    assert [body["incident"]["state"] for _p, _a, body in hook.got][3:] == ["closed"]
    bench.clock.advance(timedelta(minutes=1))


@pytest.mark.parametrize("url", ["localhost", "http://host", "smtp://", "smtp://host:many"])
def test_a_mail_server_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="mail server"):
        MailServer.parse(url)
    assert MailServer.parse("smtps://me:p%40ss@mail.test").password == "p@ss"


def test_a_test_notification_goes_through_the_very_channel_and_says_that_it_is_one(
    bench: Bench, hook: Hook
) -> None:
    pager = bench.pagerduty_channel()
    target = Target(
        kind=TargetKind.EMULATOR, project="speakfit-test", host=bench.emulator.grpc_address
    )
    incident = send_test_notification(target, pager.name)
    (page,) = bench.pages()
    assert (page.dedup_key, page.service, page.severity) == (incident, "SpeakFit critical", "info")
    assert "no action needed" in page.title
    channel = bench.channels.create_notification_channel(
        name=PROJECT,
        notification_channel={"type": "webhook_tokenauth", "labels": {"url": hook.url}},
    )
    status, answer = bench.http("POST", f"/emulator/v1/{channel.name}:sendTestNotification")
    assert status == 200
    (_path, _authorization, body) = hook.got[0]
    assert (body["version"], body["incident"]["state"]) == ("test", "OPEN")
    assert body["incident"]["incident_id"] == answer["incidentId"]
    channel.enabled = False
    bench.channels.update_notification_channel(notification_channel=channel)
    with pytest.raises(TargetError, match="is disabled"):
        send_test_notification(target, channel.name)
    sms = bench.channels.create_notification_channel(
        name=PROJECT, notification_channel={"type": "sms", "labels": {"number": "+15550100"}}
    )
    with pytest.raises(TargetError, match="not delivered here"):
        send_test_notification(target, sms.name)
