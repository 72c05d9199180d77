"""Draws a backtest as SVG: what was measured, the limits, and the incidents on top. Pure.

An own small writer instead of a plotting library: one kind of chart, under 20 kB a line, light or
dark as the reader's system is, with a text for every incident; a library would bring 60 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from itertools import groupby
from math import ceil, floor, log10

import numpy as np

from alerts.backtest import Backtest, Chart, Occurrence, Outcome
from alerts.comparison import Comparison
from alerts.history import minute
from alerts.tally import near_words
from alerts.wording import duration_words
from speakfit.clock import from_ns
from speakfit.engine.conditions import Operator
from speakfit.engine.points import Floats, SeriesKey
from speakfit.errors import HistoryError

COLUMNS = 720
"""Columns of pixels that the lines are drawn in."""
WORTH_DRAWING = 0.8
"""A condition that came nearer to its limit than this is drawn even without an incident."""

_WIDTH, _LEFT, _RIGHT = 960.0, 72.0, 72.0
_PLOT = _WIDTH - _LEFT - _RIGHT
_TALL = 110.0
_NARROWEST = 4.0
"""An incident of ten minutes must be seen in a month."""
_MOST_TICKS = 9
_HOUR = 3_600 * 10**9
_DAY = 24 * _HOUR
_STEPS = (
    *(n * _HOUR // 60 for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
    *(n * _DAY for n in (1, 2, 5, 10, 30)),
)


@dataclass(frozen=True, kw_only=True)
class Colours:
    """What a drawing is painted with, by day or by night."""

    surface: str
    ink: str
    quiet: str
    grid: str
    limit: str
    incident: str
    lines: tuple[str, ...]
    """Told apart by people who see red and green alike."""


LIGHT = Colours(
    surface="#ffffff",
    ink="#1b1f24",
    quiet="#5d6670",
    grid="#e4e7eb",
    limit="#b3261e",
    incident="#d93025",
    lines=(
        "#2a6fbb", "#c77700", "#15866b", "#8a4fb0", "#b5447a", "#5f7d00", "#2d8aa0", "#7a5c3e",
    ),
)  # fmt: skip
DARK = Colours(
    surface="#14181d",
    ink="#e8eaed",
    quiet="#9aa4af",
    grid="#2b323a",
    limit="#ff8a80",
    incident="#ff6b5e",
    lines=(
        "#6fb1f5", "#f0a94a", "#4fc7a6", "#c39bea", "#ee8fb7", "#a9cf4f", "#7cc9dc", "#caa885",
    ),
)  # fmt: skip


def _style(colours: Colours) -> str:
    rules = [
        f".s{{fill:{colours.surface}}}",
        f".i{{fill:{colours.ink}}}",
        f".q{{fill:{colours.quiet}}}",
        f".g{{stroke:{colours.grid};stroke-width:1}}",
        f".l{{stroke:{colours.limit};stroke-width:1.2;stroke-dasharray:5 3}}",
        f".lt{{fill:{colours.limit}}}",
        f".x{{fill:{colours.incident};fill-opacity:.18}}",
        f".xb{{fill:{colours.incident}}}",
    ]
    rules += [
        # Bands let each other and the limit shine through.
        f".c{number}{{stroke:{colour};fill:{colour};fill-opacity:.3;stroke-linejoin:round}}"
        for number, colour in enumerate(colours.lines)
    ]
    # A line that is not a band encloses nothing.
    return "".join([*rules, ".o{fill:none}"])


def picture(
    compared: Sequence[Comparison],
    result: Backtest,
    *,
    title: str,
    before: bool,
    follows_reader: bool = True,
) -> str:
    """An SVG document: a chart for each condition that had incidents, or came near one.

    With `before` the current policy is drawn above the proposed one where they differ.
    `follows_reader` lets it turn dark where the reader's system is.
    """
    canvas = _Canvas(result)
    canvas.heading(title, f"{minute(result.start_ns)} to {minute(result.end_ns)} UTC")
    drawn = [one for one in compared if _worth(one.proposed) or (before and _worth(one.current))]
    for one in drawn:
        _draw(canvas, one, before=before)
    if not drawn:
        canvas.sentence("No incident, and nothing that came near one.")
    silent = [one.id for one in compared if one not in drawn]
    if drawn and silent:
        canvas.sentence("Nothing to draw of " + ", ".join(silent) + ".")
    return canvas.document(title, _description(drawn), follows_reader=follows_reader)


def _worth(outcome: Outcome | None) -> bool:
    if outcome is None or outcome.near is None:
        return False
    near = outcome.near
    return bool(outcome.incidents) or near.runs > 0 or WORTH_DRAWING <= near.share < float("inf")


def _description(drawn: Sequence[Comparison]) -> str:
    told = [
        f"{one.id}: {len(one.proposed.incidents)} incidents"
        for one in drawn
        if one.proposed is not None
    ]
    return "; ".join(told) + "." if told else "No incident, and nothing that came near one."


def _draw(canvas: _Canvas, compared: Comparison, *, before: bool) -> None:
    """The charts of one policy: its conditions one below the other, current above proposed."""
    sides = [("proposed", compared.proposed)]
    if before and compared.changed and compared.current is not None:
        sides.insert(0, ("current", compared.current))
    titles = dict.fromkeys(
        chart.title for _, side in sides if side is not None for chart in side.charts
    )
    words = compared.words() if before else _incident_words(compared.proposed)
    canvas.group(compared.id, words)
    for title in titles:
        panels = [
            _Panel(
                name=name if len(sides) > 1 else "",
                chart=chart,
                incidents=tuple(
                    one
                    for one in side.incidents
                    if one.incident.condition_display_name == chart.title
                ),
            )
            for name, side in sides
            if side is not None
            for chart in side.charts
            if chart.title == title
        ]
        # Both sides on one scale, or the eye compares what cannot be compared.
        scale = _Scale.of(panel.chart for panel in panels)
        for number, panel in enumerate(panels):
            canvas.panel(panel, scale, last=number == len(panels) - 1)


def _incident_words(outcome: Outcome | None) -> str:
    if outcome is None or outcome.near is None:
        return ""
    number = len(outcome.incidents)
    if not number:
        return f"no incident; {near_words(outcome.near)}"
    return f"{number} incident" if number == 1 else f"{number} incidents"


@dataclass(frozen=True, kw_only=True)
class _Panel:
    name: str
    """Which side it is, where there are two."""
    chart: Chart
    incidents: tuple[Occurrence, ...]


def _rule(chart: Chart, limit: str) -> str:
    if chart.absence:
        return f"silent for {limit}"
    rule = f"{'above' if chart.above else 'below'} {limit}"
    return rule + (f" for {duration_words(chart.duration)}" if chart.duration else "")


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """From values to heights, and what the axis says."""

    low: float
    high: float
    step: float
    size: float
    """What one of the axis's unit is in values."""
    unit: str

    @classmethod
    def of(cls, charts: Iterable[Chart]) -> _Scale:
        """One scale for several charts: zero, every limit and every value are on it."""
        low, high, unit = 0.0, 0.0, ""
        for chart in charts:
            unit = chart.unit
            low, high = min(low, chart.limit), max(high, chart.limit)
            for line in chart.lines:
                values = np.concatenate((line.low, line.high))
                values = values[np.isfinite(values)]
                if len(values):
                    low, high = min(low, float(values.min())), max(high, float(values.max()))
        if low == high:
            high = low + 1.0
        size, unit = _axis_unit(unit, max(high, -low))
        span = (high - low) / size
        power = 10.0 ** floor(log10(span / 3))
        step = size * next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= 4)
        # A little air above, so that a line at the top does not lie on the border.
        return cls(
            low=floor(low / step) * step,
            high=ceil(high / step + 0.15) * step,
            step=step,
            size=size,
            unit=unit,
        )

    @property
    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + number * self.step for number in range(count + 1)]

    def height(self, value: float) -> float:
        """How far below the top of the chart."""
        return _TALL * (1 - (value - self.low) / (self.high - self.low))

    def words(self, value: float) -> str:
        """A value as the axis shows it."""
        return f"{round(value / self.size, 9):g}{self.unit}"


