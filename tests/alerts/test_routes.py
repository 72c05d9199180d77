"""Routes from nothing to a page: services, keys and channels made, mended, and cut off midway."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from alerts.secret import key_digest
from speakfit.emulator.server import Emulator
from speakfit.pagerduty import PagerDutyApi, Service, ServiceSettings
from speakfit.target import (
    Target,
    notification_channel_client,
    send_test_notification,
)
from tests.alerts.conftest import ROOT, Run, fresh_emulator
from tests.alerts.unreliable import Proxy, unreliable
from tests.unreliable_pagerduty import RATE_LIMIT, READ_ONLY, Fault, unreliable_pagerduty
from tests.unreliable_pagerduty import Proxy as HttpProxy

TOKEN = "a-very-secret-4711"
CATALOG = """
from datetime import timedelta
from alerts.policy import *

def route(id, urgency, integration="{integration}"):
    return Route(severity=Severity(id), channel=Channel(
        id=id, display_name=f"Payments {{id}}", type=ChannelType.PAGERDUTY,
        service=PagerDutyService(
            name=f"{prefix} {{id}}", urgency=urgency, escalation_policy="{policy}",
            integration=integration, auto_resolve_timeout=timedelta(hours=4))))

CATALOG = Catalog(
    name="{prefix}".lower(), policies=(),
    routes=(route("critical", Urgency.HIGH), route("warning", Urgency.LOW)),
)
"""
PARTS = 6
"""Two services, two integrations, two channels."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One of its own: the pages of other tests would be in the way."""
    with fresh_emulator() as running:
        yield running


@pytest.fixture
def pagerduty(emulator: Emulator) -> Iterator[HttpProxy]:
    with unreliable_pagerduty(emulator.http_url) as running:
        yield running


@pytest.fixture
def monitoring(emulator: Emulator) -> Iterator[Proxy]:
    with unreliable(emulator.grpc_address) as running:
        yield running


@pytest.fixture
def api(emulator: Emulator) -> Iterator[PagerDutyApi]:
    with PagerDutyApi(emulator.http_url, TOKEN) as running:
        yield running


