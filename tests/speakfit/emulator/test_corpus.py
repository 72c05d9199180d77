"""Published policies and dashboards live a whole life over both protocols.

They are not part of this repository; where they are absent the tests are skipped. Placeholders
such as `${PROJECT_ID}` are filled as their readers would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.cloud import monitoring_dashboard_v1, monitoring_v3
from google.protobuf import json_format

from speakfit.emulator.system_metrics import is_system_metric
from speakfit.engine.filters import parse_filter
from speakfit.errors import WireError
from tests.speakfit.emulator.bench import PROJECT, Bench

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"
_PLACEHOLDER = re.compile(r"\$\{[A-Z_]+\}")
_BUILT_BY_ALIGNER = {"ALIGN_RATE": "CUMULATIVE", "ALIGN_DELTA": "CUMULATIVE"}


def _files(folder: str) -> list[Any]:
    found = sorted((CORPUS / folder).glob("*.json"))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason="the corpus is not here"))]
    return [pytest.param(path, id=path.stem) for path in found]


def _read(path: Path) -> dict[str, Any]:
    text = _PLACEHOLDER.sub("speakfit-test", path.read_text(encoding="utf-8"))
    body: dict[str, Any] = json.loads(text)
    return body


def _declare(bench: Bench, policy: dict[str, Any]) -> None:
    """Declare the user metrics of a policy with a kind that its aligner takes."""
    for condition in policy["conditions"]:
        for body in condition.values():
            if not isinstance(body, dict) or "metric" not in body.get("filter", ""):
                continue
            try:
                names = parse_filter(body["filter"]).metric_types or ()
            except WireError:
                # A log filter has a language of its own.
                continue
            aligner = (body.get("aggregations") or [{}])[0].get("perSeriesAligner", "")
            for name in names:
                if not is_system_metric(name):
                    status, answer = bench.http(
                        "POST",
                        f"/v3/{PROJECT}/metricDescriptors",
                        {
                            "type": name,
                            "metricKind": _BUILT_BY_ALIGNER.get(aligner, "GAUGE"),
                            "valueType": "DISTRIBUTION" if "PERCENTILE" in aligner else "DOUBLE",
                        },
                    )
                    assert status == 200, answer


def _canonical(message: Any, *without: str) -> Any:
    """What is compared: all fields a client sets, none that the server adds."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in without:
        copy.ClearField(name)
    return copy


def _lacking(sent: Any, answered: Any) -> Any:
    """What of some JSON is missing from an answer; defaults are not written back."""
    if isinstance(sent, dict) and isinstance(answered, dict):
        found = {name: _lacking(value, answered.get(name)) for name, value in sent.items()}
        return {name: value for name, value in found.items() if value not in (None, {}, [])}
    if isinstance(sent, list) and isinstance(answered, list) and len(sent) == len(answered):
        found_items = [_lacking(a, b) for a, b in zip(sent, answered, strict=True)]
        return [value for value in found_items if value not in (None, {}, [])]
    if sent == answered or str(sent) == str(answered) or sent in ("", 0, 0.0, False, [], {}):
        return None
    # The enum members of number zero.
    if isinstance(sent, str) and sent.endswith(("_UNSPECIFIED", "ALIGN_NONE", "REDUCE_NONE")):
        return None
    return sent


def plain_policy(message: Any) -> Any:
    bare = _canonical(message, "name", "creation_record", "mutation_record", "validity", "enabled")
    for condition in bare.conditions:
        condition.ClearField("name")
    return bare


def _dashboard(message: Any) -> Any:
    return _canonical(message, "name", "etag")


class Rest:
    """The calls of one collection over REST, answered as messages."""

    def __init__(self, bench: Bench, path: str, kind: Any, listed: str) -> None:
        self._bench, self._path, self._kind, self._listed = bench, path, kind, listed

    def _call(self, method: str, path: str, message: Any = None) -> Any:
        body = None if message is None else json_format.MessageToDict(message)
        status, answer = self._bench.http(method, path, body)
        assert status == 200, answer
        return answer

    def _message(self, body: Any) -> Any:
        return json_format.ParseDict(body, self._kind())

    def create(self, message: Any) -> Any:
        return self._message(self._call("POST", self._path, message))

    def get(self, name: str) -> Any:
        return self._message(self._call("GET", f"/{self._path.split('/')[1]}/{name}"))

    def list(self) -> list[Any]:
        answer = self._call("GET", self._path)
        return [self._message(body) for body in answer.get(self._listed, ())]

    def update(self, message: Any) -> Any:
        path = f"/{self._path.split('/')[1]}/{message.name}"
        return self._message(self._call("PATCH", path, message))

    def delete(self, name: str) -> None:
        self._call("DELETE", f"/{self._path.split('/')[1]}/{name}")