def _axis_unit(unit: str, most: float) -> tuple[float, str]:
    if unit == "1":
        return 0.01, " %"
    if unit == "s":
        if most >= 2 * 3_600:
            return 3_600.0, " h"
        return (60.0, " min") if most >= 180 else (1.0, " s") if most >= 1 else (0.001, " ms")
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if most >= 10 * size:
            return size, letter
    return 1.0, ""


class _Canvas:
    """Pieces of an SVG document, from top to bottom."""

    def __init__(self, result: Backtest) -> None:
        self._start, self._end = result.start_ns, max(result.end_ns, result.start_ns + 1)
        self._parts: list[str] = []
        self._y = 24.0
        self._clips = 0

    def heading(self, title: str, below: str) -> None:
        self._text(_LEFT, self._y + 10, title, "i", size=17, weight=600)
        self._text(_LEFT, self._y + 29, below, "q", size=12)
        self._y += 44

    def sentence(self, words: str) -> None:
        """Quiet words, broken into lines."""
        self._y += 6
        line = ""
        for word in [*words.split(), ""]:
            if not word or len(line) + len(word) > 115:
                self._text(_LEFT, self._y + 14, line.rstrip(), "q", size=12)
                self._y += 17
                line = ""
            line += word + " "

    def group(self, title: str, words: str) -> None:
        self._y += 10
        self._text(_LEFT, self._y + 12, title, "i", size=14, weight=600)
        self._text(_WIDTH - _RIGHT, self._y + 12, words, "q", size=12, anchor="end")
        self._y += 20

    def panel(self, panel: _Panel, scale: _Scale, *, last: bool) -> None:
        chart = panel.chart
        side = f"{panel.name}: " if panel.name else ""
        limit = scale.words(chart.limit)
        self._text(_LEFT, self._y + 12, f"{side}{chart.title} {_rule(chart, limit)}", "q", size=12)
        self._y += 28
        top = self._y
        for tick in scale.ticks:
            y = top + scale.height(tick)
            self._line(_LEFT, y, _WIDTH - _RIGHT, y, "g")
            self._text(_LEFT - 8, y + 4, scale.words(tick), "q", size=11, anchor="end")
        for one in panel.incidents:
            self._incident(one, top)
        for number, line in reversed(list(enumerate(chart.lines))):
            label = series_label(line.key) or chart.title
            for path in self._paths(chart, line.low, line.high, scale, top):
                kind = f"c{number % 8}" + ("" if path.endswith("Z") else " o")
                self._parts.append(
                    f'<path class="{kind}" d="{path}"><title>{escape(label)}</title></path>'
                )
        y = top + scale.height(chart.limit)
        self._line(_LEFT, y, _WIDTH - _RIGHT, y, "l")
        self._text(_WIDTH - _RIGHT + 6, y + 4, limit, "lt", size=11)
        self._y += _TALL
        self._axis(top, labelled=last)
        self._y += 24 if last else 8
        if last and len(chart.lines) > 1:
            self._legend(chart)

    def _incident(self, one: Occurrence, top: float) -> None:
        left, right = self._x(one.incident.started_ns), self._x(one.closed_ns)
        width = max(right - left, _NARROWEST)
        words = f"{minute(one.incident.started_ns)} to {minute(one.closed_ns)} UTC"
        words += f", {one.incident.close_reason or 'still open'}"
        if one.incident.observed_value is not None:
            than = "above" if one.incident.comparison is Operator.GT else "below"
            words += f", {one.incident.observed_value:.6g} {than} {one.incident.threshold_value:g}"
        label = series_label(one.incident.series)
        words += f" [{label}]" if label else ""
        self._parts.append(
            f"<g><title>{escape(words)}</title>"
            f'<rect class="x" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{_TALL:g}"/>'
            f'<rect class="xb" x="{left:.1f}" y="{top - 4:.1f}" width="{width:.1f}" '
            'height="4"/></g>'
        )

    def _paths(
        self, chart: Chart, low: Floats, high: Floats, scale: _Scale, top: float
    ) -> list[str]:
        """Outlines of each stretch without a gap: along the highest values, back the lowest."""
        there = np.isfinite(low) & np.isfinite(high)
        found = []
        for present, group in groupby(range(len(there)), key=lambda index: bool(there[index])):
            if not present:
                continue
            columns = list(group)
            x = [self._x(int(chart.at_ns[column])) for column in columns]
            above = [top + scale.height(float(high[column])) for column in columns]
            below = [top + scale.height(float(low[column])) for column in columns]
            if len(columns) == 1:
                x, above, below = [x[0], x[0] + 1], above * 2, below * 2
            points = _simplified(list(zip(x, above, strict=True)))
            band = any(one != other for one, other in zip(above, below, strict=True))
            if band:
                points += reversed(_simplified(list(zip(x, below, strict=True))))
            outline = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
            found.append(outline + "Z" if band else outline)
        return found

    def _axis(self, top: float, *, labelled: bool) -> None:
        bottom = top + _TALL
        before = ""
        for at_ns in time_ticks(self._start, self._end):
            x = self._x(at_ns)
            self._line(x, bottom, x, bottom + 4, "g")
            if not labelled:
                continue
            at = from_ns(at_ns)
            day, hour = f"{at:%b} {at.day}", f"{at:%H:%M}"
            words = day if at_ns % _DAY == 0 else f"{day}, {hour}" if day != before else hour
            before = day
            self._text(x, bottom + 16, words, "q", size=11, anchor="middle")

    def _legend(self, chart: Chart) -> None:
        x = _LEFT
        self._y += 4
        entries = [(number, series_label(line.key)) for number, line in enumerate(chart.lines)]
        for number, label in entries:
            label = label if len(label) <= 60 else label[:59] + "…"
            width = 22 + 6.2 * len(label)
            if x > _LEFT and x + width > _WIDTH - _RIGHT:
                x, self._y = _LEFT, self._y + 16
            self._parts.append(
                f'<rect class="c{number % 8}" x="{x:.1f}" y="{self._y + 4:.1f}" width="10" '
                'height="3"/>'
            )
            self._text(x + 15, self._y + 10, label, "q", size=11)
            x += width
        if chart.more:
            self._text(x + 4, self._y + 10, f"and {chart.more:,} more", "q", size=11)
        self._y += 24

    def document(self, title: str, description: str, *, follows_reader: bool) -> str:
        """The whole SVG."""
        tall = self._y + 20
        style = _style(LIGHT)
        if follows_reader:
            style += f"@media (prefers-color-scheme:dark){{{_style(DARK)}}}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {tall:.0f}" '
            f'width="{_WIDTH:g}" height="{tall:.0f}" role="img" aria-labelledby="title desc" '
            'font-family="system-ui,-apple-system,&quot;Segoe UI&quot;,Roboto,'
            '&quot;DejaVu Sans&quot;,sans-serif">\n'
            f'<title id="title">{escape(title)}</title>\n'
            f'<desc id="desc">{escape(description)}</desc>\n'
            f"<style>{style}</style>\n"
            f'<rect class="s" width="100%" height="100%"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )

    def _x(self, at_ns: int) -> float:
        share = (at_ns - self._start) / (self._end - self._start)
        return _LEFT + _PLOT * min(max(share, 0.0), 1.0)

    def _line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(
            f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        kind: str,
        *,
        size: int,
        weight: int = 400,
        anchor: str = "start",
    ) -> None:
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
            f'font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
        )


