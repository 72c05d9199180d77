"""Routes tried out and incidents listed, as people see it: what works, and each thing that breaks.

Every session is kept as text in tests/transcripts/alerts; the keys and the token are in none.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pdpyras
import pytest

from alerts.incident import policy_id
from alerts.policies import CATALOG
from speakfit.clock import ManualClock
from speakfit.emulator.pagerduty_account import DEFAULT_EMAIL
from speakfit.emulator.server import Emulator
from speakfit.pagerduty import PagerDutyIncident, Resolve, Severity, Trigger, incidents, send
from speakfit.target import Target, notification_channel_client
from tests.alerts.conftest import KEYS, Run, fresh_emulator
from tests.alerts.transcript import FOLDER, command, compare
from tests.unreliable_pagerduty import (
    BAD_TOKEN,
    RATE_LIMIT,
    READ_ONLY,
    Fault,
    Proxy,
    unreliable_pagerduty,
)

TOKEN = "a-very-secret-4711"
OTHER_KEY = "x" * 32
INVALID_KEY = {
    "status": "invalid event",
    "message": "Event object is invalid",
    "errors": ["Invalid routing key"],
}
THROTTLED = {"status": "throttle exceeded", "message": "Later", "errors": ["Enhance Your Calm."]}
TAKEN = {"status": "success", "message": "Event processed", "dedup_key": "any"}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One of its own: the pages of other tests would be in the way."""
    with fresh_emulator() as running:
        yield running


@pytest.fixture
def pagerduty(emulator: Emulator) -> Iterator[Proxy]:
    with unreliable_pagerduty(emulator.http_url) as running:
        yield running


@pytest.fixture
def account(emulator: Emulator) -> Iterator[Any]:
    """The account as its owner has it in hand."""
    with pdpyras.APISession("owner", default_from=DEFAULT_EMAIL) as session:
        session.url, session.trust_env = emulator.http_url, False
        yield session


@pytest.fixture
def routed(quick_alerts: Run, pagerduty: Proxy, emulator: Emulator) -> Run:
    """`python -m alerts` whose environment knows both ends, and where nothing secret is shown."""

    def run(*arguments: str, **environment: str) -> Any:
        known = {
            "MONITORING_EMULATOR_HOST": emulator.grpc_address,
            "PAGERDUTY_API_URL": pagerduty.url,
            "PAGERDUTY_EVENTS_URL": pagerduty.url,
            "PAGERDUTY_API_TOKEN": TOKEN,
        }
        done = quick_alerts(*arguments, **{**known, **environment})
        for secret in (TOKEN, OTHER_KEY, *KEYS.values()):
            assert secret not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def ready(routed: Run) -> Run:
    """The same, after `route apply`."""
    assert routed("route", "apply", "--auto-approve").returncode == 0
    return routed


@pytest.fixture
def same(pagerduty: Proxy, emulator: Emulator) -> Callable[[str, str], None]:
    """Compares a session with the kept one; addresses, times and links are written by names."""

    def same(name: str, session: str) -> None:
        session = session.replace(pagerduty.url, "PAGERDUTY").replace(
            emulator.grpc_address, "EMULATOR"
        )
        session = session.replace(emulator.http_url, "PAGERDUTY")
        session = re.sub(r"\d+\.\d\d s$", "N s", session, flags=re.MULTILINE)
        session = re.sub(r'"seconds": [\d.]+', '"seconds": N', session)
        session = re.sub(r'"id": "Q\w+"', '"id": "ID"', session)
        compare(name, session)

    return same


def later(emulator: Emulator, **span: float) -> None:
    assert isinstance(emulator.clock, ManualClock)
    emulator.clock.advance(timedelta(**span))


def pages(emulator: Emulator) -> list[PagerDutyIncident]:
    return incidents(emulator.http_url, "any")


def test_transcript_of_routes_that_work(
    ready: Run, emulator: Emulator, pagerduty: Proxy, same: Callable[[str, str], None]
) -> None:
    session = command(ready, "route plan")
    session += command(ready, "doctor --dry-run")
    assert pages(emulator) == []
    session += command(ready, "doctor")
    assert [(one.service, one.severity, one.status) for one in pages(emulator)] == [
        ("SpeakFit critical", "critical", "resolved"),
        ("SpeakFit critical", "info", "resolved"),
        ("SpeakFit warning", "warning", "resolved"),
        ("SpeakFit warning", "info", "resolved"),
    ]
    session += command(ready, "doctor --route warning --json")
    session += command(ready, "doctor --route wraning")
    session += command(ready, "doctor --timeout soon")
    same("doctor", session)


