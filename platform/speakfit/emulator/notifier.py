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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from speakfit.emulator.delivery import REFUSALS, MailServer, deliver
from speakfit.emulator.store import Store

_LOG = logging.getLogger("speakfit.emulator")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_NEVER_NS = 2**63


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
        self._sending: dict[str, threading.Lock] = {}
        """One attempt at a time per channel."""
        self._guard = threading.Lock()
        self._workers: dict[str, threading.Event] = {}
        """What wakes the thread of each channel that has one."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Deliver on threads of its own until stopped."""
        self._begin("notifier", self._loop)

    def _begin(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End the threads; what is queued stays stored."""
        self._stop.set()
        self.wake()
        deadline = time.monotonic() + 2
        for thread in list(self._threads):
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """Something was queued."""
        with self._guard:
            for event in self._workers.values():
                event.set()
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
        """Give every channel with something pending a thread: one that hangs delays no other."""
        while not self._stop.is_set():
            self._wake.clear()
            try:
                channels = {row[2] for row in self._store.notifications("pending")}
            except Exception:
                if self._stop.is_set():
                    return
                _LOG.exception("reading notifications failed")
                self._wake.wait(_LONGEST_PAUSE)
                continue
            with self._guard:
                fresh = {one: threading.Event() for one in channels - self._workers.keys()}
                self._workers.update(fresh)
            for channel, event in fresh.items():
                self._begin("notifier channel", partial(self._serve, channel, event))
            self._wake.wait()

    def _serve(self, channel: str, event: threading.Event) -> None:
        """Deliver one channel's notifications until none is pending."""
        while not self._stop.is_set():
            event.clear()
            try:
                pause = self._deliver(channel, patient=True)
            except Exception:
                if self._stop.is_set():
                    # The store closed under an attempt that took too long; it is tried again
                    # after the next start.
                    return
                _LOG.exception("delivering notifications failed")
                pause = _LONGEST_PAUSE
            with self._guard:
                if pause is None and not event.is_set():
                    del self._workers[channel]
                    return
            event.wait(pause)

    def deliver(self, *, patient: bool = True) -> float | None:
        """Try what is due, or everything when not `patient`; seconds until more is due, or None."""
        channels = dict.fromkeys(row[2] for row in self._store.notifications("pending"))
        pauses = [self._deliver(channel, patient=patient) for channel in channels]
        return min((pause for pause in pauses if pause is not None), default=None)

    def _deliver(self, channel: str, *, patient: bool) -> float | None:
        """Try one channel's; of one incident only the oldest, so no resolve overtakes a trigger."""
        with self._sending.setdefault(channel, threading.Lock()):
            # Incidents whose oldest notification waits, and until when.
            blocked: dict[str, float] = {}
            for number, incident, to, body, _state, attempts, _error in self._store.notifications(
                "pending"
            ):
                if to != channel or incident in blocked:
                    continue
                if self._stop.is_set():
                    return None
                waits = patient and self._due.get(number, 0.0) > time.monotonic()
                if waits or not self._try(number, body, attempts):
                    blocked[incident] = self._due[number]
                else:
                    self._due.pop(number, None)
            if not blocked:
                return None
            return max(0.01, min(blocked.values()) - time.monotonic())

    def _try(self, number: int, body: str, attempts: int) -> bool:
        """One attempt; True when the notification is done with."""
        stored = json.loads(body)
        if time.time_ns() > stored.get("expiresNs", _NEVER_NS):
            self._store.set_notification(
                number, state="expired", attempts=attempts, error="It came too late to be told."
            )
            return True
        try:
            deliver(stored, events_url=self._events_url, mail=self._mail)
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
