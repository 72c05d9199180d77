"""DashboardsService through its real client and REST: ids, etags, dry runs, pages, refusals."""

from typing import Any

import pytest
from google.api_core.exceptions import Aborted, AlreadyExists, InvalidArgument, NotFound
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


def _make(bench: Bench, name: str = "", **request: Any) -> Any:
    dashboard = monitoring_dashboard_v1.Dashboard(
        name=f"{PROJECT}/dashboards/{name}" if name else "",
        display_name="Board",
        grid_layout={"columns": 2, "widgets": [{"title": "Blank", "blank": {}}]},
    )
    return bench.dashboards.create_dashboard(
        request={"parent": PROJECT, "dashboard": dashboard, **request}
    )


def test_a_dashboard_may_bring_its_id_and_no_two_may_share_one(bench: Bench) -> None:
    assert _make(bench, "mine").name == f"{PROJECT}/dashboards/mine"
    with pytest.raises(AlreadyExists):
        _make(bench, "mine")
    with pytest.raises(InvalidArgument, match="letters, digits"):
        _make(bench, "not mine!")
    assert _make(bench).name != _make(bench).name
    bench.dashboards.delete_dashboard(request={"name": f"{PROJECT}/dashboards/mine"})
    with pytest.raises(NotFound):
        bench.dashboards.get_dashboard(request={"name": f"{PROJECT}/dashboards/mine"})


def test_a_dry_run_checks_and_stores_nothing(bench: Bench) -> None:
    assert _make(bench, "mine", validate_only=True).etag
    assert list(bench.dashboards.list_dashboards(request={"parent": PROJECT})) == []
    # gcloud writes Python's True.
    status, answer = bench.http("POST", f"{DASHBOARDS}?validateOnly=True", _body())
    assert (status, answer["displayName"]) == (200, "Board")
    status, answer = bench.http("POST", f"{DASHBOARDS}?validateOnly=True", {"displayName": ""})
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert bench.http("GET", DASHBOARDS) == (200, {})
    made = _make(bench, "mine")
    made.display_name = "Other"
    request = {"dashboard": made, "validate_only": True}
    assert bench.dashboards.update_dashboard(request=request).display_name == "Other"
    found = bench.dashboards.get_dashboard(request={"name": made.name})
    assert found.display_name == "Board"


def test_of_two_concurrent_edits_the_second_is_a_conflict(bench: Bench) -> None:
    made = _make(bench)
    mine, theirs = (bench.dashboards.get_dashboard(request={"name": made.name}) for _ in range(2))
    theirs.display_name = "Theirs"
    updated = bench.dashboards.update_dashboard(request={"dashboard": theirs})
    assert updated.etag != made.etag
    mine.display_name = "Mine"
    with pytest.raises(Aborted, match="etag"):
        bench.dashboards.update_dashboard(request={"dashboard": mine})
    status, answer = bench.http("PATCH", f"/v1/{made.name}", _body(etag=made.etag))
    assert (status, answer["error"]["status"]) == (409, "ABORTED")
    # Without an etag the last one wins.
    mine.etag = ""
    changed = bench.dashboards.update_dashboard(request={"dashboard": mine})
    assert changed.display_name == "Mine"


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


def test_what_no_dashboard_can_be_is_refused_by_name(bench: Bench) -> None:
    for body, text in (
        (_body(mosaicLayout={"columns": 49}), "between 1 and 48"),
        (_body(colour="red"), "Unknown name \"colour\" at 'dashboard'"),
        (_body(gridLayout={}), "oneof field 'layout' is already set"),
        (_body(mosaicLayout={"columns": 1, "tiles": [{"width": 2, "height": 1}]}), "right of"),
    ):
        status, answer = bench.http("POST", DASHBOARDS, body)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert text in answer["error"]["message"]


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
