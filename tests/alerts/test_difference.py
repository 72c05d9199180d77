"""How a difference reads: what changed, with its unit, and nothing else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from alerts.canonical import canonical_policy
from alerts.difference import Glossary, difference_lines, differences
from alerts.encode import Json
from tests.alerts.test_canonical import EVERYTHING

WORDS = Glossary(
    units={"a/b": "s", "a/chunks": "{chunk}"},
    channels={"projects/p/notificationChannels/2": "'Phone of Ben', sms"},
)


def lines(live: Json, desired: Json) -> list[str]:
    before, after = canonical_policy(live, {}), canonical_policy(desired, {})
    found = difference_lines(differences(before, after), live=before, desired=after, glossary=WORDS)
    return [f"{'  ' * one.depth}{one.sign} {one.text}" for one in found]


def after_edits(*edits: tuple[str, Any]) -> list[str]:
    """The lines for a policy with some fields changed; a path is written `conditions.0.x`."""
    desired = deepcopy(EVERYTHING)
    for path, value in edits:
        *way, last = path.split(".")
        inside: Any = desired
        for step in way:
            inside = inside[int(step) if step.isdigit() else step]
        inside[last] = value
    return lines(EVERYTHING, desired)


def test_a_short_value_stands_on_one_line_and_a_duration_is_read() -> None:
    assert after_edits(
        ("severity", "CRITICAL"), ("enabled", False), ("alertStrategy.autoClose", "5400s")
    ) == [
        "~ alertStrategy.autoClose: 30 min -> 1 h 30 min",
        "~ enabled: true -> false",
        '~ severity: "WARNING" -> "CRITICAL"',
    ]


def test_a_long_text_shows_its_changed_lines() -> None:
    old = "\n".join(f"line {number}" for number in range(40))
    new = old.replace("line 7", "line seven").replace("line 30\n", "")
    before, after = deepcopy(EVERYTHING), deepcopy(EVERYTHING)
    before["documentation"]["content"] = old
    after["documentation"]["content"] = new
    assert lines(before, after) == [
        "~ documentation.content (2 of 40 lines)",
        "  - line 7",
        "  - line 30",
        "  + line seven",
    ]


def test_a_filter_shows_its_changed_terms_and_a_list_its_members() -> None:
    wanted = 'resource.type="r" metric.labels.k="w" metric.type="a/b"'
    assert after_edits(
        ("conditions.0.conditionThreshold.filter", wanted),
        ("notificationChannels", ["projects/p/notificationChannels/1"]),
    ) == [
        "~ notificationChannels",
        "  - projects/p/notificationChannels/2 ('Phone of Ben', sms)",
        '~ condition "ratio"',
        "  ~ filter (2 terms the same)",
        '    - metric.labels.k = "v"',
        '    + metric.labels.k = "w"',
    ]


def test_a_threshold_is_read_with_its_unit() -> None:
    def threshold(live: float, desired: float, **body: Any) -> str:
        def policy(value: float) -> Json:
            of = {
                "filter": 'metric.type="a/b" resource.type="r"',
                "aggregations": [{"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX"}],
                "thresholdValue": value,
                **body,
            }
            return {"conditions": [{"displayName": "c", "conditionThreshold": of}]}

        _, line = lines(policy(live), policy(desired))
        return line.removeprefix("  ~ thresholdValue: ")

    def aligned(aligner: str) -> list[dict[str, str]]:
        return [{"alignmentPeriod": "60s", "perSeriesAligner": aligner}]

    other = 'metric.type="a/b" resource.type="other"'
    chunks = 'metric.type="a/chunks" resource.type="r"'
    unknown = 'metric.type="a/unknown" resource.type="r"'
    assert threshold(2, 5.25) == "2 s -> 5.25 s"
    assert threshold(100, 1073741824, filter=chunks) == "100 {chunk} -> 1073741824 {chunk}"
    assert threshold(0.01, 0.057, denominatorFilter=other) == "1 % -> 5.7 %"
    assert threshold(2, 3, aggregations=aligned("ALIGN_RATE")) == "2 s/s -> 3 s/s"
    assert threshold(2, 3, aggregations=aligned("ALIGN_COUNT")) == "2 -> 3"
    assert threshold(2, 3, filter=unknown) == "2 -> 3"


def test_a_condition_that_comes_or_goes_is_told_with_what_it_does_to_incidents() -> None:
    without, renamed = deepcopy(EVERYTHING), deepcopy(EVERYTHING)
    del without["conditions"][1]
    assert lines(EVERYTHING, without)[0] == '- condition "absent"; its open incidents close'
    assert lines(without, EVERYTHING) == [
        '+ condition "absent"',
        '  + aggregations[0].alignmentPeriod: 1 min',
        '  + aggregations[0].perSeriesAligner: "ALIGN_MEAN"',
        '  + duration: "300.5s"',
        '  + filter: metric.type = "a/b" AND resource.type = "r"',
        "  + trigger.count: 3",
    ]  # fmt: skip
    renamed["conditions"][3]["displayName"] = "another"
    found = lines(EVERYTHING, renamed)
    assert '+ condition "another"' in found
    assert '- condition "mql"; its open incidents close' in found
