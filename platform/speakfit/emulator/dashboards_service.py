"""DashboardsService (google.monitoring.dashboard.v1): dashboards as written, with etags."""

from __future__ import annotations

import hashlib
import re
import uuid
from itertools import combinations
from typing import Any

from google.cloud import monitoring_dashboard_v1
from google.protobuf import empty_pb2, json_format

from speakfit.emulator.listing import page
from speakfit.emulator.naming import check_name, project_of
from speakfit.emulator.store import Store
from speakfit.emulator.unpublished import extras
from speakfit.errors import Aborted, AlreadyExists, InvalidArgument, NotFound

_COLLECTION = "dashboards"
_MAX_COLUMNS = 48
_MAX_LABELS = 64
_MAX_WIDGETS = 100
"""Tiles of a dashboard (GoogleCloudPlatform/monitoring-dashboard-samples#1011)."""

_TURNS = "single_view_group"
"""A tile over others of which one is shown at a time."""

_GROUPS = frozenset({_TURNS, "collapsible_group"})
"""Tiles that lie over others."""

_VISIBILITY = "visibilityCondition"
"""Such tiles are shown in turns too."""

_POLICY = re.compile(r"projects/[^/]+/alertPolicies/[^/]+")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_Dashboard = monitoring_dashboard_v1.Dashboard.pb()
_ListResponse = monitoring_dashboard_v1.ListDashboardsResponse.pb()


def _copy(dashboard: Any) -> Any:
    copy = _Dashboard()
    copy.CopyFrom(dashboard)
    return copy


def _etag(dashboard: Any) -> str:
    """32 hex digits of the content, so that equal dashboards have equal etags."""
    bare = _copy(dashboard)
    bare.ClearField("etag")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()[:32]


def _wrong(field: str, rule: str) -> InvalidArgument:
    # Paths of dashboards begin below the dashboard, unlike those of policies (seen in issues).
    return InvalidArgument(f"Field {field} has an invalid value: {rule}")


def _widgets(dashboard: Any) -> list[tuple[str, Any]]:
    """Each widget with its path."""
    parts = [
        *(("rowLayout.rows", n, row) for n, row in enumerate(dashboard.row_layout.rows)),
        *(
            ("columnLayout.columns", n, column)
            for n, column in enumerate(dashboard.column_layout.columns)
        ),
    ]
    return [
        *(
            (f"gridLayout.widgets[{n}]", widget)
            for n, widget in enumerate(dashboard.grid_layout.widgets)
        ),
        *(
            (f"mosaicLayout.tiles[{n}].widget", tile.widget)
            for n, tile in enumerate(dashboard.mosaic_layout.tiles)
        ),
        *(
            (f"{field}[{n}].widgets[{m}]", widget)
            for field, n, part in parts
            for m, widget in enumerate(part.widgets)
        ),
    ]


def _check_widget(field: str, widget: Any) -> None:
    """What metrics.proto and alertchart.proto say of thresholds and of an alert chart's name."""
    for index, threshold in enumerate(widget.xy_chart.thresholds):
        for name in ("color", "direction"):
            if getattr(threshold, name):
                raise _wrong(
                    f"{field}.xyChart.thresholds[{index}].{name}", "not allowed in a XyChart."
                )
    named = widget.alert_chart.name
    if widget.WhichOneof("content") == "alert_chart" and not _POLICY.fullmatch(named):
        raise _wrong(
            f"{field}.alertChart.name",
            "must be projects/[PROJECT_ID_OR_NUMBER]/alertPolicies/[POLICY_ID].",
        )


def _check_mosaic(mosaic: Any) -> None:
    """Tiles lie inside the columns, and beside each other unless they are shown in turns."""
    if not 1 <= mosaic.columns <= _MAX_COLUMNS:
        raise _wrong("mosaicLayout.columns", f"must be between 1 and {_MAX_COLUMNS}.")
    for index, tile in enumerate(mosaic.tiles):
        field = f"mosaicLayout.tiles[{index}]"
        if tile.x_pos < 0 or tile.y_pos < 0 or tile.width < 1 or tile.height < 1:
            raise _wrong(
                field,
                "a tile needs a position that is not negative and a positive width and height.",
            )
        if tile.x_pos + tile.width > mosaic.columns:
            raise _wrong(f"{field}.width", f"the tile ends right of the {mosaic.columns} columns.")
    groups = [tile for tile in mosaic.tiles if tile.widget.WhichOneof("content") == _TURNS]
    plain = [
        (index, tile)
        for index, tile in enumerate(mosaic.tiles)
        if tile.widget.WhichOneof("content") not in _GROUPS
        and _VISIBILITY not in extras(tile.widget)
    ]
    for (first, one), (second, other) in combinations(plain, 2):
        if _overlap(one, other) and not any(
            _overlap(group, one) and _overlap(group, other) for group in groups
        ):
            raise _wrong(
                f"mosaicLayout.tiles[{second}]", f"the tile overlaps the tile of index {first}."
            )


