"""The boards: every metric charted, every policy shown, and every query one that is answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.cloud import monitoring_v3
from google.protobuf import json_format

from alerts.encode import descriptor_json, descriptor_message, policy_json
from alerts.policies import CATALOG
from dashboards.board import Board, board_json, compiled
from dashboards.catalog import BOARDS
from dashboards.dashboard import MosaicLayout, overlaps
from dashboards.widget import AlertChart
from speakfit.metrics import METRICS
from speakfit.target import Target, metric_client

BASE_URL = "https://runbooks.test"
_VARIABLE = re.compile(r" \$\{\w+\}")


def _json(board: Board) -> dict[str, Any]:
    return board_json(board, catalog=CATALOG.name, runbook_base_url=BASE_URL)


def _members(value: Any, name: str) -> Iterator[Any]:
    """Every member of a name, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from _members(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _members(inner, name)


def test_every_metric_is_charted_and_every_policy_has_one_alert_chart() -> None:
    filters = " ".join(_filter for board in BOARDS for _filter in _members(_json(board), "filter"))
    for metric in METRICS:
        assert f'"{metric.type}"' in filters
    charts = Counter(
        widget.content.name
        for board in BOARDS
        for widget in compiled(board, catalog=CATALOG.name).widgets()
        if isinstance(widget.content, AlertChart)
    )
    assert charts == Counter({f"policy:{policy.id}": 1 for policy in CATALOG.policies})


def test_a_threshold_on_a_chart_is_one_of_its_policies() -> None:
    # Read from what is sent to Cloud Monitoring, not from where the panels read it.
    limits = {
        policy.id: set(
            _members(policy_json(policy, CATALOG, runbook_base_url=BASE_URL), "thresholdValue")
        )
        for policy in CATALOG.policies
    }
    drawn: dict[str, set[float]] = {}
    for board in BOARDS:
        for panel in board.panels():
            content = panel.widget.content
            for line in getattr(content, "thresholds", ()) if panel.policies else ():
                assert any(line.value in limits[policy] for policy in panel.policies), panel.title
                drawn.setdefault(panel.title, set()).add(line.value)
    assert drawn["Interactive requests"] == {2.0, 5.0}
    assert drawn["Queue depth"] == {100.0, 500.0}


def test_no_tile_hides_another_and_runbooks_are_linked() -> None:
    for board in BOARDS:
        layout = compiled(board, catalog=CATALOG.name).layout
        assert isinstance(layout, MosaicLayout)
        assert list(overlaps(layout)) == []
    texts = " ".join(text for board in BOARDS for text in _members(_json(board), "content"))
    for policy in CATALOG.policies:
        assert f"]({BASE_URL}/{policy.runbook}.md)" in texts
    assert "runbook:" not in texts


def test_every_query_is_one_that_cloud_monitoring_answers(target: Target) -> None:
    client = metric_client(target)
    for metric in CATALOG.metrics:
        client.create_metric_descriptor(
            name=target.project_name, metric_descriptor=descriptor_message(descriptor_json(metric))
        )
    asked = 0
    interval = {"start_time": {"seconds": 1_767_300_000}, "end_time": {"seconds": 1_767_303_600}}
    for board in BOARDS:
        queries = list(_members(_json(board), "timeSeriesFilter"))
        for ratio in _members(_json(board), "timeSeriesFilterRatio"):
            queries += [ratio["numerator"], ratio["denominator"]]
        for query in queries:
            request: dict[str, Any] = {
                "name": target.project_name,
                "filter": _VARIABLE.sub("", query["filter"]),
                "interval": interval,
            }
            for key, name in (("aggregation", "aggregation"), ("secondaryAggregation",) * 2):
                if key in query:
                    wrapped = monitoring_v3.Aggregation()
                    json_format.ParseDict(query[name], monitoring_v3.Aggregation.pb(wrapped))
                    request["secondary_aggregation" if "sec" in key else key] = wrapped
            list(client.list_time_series(request=request))
            asked += 1
    assert asked > 60
