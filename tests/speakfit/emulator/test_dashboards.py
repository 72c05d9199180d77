"""DashboardsService through its real client and REST: ids, etags, dry runs, pages, refusals."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import monitoring_dashboard_v1

from tests.speakfit.emulator.bench import PROJECT, Bench

DASHBOARDS = f"/v1/{PROJECT}/dashboards"


def _body(**changes: Any) -> dict[str, Any]:
    widget = {"title": "Note", "text": {"content": "Hello", "format": "MARKDOWN"}}
    tile = {"widget": widget, "width": 6, "height": 4}
    return {
        "displayName": "Board",
        "mosaicLayout": {"columns": 12, "tiles": [tile]},
        **changes,
    }


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """One emulator for tests that leave it as they found it."""
    with Bench() as bench:
        yield bench


def _make(bench: Bench, name: str = "", **request: Any) -> Any:
    dashboard = monitoring_dashboard_v1.Dashboard(
        name=f"{PROJECT}/dashboards/{name}" if name else "",
        display_name="Board",
        grid_layout={"columns": 2, "widgets": [{"title": "Blank", "blank": {}}]},
    )
    return bench.dashboards.create_dashboard(
        request={"parent": PROJECT, "dashboard": dashboard, **request}
    )


def test_dashboards_are_listed_in_pages_and_survive_a_restart(tmp_path: Any) -> None:
    with Bench(data_dir=tmp_path) as bench:
        names = [_make(bench, f"board-{n}").name for n in range(5)]
    with Bench(data_dir=tmp_path) as bench:
        request = {"parent": PROJECT, "page_size": 2}
        pages = list(bench.dashboards.list_dashboards(request=request).pages)
        assert [len(page.dashboards) for page in pages] == [2, 2, 1]
        assert [one.name for page in pages for one in page.dashboards] == names
        status, answer = bench.http("GET", f"{DASHBOARDS}?pageToken=elsewhere")
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")


def _tile(kind: str = "blank", *, x: int = 0, y: int = 0, **widget: Any) -> dict[str, Any]:
    return {"xPos": x, "yPos": y, "width": 6, "height": 4, "widget": {kind: {}, **widget}}


def _mosaic(*tiles: dict[str, Any], columns: int = 12) -> dict[str, Any]:
    return _body(mosaicLayout={"columns": columns, "tiles": list(tiles)})


def _shows(**widget: Any) -> dict[str, Any]:
    return _body(mosaicLayout=None, gridLayout={"widgets": [widget]})


_SHOWN = {"templateVariableCondition": {"comparator": "REGEX_FULL_MATCH"}}
_QUERY = "'dashboard.grid_layout.widgets[0].xy_chart.data_sets[0].time_series_query"


def _charts(**query: Any) -> dict[str, Any]:
    return _shows(xyChart={"dataSets": [{"timeSeriesQuery": query}]})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (_mosaic(columns=49), "Field mosaicLayout.columns has an invalid value: must be between"),
        (_mosaic({"width": 2, "height": 1}, columns=1), "right of"),
        (_mosaic(_tile(x=-1)), "not negative"),
        (_mosaic({"height": 1}), "positive width"),
        (_mosaic(_tile(), _tile(x=6), _tile(x=3, y=3)), "tiles[2] has an invalid value: the tile"),
        (_mosaic(*(_tile(y=4 * n) for n in range(101))), "101 widgets"),
        (_body(mosaicLayout=None), "must have a layout"),
        (_body(gridLayout={}), "oneof field 'layout' is already set"),
        (_body(labels={f"l{n}": "" for n in range(65)}), "at most 64 labels"),
        (_body(mosaicLayout=[]), "Proto field is not repeating, cannot start list."),
        (_body(mosaicLayout={"tiles": {}}), "Invalid value at 'dashboard.mosaic_layout.tiles'"),
        # Names that nobody knows, on every level; the first is one that Google itself refused.
        (
            _body(mosaicLayout={"columns": 12, "legacyRows": []}),
            'Invalid JSON payload received. Unknown name "legacyRows" at '
            "'dashboard.mosaic_layout': Cannot find field.",
        ),
        (_body(colour="red"), "Unknown name \"colour\" at 'dashboard': Cannot find field."),
        (_mosaic({"depth": 1}), "Unknown name \"depth\" at 'dashboard.mosaic_layout.tiles[0]'"),
        (_shows(hologram={}), "Unknown name \"hologram\" at 'dashboard.grid_layout.widgets[0]'"),
        (
            _charts(prometheusQuery="up", unitOveride="s"),
            f'Unknown name "unitOveride" at {_QUERY}\'',
        ),
        (
            _charts(opsAnalyticsQuery={"sql": "SELECT 1", "dialect": "new"}),
            f'Unknown name "dialect" at {_QUERY}.ops_analytics_query\'',
        ),
        (
            _shows(treemap={"dataSets": [{"timeSeriesQuery": {"promQl": "up"}}]}),
            'Unknown name "promQl" at '
            "'dashboard.grid_layout.widgets[0].treemap.data_sets[0].time_series_query'",
        ),
        (
            _body(annotations={"eventAnnotations": {}}),
            "at 'dashboard.annotations.event_annotations'",
        ),
        (
            _shows(xyChart={"thresholds": [{"value": 1}, {"value": 2, "color": "RED"}]}),
            "Field gridLayout.widgets[0].xyChart.thresholds[1].color has an invalid value: not "
            "allowed in a XyChart.",
        ),
        (
            _mosaic({**_tile(), "widget": {"alertChart": {"name": "policy:mine"}}}),
            "Field mosaicLayout.tiles[0].widget.alertChart.name has an invalid value: must be",
        ),
        (
            _shows(xyChart={"chartOptions": {"displayHorizontal": "yes"}}),
            'xy_chart.chart_options.display_horizontal\' (TYPE_BOOL), "yes"',
        ),
        (
            _shows(xyChart={"dataSets": [{"plotType": "LINES"}]}),
            "data_sets[0].plot_type' (type.googleapis.com/"
            'google.monitoring.dashboard.v1.XyChart.DataSet.PlotType), "LINES"',
        ),
    ],
)
def test_what_no_dashboard_can_be_is_refused_by_name(
    shared: Bench, body: dict[str, Any], text: str
) -> None:
    for path in (DASHBOARDS, f"{DASHBOARDS}?validateOnly=true"):
        status, answer = shared.http("POST", path, body)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert text in answer["error"]["message"]
    assert shared.http("GET", DASHBOARDS) == (200, {})


@pytest.mark.parametrize(
    "body",
    [
        # Groups lie over their tiles, and what is shown in turns lies over each other.
        _mosaic(_tile("collapsibleGroup"), _tile()),
        _mosaic(_tile(), _tile("singleViewGroup"), _tile()),
        _mosaic(_tile(visibilityCondition=_SHOWN), _tile(visibilityCondition=_SHOWN)),
        _body(
            annotations={"eventAnnotations": [{"eventType": "VM_TERMINATION", "enabled": True}]},
            dashboardFilters=[
                {
                    "filterType": "VALUE_ONLY",
                    "templateVariable": "unit",
                    "valueType": "STRING_ARRAY",
                    "stringArrayValue": {"values": ["a"]},
                    "timeSeriesQuery": {"opsAnalyticsQuery": {"sql": "SELECT 1"}},
                }
            ],
        ),
        _charts(prometheusQuery="up", apiSource="DEFAULT_CLOUD"),
        _shows(
            scorecard={
                "timeSeriesQuery": {"prometheusQuery": "up"},
                "measures": [{"aggregationFunction": {"type": "average"}, "column": "value"}],
            }
        ),
        # The console exports what holds nothing, known or not.
        _charts(prometheusQuery="up", hologram={"depth": 0, "colours": [], "lit": False}),
    ],
)
def test_what_the_published_messages_lack_is_kept_as_it_came(
    shared: Bench, body: dict[str, Any]
) -> None:
    status, made = shared.http("POST", DASHBOARDS, body)
    assert status == 200, made
    name, etag = made.pop("name"), made.pop("etag")
    sent = {key: value for key, value in body.items() if value is not None}
    # Zeros are not written back.
    for tile in sent.get("mosaicLayout", {}).get("tiles", ()):
        for key in [key for key, value in tile.items() if value == 0]:
            del tile[key]
    assert made == sent
    assert shared.http("GET", f"/v1/{name}")[1] == {"name": name, "etag": etag, **sent}
    assert shared.http("DELETE", f"/v1/{name}") == (200, {})


def test_names_in_snake_case_mean_the_same(shared: Bench) -> None:
    body = {
        "display_name": "Board",
        "grid_layout": {
            "widgets": [
                {"xy_chart": {"chart_options": {"show_legend": True, "display_horizontal": True}}}
            ]
        },
    }
    _status, made = shared.http("POST", DASHBOARDS, body)
    assert made["gridLayout"]["widgets"] == [
        {"xyChart": {"chartOptions": {"showLegend": True, "displayHorizontal": True}}}
    ]
    assert shared.http("DELETE", f"/v1/{made['name']}") == (200, {})


def test_fields_that_no_published_message_has_survive_an_edit_over_grpc(bench: Bench) -> None:
    query = {"timeSeriesQuery": {"prometheusQuery": "up"}, "breakdowns": [{"column": "x"}]}
    chart = {"xyChart": {"dataSets": [query], "chartOptions": {"displayHorizontal": True}}}
    tile = {"widget": chart, "width": 1, "height": 1}
    body = _body(mosaicLayout={"columns": 12, "tiles": [tile]})
    _status, made = bench.http("POST", DASHBOARDS, body)
    dashboard = bench.dashboards.get_dashboard(request={"name": made["name"]})
    dashboard.display_name = "Edited"
    bench.dashboards.update_dashboard(request={"dashboard": dashboard})
    _status, found = bench.http("GET", f"/v1/{made['name']}")
    assert found["displayName"] == "Edited"
    assert found["mosaicLayout"] == body["mosaicLayout"]
