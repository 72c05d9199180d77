"""objectives: what users may expect over a month, and how fast the rest is used up.

The goals are ours; the founding document names none. Burn rates and their lines are derived from
goal, period and window (SRE workbook, chapter 5). Nothing here pages: the policies do.
"""

from __future__ import annotations

from alerts.objective import AvailabilitySlo, Slo
from alerts.policies.api_errors import FEWEST_ERRORS
from alerts.policy import Guidance
from dashboards.board import Board, Section
from dashboards.panel import budget, burn, of, words
from speakfit.metrics import CHUNKS, REQUESTS, Outcome

ANSWERED = AvailabilitySlo(
    subject="api-availability",
    title="Requests answered",
    goal=0.995,
    bad=of(REQUESTS, status_class="5xx"),
    total=of(REQUESTS),
    guidance=Guidance(
        meaning="Requests end in 5xx.",
        users_feel="Uploads or transcripts fail with an error message.",
        first_steps=("Follow the runbook of api-errors.",),
    ),
    owner="platform",
    fewest_bad=FEWEST_ERRORS,
    runbook="api-errors",
)
TRANSCRIBED = Slo(
    subject="transcription-success",
    title="Chunks transcribed",
    goal=0.99,
    bad=of(CHUNKS, outcome=Outcome.FAILED),
    total=of(CHUNKS),
    guidance=Guidance(
        meaning="Attempts at chunks fail.",
        users_feel="Transcripts come late, or a recording fails.",
        first_steps=("Follow the runbook of dead-letters.",),
    ),
    owner="platform",
    fewest_bad=FEWEST_ERRORS,
    runbook="dead-letters",
)

OBJECTIVES: tuple[Slo, ...] = (ANSWERED, TRANSCRIBED)

BOARD = Board(
    id="objectives",
    title="SpeakFit: objectives and error budgets",
    sections=(
        Section(
            title="Spent in a day",
            subtitle="Red: more than the goal allows; a month of such days misses it.",
            panels=tuple(budget(slo) for slo in OBJECTIVES),
        ),
        *(
            Section(
                title=slo.title,
                subtitle=f"Goal: {slo.goal:.4g} of all over {slo.period.days} days.",
                panels=tuple(burn(slo, window) for window in slo.windows),
            )
            for slo in OBJECTIVES
        ),
        Section(
            title="How to read this",
            folded=True,
            panels=(
                words(
                    "Error budgets",
                    "What the goal leaves over is the budget. A line shows the share of bad "
                    "events at which a fixed part of the month's budget is gone within the window "
                    "of the chart (SRE workbook, chapter 5). Above the line of the shortest "
                    "window somebody should act now, above that of the longest one this week.",
                ),
            ),
        ),
    ),
)
