"""What was answered OK is there after SIGKILL, whenever it comes."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument, NotFound
from google.cloud import monitoring_v3

from speakfit.emulator.server import Emulator
from tests.speakfit.emulator.bench import LABELS, METRIC, OPTIONS, PROJECT, RESOURCE, Bench

_SERIES = 20


class _Process:
    """An emulator in a process of its own, to be killed."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "speakfit.emulator", "--host-port", "127.0.0.1:0"]
        command += ["--http-port", "0", "--json", "--data-dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.channel = grpc.insecure_channel(json.loads(self.process.stdout.readline())["grpc"])
        kind = monitoring_v3.MetricServiceClient
        self.metrics = kind(transport=kind.get_transport_class("grpc")(channel=self.channel))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.channel.close()


def _series(index: int, at: int) -> dict[str, Any]:
    end = {"seconds": at}
    return {
        "metric": {"type": METRIC, "labels": {"n": str(index)}},
        "resource": RESOURCE,
        "points": [{"interval": {"end_time": end}, "value": {"double_value": float(at)}}],
    }


def _kill_while_writing(folder: Path, began: int, after_calls: int) -> int:
    """Write until killed; the time of the last call that was answered OK."""
    emulator = _Process(folder)
    answered = began
    halfway = threading.Event()

    def write() -> None:
        nonlocal answered
        for call in range(1, 10_000):
            at = answered + 5
            try:
                emulator.metrics.create_time_series(
                    name=PROJECT, time_series=[_series(index, at) for index in range(_SERIES)]
                )
            except Exception:
                # The kill came between: this call was not answered.
                break
            answered = at
            if call == after_calls:
                halfway.set()
        halfway.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert halfway.wait(timeout=30)
    emulator.kill()
    writer.join(timeout=30)
    assert not writer.is_alive()
    return answered


def _check(folder: Path, began: int, answered: int) -> int:
    """Every answered point is there; the time of the newest stored one."""
    with Emulator(replace(OPTIONS, data_dir=folder), threads=False) as emulator:
        series = emulator.backend.points.of_type(PROJECT.removeprefix("projects/"), METRIC)
        assert len(series) == _SERIES
        ends = set()
        for one in series:
            stored = [one.point(n) for n in range(len(one))]
            ends.add(tuple(end // 10**9 for _start, end, _value in stored))
            assert all(value == end / 1e9 for _start, end, value in stored)
        # A call is stored whole or not at all.
        assert len(ends) == 1
        (times,) = ends
        assert set(range(began + 5, answered + 1, 5)) <= set(times)
        return times[-1]


def _survive(folder: Path, kills: int) -> None:
    began = newest = int(time.time()) - 20 * 3_600
    for number in range(kills):
        answered = _kill_while_writing(folder, newest, after_calls=3 + 7 * number % 23)
        newest = _check(folder, began, answered)


def test_no_answered_write_is_lost_when_the_emulator_is_killed(tmp_path: Path) -> None:
    _survive(tmp_path, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_answered_write_is_lost_in_fifty_kills(tmp_path: Path) -> None:
    _survive(tmp_path, kills=50)


def test_every_type_of_value_is_the_same_after_a_restart(tmp_path: Path) -> None:
    histogram = {
        "count": 3,
        "mean": 2.0,
        "bucket_options": {"explicit_buckets": {"bounds": [1.0, 4.0]}},
        "bucket_counts": [1, 2],
    }
    values: dict[str, Any] = {
        "int64_value": 2**60 + 1,
        "double_value": 0.1,
        "bool_value": True,
        "distribution_value": histogram,
    }

    def read(bench: Bench) -> list[Any]:
        return [bench.read(f'metric.type="{METRIC}.{name}"') for name in values]

    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        for _ in range(40):
            clock.advance(timedelta(seconds=30))
            bench.write(
                *(
                    {
                        **bench.series(0, metric=f"{METRIC}.{name}"),
                        "points": [
                            {"interval": {"end_time": bench.stamp()}, "value": {name: value}}
                        ],
                    }
                    for name, value in values.items()
                )
            )
        before = read(bench)
        assert [len(series.points) for (series,) in before] == [40] * 4
        (whole,) = before[0]
        assert whole.points[0].value.int64_value == 2**60 + 1
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        assert read(bench) == before


def test_points_of_a_deleted_metric_do_not_come_back_under_another_one(tmp_path: Path) -> None:
    with Bench(data_dir=tmp_path) as bench:
        clock = bench.clock
        bench.write(bench.series(1))
        bench.metrics.delete_metric_descriptor(name=f"{PROJECT}/metricDescriptors/{METRIC}")
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        clock.advance(timedelta(minutes=1))
        bench.write(bench.series(2, metric=f"{METRIC}.other"))
    with Bench(data_dir=tmp_path, clock=clock) as bench:
        (series,) = bench.read(f'metric.type="{METRIC}.other"')
        assert [point.value.double_value for point in series.points] == [2.0]


def test_one_series_spelt_in_two_ways_is_a_duplicate(bench: Bench) -> None:
    plain = bench.series(1)
    labels = {**LABELS, "project_id": PROJECT.removeprefix("projects/")}
    spelt = {**plain, "resource": {**RESOURCE, "labels": labels}}
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=r"timeSeries\[1\].*Duplicate TimeSeries"):
            bench.write(plain, spelt)
    with pytest.raises(NotFound):
        bench.read()
    bench.write(plain)
    bench.clock.advance(timedelta(seconds=10))
    bench.write({**spelt, "points": bench.series(2)["points"]})
    bench.clock.advance(timedelta(seconds=10))
    points = bench.series(3)["points"]
    with pytest.raises(InvalidArgument, match=r"timeSeries\[1\].*Duplicate TimeSeries"):
        bench.write({**plain, "points": points}, {**spelt, "points": points})
    (series,) = bench.read()
    assert [point.value.double_value for point in series.points] == [2.0, 1.0]
