"""Where a board is, for ever: in the API by name, in the console by address.

A dashboard may bring its own id, and ours do: the catalog's name and the board's id. So an
address can be written into a runbook before the dashboard exists, and stays true when it is made
anew.
"""

from __future__ import annotations

from urllib.parse import quote

from alerts.policies import CATALOG
from dashboards.board import Board
from dashboards.catalog import BOARDS, OVERVIEW
from dashboards.widget import AlertChart

_CONSOLE = "https://console.cloud.google.com/monitoring/dashboards/builder"


def server_id(board_id: str, *, catalog: str = CATALOG.name) -> str:
    """The last part of the resource's name."""
    return f"{catalog}-{board_id}"


def resource_name(board_id: str, *, project: str, catalog: str = CATALOG.name) -> str:
    """The resource's name."""
    return f"projects/{project}/dashboards/{server_id(board_id, catalog=catalog)}"


def dashboard_url(board_id: str, *, project: str, catalog: str = CATALOG.name) -> str:
    """Where a person opens it in Google's console."""
    return f"{_CONSOLE}/{server_id(board_id, catalog=catalog)}?project={quote(project)}"


def board_of(subject: str) -> Board:
    """The board to look at when this subject pages: the one with its alert charts."""
    ids = {policy.id for policy in CATALOG.policies if policy.subject == subject}
    return next(
        (
            board
            for board in BOARDS
            for panel in board.panels()
            if isinstance(panel.widget.content, AlertChart) and panel.policies & ids
        ),
        OVERVIEW,
    )
