"""One drill: a real fault, and everything that has to follow until the page is resolved.

Healthy, fault, the metric moves, the incident opens, the page comes as declared and no other, the
runbook is followed, the metric recovers, the page resolves itself. A DrillError says which step
did not happen, what was seen instead and where to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Protocol

from alerts.encode import documentation_json, runbook_url
from alerts.policy import Policy
from loadtest.drill_record import RUNBOOKS
from loadtest.scene import Scene, loopback
from speakfit.errors import DrillError
from speakfit.pagerduty import PagerDutyIncident
from speakfit.runbook import Block, Kind, Place, Runbook, block_environment, read_runbook, run_block

HEALTHY_LIMIT = timedelta(minutes=15)
MOVE_LIMIT = timedelta(minutes=8)
PAGE_LIMIT = timedelta(minutes=20)
RECOVER_LIMIT = timedelta(minutes=15)
RESOLVE_LIMIT = timedelta(minutes=15)
"""Policy time. The longest policy waits ten minutes, and its alignment, one export and one
evaluation take about four; what takes longer is a failure."""

_SPARE = 10.0
"""Real seconds on top of each limit: what runs on a busy machine takes its time."""


def nothing(_: Scene) -> None:
    """What most drills have to do in between."""


def no_answers(_: Scene) -> Mapping[str, str]:
    """Most runbooks ask for nothing that only a person knows."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Drill:
    """What goes wrong for one subject's policies, and what of its runbook puts it right."""

    subject: str
    fault: str
    """In a few words."""
    begin: Callable[[Scene], None]
    fixes: tuple[str, ...]
    """The runbook's fix blocks that are for this fault, in order."""
    may_page: tuple[str, ...] = ()
    """Other policies that the same fault rightly breaks when mending it takes long."""
    before_fix: Callable[[Scene], None] = nothing
    """What has to be before the runbook's fix can help, such as a network that is back."""
    answers: Callable[[Scene], Mapping[str, str]] = no_answers
    """What the runbook's blocks ask for."""


