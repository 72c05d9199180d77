"""Published dashboards pass through our types unharmed; what is wrong is told with its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.cloud import monitoring_dashboard_v1
from google.protobuf import json_format

from dashboards.dashboard import UNSUPPORTED, dashboard_json, read_dashboard
from speakfit.errors import CatalogError

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "dashboards"
FILES = sorted(CORPUS.glob("*.json"))
_NO_CORPUS = pytest.mark.skipif(not FILES, reason="the corpus is not here")


def _message(body: Any) -> Any:
    """What Google's own classes make of it: an opinion that is not ours."""
    kind = monitoring_dashboard_v1.Dashboard.pb()
    return json_format.ParseDict(body, kind(), ignore_unknown_fields=True)


@_NO_CORPUS
def test_published_dashboards_pass_through_our_types_unharmed() -> None:
    named = set()
    for file in FILES:
        body = json.loads(file.read_text(encoding="utf-8"))
        dashboard, left = read_dashboard(body, where=file.name)
        assert _message(dashboard_json(dashboard)) == _message(body), file.name
        assert read_dashboard(dashboard_json(dashboard)) == (dashboard, ())
        named |= {one.member for one in left}
    assert named == set(UNSUPPORTED), "each reason is needed by a published dashboard, and no other"


def _chart(**changes: Any) -> dict[str, Any]:
    query = {"timeSeriesFilter": {"filter": 'metric.type="a/b"'}}
    return {"dataSets": [{"timeSeriesQuery": query}], **changes}


def _tile(widget: object, **changes: object) -> dict[str, Any]:
    tile = {"width": 4, "height": 4, "widget": widget, **changes}
    return {"displayName": "Board", "mosaicLayout": {"columns": 12, "tiles": [tile]}}


_WIDGET = "mosaicLayout.tiles[0].widget"


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        ([], "dashboard", "not an object"),
        ({"gridLayout": {}}, "dashboard", "displayName is missing"),
        ({"displayName": ""}, "displayName", "empty"),
        ({"displayName": "A", "colour": "red"}, "colour", "colour is not known"),
        (_tile({}, xPos=9), "mosaicLayout.tiles[0].width", "right of the 12 columns"),
        (_tile({}, height="high"), "mosaicLayout.tiles[0].height", "'high', not a whole number"),
        (_tile({}, height=0), "mosaicLayout.tiles[0]", "no place or no size"),
        (_tile({"text": {}, "blank": {}}), f"{_WIDGET}.blank", "beside another"),
        (_tile({"text": {"format": "HTML"}}), f"{_WIDGET}.text.format", "one of MARKDOWN, RAW"),
        (_tile({"xyChart": {}}), f"{_WIDGET}.xyChart", "dataSets is missing"),
        (
            _tile({"xyChart": _chart(timeshiftDuration="1m")}),
            f"{_WIDGET}.xyChart.timeshiftDuration",
            "not a duration in seconds",
        ),
        (
            _tile({"xyChart": _chart(thresholds=[{"value": 1, "color": "RED"}])}),
            f"{_WIDGET}.xyChart.thresholds[0]",
            "color or a direction",
        ),
        (
            _tile({"scorecard": {"timeSeriesQuery": {"timeSeriesFilter": {"filter": 1}}}}),
            f"{_WIDGET}.scorecard.timeSeriesQuery.timeSeriesFilter.filter",
            "not a text",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(body: Any, where: str, what: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read_dashboard(body, where="board.json")
    assert caught.value.where == f"board.json: {where}"
    assert what in caught.value.what
    assert caught.value.todo