def _simplified(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points in the middle of a level stretch."""
    return [
        point
        for number, point in enumerate(points)
        if number in (0, len(points) - 1)
        or not points[number - 1][1] == point[1] == points[number + 1][1]
    ]


def require_renderer() -> None:
    """A HistoryError says what to install when bitmaps cannot be drawn here."""
    if find_spec("resvg_py") is None:
        raise HistoryError(
            "PNG pictures need resvg-py, which is not installed.",
            where="--picture",
            todo="pip install resvg-py, or name an .svg file: browsers show it.",
        )


def png(svg: str) -> bytes:
    """The same as a bitmap, twice as fine."""
    require_renderer()
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2, font_family="DejaVu Sans"))


def time_ticks(start_ns: int, end_ns: int) -> list[int]:
    """Instants worth a label: whole minutes, hours or days of UTC, not more than nine."""
    step = next((one for one in _STEPS if (end_ns - start_ns) / one <= _MOST_TICKS), 90 * _DAY)
    return list(range(-(-start_ns // step) * step, end_ns + 1, step))


def series_label(key: SeriesKey) -> str:
    """The labels of a series in one line; those that are the same for all are left out."""
    shown = [*key.metric_labels, *key.user_labels]
    shown += [
        (name, value)
        for name, value in key.resource_labels
        if name not in ("project_id", "location", "namespace", "job")
    ]
    return ", ".join(f"{name}={value}" for name, value in shown)
