"""How a queued notification leaves: to PagerDuty, to a webhook, or by mail.

Each function sends once and raises; the queue owns order and retries. Secrets are in what was
queued and never in an error.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from speakfit.errors import DeliveryError, PagerDutyError, SettingsError
from speakfit.pagerduty import StoredEvent
from speakfit.pagerduty import send as send_event

_TIMEOUT = 10.0
_RETRY_STATUS = frozenset({408, 425, 429})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TEMPORARY = range(400, 500)
"""SMTP replies that mean "later"."""


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """Where mail goes: `smtp://` (encrypted when the server offers it) or `smtps://`."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    sender: str = "alerting-noreply@localhost"

    @classmethod
    def parse(cls, url: str, *, sender: str = "") -> MailServer:
        """Read `smtp[s]://[USER:PASSWORD@]HOST[:PORT]`; a SettingsError otherwise."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or port == -1:
            raise SettingsError(
                "The address of the mail server cannot be read.",
                where="--smtp-url",
                todo="Write it as smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT.",
            )
        return cls(
            host=parts.hostname,
            port=port or (465 if parts.scheme == "smtps" else 25),
            tls=parts.scheme == "smtps",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            sender=sender or cls.sender,
        )


def send_webhook(*, url: str, body: Mapping[str, Any], username: str, password: str) -> None:
    """POST the body as JSON, with basic authentication when there is a user name."""
    import requests

    with requests.Session() as session:
        if urlsplit(url).hostname in _LOOPBACK:
            # A proxy from the environment cannot reach our loopback.
            session.trust_env = False
        try:
            answer = session.post(
                url,
                json=body,
                auth=(username, password) if username else None,
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            # The text of the error may hold the address, and that a token.
            raise DeliveryError("The webhook does not answer.", retry=True) from error
    status = answer.status_code
    if not 200 <= status < 300:
        raise DeliveryError(
            f"The webhook answered {status}.", retry=status >= 500 or status in _RETRY_STATUS
        )


def send_mail(server: MailServer, *, to: str, subject: str, text: str) -> None:
    """Send one plain mail."""
    message = EmailMessage()
    message["From"] = server.sender
    message["To"] = to
    message["Subject"] = " ".join(subject.split())
    message.set_content(text)
    try:
        kind = smtplib.SMTP_SSL if server.tls else smtplib.SMTP
        with kind(server.host, server.port, timeout=_TIMEOUT) as smtp:
            smtp.ehlo()
            if not server.tls and smtp.has_extn("starttls"):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            if server.user:
                smtp.login(server.user, server.password)
            smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [reply[0] for reply in error.recipients.values()]
        raise DeliveryError(
            f"The mail server refused the recipient ({codes[0]}).",
            retry=all(code in _TEMPORARY for code in codes),
        ) from error
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(
            f"The mail server answered {error.smtp_code}.", retry=error.smtp_code in _TEMPORARY
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise DeliveryError("The mail server does not answer.", retry=True) from error


def deliver(stored: Mapping[str, Any], *, events_url: str, mail: MailServer | None) -> None:
    """Send what was queued; PagerDutyError or DeliveryError say whether to try again."""
    kind = stored["kind"]
    if kind == "pagerduty":
        event = StoredEvent(routing_key=stored["routing_key"], body=stored["event"])
        send_event(event, events_url)
    elif kind == "webhook":
        send_webhook(
            url=stored["url"],
            body=stored["event"],
            username=stored.get("username", ""),
            password=stored.get("password", ""),
        )
    elif mail is None:
        raise DeliveryError("No mail server is set; start with --smtp-url.", retry=True)
    else:
        send_mail(mail, to=stored["to"], **stored["event"])


REFUSALS = (PagerDutyError, DeliveryError)
"""What `deliver` raises; each has `retry`."""
