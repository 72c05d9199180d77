"""Says what a backtest found: as the rows of a table, as sentences, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from math import isinf
from typing import Any

from alerts.backtest import Backtest, Near, Occurrence, Outcome
from alerts.comparison import Comparison
from alerts.history import instant, minute
from alerts.outage import Detection, Judgement
from alerts.wording import duration_words
from speakfit.engine.conditions import Operator
from speakfit.engine.incidents import Incident
from speakfit.engine.points import SeriesKey

Json = dict[str, Any]

HEAD = ("policy", "incidents", "pages/week", "in alert", "longest", "near misses")
_NOTHING = "-"
_WORTH_A_TIME = 0.8
"""What came nearer than this share of the limit is worth looking up."""


def rows(compared: Sequence[Comparison], result: Backtest, *, before: bool) -> list[list[str]]:
    """One row a policy, in the order of HEAD; `before` shows what the current ones did, too.

    A policy of which nothing is known has a row of two: its name and why.
    """
    return [_row(one, result, before=before) for one in compared]


def _row(compared: Comparison, result: Backtest, *, before: bool) -> list[str]:
    after = compared.proposed
    if after is not None and not after.standing.known:
        return [compared.id, f"{after.standing}: {after.reason}"]
    cells = [_cells(after, result)]
    if before:
        cells.insert(0, _cells(compared.current, result))
    columns = [" → ".join(dict.fromkeys(pair)) for pair in zip(*cells, strict=True)]
    near = after.near if after is not None else None
    return [compared.id, *columns, "" if near is None else near_words(near)]


def _cells(outcome: Outcome | None, result: Backtest) -> list[str]:
    if outcome is None or not outcome.standing.known:
        return [_NOTHING if outcome is None else "?"] * 4
    return [
        f"{len(outcome.incidents):,}",
        number_words(result.weekly(outcome.paged)),
        duration_words(outcome.in_alert) if outcome.episodes else _NOTHING,
        duration_words(outcome.longest) if outcome.episodes else _NOTHING,
    ]


def number_words(number: float) -> str:
    """`0`, `0.23`, `4.7`, `112`."""
    if number == 0 or number >= 99.5:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 0.95 else f"{number:.2g}"


def near_words(near: Near) -> str:
    """How near a policy came to an incident that it did not open."""
    if near.runs:
        times = "once" if near.runs == 1 else f"{near.runs:,} times"
        longest = _of(near.longest, near.needed)
        return f"{times} beyond the limit, for {longest} ({minute(near.longest_at_ns)})"
    if isinf(near.share) or near.share < 0.005:
        return _NOTHING
    share = f"{near.share * 100:.0f} % of the limit"
    return f"came to {share} ({minute(near.at_ns)})" if near.share >= _WORTH_A_TIME else share


def _of(part: timedelta, whole: timedelta) -> str:
    """`3 of 5 min`, `30 s of 5 min`, `a moment of 5 min`."""
    if not part:
        return f"a moment of {duration_words(whole)}"
    (first, unit), (_, same) = (duration_words(one).split(" ", 1) for one in (part, whole))
    return f"{first if unit == same else duration_words(part)} of {duration_words(whole)}"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; a short row's last cell runs to the end of the line."""
    whole = [row for row in (head, *body) if len(row) == len(head)]
    widths = [max(len(row[column]) for row in whole) for column in range(len(head))]
    widths[0] = max(widths[0], *(len(row[0]) for row in body)) if body else widths[0]
    lines = []
    for row in (head, *body):
        cells = [
            cell.ljust(width) if column in (0, len(head) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        if len(row) < len(head):
            cells = [row[0].ljust(widths[0]), row[-1]]
        lines.append("  ".join(cells).rstrip())
    return lines


def total_words(outcomes: Sequence[Outcome], result: Backtest) -> str:
    """`5 pages, 1.2 a week (critical 0.5, warning 0.7)`."""
    pages = sum(one.paged for one in outcomes)
    text = f"{pages:,} {'page' if pages == 1 else 'pages'}"
    unknown = sum(1 for one in outcomes if not one.standing.known)
    blind = f"; nothing is known of {unknown} {'policy' if unknown == 1 else 'policies'}"
    blind = blind if unknown else ""
    if not pages:
        return text + blind
    parts = [
        f"{severity or 'without severity'} {number_words(result.weekly(number))}"
        for severity, number in by_severity(outcomes).items()
        if number
    ]
    return f"{text}, {number_words(result.weekly(pages))} a week ({', '.join(parts)}){blind}"


def by_severity(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Pages by the severity of their policies, the worst first."""
    found: dict[str, int] = {}
    for one in outcomes:
        severity = one.entrant.severity
        found[severity] = found.get(severity, 0) + one.paged
    order = {"critical": 0, "error": 1, "warning": 2}
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[0], 3)))


def incident_line(one: Occurrence) -> str:
    """`2026-01-05 12:06 to 12:31 (25 min, recovered)  chunks accepted and not finished: ...`."""
    incident = one.incident
    length = duration_words(timedelta(microseconds=(one.closed_ns - incident.started_ns) // 1_000))
    opened, closed = minute(incident.started_ns), minute(one.closed_ns)
    if closed[:10] == opened[:10]:
        closed = closed[11:]
    if incident.close_reason is None:
        until, how = "on", f"still open after {length}"
    else:
        until, how = f"to {closed}", f"{length}, {incident.close_reason}"
    labels = ", ".join(f"{key}={value}" for key, value in _labels(incident.series))
    what = incident.condition_display_name + (f" [{labels}]" if labels else "")
    return f"{opened} {until} ({how})  {what}{_observed(incident)}"


def _labels(key: SeriesKey) -> list[tuple[str, str]]:
    return [*key.metric_labels, *key.resource_labels, *key.user_labels]


def _observed(incident: Incident) -> str:
    if incident.observed_value is None or incident.threshold_value is None:
        return ""
    than = "above" if incident.comparison is Operator.GT else "below"
    return f": {incident.observed_value:.6g}, {than} {incident.threshold_value:g}"


def detection_line(one: Detection) -> str:
    """One outage and who told of it."""
    outage = one.outage
    what = " ".join(part for part in (outage.subject or "any subject", outage.severity) if part)
    note = f" ({outage.note})" if outage.note else ""
    text = f"{minute(outage.start_ns)}  {duration_words(outage.length)}  {what}{note}: "
    if one.by:
        return text + ", ".join(f"{policy} {_delay_words(delay)}" for policy, delay in one.by)
    if not one.concerned:
        return text + "missed, no policy is about it"
    if one.unknown:
        return text + f"missed as far as is known; nothing is known of {', '.join(one.unknown)}"
    return text + "missed"


def _delay_words(delay: timedelta) -> str:
    if delay < timedelta(0):
        return f"{duration_words(-delay)} before it"
    return f"after {duration_words(delay)}"


# JSON


def outcome_json(outcome: Outcome | None, result: Backtest) -> Json | None:
    """All that is known of one policy on one side; times in RFC 3339, lengths in seconds."""
    if outcome is None:
        return None
    body: Json = {"standing": outcome.standing.value}
    if not outcome.standing.known:
        return {**body, "reason": outcome.reason}
    near = outcome.near
    return {
        **body,
        "pages": outcome.paged,
        "pages_per_week": round(result.weekly(outcome.paged), 3),
        "pages_by_channel": outcome.pages,
        "in_alert_seconds": outcome.in_alert.total_seconds(),
        "longest_seconds": outcome.longest.total_seconds(),
        "incidents": [
            {
                "condition": one.incident.condition_display_name,
                "series": one.incident.series.to_json(),
                "opened": instant(one.incident.started_ns),
                "closed": None if one.incident.ended_ns is None else instant(one.closed_ns),
                "close_reason": one.incident.close_reason,
                "observed_value": one.incident.observed_value,
                "pages": sum(one.pages.values()),
            }
            for one in outcome.incidents
        ],
        "near": None
        if near is None
        else {
            "runs": near.runs,
            "longest_seconds": near.longest.total_seconds(),
            "needed_seconds": near.needed.total_seconds(),
            "longest_at": instant(near.longest_at_ns) if near.runs else None,
            "share": None if isinf(near.share) else round(near.share, 4),
            "share_at": instant(near.at_ns),
        },
    }


def comparison_json(compared: Comparison, result: Backtest, *, before: bool) -> Json:
    """One policy, before and after."""
    body: Json = {"id": compared.id, "proposed": outcome_json(compared.proposed, result)}
    if not before:
        return body
    body["current"] = outcome_json(compared.current, result)
    if compared.known:
        old, new = compared.pages
        sooner = compared.sooner
        body["change"] = {
            "pages": new - old,
            "missed": compared.missed,
            "new": compared.new,
            "sooner_seconds": None if sooner is None else sooner.total_seconds(),
            "words": compared.words(),
        }
    return body


def judgement_json(judgement: Judgement) -> Json:
    """How well policies tell of known outages."""
    return {
        "missed": judgement.missed,
        "outside": judgement.outside,
        "false_pages": dict(judgement.false_pages),
        "outages": [
            {
                "start": instant(one.outage.start_ns),
                "end": instant(one.outage.end_ns),
                "subject": one.outage.subject,
                "severity": one.outage.severity,
                "note": one.outage.note,
                "delay_seconds": None if one.delay is None else one.delay.total_seconds(),
                "detected_by": [
                    {"id": policy, "delay_seconds": delay.total_seconds()}
                    for policy, delay in one.by
                ],
                "unknown": list(one.unknown),
            }
            for one in judgement.detections
        ],
    }
