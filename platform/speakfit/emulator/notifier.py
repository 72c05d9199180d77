"""Sends queued notifications: in order per incident, at least once, across restarts.

A notification leaves the queue when the other side took it or refused it for good. Retries go on
for as long as it takes, because a lost page is worse than a late one; only the pause between them
is bounded. The pauses are real time: the other side does not know the policy clock.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass

from speakfit.emulator.delivery import REFUSALS, MailServer, deliver
from speakfit.emulator.store import Store

_LOG = logging.getLogger("speakfit.emulator")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One queued event, for the console: where it stands and what went wrong."""

    number: int
    incident: str
    channel: str
    state: str
    attempts: int
    error: str


class Notifier:
    """Delivers the queue to PagerDuty, webhooks and one mail server."""

    def __init__(self, *, store: Store, events_url: str, mail: MailServer | None = None) -> None:
        self._store = store
        self._mail = mail
        self._events_url = events_url
        self._due: dict[int, float] = {}
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Deliver on a thread of its own until stopped."""
        self._thread = threading.Thread(target=self._loop, name="notifier", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is queued stays stored."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    def queue(self) -> list[Notification]:
        """All notifications, oldest first."""
        return [
            Notification(
                number=number,
                incident=incident,
                channel=channel,
                state=state,
                attempts=attempts,
                error=error,
            )
            for number, incident, channel, _body, state, attempts, error in (
                self._store.notifications()
            )
        ]

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause = self.deliver()
            except Exception:
                if self._stop.is_set():
                    # The store closed under an attempt that took too long; it is tried again
                    # after the next start.
                    return
                _LOG.exception("delivering notifications failed")
                pause = _LONGEST_PAUSE
            self._wake.wait(pause)

    def deliver(self, *, patient: bool = True) -> float | None:
        """Try what is due, or everything when not `patient`; seconds until more is due, or None.

        Of one incident and channel only the oldest is tried, so a resolve never overtakes its
        trigger.
        """
        with self._sending:
            blocked: set[tuple[str, str]] = set()
            for (
                number,
                incident,
                channel,
                body,
                _state,
                attempts,
                _error,
            ) in self._store.notifications("pending"):
                line = incident, channel
                if line in blocked:
                    continue
                if self._stop.is_set():
                    return None
                waits = patient and self._due.get(number, 0.0) > time.monotonic()
                if waits or not self._try(number, body, attempts):
                    blocked.add(line)
            pending = {row[0] for row in self._store.notifications("pending")}
            self._due = {n: due for n, due in self._due.items() if n in pending}
            if not self._due:
                return None
            return max(0.01, min(self._due.values()) - time.monotonic())

    def _try(self, number: int, body: str, attempts: int) -> bool:
        """One attempt; True when the notification is done with."""
        try:
            deliver(json.loads(body), events_url=self._events_url, mail=self._mail)
        except REFUSALS as error:
            if error.retry:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts, 10))
                self._due[number] = time.monotonic() + pause
                self._store.set_notification(
                    number, state="pending", attempts=attempts + 1, error=error.what
                )
                return False
            _LOG.error("a notification was refused: %s", error.what)
            self._store.set_notification(
                number, state="refused", attempts=attempts + 1, error=error.what
            )
            return True
        self._store.set_notification(number, state="sent", attempts=attempts + 1, error="")
        return True
