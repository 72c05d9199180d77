"""Every case of the YAML files on every surface it is for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from speakfit.clock import to_ns
from speakfit.emulator.resources import POLICY_RESOURCES
from speakfit.engine.incidents import IncidentOpened, PolicyState, replay
from speakfit.engine.points import Descriptor, MetricKind, ValueType
from speakfit.engine.policies import parse_policy
from speakfit.engine.reduce import aggregate, aggregated_type, parse_aggregation
from speakfit.errors import WireError
from tests.conformance.case import CASES, PROJECT, Case, Kind, Surface, filled
from tests.conformance.series import Line, lines, point_values
from tests.conformance.surface import METHODS, Answer, Grpc, Rest, Wire, parsed
from tests.speakfit.emulator.bench import NOON, Bench

_STATUSES = ("documented", "observed", "assumed")
_MINUTE = timedelta(minutes=1)
_NOON_NS = to_ns(NOON)


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Bench, dict[Surface, Wire]]]:
    with Bench() as bench, httpx.Client(base_url=bench.emulator.http_url, timeout=30) as client:
        yield bench, {Surface.GRPC: Grpc(channel=bench.channel), Surface.REST: Rest(client=client)}


def _of(*kinds: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("case", "surface"),
        [
            pytest.param(case, surface, id=f"{case.file}::{case.name}[{surface}]")
            for case in CASES
            for surface in case.surfaces
            if case.kind in kinds
        ],
    )


def _fits(expected: Any, found: Any) -> bool:
    """Whether an answer has what is expected; None expects absence, what is not named is free."""
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(
            name not in found if one is None else _fits(one, found.get(name))
            for name, one in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(_fits(one, other) for one, other in zip(expected, found, strict=True))
        )
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return bool(abs(expected - found) <= 1e-9 * max(1.0, abs(expected)))
    return bool(expected == found)


def _check(expected: Mapping[str, Any], answer: Answer) -> None:
    refused = "text" in expected or "says" in expected
    assert answer.code == expected.get("code", "INVALID_ARGUMENT" if refused else "OK"), answer.text
    if "text" in expected:
        assert answer.text == expected["text"]
    if "says" in expected:
        assert expected["says"] in answer.text
    assert "Traceback" not in answer.text
    if "details" in expected:
        assert _fits(expected["details"], list(answer.details)), answer.details
    if "answer" in expected:
        assert _fits(expected["answer"], dict(answer.body)), answer.body


def _split(step: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    (name,) = [key for key in step if key in METHODS]
    return name, step[name] or {}


class _Run:
    """One case on one wire: what was answered so far, and the time."""

    def __init__(self, bench: Bench, wire: Wire) -> None:
        bench.reset()
        self.bench = bench
        self.wire = wire
        self.answers: dict[str, Any] = {}

    def fill(self, value: Any) -> Any:
        return filled(value, now=NOON + self._passed, answers=self.answers)

    @property
    def _passed(self) -> timedelta:
        return timedelta(microseconds=(self.bench.clock.now_ns() - _NOON_NS) // 1_000)

    def call(self, name: str, request: Mapping[str, Any]) -> Answer:
        method = METHODS[name]
        asked = self.fill(dict(request))
        for place in ("name", "parent"):
            if f"{{{place}}}" in method.path:
                asked.setdefault(place, PROJECT)
        return self.wire.call(method, asked)

    def given(self, steps: tuple[Mapping[str, Any], ...]) -> None:
        for step in steps:
            if "wait" in step:
                self.bench.clock.advance(timedelta(seconds=step["wait"]))
                self.bench.emulator.evaluate_now()
                continue
            name, request = _split(step)
            answer = self.call(name, request)
            assert answer.code == "OK", answer.text
            self.answers[step.get("as", "last")] = answer.body


@_of(Kind.CALL)
def test_a_call_is_answered(
    started: tuple[Bench, dict[Surface, Wire]], case: Case, surface: Surface
) -> None:
    if surface is Surface.ENGINE:
        _check(case.body, _validated(case))
        return
    bench, wires = started
    run = _Run(bench, wires[surface])
    run.given(case.given)
    answer = run.call(case.body["call"], case.body.get("request", {}))
    _check(run.fill(dict(_expected(case.body))), answer)
    run.answers["answer"] = answer.body
    for step in case.body.get("then", ()):
        if "wait" in step:
            run.given((step,))
            continue
        name, request = _split(step)
        _check(run.fill(dict(_expected(step))), run.call(name, request))


def _expected(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("code", "text", "says", "answer", "details"):
        if name in body:
            yield name, body[name]


def _validated(case: Case) -> Answer:
    """What the engine alone says of a new policy; metrics are those that the case declares."""
    assert case.body["call"] == "CreateAlertPolicy"
    descriptors = {}
    for step in case.given:
        name, request = _split(step)
        assert name == "CreateMetricDescriptor"
        made = request["metricDescriptor"]
        descriptors[made["type"]] = Descriptor(
            kind=MetricKind(made["metricKind"]), value_type=ValueType(made["valueType"])
        )
    request = filled(case.body["request"], now=NOON, answers={})
    policy = {"name": f"{PROJECT}/alertPolicies/1", **request["alertPolicy"]}
    try:
        parse_policy(policy, descriptors=descriptors.get, resource_types=POLICY_RESOURCES)
    except WireError as error:
        return Answer(code=error.code, text=error.what)
    return Answer()


@_of(Kind.POINTS)
def test_points_are_aggregated(
    started: tuple[Bench, dict[Surface, Wire]], case: Case, surface: Surface
) -> None:
    body = case.body
    written = lines(body)
    steps = [body[name] for name in ("aggregation", "secondaryAggregation") if name in body]
    last = max(minute for line in written for minute, _value in line.points)
    if surface is Surface.ENGINE:
        assert _fits(body["points"], _aggregated(written, steps, last)), body["points"]
        return
    bench, wires = started
    run = _Run(bench, wires[surface])
    _write(run, written, until=last)
    interval = {"startTime": f"@{-last * 60}s", "endTime": "@0s"}
    names = ("aggregation", "secondaryAggregation")
    answer = run.call(
        "ListTimeSeries",
        {
            "filter": f'metric.type="{written[0].metric}"',
            "interval": interval,
            **dict(zip(names, steps, strict=False)),
        },
    )
    found = [
        {
            **({"labels": one["metric"]["labels"]} if "labels" in one["metric"] else {}),
            "kind": one["metricKind"],
            "type": one["valueType"],
            "values": point_values(one["points"]),
        }
        for one in answer.body.get("timeSeries", ())
    ]
    assert _fits(body["points"], found), found


def _aggregated(written: list[Line], steps: list[Any], last: int) -> list[dict[str, Any]]:
    """The engine's own answer, newest point first."""
    aggregations = [parse_aggregation(step, field="aggregation", alerting=False) for step in steps]
    aggregated_type(aggregations, written[0].kind, written[0].value_type)
    period = aggregations[0].period_ns
    until = _NOON_NS + last * 60 * 10**9
    count = -(-last * 60 * 10**9 // period)
    at_ns = until - period * np.arange(count - 1, -1, -1, dtype=np.int64)
    table = aggregate([line.series(_NOON_NS) for line in written], aggregations, at_ns)
    found = []
    for index, key in enumerate(table.keys):
        assert table.values is not None
        values = [float(value) for value in table.values[index][::-1] if not np.isnan(value)]
        labels = {"labels": key.metric} if key.metric else {}
        found.append(
            {**labels, "kind": str(table.kind), "type": str(table.value_type), "values": values}
        )
    return found


def _write(run: _Run, written: list[Line], *, until: int) -> None:
    """Declare the metrics, then let the minutes pass, one call for the points of each."""
    for metric in {line.metric: line for line in written}.values():
        answer = run.call("CreateMetricDescriptor", {"metricDescriptor": metric.descriptor()})
        assert answer.code == "OK", answer.text
    _continue(run, written, since=0, until=until)


def _continue(run: _Run, written: list[Line], *, since: int, until: int) -> None:
    for minute in range(since, until + 1):
        if minute:
            run.bench.clock.advance(_MINUTE)
        if minute % 30 == 29:
            run.bench.emulator.evaluate_now()
        series = [line.time_series(minute) for line in written if line.has(minute)]
        if series:
            answer = run.call("CreateTimeSeries", {"timeSeries": series})
            assert answer.code == "OK", answer.text


@_of(Kind.STORY)
def test_incidents_open_and_close(
    started: tuple[Bench, dict[Surface, Wire]], case: Case, surface: Surface
) -> None:
    body = case.body
    written = lines(body)
    minutes = body["minutes"]
    if surface is Surface.ENGINE:
        descriptors = {line.metric: line.engine_descriptor() for line in written}
        policy = {"name": f"{PROJECT}/alertPolicies/1", **body["policy"]}
        spec = parse_policy(policy, descriptors=descriptors.get)
        at = _NOON_NS + np.arange(0, minutes + 1, dtype=np.int64) * 60 * 10**9
        series = [line.series(_NOON_NS) for line in written if line.points]
        _, events = replay(spec, PolicyState.empty(), series, at, active_since_ns=_NOON_NS)
        told = [
            _told(
                event.at_ns,
                "opened" if isinstance(event, IncidentOpened) else "closed",
                {**event.incident.series.resource, **event.incident.series.metric},
            )
            for event in events
        ]
    else:
        bench, wires = started
        run = _Run(bench, wires[surface])
        for metric in {line.metric: line for line in written}.values():
            run.call("CreateMetricDescriptor", {"metricDescriptor": metric.descriptor()})
        answer = run.call("CreateAlertPolicy", {"alertPolicy": body["policy"]})
        assert answer.code == "OK", answer.text
        bench.emulator.evaluate_now()
        _continue(run, written, since=0, until=minutes)
        bench.clock.advance(_MINUTE)
        bench.emulator.evaluate_now()
        told = []
        for one in bench.emulator.incidents():
            series = one["series"]
            labels = {
                **series.get("resource", {}).get("labels", {}),
                **series.get("metric", {}).get("labels", {}),
            }
            told.append(_told(int(one["startedNs"]), "opened", labels))
            if one["endedNs"]:
                told.append(_told(int(one["endedNs"]), "closed", labels))
    assert sorted(told) == sorted(body["story"])


def _told(at_ns: int, word: str, labels: Mapping[str, str]) -> str:
    """`7 opened one`: the minute, what happened, and the task or label `n` of the series."""
    which = [labels[name] for name in ("task_id", "n") if name in labels and labels[name] != "-"]
    return " ".join([f"{(at_ns - _NOON_NS) / 60e9:g}", word, *which])


@_of(Kind.HTTP)
def test_an_http_request_is_answered(
    started: tuple[Bench, dict[Surface, Wire]], case: Case, surface: Surface
) -> None:
    bench, wires = started
    run = _Run(bench, wires[surface])
    run.given(case.given)
    asked = run.fill(dict(case.body["http"]))
    verb, _, path = asked["line"].partition(" ")
    raw = asked["hex"] if "hex" in asked else asked.get("body", "")
    content = bytes.fromhex(raw) if "hex" in asked else raw.encode("utf-8", "surrogatepass")
    if asked.get("gzip"):
        content = gzip.compress(content)
    wire = wires[Surface.REST]
    assert isinstance(wire, Rest)
    answer = wire.client.request(verb, path, content=content, headers=asked.get("headers"))
    assert answer.status_code == case.body.get("status_code", 400), answer.text
    assert answer.headers["content-type"].startswith("application/json")
    if verb != "HEAD":
        _check(dict(_expected(case.body)), parsed(answer))


@_of(Kind.BYTES)
def test_bytes_over_grpc_are_answered(
    started: tuple[Bench, dict[Surface, Wire]], case: Case, surface: Surface
) -> None:
    bench, wires = started
    run = _Run(bench, wires[surface])
    run.given(case.given)
    wire = wires[Surface.GRPC]
    assert isinstance(wire, Grpc)
    asked = case.body["bytes"]
    raw = bytes.fromhex(asked["hex"]) * asked.get("count", 1)
    _check(dict(_expected(case.body)), wire.send(asked["rpc"], raw))


def test_every_case_is_told_once_with_its_source() -> None:
    assert len({case.node for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.source, case.node
        assert case.status in _STATUSES, case.node
        # Nobody has run one against Google yet; whoever does may say so in the file.
        assert case.gcp_verified is False, case.node
        if Surface.GRPC in case.surfaces and case.kind is Kind.CALL:
            assert Surface.REST in case.surfaces, case.node