def test_transcript_of_a_route_before_it_is_made(
    routed: Run, same: Callable[[str, str], None]
) -> None:
    session = command(routed, "doctor --route critical")
    session += command(routed, "route plan")
    session += command(routed, "route apply")
    session += command(routed, "route apply --auto-approve")
    session += command(routed, "route plan --json")
    session += command(routed, "route plan", PAGERDUTY_API_TOKEN="")
    same("route", session)


Break = Callable[[Any, Target], None]


def _set_service(**fields: object) -> Break:
    def break_(account: Any, _target: Target) -> None:
        account.rput(account.find("services", "SpeakFit critical"), json=fields)

    return break_


def _maintain(account: Any, _target: Target) -> None:
    service = account.find("services", "SpeakFit critical")
    window = {
        "start_time": "2026-01-02T03:00:00Z",
        "end_time": "2026-01-02T05:00:00Z",
        "services": [{"id": service["id"], "type": "service_reference"}],
    }
    account.rpost("maintenance_windows", json=window)


def _leave_a_gap(account: Any, _target: Target) -> None:
    user = account.rget("users")[0]
    layer = {
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-02T00:00:00Z",
        "rotation_virtual_start": "2026-01-01T00:00:00Z",
        "rotation_turn_length_seconds": 86_400,
        "users": [{"user": {"id": user["id"]}}],
    }
    wish = {"name": "Week", "time_zone": "Etc/UTC", "schedule_layers": [layer]}
    schedule = account.rpost("schedules", json=wish)
    account.rput(
        account.find("escalation_policies", "Default"),
        json={"escalation_rules": [{"targets": [{"id": schedule["id"]}]}]},
    )


def _remove_integration(account: Any, _target: Target) -> None:
    service = account.find("services", "SpeakFit critical")
    account.rdelete(service["integrations"][0]["self"])


def _disable_channel(_account: Any, target: Target) -> None:
    client = notification_channel_client(target)
    for channel in client.list_notification_channels(name=target.project_name):
        channel.enabled = False
        client.update_notification_channel(
            notification_channel=channel, update_mask={"paths": ["enabled"]}
        )


def _another_key(_account: Any, target: Target) -> None:
    client = notification_channel_client(target)
    for channel in client.list_notification_channels(name=target.project_name):
        channel.labels["service_key"] = OTHER_KEY
        channel.user_labels["key-digest"] = "0" * 32
        client.update_notification_channel(notification_channel=channel)


BROKEN: dict[str, Break] = {
    "The channel carries another key than the integration.": _another_key,
    "The channel is disabled.": _disable_channel,
    "The integration was deleted.": _remove_integration,
    "The service is disabled.": _set_service(status="disabled"),
    "The service is in maintenance.": _maintain,
    "The service is less urgent than declared.": _set_service(
        incident_urgency_rule={"type": "constant", "urgency": "low"}
    ),
    "Nobody is on call.": _leave_a_gap,
}
EVENT = "POST /v2/enqueue"
FAULTS = {
    "The key is refused.": (EVENT, Fault(status=400, body=INVALID_KEY)),
    "Too many events.": (EVENT, Fault(status=429, body=THROTTLED)),
    "The Events API does not answer.": (EVENT, Fault(status=0)),
    "The event is taken and swallowed.": (EVENT, Fault(status=202, body=TAKEN)),
    "The token is wrong.": ("GET", Fault(status=401, body=BAD_TOKEN)),
    "The token has not the right.": ("GET /oncalls", Fault(status=403, body=READ_ONLY)),
    "Too many calls.": ("GET", Fault(status=429, body=RATE_LIMIT)),
    "The REST API answers something else.": ("GET", Fault(status=200, body="<html>")),
}
BROKEN_ROUTE = "doctor --route critical --timeout 1s"


