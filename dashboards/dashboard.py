"""A dashboard as Cloud Monitoring has it: a layout of widgets, filters and labels.

`read_dashboard` and `dashboard_json` are exact opposites for whatever the published messages
(google-cloud-monitoring-dashboards) can say. The console writes more than they know; those fields
are named in UNSUPPORTED with the reason, and handed back beside the dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import Any

from dashboards.shape import Json, read, write
from dashboards.widget import CollapsibleGroup, SingleViewGroup, Widget
from speakfit.errors import CatalogError

MAX_COLUMNS = 48
MAX_LABELS = 64
MAX_WIDGETS = 100
"""Tiles of a dashboard (GoogleCloudPlatform/monitoring-dashboard-samples#1011)."""

_LOST = "the published messages lack it, so the client would lose it silently"
_LOOKS = f"how it looks, not what it shows; {_LOST}"

UNSUPPORTED: Mapping[str, str] = {
    "Dashboard.description": f"a note for people; {_LOST}",
    "DashboardFilter.stringArray": f"choices of a variable; {_LOST}",
    "DashboardFilter.valueType": f"whether a variable takes one value or several; {_LOST}",
    "DashboardFilter.filterType": f"VALUE_ONLY, a variable about no label; {_LOST}",
    "Widget.visibilityCondition": f"shows a tile only for one value of a variable; {_LOST}",
    "SingleViewGroup.displayType": _LOOKS,
    "ColumnSettings.displayName": _LOOKS,
    "TimeSeriesQuery.apiSource": f"the console's own remark; {_LOST}",
    "TimeSeriesQuery.opsAnalyticsQuery": f"SQL on logs, which needs a linked data set; {_LOST}",
    "DataSet.dimensions": f"columns of an SQL query; {_LOST}",
    "DataSet.measures": f"columns of an SQL query; {_LOST}",
}
"""Members of published dashboards that cannot be kept, and why."""


class FilterType(StrEnum):
    """What kind of label a filter of the whole dashboard is about."""

    RESOURCE_LABEL = "RESOURCE_LABEL"
    METRIC_LABEL = "METRIC_LABEL"
    USER_METADATA_LABEL = "USER_METADATA_LABEL"
    SYSTEM_METADATA_LABEL = "SYSTEM_METADATA_LABEL"
    GROUP = "GROUP"


@dataclass(frozen=True, kw_only=True)
class DashboardFilter:
    """A label that readers choose a value of: in the charts that say `${template_variable}`, or
    in all of them where there is no variable."""

    label_key: str
    template_variable: str = ""
    string_value: str | None = None
    filter_type: FilterType | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Where on the grid a widget is, in columns and rows."""

    widget: Widget
    width: int = 0
    height: int = 0
    x_pos: int = 0
    y_pos: int = 0

    @property
    def covers(self) -> bool:
        """Whether it lies over other tiles instead of beside them."""
        return isinstance(self.widget.content, CollapsibleGroup | SingleViewGroup)

    def overlaps(self, other: Tile) -> bool:
        """Whether two tiles share a cell."""
        return (
            self.x_pos < other.x_pos + other.width
            and other.x_pos < self.x_pos + self.width
            and self.y_pos < other.y_pos + other.height
            and other.y_pos < self.y_pos + self.height
        )


@dataclass(frozen=True, kw_only=True)
class MosaicLayout:
    """Tiles on a grid of columns."""

    columns: int
    tiles: tuple[Tile, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.columns <= MAX_COLUMNS:
            raise CatalogError(
                f"There are {self.columns} columns.",
                where="columns",
                todo=f"Use 1 to {MAX_COLUMNS}.",
            )
        for number, tile in enumerate(self.tiles):
            if min(tile.x_pos, tile.y_pos) < 0 or min(tile.width, tile.height) < 1:
                raise CatalogError(
                    "The tile has no place or no size.",
                    where=f"tiles[{number}]",
                    todo="Give a position that is not negative, and a width and a height.",
                )
            if tile.x_pos + tile.width > self.columns:
                raise CatalogError(
                    f"The tile ends right of the {self.columns} columns.",
                    where=f"tiles[{number}].width",
                    todo="Make it narrower or move it left.",
                )


@dataclass(frozen=True, kw_only=True)
class GridLayout:
    """Widgets in equal columns, filled row by row."""

    columns: int = 0
    widgets: tuple[Widget, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """Widgets side by side."""

    weight: int = 0
    widgets: tuple[Widget, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Rows of widgets."""

    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """Widgets one below the other."""

    weight: int = 0
    widgets: tuple[Widget, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ColumnLayout:
    """Columns of widgets."""

    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """One dashboard; `name` and `etag` are the server's."""

    display_name: str
    layout: MosaicLayout | GridLayout | RowLayout | ColumnLayout | None = None
    dashboard_filters: tuple[DashboardFilter, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    etag: str = ""

    def __post_init__(self) -> None:
        if not self.display_name:
            raise CatalogError("It is empty.", where="displayName", todo="Give it a name.")
        if len(self.labels) > MAX_LABELS:
            raise CatalogError(
                f"There are {len(self.labels)}.", where="labels", todo=f"At most {MAX_LABELS} fit."
            )
        count = len(tuple(self.widgets()))
        if count > MAX_WIDGETS:
            raise CatalogError(
                f"There are {count} widgets.", where="layout", todo=f"At most {MAX_WIDGETS} fit."
            )

    def widgets(self) -> Iterator[Widget]:
        """All of them, in the order of the layout."""
        layout = self.layout
        if isinstance(layout, MosaicLayout):
            yield from (tile.widget for tile in layout.tiles)
        elif isinstance(layout, GridLayout):
            yield from layout.widgets
        elif layout is not None:
            parts = layout.rows if isinstance(layout, RowLayout) else layout.columns
            yield from (widget for part in parts for widget in part.widgets)


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Something of a dashboard that was left out."""

    path: str
    member: str
    reason: str
    value: Any


def dashboard_json(dashboard: Dashboard) -> Json:
    """A dashboard in REST form."""
    return write(dashboard)


def read_dashboard(body: Any, *, where: str = "") -> tuple[Dashboard, tuple[Unsupported, ...]]:
    """A dashboard of REST form, and what of it UNSUPPORTED names.

    Raises CatalogError with the path of whatever else is wrong or not known.
    """
    left: list[Unsupported] = []

    def leftover(kind: str, member: str, path: str, value: Any) -> None:
        named = f"{kind}.{member}"
        if named not in UNSUPPORTED:
            raise CatalogError(
                f"{member} is not known.",
                where=path,
                todo="Correct the name, or leave it out: the API's reference has all fields.",
            )
        left.append(Unsupported(path=path, member=named, reason=UNSUPPORTED[named], value=value))

    try:
        return read(Dashboard, _plain(body, leftover), leftover=leftover), tuple(left)
    except CatalogError as error:
        place = f"{where}: {error.where}" if where else error.where
        raise CatalogError(error.what, where=place, todo=error.todo) from error


def overlaps(layout: MosaicLayout) -> Iterator[tuple[Tile, Tile]]:
    """Pairs of tiles of which one hides the other."""
    plain = [tile for tile in layout.tiles if not tile.covers]
    yield from ((one, other) for one, other in combinations(plain, 2) if one.overlaps(other))


def _plain(body: Any, leftover: Any) -> Any:
    """Without the one enum value that the published messages do not know."""
    filters = body.get("dashboardFilters") if isinstance(body, Mapping) else None
    if not isinstance(filters, list):
        return body
    kept = []
    for number, one in enumerate(filters):
        if isinstance(one, Mapping) and one.get("filterType") == "VALUE_ONLY":
            path = f"dashboardFilters[{number}].filterType"
            leftover("DashboardFilter", "filterType", path, one["filterType"])
            one = {key: value for key, value in one.items() if key != "filterType"}
        kept.append(one)
    return {**body, "dashboardFilters": kept}