Route = Callable[..., tuple[int, str]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Writes the foreign catalog."""

    def write(
        *,
        prefix: str = "Payments",
        policy: str = "Default",
        integration: str = "Google Cloud Monitoring",
    ) -> None:
        text = CATALOG.format(prefix=prefix, policy=policy, integration=integration)
        (tmp_path / "payments.py").write_text(text)

    write()
    return write


@pytest.fixture
def route(
    quick_alerts: Run,
    write: Callable[..., None],
    pagerduty: HttpProxy,
    monitoring: Proxy,
    api: PagerDutyApi,
) -> Route:
    """`route COMMAND` for the foreign catalog: exit code, and all that was shown, without a key."""

    def route(command: str, *options: str, **environment: str) -> tuple[int, str]:
        done = quick_alerts(
            "route",
            command,
            "--catalog",
            "payments",
            "--emulator",
            monitoring.address,
            *options,
            **{"PAGERDUTY_API_URL": pagerduty.url, "PAGERDUTY_API_TOKEN": TOKEN, **environment},
        )
        shown = done.stdout + done.stderr
        keys = [one.key for service in api.services() for one in service.integrations]
        for secret in (TOKEN, TOKEN[-4:], *keys):
            assert secret not in shown
        assert "Traceback" not in shown
        return done.returncode, shown

    return route


def ours(api: PagerDutyApi, prefix: str = "Payments") -> dict[str, Service]:
    return {one.name: one for one in api.services() if one.name.startswith(f"{prefix} ")}


def channels(target: Target, catalog: str = "payments") -> dict[str, Any]:
    client = notification_channel_client(target)
    found = client.list_notification_channels(name=target.project_name)
    mine = [one for one in found if one.user_labels["catalog"] == catalog]
    assert len({one.user_labels["channel"] for one in mine}) == len(mine)
    return {one.user_labels["channel"]: one for one in mine}


def settled(route: Route, pagerduty: HttpProxy, monitoring: Proxy) -> bool:
    """Whether nothing is left to do, and another apply writes nothing."""
    before = len(pagerduty.writes), len(monitoring.writes)
    code, shown = route("plan")
    assert (code, "No changes" in shown) == (0, True), shown
    assert route("apply", "--auto-approve")[0] == 0
    return before == (len(pagerduty.writes), len(monitoring.writes))


def test_from_nothing_to_a_page_without_anybody_seeing_a_key(
    route: Route,
    pagerduty: HttpProxy,
    monitoring: Proxy,
    api: PagerDutyApi,
    target: Target,
    emulator: Emulator,
) -> None:
    code, shown = route("plan")
    assert code == 2
    assert "Plan: 6 to create." in shown
    assert pagerduty.writes == monitoring.writes == []
    assert route("apply")[0] == 5
    assert pagerduty.writes == monitoring.writes == []
    code, shown = route("apply", "--auto-approve")
    assert (code, shown.count("\ncreated ")) == (0, PARTS)
    critical = ours(api)["Payments critical"]
    assert (critical.urgency, critical.escalation_policy) == ("high", "Default")
    assert str(critical.auto_resolve_timeout) == "4:00:00"
    assert ours(api)["Payments warning"].urgency == "low"
    (integration,) = critical.integrations
    channel = channels(target)["critical"]
    assert channel.user_labels["key-digest"] == key_digest(integration.key)
    key = send_test_notification(target, channel.name)
    assert [one.service for one in api.incidents(dedup_key=key)] == ["Payments critical"]
    assert settled(route, pagerduty, monitoring)


def test_what_somebody_changed_in_pagerduty_is_shown_and_mended_and_the_rest_stays(
    route: Route, pagerduty: HttpProxy, monitoring: Proxy, api: PagerDutyApi
) -> None:
    route("apply", "--auto-approve")
    before = ours(api)
    api.update_service(
        before["Payments critical"],
        ServiceSettings(
            name="PAYMENTS critical",
            urgency="low",
            escalation_policy_id=before["Payments critical"].escalation_policy_id,
        ),
    )
    code, shown = route("plan")
    assert code == 2
    for words in ("PAYMENTS critical -> Payments critical", "low -> high", "off -> 4 h"):
        assert words in shown
    code, shown = route("apply", "--auto-approve", "--json")
    document, _end = json.JSONDecoder().raw_decode(shown)
    assert [(one["action"], one["id"]) for one in document["done"]] == [
        ("update", "Payments critical")
    ]
    assert ours(api) == before
    assert settled(route, pagerduty, monitoring)


def test_another_integration_is_another_key_and_the_old_one_still_works(
    route: Route, write: Callable[..., None], api: PagerDutyApi, target: Target
) -> None:
    route("apply", "--auto-approve")
    (old,) = ours(api)["Payments critical"].integrations
    write(integration="Second key")
    code, shown = route("plan")
    assert code == 2
    assert "another integration key: the key of Payments critical / Second key" in shown
    assert route("apply", "--auto-approve")[0] == 0
    kept, new = ours(api)["Payments critical"].integrations
    assert kept == old
    assert channels(target)["critical"].user_labels["key-digest"] == key_digest(new.key)


def test_an_escalation_policy_that_is_not_there_is_named_with_those_that_are(
    route: Route, write: Callable[..., None], pagerduty: HttpProxy
) -> None:
    write(policy="Nobody")
    code, shown = route("apply", "--auto-approve")
    assert code == 1
    assert "PagerDuty has no escalation policy 'Nobody'." in shown
    assert "name one that there is: Default." in shown
    assert pagerduty.writes == []


def test_a_variable_with_another_key_is_told_of_before_it_undoes_the_work(
    route: Route, write: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "payments.py"
    file.write_text(file.read_text().replace("service=", "secret='PAYMENTS_KEY', service="))
    route("apply", "--auto-approve")
    _code, shown = route("plan", PAYMENTS_KEY="q" * 32)
    assert "Note: PAYMENTS_KEY holds another key than PagerDuty has." in shown
    assert "q" * 32 not in shown


def test_cut_off_at_any_write_to_pagerduty_the_next_apply_converges_without_duplicates(
    route: Route,
    write: Callable[..., None],
    pagerduty: HttpProxy,
    monitoring: Proxy,
    api: PagerDutyApi,
    target: Target,
) -> None:
    # The last one never reached PagerDuty; of the others only the answer was lost.
    for number, late in ((1, True), (2, True), (3, True), (4, True), (3, False)):
        prefix = f"Team-{number}-{late}"
        write(prefix=prefix)
        fault = Fault(status=0, times=1, late=late)
        at = len(pagerduty.writes) + number

        def cut(_call: str, fault: Fault = fault, at: int = at) -> None:
            if len(pagerduty.writes) == at:
                pagerduty.faults = {"POST": fault}

        pagerduty.before = cut
        code, shown = route("apply", "--auto-approve")
        assert code == (4 if number > 1 else 1)
        assert f"Stopped after {number - 1} of 6 changes" in shown
        assert "may or may not have happened" in shown
        assert shown.count("\nnot done: ") == PARTS - number + 1
        assert route("apply", "--auto-approve")[0] == 0
        assert [len(one.integrations) for one in ours(api, prefix).values()] == [1, 1]
        assert len(channels(target, prefix.lower())) == 2
        assert settled(route, pagerduty, monitoring)


def test_stopped_by_a_person_it_says_how_far_it_was_and_the_next_apply_does_the_rest(
    route: Route, pagerduty: HttpProxy, monitoring: Proxy
) -> None:
    def stop(call: str) -> None:
        if len(pagerduty.writes) == 3:
            pagerduty.before = lambda _call: None
            os.kill(os.getpid(), signal.SIGINT)

    pagerduty.before = stop
    code, shown = route("apply", "--auto-approve")
    assert (code, "Stopped after 2 of 6 changes: you stopped it" in shown) == (4, True)
    assert route("apply", "--auto-approve")[0] == 0
    assert settled(route, pagerduty, monitoring)


def test_keys_that_can_not_be_read_any_more_leave_the_channels_for_the_next_apply(
    route: Route, pagerduty: HttpProxy, monitoring: Proxy
) -> None:
    def fail(call: str) -> None:
        if len(pagerduty.writes) == 4:
            pagerduty.faults = {"GET": Fault(status=401)}

    pagerduty.before = fail
    code, shown = route("apply", "--auto-approve")
    assert (code, "Stopped after 4 of 6 changes: PagerDuty does not accept" in shown) == (4, True)
    pagerduty.before, pagerduty.faults = lambda _call: None, {}
    assert route("apply", "--auto-approve")[0] == 0
    assert settled(route, pagerduty, monitoring)


def test_cut_off_at_a_channel_the_next_apply_does_the_rest(
    route: Route,
    write: Callable[..., None],
    pagerduty: HttpProxy,
    monitoring: Proxy,
    target: Target,
) -> None:
    for number in (1, 2):
        write(prefix=f"Team-{number}")
        monitoring.fail = {len(monitoring.writes) + number: grpc.StatusCode.UNAVAILABLE}
        code, shown = route("apply", "--auto-approve")
        assert code == 4
        assert f"Stopped after {number + 3} of 6 changes" in shown
        assert shown.count("\nnot done: ") == 3 - number
        assert route("apply", "--auto-approve")[0] == 0
        assert len(channels(target, f"team-{number}")) == 2
        assert settled(route, pagerduty, monitoring)


def test_a_rate_limit_is_waited_for_and_a_read_only_token_is_told_as_such(
    route: Route, pagerduty: HttpProxy, monitoring: Proxy
) -> None:
    pagerduty.faults = {"POST /services": Fault(status=403, body=READ_ONLY)}
    assert route("plan")[0] == 2
    code, shown = route("apply", "--auto-approve")
    assert code == 1
    assert "Stopped after 0 of 6 changes: PagerDuty does not permit it: Access Denied." in shown
    assert "a REST API key that may write" in shown
    pagerduty.faults = {
        "POST": Fault(status=429, body=RATE_LIMIT, times=3),
        "GET": Fault(status=429, body=RATE_LIMIT, times=3),
    }
    assert route("apply", "--auto-approve")[0] == 0
    assert settled(route, pagerduty, monitoring)


def test_every_block_of_the_document_works(
    quick_alerts: Run, emulator: Emulator, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
    (catalog,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (tmp_path / "payments.py").write_text(catalog, encoding="utf-8")
    codes = []
    for line in commands.splitlines():
        _python, _m, _alerts, *arguments = shlex.split(line, comments=True)
        done = quick_alerts(
            *arguments,
            MONITORING_EMULATOR_HOST=emulator.grpc_address,
            PAGERDUTY_API_URL=emulator.http_url,
            PAGERDUTY_EVENTS_URL=emulator.http_url,
            PAGERDUTY_API_TOKEN=TOKEN,
        )
        codes.append(done.returncode)
    assert codes == [2, 0, 0, 0, 0, 0]
    assert "(test)" in done.stdout
