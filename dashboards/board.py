"""A board: sections of panels, laid out and compiled to a dashboard.

Panels flow from left to right over 48 columns; a row is as high as its highest panel. So nobody
writes a position, no two tiles overlap, and a panel that is added moves the others down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from alerts.encode import CATALOG, MANAGED_BY
from dashboards.dashboard import (
    MAX_COLUMNS,
    Dashboard,
    DashboardFilter,
    MosaicLayout,
    Tile,
    dashboard_json,
)
from dashboards.panel import RUNBOOK_PREFIX, VARIABLES, Panel
from dashboards.shape import Json
from dashboards.widget import CollapsibleGroup, SectionHeader, Widget
from speakfit.errors import CatalogError

MANAGER = "speakfit-dashboards"
DASHBOARD_ID = "dashboard-id"

_HEADER_HEIGHT = 4
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LINK = re.compile(re.escape(RUNBOOK_PREFIX) + r"([a-z0-9-]+)")


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]
    subtitle: str = ""
    folded: bool | None = None
    """Whether a group that can be folded away begins folded; None is a plain section."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard of the catalog; `id` is for ever: its address is made of it."""

    id: str
    title: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        where = f"dashboard {self.id!r}"
        if not _ID.fullmatch(self.id):
            raise CatalogError(
                "The id cannot be a label value.",
                where=where,
                todo="Use lowercase words joined by '-'.",
            )
        seen: set[str] = set()
        for title in (
            *(section.title for section in self.sections),
            *(panel.title for panel in self.panels()),
        ):
            if not title or title in seen:
                raise CatalogError(
                    f"Two tiles are called {title!r}." if title else "A tile has no title.",
                    where=where,
                    todo="Give each its own title: it is the tile's identity in a plan.",
                )
            seen.add(title)

    def panels(self) -> Iterator[Panel]:
        """All of them, from top to bottom."""
        for section in self.sections:
            yield from section.panels

    @property
    def variables(self) -> tuple[DashboardFilter, ...]:
        """The variables that one of its charts follows at least."""
        used = {one.template_variable for panel in self.panels() for one in panel.variables}
        return tuple(one for one in VARIABLES if one.template_variable in used)


def compiled(board: Board, *, catalog: str) -> Dashboard:
    """The dashboard of a board, with our labels; policies and runbooks go by their ids still."""
    return Dashboard(
        display_name=board.title,
        layout=MosaicLayout(columns=MAX_COLUMNS, tiles=tuple(_tiles(board))),
        dashboard_filters=board.variables,
        labels={MANAGED_BY: MANAGER, CATALOG: catalog, DASHBOARD_ID: board.id},
    )


def board_json(board: Board, *, catalog: str, runbook_base_url: str) -> Json:
    """A board in REST form, with links to the runbooks."""
    body = dashboard_json(compiled(board, catalog=catalog))
    for tile in body["mosaicLayout"]["tiles"]:
        text = tile["widget"].get("text")
        if text:
            text["content"] = _LINK.sub(
                lambda found: f"{runbook_base_url.rstrip('/')}/{found[1]}.md", text["content"]
            )
    return body


def _tiles(board: Board) -> Iterator[Tile]:
    top = 0
    for section in board.sections:
        if section.folded is None:
            header = SectionHeader(subtitle=section.subtitle)
            yield Tile(
                y_pos=top,
                width=MAX_COLUMNS,
                height=_HEADER_HEIGHT,
                widget=Widget(title=section.title, content=header),
            )
            top += _HEADER_HEIGHT
        placed, bottom = _flow(section.panels, top)
        if section.folded is not None:
            yield Tile(
                y_pos=top,
                width=MAX_COLUMNS,
                height=bottom - top,
                widget=Widget(
                    title=section.title, content=CollapsibleGroup(collapsed=section.folded)
                ),
            )
        yield from placed
        top = bottom


def _flow(panels: tuple[Panel, ...], top: int) -> tuple[list[Tile], int]:
    """The tiles of panels side by side from `top` down, and the row below them."""
    tiles: list[Tile] = []
    left, height = 0, 0
    for panel in panels:
        if left + panel.width > MAX_COLUMNS:
            left, top, height = 0, top + height, 0
        tiles.append(
            Tile(
                x_pos=left,
                y_pos=top,
                width=panel.width,
                height=panel.height,
                widget=panel.widget,
            )
        )
        left += panel.width
        height = max(height, panel.height)
    return tiles, top + height
