"""Plan and apply against a real emulator over gRPC: what changes, and what never does."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.cloud import monitoring_dashboard_v1

from alerts.apply import apply_plan
from alerts.encode import policy_message
from alerts.plan import Plan
from alerts.policies import CATALOG
from dashboards.catalog import BOARDS
from dashboards.gateway import Gateway
from dashboards.links import board_of, dashboard_url, resource_name
from dashboards.plan import desired_state, make_plan
from speakfit.emulator.server import Emulator
from speakfit.errors import ApplyError, CatalogError, RefusedError
from speakfit.target import Target, alert_policy_client, dashboard_client
from tests.alerts.unreliable import Proxy

BASE_URL = "https://runbooks.test"


@pytest.fixture
def gateway(target: Target, proxy: Proxy, naps: list[float]) -> Iterator[Gateway]:
    """Talks to the emulator through the proxy, and never really sleeps; the policies are live."""
    client = alert_policy_client(target)
    for policy in CATALOG.policies:
        # What they evaluate does not matter here, only whose they are.
        labels = {"managed-by": "speakfit-alerts", "catalog": CATALOG.name, "alert-id": policy.id}
        condition = {
            "displayName": "burn",
            "conditionPrometheusQueryLanguage": {"query": "up == 0", "duration": "60s"},
        }
        body = {
            "displayName": policy.id,
            "userLabels": labels,
            "combiner": "OR",
            "conditions": [condition],
        }
        client.create_alert_policy(name=target.project_name, alert_policy=policy_message(body))
    with Gateway(replace(target, host=proxy.address), sleep=naps.append) as running:
        yield running


def _plan(gateway: Gateway, boards: Any = BOARDS, *, prune: bool = False) -> Plan:
    desired = desired_state(boards, catalog=CATALOG.name, runbook_base_url=BASE_URL)
    project = gateway.target.project
    live = gateway.read()
    return make_plan(desired, live, catalog=CATALOG.name, project=project, prune=prune)


def _apply(gateway: Gateway, boards: Any = BOARDS, *, prune: bool = False) -> None:
    apply_plan(gateway, _plan(gateway, boards, prune=prune), keys={})


def _edit(target: Target, board_id: str, change: Callable[[Any], None]) -> None:
    """Edit a live dashboard as the console would."""
    client = dashboard_client(target)
    name = resource_name(board_id, project=target.project)
    dashboard = client.get_dashboard(request={"name": name})
    change(dashboard)
    client.update_dashboard(request={"dashboard": dashboard})


def _titles(target: Target) -> dict[str, str]:
    client = dashboard_client(target)
    found = client.list_dashboards(request={"parent": target.project_name})
    return {one.name.rpartition("/")[2]: one.display_name for one in found}


def test_a_plan_after_an_apply_is_empty_whatever_defaults_the_console_adds(
    gateway: Gateway, target: Target, proxy: Proxy, emulator: Emulator
) -> None:
    _apply(gateway)
    assert proxy.writes == ["CreateDashboard"] * len(BOARDS)
    assert _plan(gateway).changes == ()
    for board in BOARDS:
        url = f"{emulator.http_url}/v1/{resource_name(board.id, project=target.project)}"
        with urllib.request.urlopen(url) as answer:
            body = json.load(answer)
        text = json.dumps(_as_the_console_saves(body)).encode()
        assert text != json.dumps(body).encode()
        urllib.request.urlopen(urllib.request.Request(url, data=text, method="PATCH")).close()
    assert [change.fields for change in _plan(gateway).changes] == []
    _apply(gateway)
    assert len(proxy.writes) == len(BOARDS)


def _as_the_console_saves(value: Any) -> Any:
    """With the defaults that dashboards exported from the console carry, in another spelling."""
    if isinstance(value, list):
        return [_as_the_console_saves(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _as_the_console_saves(inner) for key, inner in value.items()}
    if "timeSeriesFilter" in found:
        shown = found["timeSeriesFilter"]
        shown["filter"] = shown["filter"].replace("metric.labels.", "metric.label.")
        shown.setdefault("secondaryAggregation", {})
    if "dataSets" in found:
        found["thresholds"] = [{"targetAxis": "Y1", **one} for one in found.get("thresholds", [])]
        found["timeshiftDuration"] = "0s"
        found["yAxis"]["label"] = ""
    if "plotType" in found:
        found["minAlignmentPeriod"] = found["minAlignmentPeriod"].replace("s", ".000s")
    if "content" in found:
        style = {"backgroundColor": "#FFFFFF", "fontSize": "FS_LARGE", "textColor": "#212121"}
        found["style"] = {**style, "padding": "P_EXTRA_SMALL", "verticalAlignment": "V_TOP"}
    if "tiles" in found:
        found["tiles"] = [{"xPos": 0, "yPos": 0, **tile} for tile in reversed(found["tiles"])]
    return found


def test_an_edit_is_told_tile_by_tile_and_put_back(gateway: Gateway, target: Target) -> None:
    def change(dashboard: Any) -> None:
        tiles = dashboard.mosaic_layout.tiles
        chart = next(one for one in tiles if one.widget.title == "Queue depth")
        chart.widget.xy_chart.thresholds[1].value = 900
        gone = next(n for n, one in enumerate(tiles) if one.widget.title == "Chunks finished")
        del tiles[gone]

    _apply(gateway)
    _edit(target, "overview", change)
    [found] = _plan(gateway).changes
    assert found.edited
    assert [(one.path, one.live, one.desired) for one in found.fields] == [
        ('tiles["Chunks finished"]', None, "xyChart"),
        ('tiles["Queue depth"].xyChart.thresholds[1].value', 900.0, 500.0),
    ]
    _apply(gateway)
    assert _plan(gateway).changes == ()


def test_fields_that_the_client_does_not_know_are_an_edit_too(
    gateway: Gateway, target: Target, emulator: Emulator
) -> None:
    _apply(gateway)
    url = f"{emulator.http_url}/v1/{resource_name('cost', project=target.project)}"
    with urllib.request.urlopen(url) as answer:
        body = json.load(answer)
    text = json.dumps({**body, "description": "mine"}).encode()
    urllib.request.urlopen(urllib.request.Request(url, data=text, method="PATCH")).close()
    [change] = _plan(gateway).changes
    assert (change.id, change.edited) == ("cost", True)
    assert [one.parts for one in change.fields] == [("newer fields",)]


def test_dashboards_of_others_are_never_touched(gateway: Gateway, target: Target) -> None:
    client = dashboard_client(target)
    _apply(gateway)
    name = resource_name("api", project=target.project)
    copy = client.get_dashboard(request={"name": name})
    for identity, labels in (
        ("a-copy", dict(copy.labels)),
        ("plain", {}),
        ("speakfit-team", {"managed-by": "terraform"}),
    ):
        other = monitoring_dashboard_v1.Dashboard(copy)
        other.name, other.etag, other.labels = f"{name[:-12]}{identity}", "", labels
        other.display_name = "Mine"
        client.create_dashboard(request={"parent": target.project_name, "dashboard": other})
    before = _titles(target)
    assert len(before) == len(BOARDS) + 3
    assert _plan(gateway, prune=True).changes == ()
    assert _plan(gateway).foreign == 3
    _apply(gateway, BOARDS[1:], prune=True)
    assert _titles(target).keys() == before.keys() - {f"speakfit-{BOARDS[0].id}"}


def test_an_id_that_somebody_else_took_is_refused_before_anything_is_written(
    gateway: Gateway, target: Target, proxy: Proxy
) -> None:
    theirs = monitoring_dashboard_v1.Dashboard(
        name=resource_name("worker", project=target.project),
        display_name="Mine",
        grid_layout={},
    )
    dashboard_client(target).create_dashboard(
        request={"parent": target.project_name, "dashboard": theirs}
    )
    with pytest.raises(RefusedError, match="'Mine' has the id of ours"):
        _plan(gateway)
    assert _titles(target) == {"speakfit-worker": "Mine"}


def test_who_was_faster_keeps_the_edit(gateway: Gateway, target: Target, proxy: Proxy) -> None:
    _apply(gateway)
    _edit(target, "api", lambda dashboard: setattr(dashboard, "display_name", "Theirs"))
    planned = _plan(gateway)
    _edit(target, "api", lambda dashboard: setattr(dashboard, "display_name", "Theirs, later"))
    with pytest.raises(RefusedError, match="Dashboard api was edited after the plan was made"):
        apply_plan(gateway, planned, keys={})
    assert _titles(target)["speakfit-api"] == "Theirs, later"
    pruned = _plan(gateway, [board for board in BOARDS if board.id != "cost"], prune=True)
    _edit(target, "cost", lambda dashboard: setattr(dashboard, "display_name", "Theirs"))
    with pytest.raises(ApplyError, match="Stopped after 1 of 2"):
        apply_plan(gateway, pruned, keys={})
    assert _titles(target)["speakfit-cost"] == "Theirs"


def test_an_apply_that_was_cut_off_is_ended_by_the_next(
    gateway: Gateway, target: Target, proxy: Proxy, naps: list[float]
) -> None:
    # A conflict that is nobody's edit is tried again; then one answer is lost on its way.
    proxy.fail = {2: grpc.StatusCode.ABORTED}
    proxy.lose = {5: grpc.StatusCode.UNAVAILABLE}
    with pytest.raises(ApplyError) as caught:
        _apply(gateway)
    assert (caught.value.done, caught.value.left, caught.value.uncertain) == (3, 3, True)
    assert naps == [0.5]
    assert len(_titles(target)) == 4
    _apply(gateway)
    assert len(_titles(target)) == len(BOARDS)
    assert _plan(gateway).changes == ()


def test_what_left_the_catalog_is_kept_until_pruned(gateway: Gateway, target: Target) -> None:
    _apply(gateway)
    kept = _plan(gateway, BOARDS[:-1])
    assert kept.changes == ()
    assert [change.id for change in kept.stale] == [BOARDS[-1].id]
    _apply(gateway, BOARDS[:-1], prune=True)
    assert len(_titles(target)) == len(BOARDS) - 1


def test_a_chart_of_a_policy_that_is_not_live_is_refused(target: Target) -> None:
    with Gateway(target) as gateway, pytest.raises(CatalogError, match="api-latency-warning"):
        _plan(gateway)


def test_each_subject_leads_to_the_board_with_its_alert_charts() -> None:
    assert {policy.subject: board_of(policy.subject).id for policy in CATALOG.policies} == {
        "api-latency": "api",
        "api-errors": "api",
        "queue-depth": "worker",
        "worker-down": "worker",
        "transcription-stalled": "worker",
        "dead-letters": "worker",
        "telemetry-silent": "database",
        "database-connections": "database",
    }
    assert dashboard_url("api", project="p") == (
        "https://console.cloud.google.com/monitoring/dashboards/builder/speakfit-api?project=p"
    )
