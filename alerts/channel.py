"""Where Cloud Monitoring notifies, and which severities go there.

A channel's secret is named here and never held: it is the name of the environment variable that
holds it, so that a catalog can be printed, committed and planned. Types and their labels are those
met in public use of NotificationChannel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alerts.condition import refuse
from speakfit.engine.policies import MAX_DISPLAY_NAME, MAX_LABEL_CHARACTERS

if TYPE_CHECKING:
    from alerts.policy import Severity

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAIL_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_MAX_NAME = 255
"""Characters of a name in PagerDuty."""


class ChannelType(StrEnum):
    """Cloud Monitoring's types of channels."""

    PAGERDUTY = "pagerduty"
    EMAIL = "email"
    SLACK = "slack"
    WEBHOOK_BASICAUTH = "webhook_basicauth"
    WEBHOOK_TOKENAUTH = "webhook_tokenauth"
    PUBSUB = "pubsub"
    SMS = "sms"
    GOOGLE_CHAT = "google_chat"

    @property
    def secret_label(self) -> str:
        """The label that carries the secret; empty for a type without one."""
        return _FORMS[self].secret

    def plain_labels(self, *, has_secret: bool = True) -> tuple[str, ...]:
        """The labels that anybody may read; without a secret, all of them."""
        form = _FORMS[self]
        hidden = form.secret if has_secret else ""
        return tuple(label for label in (*form.required, *form.optional) if label != hidden)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """The labels of one channel type; `secret` is required when it is also in `required`."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    secret: str = ""


_FORMS = {
    ChannelType.PAGERDUTY: _Form(required=("service_key",), secret="service_key"),
    ChannelType.EMAIL: _Form(required=("email_address",)),
    ChannelType.SLACK: _Form(required=("channel_name", "auth_token"), secret="auth_token"),
    ChannelType.WEBHOOK_BASICAUTH: _Form(
        required=("url",), optional=("username", "password"), secret="password"
    ),
    # Its token is part of the address.
    ChannelType.WEBHOOK_TOKENAUTH: _Form(required=("url",), secret="url"),
    ChannelType.PUBSUB: _Form(required=("topic",)),
    ChannelType.SMS: _Form(required=("number",)),
    ChannelType.GOOGLE_CHAT: _Form(required=("space",)),
}


class Urgency(StrEnum):
    """How loud the incidents of a PagerDuty service are; PagerDuty's own words."""

    HIGH = "high"
    LOW = "low"
    SEVERITY_BASED = "severity_based"
    """Critical and error are high, the others low."""


@dataclass(frozen=True, kw_only=True)
class PagerDutyService:
    """What `route apply` makes in PagerDuty: a service, known by its name, and an integration.

    The escalation policy must exist. A time-out of None is switched off, as in PagerDuty. Another
    `integration` makes a second one with a key of its own: that is how a key is changed.
    """

    name: str
    urgency: Urgency
    escalation_policy: str
    integration: str = "Events API V2"
    """PagerDuty's own name for an integration that was added by hand."""
    acknowledgement_timeout: timedelta | None = None
    auto_resolve_timeout: timedelta | None = None

    def __post_init__(self) -> None:
        for name in ("name", "escalation_policy", "integration"):
            text = getattr(self, name)
            if not text.strip() or len(text) > _MAX_NAME:
                raise refuse(
                    f"PagerDuty service {self.name!r}, {name}",
                    f"It has {len(text)} characters.",
                    f"Use 1 to {_MAX_NAME}.",
                )
        for name in ("acknowledgement_timeout", "auto_resolve_timeout"):
            timeout = getattr(self, name)
            if timeout is not None and (timeout < timedelta(seconds=1) or timeout.microseconds):
                raise refuse(
                    f"PagerDuty service {self.name!r}, {name}",
                    f"It is {timeout}.",
                    "Use whole seconds, at least one, or None to switch it off.",
                )


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One way out of Cloud Monitoring.

    `secret` is the environment variable that holds the key, token, password or secret address.
    A PagerDuty channel may name its `service` instead, or as well: `route apply` then reads the
    key from PagerDuty.
    """

    id: str
    display_name: str
    type: ChannelType
    labels: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    service: PagerDutyService | None = None

    def __post_init__(self) -> None:
        where = f"channel {self.id!r}"
        if not _ID.fullmatch(self.id) or len(self.id) > MAX_LABEL_CHARACTERS:
            raise refuse(
                f"{where}, id",
                "It cannot be a label value.",
                "Use lowercase letters, numerals, '-' and '_', at most "
                f"{MAX_LABEL_CHARACTERS} characters.",
            )
        if not 0 < len(self.display_name) <= MAX_DISPLAY_NAME:
            raise refuse(
                f"{where}, display_name",
                f"It has {len(self.display_name)} characters.",
                f"Use 1 to {MAX_DISPLAY_NAME}.",
            )
        if self.service is not None and self.type is not ChannelType.PAGERDUTY:
            raise refuse(
                f"{where}, service",
                f"A channel of type {self.type} has no PagerDuty service.",
                "Remove it, or make the type PAGERDUTY.",
            )
        self._check_secret(where)
        self._check_labels(where)

    @property
    def has_secret(self) -> bool:
        """Whether it carries a secret."""
        return bool(self.secret or self.service)

    def _check_secret(self, where: str) -> None:
        label = self.type.secret_label
        if not self.secret:
            return
        if not label:
            raise refuse(
                f"{where}, secret", f"A channel of type {self.type} has none.", "Remove it."
            )
        if not _VARIABLE.fullmatch(self.secret):
            # Whatever it is, it may be the secret itself: it is not shown.
            raise refuse(
                f"{where}, secret",
                "It is not the name of an environment variable.",
                f"Name the variable that holds the {label}; the secret itself stays out of the "
                "catalog.",
            )

    def _check_labels(self, where: str) -> None:
        form = _FORMS[self.type]
        url = self.labels.get("url", "")
        if form.secret in self.labels and (form.secret != "url" or self.secret or "?" in url):
            raise refuse(
                f"{where}, labels[{form.secret!r}]",
                "A secret would stand in the catalog.",
                "Put it into an environment variable and name that as the channel's secret.",
            )
        known = (*form.required, *form.optional)
        for label, value in self.labels.items():
            if label not in known:
                raise refuse(
                    f"{where}, labels[{label!r}]",
                    f"A channel of type {self.type} has no such label.",
                    f"It has {', '.join(known)}.",
                )
            if not value:
                raise refuse(f"{where}, labels[{label!r}]", "It is empty.", "Give it, or leave it.")
        for label in form.required:
            if label in self.labels or (label == form.secret and (self.secret or self.service)):
                continue
            by = (
                "Name the environment variable that holds it as the channel's secret"
                + (", or name its service." if self.type is ChannelType.PAGERDUTY else ".")
                if label == form.secret
                else "Add it to the channel's labels."
            )
            raise refuse(f"{where}, labels", f"The {label} is missing.", by)
        if url and not _is_web_address(url):
            raise refuse(f"{where}, labels['url']", "It is no web address.", "Use https://...")
        mail = self.labels.get("email_address")
        if mail is not None and not _MAIL_ADDRESS.fullmatch(mail):
            raise refuse(
                f"{where}, labels['email_address']", "It is no mail address.", "Use name@domain."
            )


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Sends the policies of one severity to one channel, by whose id the route is called."""

    severity: Severity | None
    channel: Channel
