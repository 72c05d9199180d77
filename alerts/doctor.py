"""Follows a test event down a route to the incident that it opens, and back to resolved.

The order is the page's own: the channel in Cloud Monitoring, the service in PagerDuty, the key
that ties them, who is on call; then an event with that key. Whatever was sent is resolved again,
also when something goes wrong on the way, so that nobody is left with a test on their hands.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus

from alerts.channel import Channel, ChannelType
from alerts.encode import CHANNEL, KEY_DIGEST, Json
from alerts.plan import ours
from alerts.policy import Catalog, Severity
from alerts.route import Account, route_key
from alerts.secret import secret_digest
from speakfit.errors import PagerDutyError, SpeakFitError
from speakfit.pagerduty import (
    Integration,
    PagerDutyApi,
    PagerDutyIncident,
    Resolve,
    Service,
    Trigger,
    send,
)
from speakfit.pagerduty import Severity as EventSeverity
from speakfit.target import Target, TargetKind, send_test_notification

COMPONENT = "alerts-doctor"
"""What a test event names as its component, so that its incident is known for what it is."""

_WORST_FIRST = (Severity.CRITICAL, Severity.ERROR, Severity.WARNING)
_LOUD = (EventSeverity.CRITICAL, EventSeverity.ERROR)
_FIRST_LOOK = 0.1
_LONGEST_LOOK = 2.0
"""Seconds between two looks at PagerDuty; they grow by half each time."""


class Outcome(StrEnum):
    """How one step went."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was looked at or done, how it went, how long it took, what to do."""

    name: str
    outcome: Outcome
    text: str
    todo: str = ""
    took: timedelta = timedelta(0)


