"""Seconds of promtool and of the engine for the same rules over the same numbers, in one run.

    python -m tests.benchmarks.promtool [--series 100] [--days 7]

Three alerting rules over 100 counters of a week at one-minute steps. promtool's time without rules
is its reading; what rules add is its evaluation. The engine reads the very same file, in a process
of its own, start-up included. Both sides say how many minutes each rule fired, which must agree.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from speakfit.engine.incidents import IncidentOpened, PolicyState, Replay, replay_many
from speakfit.engine.points import Descriptor, MetricKind, Series, SeriesKey, ValueType
from speakfit.engine.policies import parse_policy

MINUTE = 60 * 10**9
METRIC = "workload.googleapis.com/requests"
SERIES_LINE = re.compile(r"  - series: '(\w+)\{(.*)\}'")
LABEL = re.compile(r'(\w+)="([^"]*)"')
COUNTER = Descriptor(kind=MetricKind.CUMULATIVE, value_type=ValueType.INT64)
ROUTE = ["metric.labels.route"]
RULES = (
    ("Busy", "rate(requests[5m]) > 1.2017", 5, 1.2017, "300s", None),
    (
        "BusyRoute",
        "sum by (route) (rate(requests[5m])) > 11.4017",
        2,
        11.4017,
        "300s",
        "REDUCE_SUM",
    ),
    ("Peak", "max by (route) (rate(requests[1m])) > 1.4517", 1, 1.4517, "60s", "REDUCE_MAX"),
)
"""Name, PromQL, minutes, and threshold, period and reducer of the twin.

No growth in whole numbers gives such rates: equality would be decided by rounding.
"""


def _write_series(file: Path, *, series: int, length: int) -> None:
    random = np.random.default_rng(7)
    with file.open("w") as out:
        out.write("rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n")
        out.write("  input_series:\n")
        for number in range(series):
            # At rest at first: what came before the first point is unknown to Prometheus.
            grown = random.poisson(60 + 10 * np.sin(np.arange(length) / 200))
            grown[:10] = 0
            values = " ".join(map(str, np.cumsum(grown)))
            out.write(f'  - series: \'requests{{i="{number}", route="/{number % 10}"}}\'\n')
            out.write(f"    values: '{values}'\n")
        # promtool evaluates rules up to the last question only.
        out.write("  promql_expr_test:\n")
        expr = f'sum by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{length}m]))'
        out.write(f"  - expr: '{expr}'\n    eval_time: {length - 1}m\n")


def _write_rules(file: Path, rules: bool) -> None:
    text = "".join(
        f"\n  - alert: {name}\n    expr: {expr}\n    for: {minutes}m"
        for name, expr, minutes, *_ in RULES
    )
    file.write_text(f"groups:\n- name: all\n  interval: 1m\n  rules:{text if rules else ' []'}\n")


def _promtool(file: Path) -> tuple[float, str]:
    begin = time.perf_counter()
    done = subprocess.run(
        ["promtool", "test", "rules", file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return time.perf_counter() - begin, done.stdout + done.stderr


def _policies() -> list[Replay]:
    found = []
    for name, _, minutes, limit, period, reducer in RULES:
        aggregation = {"alignmentPeriod": period, "perSeriesAligner": "ALIGN_RATE"}
        grouped = {"crossSeriesReducer": reducer, "groupByFields": ROUTE} if reducer else {}
        threshold = {
            "filter": f'metric.type = "{METRIC}" AND resource.type = "generic_task"',
            "comparison": "COMPARISON_GT",
            "thresholdValue": limit,
            "duration": f"{minutes * 60}s",
            "aggregations": [aggregation | grouped],
        }
        raw = {
            "name": f"projects/p/alertPolicies/{name}",
            "displayName": name,
            "combiner": "OR",
            "conditions": [{"displayName": name, "conditionThreshold": threshold}],
        }
        spec = parse_policy(raw, descriptors=lambda _: COUNTER)
        found.append(Replay(spec=spec, state=PolicyState.empty()))
    return found


def _read(file: Path) -> tuple[list[Series], int]:
    """The series of a file in promtool's form, and how many minutes they have."""
    found: list[Series] = []
    labels: dict[str, str] = {}
    end = start = np.zeros(0, dtype=np.int64)
    for line in file.read_text().splitlines():
        if named := SERIES_LINE.match(line):
            labels = dict(LABEL.findall(named[2]))
        elif line.startswith("    values: "):
            values = np.fromstring(line[len("    values: '") : -1], sep=" ")
            if len(end) != len(values):
                end = np.arange(len(values)) * MINUTE
                start = np.full(len(values), -MINUTE)
            key = SeriesKey.of(
                metric_type=METRIC, metric_labels=labels, resource_type="generic_task"
            )
            found.append(
                Series.of_numbers(
                    key=key,
                    kind=MetricKind.CUMULATIVE,
                    value_type=ValueType.INT64,
                    start_ns=start,
                    end_ns=end,
                    values=values,
                )
            )
    return found, len(end)


def engine(file: Path) -> dict[str, object]:
    """Read the file, evaluate the rules; the seconds of the evaluation and the minutes firing."""
    series, length = _read(file)
    at = np.arange(length) * MINUTE
    replays = _policies()
    begin = time.perf_counter()
    results = replay_many(replays, series, at)
    seconds = time.perf_counter() - begin
    fired = {}
    for (name, *_), (_, events) in zip(RULES, results, strict=True):
        opened = sum(1 if isinstance(event, IncidentOpened) else -1 for event in events)
        edges = sum(
            event.at_ns * (-1 if isinstance(event, IncidentOpened) else 1) for event in events
        )
        fired[name] = (edges + opened * length * MINUTE) // MINUTE
    return {"seconds": seconds, "fired": fired}


def main() -> None:
    """Print both times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--engine", type=Path, help="only evaluate this file and print JSON")
    chosen = parser.parse_args()
    if chosen.engine:
        print(json.dumps(engine(chosen.engine)))
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tests.yml"
        length = chosen.days * 1_440
        _write_series(file, series=chosen.series, length=length)
        _write_rules(file.parent / "rules.yml", rules=False)
        reading, _ = _promtool(file)
        _write_rules(file.parent / "rules.yml", rules=True)
        whole, output = _promtool(file)
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.promtool", "--engine", str(file)],
            capture_output=True,
            text=True,
            check=True,
        )
        ours_whole = time.perf_counter() - begin
        ours = json.loads(done.stdout)
    theirs = {
        name: int(float(minutes))
        for name, minutes in re.findall(r'alertname="(\w+)"\} ([-+.0-9E]+)', output)
    }
    evaluation = whole - reading
    print(f"{len(RULES)} rules, {chosen.series} series, {length:,} minutes")
    print(f"minutes firing: engine {ours['fired']}, promtool {theirs}")
    print(f"reading and start-up of promtool: {reading:.2f} s")
    print(
        f"evaluation: promtool {evaluation:.2f} s, engine {ours['seconds']:.3f} s: "
        f"{evaluation / ours['seconds']:.0f} times faster"
    )
    print(
        f"whole command: promtool {whole:.2f} s, engine {ours_whole:.2f} s: "
        f"{whole / ours_whole:.1f} times faster"
    )


if __name__ == "__main__":
    main()