def test_transcript_of_a_route_that_is_broken_and_mended_in_every_way(
    ready: Run,
    account: Any,
    emulator: Emulator,
    target: Target,
    same: Callable[[str, str], None],
) -> None:
    def run(*arguments: str) -> Any:
        # The keys are PagerDuty's alone, as in production.
        return ready(
            *arguments, PAGERDUTY_ROUTING_KEY_CRITICAL="", PAGERDUTY_ROUTING_KEY_WARNING=""
        )

    session = ""
    for name, break_ in BROKEN.items():
        break_(account, target)
        shown = command(run, BROKEN_ROUTE)
        assert "[exit 3]" in shown, name
        session += f"# {name}\n{shown}"
        # What the hint says, or what a person does in PagerDuty.
        for window in account.list_all("maintenance_windows", params={"filter": "ongoing"}):
            account.rdelete(window)
        _set_service(status="active")(account, target)
        assert run("route", "apply", "--auto-approve").returncode == 0
        mended = run("doctor", "--route", "critical", "--dry-run").returncode == 0
        assert mended == (name != "Nobody is on call."), name
    assert pages(emulator) == []
    same("doctor-broken", session)


def test_transcript_of_a_pagerduty_that_refuses_or_does_not_answer(
    ready: Run, pagerduty: Proxy, emulator: Emulator, same: Callable[[str, str], None]
) -> None:
    session = ""
    for name, (call, fault) in FAULTS.items():
        pagerduty.faults = {call: fault}
        shown = command(ready, BROKEN_ROUTE)
        assert "[exit 3]" in shown, name
        session += f"# {name}\n{shown}"
    assert pages(emulator) == []
    same("doctor-faults", session)


def test_transcript_of_a_variable_with_another_key(
    ready: Run, same: Callable[[str, str], None]
) -> None:
    def wrong(*arguments: str, **environment: str) -> Any:
        return ready(*arguments, **environment, PAGERDUTY_ROUTING_KEY_CRITICAL=OTHER_KEY)

    session = command(wrong, "doctor --route critical --dry-run")
    session += command(wrong, "route plan")
    same("doctor-another-variable", session)


def test_no_transcript_of_any_command_holds_a_key_or_the_token() -> None:
    for file in FOLDER.rglob("*.txt"):
        text = file.read_text(encoding="utf-8")
        for secret in (TOKEN, OTHER_KEY, *KEYS.values()):
            assert secret not in text, file.name


def test_stopped_while_it_waits_the_doctor_resolves_what_it_sent(
    ready: Run, pagerduty: Proxy, emulator: Emulator
) -> None:
    def stop(call: str) -> None:
        if "incident_key" in call:
            pagerduty.before = lambda _call: None
            os.kill(os.getpid(), signal.SIGINT)

    pagerduty.before = stop
    assert ready("doctor", "--route", "critical").returncode != 0
    (page,) = pages(emulator)
    assert (page.status, "TEST, no action needed" in page.title) == ("resolved", True)


def test_a_channel_that_is_no_pagerduty_is_looked_at_and_not_followed(
    quick_alerts: Run, emulator: Emulator, tmp_path: Any
) -> None:
    (tmp_path / "payments.py").write_text(
        "from alerts.policy import *\n"
        "CATALOG = Catalog(name='payments', policies=(), routes=(Route(severity=None, channel="
        "Channel(id='mail', display_name='Mail', type=ChannelType.EMAIL,"
        "labels={'email_address': 'a@b.test'})),))\n"
    )
    arguments = ("--catalog", "payments", "--emulator", emulator.grpc_address)
    assert quick_alerts("doctor", *arguments).returncode == 3
    assert quick_alerts("apply", "--auto-approve", *arguments).returncode == 0
    done = quick_alerts("doctor", *arguments)
    assert done.returncode == 0
    assert "what becomes of a channel of type email is not told" in done.stdout


