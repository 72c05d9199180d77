"""Channels of every type: what the language refuses, and what reaches Cloud Monitoring."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from alerts.encode import KEY_DIGEST, mapping
from alerts.policy import Channel, ChannelType, PagerDutyService, Urgency
from alerts.secret import key_digest, secret_digest
from speakfit.emulator.server import Emulator
from speakfit.errors import CatalogError
from speakfit.target import Target, notification_channel_client
from tests.alerts.conftest import Run

CATALOG = """
from datetime import timedelta
from alerts.policy import *

def channel(id, type, secret="", **labels):
    return Channel(id=id, display_name=id.title(), type=type, secret=secret, labels=labels)

CHANNELS = (
    channel("pager", ChannelType.PAGERDUTY, "PAYMENTS_PAGER"),
    channel("mail", ChannelType.EMAIL, email_address="ops@payments.test"),
    channel("chat", ChannelType.SLACK, "PAYMENTS_SLACK", channel_name="#{room}"),
    channel("hook", ChannelType.WEBHOOK_BASICAUTH, "PAYMENTS_HOOK",
            url="https://hook.test/in", username="gcp"),
    channel("token", ChannelType.WEBHOOK_TOKENAUTH, "PAYMENTS_URL"),
    channel("open", ChannelType.WEBHOOK_TOKENAUTH, url="https://open.test/in"),
    channel("topic", ChannelType.PUBSUB, topic="projects/p/topics/alerts"),
    channel("phone", ChannelType.SMS, number="+15550100"),
    channel("space", ChannelType.GOOGLE_CHAT, space="spaces/AAAA"),
)
POLICY = Policy(
    subject="ledger-silent",
    severity=Severity.CRITICAL,
    title="The ledger is silent",
    conditions=(Verbatim(key="uptime", body={{"conditionThreshold": {{
        "filter": 'metric.type="compute.googleapis.com/instance/uptime" '
                  'AND resource.type="gce_instance"',
        "comparison": "COMPARISON_LT", "thresholdValue": 1, "duration": "300s",
        "aggregations": [{{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_RATE"}}]}}}}),),
    guidance=Guidance(meaning="m", users_feel="u", first_steps=("s",)),
)
CATALOG = Catalog(
    name="payments",
    policies=(POLICY,),
    routes=tuple(Route(severity=Severity.CRITICAL, channel=one) for one in CHANNELS),
)
"""

SECRETS = {
    "PAYMENTS_PAGER": "p" * 32,
    "PAYMENTS_SLACK": "xoxb-very-secret-token",
    "PAYMENTS_HOOK": "hunter2-password",
    "PAYMENTS_URL": "https://token.test/in?auth=very-secret",
}


def channel(kind: ChannelType, **fields: object) -> Channel:
    return Channel(id="one", display_name="One", type=kind, **fields)  # type: ignore[arg-type]


SERVICE = PagerDutyService(name="Payments", urgency=Urgency.HIGH, escalation_policy="Default")

WRONG = {
    "a secret in the catalog": (ChannelType.PAGERDUTY, {"labels": {"service_key": "p" * 32}}),
    "a token in an address": (ChannelType.WEBHOOK_TOKENAUTH, {"labels": {"url": "https://x/?t=1"}}),
    "a secret for its name": (ChannelType.PAGERDUTY, {"secret": "p-" * 16}),
    "no key at all": (ChannelType.PAGERDUTY, {}),
    "a secret where there is none": (
        ChannelType.EMAIL,
        {"labels": {"email_address": "a@b.test"}, "secret": "X"},
    ),
    "no address": (ChannelType.EMAIL, {}),
    "no mail address": (ChannelType.EMAIL, {"labels": {"email_address": "nowhere"}}),
    "an unknown label": (ChannelType.SMS, {"labels": {"number": "+1", "colour": "red"}}),
    "a service elsewhere": (ChannelType.SMS, {"labels": {"number": "+1"}, "service": SERVICE}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_channel_can_be_is_refused_without_showing_a_secret(name: str) -> None:
    kind, fields = WRONG[name]
    with pytest.raises(CatalogError) as caught:
        channel(kind, **fields)
    assert "channel 'one'" in caught.value.where
    assert "p" * 32 not in str(caught.value)
    assert "p-" * 16 not in str(caught.value)


def test_a_pagerduty_channel_with_a_service_needs_no_secret() -> None:
    assert channel(ChannelType.PAGERDUTY, service=SERVICE).has_secret


def test_a_password_can_not_be_tried_against_its_digest_at_the_cost_of_one_hash() -> None:
    hook = channel(ChannelType.WEBHOOK_BASICAUTH, secret="X", labels={"url": "https://x.test"})
    assert secret_digest(hook, "hunter2") != key_digest("hunter2")
    assert secret_digest(hook, "hunter2") != secret_digest(hook, "hunter3")


def test_a_time_out_has_whole_seconds() -> None:
    with pytest.raises(CatalogError, match=r"0:00:00\.5"):
        PagerDutyService(
            name="Payments",
            urgency=Urgency.LOW,
            escalation_policy="Default",
            auto_resolve_timeout=timedelta(seconds=0.5),
        )


def test_channels_of_every_type_of_a_foreign_team_are_made_kept_and_changed(
    quick_alerts: Run, emulator: Emulator, target: Target, tmp_path: Path
) -> None:
    module = tmp_path / "payments.py"
    module.write_text(CATALOG.format(room="payments"))
    arguments = ("--catalog", "payments", "--emulator", emulator.grpc_address)

    def run(*command: str, code: int, **environment: str) -> str:
        done = quick_alerts(*command, *arguments, **{**SECRETS, **environment})
        shown = done.stdout + done.stderr
        assert done.returncode == code, shown
        assert not [secret for secret in SECRETS.values() if secret in shown]
        return shown

    wrong = run("plan", code=1, PAYMENTS_PAGER="short")
    assert "PAYMENTS_PAGER has 5 characters." in wrong
    missing = run("apply", "--auto-approve", code=1, PAYMENTS_SLACK="")
    assert "The auth_token of channel chat is not at hand." in missing
    assert "to do: Set PAYMENTS_SLACK." in missing
    run("apply", "--auto-approve", code=0)
    assert "No changes" in run("plan", code=0)
    # What is not at hand is not compared.
    assert "No changes" in run("plan", code=0, **dict.fromkeys(SECRETS, ""))
    module.write_text(CATALOG.format(room="money"))
    assert "labels.channel_name" in run("plan", code=2)
    # Labels are written as a whole: without the token at hand they must not be.
    run("apply", "--auto-approve", code=1, PAYMENTS_SLACK="")
    run("apply", "--auto-approve", code=0, PAYMENTS_HOOK="another-password")
    channels = {
        one.user_labels["channel"]: mapping(one)
        for one in notification_channel_client(target).list_notification_channels(
            name=target.project_name
        )
    }
    assert channels["chat"]["labels"]["channel_name"] == "#money"
    assert channels["chat"]["labels"]["auth_token"].endswith("oken")
    assert channels["token"]["labels"]["url"] == SECRETS["PAYMENTS_URL"]
    assert channels["mail"]["labels"] == {"email_address": "ops@payments.test"}
    assert KEY_DIGEST not in channels["mail"]["userLabels"]
    assert "another secret" in run("plan", code=2)
