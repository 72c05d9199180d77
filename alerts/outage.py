"""Known outages: what policies should have told, and whether they did. Pure but for the file.

The file is YAML, written by people after the fact:

    outages:
      - start: 2026-01-05T12:00:00Z
        end: 2026-01-05T12:40:00Z
        subject: queue-depth        # optional: only its policies can detect it
        severity: warning           # optional: only those of this severity
        note: two workers lost      # optional
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alerts.backtest import Backtest, Occurrence, Outcome
from alerts.history import parse_instant
from speakfit.clock import to_ns
from speakfit.errors import HistoryError

_SEVERITIES = ("warning", "critical")
_FORM = "Write `outages:` and a list of start, end (2026-01-05T12:00:00Z) and optionally subject, \
severity (warning or critical) and note."
_KEYS = ("start", "end", "subject", "severity", "note")


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A time in which something was broken, whoever noticed."""

    start_ns: int
    end_ns: int
    subject: str = ""
    severity: str = ""
    note: str = ""

    def concerns(self, outcome: Outcome) -> bool:
        """Whether a policy should tell of it."""
        return self.about(outcome) and self.severity in ("", outcome.entrant.severity)

    def about(self, outcome: Outcome) -> bool:
        """Whether a page of a policy during it is right, whatever the severity."""
        return self.subject in ("", outcome.entrant.subject)

    @property
    def length(self) -> timedelta:
        """How long it lasted."""
        return timedelta(microseconds=(self.end_ns - self.start_ns) // 1_000)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Which policies told of an outage, each how long after its start, the quickest first."""

    outage: Outage
    by: tuple[tuple[str, timedelta], ...]
    unknown: tuple[str, ...]
    """Policies that should have, but the history does not say what they would have done."""
    concerned: int
    """Policies that should have told, whether they did or not."""

    @property
    def delay(self) -> timedelta | None:
        """How long until the first of them; None when it was missed."""
        return self.by[0][1] if self.by else None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How well policies tell of known outages."""

    detections: tuple[Detection, ...]
    false_pages: Mapping[str, int]
    """Pages of each policy that belong to no known outage, of those that have any."""
    outside: int
    """Outages that do not begin within the replayed time."""

    @property
    def missed(self) -> int:
        """Outages that no policy told of."""
        return sum(1 for one in self.detections if not one.by)


def judge(outcomes: Sequence[Outcome], outages: Sequence[Outage], result: Backtest) -> Judgement:
    """Compare what policies would have done with what is known to have been broken.

    An incident belongs to an outage when the trouble behind it overlaps the outage.
    """
    inside = [one for one in outages if result.start_ns <= one.start_ns <= result.end_ns]
    false_pages = {}
    for outcome in outcomes:
        concerning = [one for one in outages if one.about(outcome)]
        pages = sum(
            sum(incident.pages.values())
            for incident in outcome.incidents
            if not any(_overlap(incident, one) for one in concerning)
        )
        if pages:
            false_pages[outcome.entrant.id] = pages
    return Judgement(
        detections=tuple(_detection(one, outcomes) for one in inside),
        false_pages=false_pages,
        outside=len(outages) - len(inside),
    )


def _overlap(incident: Occurrence, outage: Outage) -> bool:
    return incident.since_ns <= outage.end_ns and incident.closed_ns >= outage.start_ns


def _detection(outage: Outage, outcomes: Sequence[Outcome]) -> Detection:
    by = []
    concerned = [one for one in outcomes if outage.concerns(one)]
    for outcome in concerned:
        opened = [one.incident.started_ns for one in outcome.incidents if _overlap(one, outage)]
        if opened:
            delay = timedelta(microseconds=(min(opened) - outage.start_ns) // 1_000)
            by.append((outcome.entrant.id, delay))
    return Detection(
        outage=outage,
        by=tuple(sorted(by, key=lambda one: one[1])),
        unknown=tuple(one.entrant.id for one in concerned if not one.standing.known),
        concerned=len(concerned),
    )


def read_outages(path: Path) -> tuple[Outage, ...]:
    """The outages of a file, the earliest first; a HistoryError names the entry that is wrong."""
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        words = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise HistoryError(
            f"The outages cannot be read: {words}.", where=str(path), todo=_FORM
        ) from error
    entries = body.get("outages") if isinstance(body, dict) else body
    if not isinstance(entries, list) or not entries:
        raise HistoryError("There are no outages in it.", where=str(path), todo=_FORM)
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_outage(entry))
        except ValueError as error:
            raise HistoryError(
                f"An outage is declared wrongly: {error}.",
                where=f"{path}, outage {number}",
                todo=_FORM,
            ) from error
    return tuple(sorted(found, key=lambda one: (one.start_ns, one.end_ns)))


def _outage(entry: Any) -> Outage:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is no mapping")
    for name in entry:
        if name not in _KEYS:
            raise ValueError(f"{name!r} is none of {', '.join(_KEYS)}")
    start_ns, end_ns = _instant(entry, "start"), _instant(entry, "end")
    if end_ns <= start_ns:
        raise ValueError("it ends before it starts")
    texts = {name: entry.get(name) or "" for name in ("subject", "severity", "note")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name} is {text!r}, not a text")
    if texts["severity"] not in ("", *_SEVERITIES):
        raise ValueError(f"severity is {texts['severity']!r}, not {' or '.join(_SEVERITIES)}")
    return Outage(start_ns=start_ns, end_ns=end_ns, **texts)


def _instant(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if value is None:
        raise ValueError(f"{name} is missing")
    if isinstance(value, datetime):
        # YAML turns a time with a zone into UTC; one without means UTC.
        return to_ns(value.replace(tzinfo=UTC) if value.tzinfo is None else value)
    if isinstance(value, str):
        return parse_instant(value)
    raise ValueError(f"{name} is {value!r}; write for example 2026-01-05T12:00:00Z")
