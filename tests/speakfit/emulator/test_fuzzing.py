"""Whatever is sent over REST or gRPC, the answer is an answer: never a 500, never a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speakfit.emulator import rest_front
from speakfit.emulator.routes import ROUTES, Route
from tests.speakfit.emulator.bench import METRIC, PROJECT, Bench

_FUZZ = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "", "0s", "60s", "-60s", "2026-01-05T12:00:00Z", "0001-01-01T00:00:00Z", "GAUGE",
            "ALIGN_RATE", "REDUCE_SUM", "COMPARISON_GT", "pagerduty", "sms", "c" * 32,
            f'metric.type="{METRIC}" resource.type="generic_task"', "NaN", "Infinity", METRIC,
            f"{PROJECT}/alertPolicies/1", f"{PROJECT}/snoozes/1", "generic_task", "global",
        ]
    ),
)  # fmt: skip
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    """Mostly what the field takes, sometimes anything."""
    inner: st.SearchStrategy[Any] = _SCALARS
    if field.message_type is not None:
        options = field.message_type.GetOptions()
        if options.map_entry:
            inner = st.dictionaries(st.text(max_size=6), _SCALARS, max_size=3)
        elif depth:
            inner = _body(field.message_type, depth - 1)
        else:
            inner = st.just({})
    elif field.enum_type is not None:
        inner = st.sampled_from([value.name for value in field.enum_type.values])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        inner = st.booleans()
    if field.is_repeated and not (
        field.message_type is not None and field.message_type.GetOptions().map_entry
    ):
        inner = st.lists(inner, max_size=3)
    return st.one_of(inner, inner, inner, _ANYTHING)


def _body(message: Any, depth: int = 5) -> st.SearchStrategy[Any]:
    fields = list(message.fields)
    if not fields:
        return st.just({})

    @st.composite
    def build(draw: Any) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(fields), max_size=5, unique_by=lambda f: f.name))
        made = {field.json_name: draw(_value(field, depth)) for field in chosen}
        if draw(st.integers(0, 19)) == 0:
            made[draw(st.text(max_size=8))] = draw(_ANYTHING)
        return made

    return build()


@st.composite
def _calls(draw: Any) -> tuple[str, str, list[tuple[str, str]], bytes]:
    route: Route = draw(st.sampled_from(ROUTES))
    path = route.path
    while "{" in path:
        head, _, rest = path.partition("{")
        variable, _, tail = rest.partition("}")
        filled = variable.partition("=")[2]
        filled = filled.replace("projects/*", PROJECT, 1)
        while "*" in filled:
            segment = draw(st.sampled_from(["1", "x", METRIC, "generic_task", "é", "a b", "%"]))
            filled = filled.replace("**" if "**" in filled else "*", segment, 1)
        path = head + filled + tail
    query: list[tuple[str, str]] = []
    if route.request is not None:
        names = [field.json_name for field in route.request.DESCRIPTOR.fields]
        names += ["updateMask", "update_mask", "interval.endTime", "interval.startTime", "colour"]
        names += ["aggregation.alignmentPeriod", "aggregation.perSeriesAligner", "alt"]
        query = draw(st.lists(st.tuples(st.sampled_from(names), _SCALARS.map(str)), max_size=4))
    raw = b""
    if route.body:
        message = route.request.DESCRIPTOR
        if route.body != "*":
            message = message.fields_by_name[route.body].message_type
        body = draw(st.one_of(_body(message), _body(message), _body(message), _ANYTHING))
        raw = json.dumps(body).encode()
        if draw(st.integers(0, 19)) == 0:
            raw = raw[: len(raw) // 2] + draw(st.binary(max_size=4))
    return route.method, path, query, raw


@pytest.fixture(scope="module")
def target() -> Iterator[Bench]:
    with Bench() as bench:
        bench.write(bench.series(1))
        yield bench


@_FUZZ
@given(call=_calls())
def test_no_rest_call_is_answered_with_a_server_error(
    target: Bench, call: tuple[str, str, list[tuple[str, str]], bytes]
) -> None:
    method, path, query, raw = call
    status, answer = rest_front.answer(
        target.emulator.backend, method=method, path=path, query=query, body=raw
    )
    assert status in (200, 400, 404, 409, 429, 501), answer
    text = json.dumps(answer)
    assert "Traceback" not in text
    assert "Internal error" not in text


@settings(_FUZZ, max_examples=40)
@given(call=_calls())
def test_no_http_request_is_answered_with_a_server_error(
    target: Bench, call: tuple[str, str, list[tuple[str, str]], bytes]
) -> None:
    method, path, query, raw = call
    pairs = [(name, text.encode("utf-8", "replace")) for name, text in query]
    status, _answer = target.http(method, f"{quote(path, safe='/:')}?{urlencode(pairs)}", raw)
    assert status in (200, 400, 404, 409, 429, 501)


_TEXTS = (
    "", "x", METRIC, PROJECT, f"{PROJECT}/alertPolicies/1", f"{PROJECT}/snoozes/1", "generic_task",
    f'metric.type="{METRIC}" resource.type="generic_task"', "location", "job", "task_id", "email",
    f"{PROJECT}/metricDescriptors/{METRIC}", "email_address", "a@b.test", "display_name", "\x00",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 60, 77, 1_800, 10**9, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 1_767_614_400)
_DOUBLES = (0.0, 1.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324)


def _scalar(chance: random.Random, field: Any) -> Any:
    if field.enum_type is not None:
        return chance.choice([*(value.number for value in field.enum_type.values), 77])
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = chance.choice(_TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice(_DOUBLES)
        case FieldDescriptor.CPPTYPE_INT32:
            return max(-(2**31), min(2**31 - 1, chance.choice(_NUMBERS)))
    return chance.choice(_NUMBERS)


def _fill(chance: random.Random, message: Any, depth: int = 7) -> None:
    """Set about half of the fields, at every depth, to what their type can hold."""
    for field in message.DESCRIPTOR.fields:
        if not depth or chance.random() < 0.4:
            continue
        target = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            if kind.fields_by_name["value"].message_type is None:
                target[chance.choice(_TEXTS)] = _scalar(chance, kind.fields_by_name["value"])
        elif field.is_repeated:
            for _ in range(chance.randint(0, 3)):
                if kind is None:
                    target.append(_scalar(chance, field))
                else:
                    _fill(chance, target.add(), depth - 1)
        elif kind is not None:
            target.SetInParent()
            _fill(chance, target, depth - 1)
        else:
            setattr(message, field.name, _scalar(chance, field))


def _message(route: Route, seed: int) -> bytes:
    chance = random.Random(seed)
    message = route.request()
    _fill(chance, message)
    for name in ("name", "parent"):
        if name in message.DESCRIPTOR.fields_by_name and chance.random() < 0.7:
            setattr(message, name, PROJECT)
    return bytes(message.SerializeToString())


@settings(_FUZZ, max_examples=300)
@given(
    route=st.sampled_from([route for route in ROUTES if route.request is not None]),
    sent=st.one_of(st.binary(max_size=60), st.integers(0, 2**32), st.integers(0, 2**32)),
)
def test_no_message_over_grpc_is_answered_with_an_internal_error(
    target: Bench, route: Route, sent: bytes | int
) -> None:
    raw = sent if isinstance(sent, bytes) else _message(route, sent)
    call = target.channel.unary_unary(f"/{route.rpc}").future(raw, timeout=10)
    assert call.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), call.details()
