"""Evaluates policies on a fixed grid of policy time and records what opens and closes.

Evaluation times lie on multiples of the period and a watermark behind now. Missed times (a busy
machine, a restart) are caught up in one replay; after a long pause only the latest counts, because
nobody wants to be paged about last night.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from google.protobuf import json_format

from speakfit.emulator.backend import Backend
from speakfit.emulator.naming import new_incident_id
from speakfit.emulator.notification import closed_webhook, mail_of, trigger_of, webhook_of
from speakfit.emulator.snoozes_service import Silence
from speakfit.emulator.watchdog import Watchdog
from speakfit.engine.incidents import (
    Event,
    Incident,
    IncidentClosed,
    IncidentOpened,
    PolicyState,
    replay,
)
from speakfit.engine.notices import Occasion, notices, tells_closing
from speakfit.engine.policies import AlertPolicySpec
from speakfit.errors import SpeakFitError
from speakfit.pagerduty import Resolve

_LOG = logging.getLogger("speakfit.emulator")
_STATES = "states"
_INCIDENTS = "incidents"
_LAST = "evaluatedNs"
_CATCH_UP = timedelta(hours=1)
_PAUSE = timedelta(minutes=5)
_DELETED = "policy-deleted"
_SNOOZED = "snoozed"
_RETENTION_EVERY = 60
_LONGEST_WAIT = 1.0
_SHORTEST_WAIT = 0.01


def _ns(span: timedelta) -> int:
    return (span // timedelta(microseconds=1)) * 1_000


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What evaluating one policy gave."""

    name: str
    spec: AlertPolicySpec
    project: str
    state: PolicyState
    events: tuple[Event, ...]
    snoozed: tuple[Incident, ...] = ()
    """Incidents that were open when a snooze began, closed by it."""


@dataclass(frozen=True, kw_only=True)
class _Silent:
    """Tells whether some snooze keeps an incident closed."""

    silences: tuple[Silence, ...]
    project: str

    def __call__(self, incident: Incident) -> bool:
        return any(one.covers(incident.series, project=self.project) for one in self.silences)


def _without(state: PolicyState, silent: _Silent) -> PolicyState:
    """The state with what is snoozed not open."""
    kept = tuple(incident for incident in state.open if not silent(incident))
    return state if len(kept) == len(state.open) else replace(state, open=kept)