class Policies:
    """The calls on policies through the shipped gRPC client."""

    def __init__(self, bench: Bench) -> None:
        self._client = bench.policies

    @staticmethod
    def _plain(message: Any) -> Any:
        return monitoring_v3.AlertPolicy.pb(message)

    def create(self, message: Any) -> Any:
        policy = monitoring_v3.AlertPolicy.wrap(message)
        return self._plain(self._client.create_alert_policy(name=PROJECT, alert_policy=policy))

    def get(self, name: str) -> Any:
        return self._plain(self._client.get_alert_policy(name=name))

    def list(self) -> list[Any]:
        return [self._plain(one) for one in self._client.list_alert_policies(name=PROJECT)]

    def update(self, message: Any) -> Any:
        policy = monitoring_v3.AlertPolicy.wrap(message)
        return self._plain(self._client.update_alert_policy(alert_policy=policy))

    def delete(self, name: str) -> None:
        self._client.delete_alert_policy(name=name)


class _Dashboards:
    """The calls on dashboards through the shipped gRPC client."""

    def __init__(self, bench: Bench) -> None:
        self._client = bench.dashboards

    @staticmethod
    def _plain(message: Any) -> Any:
        return monitoring_dashboard_v1.Dashboard.pb(message)

    def create(self, message: Any) -> Any:
        dashboard = monitoring_dashboard_v1.Dashboard.wrap(message)
        return self._plain(
            self._client.create_dashboard(request={"parent": PROJECT, "dashboard": dashboard})
        )

    def get(self, name: str) -> Any:
        return self._plain(self._client.get_dashboard(request={"name": name}))

    def list(self) -> list[Any]:
        found = self._client.list_dashboards(request={"parent": PROJECT})
        return [self._plain(one) for one in found]

    def update(self, message: Any) -> Any:
        dashboard = monitoring_dashboard_v1.Dashboard.wrap(message)
        return self._plain(self._client.update_dashboard(request={"dashboard": dashboard}))

    def delete(self, name: str) -> None:
        self._client.delete_dashboard(request={"name": name})


def live(calls: Any, message: Any, bare: Callable[[Any], Any]) -> None:
    """Create, read back equal, list, rename, delete."""
    made = calls.create(message)
    assert bare(made) == bare(message)
    assert calls.get(made.name) == made
    assert calls.list() == [made]
    made.display_name = "Renamed"
    updated = calls.update(made)
    assert bare(updated) == bare(made)
    assert calls.get(made.name) == updated
    calls.delete(made.name)
    assert calls.list() == []


@pytest.fixture(scope="module")
def shared() -> Any:
    """One emulator for all files: every file leaves it as it found it."""
    with Bench() as bench:
        yield bench


@pytest.mark.parametrize("path", _files("alert-policies"))
def test_a_published_policy_lives_over_grpc_and_rest(shared: Bench, path: Path) -> None:
    body = _read(path)
    # Channels of the project it was published from.
    body.pop("notificationChannels", None)
    _declare(shared, body)
    kind = monitoring_v3.AlertPolicy.pb()
    message = json_format.ParseDict(body, kind())
    live(Policies(shared), message, plain_policy)
    rest = Rest(shared, f"/v3/{PROJECT}/alertPolicies", kind, "alertPolicies")
    live(rest, message, plain_policy)
    status, made = shared.http("POST", f"/v3/{PROJECT}/alertPolicies", body)
    assert status == 200, made
    assert shared.http("DELETE", f"/v3/{made['name']}") == (200, {})


@pytest.mark.parametrize("path", _files("dashboards"))
def test_a_published_dashboard_lives_over_grpc_and_rest(shared: Bench, path: Path) -> None:
    body = _read(path)
    kind = monitoring_dashboard_v1.Dashboard.pb()
    status, made = shared.http("POST", f"/v1/{PROJECT}/dashboards", body)
    assert status == 200, made
    # What the published messages lack comes back as it was sent.
    strict = json_format.ParseDict(body, kind(), ignore_unknown_fields=True)
    assert _lacking(body, made) == {}
    assert _dashboard(json_format.ParseDict(made, kind(), ignore_unknown_fields=True)) == (
        _dashboard(strict)
    )
    over_grpc = _Dashboards(shared).get(made["name"])
    assert shared.http("DELETE", f"/v1/{made['name']}") == (200, {})
    over_grpc.ClearField("name")
    over_grpc.ClearField("etag")
    live(_Dashboards(shared), over_grpc, _dashboard)
    live(Rest(shared, f"/v1/{PROJECT}/dashboards", kind, "dashboards"), strict, _dashboard)
