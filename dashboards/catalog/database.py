"""database: connections, all clients together and process by process; and whether anybody
reports at all."""

from __future__ import annotations

from dashboards.board import Board, Section
from dashboards.panel import alerts, chart, gauge, guide, incidents, of, watched
from speakfit.engine.reduce import Reducer
from speakfit.metrics import POOL_CONNECTIONS, POOL_MAX, POOL_PENDING

_POOL = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"

BOARD = Board(
    id="database",
    title="SpeakFit: database",
    sections=(
        Section(
            title="Connections",
            panels=(
                watched("In use, of those allowed", "database-connections"),
                chart(
                    "In the pools",
                    gauge(
                        of(POOL_CONNECTIONS), reducer=Reducer.REDUCE_SUM, group_by=(_POOL, _STATE)
                    ),
                ),
                chart(
                    "The pools may open",
                    gauge(of(POOL_MAX), reducer=Reducer.REDUCE_SUM, group_by=(_POOL,)),
                ),
                chart(
                    "Threads that wait for one",
                    gauge(of(POOL_PENDING), reducer=Reducer.REDUCE_SUM, group_by=(_POOL,)),
                ),
            ),
        ),
        Section(
            title="Telemetry",
            subtitle="Silence here makes every other chart and alert blind.",
            panels=(watched("Replicas report", "telemetry-silent"), *alerts("telemetry-silent")),
        ),
        Section(
            title="Alerts",
            panels=(
                *alerts("database-connections"),
                incidents(
                    "Incidents of database and telemetry",
                    "database-connections",
                    "telemetry-silent",
                ),
            ),
        ),
        Section(
            title="First steps",
            folded=True,
            panels=(guide("database-connections"), guide("telemetry-silent")),
        ),
    ),
)
