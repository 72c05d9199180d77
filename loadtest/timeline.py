"""A run drawn on one axis of time: arrivals, latencies, queue, incidents and faults; pure.

Inline SVG without script or outside resource. Colours come from the page's custom properties, so
light and dark are the page's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 960
LEFT, RIGHT = 64, 16
LANE, GAP, TOP = 120, 34, 18
BAR = 24

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


def draw(run: Mapping[str, Any]) -> str:
    """The time-line of one run of a report's JSON."""
    end: float = max(
        run["seconds"],
        run["slots"][-1]["at"] + 1 if run["slots"] else 0,
        # The line of a queue that is empty for good says nothing more.
        *(at + 2 for at, depth in run["queue"] if depth),
        *(page["resolved_seconds"] or 0 for page in run["pages"]),
        1,
    )

    def across(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, min(1.0, at / end))

    parts: list[str] = []
    top = TOP
    slots = run["slots"]
    for draw_lane in (_arrivals, _latencies, _queue):
        parts += draw_lane(run, across, top, end)
        top += LANE + GAP
    bars = [
        *((page, "incident " + page["severity"]) for page in run["pages"]),
        *((fault, "fault") for fault in run.get("faults", ())),
    ]
    parts.append(_title("Incidents and faults", top))
    for number, (one, kind) in enumerate(bars):
        y = top + 8 + number * (BAR + 4)
        left = across(one["at_seconds"])
        until = one["resolved_seconds"]
        right = across(end if until is None else until)
        told = one.get("policy") or one["title"]
        note = f"{told}: {one['at_seconds']:.0f} s to " + (
            "still open" if until is None else f"{until:.0f} s"
        )
        # Beside its bar, where there is room.
        beside = right + 6 if right < WIDTH * 0.7 else left - 6
        anchor = "start" if right < WIDTH * 0.7 else "end"
        wide = max(3, right - left)
        parts.append(
            f'<rect class="{escape(kind)}" x="{left:.1f}" y="{y}" width="{wide:.1f}"'
            f' height="{BAR}" rx="4"><title>{escape(note)}</title></rect>'
            f'<text class="label" x="{beside:.1f}" y="{y + BAR / 2 + 4}" text-anchor="{anchor}">'
            f"{escape(told)}</text>"
        )
    if not bars:
        parts.append(f'<text class="quiet" x="{LEFT}" y="{top + 22}">none: nobody was paged</text>')
    top += 14 + max(1, len(bars)) * (BAR + 4)
    # The grid lies below everything.
    parts = [*_axis(run, across, end, top), *parts]
    height = top + 34
    summary = f"Time-line of {run['scenario']}: {len(slots)} s of load"
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(summary)}">'
        + "".join(parts)
        + "</svg>"
    )


def _title(words: str, top: float) -> str:
    return f'<text class="lane" x="{LEFT}" y="{top - 5:.0f}">{escape(words)}</text>'


def _frame(top: float) -> str:
    return (
        f'<rect class="frame" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{LANE}"/>'
    )


def _line(points: Points, across: Scale, up: Scale, kind: str) -> str:
    if not points:
        return ""
    steps = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in points)
    return f'<polyline class="line {kind}" points="{steps}"/>'


def _area(points: Points, across: Scale, up: Scale, floor: float, kind: str) -> str:
    if not points:
        return ""
    steps = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in points)
    first, last = across(points[0][0]), across(points[-1][0])
    return (
        f'<polygon class="area {kind}" points="{first:.1f},{floor:.1f} {steps}'
        f' {last:.1f},{floor:.1f}"/>'
    )


def _rule(value: float, up: Scale, words: str, kind: str) -> str:
    y = up(value)
    # A warning is below its critical one, and so is its word.
    word = y + 13 if kind == "warning" else y - 4
    return (
        f'<line class="rule {kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="rule-label {kind}" x="{WIDTH - RIGHT - 4}" y="{word:.1f}"'
        f' text-anchor="end">{escape(words)}</text>'
    )


