"""A picture is looked at by people; what can be measured in it is measured here."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from alerts.backtest import backtest
from alerts.comparison import compare
from alerts.encode import engine_descriptors
from alerts.entrant import entrants
from alerts.history import History
from alerts.picture import COLUMNS, picture, png, time_ticks
from alerts.policies import CATALOG
from speakfit.engine.points import Series
from speakfit.metrics import QUEUE_DEPTH, WORKERS_ALIVE
from tests.alerts.test_backtest import BODIES, body_of
from tests.alerts.test_history import history_of
from tests.alerts.timeline import MINUTE, START, gauge

SVG = "{http://www.w3.org/2000/svg}"
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def drawn(history: History, *, current: dict[str, object] | None = None) -> ElementTree.Element:
    """The picture of queue-depth-warning and worker-down-critical, read as XML."""
    lookup = engine_descriptors(CATALOG).get
    after = entrants(
        [BODIES["queue-depth-warning"], BODIES["worker-down-critical"]], descriptors=lookup
    )
    before = entrants([current] if current else [], descriptors=lookup)
    result = backtest([*before, *after], history, columns=COLUMNS)
    old, new = result.outcomes[: len(before)], result.outcomes[len(before) :]
    text = picture(compare(old, new), result, title="A <test>", before=current is not None)
    return ElementTree.fromstring(text)


def texts(svg: ElementTree.Element) -> list[str]:
    return [str(one.text) for one in svg.iter(f"{SVG}text")]


def tall_rects(svg: ElementTree.Element) -> list[tuple[float, float]]:
    """Left edge and width of every incident."""
    return [
        (float(one.attrib["x"]), float(one.attrib["width"]))
        for one in svg.iter(f"{SVG}rect")
        if one.attrib.get("class") == "x"
    ]


def queue_and_workers(minutes: int, *trouble: tuple[int, float | None]) -> list[Series]:
    return [gauge(QUEUE_DEPTH, *trouble), gauge(WORKERS_ALIVE, (minutes, 2))]


def test_incidents_are_drawn_where_and_as_long_as_they_were() -> None:
    # Evaluated from 6 to 255, which is 816 wide; open from 106 to 151.
    lines = queue_and_workers(256, (100, 3), (50, 150), (106, 3))
    history = history_of(lines, end_ns=START + 256 * MINUTE)
    svg = drawn(history)
    per_minute = 816 / (255 - 6)
    (left, width) = tall_rects(svg)[0]
    assert len(tall_rects(svg)) == 1
    assert left == pytest.approx(72 + (106 - 6) * per_minute, abs=0.1)
    assert width == pytest.approx(45 * per_minute, abs=0.1)
    assert svg.attrib["role"] == "img"
    assert svg.findtext(f"{SVG}title") == "A <test>"
    assert svg.findtext(f"{SVG}desc") == "queue-depth-warning: 1 incidents."
    (tip,) = (one.findtext(f"{SVG}title") for one in svg.iter(f"{SVG}g"))
    assert tip == "2026-01-01 01:46 to 2026-01-01 02:31 UTC, recovered, 150 above 100"
    assert "Nothing to draw of worker-down-critical." in texts(svg)


def test_the_current_policy_is_drawn_above_the_proposed_on_the_same_scale() -> None:
    lines = queue_and_workers(256, (100, 3), (50, 150), (106, 3))
    history = history_of(lines, end_ns=START + 256 * MINUTE)
    svg = drawn(history, current=body_of("queue-depth-warning", thresholdValue=400))
    captions = [one for one in texts(svg) if one.startswith(("current:", "proposed:"))]
    assert captions == [
        "current: chunks accepted and not finished above 400 for 5 min",
        "proposed: chunks accepted and not finished above 100 for 5 min",
    ]
    assert texts(svg).count("500") == 2, "both axes end alike"
    assert len(tall_rects(svg)) == 1


def test_a_spike_of_a_minute_is_seen_in_a_month() -> None:
    ends = START + np.arange(1, 30 * 1_440) * MINUTE
    values = np.full(len(ends), 3.0)
    values[20_000] = 99.0
    line = replace(gauge(QUEUE_DEPTH, (1, 0)), start_ns=ends, end_ns=ends, values=values)
    svg = drawn(history_of([line], end_ns=int(ends[-1])))
    assert "no incident; came to 99 % of the limit (2026-01-14 21:21)" in texts(svg)
    heights = [
        float(y)
        for path in svg.iter(f"{SVG}path")
        for y in re.findall(r" (\d+\.\d)", path.attrib["d"])
    ]
    assert max(heights) - min(heights) > 60, "the line reaches nearly up to the limit"
    assert len(heights) < 2 * COLUMNS, "a month is no more than its pixels"


def test_labels_cannot_break_out_of_the_picture_and_gaps_stay_gaps() -> None:
    odd = gauge(QUEUE_DEPTH, (20, 150), (20, None), (20, 150))
    key = replace(odd.key, resource_labels=(("task_id", '"><script>&'),))
    svg = drawn(history_of([replace(odd, key=key)]))
    assert len(list(svg.iter(f"{SVG}path"))) == 2
    assert not list(svg.iter(f"{SVG}script"))


def test_a_quiet_history_says_so() -> None:
    svg = drawn(history_of(queue_and_workers(60, (60, 3))))
    assert "No incident, and nothing that came near one." in texts(svg)


def test_ticks_are_whole_and_few() -> None:
    for length in (10 * MINUTE, HOUR, 5 * HOUR, DAY, 14 * DAY, 42 * DAY, 400 * DAY):
        ticks = time_ticks(START + 12_345, START + length)
        assert 2 <= len(ticks) <= 10
        assert all(tick % MINUTE == 0 for tick in ticks)
    assert time_ticks(START, START + 4 * HOUR)[1] - START == HOUR // 2


def test_a_bitmap_is_drawn_where_the_renderer_is_installed() -> None:
    pytest.importorskip("resvg_py")
    lookup = engine_descriptors(CATALOG).get
    policies = entrants([BODIES["queue-depth-warning"]], descriptors=lookup)
    history = history_of(queue_and_workers(60, (20, 3), (30, 150), (10, 3)))
    result = backtest(policies, history, columns=COLUMNS)
    text = picture(compare([], result.outcomes), result, title="t", before=False)
    assert png(text)[:8] == b"\x89PNG\r\n\x1a\n"
