"""cost: whether what is paid for works; prices themselves are in docs/infrastructure.md."""

from __future__ import annotations

from alerts.policy import Aggregation
from dashboards import widget as w
from dashboards.board import Board, Section
from dashboards.panel import Line, chart, gauge, number, of, percentiles, rate, words
from speakfit.engine.align import Aligner
from speakfit.engine.reduce import Reducer
from speakfit.metrics import (
    AUDIO,
    REAL_TIME_FACTOR,
    REQUESTS,
    WORKER_BUSY,
    WORKER_PROCESSES,
    WORKERS_ALIVE,
)

_HIGHEST = Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX)
_GROWTH = Aggregation(aligner=Aligner.ALIGN_RATE, reducer=Reducer.REDUCE_SUM)

_BUSY = Line(
    signal=of(WORKER_BUSY), by=of(WORKER_PROCESSES), aggregation=_HIGHEST, legend="at work"
)

BOARD = Board(
    id="cost",
    title="SpeakFit: cost",
    sections=(
        Section(
            title="Workers",
            subtitle="A GPU costs the same idle or busy: what it did for its hour is what counts.",
            panels=(
                number("Workers paid for", gauge(of(WORKERS_ALIVE))),
                number("Processes at work, of all", _BUSY),
                number("Audio a second", Line(signal=of(AUDIO), aggregation=_GROWTH)),
                chart("Share of processes at work", _BUSY),
                chart(
                    "Audio a second and process",
                    Line(
                        signal=of(AUDIO),
                        by=of(WORKER_PROCESSES),
                        aggregation=_GROWTH,
                        by_aggregation=_HIGHEST,
                        unit_shown="s/s",
                    ),
                ),
                chart(
                    "Workers over the day",
                    Line(
                        signal=of(WORKERS_ALIVE),
                        aggregation=_HIGHEST,
                        plot=w.PlotType.STACKED_BAR,
                    ),
                ),
                percentiles("Time as a share of the audio's length", of(REAL_TIME_FACTOR)),
            ),
        ),
        Section(
            title="API",
            subtitle="Cloud Run bills its instances by time; requests say what they did.",
            panels=(rate("Requests", of(REQUESTS)),),
        ),
        Section(
            title="Prices",
            folded=True,
            panels=(
                words(
                    "What it costs",
                    "`python -m speakfit_ops.infra cost` has the dated prices of every size. A "
                    "share at work that stays low means fewer workers; a queue that grows while "
                    "all work means more.",
                ),
            ),
        ),
    ),
)
