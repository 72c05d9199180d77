"""Makes the changes of a plan, one after another, and says what was and what was not done.

A write that meets a concurrent edit is tried again; one that meets a quota stops the rest. Each
write is whole by itself and identity lives in labels, so whatever was cut off, the next apply
reads what is live and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from alerts.encode import CHANNEL_PREFIX
from alerts.gateway import MovedError, explain
from alerts.plan import Action, Change, Kind, Plan, edit_words
from speakfit.errors import ApplyError, RefusedError, SpeakFitError, TargetError
from speakfit.target import Target

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError


class Writer(Protocol):
    """Makes the changes of a plan, one at a time."""

    @property
    def target(self) -> Target:
        """Where it writes to."""

    def write(self, change: Change, *, channel_names: Mapping[str, str], key: str | None) -> str:
        """Make one change and return the resource's name, like `Gateway.write`."""


def apply_plan(
    gateway: Writer,
    plan: Plan,
    *,
    keys: Mapping[str, str],
    on_done: Callable[[Change], None] = lambda change: None,
    before: int = 0,
    after: int = 0,
) -> None:
    """Make every change of a plan in order; `keys` holds secrets by channel id.

    `before` and `after` count what is done elsewhere around it, for whoever reads of a stop.

    Raises ApplyError, with how many changes were done and left, when a write fails, and
    RefusedError when the first resource to change is not what it was. A channel without its secret
    is refused before the first write: it would swallow every page.
    """
    for change in plan.changes:
        if change.secret and change.id not in keys:
            raise ApplyError(
                f"Channel {change.id} needs its secret; nothing was changed.",
                left=len(plan.changes),
                where=str(gateway.target),
                todo="Give the key, token or password that the catalog names for it.",
            )
    if not plan.changes:
        return
    from google.api_core.exceptions import GoogleAPICallError

    names = dict(plan.channel_names)
    total = before + len(plan.changes) + after
    for done, change in enumerate(plan.changes, start=before):
        place = _Place(gateway, change, done=done, total=total)
        try:
            name = gateway.write(
                change,
                channel_names=names,
                key=keys.get(change.id) if change.secret else None,
            )
        except MovedError as error:
            raise place.moved(error) from error
        except TargetError as error:
            # The read before the write failed: the write itself was not tried.
            raise place.stopped(error.what, error.todo) from error
        except GoogleAPICallError as error:
            raise place.refused(error) from error
        except KeyboardInterrupt as error:
            raise place.stopped(
                "you stopped it", "Apply again: it does the rest.", uncertain=True
            ) from error
        if change.kind is Kind.CHANNEL and change.action is Action.CREATE:
            names[CHANNEL_PREFIX + change.id] = name
        on_done(change)


class _Place:
    """Where in a plan an apply stopped, and how to say so."""

    def __init__(self, gateway: Writer, change: Change, *, done: int, total: int) -> None:
        self._target = gateway.target
        self._change = change
        self._done = done
        self._total = total

    @property
    def _where(self) -> str:
        return f"{self._change.action} {self._change.kind} {self._change.id}, {self._target}"

    def stopped(self, what: str, todo: str, *, uncertain: bool = False) -> ApplyError:
        """An ApplyError; `uncertain` when this one write may have happened."""
        if uncertain:
            what += "; this one write may or may not have happened"
        return ApplyError(
            f"Stopped after {self._done} of {self._total} changes: {what.removesuffix('.')}.",
            done=self._done,
            left=self._total - self._done,
            uncertain=uncertain,
            where=self._where,
            todo=todo,
        )

    def refused(self, error: GoogleAPICallError) -> ApplyError:
        """Google's client gave up."""
        refusal = explain(error, self._target)
        todo = refusal.todo
        if refusal.uncertain:
            todo = f"{todo} Apply again then: it reads what is live and does the rest."
        return self.stopped(refusal.what, todo, uncertain=refusal.uncertain)

    def moved(self, error: MovedError) -> SpeakFitError:
        """Somebody edited the resource after the plan was made; it was not written."""
        how = f"edited{edit_words(error.live)}" if error.live is not None else "deleted"
        what = f"{self._change.kind} {self._change.id} was {how} after the plan was made"
        todo = "Plan again, and read what changed."
        if self._done:
            return self.stopped(what, todo)
        return RefusedError(
            f"{what[0].upper()}{what[1:]}; nothing was changed.", where=self._where, todo=todo
        )
