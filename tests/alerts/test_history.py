"""A recorded history holds what was written, whatever its kind, and is never believed blindly."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts import retrieval
from alerts.gateway import Gateway
from alerts.history import History, Selection, read_history, write_history
from alerts.retrieval import retrieve, selections
from speakfit.clock import ManualClock, from_ns
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.server import Emulator
from speakfit.engine.points import (
    Buckets,
    Distribution,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.errors import HistoryError
from speakfit.metrics import QUEUE_DEPTH
from speakfit.target import Target, TargetKind, metric_client
from tests.alerts.playback import play
from tests.alerts.timeline import EXPORT, MINUTE, START, gauge

POINTS = 40
ENDS = START + np.arange(1, POINTS + 1) * EXPORT
ENDS[20:] += 123_456_789
"""An exporter is never quite regular."""
OTHER = "workload.googleapis.com/test/"


def key(name: str, **labels: str) -> SeriesKey:
    return SeriesKey.of(
        metric_type=OTHER + name,
        metric_labels=labels,
        resource_type="generic_task",
        resource_labels={
            "project_id": "speakfit-test",
            "location": "us-central1",
            "namespace": "",
            "job": "api",
            "task_id": "one",
        },
    )


def histogram(bounds: tuple[float, ...], count: int) -> Distribution:
    return Distribution(
        count=count,
        mean=1.5 if count else 0.0,
        ssd=0.25 * count,
        buckets=Buckets.explicit(bounds),
        bucket_counts=(0.0, float(count)),
    )


COUNTING = np.arange(POINTS, dtype=np.float64)
NUMBERS = [
    Series.of_numbers(
        key=key("flag"),
        kind=MetricKind.GAUGE,
        value_type=ValueType.BOOL,
        end_ns=ENDS,
        values=COUNTING % 3 == 0,
    ),
    Series.of_numbers(
        key=key("level", zone="a"),
        kind=MetricKind.GAUGE,
        value_type=ValueType.DOUBLE,
        end_ns=ENDS,
        values=COUNTING / 3,
    ),
    Series.of_numbers(
        key=key("level", zone='a "quoted" ü'),
        kind=MetricKind.GAUGE,
        value_type=ValueType.DOUBLE,
        end_ns=ENDS,
        values=-COUNTING,
    ),
    Series.of_numbers(
        key=key("gained"),
        kind=MetricKind.DELTA,
        value_type=ValueType.INT64,
        start_ns=ENDS - EXPORT // 2,
        end_ns=ENDS,
        values=COUNTING,
    ),
    Series.of_numbers(
        key=key("total"),
        kind=MetricKind.CUMULATIVE,
        value_type=ValueType.INT64,
        # A restart: the counter begins anew.
        start_ns=np.where(COUNTING < 25, START, ENDS[24] + 1_000_000),
        end_ns=ENDS,
        values=np.where(COUNTING < 25, COUNTING, COUNTING - 25),
    ),
]
VALUES = [
    # A deploy refines the buckets.
    histogram((1.0, 2.0) if number < 30 else (1.0, 1.5, 2.0), number)
    for number in range(POINTS)
]


def latencies(part: slice) -> Series:
    ends = ENDS[part]
    return Series.of_distributions(
        key=key("latency"),
        kind=MetricKind.CUMULATIVE,
        start_ns=np.full(len(ends), START),
        end_ns=ends,
        values=VALUES[part],
    )


EVERY_KIND = [*NUMBERS, latencies(slice(None))]


def reading(*names: str) -> list[dict[str, Any]]:
    """A policy that reads metrics; only its filters matter here."""
    return [
        {
            "conditions": [
                {
                    "conditionThreshold": {
                        "filter": f'metric.type = "{OTHER}{name}" AND metric.labels.zone = "a" '
                        'AND resource.type = "generic_task"'
                    }
                }
            ]
        }
        for name in names
    ]


def equal(one: Series, other: Series) -> bool:
    if (one.key, one.kind, one.value_type) != (other.key, other.kind, other.value_type):
        return False
    pairs = [(one.start_ns, other.start_ns), (one.end_ns, other.end_ns)]
    if one.distributions is None or other.distributions is None:
        pairs.append((one.numbers, other.numbers))
    else:
        mine, theirs = one.distributions, other.distributions
        if mine.buckets != theirs.buckets:
            return False
        pairs += [
            (mine.count, theirs.count),
            (mine.mean, theirs.mean),
            (mine.ssd, theirs.ssd),
            (mine.counts, theirs.counts),
        ]
    return all(np.array_equal(a, b) for a, b in pairs)


def test_every_kind_of_series_is_recorded_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages smaller than a series: one is put together from several.
    monkeypatch.setattr(retrieval, "_PAGE", 7)
    monkeypatch.setattr(retrieval, "_PIECE", timedelta(minutes=6))
    clock = ManualClock(from_ns(START))
    with Emulator(EmulatorOptions(port=0, http_port=0), clock=clock) as emulator:
        target = Target(
            kind=TargetKind.EMULATOR, project="speakfit-test", host=emulator.grpc_address
        )
        client = metric_client(target)
        client.create_metric_descriptor(
            name=target.project_name,
            metric_descriptor={
                "type": OTHER + "gained", "metric_kind": "DELTA", "value_type": "INT64",
            },
        )  # fmt: skip
        play([*NUMBERS, latencies(slice(30)), latencies(slice(30, None))], clock, target)
        clock.advance(timedelta(seconds=1))
        policies = reading("flag", "gained", "latency", "level", "total", "never-written")
        shares: list[float] = []
        with Gateway(target) as gateway:
            history = retrieve(
                gateway,
                policies,
                declared=lambda _name: None,
                since=timedelta(hours=1),
                on_progress=shares.append,
            )
            written = write_history(history, tmp_path / "history.jsonl.gz")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert sum(written.points.values()) == len(EVERY_KIND) * POINTS
    found = read_history(tmp_path / "history.jsonl.gz")
    assert found.covers(Selection(metric_type=OTHER + "level", resource_type="generic_task"))
    assert found.covers(
        Selection(metric_type=OTHER + "never-written", resource_type="generic_task")
    ), "read and found empty is not the same as never read"
    assert not found.covers(Selection(metric_type=OTHER + "level", resource_type="gce_instance"))
    expected = sorted(EVERY_KIND, key=lambda one: one.key)
    for _twice in range(2):
        series = sorted(found.series, key=lambda one: one.key)
        assert [one.key for one in series] == [one.key for one in expected]
        assert all(equal(a, b) for a, b in zip(series, expected, strict=True))


def test_a_wider_selection_takes_a_narrower_one_in() -> None:
    policies = reading("level")
    policies[0]["conditions"].append(
        {"conditionAbsent": {"filter": f'metric.type = "{OTHER}level"'}}
    )
    assert selections(policies) == (Selection(metric_type=OTHER + "level"),)


def test_history_of_a_scaled_emulator_is_in_policy_time(tmp_path: Path) -> None:
    options = EmulatorOptions(port=0, http_port=0, time_scale=60)
    with Emulator(options) as emulator:
        target = Target(
            kind=TargetKind.EMULATOR, project="speakfit-test", host=emulator.grpc_address
        )
        at_ns = emulator.clock.now_ns()
        real_ns = emulator.clock.to_real_ns(at_ns)
        line = gauge(QUEUE_DEPTH, (1, 7.0))
        client = metric_client(target)
        client.create_time_series(
            name=target.project_name,
            time_series=[
                {
                    "metric": {"type": QUEUE_DEPTH.type},
                    "resource": {"type": "generic_task", "labels": line.key.resource},
                    "points": [
                        {
                            "interval": {
                                "end_time": {
                                    "seconds": real_ns // 10**9, "nanos": real_ns % 10**9,
                                }
                            },
                            "value": {"int64_value": 7},
                        }
                    ],
                }
            ],
        )  # fmt: skip
        policy = reading("level")[0]
        policy["conditions"][0]["conditionThreshold"]["filter"] = (
            f'metric.type = "{QUEUE_DEPTH.type}" AND resource.type = "generic_task"'
        )
        with Gateway(target) as gateway:
            history = retrieve(
                gateway, [policy], declared=lambda _name: None, since=timedelta(minutes=5)
            )
            (series,) = history.series
    assert series.end_ns.tolist() == [emulator.clock.to_policy_ns(real_ns)]
    assert history.end_ns - history.start_ns == 5 * MINUTE, "five minutes of policy time"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "history.jsonl.gz"
    write_history(history_of([gauge(QUEUE_DEPTH, (5, 1.0)), *EVERY_KIND]), path)
    return path


def history_of(
    series: Sequence[Series], *, end_ns: int = START + 60 * MINUTE, project: str = "speakfit-test"
) -> History:
    """A history of some series, as if it had been recorded."""
    return History(
        project=project,
        source="a test",
        start_ns=START,
        end_ns=end_ns,
        selections=tuple(
            {
                Selection(
                    metric_type=one.key.metric_type, resource_type=one.key.resource_type
                ): None
                for one in series
            }
        ),
        descriptors={
            one.key.metric_type: {
                "type": one.key.metric_type,
                "metricKind": one.kind.value,
                "valueType": one.value_type.value,
            }
            for one in series
        },
        series=series,
    )


Lines = list[dict[str, Any]]


def _set(line: int, name: str, value: Any) -> Callable[[Lines], object]:
    return lambda lines: lines[line].__setitem__(name, value)


DAMAGES: dict[str, tuple[Callable[[Lines], object], str, int]] = {
    "no counts at the end": (lambda lines: lines.pop(), "cut off", 9),
    "a series is missing": (lambda lines: lines.pop(3), "but 6 of", 8),
    "more after the end": (lambda lines: lines.append({}), "goes on", 10),
    "values are missing": (lambda lines: lines[1]["values"].pop(), "9 values for 10 points", 2),
    "a value is a text": (_set(1, "values", ["x"] * 10), "values are not all numbers", 2),
    "a flag is a number": (_set(2, "values", [1] * 40), "true or false", 3),
    "time runs back": (_set(1, "steps", [-30] * 9), "steps are not all positive", 2),
    "time jumps far": (_set(1, "steps", [1e300] * 9), "steps are not all positive", 2),
    "no first time": (_set(1, "first", "yesterday"), "'yesterday' is no instant", 2),
    "an unknown kind": (_set(1, "metricKind", "WAVE"), "WAVE", 2),
    "another kind": (_set(1, "valueType", "DOUBLE"), "GAUGE INT64 in the header", 2),
    "an unknown metric": (_set(1, "metric", {"type": "a/b"}), "does not describe a/b", 2),
    "no metric": (lambda lines: lines[1].pop("metric"), "metric is missing", 2),
    "no start": (lambda lines: lines[6].pop("starts"), "starts is missing", 7),
    "too many buckets": (
        lambda lines: lines[7]["bucketCounts"].__setitem__(0, [1] * 9),
        "9 bucket counts for 4 buckets",
        8,
    ),
    "ends before it begins": (_set(0, "end", "2020-01-01T00:00:00Z"), "ends before", 1),
    "no project": (lambda lines: lines[0].pop("project"), "project is missing", 1),
    "a newer version": (_set(0, "version", 2), "has version 2", 1),
    "no version": (_set(0, "version", None), "version None does not exist", 1),
    "another format": (_set(0, "format", "seed"), "not a recorded history", 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_history_names_the_line(name: str, recorded: Path, tmp_path: Path) -> None:
    damage, words, line = DAMAGES[name]
    lines = [json.loads(text) for text in gzip.decompress(recorded.read_bytes()).splitlines()]
    damage(lines)
    # Unpacked, as somebody leaves it who edited it.
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    with pytest.raises(HistoryError) as caught:
        list(read_history(file).series)
    assert words in caught.value.what
    assert caught.value.where == f"{file}, line {line}"


def test_a_history_that_is_cut_off_or_scrambled_anywhere_is_refused(
    recorded: Path, tmp_path: Path
) -> None:
    whole = recorded.read_bytes()
    file = tmp_path / "cut.jsonl.gz"
    plain = gzip.decompress(whole)
    shorter = [whole[:size] for size in range(0, len(whole), 40)]
    shorter += [plain[:size] for size in range(0, len(plain) - 1, 400)]
    scrambled = [
        whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        # The last byte before the checksum may hold bits that mean nothing.
        for place in range(12, len(whole) - 20, 60)
    ]
    for content in (*shorter, *scrambled):
        file.write_bytes(content)
        with pytest.raises(HistoryError):
            list(read_history(file).series)


def test_an_interrupted_recording_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl.gz"
    line = gauge(QUEUE_DEPTH, (5, 1.0))
    write_history(history_of([line]), file)
    before = file.read_bytes()

    def breaks_off() -> Any:
        yield line
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_history(replace(history_of([line]), series=breaks_off()), file)
    with pytest.raises(HistoryError, match="nothing to record"):
        write_history(replace(history_of([line]), series=()), file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    with pytest.raises(HistoryError, match="cannot be written"):
        write_history(history_of([line]), tmp_path / "no" / "where")