def test_a_key_that_only_a_variable_holds_is_looked_up_in_the_account(
    routed: Run, emulator: Emulator, tmp_path: Any
) -> None:
    (tmp_path / "payments.py").write_text(
        "from alerts.policy import *\n"
        "CATALOG = Catalog(name='payments', policies=(), routes=(Route(severity=None, channel="
        "Channel(id='pager', display_name='Pager', type=ChannelType.PAGERDUTY, secret='PAGER')),))"
    )

    def doctor(key: str) -> tuple[int, str]:
        routed("apply", "--auto-approve", "--catalog", "payments", PAGER=key)
        done = routed("doctor", "--catalog", "payments", PAGER=key)
        return done.returncode, done.stdout

    code, shown = doctor("")
    assert (code, "PAGER is not set" in shown) == (3, True)
    code, shown = doctor(OTHER_KEY)
    assert (code, "No service of PagerDuty has the key that PAGER holds." in shown) == (3, True)
    code, shown = doctor(KEYS["warning"])
    assert (code, "SpeakFit warning takes events" in shown) == (0, True)
    assert next((one.service, one.severity) for one in pages(emulator)) == (
        "SpeakFit warning",
        "error",
    )


# Incidents


def page(emulator: Emulator, dedup_key: str, severity: Severity, **fields: Any) -> None:
    event = Trigger(
        routing_key=KEYS["critical" if severity is Severity.CRITICAL else "warning"],
        dedup_key=dedup_key,
        summary=fields.pop("summary", "Down"),
        source="test",
        severity=severity,
        **fields,
    )
    send(event, emulator.http_url)


def test_transcript_of_incidents(
    routed: Run, account: Any, emulator: Emulator, same: Callable[[str, str], None]
) -> None:
    session = command(routed, "incidents")
    page(emulator, "a", Severity.CRITICAL, component="worker-down-critical")
    later(emulator, hours=20)
    page(
        emulator,
        "b",
        Severity.WARNING,
        custom_details={"documentation": "Look.\n\nAlert id: queue-depth-warning."},
    )
    (first, _second) = account.list_all("incidents", params={"sort_by": "created_at:asc"})
    for status in ("acknowledged", "resolved"):
        later(emulator, minutes=7)
        account.rput(first, json={"type": "incident_reference", "status": status})
    later(emulator, hours=9)
    page(emulator, "c", Severity.CRITICAL, summary="A disk is full")
    page(emulator, "d", Severity.WARNING, custom_details={"test": True})
    send(Resolve(routing_key=KEYS["warning"], dedup_key="d"), emulator.http_url)
    later(emulator, minutes=3)
    for line in (
        "incidents",
        "incidents --since 7d",
        "incidents --open --json",
        "incidents --policy worker-down-critical --since 2d",
        "incidents --policy api-errors-critical --open",
        "incidents --policy worker-dwon-critical",
        "incidents --since 1y",
        "incidents --since 400d",
    ):
        session += command(routed, line)
    session += command(routed, "incidents", PAGERDUTY_API_TOKEN="")
    same("incidents", session)
    table = routed("incidents", "--since", "7d", FORCE_COLOR="1", COLUMNS="180").stdout
    assert "acknowledged by" in table
    assert "\x1b[31mworker-down-critical" in table


def test_incidents_need_no_cloud_monitoring(routed: Run, emulator: Emulator) -> None:
    page(emulator, "a", Severity.CRITICAL, component="worker-down-critical")
    nowhere = {"MONITORING_EMULATOR_HOST": "", "GOOGLE_CLOUD_PROJECT": ""}
    done = routed("incidents", "--open", "--json", **nowhere)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["incidents"]
    assert (row["policy"], row["status"]) == ("worker-down-critical", "triggered")
    send(Resolve(routing_key=KEYS["critical"], dedup_key="a"), emulator.http_url)
    assert json.loads(routed("incidents", "--open", "--json", **nowhere).stdout) == {
        "incidents": []
    }


def test_the_policy_of_an_incident_is_told_by_its_name_when_nothing_else_is() -> None:
    incident = PagerDutyIncident(
        id="Q",
        number=1,
        title="",
        status="triggered",
        urgency="high",
        service="s",
        dedup_key="k",
        created_at="2026-01-01T00:00:00Z",
        changed_at="2026-01-01T00:00:00Z",
    )
    policy = CATALOG.policies[0]
    for title, expected in (
        (f"[ALERT] {policy.display_name} on us-central1", policy.id),
        ("something else", ""),
    ):
        assert policy_id(replace(incident, title=title), CATALOG) == expected