class _RouteError(Exception):
    """Something is wrong with the route, or cannot be told; never leaves this module."""

    def __init__(self, text: str, todo: str = "", *, skipped: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.todo = todo
        self.outcome = Outcome.SKIPPED if skipped else Outcome.FAILED


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all routes of one examination share."""

    catalog: Catalog
    target: Target
    channels: Sequence[Json]
    """Those of Cloud Monitoring, in REST form."""
    keys: Mapping[str, str]
    """The secrets that the environment holds, by channel id."""
    api: PagerDutyApi | None
    """None when no route leads to PagerDuty."""
    account: Account | PagerDutyError | None
    """What PagerDuty has, or why it does not say."""
    events_url: str
    timeout: timedelta


class Examination:
    """One route, looked at step by step."""

    def __init__(
        self,
        channel: Channel,
        around: Surroundings,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.channel = channel
        self._around = around
        self._sleep = sleep
        self._dedup_key = f"{COMPONENT}-{uuid.uuid4()}"
        self._live: Json | None = None
        self._service: Service | None = None
        self._integration: Integration | None = None
        self._key = ""
        self._incident: PagerDutyIncident | None = None

    @property
    def severities(self) -> tuple[Severity | None, ...]:
        """What the route carries."""
        return tuple(
            route.severity
            for route in self._around.catalog.routes
            if route.channel.id == self.channel.id
        )

    def steps(self, *, dry_run: bool) -> Iterator[Step]:
        """Look, and unless it is a dry run and everything is in order, send; a step at a time."""
        looks: list[tuple[str, Callable[[], str]]] = [("channel", self._look_at_channel)]
        if self.channel.type is ChannelType.PAGERDUTY:
            looks += [
                ("service", self._look_at_service),
                ("key", self._look_at_key),
                ("on call", self._look_who_is_on_call),
            ]
        sound = True
        for name, look in looks:
            step = self._perform(name, look)
            sound = sound and step.outcome is Outcome.OK
            yield step
        if dry_run:
            return
        if self.channel.type is not ChannelType.PAGERDUTY:
            text = f"not sent: what becomes of a channel of type {self.channel.type} is not told"
            yield Step(name="trigger", outcome=Outcome.SKIPPED, text=text)
        elif not sound:
            text = "not sent: mend the above first"
            yield Step(name="trigger", outcome=Outcome.SKIPPED, text=text)
        else:
            yield from self._send()

    def _send(self) -> Iterator[Step]:
        # A trigger whose answer was lost may have opened an incident all the same.
        unresolved = True
        try:
            step = self._perform("trigger", self._trigger)
            yield step
            if step.outcome is not Outcome.OK:
                return
            step = self._perform("incident", self._find_incident)
            fine = step.outcome is Outcome.OK
            yield step
            if self._incident is None:
                # One that comes late is resolved by the last try below, if at all.
                yield Step(name="resolve", outcome=Outcome.SKIPPED, text="nothing to resolve")
                return
            step = self._perform("resolve", lambda: self._resolve(self._dedup_key))
            unresolved = step.outcome is not Outcome.OK
            yield step
            if fine and not unresolved and self._around.target.kind is TargetKind.EMULATOR:
                yield self._perform("delivery", self._deliver)
        finally:
            if unresolved:
                # Somebody stopped this, or PagerDuty did not answer: a last try, whatever comes.
                with suppress(SpeakFitError):
                    send(self._resolving(self._dedup_key), self._around.events_url)

    @staticmethod
    def _perform(name: str, what: Callable[[], str]) -> Step:
        began = time.monotonic()
        outcome, todo = Outcome.OK, ""
        try:
            text = what()
        except _RouteError as finding:
            outcome, text, todo = finding.outcome, finding.text, finding.todo
        except SpeakFitError as error:
            outcome, text, todo = Outcome.FAILED, error.what, error.todo
        took = timedelta(seconds=time.monotonic() - began)
        return Step(name=name, outcome=outcome, text=text, todo=todo, took=took)

    # What is looked at

    @property
    def _apply(self) -> str:
        command = "route apply" if self.channel.service is not None else "apply"
        return f"Run `python -m alerts {command}`."

    def _look_at_channel(self) -> str:
        mine = ours(self._around.channels, self._around.catalog.name)
        kind = self.channel.type.value
        self._live = next(
            (
                one
                for one in mine
                if one["userLabels"].get(CHANNEL) == self.channel.id and one.get("type") == kind
            ),
            None,
        )
        if self._live is None:
            raise _RouteError("Cloud Monitoring has no such channel.", self._apply)
        if not self._live.get("enabled", True):
            raise _RouteError("The channel is disabled: it passes nothing on.", self._apply)
        if self._live.get("verificationStatus") == "UNVERIFIED":
            raise _RouteError(
                "The channel is not verified: it passes nothing on.",
                "Verify it in the console of Cloud Monitoring.",
            )
        secret = self._around.keys.get(self.channel.id)
        if secret is not None and self.channel.type is not ChannelType.PAGERDUTY:
            self._compare(secret, f"{self.channel.secret} holds")
        return f"{self.channel.display_name!r} of type {kind} is there and enabled"

    def _compare(self, secret: str, source: str) -> None:
        """Whether the live channel carries this secret."""
        digest = (self._live or {}).get("userLabels", {}).get(KEY_DIGEST)
        if digest is None:
            raise _RouteError("Nobody can tell which secret the channel carries.", self._apply)
        if digest != secret_digest(self.channel, secret):
            what = "key" if self.channel.type is ChannelType.PAGERDUTY else "secret"
            raise _RouteError(f"The channel carries another {what} than {source}.", self._apply)

    def _look_at_service(self) -> str:
        account = self._around.account
        if isinstance(account, PagerDutyError):
            raise account
        assert account is not None
        if self.channel.service is not None:
            found = route_key(self.channel, account)
            self._service, self._integration = found.service, found.integration
            if self._service is None:
                name = self.channel.service.name
                raise _RouteError(f"PagerDuty has no service {name!r}.", self._apply)
        else:
            self._find_by_key(account)
        assert self._service is not None
        return self._judge(self._service)

    def _find_by_key(self, account: Account) -> None:
        """The service that the key at hand belongs to."""
        key = self._around.keys.get(self.channel.id)
        if key is None:
            raise _RouteError(
                f"{self.channel.secret} is not set: the key of the route is not known here.",
                f"Set {self.channel.secret}, or declare the channel's PagerDutyService.",
            )
        for service in account.services:
            for integration in service.integrations:
                if integration.key == key:
                    self._service, self._integration = service, integration
                    return
        raise _RouteError(
            f"No service of PagerDuty has the key that {self.channel.secret} holds.",
            "Take the key from an Events API v2 integration of the right account.",
        )

    def _judge(self, service: Service) -> str:
        if service.status == "disabled":
            raise _RouteError(
                f"{service.name} is disabled: it takes events and opens nothing.",
                "Enable it in PagerDuty.",
            )
        assert self._around.api is not None
        until = self._around.api.maintenance_until(service.id)
        if until is not None:
            raise _RouteError(
                f"{service.name} is in maintenance until {until}: it takes events and opens "
                "nothing.",
                "Wait, or end the maintenance window in PagerDuty.",
            )
        wanted = self.channel.service
        if wanted is not None:
            for what, live, declared in (
                ("urgency", service.urgency, wanted.urgency.value),
                ("escalation policy", service.escalation_policy, wanted.escalation_policy),
            ):
                if live != declared:
                    raise _RouteError(
                        f"The {what} of {service.name} is {live}, the catalog's is {declared}.",
                        self._apply,
                    )
        return (
            f"{service.name} takes events: urgency {service.urgency}, escalation policy "
            f"{service.escalation_policy}"
        )

    def _look_at_key(self) -> str:
        if self._service is None:
            raise _RouteError("no service to compare with", skipped=True)
        if self._integration is None:
            assert self.channel.service is not None
            name = self.channel.service.integration
            raise _RouteError(f"{self._service.name} has no integration {name!r}.", self._apply)
        self._key = self._integration.key
        at_hand = self._around.keys.get(self.channel.id, self._key)
        if at_hand != self._key:
            raise _RouteError(
                f"{self.channel.secret} holds another key than {self._integration.name} of "
                f"{self._service.name}.",
                "Unset or correct it.",
            )
        source = f"integration {self._integration.name} has"
        if self._live is None:
            raise _RouteError("no channel to compare with", skipped=True)
        self._compare(self._key, source)
        return f"the channel carries the key that {source}"

    def _look_who_is_on_call(self) -> str:
        if self._service is None:
            raise _RouteError("no service whose escalation policy could tell", skipped=True)
        assert self._around.api is not None
        found = self._around.api.on_call(self._service.escalation_policy_id)
        if not found:
            raise _RouteError(
                f"Nobody is on call for {self._service.escalation_policy}: PagerDuty drops what "
                "comes.",
                "Put somebody on call, or add a level that always has somebody.",
            )
        return ", ".join(f"{one.user} (level {one.level})" for one in found)

    # What is done

    @property
    def _severity(self) -> EventSeverity:
        carried = self.severities
        worst = next((one for one in _WORST_FIRST if one in carried), Severity.ERROR)
        return EventSeverity(worst.value)

    def _trigger(self) -> str:
        event = Trigger(
            routing_key=self._key,
            dedup_key=self._dedup_key,
            summary=f"TEST, no action needed: `python -m alerts doctor` tries the route "
            f"{self.channel.id} of {self._around.catalog.name}",
            source=f"projects/{self._around.target.project}",
            severity=self._severity,
            component=COMPONENT,
            custom_details={"test": True, "route": self.channel.id},
            client="python -m alerts doctor",
        )
        self._persist(lambda: send(event, self._around.events_url))
        return f"PagerDuty took a {self._severity} event with this key"

    def _persist(self, attempt: Callable[[], object]) -> None:
        """Try until it works, it cannot work, or the time is up."""
        deadline = time.monotonic() + self._around.timeout.total_seconds()
        pause = _FIRST_LOOK
        while True:
            try:
                attempt()
                return
            except PagerDutyError as error:
                if not error.retry or time.monotonic() + pause > deadline:
                    todo = (
                        "Check that the key is one of this account's: an integration may have "
                        "been deleted."
                    )
                    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                        todo = "Wait: PagerDuty takes about 120 events a minute with one key."
                    elif error.retry:
                        todo = "Check PAGERDUTY_EVENTS_URL and the way there, then repeat."
                    raise _RouteError(error.what, todo) from error
            self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK)

    def _await(
        self, dedup_key: str, wanted: Callable[[PagerDutyIncident], bool]
    ) -> PagerDutyIncident | None:
        """The incident of a key once it is as wanted, None when the time is up."""
        assert self._around.api is not None
        deadline = time.monotonic() + self._around.timeout.total_seconds()
        pause = _FIRST_LOOK
        while True:
            for incident in self._around.api.incidents(dedup_key=dedup_key):
                if wanted(incident):
                    return incident
            if time.monotonic() + pause > deadline:
                return None
            self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK)

    @property
    def _limit(self) -> str:
        return f"within {self._around.timeout.total_seconds():g} s"

    def _find_incident(self) -> str:
        incident = self._incident = self._await(self._dedup_key, lambda _incident: True)
        if incident is None:
            raise _RouteError(
                f"No incident came {self._limit}.",
                "PagerDuty took the event and opened nothing: look for event rules, suppression "
                "and grouping on the service.",
            )
        service = self._service
        assert service is not None
        urgency = service.urgency
        if urgency == "severity_based":
            urgency = "high" if self._severity in _LOUD else "low"
        for what, live, expected in (
            ("service", incident.service, service.name),
            ("escalation policy", incident.escalation_policy, service.escalation_policy),
            ("urgency", incident.urgency, urgency if urgency in ("high", "low") else None),
        ):
            if expected is not None and live != expected:
                raise _RouteError(
                    f"The {what} of the incident is {live}, that of the route is {expected}.",
                    "Look for event rules that change it on the way.",
                )
        if not incident.assigned_to:
            raise _RouteError(
                "The incident is assigned to nobody.", "Look at the escalation policy in PagerDuty."
            )
        return (
            f"{incident.status} with {incident.urgency} urgency, assigned to "
            f"{', '.join(incident.assigned_to)}: {incident.url}"
        )

    def _resolving(self, dedup_key: str) -> Resolve:
        return Resolve(routing_key=self._key, dedup_key=dedup_key)

    def _resolve(self, dedup_key: str) -> str:
        self._persist(lambda: send(self._resolving(dedup_key), self._around.events_url))
        if self._await(dedup_key, lambda incident: incident.status == "resolved") is None:
            raise _RouteError(
                f"The incident was not resolved {self._limit}.",
                "Resolve it in PagerDuty, and look for event rules on the service.",
            )
        return "resolved by an event with the same key"

    def _deliver(self) -> str:
        """Cloud Monitoring itself notifies; only an emulator can be asked to."""
        live, service = self._live, self._service
        assert live is not None
        assert service is not None
        dedup_key = send_test_notification(self._around.target, live["name"])
        incident = self._await(dedup_key, lambda _incident: True)
        if incident is None:
            raise _RouteError(
                f"Cloud Monitoring's own test did not arrive {self._limit}.",
                "Look at the notifications in the emulator's console.",
            )
        self._resolve(dedup_key)
        if incident.service != service.name:
            raise _RouteError(
                f"Cloud Monitoring's own test came to {incident.service}.", self._apply
            )
        return "Cloud Monitoring's own test came the same way, and was resolved"
