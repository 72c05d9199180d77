"""A catalog of somebody else, small enough to read in a transcript."""

from __future__ import annotations

from pathlib import Path

_TEXT = """
from datetime import timedelta

from alerts.policy import (
    Aggregation, Aligner, Catalog, Channel, ChannelType, Guidance, MissingData, Policy, Reducer,
    Route, Severity, Signal, Threshold,
)
from speakfit.metrics import QUEUE_DEPTH, WORKERS_ALIVE


def policy(subject, metric, **limit):
    return Policy(
        subject=subject,
        severity=Severity.WARNING,
        title=subject.capitalize(),
        owner="team",
        guidance=Guidance(meaning="MEANING", users_feel="Pain.", first_steps=("Look.",)),
        conditions=(
            Threshold(
                key=subject,
                signal=Signal(metric=metric, resource_type="generic_task"),
                aggregation=Aggregation(aligner=Aligner.ALIGN_MAX, reducer=Reducer.REDUCE_MAX),
                duration=timedelta(minutes=5),
                missing_data=MissingData.KEEPS,
                **limit,
            ),
        ),
    )


CATALOG = Catalog(
    name="NAME",
    metrics=(QUEUE_DEPTH, WORKERS_ALIVE),
    routes=(
        Route(
            severity=Severity.WARNING,
            channel=Channel(
                id="team",
                display_name="Team",
                type=ChannelType.PAGERDUTY,
                secret="PAGERDUTY_ROUTING_KEY_WARNING",
            ),
        ),
    ),
    policies=(POLICIES),
)
"""


def write_team(
    folder: Path,
    *,
    depth: float = 100,
    subjects: tuple[str, ...] = ("depth", "workers"),
    name: str = "team",
    guidance: str = "It is bad.",
) -> None:
    """Write the module `team`: queue depth above a limit, fewer than one worker, and others."""
    known = {
        "depth": f"policy('depth', QUEUE_DEPTH, above={depth}),",
        "workers": "policy('workers', WORKERS_ALIVE, below=1),",
        "idle": "policy('idle', QUEUE_DEPTH, below=1),",
        "gone": "policy('gone', QUEUE_DEPTH, above=1),",
    }
    policies = "".join(known[subject] for subject in subjects)
    text = _TEXT.replace("NAME", name).replace("POLICIES", policies).replace("MEANING", guidance)
    (folder / "team.py").write_text(text, encoding="utf-8")