def _ticks(values: Sequence[tuple[float, str]], up: Scale) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}"'
        f' y2="{up(value):.1f}"/><text class="tick" x="{LEFT - 8}" y="{up(value) + 4:.1f}"'
        f' text-anchor="end">{escape(words)}</text>'
        for value, words in values
    )


def _legend(names: Sequence[tuple[str, str]], top: float) -> str:
    x = WIDTH - RIGHT
    parts = []
    for words, kind in reversed(names):
        x -= 7 * len(words) + 4
        parts.append(f'<text class="label" x="{x}" y="{top - 5:.0f}">{escape(words)}</text>')
        x -= 16
        parts.append(
            f'<rect class="swatch {kind}" x="{x}" y="{top - 13:.0f}" width="11" height="8" rx="2"/>'
        )
        x -= 10
    return "".join(parts)


def _linear(top: float, highest: float) -> Scale:
    return lambda value: top + LANE - LANE * min(1.0, value / highest)


def nice(highest: float) -> float:
    """A round number at or above."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= highest)


def _numbers(highest: float) -> list[tuple[float, str]]:
    return [(highest * part / 4, f"{highest * part / 4:,.4g}") for part in (0, 2, 4)]


def _arrivals(run: Mapping[str, Any], across: Scale, top: float, end: float) -> list[str]:
    slots = run["slots"]
    started = [(slot["at"] + 0.5, slot["started"]) for slot in slots]
    failed = [(slot["at"] + 0.5, slot["failed"]) for slot in slots]
    highest = nice(max((value for _, value in started + failed), default=1))
    up = _linear(top, highest)
    return [
        _frame(top),
        _title("Requests begun each second", top),
        _legend((("begun", "begun"), ("failed", "failed")), top),
        _ticks(_numbers(highest), up),
        _area(started, across, up, top + LANE, "begun"),
        _line(started, across, up, "begun"),
        _area(failed, across, up, top + LANE, "failed") if any(v for _, v in failed) else "",
    ]


def _latencies(run: Mapping[str, Any], across: Scale, top: float, end: float) -> list[str]:
    low, high = 0.001, 60.0

    def up(value: float) -> float:
        share = math.log(max(low, min(high, value)) / low) / math.log(high / low)
        return top + LANE - LANE * share

    ticks = ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"))
    kinds = (("p50", "low"), ("p95", "middle"), ("p99", "high"))
    return [
        _frame(top),
        _title("Latency from the intended start, logarithmic", top),
        _legend(kinds, top),
        _ticks(ticks, up),
        *(_rule(value, up, words, kind) for value, words, kind in run["rules"]["latency"]),
        *(
            _line(
                [
                    (slot["at"] + 0.5, slot[name] / 1000)
                    for slot in run["slots"]
                    if slot[name] is not None
                ],
                across,
                up,
                kind,
            )
            for name, kind in kinds
        ),
    ]


def _queue(run: Mapping[str, Any], across: Scale, top: float, end: float) -> list[str]:
    points = [(at, value) for at, value in run["queue"] if 0 <= at <= end]
    most = max((value for _, value in points), default=0)
    rules = [one for one in run["rules"]["queue"] if one[0] <= max(most * 1.5, 10)]
    highest = nice(max(most, 10, *(one[0] for one in rules)))
    up = _linear(top, highest)
    return [
        _frame(top),
        _title("Chunks accepted and not finished", top),
        _ticks(_numbers(highest), up),
        _area(points, across, up, top + LANE, "queue"),
        _line(points, across, up, "queue"),
        *(_rule(value, up, words, kind) for value, words, kind in rules),
    ]


def _axis(run: Mapping[str, Any], across: Scale, end: float, bottom: float) -> list[str]:
    parts = []
    step = nice(end / 12)
    for number in range(int(end / step) + 1):
        at = number * step
        x = across(at)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{at:g} s</text>'
        )
    for stage in run["stages"][1:]:
        x = across(stage["at"])
        parts.append(f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
    x = across(run["seconds"])
    parts.append(
        f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 30}" text-anchor="end">load ends</text>'
    )
    return parts
