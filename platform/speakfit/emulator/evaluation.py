"""Evaluates policies on a fixed grid of policy time: steps them through it, whatever happens.

Evaluation times lie on multiples of the period and a watermark behind now. Missed times (a busy
machine, a restart) are caught up in one replay; after a long pause only the latest counts, because
nobody wants to be paged about last night.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from speakfit.emulator.backend import Backend
from speakfit.emulator.incidents import Finding, Incidents
from speakfit.emulator.states import StoredStates
from speakfit.emulator.watchdog import Watchdog
from speakfit.engine.incidents import CloseReason, PolicyState, Replay, replay_many
from speakfit.engine.points import Series
from speakfit.errors import SpeakFitError

_LOG = logging.getLogger("speakfit.emulator")
_LAST = "evaluatedNs"
_CATCH_UP = timedelta(hours=1)
_PAUSE = timedelta(minutes=5)
_RETENTION_EVERY = 60
_LONGEST_WAIT = 1.0
_SHORTEST_WAIT = 0.01


def _ns(span: timedelta) -> int:
    return (span // timedelta(microseconds=1)) * 1_000


class Evaluator:
    """Steps every policy through time; what is remembered and what is open survive a restart."""

    def __init__(
        self,
        *,
        backend: Backend,
        incidents: Incidents,
        period: timedelta,
        watermark: timedelta,
        retention: timedelta,
        notify: Callable[[], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        """`notify` is called after notifications have been queued."""
        self._backend = backend
        self._incidents = incidents
        self._store = backend.store
        self._clock = backend.clock
        self._period = _ns(period)
        self._watermark = _ns(watermark)
        self._retention = _ns(retention)
        self._notify = notify
        self._watchdog = watchdog
        self._running = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rounds = 0
        self._failed: frozenset[str] = frozenset()
        self._memories = StoredStates(self._store)
        open_incidents = incidents.open()
        self._states = {
            name: PolicyState(
                series=self._memories.memories.get(name, {}), open=open_incidents.get(name, ())
            )
            for name in (*self._memories.memories, *open_incidents)
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

    @property
    def last_ns(self) -> int | None:
        """The latest evaluated policy time."""
        return self._last

    @property
    def failed(self) -> frozenset[str]:
        """Policies that the latest evaluation failed for: their silence says nothing."""
        return self._failed

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
            present = set()
            due: dict[str, list[Replay]] = {}
            for name, spec, changed_ns in self._backend.policies.specs():
                present.add(name)
                if spec is not None:
                    one = Replay(
                        spec=spec,
                        state=self._states.get(name, PolicyState.empty()),
                        active_since_ns=max(changed_ns, self._resumed_ns),
                    )
                    due.setdefault(name.split("/")[1], []).append(one)
            findings = [
                finding
                for project, replays in due.items()
                for finding in self._evaluate(project, replays, times)
            ]
            evaluated = {finding.spec.name for finding in findings}
            self._failed = frozenset(
                one.spec.name for replays in due.values() for one in replays
            ).difference(evaluated)
            self._record(findings, gone=self._states.keys() - present, until_ns=times[-1])
            if self._rounds % _RETENTION_EVERY == 0:
                self._backend.points.forget_before(self._clock.now_ns() - self._retention)
                self._memories.forget_keys()
            self._rounds += 1
            if self._watchdog is not None:
                # Last, so that nobody hears that all is well before it was.
                self._watchdog.round(times, failed=len(self._failed))
            return len(times)

    def _evaluate(
        self, project: str, replays: Sequence[Replay], times: Sequence[int]
    ) -> Iterator[Finding]:
        """Replay the policies of a project together, and by halves when one of them cannot be.

        One policy that cannot be evaluated must not silence the others.
        """
        try:
            yield from self._replay(project, replays, times)
        except Exception:
            if len(replays) == 1:
                _LOG.exception("policy %s could not be evaluated", replays[0].spec.name)
                return
            half = len(replays) // 2
            yield from self._evaluate(project, replays[:half], times)
            yield from self._evaluate(project, replays[half:], times)

    def _replay(
        self, project: str, replays: Sequence[Replay], times: Sequence[int]
    ) -> list[Finding]:
        until_ns = times[-1] + self._watermark
        snoozes = [
            # What an evaluation finds is told a watermark later, so a snooze covers that much
            # before its start: nobody is paged while it lasts.
            replace(snooze, start_ns=snooze.start_ns - self._watermark)
            for snooze in self._backend.snoozes.between(
                project, after_ns=times[0], until_ns=until_ns
            )
        ]
        results = replay_many(
            replays,
            self._series(project, replays, after_ns=times[0], until_ns=until_ns),
            times,
            snoozes=snoozes,
            project=project,
        )
        return [
            Finding(spec=one.spec, project=project, state=state, events=events)
            for one, (state, events) in zip(replays, results, strict=True)
        ]

    def _series(
        self, project: str, replays: Sequence[Replay], *, after_ns: int, until_ns: int
    ) -> Iterator[Series]:
        """What the policies read, each metric as far back as the one that looks furthest.

        No window looks past its end, but growth there is interpolated towards the next point;
        without that point a rate reads too low.
        """
        points = self._backend.points
        lookback: dict[str, timedelta] = {}
        for one in replays:
            names = one.spec.metric_types
            for name in points.types(project) if names is None else names:
                lookback[name] = max(one.spec.lookback, lookback.get(name, timedelta(0)))
        for name, length in lookback.items():
            yield from points.snapshot(
                project, after_ns=after_ns - _ns(length), until_ns=until_ns, metric_type=name
            )

    def _record(self, findings: Sequence[Finding], *, gone: set[str], until_ns: int) -> None:
        """What one round found and remembers, in one transaction."""
        states = {
            **{name: state for name, state in self._states.items() if name not in gone},
            **{finding.spec.name: finding.state for finding in findings},
        }
        memories = {name: state.series for name, state in states.items()}
        orphans = [
            # A deleted policy closes what it left open.
            replace(incident, ended_ns=until_ns, close_reason=CloseReason.POLICY_DELETED)
            for name in gone
            for incident in self._states[name].open
        ]
        with self._store.transaction():
            changes = self._incidents.store(
                findings, orphans=orphans, since_ns=self._last, until_ns=until_ns
            )
            numbers = self._memories.store(memories)
            self._store.set_fact(_LAST, until_ns)
        # Memory follows the disk: a round that could not be stored is done again.
        self._incidents.settle(changes)
        self._memories.settle(memories, numbers)
        self._states = states
        self._last = until_ns
        if changes.told:
            self._notify()
