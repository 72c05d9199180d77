"""SpeakFit's boards: one file each, metrics by record, thresholds from the policies."""

from __future__ import annotations

from alerts.nearest import did_you_mean
from dashboards.board import Board
from dashboards.catalog import api, cost, database, objectives, overview, worker
from speakfit.errors import CatalogError

OVERVIEW = overview.BOARD
"""Where to look first."""

BOARDS: tuple[Board, ...] = (
    OVERVIEW,
    api.BOARD,
    worker.BOARD,
    database.BOARD,
    objectives.BOARD,
    cost.BOARD,
)
"""What `python -m dashboards` manages."""


def find_board(board_id: str) -> Board:
    """A board by id; a CatalogError proposes the nearest when there is none."""
    by_id = {board.id: board for board in BOARDS}
    if board_id in by_id:
        return by_id[board_id]
    raise CatalogError(
        f"No dashboard is called {board_id!r}.",
        where="dashboards.catalog",
        todo=did_you_mean(board_id, by_id, otherwise=f"There are: {', '.join(by_id)}."),
    )