class Told(Protocol):
    """Hears of each step as it happens: what was seen, and the policy time since the fault."""

    def __call__(self, text: str, *, since: timedelta | None = None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Passed:
    """One policy's times, in policy time."""

    policy: Policy
    detect: timedelta
    resolve: timedelta
    blocks: tuple[str, ...]


@dataclass(kw_only=True)
class Play:
    """A drill while it plays."""

    drill: Drill
    scene: Scene
    tell: Told
    began_ns: int = 0
    known: frozenset[str] = frozenset()
    """PagerDuty incidents from before."""
    detected: dict[str, timedelta] = field(default_factory=dict)
    resolved: dict[str, timedelta] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    _fixed_ns: int = 0

    def run(self) -> tuple[Passed, ...]:
        """All steps; what was done is undone at the end, whatever ends it."""
        with self.scene.visitor():
            try:
                self._healthy()
                self._break()
                self._moves()
                self._pages()
                self._follow_runbook()
                self._resolves()
            finally:
                self.scene.clear()
        return tuple(
            Passed(
                policy=policy,
                detect=self.detected[policy.id],
                resolve=self.resolved[policy.id],
                blocks=tuple(self.ran),
            )
            for policy in self.policies
        )

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Those of the subject."""
        return self.scene.policies(self.drill.subject)

    def _since(self, start_ns: int | None = None) -> timedelta:
        start = self.began_ns if start_ns is None else start_ns
        return timedelta(microseconds=(self.scene.clock.now_ns() - start) // 1000)

    def _healthy(self) -> None:
        def healthy() -> str:
            still = [page.component for page in self.scene.pages() if page.status != "resolved"]
            if still:
                return f"open pages: {', '.join(still)}"
            for policy in self.policies:
                readings = self.scene.read(policy)
                if all(reading.broken for reading in readings):
                    return "; ".join(reading.text for reading in readings)
            return ""

        self._until("no page is open and the metric is within its limit", healthy, HEALTHY_LIMIT)
        self.known = frozenset(page.id for page in self.scene.pages())
        self.tell("healthy")

    def _break(self) -> None:
        self.drill.begin(self.scene)
        self.began_ns = self.scene.clock.now_ns()
        self.tell(f"fault: {self.drill.fault}", since=timedelta(0))

    def _moves(self) -> None:
        waiting = {policy.id: policy for policy in self.policies}

        def moved() -> str:
            for policy in list(waiting.values()):
                readings = self.scene.read(policy)
                if all(reading.broken for reading in readings):
                    del waiting[policy.id]
                    seen = "; ".join(reading.text for reading in readings)
                    self.tell(f"the metric moves: {seen}", since=self._since())
            # Of two severities the nearer limit is enough: the other follows or does not page.
            if len(waiting) < len(self.policies):
                return ""
            return "; ".join(
                reading.text for policy in waiting.values() for reading in self.scene.read(policy)
            )

        self._until("the metric breaks its limit", moved, MOVE_LIMIT)

    def _pages(self) -> None:
        wanted = {policy.id: policy for policy in self.policies}
        opened: set[str] = set()

        def paged() -> str:
            for incident in self.scene.incidents():
                if incident["state"] == "open" and incident["id"] not in opened:
                    opened.add(incident["id"])
                    self.tell(f"incident: {incident['summary']}", since=self._since())
            for page in self._new_pages():
                policy = wanted.get(page.component)
                if page.component in self.drill.may_page:
                    continue
                if policy is None:
                    raise self._wrong(
                        f"only pages of {', '.join(wanted)}",
                        f"a page of {page.component or page.title}",
                    )
                if policy.id not in self.detected:
                    self.detected[policy.id] = self._since()
                    self._check(page, policy)
            left = wanted.keys() - self.detected.keys()
            return f"no page of {', '.join(sorted(left))}" if left else ""

        self._until(f"pages of {', '.join(wanted)}", paged, PAGE_LIMIT)

    def _new_pages(self) -> list[PagerDutyIncident]:
        return [page for page in self.scene.pages() if page.id not in self.known]

    def _check(self, page: PagerDutyIncident, policy: Policy) -> None:
        """The page says what the policy declares, where it declares it, and its link answers."""
        assert policy.severity is not None
        base = self.scene.stack.environment["RUNBOOK_BASE_URL"]
        [channel] = self.scene.catalog.channels_of(policy)
        assert channel.service is not None
        declared = {
            "severity": str(policy.severity),
            "urgency": str(channel.service.urgency),
            "service": channel.service.name,
            "runbook link": runbook_url(policy, runbook_base_url=base),
        }
        seen = {
            "severity": page.severity,
            "urgency": page.urgency,
            "service": page.service,
            "runbook link": page.links[0].href if page.links else "none",
        }
        for name, value in declared.items():
            if seen[name] != value:
                raise self._wrong(f"{name} {value} on the page", f"{name} {seen[name]}")
        subject = documentation_json(policy, runbook_base_url=base)["subject"]
        if subject not in page.title:
            raise self._wrong(f"{subject} in the summary", page.title)
        with loopback() as session:
            answer = session.get(seen["runbook link"], timeout=10)
        if answer.status_code != 200:
            raise self._wrong("the runbook behind the link", f"HTTP {answer.status_code}")
        self.tell(
            f"page: {page.title} → {page.service}, urgency {page.urgency}",
            since=self.detected[policy.id],
        )

    def _follow_runbook(self) -> None:
        page = read_runbook(RUNBOOKS / f"{self.drill.subject}.md")
        for block in page.at(Place.LOCAL, Kind.CHECK):
            self._run_block(block)
        self.drill.before_fix(self.scene)
        self._fixed_ns = self.scene.clock.now_ns()
        for name in self.drill.fixes:
            self._run_block(self._named(page, name))
        # Whoever was fixed against stays away; what the fix did not touch is healed.
        self.scene.clear()
        self._recovers()
        for block in page.at(Place.LOCAL, Kind.VERIFY):
            self._until(
                f"the block {block.name} of {page.id}.md succeeds",
                partial(self._failure, block),
                RECOVER_LIMIT,
            )
            self.ran.append(block.name)
            self.tell(f"runbook verify: {block.name}", since=self._since())

    def _named(self, page: Runbook, name: str) -> Block:
        for block in page.at(Place.LOCAL, Kind.FIX):
            if block.name == name:
                return block
        raise self._wrong(f"a fix block {name} in runbooks/{page.id}.md", "no such block")

    def _run_block(self, block: Block) -> None:
        failure = self._failure(block)
        if failure:
            raise self._wrong(f"the block {block.name} succeeds", failure)
        self.ran.append(block.name)
        self.tell(f"runbook {block.kind}: {block.name}", since=self._since())

    def _failure(self, block: Block) -> str:
        answers = self.drill.answers(self.scene) if block.asks else {}
        environment = block_environment(self.scene.stack.shell_environment())
        outcome = run_block(block, {**environment, **answers})
        if outcome.passed:
            return ""
        return f"exit code {outcome.exit_code}: {outcome.output.strip()[-600:]}"

    def _recovers(self) -> None:
        def recovered() -> str:
            self._note_resolved()
            for policy in self.policies:
                readings = self.scene.read(policy)
                if all(reading.broken for reading in readings):
                    return "; ".join(reading.text for reading in readings)
            return ""

        self._until("the metric is within its limit again", recovered, RECOVER_LIMIT)
        self.tell("the metric has recovered", since=self._since())

    def _resolves(self) -> None:
        def resolved() -> str:
            self._note_resolved()
            left = [one.id for one in self.policies if one.id not in self.resolved]
            return f"still open: {', '.join(left)}" if left else ""

        self._until("the pages resolve themselves", resolved, RESOLVE_LIMIT)

    def _note_resolved(self) -> None:
        for page in self._new_pages():
            if page.component in self.drill.may_page:
                continue
            if page.component not in self.detected:
                raise self._wrong("no other page", f"a page of {page.component or page.title}")
            if page.status == "resolved" and page.component not in self.resolved:
                self.resolved[page.component] = self._since(self._fixed_ns)
                self.tell(f"resolved: {page.component}", since=self._since())

    def _until(self, expected: str, look: Callable[[], str], limit: timedelta) -> None:
        """Look until it answers with nothing to complain about; a DrillError at the limit."""
        deadline = time.monotonic() + self.scene.real(limit) + _SPARE
        while seen := look():
            if time.monotonic() > deadline:
                told = f"{limit.total_seconds() / 60:.0f} min of policy time"
                raise self._wrong(f"{expected} within {told}", seen)
            self.scene.pause()

    def _wrong(self, expected: str, seen: str) -> DrillError:
        return DrillError(
            f"Expected: {expected}.\nSeen: {seen}.",
            where=f"{self.scene.console_url}/ and logs in {self.scene.stack.folder / 'logs'}",
            todo=f"Play it alone: `python -m loadtest drill {self.policies[0].id}`.",
        )