def _overlap(one: Any, other: Any) -> bool:
    return bool(
        one.x_pos < other.x_pos + other.width
        and other.x_pos < one.x_pos + one.width
        and one.y_pos < other.y_pos + other.height
        and other.y_pos < one.y_pos + one.height
    )


class DashboardsService:
    """Dashboards of all projects."""

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._lock = store.lock
        self._dashboards: dict[str, Any] = {
            name: _Dashboard.FromString(body) for name, body in store.documents(_COLLECTION)
        }

    @staticmethod
    def _check(dashboard: Any) -> None:
        # What JSON cannot say could be stored over gRPC and never be read over REST.
        json_format.MessageToDict(dashboard)
        if not dashboard.display_name:
            raise _wrong("displayName", "must be set.")
        if len(dashboard.labels) > _MAX_LABELS:
            raise _wrong("labels", f"at most {_MAX_LABELS} labels are allowed.")
        layout = dashboard.WhichOneof("layout")
        if layout is None:
            raise InvalidArgument("A dashboard must have a layout.")
        widgets = _widgets(dashboard)
        count = len(widgets)
        if count > _MAX_WIDGETS:
            raise _wrong(
                f"{layout.partition('_')[0]}Layout",
                f"{count} widgets are more than the {_MAX_WIDGETS} that a dashboard may have.",
            )
        for field, widget in widgets:
            _check_widget(field, widget)
        if layout == "mosaic_layout":
            _check_mosaic(dashboard.mosaic_layout)

    def _find(self, name: str) -> Any:
        check_name(name, _COLLECTION)
        dashboard = self._dashboards.get(name)
        if dashboard is None:
            raise NotFound(f"The dashboard {name} does not exist.")
        return dashboard

    def _save(self, dashboard: Any) -> None:
        dashboard.etag = _etag(dashboard)
        self._store.put(
            _COLLECTION, dashboard.name, dashboard.SerializeToString(deterministic=True)
        )
        self._dashboards[dashboard.name] = dashboard

    def create(self, request: Any) -> Any:
        """Check and store a dashboard; it may bring its own id.

        With validate_only nothing is stored and the answer is what would be.
        """
        project = project_of(request.parent, field="parent")
        dashboard = _copy(request.dashboard)
        self._check(dashboard)
        if not dashboard.name:
            dashboard.name = f"projects/{project}/{_COLLECTION}/{uuid.uuid4()}"
        owner = check_name(dashboard.name, _COLLECTION, field="dashboard.name")
        identity = dashboard.name.rpartition("/")[2]
        # A dashboard that was exported elsewhere names its project by number.
        if owner != project and not owner.isdigit():
            raise _wrong("name", f"the project must be {project}.")
        if not _ID.fullmatch(identity):
            raise _wrong("name", "the id may hold letters, digits, dashes and underscores only.")
        dashboard.name = f"projects/{project}/{_COLLECTION}/{identity}"
        with self._lock:
            if dashboard.name in self._dashboards:
                raise AlreadyExists(f"The dashboard {dashboard.name} exists already.")
            if request.validate_only:
                dashboard.etag = _etag(dashboard)
            else:
                self._save(dashboard)
        return _copy(dashboard)

    def get(self, request: Any) -> Any:
        """One dashboard."""
        return _copy(self._find(request.name))

    def list(self, request: Any) -> Any:
        """Dashboards of a project in the order of their creation, paged."""
        project = project_of(request.parent, field="parent")
        prefix = f"projects/{project}/"
        with self._lock:
            mine = [one for name, one in self._dashboards.items() if name.startswith(prefix)]
        window, token = page(
            len(mine),
            size=request.page_size,
            token=request.page_token,
            about=(self._store.identity, _COLLECTION, project),
        )
        return _ListResponse(dashboards=mine[window], next_page_token=token)

    def update(self, request: Any) -> Any:
        """Replace a dashboard; an etag that is not the stored one is ABORTED (HTTP 409)."""
        dashboard = _copy(request.dashboard)
        with self._lock:
            old = self._find(dashboard.name)
            if dashboard.etag and dashboard.etag != old.etag:
                raise Aborted(
                    f"The dashboard {old.name} was changed since it was read: the etag is not "
                    "the current one."
                )
            self._check(dashboard)
            if request.validate_only:
                dashboard.etag = _etag(dashboard)
            else:
                self._save(dashboard)
        return _copy(dashboard)

    def delete(self, request: Any) -> Any:
        """Delete a dashboard."""
        with self._lock:
            dashboard = self._find(request.name)
            self._store.remove(_COLLECTION, dashboard.name)
            del self._dashboards[dashboard.name]
        return empty_pb2.Empty()
