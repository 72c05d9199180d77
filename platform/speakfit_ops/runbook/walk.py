"""Walking through a runbook: which blocks, in which order, how each ended, and what to tell.

Checks, fixes and verifies come in the order of the page. A check that fails has found something,
and the walk goes on; a fix that fails stops it; a verify is repeated until it holds or its time is
up. What a page changed is told in a note on its open incidents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from alerts.incident import OPEN, policy_id
from alerts.nearest import did_you_mean
from alerts.policy import Catalog
from alerts.terminal import EXIT_ERROR, EXIT_FINE, EXIT_GATE, EXIT_PARTLY
from speakfit.errors import CatalogError, PagerDutyError, RefusedError
from speakfit.pagerduty import PagerDutyApi, PagerDutyIncident
from speakfit.runbook import Block, Kind, Outcome, Place, Runbook, run_block

_REPEAT = timedelta(seconds=2)
_COMMAND_FAULTS = frozenset({126, 127})
"""A shell's exit codes for a command that cannot be run: the block found nothing out."""


class State(StrEnum):
    """What became of one block."""

    DONE = "done"
    FOUND = "found something"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    NOT_REACHED = "not reached"


class Answer(StrEnum):
    """What somebody says to the next block."""

    RUN = "run"
    SKIP = "skip"
    QUIT = "quit"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One block and what became of it."""

    block: Block
    state: State
    exit_code: int | None = None


@dataclass(kw_only=True)
class Walk:
    """Runs blocks one after another; `ask` decides on each, `say` tells of each.

    `steps` grows while it runs and is complete afterwards, also after an interruption.
    """

    blocks: Sequence[Block]
    environment: Mapping[str, str]
    ask: Callable[[Block], Answer]
    before: Callable[[Block], None]
    after: Callable[[Step, str], None]
    limit: timedelta
    patience: timedelta
    steps: list[Step] = field(default_factory=list)

    def run(self) -> None:
        """Walk to the end, to what stops it, or to a KeyboardInterrupt, which is passed on."""
        waiting = list(self.blocks)
        try:
            while waiting:
                block = waiting[0]
                answer = self.ask(block)
                if answer is Answer.QUIT:
                    return
                waiting.pop(0)
                if self._take(block, answer).state is State.FAILED:
                    return
        finally:
            self.steps += [Step(block=block, state=State.NOT_REACHED) for block in waiting]

    def _take(self, block: Block, answer: Answer) -> Step:
        if answer is Answer.SKIP:
            return self._note(Step(block=block, state=State.SKIPPED), "")
        self.before(block)
        try:
            outcome = self._outcome(block)
        except KeyboardInterrupt:
            self._note(Step(block=block, state=State.INTERRUPTED), "")
            raise
        step = Step(block=block, state=_state(outcome), exit_code=outcome.exit_code)
        return self._note(step, outcome.output)

    def _outcome(self, block: Block) -> Outcome:
        deadline = time.monotonic() + self.patience.total_seconds()
        while True:
            outcome = run_block(block, self.environment, limit=self.limit)
            hopeless = outcome.passed or outcome.exit_code in _COMMAND_FAULTS
            if hopeless or block.kind is not Kind.VERIFY or time.monotonic() > deadline:
                return outcome
            time.sleep(_REPEAT.total_seconds())

    def _note(self, step: Step, output: str) -> Step:
        self.steps.append(step)
        self.after(step, output)
        return step

    @property
    def exit_code(self) -> int:
        """0 fine, 1 failed before any change, 3 not mended, 4 failed after a change."""
        return exit_code(self.steps)


def _state(outcome: Outcome) -> State:
    if outcome.passed:
        return State.DONE
    found = outcome.block.kind is Kind.CHECK and outcome.exit_code not in _COMMAND_FAULTS
    return State.FOUND if found else State.FAILED


def exit_code(steps: Sequence[Step]) -> int:
    """What the steps together mean; a verify that holds outweighs what checks found before."""
    broken = [step for step in steps if step.state in {State.FAILED, State.INTERRUPTED}]
    if any(step.block.kind is Kind.VERIFY and step.state is State.FAILED for step in broken):
        return EXIT_GATE
    if broken:
        touched = any(
            step.block.kind.changes and step.state in {State.DONE, State.FAILED, State.INTERRUPTED}
            for step in steps
        )
        return EXIT_PARTLY if touched else EXIT_ERROR
    found = any(step.state is State.FOUND for step in steps)
    holds = any(step.block.kind is Kind.VERIFY and step.state is State.DONE for step in steps)
    return EXIT_ERROR if found and not holds else EXIT_FINE


def chosen_blocks(
    page: Runbook, place: Place, *, named: Sequence[str], all_changes: bool
) -> tuple[Block, ...]:
    """What is walked through: everything that reads, and of what changes only what is named.

    With `all_changes` fixes are offered as well, for somebody who is asked about each; a rollback
    never is. A CatalogError when the page has no block here, or none of a name.
    """
    here = page.at(place)
    if not here:
        raise CatalogError(
            f"{page.id} has no blocks to run ({place}).",
            where=f"runbooks/{page.id}.md",
            todo=f"Read it: `python -m speakfit_ops.runbook show {page.id}`.",
        )
    changes = [block.name for block in here if block.kind.changes]
    for name in named:
        if name not in changes:
            raise CatalogError(
                f"{page.id} has no fix or rollback {name} ({place}).",
                where=f"runbooks/{page.id}.md",
                todo=did_you_mean(
                    name, changes, otherwise=f"There are: {', '.join(changes) or 'none'}."
                ),
            )
    return tuple(
        block
        for block in here
        if not block.kind.changes
        or block.name in named
        or (all_changes and not named and block.kind is Kind.FIX)
    )


def refuse_unanswered(blocks: Sequence[Block], environment: Mapping[str, str]) -> None:
    """A RefusedError when a block asks for what nobody has filled in."""
    missing = {
        name: words
        for block in blocks
        for name, words in block.asks.items()
        if not environment.get(name)
    }
    if missing:
        raise RefusedError(
            "Not filled in: " + "; ".join(f"{name} ({words})" for name, words in missing.items()),
            todo="Give each with --set NAME=VALUE.",
        )


def note_text(page: Runbook, place: Place, steps: Sequence[Step], at: datetime) -> str:
    """What is written on the incident: each block and how it ended; outputs may be secret."""
    lines = [f"Runbook {page.id} ({place}), {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"]
    for step in steps:
        code = f", exit code {step.exit_code}" if step.exit_code else ""
        lines.append(f"- {step.block.kind} {step.block.name}: {step.state}{code}")
    return "\n".join(lines)


def open_incidents(
    api: PagerDutyApi, page: Runbook, catalog: Catalog
) -> tuple[PagerDutyIncident, ...]:
    """The incidents that are open now and whose policy leads to this page."""
    ours = {policy.id for policy in catalog.policies if policy.runbook == page.id}
    return tuple(
        incident
        for incident in api.incidents(statuses=OPEN)
        if policy_id(incident, catalog) in ours
    )


def keep_note(text: str, folder: Path, page: Runbook, at: datetime) -> Path:
    """Write a note that could not be sent to a file that only this user can read."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{at:%Y%m%dT%H%M%S}-{page.id}.txt"
    file.touch(mode=0o600)
    file.write_text(text + "\n", encoding="utf-8")
    return file


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of a note: the incidents it stands on, or the trouble and where it is kept."""

    incidents: tuple[str, ...] = ()
    trouble: PagerDutyError | None = None
    kept: Path | None = None


def deliver_note(
    text: str,
    page: Runbook,
    catalog: Catalog,
    *,
    url: str,
    token: str,
    sender: str,
    incident: str | None,
    kept_in: Path,
    at: datetime,
) -> Delivery:
    """Write the note on the named incident, or on all open ones of the page.

    PagerDuty away or refusing is no error here: the note is kept in a file instead.
    """
    written: list[str] = []
    try:
        with PagerDutyApi(url, token) as api:
            found = (
                [incident] if incident else [one.id for one in open_incidents(api, page, catalog)]
            )
            for one in found:
                api.create_note(one, text, sender=sender)
                written.append(one)
    except PagerDutyError as error:
        kept = keep_note(text, kept_in, page, at)
        return Delivery(incidents=tuple(written), trouble=error, kept=kept)
    return Delivery(incidents=tuple(written))
