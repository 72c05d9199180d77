"""api: how quickly and how well the API answers, route by route."""

from __future__ import annotations

from dashboards.board import Board, Section
from dashboards.panel import alerts, guide, heatmap, incidents, of, percentiles, rate, watched
from speakfit.metrics import REJECTIONS, REQUEST_DURATION, REQUESTS, RouteClass

BOARD = Board(
    id="api",
    title="SpeakFit: API",
    sections=(
        Section(
            title="Latency",
            subtitle="Only interactive routes page; streams, uploads and synchronous work are slow "
            "by design.",
            panels=(
                percentiles(
                    "Interactive requests",
                    of(REQUEST_DURATION, route_class=RouteClass.INTERACTIVE),
                    limits="api-latency",
                ),
                heatmap(
                    "Interactive requests, spread",
                    of(REQUEST_DURATION, route_class=RouteClass.INTERACTIVE),
                ),
                percentiles("Uploads", of(REQUEST_DURATION, route_class=RouteClass.TRANSFER)),
                percentiles(
                    "Synchronous transcription",
                    of(REQUEST_DURATION, route_class=RouteClass.COMPUTE),
                ),
            ),
        ),
        Section(
            title="Errors and refusals",
            panels=(
                watched("5xx share of each route", "api-errors"),
                watched("5xx answers of each route", "api-errors", key="5xx answers per route"),
                rate("Requests by route", of(REQUESTS), group_by=("http.route",)),
                rate("Turned away", of(REJECTIONS), group_by=("reason",)),
            ),
        ),
        Section(
            title="Alerts",
            panels=(
                *alerts("api-latency", "api-errors"),
                incidents("Incidents of the API", "api-latency", "api-errors"),
            ),
        ),
        Section(
            title="First steps",
            folded=True,
            panels=(guide("api-latency"), guide("api-errors")),
        ),
    ),
)