class Evaluator:
    """Steps every policy through time; states and incidents survive a restart."""

    def __init__(
        self,
        *,
        backend: Backend,
        period: timedelta,
        watermark: timedelta,
        retention: timedelta,
        client_url: str,
        notify: Callable[[], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        """`notify` is called after notifications have been queued."""
        self._backend = backend
        self._store = backend.store
        self._clock = backend.clock
        self._period = _ns(period)
        self._watermark = _ns(watermark)
        self._retention = _ns(retention)
        self._client_url = client_url
        self._notify = notify
        self._watchdog = watchdog
        self._running = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rounds = 0
        self._failed: frozenset[str] = frozenset()
        self._states: dict[str, PolicyState] = {}
        for name, body in self._store.documents(_STATES):
            try:
                self._states[name] = PolicyState.from_json(json.loads(body))
            except ValueError as error:
                _LOG.warning("state of %s begins anew: %s", name, error)
        self._incidents: dict[str, dict[str, Any]] = {
            name: json.loads(body) for name, body in self._store.documents(_INCIDENTS)
        }
        self._last: int | None = self._store.fact(_LAST)
        self._resumed_ns = 0
        self._forget_pause()

    def _forget_pause(self) -> None:
        """After a longer stop, only what is open is remembered.

        Whatever wrote the metrics was most likely stopped too: silence and violations from before
        must be seen again before they page.
        """
        latest = self._grid_now()
        if self._last is None or latest - self._last <= _ns(_PAUSE):
            return
        self._last = None
        self._resumed_ns = latest
        self._states = {
            name: replace(
                state,
                series={condition: states.only_met for condition, states in state.series.items()},
            )
            for name, state in self._states.items()
        }

    # Reading

    @property
    def last_ns(self) -> int | None:
        """The latest evaluated policy time."""
        return self._last

    @property
    def failed(self) -> frozenset[str]:
        """Policies that the latest evaluation failed for: their silence says nothing."""
        return self._failed

    def incidents(self) -> list[dict[str, Any]]:
        """All incidents, newest first, without the keys they were sent under."""
        with self._store.lock:
            return [
                {name: value for name, value in incident.items() if name not in ("routes", "body")}
                for incident in reversed(self._incidents.values())
            ]

    # Running

    def start(self) -> None:
        """Evaluate on a thread of its own until stopped."""
        self._thread = threading.Thread(target=self._loop, name="evaluator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the evaluation under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self.evaluate_due()
            except SpeakFitError as error:
                # A full disk, for instance: the same times are due again next time.
                _LOG.error("evaluation failed: %s", error)
            except Exception:
                _LOG.exception("evaluation failed")
            if self._stop.wait(self._seconds_to_next()):
                return

    def _seconds_to_next(self) -> float:
        due_ns = self._clock.to_real_ns(self._grid_now() + self._period + self._watermark)
        # Short waits, because the machine's clock may jump.
        return min(_LONGEST_WAIT, max(_SHORTEST_WAIT, (due_ns - time.time_ns()) / 1e9))

    def _grid_now(self) -> int:
        ready_ns = self._clock.now_ns() - self._watermark
        return ready_ns - ready_ns % self._period

    def _due(self) -> list[int]:
        latest = self._grid_now()
        if self._last is None or latest - self._last > _ns(_CATCH_UP):
            return [latest]
        return list(range(self._last + self._period, latest + 1, self._period))

    def evaluate_due(self) -> int:
        """Evaluate all times that are due and not done; returns how many there were."""
        with self._running:
            times = self._due()
            if not times:
                return 0
            outcomes = []
            present = set()
            failed: set[str] = set()
            for name, spec, changed_ns in self._backend.policies.specs():
                present.add(name)
                if spec is None:
                    continue
                try:
                    outcomes.append(
                        self._replay(name, spec, max(changed_ns, self._resumed_ns), times)
                    )
                except Exception:
                    # One policy that cannot be evaluated must not silence the others.
                    failed.add(name)
                    _LOG.exception("policy %s could not be evaluated", name)
            self._failed = frozenset(failed)
            self._record(outcomes, gone=set(self._states) - present, until_ns=times[-1])
            if self._rounds % _RETENTION_EVERY == 0:
                self._backend.points.forget_before(self._clock.now_ns() - self._retention)
            self._rounds += 1
            if self._watchdog is not None:
                # Last, so that nobody hears that all is well before it was.
                self._watchdog.round(times, failed=len(failed))
            return len(times)

    def _replay(
        self, name: str, spec: AlertPolicySpec, since_ns: int, times: list[int]
    ) -> _Outcome:
        project = name.split("/")[1]
        series = self._backend.points.snapshot(
            project,
            after_ns=times[0] - _ns(spec.lookback),
            # No window looks past its end, but growth there is interpolated towards the next
            # point; without that point a rate reads too low.
            until_ns=times[-1] + self._watermark,
            metric_types=spec.metric_types,
        )
        state = self._states.get(name, PolicyState.empty())
        silences = self._backend.snoozes.silences(
            name, after_ns=times[0], until_ns=times[-1] + self._watermark
        )
        events: list[Event] = []
        snoozed: list[Incident] = []
        for run, active in self._runs(times, silences):
            silent = _Silent(silences=active, project=project)
            # What is snoozed closes first; violations go on being watched, so that what is still
            # wrong when the snooze ends opens then.
            for incident in filter(silent, state.open):
                closed = replace(incident, ended_ns=run[0])
                snoozed.append(closed)
                events.append(IncidentClosed(at_ns=run[0], incident=closed))
            state = _without(state, silent)
            state, found = replay(
                spec, state, series, run, active_since_ns=since_ns, project=project
            )
            events += [event for event in found if not silent(event.incident)]
            state = _without(state, silent)
        return _Outcome(
            spec=spec,
            project=project,
            name=name,
            state=state,
            events=tuple(events),
            snoozed=tuple(snoozed),
        )

    def _runs(
        self, times: list[int], silences: list[Silence]
    ) -> list[tuple[list[int], tuple[Silence, ...]]]:
        """Successive times with the snoozes that are active at all of them.

        What an evaluation finds is told a watermark later, so a snooze covers that much before
        its start: nobody is paged while it lasts.
        """
        runs: list[tuple[list[int], tuple[Silence, ...]]] = []
        for at_ns in times:
            active = tuple(
                silence
                for silence in silences
                if silence.start_ns - self._watermark <= at_ns < silence.end_ns
            )
            if runs and runs[-1][1] == active:
                runs[-1][0].append(at_ns)
            else:
                runs.append(([at_ns], active))
        return runs

    def _record(self, outcomes: list[_Outcome], *, gone: set[str], until_ns: int) -> None:
        """States, incidents and notifications of one round, in one transaction."""
        changed: dict[str, dict[str, Any]] = {}
        reminded = False
        with self._store.transaction():
            for outcome in outcomes:
                self._store.put(_STATES, outcome.name, json.dumps(outcome.state.to_json()).encode())
                for event in outcome.events:
                    if isinstance(event, IncidentOpened):
                        document = self._open(outcome.spec, outcome.project, event.incident)
                    else:
                        document = self._close(
                            event.incident, changed, notify=tells_closing(outcome.spec)
                        )
                        if any(event.incident is one for one in outcome.snoozed):
                            document = {**document, "closeReason": _SNOOZED}
                    changed[document["id"]] = document
                reminded |= self._remind(outcome, changed, until_ns)
            for name in gone:
                # A deleted policy closes what it left open.
                for incident in self._states[name].open:
                    document = self._close(
                        replace(incident, ended_ns=until_ns), changed, notify=True
                    )
                    changed[document["id"]] = {**document, "closeReason": _DELETED}
                self._store.remove(_STATES, name)
            for identity, document in changed.items():
                self._store.put(_INCIDENTS, identity, json.dumps(document).encode())
            self._store.set_fact(_LAST, until_ns)
        # Memory follows the disk: a round that could not be stored is done again.
        self._states.update((outcome.name, outcome.state) for outcome in outcomes)
        for name in gone:
            del self._states[name]
        self._incidents.update(changed)
        self._last = until_ns
        if changed or reminded:
            self._notify()

    def _open(self, spec: AlertPolicySpec, project: str, incident: Incident) -> dict[str, Any]:
        identity = new_incident_id()
        found = [
            (channel, self._backend.channels.route(channel))
            for channel in spec.notification_channels
        ]
        document = {
            "id": identity,
            "project": project,
            "state": "open",
            **incident.to_json(),
            "notified": sorted(channel for channel, route in found if route is not None),
            "notDelivered": [channel for channel, route in found if route is None],
            "routes": {channel: route for channel, route in found if route is not None},
            "body": webhook_of(
                incident,
                spec,
                incident_id=identity,
                project=project,
                condition=self._condition(incident),
                client_url=self._client_url,
            ),
        }
        for channel in document["routes"]:
            self._tell(document, channel, incident, spec)
        return document

    def _condition(self, incident: Incident) -> dict[str, Any]:
        """The violated condition as REST JSON; empty when the policy is gone already."""
        policy = self._backend.policies.policy(incident.policy_name)
        for condition in () if policy is None else policy.conditions:
            if condition.name == incident.condition_name:
                return dict(json_format.MessageToDict(condition))
        return {}

    def _tell(
        self,
        document: dict[str, Any],
        channel: str,
        incident: Incident,
        spec: AlertPolicySpec,
        *,
        again: bool = False,
    ) -> None:
        """Queue the news of an open incident for one channel; `again` is a reminder."""
        route, body = document["routes"][channel], document["body"]
        if route["kind"] == "pagerduty":
            # A trigger with the same key adds to the page that is open.
            event = trigger_of(
                incident,
                spec,
                incident_id=document["id"],
                project=document["project"],
                routing_key=route["routing_key"],
                client_url=self._client_url,
            ).to_json()
        else:
            if again:
                body = {**body, "incident": {**body["incident"], "renotify": True}}
            event = body if route["kind"] == "webhook" else mail_of(body)
        self._queue(document["id"], channel, route, event)

    def _remind(self, outcome: _Outcome, changed: dict[str, Any], until_ns: int) -> bool:
        """Queue the repeated notifications that fell due since the last round."""
        told = False
        if not outcome.spec.renotifications or self._last is None:
            return told
        for incident in outcome.state.open:
            due = notices(
                outcome.spec,
                opened_ns=incident.started_ns,
                closed_ns=None,
                after_ns=self._last,
                until_ns=until_ns,
            )
            document = self._find_open(incident, changed)
            # After a pause one reminder says as much as many.
            for channel in {one.channel for one in due if one.occasion is Occasion.REMINDED}:
                if channel in document["routes"]:
                    self._tell(document, channel, incident, outcome.spec, again=True)
                    told = True
        return told

    def _close(
        self, incident: Incident, changed: dict[str, dict[str, Any]], *, notify: bool
    ) -> dict[str, Any]:
        document = self._find_open(incident, changed)
        closed = incident.to_json()
        # Observed value and summary tell why it opened; the closing says when and why it ended.
        document = {
            **document,
            "state": "closed",
            "endedNs": closed["endedNs"],
            "closeReason": closed["closeReason"],
        }
        if notify:
            for channel, route in document["routes"].items():
                if route["kind"] == "pagerduty":
                    resolve = Resolve(routing_key=route["routing_key"], dedup_key=document["id"])
                    event = resolve.to_json()
                else:
                    event = closed_webhook(document["body"], incident)
                    if route["kind"] == "email":
                        event = mail_of(event)
                self._queue(document["id"], channel, route, event)
        return document

    def _find_open(self, incident: Incident, changed: dict[str, dict[str, Any]]) -> dict[str, Any]:
        series = incident.series.to_json()
        for document in reversed({**self._incidents, **changed}.values()):
            if (
                document["state"] == "open"
                and document["conditionName"] == incident.condition_name
                and document["series"] == series
            ):
                return document
        raise KeyError(f"no open incident for {incident.condition_name}")

    def _queue(
        self, incident: str, channel: str, route: dict[str, str], event: dict[str, Any]
    ) -> None:
        self._store.add_notification(
            incident=incident, channel=channel, body=json.dumps({**route, "event": event})
        )
